"""Rules of the whole suite: what runs with which AgentScope, no skip unnoticed, nothing of ours blocks the loop."""

import os
from collections.abc import Generator, Iterator
from typing import TypeVar

import hypothesis
import pytest
from blockbuster import blockbuster_ctx

from kits.agentscope_line import LINES, installed_line, is_of_no_line, why_not
from kits.engine import docker_engine, podman_engine
from kits.postgres_server import postgres_server, postgres_template
from kits.redis_server import redis_server
from kits.tutorial import NO_TUTORIAL
from kits.virtual_time import pytest_asyncio_loop_factories

__all__ = [
    "docker_engine",
    "podman_engine",
    "postgres_server",
    "postgres_template",
    "pytest_asyncio_loop_factories",
    "redis_server",
]

STRICT = os.environ.get("GREENROOM_CI") == "1"

# The only reasons for which a strict run may skip: what the run in the other environment covers, and a text that is not
# ours to hand on, beside which the checkout may lie or not.
ALLOWED_SKIPS = (*(why_not(line) for line in LINES), NO_TUTORIAL)

# A kit's property is inherited by the tests of each implementation, which Hypothesis takes for a mistake.
INHERITED = [hypothesis.HealthCheck.differing_executors]
hypothesis.settings.register_profile("default", deadline=None, suppress_health_check=INHERITED)
hypothesis.settings.register_profile(
    "ci", parent=hypothesis.settings.get_profile("default"), derandomize=True
)
hypothesis.settings.register_profile(
    "thorough", parent=hypothesis.settings.get_profile("default"), max_examples=2000
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if STRICT else "default"))


def pytest_configure() -> None:
    if STRICT and installed_line() not in LINES:
        raise pytest.UsageError(
            "GREENROOM_CI=1 wants AgentScope 1.x or 2.x installed, or its tests would be skipped"
        )


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--of-the-line",
        action="store_true",
        help="leave out what has nothing to do with AgentScope, and is run with its other line",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--of-the-line"):
        others = [item for item in items if is_of_no_line(item.path)]
        items[:] = [item for item in items if not is_of_no_line(item.path)]
        config.hook.pytest_deselected(items=others)
    installed = installed_line()
    for item in items:
        for line in LINES:
            if installed != line and item.get_closest_marker(f"agentscope{line}"):
                item.add_marker(pytest.mark.skip(reason=why_not(line)))


@pytest.fixture(autouse=True)
def free_loop(request: pytest.FixtureRequest) -> Iterator[None]:
    """Raise `BlockingError` where code of the library, or what it calls, blocks the event loop."""
    if request.node.get_closest_marker("blocks_loop"):
        yield
        return
    with blockbuster_ctx("greenroom") as blocking:
        # Asking where one is touches no disk; the place of a relative file is asked for when a store is named.
        blocking.functions["os.getcwd"].can_block_in("services/store_urls.py", {"_sqlite_place"})
        yield


AnyReport = TypeVar("AnyReport", pytest.TestReport, pytest.CollectReport)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _refuse_holes((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _refuse_holes((yield))


def _refuse_holes(report: AnyReport) -> AnyReport:
    """In a strict run, turn a skip for any other reason than an allowed one into a failure."""
    if STRICT and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not reason.removeprefix("Skipped: ").startswith(ALLOWED_SKIPS):
            report.outcome = "failed"
            report.longrepr = f"skipped where nothing may be: {reason}"
    return report
