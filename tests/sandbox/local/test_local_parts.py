"""What the local backend is made of, without boxes: finding browsers, the world's arguments, programs of filters."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.actors.errors import SandboxUnavailable
from greenroom.sandbox.backend import EGRESS_SOCKET, BoxLimits, BoxSpec
from greenroom.sandbox.browsers import find_browser
from greenroom.sandbox.local.cgroups import Cgroups, find_cgroups
from greenroom.sandbox.local.compiled import compiled_modules
from greenroom.sandbox.local.mounts import Place, world
from greenroom.sandbox.local.place import find_place, image_package, without_private
from greenroom.sandbox.local.processes import Process
from greenroom.sandbox.local.seccomp import PROCESSORS, seccomp_program
from greenroom.sandbox.local.spawn import LOGGED, Child
from greenroom.sandbox.local.users import RANGE, SMALL_RANGE, bounds, told_bounds
from greenroom.sandbox.settings import SandboxSettings

PROFILE = image_package() / "seccomp.json"
ALLOWED, NOT_PERMITTED, NO_FAMILY = 0x7FFF0000, 0x50001, 0x50061

# ------------------------------------------------------------------------------------------------------------ browsers


def program(path: Path, text: str = "\x7fELF") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_browsers_are_found_in_this_order(tmp_path: Path) -> None:
    environ = {"PATH": str(tmp_path / "bin"), "PLAYWRIGHT_BROWSERS_PATH": str(tmp_path / "pw")}
    with pytest.raises(SandboxUnavailable, match="apt-get install chromium-headless-shell"):
        find_browser(None, environ)
    found = [
        program(tmp_path / "pw/chromium-1200/chrome-linux64/chrome"),
        program(tmp_path / "bin/google-chrome"),
        program(tmp_path / "bin/chromium"),
        program(tmp_path / "bin/chromium-headless-shell"),
        program(tmp_path / "pw/chromium_headless_shell-999/chrome-linux/headless_shell"),
        program(tmp_path / "pw/chromium_headless_shell-1200/chrome-linux/headless_shell"),
    ]
    for path in reversed(found):
        browser = find_browser(None, environ)
        assert browser.program == path.resolve()
        assert browser.folder == path.parent.resolve()
        path.unlink()


def test_a_browser_that_is_named_is_taken_or_nothing(tmp_path: Path) -> None:
    own = program(tmp_path / "own")
    assert find_browser(str(own), {"PATH": ""}).program == own.resolve()
    assert find_browser(None, {"GREENROOM_SANDBOX_BROWSER": str(own)}).program == own.resolve()
    program(tmp_path / "bin/chromium")
    with pytest.raises(SandboxUnavailable, match="there is no program '/nowhere/browser'"):
        find_browser("/nowhere/browser", {"PATH": str(tmp_path / "bin")})


def test_a_browser_of_a_snap_is_passed_over(tmp_path: Path) -> None:
    program(tmp_path / "bin/chromium-browser", "#!/bin/sh\nexec /snap/bin/chromium $@\n")
    chrome = program(tmp_path / "bin/google-chrome")
    environ = {"PATH": str(tmp_path / "bin"), "PLAYWRIGHT_BROWSERS_PATH": str(tmp_path)}
    assert find_browser(None, environ).program == chrome.resolve()


# ----------------------------------------------------------------------------------------------------------- the world


def a_spec(folder: Path) -> BoxSpec:
    return BoxSpec(lease="ab" * 16, owner="o", kind="browser", token="the-token", directory=folder)


def a_place(folder: Path) -> Place:
    return Place(
        bubblewrap="/usr/bin/bwrap",
        python="/opt/env/bin/python",
        folders=(folder,),
        imports=(),
        image=folder,
        browser=Path("/opt/browser/chrome"),
    )


def test_a_link_to_the_interpreter_shows_no_box_the_home_it_lies_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    for name in (".ssh", "bin", ".local/bin", ".local/lib", ".local/share/keyrings", "env/bin"):
        (home / name).mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    assert without_private(home) == [home / "bin"]
    assert without_private(home / ".local") == [home / ".local/bin", home / ".local/lib"]
    assert without_private(tmp_path) == []
    assert without_private(home / "env") == [home / "env"]
    monkeypatch.setenv("GREENROOM_STATE", str(home / "env/state"))
    assert without_private(home / "env") == [home / "env/bin"]


def test_a_browser_that_lies_among_things_of_ones_own_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    own = program(tmp_path / "chrome")
    with pytest.raises(SandboxUnavailable, match="a folder of its own"):
        find_place(SandboxSettings(browser=str(own)))


@pytest.mark.parametrize("user", [None, 1_880_000_000])
def test_the_token_is_in_no_argument_and_the_way_out_is_bound_if_there_is_one(
    tmp_path: Path, user: int | None
) -> None:
    made = world(a_place(tmp_path), a_spec(tmp_path), user)
    assert "the-token" not in " ".join(made.arguments)
    assert b"the-token" in made.files
    assert "/box/egress.sock" not in made.arguments
    assert ("--unshare-user" in made.arguments or "--unshare-all" in made.arguments) == (user is None)
    (tmp_path / EGRESS_SOCKET).touch()
    assert "/box/egress.sock" in world(a_place(tmp_path), a_spec(tmp_path), user).arguments


def test_all_that_can_be_written_to_has_a_size(tmp_path: Path) -> None:
    arguments = world(a_place(tmp_path), a_spec(tmp_path), None).arguments
    for number, argument in enumerate(arguments):
        assert argument not in {"--bind", "--dev-bind", "--bind-try"}
        if argument == "--tmpfs":
            assert arguments[number - 2] == "--size"
    assert arguments[arguments.index("--remount-ro") + 2 :][:2] == ("--remount-ro", "/")


def test_what_groups_do_not_bound_is_bounded_for_each_process() -> None:
    limits = BoxLimits(memory=2 << 30, pids=7)
    none = bounds(limits, None, None)
    assert {"--nproc=7:7", f"--data={2 << 30}:{2 << 30}"} <= set(none)
    assert "setpriv" not in none
    both = bounds(limits, Cgroups(2, {"memory": Path("/a"), "pids": Path("/a")}), 1234)
    assert not any(word.startswith(("--nproc", "--data")) for word in both)
    assert {"--reuid=1234", "--regid=1234", "--no-new-privs"} <= set(both)
    assert "memory is bounded for each process" in told_bounds(None)
    assert "processor time is not bounded" in told_bounds(Cgroups(1, {"pids": Path("/a")}))


def test_users_of_boxes_are_in_ranges_that_nobody_gives_out() -> None:
    assert len(RANGE) > 10_000_000
    assert 61_184 <= SMALL_RANGE[0] < SMALL_RANGE[-1] < 65_534


# -------------------------------------------------------------------------------------------------------------- groups


def test_limits_are_written_where_each_version_wants_them(tmp_path: Path) -> None:
    limits = BoxLimits(memory=100_000_000, pids=99, cpus=1.5)
    one = Cgroups(1, {name: tmp_path / name for name in ("memory", "pids", "cpu")})
    for parent in one.parents.values():
        parent.mkdir()
    assert one.make("box", limits) == [tmp_path / name / "box/cgroup.procs" for name in one.parents]
    written = {
        file.name: file.read_text() for parent in one.parents.values() for file in (parent / "box").iterdir()
    }
    assert written == {
        "memory.limit_in_bytes": "100000000",
        "memory.memsw.limit_in_bytes": "100000000",
        "pids.max": "99",
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": "150000",
    }
    parent = tmp_path / "unified"
    parent.mkdir()
    two = Cgroups(2, dict.fromkeys(one.parents, parent))
    assert two.make("box", limits) == [parent / "box/cgroup.procs"]
    assert {file.name: file.read_text() for file in (parent / "box").iterdir()} == {
        "memory.max": "100000000",
        "memory.swap.max": "0",
        "pids.max": "99",
        "cpu.max": "150000 100000",
    }


def test_hierarchies_that_bound_nothing_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("hugetlb\n")
    mounts = tmp_path / "mounts"
    mounts.write_text(f"cgroup2 {tmp_path} cgroup2 rw 0 0\ncgroup {tmp_path}/freezer cgroup rw,freezer 0 0\n")
    assert find_cgroups(mounts) is None
    assert not (tmp_path / "greenroom").exists()


# --------------------------------------------------------------------------------------------------- what boxes say


def test_a_box_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    heard, said = os.pipe()
    child = Child("ab" * 16, Process(0, 0), -1, heard)
    try:
        for _ in range(2 * LOGGED // 32768):
            os.write(said, b"x" * 32768)
            assert child.hear()
        os.write(said, b"its last words")
        assert child.hear()
    finally:
        os.close(heard)
        os.close(said)
    assert LOGGED <= sum(len(record.getMessage()) for record in caplog.records) < 1.1 * LOGGED
    assert child.last_words.endswith("its last words")


# ------------------------------------------------------------------------------------------------------- system calls


def decided(code: bytes, number: int, arguments: tuple[int, ...] = (), machine: str = "x86_64") -> int:
    """What the kernel would make of that call: the program, run."""
    data = struct.pack(
        "=iIQ6Q", number, PROCESSORS[machine].audit, 0, *arguments, *[0] * (6 - len(arguments))
    )
    program = list(struct.iter_unpack("=HBBI", code))
    at, register = 0, 0
    while True:
        kind, then, otherwise, value = program[at]
        at += 1
        if kind == 0x20:
            (register,) = struct.unpack_from("=I", data, value)
        elif kind == 0x54:
            register &= value
        elif kind in {0x15, 0x35}:
            at += then if (register == value if kind == 0x15 else register >= value) else otherwise
        else:
            assert kind == 0x06
            return int(value)


def test_the_program_refuses_what_the_profile_names() -> None:
    code = seccomp_program(PROFILE, "x86_64")
    named = {name for rule in json.loads(PROFILE.read_text())["syscalls"] for name in rule["names"]}
    assert {"mount", "setns", "ptrace"} <= named
    for number in (165, 308, 101, 321, 425):  # mount, setns, ptrace, bpf, io_uring_setup
        assert decided(code, number) == NOT_PERMITTED
    for number in (
        0,
        56,
        161,
        272,
        435,
    ):  # read, clone, chroot, unshare, clone3: Chromium's own sandbox needs these
        assert decided(code, number) == ALLOWED
    assert decided(code, 0x40000000) == NOT_PERMITTED  # the other convention
    assert decided(seccomp_program(PROFILE, "aarch64"), 40, machine="aarch64") == NOT_PERMITTED
    assert decided(code, 40, machine="aarch64") == NOT_PERMITTED  # of another processor: whatever it is


@given(st.integers(0, 2**32 - 1), st.integers(0, 63), st.integers(0, 2**32 - 1), st.integers(0, 20))
def test_families_of_sockets_are_told_by_the_part_that_counts(
    high: int, family: int, high_too: int, protocol: int
) -> None:
    code = seccomp_program(PROFILE, "x86_64")
    said = decided(code, 41, ((high << 32) | family, 3, (high_too << 32) | protocol))
    if family not in {0, 1, 2, 10, 16}:  # none, UNIX, IPv4, IPv6, netlink
        assert said == NO_FAMILY
    elif (family, protocol) == (16, 12):
        assert said == NOT_PERMITTED
    else:
        assert said == ALLOWED


def test_a_processor_that_is_not_known_is_named() -> None:
    with pytest.raises(SandboxUnavailable, match="riscv64"):
        seccomp_program(PROFILE, "riscv64")


# ------------------------------------------------------------------------------------------------------------ compiled


def test_modules_are_compiled_once_where_boxes_find_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GREENROOM_STATE", str(tmp_path / "state"))
    folder = compiled_modules(image_package())
    assert folder is not None
    ours = folder / "opt/greenroom/greenroom/sandbox/image"
    assert {path.name.partition(".")[0] for path in ours.glob("*.pyc")} == {
        path.stem for path in image_package().glob("*.py")
    }
    assert list(folder.rglob("playwright/async_api/_generated.*.pyc"))
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in folder.rglob("*"))
    before = (ours / next(ours.iterdir()).name).stat().st_mtime_ns
    assert compiled_modules(image_package()) == folder
    assert (ours / next(ours.iterdir()).name).stat().st_mtime_ns == before


def test_where_nothing_can_be_kept_boxes_compile_for_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("GREENROOM_STATE", str(tmp_path / "file"))
    assert compiled_modules(image_package()) is None
