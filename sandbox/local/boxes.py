"""The boxes of this machine, as plain blocking code: made with bubblewrap, written down, found again, ended.

A box is bubblewrap's process outside (`watching`), the first process of a PID namespace (`first`), and all below it.
When the first one ends, by whatever hand, the kernel ends the others before it counts as ended. It ends when the one
outside does, and that one ends with the process that started it.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from msgspec import structs

from greenroom.actors.errors import SandboxLost, SandboxUnavailable
from greenroom.sandbox.backend import (
    API_SOCKET,
    BOX_SECONDS,
    EGRESS_SOCKET,
    TOKEN_FILE,
    BoxAddress,
    BoxSpec,
    FoundBox,
)
from greenroom.sandbox.local.mounts import BOX, COMPILED, Place, environment, world
from greenroom.sandbox.local.processes import Process, continue_all, end, marked, process_of, stop_all
from greenroom.sandbox.local.records import Record, Records, boot
from greenroom.sandbox.local.spawn import Child, Spawner, high
from greenroom.sandbox.local.users import bounds, box_user
from greenroom.sandbox.scopes import Groups

log = logging.getLogger(__name__)

SERVER: Final = ("-P", "-s", "-m", "greenroom.sandbox.image")
"""The tool server, for the interpreter; without modules from the workspace or the box's home."""

MARK: Final = "GREENROOM_LEASE"
"""Of the environment of boxes without isolation: their processes are found by it, whatever became of their parents."""

END_SECONDS: Final = 10.0
"""How long killed processes may take to be gone."""

STARTED: Final = b"started\n"
INSIDE: Final = 'echo started; exec "$@" >&2'
"""The first thing that runs in a box: tells that its world could be made."""

GONE: Final = "sandbox {} is gone, with all that was in it"

FIRST: Final = re.compile(rb'"child-pid": *(\d+)')


