"""What is written down of the boxes on this machine, one small file each, so that those who come after a crash know
what to look for. A record is there before its box and goes after it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from greenroom.sandbox.local.processes import Process, alive
from greenroom.sandbox.places import private_folder, run_folder

BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


class Record(Struct, frozen=True, kw_only=True):
    """One box. `boot`: in which life of the machine; `first`: the process that all others are below, none until it is
    there; `watching`: bubblewrap's own outside of it."""

    lease: str
    owner: str
    boot: str
    bare: bool = False
    """Without isolation."""
    first: Process | None = None
    watching: Process | None = None

    @property
    def running(self) -> bool:
        """Whether the box lives."""
        return self.boot == boot() and self.first is not None and alive(self.first)


class Records:
    """The records of all boxes of this user."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    @property
    def folder(self) -> Path:
        """Made at first use."""
        if self._folder is None:
            private_folder(run_folder())
            self._folder = private_folder(run_folder() / "local")
        return self._folder

    def write(self, record: Record) -> None:
        """Write down a box, or what has become known of it, all or nothing."""
        unfinished = self.folder / f".{record.lease}"
        unfinished.write_bytes(msgspec.json.encode(record))
        unfinished.replace(self._file(record.lease))

    def read(self, lease: str) -> Record | None:
        """None when there is no such box."""
        try:
            return msgspec.json.decode(self._file(lease).read_bytes(), type=Record)
        except FileNotFoundError:
            return None

    def all(self) -> list[Record]:
        """Of all boxes, whoever made them."""
        found = (self.read(file.stem) for file in sorted(self.folder.glob("*.json")))
        return [record for record in found if record is not None]

    def erase(self, lease: str) -> None:
        """The box is gone."""
        self._file(lease).unlink(missing_ok=True)

    def _file(self, lease: str) -> Path:
        return self.folder / f"{os.path.basename(lease)}.json"  # noqa: PTH119 - a lease is a name, never a path


def boot() -> str:
    """This life of the machine."""
    return BOOT.read_text().strip()
