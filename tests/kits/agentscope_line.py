"""Which line of AgentScope is installed: 1.x and 2.x share a name and cannot be installed together.

A test of one line carries `@pytest.mark.agentscope1` or `@pytest.mark.agentscope2`. A module that imports names of one
line at its top calls `require_line` before them.
"""

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

LINES = (1, 2)
TESTS = Path(__file__).parents[1]
OF_NO_LINE = (
    "sandbox",
    "services",
    "e2e/test_behind_nginx.py",
    "e2e/test_browser_view.py",
    "e2e/test_fuzz_bytes.py",
    "e2e/test_fuzz_openapi.py",
    "e2e/test_operating.py",
    "e2e/test_recovery.py",
    "e2e/test_recovery_boxes.py",
    "e2e/test_recovery_faults.py",
    "e2e/test_recovery_servers.py",
    "e2e/test_repeats_killed.py",
    "e2e/test_storms.py",
    "e2e/test_webhooks_killed.py",
)
"""What takes long and knows no agent framework, unless a file in there names one."""


@cache
def is_of_no_line(file: Path) -> bool:
    """Whether a test file has nothing to do with AgentScope, so that one run, with either line, says all there is."""
    place = file.relative_to(TESTS) if file.is_relative_to(TESTS) else file
    named = any(place.is_relative_to(one) for one in OF_NO_LINE)
    return named and "agentscope" not in file.read_text()


def installed_line() -> int | None:
    """The major version of the installed AgentScope, None without one."""
    try:
        return int(version("agentscope").partition(".")[0])
    except PackageNotFoundError:
        return None


def why_not(line: int) -> str:
    """The reason given for a test that needs another line; the run that has it must not skip it."""
    return f"needs AgentScope {line}.x"


def require_line(line: int) -> None:
    """Skip the module being collected unless this line is installed."""
    if installed_line() != line:
        pytest.skip(why_not(line), allow_module_level=True)
