"""`AgentApp(state=…)`: an application whose sessions outlive it."""

from __future__ import annotations

from pathlib import Path

import pytest

from greenroom import AgentApp, Message, Session, TurnCompleted
from greenroom.actors.errors import StoreUnavailable
from greenroom.serve import own_file
from kits.remembering import new_memory
from kits.system import said


def application(state: str) -> AgentApp:
    app = AgentApp(state=state)
    app.agent(framework="text")(new_memory)
    return app


async def test_an_application_in_a_file_goes_on_where_the_last_one_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, word in enumerate(("one", "two", "three"), 1):
        async with application("sqlite:///friday.db?turns_kept=2") as app:
            ending = await app.process(word, session_id="s").result()
            assert isinstance(ending, TurnCompleted)
            assert said(ending) == " ".join(("one", "two", "three")[:number])
    assert [path.name for path in tmp_path.iterdir()] == ["friday.db"]


async def test_the_session_s_history_is_there_too(tmp_path: Path) -> None:
    lengths = []
    for _ in range(2):
        app = AgentApp(state=f"sqlite:///{tmp_path}/friday.db")

        @app.query()
        async def answer(msgs: list[Message], session: Session) -> str:
            lengths.append(len(await session.history()))
            return "hello"

        async with app:
            await app.process("hi", session_id="s").result()
    assert lengths == [0, 1]


async def test_a_file_that_cannot_be_used_keeps_the_application_from_starting(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="that is a folder"):
        await application(f"sqlite:///{tmp_path}").start()


async def test_an_application_of_any_name_has_a_file_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = (
        "Friday",
        "",
        "é" * 300,
        "x" * 300,
        "x" * 300 + "y",
        "X " * 5_000,
        "x" * 200,
        "x" * 200 + " " * 100,
        "小助手",
        "客服",
        "Ünï 日本",
        "🎉",
        "🎈",
        "\ud800",
        "n",
    )
    files = set()
    for name in names:
        app = application(own_file(name))
        async with app:
            await app.process("hi", session_id="s").result()
        files |= {path.name for path in tmp_path.iterdir()}
    assert {"friday.db", "sessions.db", "x" * 200 + ".db", "n.db"} < files
    assert len(files) == len(names) - 1  # the one with spaces at its end is one of ASCII
    assert sum(name.startswith(("小助手-", "客服-", "ünï-日本-", "sessions-")) for name in files) == 6


def test_a_name_written_in_two_ways_has_one_file() -> None:
    assert own_file("Caf\u00e9") == own_file("Cafe\u0301") != own_file("Cafe")
