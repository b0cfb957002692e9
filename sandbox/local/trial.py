"""Trying whether boxes can be made on this machine, before anybody needs one: a box like any other, left at once."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from greenroom.actors.errors import SandboxUnavailable
from greenroom.sandbox.backend import BoxSpec
from greenroom.sandbox.local.boxes import Boxes
from greenroom.sandbox.local.mounts import Place
from greenroom.sandbox.local.place import MODULES, TAIL, why_no_namespaces
from greenroom.sandbox.scopes import Groups

SECONDS: Final = 60.0
"""From a cold page cache an interpreter takes its time."""

NO_NESTING: Final = 3

PROGRAM: Final = f"""\
import importlib.util, subprocess, sys
import greenroom.sandbox.image
for name in {MODULES!r}:
    if importlib.util.find_spec(name) is None:
        sys.exit("module " + name + " is not found")
if subprocess.run(["unshare", "--user", "--pid", "--net", "--fork", "true"]).returncode:
    sys.exit({NO_NESTING})
"""
"""Whether the tool server would start, and the browser could have a sandbox of its own in the box."""


def try_a_box(place: Place, groups: Groups | None) -> None:
    """Make one and end it. Raises `SandboxUnavailable`, which says what is wrong and what to do."""
    boxes = Boxes(place, groups, lambda _: None)
    try:
        with TemporaryDirectory(prefix="greenroom-") as folder:
            spec = BoxSpec(
                lease=secrets.token_hex(16), owner="trial", kind="base", token="", directory=Path(folder)
            )
            child = boxes.try_out(spec, ("-P", "-s", "-c", PROGRAM), SECONDS)
    except SandboxUnavailable as error:
        raise SandboxUnavailable(why_no_namespaces(str(error))) from error
    finally:
        boxes.close()
    if child.status == NO_NESTING:
        raise SandboxUnavailable(
            f"a browser in a box could not have user namespaces, which its own sandbox is made of: "
            f"{why_no_namespaces(child.last_words)}"
        )
    if child.status != 0:
        seen = os.pathsep.join(map(str, (*place.folders, *place.imports))) or place.python
        raise SandboxUnavailable(
            f"the tool server does not start in a box ({child.last_words or 'it said nothing'}). A box's user is not "
            f"root: what it needs must be readable by all: {seen}{TAIL}"
        )
