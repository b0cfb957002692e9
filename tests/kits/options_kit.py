"""The conformance kit of what a turn may be asked for besides its input: what `FrameworkAdapter.honours` promises.

Subclass it and say how an agent of the framework is served, at both levels of use; it thinks with the scripted model
server, so that what the model was told shows, and that server refuses calls without results as real ones do. The agent
is called Friday, is told "You help.", and has one tool of its own, `weather(city)`, which says "sunny in <city>" and
needs nobody's permission. Each session has one, whose memory lasts::

    class TestOptions(OptionsKit):
        def handler(self, level, base_url): ...
"""

import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeAlias

import pytest
from msgspec.structs import replace

from greenroom.actors.events import Terminal, TurnCompleted, TurnFailed
from greenroom.actors.handler import Handler
from greenroom.actors.messages import (
    AnswerFormat,
    Data,
    FunctionTool,
    Message,
    Text,
    ToolCall,
    ToolOutput,
    TurnOptions,
)
from greenroom.actors.system import ActorSystem
from greenroom.services.sessions.memory_store import InMemoryStore
from kits.grammar import check_events, texts
from kits.scripted_model import ScriptedModel
from kits.scripted_model_script import CallTool, Reply, Request, Say, Usage, text_of, tool_names
from kits.system import counting_sources, turn

Level: TypeAlias = Literal["query", "agent"]
"""How the agent is served: made anew by each call of an `@app.query` handler, or by an `@app.agent` factory."""

