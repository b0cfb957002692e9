"""Which line of AgentScope is installed: 1.x and 2.x share a name and cannot be installed together.

A test of one line carries `@pytest.mark.agentscope1` or `@pytest.mark.agentscope2`. A module that imports names of one
line at its top calls `require_line` before them.
"""

from importlib.metadata import PackageNotFoundError, version

import pytest

LINES = (1, 2)


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
