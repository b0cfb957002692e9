"""What a process finds of a box that another one had: its directory, its key, its sockets; and who else is there."""

import stat
import tempfile
from pathlib import Path

import pytest

from greenroom.actors.errors import SandboxLost
from greenroom.sandbox.box_folders import BoxFolders
from greenroom.sandbox.box_sockets import FOR_US, listening_socket, remove_socket
from greenroom.sandbox.owners import Owners
from kits.keeping import short_folder

LEASE = "0" * 32


async def test_a_key_lies_beside_the_directory_for_its_user_alone_and_goes_with_it() -> None:
    async with short_folder() as folder:
        folders = BoxFolders(folder)
        directory = await folders.make(LEASE, "first")
        await folders.keep_key(LEASE, "secret")
        holding = [path for path in folder.rglob("*") if path.is_file() and path.read_text() == "secret"]
        assert [stat.S_IMODE(path.stat().st_mode) for path in holding] == [0o600]
        assert directory not in holding[0].parents  # which the box sees
        assert await folders.take_over(LEASE, "second") == (directory, "secret")
        assert await folders.all() == {LEASE: "second"}
        await folders.remove(LEASE)
        assert not [path for path in folder.rglob("*") if path.is_file()]
        with pytest.raises(SandboxLost):
            await folders.take_over(LEASE, "third")


async def test_a_box_whose_key_was_not_kept_cannot_be_taken_over() -> None:
    async with short_folder() as folder:
        folders = BoxFolders(folder)
        await folders.make(LEASE, "first")
        with pytest.raises(SandboxLost, match="nothing leads to it"):
            await folders.take_over(LEASE, "second")
        assert await folders.all() == {LEASE: "first"}


def test_who_had_a_socket_does_not_remove_that_of_who_took_over() -> None:
    with tempfile.TemporaryDirectory(prefix="gr-") as folder:
        path = Path(folder) / "egress.sock"
        first, file = listening_socket(path, FOR_US)
        second, other = listening_socket(path, FOR_US)
        first.close()
        remove_socket(path, file)
        assert path.exists()
        second.close()
        remove_socket(path, other)
        assert not path.exists()


async def test_company_is_who_lives_and_has_boxes_in_the_same_place(tmp_path: Path) -> None:
    ours, same, elsewhere = (Owners(tmp_path / "owners") for _ in range(3))
    await ours.enter("here")
    await elsewhere.enter("there")
    assert not await ours.company()
    await same.enter("here")
    assert await ours.company()
    await ours.leave(all_gone=False)
    assert await ours.company()  # after it left, too
    assert not await elsewhere.company()
    await same.leave(all_gone=False)  # what is dead is none
    assert not await ours.company()
    await elsewhere.leave(all_gone=True)
