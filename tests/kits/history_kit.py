"""The conformance kit of session histories: what every `SessionHistoryService` must hold.

Subclass the kit and give it the service, not yet started::

    class TestInMemorySessionHistoryService(HistoryKit):
        def service(self, messages_kept): return InMemorySessionHistoryService(messages_kept=messages_kept)
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from greenroom.actors.errors import ConfigurationError, HandlerError, TurnOver
from greenroom.actors.messages import Audio, Data, File, Image, Message, Refusal, Text, Video
from greenroom.services.session_history import Session, SessionHistoryService
from greenroom.services.work import Work, current_work
from kits.in_turn import TRICKY_KEYS, end, in_turn, outside

HELLO = Message((Text("Hello"),))
HI = Message((Text("Hi!"),), role="assistant", id="msg_1", metadata={"a": [1, None]}, name="Friday")
EVERY_PART = Message(
    (
        Text("ä"),
        Data({"call_id": "1", "arguments": '{"a": 1}', "deep": [{"b": 1.5}]}),
        Image("data:image/png;base64,iVBORw0KGgo="),
        Audio("UklGRg==", "wav"),
        Video("https://example.org/cat.mp4"),
        File(file_url="https://example.org/cat.pdf", filename="cat.pdf"),
        Refusal("no"),
    ),
    role="tool",
    type="plugin_call_output",
)

NO_MESSAGE: list[tuple[Any, str]] = [
    ({"role": "user", "content": [{"type": "text", "text": 1}]}, "message.content[0].text"),
    ({"role": "user", "content": [{"type": "smell"}]}, "message.content[0].type"),
    ({"role": "nobody"}, "message.role"),
    ({"content": 3}, "message.content"),
    ([HELLO, {"content": ["words"]}], "message[1].content[0]"),
    ("words", "message"),
    ([HELLO, None], "message[1]"),
    (Message("words"), "message.content"),  # type: ignore[arg-type]
    (Message((Text(1),)), "message.content[0].text"),  # type: ignore[arg-type]
    (Message((Data({"at": {1, 2}}),)), "message.content[0].data.at"),
    (Message(metadata={"x": [b"bytes"]}), "message.metadata.x[0]"),
    ({"metadata": {"x": object()}}, "message.metadata.x"),
]

KEYS = st.sampled_from([("a", "b_c"), ("a_b", "c"), ("a", "b")])
WRITES = ["append", "replace"]
Step: TypeAlias = tuple[str, tuple[str, str], list[str]]
STEPS: st.SearchStrategy[list[Step]] = st.lists(
    st.tuples(st.sampled_from(WRITES), KEYS, st.lists(st.text(max_size=3), max_size=6))
    | st.tuples(st.sampled_from(["create", "delete", "get", "list"]), KEYS, st.just([]))
    | st.tuples(st.sampled_from(["begin", "commit", "roll_back"]), KEYS, st.just([])),
    min_size=5,
    max_size=40,
)
MODEL_KEPT = 5


def said(text: str) -> Message:
    return Message((Text(text),))


class HistoryModel:
    """The service as a dict of lists, and one turn as a copy of it."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], list[str]] = {}
        self.turn: dict[tuple[str, str], list[str]] | None = None

    @property
    def view(self) -> dict[tuple[str, str], list[str]]:
        return self.kept if self.turn is None else self.turn

    def write(self, action: str, key: tuple[str, str], texts: list[str]) -> None:
        if action == "delete":
            self.view.pop(key, None)
        else:
            before = [] if action in {"create", "replace"} else self.view.get(key, [])
            self.view[key] = [*before, *texts][-MODEL_KEPT:]

    async def turn_over(self, action: str) -> None:
        """Begin a turn, or end the one that runs, in the service's world and in this one."""
        work = current_work.get()
        if action == "begin" and work is None:
            self.turn = dict(self.kept)
            current_work.set(Work("turn"))
        elif action != "begin" and work is not None:
            await end(work, action)
            if action == "commit" and self.turn is not None:
                self.kept = self.turn
            self.turn = None
            current_work.set(None)