LOCATE = FunctionTool(
    name="locate",
    description="Where the user is.",
    parameters={"type": "object", "properties": {"precise": {"type": "boolean"}}},
)
DIAL = FunctionTool(name="dial")
CITY = AnswerFormat(
    kind="json_schema",
    name="city",
    schema={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)


def user(text: str) -> Message:
    """What the user says."""
    return Message((Text(text),))


def output(call_id: str, text: str) -> Message:
    """What a tool that the client runs gave back: it does not name the tool."""
    return Message((Data({"call_id": call_id, "output": text}),), "tool", "function_call_output")


def call(call_id: str, name: str, arguments: str = "{}") -> Message:
    """A call that a client without a session hands back."""
    data = {"call_id": call_id, "name": name, "arguments": arguments}
    return Message((Data(data),), "assistant", "function_call")


class Play:
    """A served agent, and the model it thinks with."""

    def __init__(self, system: ActorSystem, model: ScriptedModel) -> None:
        self._system = system
        self.model = model

    async def ask(self, *said: str | Message, options: TurnOptions | None = None) -> Terminal:
        """One turn, to its ending; its events are checked."""
        messages = tuple(user(part) if isinstance(part, str) else part for part in said)
        asked = turn()
        asked = replace(asked, request=replace(asked.request, input=messages), options=options)
        log = await self._system.submit(asked)
        ending = await log.ended()
        check_events(log.events())
        return ending

    @property
    def prompts(self) -> list[Request]:
        """What the model was asked, call by call."""
        return self.model.requests

    def told(self, number: int = -1) -> str:
        """The system's words in one of the prompts."""
        return "\n".join(
            text_of(message) for message in self.prompts[number]["messages"] if message["role"] == "system"
        )

    def results(self, number: int = -1) -> dict[str, str]:
        """The tools' results in one of the prompts, by call."""
        messages = self.prompts[number]["messages"]
        return {
            message["tool_call_id"]: text_of(message) for message in messages if message["role"] == "tool"
        }


def made(prompt: Request) -> list[str]:
    """The calls in a prompt, by id."""
    return [call["id"] for message in prompt["messages"] for call in message.get("tool_calls") or ()]


def kinds(ending: Terminal) -> list[str]:
    """The kinds of a turn's items."""
    return [item.kind for item in ending.output]


def calls(ending: Terminal) -> list[tuple[str, str]]:
    """The calls of a turn: id and tool."""
    parts = [part for item in ending.output for part in item.parts]
    return [(part.call_id, part.name) for part in parts if isinstance(part, ToolCall)]


def outputs(ending: Terminal) -> list[str]:
    """The tools whose outputs a turn has."""
    parts = [part for item in ending.output for part in item.parts]
    return [part.name for part in parts if isinstance(part, ToolOutput)]


def bound(prompt: Request) -> int | None:
    """The most tokens a model was allowed to answer with."""
    found: int | None = prompt.get("max_completion_tokens", prompt.get("max_tokens"))
    return found


@pytest.mark.parametrize("level", ["query", "agent"])
class OptionsKit(ABC):
    """The laws."""

    @abstractmethod
    def handler(self, level: Level, base_url: str) -> Handler:
        """What serves the agent, on a model of the service at `base_url` (OpenAI's Chat Completions, streamed)."""

    @asynccontextmanager
    async def playing(self, level: Level, *script: Reply) -> AsyncIterator[Play]:
        """The agent at work; the model says these things."""
        async with ScriptedModel(script) as model:
            handler = self.handler(level, model.base_url)
            system = ActorSystem(handler, InMemoryStore(), sources=counting_sources())
            await system.start()
            try:
                yield Play(system, model)
            finally:
                await system.stop()

    # -- words -----------------------------------------------------------------------------------------------------

    async def test_instructions_are_said_in_each_call_of_their_turn_and_in_no_other(
        self, level: Level
    ) -> None:
        script = (CallTool("weather", {"city": "Paris"}), "Sunny.", "Bye.")
        async with self.playing(level, *script) as play:
            await play.ask("weather?", options=TurnOptions(instructions="Speak like a pirate."))
            await play.ask("bye")
            assert [play.told(number).count("Speak like a pirate.") for number in range(3)] == [1, 1, 0]
            assert all("You help." in play.told(number) for number in range(3))
            assert "pirate" not in json.dumps(play.prompts[2])

    async def test_a_turn_without_options_is_as_ever(self, level: Level) -> None:
        async with self.playing(level, "Hi.") as play:
            await play.ask("hello")
            (prompt,) = play.prompts
            assert tool_names(prompt) == ["weather"]
            unwanted = {"temperature", "top_p", "max_tokens", "response_format", "parallel_tool_calls"}
            assert not unwanted & {name for name, value in prompt.items() if value is not None}

    async def test_settings_reach_the_model(self, level: Level) -> None:
        settings: dict[str, Any] = {
            "temperature": 0.25,
            "top_p": 0.5,
            "reasoning_effort": "low",
            "presence_penalty": -1.0,
            "frequency_penalty": 0.5,
            "seed": 7,
        }
        async with self.playing(level, "Hi.") as play:
            await play.ask("hello", options=TurnOptions(**settings))
            (prompt,) = play.prompts
            assert {name: prompt.get(name) for name in settings} == settings

    # -- the client's tools ----------------------------------------------------------------------------------------

    async def test_a_call_of_a_clients_tool_ends_the_turn_and_its_output_resumes_the_agent(
        self, level: Level
    ) -> None:
        options = TurnOptions(tools=(LOCATE,))
        script = (CallTool("locate", {"precise": True}, id="c1"), "You are in Paris.", "Bye.")
        async with self.playing(level, *script) as play:
            ending = await play.ask("where am I?", options=options)
            assert isinstance(ending, TurnCompleted)
            assert (kinds(ending), calls(ending)) == (["tool_call"], [("c1", "locate")])
            assert len(play.prompts) == 1
            assert sorted(tool_names(play.prompts[0])) == ["locate", "weather"]
            offered = next(
                tool["function"] for tool in play.prompts[0]["tools"] if tool["function"]["name"] == "locate"
            )
            assert offered["parameters"]["properties"] == {"precise": {"type": "boolean"}}
            assert offered["description"] == "Where the user is."
            ending = await play.ask(output("c1", "48.85 N"), options=options)
            assert (kinds(ending), texts(ending.output)) == (["message"], ["You are in Paris."])
            assert [message["role"] for message in play.prompts[1]["messages"][-2:]] == ["assistant", "tool"]
            assert play.results() == {"c1": "48.85 N"}
            await play.ask("bye")
            assert tool_names(play.prompts[2]) == ["weather"], "the tools of one turn are those of no other"

    async def test_what_was_said_before_the_call_is_said_once(self, level: Level) -> None:
        options = TurnOptions(tools=(LOCATE,))
        async with self.playing(level, [Say("Let me see."), CallTool("locate", {})]) as play:
            ending = await play.ask("where am I?", options=options)
            assert (kinds(ending), texts(ending.output)) == (["message", "tool_call"], ["Let me see."])

    async def test_the_agents_own_tools_called_beside_it_are_run(self, level: Level) -> None:
        options = TurnOptions(tools=(LOCATE,))
        both = [CallTool("locate", {}, id="c1"), CallTool("weather", {"city": "Paris"}, id="c2")]
        async with self.playing(level, both, "Sunny where you are.") as play:
            ending = await play.ask("weather here?", options=options)
            assert isinstance(ending, TurnCompleted)
            assert sorted(calls(ending)) == [("c1", "locate"), ("c2", "weather")]
            assert outputs(ending) == ["weather"]
            assert len(play.prompts) == 1
            ending = await play.ask(output("c1", "Paris"), options=options)
            assert texts(ending.output) == ["Sunny where you are."]
            assert play.results() == {"c1": "Paris", "c2": "sunny in Paris"}

    async def test_a_call_that_is_handed_back_with_its_output_is_there_once(self, level: Level) -> None:
        script = (CallTool("locate", {"precise": True}, id="c1"), "sunny in Berlin")
        async with self.playing(level, *script) as play:
            options = TurnOptions(tools=(LOCATE,))
            await play.ask("weather?", options=options)
            handed_back = call("c1", "locate", '{"precise": true}')
            ending = await play.ask(handed_back, output("c1", "Berlin"), options=options)
            assert texts(ending.output) == ["sunny in Berlin"]
            assert play.results() == {"c1": "Berlin"}
            assert made(play.prompts[-1]) == ["c1"]

    @pytest.mark.parametrize("whole", [True, False])
    async def test_a_call_that_is_handed_back_after_it_was_answered_is_there_once(
        self, level: Level, whole: bool
    ) -> None:
        options = TurnOptions(tools=(LOCATE,))
        script = (CallTool("locate", {"precise": True}, id="c1"), "sunny in Berlin", "rain", "still rain")
        async with self.playing(level, *script) as play:
            await play.ask("weather?", options=options)
            await play.ask(output("c1", "Berlin"), options=options)
            echoes = [call("c1", "locate", '{"precise": true}'), output("c1", "Berlin")]
            ending = await play.ask(*echoes[: 2 if whole else 1], "tomorrow?", options=options)
            assert texts(ending.output) == ["rain"]
            await play.ask("and then?", options=options)
            for number in (2, 3):
                assert made(play.prompts[number]) == ["c1"]
                assert play.results(number) == {"c1": "Berlin"}

    async def test_a_client_may_be_asked_again_and_again(self, level: Level) -> None:
        options = TurnOptions(tools=(LOCATE, DIAL))
        script = (CallTool("locate", {}, id="c1"), CallTool("dial", {}, id="c2"), "Done.")
        async with self.playing(level, *script) as play:
            await play.ask("call a taxi", options=options)
            assert calls(await play.ask(output("c1", "Paris"), options=options)) == [("c2", "dial")]
            assert texts((await play.ask(output("c2", "ok"), options=options)).output) == ["Done."]
            assert play.results() == {"c1": "Paris", "c2": "ok"}

    async def test_a_session_goes_on_without_the_output(self, level: Level) -> None:
        async with self.playing(level, CallTool("locate", {}, id="c1"), "Fine.", "Still fine.") as play:
            await play.ask("where am I?", options=TurnOptions(tools=(LOCATE,)))
            assert texts((await play.ask("never mind")).output) == ["Fine."]
            assert "interrupted" in play.results()["c1"]
            assert texts((await play.ask("and now?")).output) == ["Still fine."]

    async def test_a_session_goes_on_with_some_of_the_outputs(self, level: Level) -> None:
        options = TurnOptions(tools=(LOCATE, DIAL))
        both = [CallTool("locate", {}, id="c1"), CallTool("dial", {}, id="c2")]
        async with self.playing(level, both, "Well.") as play:
            await play.ask("call a taxi", options=options)
            assert texts((await play.ask(output("c2", "busy"), options=options)).output) == ["Well."]
            assert play.results()["c2"] == "busy"
            assert "interrupted" in play.results()["c1"]

    @pytest.mark.parametrize("first", [True, False])
    async def test_an_output_and_new_words(self, level: Level, first: bool) -> None:
        options = TurnOptions(tools=(LOCATE,))
        async with self.playing(level, CallTool("locate", {}, id="c1"), "Paris, and hello.") as play:
            await play.ask("where am I?", options=options)
            said = [output("c1", "Paris"), user("and say hello")]
            ending = await play.ask(*(said if first else said[::-1]), options=options)
            assert texts(ending.output) == ["Paris, and hello."]
            assert play.results() == {"c1": "Paris"}
            assert "and say hello" in [text_of(message) for message in play.prompts[1]["messages"]]

    async def test_a_client_without_a_session_hands_everything_back(self, level: Level) -> None:
        options = TurnOptions(tools=(LOCATE,))
        async with self.playing(level, "You are in Paris.") as play:
            ending = await play.ask(
                user("where am I?"), call("c1", "locate"), output("c1", "Paris"), options=options
            )
            assert texts(ending.output) == ["You are in Paris."]
            roles = [
                message["role"] for message in play.prompts[0]["messages"] if message["role"] != "system"
            ]
            assert [role for role in roles if role != "user"] == ["assistant", "tool"]

    async def test_a_tool_called_like_one_of_the_agents_is_refused(self, level: Level) -> None:
        async with self.playing(level) as play:
            ending = await play.ask("weather?", options=TurnOptions(tools=(FunctionTool(name="weather"),)))
            assert isinstance(ending, TurnFailed)
            assert ending.error.code == "invalid_request"
            assert "weather" in ending.error.message

    # -- which tools -----------------------------------------------------------------------------------------------

    async def test_no_tools_are_called(self, level: Level) -> None:
        options = TurnOptions(tools=(LOCATE,), tool_choice="none")
        async with self.playing(level, [Say("No."), CallTool("weather", {"city": "Paris"})]) as play:
            ending = await play.ask("weather?", options=options)
            assert isinstance(ending, TurnCompleted)
            assert (kinds(ending), texts(ending.output)) == (["message"], ["No."]), (
                "although the model disobeyed"
            )
            assert play.prompts[0].get("tool_choice", "none") == "none"

    async def test_a_tool_must_be_called_and_is_not_asked_for_again(self, level: Level) -> None:
        options = TurnOptions(tool_choice="required")
        async with self.playing(level, CallTool("weather", {"city": "Paris"}), "Sunny.") as play:
            ending = await play.ask("weather?", options=options)
            assert texts(ending.output) == ["Sunny."]
            assert play.prompts[0]["tool_choice"] == "required"
            assert play.prompts[1].get("tool_choice") in (None, "auto")

    async def test_one_tool_must_be_called(self, level: Level) -> None:
        options = TurnOptions(tools=(LOCATE,), forced_tool="locate")
        async with self.playing(level, CallTool("locate", {})) as play:
            assert kinds(await play.ask("where am I?", options=options)) == ["tool_call"]
            assert play.prompts[0]["tool_choice"] == {"type": "function", "function": {"name": "locate"}}

    async def test_what_is_no_tool_cannot_be_called(self, level: Level) -> None:
        async with self.playing(level) as play:
            ending = await play.ask("dial!", options=TurnOptions(forced_tool="dial"))
            assert isinstance(ending, TurnFailed)
            assert ending.error.code == "invalid_request"
            assert "dial" in ending.error.message

    @pytest.mark.parametrize("at_once", [True, False], ids=["at once", "one by one"])
    async def test_the_agents_own_tools_are_called_no_more_often_than_it_may(
        self, level: Level, at_once: bool
    ) -> None:
        wishes = [CallTool("weather", {"city": city}) for city in ("Paris", "Rome", "Oslo")]
        script: list[Reply] = [wishes, "Enough."] if at_once else [*wishes]
        async with self.playing(level, *script, wishes[0], "Sunny.") as play:
            ending = await play.ask("weather?", options=TurnOptions(max_tool_calls=2))
            assert isinstance(ending, TurnCompleted)
            assert [name for _, name in calls(ending)] == ["weather", "weather"]
            assert outputs(ending) == ["weather", "weather"]
            assert "none" in [prompt.get("tool_choice") for prompt in play.prompts]
            again = await play.ask("weather?", options=TurnOptions(max_tool_calls=1))
            assert outputs(again) == ["weather"], "each turn has its own"

    async def test_the_clients_tools_are_its_own_to_count(self, level: Level) -> None:
        script = (CallTool("weather", {"city": "Paris"}), CallTool("locate", {}, id="c1"), "Here.")
        options = TurnOptions(tools=(LOCATE,), max_tool_calls=1)
        async with self.playing(level, *script) as play:
            ending = await play.ask("where?", options=options)
            assert [name for _, name in calls(ending)] == ["weather", "locate"]
            assert tool_names(play.prompts[1]) == ["locate"] or play.prompts[1].get("tool_choice") != "none"
            ending = await play.ask(output("c1", "Paris"), options=options)
            assert texts(ending.output) == ["Here."]

    async def test_one_call_at_a_time(self, level: Level) -> None:
        options = TurnOptions(parallel_tool_calls=False)
        both = [
            CallTool("weather", {"city": "Paris"}, id="c1"),
            CallTool("weather", {"city": "Rome"}, id="c2"),
        ]
        async with self.playing(level, both, "Sunny.") as play:
            ending = await play.ask("weather?", options=options)
            assert calls(ending) == [("c1", "weather")], "although the model disobeyed"
            assert play.prompts[0]["parallel_tool_calls"] is False
            assert play.results() == {"c1": "sunny in Paris"}

    # -- how much --------------------------------------------------------------------------------------------------

    async def test_tokens_are_shared_by_the_calls_of_a_turn(self, level: Level) -> None:
        script = (
            [CallTool("weather", {"city": "Paris"}), Usage(10, 30)],
            [Say("Sunny."), Usage(10, 20)],
            "Bye.",
        )
        async with self.playing(level, *script) as play:
            ending = await play.ask("weather?", options=TurnOptions(max_output_tokens=100))
            assert isinstance(ending, TurnCompleted)
            assert (texts(ending.output), ending.incomplete) == (["Sunny."], None)
            await play.ask("bye")
            assert [bound(prompt) for prompt in play.prompts] == [100, 70, None]

    async def test_a_turn_that_is_out_of_tokens_is_cut_short_and_stays(self, level: Level) -> None:
        script = ([Say("Once upon a"), Usage(10, 16)], "Where was I?")
        async with self.playing(level, *script) as play:
            ending = await play.ask("tell a story", options=TurnOptions(max_output_tokens=16))
            assert isinstance(ending, TurnCompleted)
            assert (texts(ending.output), ending.incomplete) == (["Once upon a"], "max_output_tokens")
            await play.ask("go on")
            assert "Once upon a" in json.dumps(play.prompts[1])

    async def test_what_was_called_with_the_last_tokens_is_not_run(self, level: Level) -> None:
        script = ([Say("Let me see."), CallTool("weather", {"city": "Paris"}), Usage(10, 20)], "Fine.")
        async with self.playing(level, *script) as play:
            ending = await play.ask("weather?", options=TurnOptions(max_output_tokens=16))
            assert isinstance(ending, TurnCompleted)
            assert ending.incomplete == "max_output_tokens"
            assert "sunny" not in repr(ending.output)
            assert len(play.prompts) == 1
            assert texts((await play.ask("never mind")).output) == ["Fine."], "the prompt is whole"

    # -- the answer's form -----------------------------------------------------------------------------------------

    async def test_a_formed_answer_is_one_message(self, level: Level) -> None:
        script: Sequence[Reply] = (
            [Say("Let me see."), CallTool("weather", {"city": "Paris"})],
            '{"city": "Paris"}',
        )
        async with self.playing(level, *script) as play:
            ending = await play.ask("which city?", options=TurnOptions(answer=CITY))
            assert isinstance(ending, TurnCompleted)
            assert texts(ending.output) == ['{"city": "Paris"}'], ending.output
            assert ending.output[-1].kind == "message"
            for number, prompt in enumerate(play.prompts):
                form: dict[str, Any] = prompt["response_format"]
                assert (form["type"], form["json_schema"]["name"]) == ("json_schema", "city")
                assert form["json_schema"]["schema"] == CITY.schema
                assert "JSON" in play.told(number)

    async def test_any_object_will_do(self, level: Level) -> None:
        async with self.playing(level, '{"a": 1}') as play:
            ending = await play.ask("an object", options=TurnOptions(answer=AnswerFormat(kind="json_object")))
            assert texts(ending.output) == ['{"a": 1}']
            assert play.prompts[0]["response_format"] == {"type": "json_object"}

    async def test_a_formed_answer_may_ask_the_client(self, level: Level) -> None:
        options = TurnOptions(tools=(LOCATE,), answer=CITY)
        script = ([Say("Let me see."), CallTool("locate", {}, id="c1")], '{"city": "Paris"}')
        async with self.playing(level, *script) as play:
            ending = await play.ask("which city?", options=options)
            assert isinstance(ending, TurnCompleted)
            assert (texts(ending.output), calls(ending)) == ([], [("c1", "locate")])
            ending = await play.ask(output("c1", "Paris"), options=options)
            assert texts(ending.output) == ['{"city": "Paris"}']
