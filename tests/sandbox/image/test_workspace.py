"""No path, link or race leads out of the workspace."""

import ctypes
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from greenroom.sandbox.image.workspace import OutsideWorkspace, TooMany, Workspace, names_of

AT_FDCWD = -100
RENAME_EXCHANGE = 2
RACE_SECONDS = 10.0
BOTH = {"done", "NotADirectoryError"}

SECRET = b"the secret outside"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A workspace, what lies beside it, and links that lead out."""
    return furnish(tmp_path)


def furnish(base: Path) -> Path:
    # No link here leads out of the test's own folder: were the code wrong, these tests would remove what it leads to.
    root = base / "workspace"
    (root / "inner").mkdir(parents=True)
    (root / "inner" / "file").write_bytes(b"inside")
    for outside in (base / "outside", base / "workspace-evil"):
        outside.mkdir()
        (outside / "secret").write_bytes(SECRET)
        (outside / "folder").mkdir()
    (root / "out").symlink_to(base / "outside")
    (root / "out-relative").symlink_to("../outside")
    (root / "secret").symlink_to(base / "outside" / "secret")
    (root / "inner" / "up").symlink_to("..")
    (root / "inner" / "base").symlink_to("../..")
    (root / "self").symlink_to("self")
    return root


def outside_of(root: Path) -> dict[str, bytes | None]:
    """What lies beside the workspace: nothing may change it."""
    return {
        str(path): path.read_bytes() if path.is_file() else None
        for place in ("outside", "workspace-evil")
        for path in sorted((root.parent / place).rglob("*"))
    } | {str(path): None for path in root.parent.iterdir()}


@pytest.fixture
def workspace(folder: Path) -> Iterator[Workspace]:
    workspace = Workspace(str(folder))
    yield workspace
    workspace.close()


def read(workspace: Workspace, path: str) -> bytes:
    file, _ = workspace.open_file(workspace.names(path))
    with file:
        return file.read()


def write(workspace: Workspace, path: str, data: bytes = b"written") -> None:
    with workspace.replacing(workspace.names(path)) as file:
        file.write(data)


OPERATIONS: dict[str, Callable[[Workspace, str], Any]] = {
    "read": read,
    "write": write,
    "list": lambda workspace, path: workspace.entries(workspace.names(path), 5),
    "exists": lambda workspace, path: workspace.exists(workspace.names(path)),
    "remove": lambda workspace, path: workspace.remove(workspace.names(path)),
    "move away": lambda workspace, path: workspace.move(workspace.names(path), workspace.names("moved")),
    "move here": lambda workspace, path: workspace.move(workspace.names("inner/file"), workspace.names(path)),
    "mkdir": lambda workspace, path: workspace.make_folder(workspace.names(path)),
}

# ------------------------------------------------------------------------------------------------------ paths as words


@given(st.text(alphabet="ab./\\~ \0-é", max_size=30))
@example("/workspace-evil/secret")
@example("//workspace/a")
@example("/workspace/../workspace-evil")
def test_a_path_leads_below_the_root_or_is_refused(path: str) -> None:
    try:
        names = names_of(path, "/workspace")
    except (OutsideWorkspace, ValueError):
        return
    assert all(name not in {"", ".", ".."} and "/" not in name and "\0" not in name for name in names)
    # It says the same as the words do where there are no links.
    said = os.path.normpath(os.path.join("/workspace", path))  # noqa: PTH118 (pathlib leaves `..` in)
    assert said.lstrip("/") == "/".join(("workspace", *names))


@given(st.lists(st.sampled_from(["a", "b", "c d", "..."]), max_size=5))
def test_relative_and_absolute_paths_mean_the_same(parts: list[str]) -> None:
    path = "/".join(parts)

    assert names_of(path, "/workspace") == tuple(parts)
    assert names_of(f"/workspace/{path}", "/workspace") == tuple(parts)


@pytest.mark.parametrize(
    "path",
    ["..", "../x", "a/../../x", "/", "/etc/passwd", "/workspace-evil", "/workspace/..", "/works", "//etc"],
)
def test_paths_out_are_refused(path: str) -> None:
    with pytest.raises(OutsideWorkspace):
        names_of(path, "/workspace")


# ------------------------------------------------------------------------------------------------------ links

OUT = [
    "out",
    "out-relative",
    "secret",
    "inner/up",
    "inner/base",
    "self",
    "inner/up/inner",
    "inner/base/outside",
]
SEEN = [
    f"{link}/{rest}" for link in OUT for rest in ("secret", "folder", "new", "inner/file", "outside/secret")
]


@pytest.mark.parametrize("path", [*OUT, *SEEN])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_links_lead_nowhere(workspace: Workspace, folder: Path, operation: str, path: str) -> None:
    before = outside_of(folder)
    try:
        result = OPERATIONS[operation](workspace, path)
    except OSError:
        result = None

    assert outside_of(folder) == before
    assert result != SECRET
    if operation == "list":
        assert not result


def test_a_link_can_be_seen_removed_moved_and_overwritten_itself(workspace: Workspace, folder: Path) -> None:
    kinds = {entry["name"]: entry["type"] for entry in workspace.entries((), 1)}
    assert kinds["out"] == kinds["secret"] == kinds["self"] == "symlink"

    workspace.move(("out",), ("inner", "moved"))
    assert (folder / "inner" / "moved").is_symlink()
    workspace.remove(("inner", "moved"))
    write(workspace, "secret", b"a file of its own")

    assert not (folder / "inner" / "moved").is_symlink()
    assert (folder / "secret").read_bytes() == b"a file of its own"
    assert not (folder / "secret").is_symlink()
    assert (folder.parent / "outside" / "secret").read_bytes() == SECRET


names = st.sampled_from(["a", "b", "out", "up", "inner", "secret", "outside", "."])
paths = st.lists(names, min_size=1, max_size=6).map("/".join)
changes = st.one_of(
    st.tuples(st.sampled_from(sorted(OPERATIONS)), paths),
    st.tuples(
        st.just("link"), st.tuples(st.sampled_from("ab"), st.sampled_from(["..", "../outside", "inner", "."]))
    ),
)


@given(st.lists(changes, max_size=12))
def test_no_sequence_of_operations_touches_what_is_outside(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Any]]
) -> None:
    folder = furnish(tmp_path_factory.mktemp("case"))
    before = outside_of(folder)
    workspace = Workspace(str(folder))
    try:
        for operation, given_ in steps:
            try:
                if operation == "link":
                    (folder / given_[0]).symlink_to(given_[1])
                else:
                    assert OPERATIONS[operation](workspace, given_) != SECRET
            except (OSError, OutsideWorkspace):
                continue
        assert outside_of(folder) == before
    finally:
        workspace.close()
        shutil.rmtree(folder.parent)


# ------------------------------------------------------------------------------------------------------ races


@pytest.mark.parametrize("operation", ["read", "write", "list", "remove", "mkdir"])
def test_a_folder_that_becomes_a_link_under_way_leads_nowhere(
    workspace: Workspace, folder: Path, operation: str
) -> None:
    """Somebody in the box exchanges a folder for a link to the outside, over and over."""
    before = outside_of(folder)
    (folder / "swap").mkdir()
    (folder / "swap" / "secret").write_bytes(b"inside")
    (folder / "link").symlink_to(folder.parent / "outside")
    over = threading.Event()

    libc = ctypes.CDLL(None, use_errno=True)
    both = [os.fsencode(folder / name) for name in ("swap", "link")]

    def exchange() -> None:
        while not over.is_set():
            assert libc.renameat2(AT_FDCWD, both[0], AT_FDCWD, both[1], RENAME_EXCHANGE) == 0

    swapping = threading.Thread(target=exchange)
    swapping.start()
    answers: set[str] = set()
    path = {"list": "swap", "mkdir": "swap/new"}.get(operation, "swap/secret")
    try:
        deadline = time.monotonic() + RACE_SECONDS
        tries = 0
        while tries < 300 or (answers != BOTH and time.monotonic() < deadline):
            tries += 1
            try:
                result = OPERATIONS[operation](workspace, path)
            except OSError as error:
                answers.add(type(error).__name__)
            else:
                answers.add("done")
                assert result != SECRET
                if operation == "list":
                    assert "folder" not in {entry["name"] for entry in result}
    finally:
        over.set()
        swapping.join()
    assert outside_of(folder) == before
    assert answers == BOTH or operation == "remove"


# ------------------------------------------------------------------------------------------------------ files


def test_what_was_written_is_read(workspace: Workspace, folder: Path) -> None:
    write(workspace, "new/deep/file", b"first")
    write(workspace, "new/deep/file", b"second")

    assert read(workspace, f"{folder}/new/deep/file") == b"second"
    assert [entry["name"] for entry in workspace.entries(("new",), 9)] == ["deep", "file"]


def test_a_file_that_breaks_off_leaves_the_old_one(workspace: Workspace, folder: Path) -> None:
    replacing = workspace.replacing(("inner", "file"))
    replacing.__enter__().write(b"half")
    assert not replacing.__exit__(RuntimeError, RuntimeError(), None)

    assert (folder / "inner" / "file").read_bytes() == b"inside"
    assert sorted(path.name for path in (folder / "inner").iterdir()) == ["base", "file", "up"]


def test_a_script_stays_one_when_it_is_written_anew(workspace: Workspace, folder: Path) -> None:
    (folder / "run").write_text("old")
    (folder / "run").chmod(0o750)
    write(workspace, "run", b"new")

    assert (folder / "run").stat().st_mode & 0o777 == 0o750


def test_pipes_and_folders_are_no_files(workspace: Workspace, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    for path, error in (("pipe", PermissionError), ("inner", IsADirectoryError), (".", IsADirectoryError)):
        with pytest.raises(error):
            read(workspace, path)
    with pytest.raises(IsADirectoryError):
        write(workspace, "inner")


def test_the_workspace_itself_stays(workspace: Workspace, folder: Path) -> None:
    for operation in ("remove", "move away", "move here"):
        with pytest.raises(PermissionError):
            OPERATIONS[operation](workspace, "inner/..")

    assert workspace.make_folder(()) is False
    assert (folder / "inner" / "file").exists()


def test_listings_go_as_deep_as_asked_and_are_bounded(workspace: Workspace, folder: Path) -> None:
    (folder / "x" / "y" / "z").mkdir(parents=True)

    def listed(depth: int) -> list[str]:
        return [Path(entry["path"]).name for entry in workspace.entries(("x",), depth)]

    assert (listed(1), listed(2), listed(99)) == (["y"], ["y", "z"], ["y", "z"])

    for number in range(10_001):
        (folder / "x" / f"{number}").touch()
    with pytest.raises(TooMany):
        workspace.entries(("x",), 1)


def test_entries_tell_kind_size_and_time(workspace: Workspace, folder: Path) -> None:
    os.utime(folder / "inner" / "file", ns=(0, 1_700_000_000_123_000_000))

    assert workspace.entry(("inner", "file")) == {
        "path": f"{folder}/inner/file",
        "name": "file",
        "type": "file",
        "size": 6,
        "mtime_ms": 1_700_000_000_123,
    }
    assert workspace.entry(())["type"] == "dir"


def test_names_that_are_no_text_can_be_told(workspace: Workspace, folder: Path) -> None:
    (folder / os.fsdecode(b"odd\xff")).mkdir()

    assert "odd?" in [entry["name"] for entry in workspace.entries((), 1)]


def test_everything_can_be_cleared(workspace: Workspace, folder: Path) -> None:
    before = outside_of(folder)
    workspace.clear()

    assert list(folder.iterdir()) == []
    assert outside_of(folder) == before
