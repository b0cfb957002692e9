"""What the operator's guide says, tried: the unit of systemd, the backup of a file, the numbers it names."""

from __future__ import annotations

import configparser
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from anyio import run_process

from greenroom import AgentApp, AiohttpServer, Limits
from greenroom.runtime import STREAMS_END_SECONDS
from greenroom.serve import LEAVE_SECONDS
from greenroom.transports.compatible_mode import CompatibleMode
from kits.memory_app import Memory
from kits.needs import needed_program

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "examples" / "greenroom.service"
GUIDE = ROOT / "docs" / "operating.md"


def unit(section: str = "Service") -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(UNIT)
    return parser[section]


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    program = needed_program("systemd-analyze", "systemd")
    copy = tmp_path / "friday.service"
    text = UNIT.read_text()
    assert text.count("/opt/friday/.venv/bin/greenroom") == 1
    copy.write_text(
        text.replace("/opt/friday/.venv/bin/greenroom", sys.executable).replace("User=friday", "User=root")
    )
    checked = subprocess.run(
        [program, "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False
    )
    about_it = [line for line in checked.stderr.splitlines() if "friday" in line]
    assert (checked.returncode, about_it) == (0, []), checked.stderr


def test_systemd_waits_longer_than_stopping_takes() -> None:
    drain = float(re.search(r"--drain-seconds (\d+)", unit()["ExecStart"])[1])  # type: ignore[index]
    assert drain == inspect.signature(AgentApp).parameters["drain_seconds"].default
    hooks = 10
    assert float(unit()["TimeoutStopSec"]) >= drain + STREAMS_END_SECONDS + LEAVE_SECONDS + hooks
    assert unit()["KillMode"] == "mixed"


def test_systemd_does_not_try_for_ever_to_start_what_cannot_start() -> None:
    burst, interval = (int(unit("Unit")[name]) for name in ("StartLimitBurst", "StartLimitIntervalSec"))
    takes_to_fail = 30
    assert burst * (float(unit()["RestartSec"]) + takes_to_fail) < interval


def test_nginx_closes_idle_connections_before_the_server_does_and_takes_as_large_bodies() -> None:
    example = (ROOT / "examples" / "nginx.conf").read_text()
    kept = re.search(r"keepalive_timeout (\d+)s", example)
    largest = re.search(r"client_max_body_size (\d+)m", example)
    assert kept is not None
    assert largest is not None
    defaults = inspect.signature(AiohttpServer).parameters
    assert int(kept[1]) < defaults["idle_seconds"].default
    assert int(largest[1]) << 20 == CompatibleMode().compatible_body_bytes >= defaults["body_bytes"].default


async def test_a_file_is_backed_up_while_it_is_written(tmp_path: Path) -> None:
    needed_program("sqlite3", "sqlite3")
    commands = re.search(r"```sh\n([^`]*\.backup friday-copy\.db.*?)```", GUIDE.read_text(), re.DOTALL)
    assert commands is not None, "the guide says how"
    memory = Memory(state=f"sqlite:///{tmp_path / 'friday.db'}")
    async with memory.app:
        await memory.app.process("one", session_id="s").result()
        await run_process(["sh", "-c", f"umask 022\n{commands[1]}"], cwd=tmp_path)
        await memory.app.process("two", session_id="s").result()
    modes = {(tmp_path / name).stat().st_mode & 0o777 for name in ("friday.db", "friday-copy.db")}
    assert modes == {0o600}
    restored = Memory(state=f"sqlite:///{tmp_path / 'friday-copy.db'}")
    async with restored.app:
        ending = await restored.app.process("three", session_id="s").result()
        text = "".join(part.text for item in ending.output for part in item.parts)  # type: ignore[union-attr]
    assert text == "one/three"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *(
            (name, getattr(Limits(), name))
            for name in ("turns", "waiting_turns", "active_sessions", "worker_threads")
        ),
        *((name, getattr(Limits(), name) / 2**20) for name in ("input_bytes", "waiting_bytes")),
        ("client_connections", inspect.signature(AiohttpServer).parameters["client_connections"].default),
        ("keepalive_seconds", inspect.signature(AiohttpServer).parameters["keepalive_seconds"].default),
        ("idle_seconds", inspect.signature(AiohttpServer).parameters["idle_seconds"].default),
        ("read_seconds", inspect.signature(AiohttpServer).parameters["read_seconds"].default),
    ],
)
def test_the_guides_table_has_the_defaults_that_there_are(setting: str, value: float) -> None:
    row = re.search(rf"^\| `{setting}` \| ([\d,.]+)", GUIDE.read_text(), re.MULTILINE)
    assert row is not None, setting
    assert float(row[1].replace(",", "")) == value