class Boxes:
    """Makes and ends them. Its methods block, for some tens of milliseconds, and may be called from any thread."""

    def __init__(self, place: Place, groups: Groups | None, ended: Callable[[str], None]) -> None:
        self._place = place
        self._groups = groups
        self._spawner = Spawner(ended)
        self._records = Records()

    def __repr__(self) -> str:
        return f"<Boxes: {self._spawner!r}>"

    def close(self) -> None:
        """Make no more; what is there stays."""
        self._spawner.close()

    def make(self, spec: BoxSpec) -> BoxAddress:
        """Start a box that runs the tool server. Raises `SandboxUnavailable`."""
        record = Record(lease=spec.lease, owner=spec.owner, boot=boot(), bare=not self._place.bubblewrap)
        self._records.write(record)
        try:
            files = self._groups.make(spec.lease, spec.limits) if self._groups else []
            groups = [str(file) for file in files]
            if record.bare:
                return self._make_bare(spec, record, groups)
            compiled = ["-X", f"pycache_prefix={COMPILED}"] if self._place.compiled else []
            first, child = self._make_isolated(spec, record, groups, [*compiled, *SERVER])
        except OSError as error:
            raise SandboxUnavailable(f"a sandbox cannot be made on this machine: {error}") from error
        # By way of the box's own root: its directory is in its memory, and nobody else can put anything there.
        inside = Path(f"/proc/{first.pid}/root") / BOX.relative_to("/")
        return _listening(child, BoxAddress(token=spec.token, socket=inside / API_SOCKET))

    def try_out(self, spec: BoxSpec, command: Sequence[str], seconds: float) -> Child:
        """Run a command of Python's in a box, for so long at most; it has ended then. Raises `SandboxUnavailable`."""
        record = Record(lease=spec.lease, owner=spec.owner, boot=boot())
        self._records.write(record)
        try:
            files = self._groups.make(spec.lease, spec.limits) if self._groups else []
            _, child = self._make_isolated(spec, record, [str(file) for file in files], command)
            child.ended.wait(seconds)
        except OSError as error:
            raise SandboxUnavailable(f"a sandbox cannot be made on this machine: {error}") from error
        finally:
            self.remove(spec.lease)
        child.ended.wait(seconds)
        return child

    def remove(self, lease: str) -> None:
        """End a box, whoever made it, and what is left of it."""
        record = self._records.read(lease)
        if record is not None and record.boot == boot():
            self._end(record)
        if self._groups is not None:
            self._groups.remove(lease)
        self._records.erase(lease)

    def all(self) -> list[FoundBox]:
        """All boxes of this user, and what is left of some."""
        return [FoundBox(record.lease, record.owner, record.running) for record in self._records.all()]

    def pause(self, lease: str) -> None:
        """Stop its processes. Raises `SandboxLost`."""
        if not stop_all(self._first_of(lease)):
            raise SandboxLost(GONE.format(lease[:8]))

    def resume(self, lease: str) -> None:
        """Let them run on. Raises `SandboxLost`."""
        if not continue_all(self._first_of(lease)):
            raise SandboxLost(GONE.format(lease[:8]))

    def first(self, lease: str) -> Process | None:
        """The process that all others of the box are below."""
        record = self._records.read(lease)
        return None if record is None else record.first

    # ------------------------------------------------------------------------------------------------- with isolation

    def _make_isolated(
        self, spec: BoxSpec, record: Record, groups: Sequence[str], command: Sequence[str]
    ) -> tuple[Process, Child]:
        user = box_user(spec.lease)
        way_out = spec.directory / EGRESS_SOCKET
        if user is not None and way_out.exists():
            os.chown(way_out, user, user)
        made = world(self._place, spec, user)
        limits = bounds(spec.limits, self._groups, user)
        with ExitStack() as kept:
            with (
                ExitStack() as handed
            ):  # closed as soon as the other side has them, or reading would have no end
                told, telling = _pipe(kept, handed)
                heard, saying = _pipe(kept, handed)
                files = [_in_memory(content, handed) for content in made.files]
                arguments = [_filled_in(argument, files) for argument in made.arguments]
                files += [telling, _in_memory("\0".join([*arguments, ""]).encode(), handed)]
                scope = self._groups.before(spec.lease, spec.limits) if self._groups else []
                outer = [
                    *scope,
                    self._place.bubblewrap,
                    "--args",
                    str(files[-1]),
                    "--info-fd",
                    str(telling),
                    "--",
                ]
                inner = ["sh", "-c", INSIDE, "sh", *limits, self._place.python, *command]
                child = self._spawner.start(
                    spec.lease,
                    [*outer, *inner],
                    environ=_little(self._groups.needed if self._groups else ()),
                    groups=groups,
                    files=files,
                    output=saying,
                ).result()
            return self._begun(record, child, told, heard)

    def _begun(self, record: Record, child: Child, told: int, heard: int) -> tuple[Process, Child]:
        """Wait until the box's world is made, and write down its first process."""
        number = FIRST.search(_read(told, until=b"}"))
        first = process_of(int(number[1])) if number else None
        self._records.write(structs.replace(record, first=first, watching=child.process))
        if first is None or _read(heard, until=STARTED) != STARTED:
            end(child.process, END_SECONDS)
            child.ended.wait(END_SECONDS)
            raise SandboxUnavailable(
                child.last_words or "the sandbox ended while it was made, and did not say why"
            )
        return first, child

    # ---------------------------------------------------------------------------------------------- without isolation

    def _make_bare(self, spec: BoxSpec, record: Record, groups: Sequence[str]) -> BoxAddress:
        """The opt-in: the tool server as a process like any other of this user."""
        log.warning("sandbox %s runs WITHOUT ISOLATION: its pages run as this user", spec.lease[:8])
        token, workspace = spec.directory / TOKEN_FILE, spec.directory / "workspace"
        workspace.mkdir(mode=0o700, exist_ok=True)
        token.touch(mode=0o600)
        token.write_text(spec.token)
        environ = {
            **environment(self._place, spec),
            "GREENROOM_BOX": str(spec.directory),
            "GREENROOM_BOX_RELAY": "0",
            "GREENROOM_BOX_NO_SANDBOX": "1",
            "WORKSPACE_DIR": str(workspace),
            "PYTHONPATH": os.pathsep.join([str(self._place.image.parents[2]), *sys.path]),
            "HOME": str(workspace),
            MARK: spec.lease,
        }
        command = [self._place.python, *SERVER]
        child = self._spawner.start(spec.lease, command, environ=environ, groups=groups).result()
        self._records.write(structs.replace(record, first=child.process))
        return _listening(child, BoxAddress(token=spec.token, socket=spec.directory / API_SOCKET))

    # ------------------------------------------------------------------------------------------------------------ end

    def _end(self, record: Record) -> None:
        ended = [end(process, END_SECONDS) for process in (record.first, record.watching) if process]
        if record.bare:
            while left := marked(f"{MARK}={record.lease}"):
                ended += [end(process, END_SECONDS) for process in left]
        if not all(ended):
            log.warning("processes of sandbox %s do not end, though they were killed", record.lease[:8])

    def _first_of(self, lease: str) -> Process:
        first = self.first(lease)
        if first is None:
            raise SandboxLost(GONE.format(lease[:8]))
        return first


def _listening(child: Child, address: BoxAddress) -> BoxAddress:
    """Wait until the tool server has made its socket. Raises `SandboxUnavailable` when it ends before, and why."""
    deadline = time.monotonic() + BOX_SECONDS
    assert address.socket is not None
    while not child.ended.wait(0.005):
        if address.socket.is_socket() or time.monotonic() > deadline:
            return address
    raise SandboxUnavailable(
        f"the sandbox's tool server ended at its start: {child.last_words or 'it said nothing'}"
    )


def _little(needed: Sequence[str]) -> dict[str, str]:
    """The environment of bubblewrap itself: what is in it could be read in the box of an ordinary user."""
    return {"PATH": os.defpath} | {name: os.environ[name] for name in ("PATH", *needed) if name in os.environ}


def _pipe(kept: ExitStack, handed: ExitStack) -> tuple[int, int]:
    reading, writing = (high(file) for file in os.pipe())
    kept.callback(os.close, reading)
    handed.callback(os.close, writing)
    return reading, writing


def _in_memory(content: bytes, handed: ExitStack) -> int:
    file = high(os.memfd_create("greenroom-box", os.MFD_CLOEXEC))
    handed.callback(os.close, file)
    os.write(file, content)
    os.lseek(file, 0, os.SEEK_SET)
    return file


def _filled_in(argument: str, files: Sequence[int]) -> str:
    """`{3}` stands for the number of the fourth file."""
    return str(files[int(argument[1:-1])]) if re.fullmatch(r"\{\d+\}", argument) else argument


def _read(file: int, *, until: bytes) -> bytes:
    """What comes until and with that, or until there is no more."""
    found = b""
    while until not in found:
        piece = os.read(file, 4096)
        if not piece:
            break
        found += piece
    return found
