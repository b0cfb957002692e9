"""Services that forget with the process what they have of sessions that outlive it: the start says so."""

import logging
from pathlib import Path

import pytest

from greenroom import (
    AgentApp,
    InMemorySessionHistoryService,
    InMemoryStateService,
    SqliteSessionHistoryService,
    SqliteStateService,
)


def application(state: str, *services: object, held: bool = False) -> AgentApp:
    app = AgentApp(state=state)

    @app.init
    async def begin(self: AgentApp) -> None:
        for number, service in enumerate(services):
            if held:
                setattr(self, f"service_{number}", service)
            else:
                await service.start()  # type: ignore[attr-defined]

    @app.query()
    async def answer() -> str:
        return "hello"

    return app


async def warned(app: AgentApp, caplog: pytest.LogCaptureFixture) -> list[str]:
    """What it warns of until it has started."""
    async with app:
        return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("held", [False, True])
async def test_services_in_memory_beside_sessions_that_are_kept_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, held: bool
) -> None:
    services = (InMemoryStateService(), InMemorySessionHistoryService())
    said = await warned(application(f"sqlite:///{tmp_path}/s.db", *services, held=held), caplog)
    assert len(said) == 1
    for name in ("InMemoryStateService", "InMemorySessionHistoryService"):
        assert name in said[0]
    assert "SqliteStateService and SqliteSessionHistoryService" in said[0]


async def test_only_those_that_forget_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    services = (SqliteStateService(tmp_path / "s.db"), InMemorySessionHistoryService())
    said = await warned(application(f"sqlite:///{tmp_path}/s.db", *services), caplog)
    assert "InMemorySessionHistoryService" in said[0]
    assert "InMemoryStateService" not in said[0]


async def test_nothing_is_said_where_all_is_kept_or_all_is_forgotten(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = (SqliteStateService(tmp_path / "s.db"), SqliteSessionHistoryService(tmp_path / "s.db"))
    assert await warned(application(f"sqlite:///{tmp_path}/s.db", *kept), caplog) == []
    assert await warned(application("memory", InMemoryStateService()), caplog) == []
