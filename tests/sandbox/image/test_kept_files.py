"""Files of the workspace that the browser reads and writes stay in it."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.sandbox.image.answers import ToolError
from greenroom.sandbox.image.kept_files import UPLOAD_BYTES, file_name, keep_download, read_upload, write_file


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    (tmp_path / "workspace-evil").mkdir()
    (tmp_path / "workspace-evil" / "secret").write_text("secret")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "passwd").write_text("secret")
    return folder


def test_an_upload_is_read(workspace: Path) -> None:
    (workspace / "a").mkdir()
    (workspace / "a" / "b.txt").write_text("hello")
    for path in ("a/b.txt", "./a/b.txt", f"{workspace}/a/b.txt"):
        assert read_upload(workspace, path) == {"name": "b.txt", "mimeType": "text/plain", "buffer": b"hello"}


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("../secret", r"without '\.\.'"),
        ("a/../../secret", r"without '\.\.'"),
        ("/etc/passwd", "not in the workspace"),
        ("nothing.txt", "no such file"),
        ("", "no file's name"),
        (".", "no file's name"),
        ("folder", "is no file"),
        ("pipe", "is no file"),
        ("link", "a link"),
        ("linked/passwd", "a link"),
        ("loop", "a link"),
        ("a\0b", "without"),
        ("large", "too large"),
        ("x" * 300, "too long"),
    ],
)
def test_what_is_not_uploaded(workspace: Path, path: str, said: str) -> None:
    (workspace / "folder").mkdir()
    (workspace / "link").symlink_to(workspace.parent / "secret")
    (workspace / "linked").symlink_to(workspace.parent / "outside")
    (workspace / "loop").symlink_to("loop")
    os.mkfifo(workspace / "pipe")
    with (workspace / "large").open("wb") as file:
        file.truncate(UPLOAD_BYTES + 1)
    with pytest.raises(ToolError, match=said):
        read_upload(workspace, path)


def test_the_prefix_of_a_neighbour_is_not_the_workspace(workspace: Path) -> None:
    with pytest.raises(ToolError, match="not in the workspace"):
        read_upload(workspace, f"{workspace}-evil/secret")


def test_a_file_is_written_with_its_folders_and_over_an_old_one(workspace: Path) -> None:
    assert write_file(workspace, "a/b/c.png", b"longer") == workspace / "a/b/c.png"
    write_file(workspace, f"{workspace}/a/b/c.png", b"new")
    assert (workspace / "a/b/c.png").read_bytes() == b"new"


def test_links_are_not_written_through(workspace: Path) -> None:
    (workspace / "out").symlink_to(workspace.parent)
    (workspace / "file").symlink_to(workspace.parent / "secret")
    for path in ("out/new", "file"):
        with pytest.raises(ToolError, match="a link"):
            write_file(workspace, path, b"x")
    assert (workspace.parent / "secret").read_text() == "secret"
    assert not (workspace.parent / "new").exists()


def test_a_download_gets_a_free_name(workspace: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"data")
    kept = [keep_download(workspace, "x.tar.gz", source).name for _ in range(3)]
    assert kept == ["x.tar.gz", "x.tar-1.gz", "x.tar-2.gz"]
    assert all((workspace / "downloads" / name).read_bytes() == b"data" for name in kept)


def test_a_download_is_not_kept_through_a_link(workspace: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"data")
    (workspace / "downloads").symlink_to(tmp_path)
    with pytest.raises(ToolError, match="a link"):
        keep_download(workspace, "x", source)


@pytest.mark.parametrize(
    ("suggested", "name"),
    [
        ("report.csv", "report.csv"),
        ("../../etc/passwd", "_.._etc_passwd"),
        (".bashrc", "bashrc"),
        ("a\nb\\c", "a_b_c"),
        ("", "download"),
        ("...", "download"),
    ],
)
def test_names_of_downloads(suggested: str, name: str) -> None:
    assert file_name(suggested) == name


@given(st.text(max_size=400))
def test_any_name_is_made_one_of_a_file(suggested: str) -> None:
    name = file_name(suggested)
    assert name
    assert len(name.encode(errors="surrogatepass")) <= 120
    assert name == Path(name).name
    assert not name.startswith(".")