class HistoryKit(ABC):
    """The laws for any session history."""

    @abstractmethod
    def service(self, messages_kept: int) -> SessionHistoryService:
        """A new service that keeps so many messages of a session, and nothing from before."""

    @asynccontextmanager
    async def started(self, messages_kept: int = 1_000) -> AsyncIterator[SessionHistoryService]:
        service = self.service(messages_kept)
        await service.start()
        try:
            yield service
        finally:
            await service.stop()

    async def test_lifecycle(self) -> None:
        service = self.service(10)
        assert not await service.health()
        with pytest.raises(ConfigurationError, match="not started"):
            await service.create_session("u")
        await service.start()
        await service.start()
        assert await service.health()
        await service.create_session("u", "s")
        await service.stop()
        await service.stop()
        assert not await service.health()
        for call in (service.get_session("u", "s"), service.delete_session("u", "s")):
            with pytest.raises(ConfigurationError, match="not started"):
                await call
        with pytest.raises(ConfigurationError, match="not started"):
            await service.list_sessions("u")

    async def test_a_new_session_is_empty_and_replaces_one_with_its_id(self) -> None:
        async with self.started() as service:
            session = await service.create_session(user_id="u", session_id="s")
            assert session == Session("s", "u", [])
            await service.append_message(session, HELLO)
            await service.create_session("u", "s")
            assert await _messages(service) == []

    @pytest.mark.parametrize("blank", [None, "", "  "])
    async def test_a_session_without_an_id_gets_one(self, blank: str | None) -> None:
        async with self.started() as service:
            first = await service.create_session("u", blank)
            second = await service.create_session("u", blank)
            assert first.id
            assert first.id != second.id
            assert {session.id for session in await service.list_sessions("u")} == {first.id, second.id}

    @pytest.mark.parametrize("message", [HELLO, HI, EVERY_PART, Message()])
    async def test_messages_come_back_as_they_were(self, message: Message) -> None:
        async with self.started() as service:
            session = await service.create_session("u", "s")
            await service.append_message(session, message)
            assert session.messages == [message]
            assert await _messages(service) == [message]

    async def test_messages_may_be_dicts_and_lists(self) -> None:
        async with self.started() as service:
            session = await service.create_session("u", "s")
            part = {"object": "content", "type": "text", "text": "Hello", "index": 0, "delta": None}
            await service.append_message(session, {"object": "message", "role": "user", "content": [part]})
            await service.append_message(session, [HI, {"content": "Hello"}, {"content": None}])
            await service.append_message(session, (HI,))
            await service.append_message(session, [])
            wanted = [HELLO, HI, HELLO, Message(), HI]
            assert session.messages == wanted
            assert await _messages(service) == wanted

    @pytest.mark.parametrize(("given", "path"), NO_MESSAGE)
    async def test_what_is_no_message_is_refused_by_its_path(self, given: Any, path: str) -> None:
        async with self.started() as service:
            session = await service.create_session("u", "s")
            with pytest.raises(HandlerError) as refused:
                await service.append_message(session, given)
            assert refused.value.field == path
            assert str(refused.value).startswith(path)
            assert session.messages == []
            assert await _messages(service) == []

    async def test_nothing_is_shared_with_the_caller(self) -> None:
        async with self.started() as service:
            session = await service.create_session("u", "s")
            data: dict[str, Any] = {"list": [1]}
            await service.append_message(session, Message((Data(data),)))
            data["list"].append(2)
            session.messages.clear()
            read = await service.get_session("u", "s")
            assert read is not None
            assert read.messages == [Message((Data({"list": [1]}),))]
            read.messages.append(HELLO)
            assert await _messages(service) == [Message((Data({"list": [1]}),))]

    async def test_appending_to_a_session_that_is_not_there_creates_it(self) -> None:
        async with self.started() as service:
            await service.append_message(Session(id="s", user_id="u"), HELLO)
            assert await _messages(service) == [HELLO]

    async def test_messages_are_replaced(self) -> None:
        async with self.started() as service:
            session = await service.create_session("u", "s")
            await service.append_message(session, [HELLO, HI, EVERY_PART])
            await service.replace_messages(session, [HELLO, EVERY_PART])
            assert session.messages == [HELLO, EVERY_PART]
            assert await _messages(service) == [HELLO, EVERY_PART]
            await service.replace_messages(session, [])
            assert await _messages(service) == []

    async def test_deleted_sessions_are_gone_and_deleting_is_idempotent(self) -> None:
        async with self.started() as service:
            session = await service.create_session("u", "s")
            await service.append_message(session, HELLO)
            await service.delete_session(user_id="u", session_id="s")
            await service.delete_session("u", "s")
            assert await service.list_sessions("u") == []
            assert await _messages(service) == []

    async def test_listing_gives_the_user_s_sessions_without_messages(self) -> None:
        async with self.started() as service:
            assert await service.list_sessions("u") == []
            for name in ("a", "b", "c"):
                await service.append_message(await service.create_session("u", name), HELLO)
            await service.create_session("somebody", "d")
            await service.delete_session("u", "b")
            assert {session.id for session in await service.list_sessions("u")} == {"a", "c"}
            assert all(session.messages == [] for session in await service.list_sessions("u"))

    async def test_keys_do_not_meet(self) -> None:
        async with self.started() as service:
            for number, (user, name) in enumerate(TRICKY_KEYS):
                await service.append_message(Session(name, user), said(str(number)))
            for number, (user, name) in enumerate(TRICKY_KEYS):
                session = await service.get_session(user, name)
                assert session == Session(name, user, [said(str(number))])
                assert name in {session.id for session in await service.list_sessions(user)}
                assert all((user, session.id) in TRICKY_KEYS for session in await service.list_sessions(user))

    async def test_the_newest_messages_are_kept(self) -> None:
        async with self.started(messages_kept=3) as service:
            session = await service.create_session("u", "s")
            for number in range(5):
                await service.append_message(session, said(str(number)))
            assert await _messages(service) == [said("2"), said("3"), said("4")]
            await service.append_message(session, [said(str(number)) for number in range(10)])
            assert await _messages(service) == [said("7"), said("8"), said("9")]

    async def test_a_turn_reads_its_own_writes_and_others_after_its_commit(self) -> None:
        async with self.started() as service:
            await service.append_message(Session("old", "u"), HELLO)
            await service.append_message(Session("s", "u"), HELLO)
            with in_turn() as work:
                session = await service.get_session("u", "s")
                assert session is not None
                await service.append_message(session, HI)
                await service.create_session("u", "new")
                await service.delete_session("u", "old")
                assert await _messages(service) == [HELLO, HI]
                assert {one.id for one in await service.list_sessions("u")} == {"s", "new"}
                assert await outside(_messages(service)) == [HELLO]
                assert {one.id for one in await outside(service.list_sessions("u"))} == {"s", "old"}
                await end(work)
            assert await _messages(service) == [HELLO, HI]
            assert {one.id for one in await service.list_sessions("u")} == {"s", "new"}

    async def test_what_a_turn_deletes_and_writes_to_again_is_there_without_what_it_had(self) -> None:
        async with self.started() as service:
            await service.append_message(Session("s", "u"), HELLO)
            with in_turn() as work:
                await service.delete_session("u", "s")
                assert await service.list_sessions("u") == []
                assert await _messages(service) == []
                assert await service.list_sessions("u") == [Session("s", "u")]
                await service.delete_session("u", "s")
                await service.append_message(Session("s", "u"), HI)
                assert await _messages(service) == [HI]
                assert await service.list_sessions("u") == [Session("s", "u")]
                await end(work)
            assert await _messages(service) == [HI]

    async def test_what_a_turn_replaces_takes_the_place_of_what_it_wrote_before(self) -> None:
        async with self.started() as service:
            await service.append_message(Session("s", "u"), HELLO)
            with in_turn() as work:
                await service.append_message(Session("s", "u"), HI)
                await service.replace_messages(Session("s", "u"), [HI])
                await service.append_message(Session("s", "u"), HELLO)
                assert await _messages(service) == [HI, HELLO]
                await end(work)
            assert await _messages(service) == [HI, HELLO]

    async def test_a_turn_reads_no_more_messages_than_are_kept(self) -> None:
        async with self.started(messages_kept=2) as service:
            await service.append_message(Session("s", "u"), [HELLO, HELLO])
            with in_turn():
                await service.append_message(Session("s", "u"), HI)
                assert await _messages(service) == [HELLO, HI]

    async def test_a_turn_that_fails_leaves_the_history_before_it(self) -> None:
        async with self.started() as service:
            await service.append_message(Session("s", "u"), HELLO)
            await service.append_message(Session("old", "u"), HELLO)
            with in_turn() as work:
                await service.append_message(Session("s", "u"), HI)
                await service.replace_messages(Session("s", "u"), [])
                await service.delete_session("u", "old")
                await service.create_session("u", "new")
                await service.get_session("u", "looked_at")
                work.roll_back()
            assert await _messages(service) == [HELLO]
            assert {one.id for one in await service.list_sessions("u")} == {"s", "old"}

    @pytest.mark.parametrize("ending", ["commit", "roll_back"])
    async def test_late_code_of_a_turn_may_read_but_not_write(self, ending: str) -> None:
        async with self.started() as service:
            session = await service.create_session("u", "s")
            await service.append_message(session, HELLO)
            with in_turn() as work:
                await end(work, ending)
                for call in (
                    service.append_message(session, HI),
                    service.replace_messages(session, [HI]),
                    service.delete_session("u", "s"),
                ):
                    with pytest.raises(TurnOver):
                        await call
                with pytest.raises(TurnOver):
                    await service.create_session("u", "t")
                assert session.messages == [HELLO]
                assert await _messages(service) == [HELLO]
                await service.get_session("u", "unknown")
                assert len(await service.list_sessions("u")) == 1

    async def test_many_turns_at_once_keep_apart(self) -> None:
        async def turn(service: SessionHistoryService, number: int) -> None:
            with in_turn(f"turn-{number}") as work:
                session = Session(f"s{number}", "u")
                await service.append_message(session, said("question"))
                await asyncio.sleep(0)
                await service.append_message(session, said("answer"))
                assert await _messages(service, session.id) == [said("question"), said("answer")]
                await asyncio.sleep(0)
                if number % 2:
                    work.roll_back()
                else:
                    await end(work)

        async with self.started() as service:
            await asyncio.gather(*(turn(service, number) for number in range(50)))
            assert {one.id for one in await service.list_sessions("u")} == {f"s{n}" for n in range(0, 50, 2)}
            for number in range(0, 50, 2):
                assert await _messages(service, f"s{number}") == [said("question"), said("answer")]

    async def test_many_tasks_on_one_session_lose_nothing(self) -> None:
        async with self.started() as service:
            session = await service.create_session("u", "s")
            await asyncio.gather(*(service.append_message(session, said(str(n))) for n in range(100)))
            assert sorted(map(repr, await _messages(service))) == sorted(
                repr(said(str(n))) for n in range(100)
            )

    @given(steps=STEPS)
    @settings(suppress_health_check=[HealthCheck.differing_executors])
    async def test_it_does_what_a_dict_of_lists_does(self, steps: list[Step]) -> None:
        await self.check_steps(steps)

    async def check_steps(self, steps: list[Step]) -> None:
        model = HistoryModel()
        current_work.set(None)
        async with self.started(MODEL_KEPT) as service:
            for action, key, texts in steps:
                if action in {"begin", "commit", "roll_back"}:
                    await model.turn_over(action)
                elif action == "get":
                    assert await _messages(service, key[1], key[0]) == [
                        said(t) for t in model.view.get(key, [])
                    ]
                    model.view.setdefault(key, [])
                elif action == "list":
                    listed = {one.id for one in await service.list_sessions(key[0])}
                    assert listed == {name for user, name in model.view if user == key[0]}
                else:
                    await _write(service, action, key, texts)
                    model.write(action, key, texts)
            await model.turn_over("roll_back")


async def _write(service: SessionHistoryService, action: str, key: tuple[str, str], texts: list[str]) -> None:
    user, name = key
    messages = [said(text) for text in texts]
    if action == "append":
        await service.append_message(Session(name, user), messages)
    elif action == "replace":
        await service.replace_messages(Session(name, user), messages)
    elif action == "create":
        await service.create_session(user, name)
    else:
        await service.delete_session(user, name)


async def _messages(service: SessionHistoryService, name: str = "s", user: str = "u") -> list[Message]:
    session = await service.get_session(user, name)
    assert session is not None
    return session.messages
