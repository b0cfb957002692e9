"""Running a part of the tests as an ordinary user, where the suite runs as root."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import greenroom

USER = 23_456
"""Nobody."""

TESTS = Path(__file__).resolve().parents[1]


def as_other_user(command: Sequence[str]) -> list[str]:
    """The command for that user, who can read the interpreter, the environment and the tests wherever these are.

    They may be in folders that nobody but root passes through: in a mount namespace of the command's own, there are
    others in their place, with nothing else in them.
    """
    package = Path(greenroom.__file__).resolve().parents[1]
    trees = {Path(sys.prefix), Path(sys.base_prefix), TESTS.parent, package}
    trees |= {path.resolve() for path in trees}
    trees = {part for tree in trees for part in _parts(tree)}
    shut = {path for path in map(_shut, trees) if path is not None}
    binds = [word for tree in sorted(trees) if _shut(tree) for word in _shown(tree)]
    emptied = [word for path in sorted(shut) for word in ("--perms", "0755", "--tmpfs", str(path))]
    bwrap = [str(shutil.which("bwrap")), "--die-with-parent", "--dev-bind", "/", "/", *emptied, *binds]
    user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--bounding-set=-all"]
    return [*bwrap, "--chdir", str(TESTS.parent), "--", *user, "--inh-caps=-all", "--", *command]


def environment(home: Path) -> dict[str, str]:
    """What that user's commands run with; the folder is given to him."""
    home.mkdir(exist_ok=True)
    os.chown(home, USER, USER)
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "TMPDIR": str(home),
        "USER": "visitor",
        "LANG": "C.UTF-8",
        "GREENROOM_RUN": str(home / "run"),
        "GREENROOM_STATE": str(home / "state"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _shut(path: Path) -> Path | None:
    """The first folder on the way to it through which others do not pass."""
    for above in [*reversed(path.parents), path]:
        if not above.stat().st_mode & stat.S_IXOTH:
            return above
    return None


def _parts(tree: Path) -> Iterable[Path]:
    """The tree, or what is in it where others do not pass through its own folder, which then is made anew."""
    return [path for path in tree.iterdir() if path.exists()] if _shut(tree) == tree else [tree]


def _shown(tree: Path) -> Iterator[str]:
    for above in reversed(tree.parents):
        if above != Path("/"):
            yield from ("--perms", "0755", "--dir", str(above))
    yield from ("--ro-bind", str(tree), str(tree))
