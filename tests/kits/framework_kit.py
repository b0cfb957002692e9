"""The conformance kit of framework adapters: what every `FrameworkAdapter` and its `Translator` must hold.

Subclass the kit, give it the adapter and a few things a handler of that framework would yield, and pytest runs the
laws against it::

    class TestTextAdapter(FrameworkKit):
        def adapter(self): return TextAdapter()
        def speech(self, pieces): return list(pieces)
        def unknown(self): return 42

`AgentFrameworkKit` adds reasoning, tools and agents, for frameworks that have them. What an adapter says it `honours`
is proven by `kits.options_kit`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import count, groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.actors.composer import Composer, Listener
from greenroom.actors.errors import GreenroomError, HandlerError, InvalidRequest
from greenroom.actors.events import Event, Item, TextDelta, TurnAccepted, TurnCancelled, TurnStarted
from greenroom.actors.frameworks.adapter import FrameworkAdapter
from greenroom.actors.messages import (
    Audio,
    Data,
    File,
    Image,
    Message,
    Refusal,
    Text,
    ToolCall,
    ToolOutput,
    Video,
)
from kits.grammar import check_events, check_items, texts

PIXEL = "data:image/png;base64,iVBORw0KGgo="
CONTENTS = (
    Text("hello"),
    Data({"city": "Paris", "days": [1, 2]}),
    Image("https://example.org/cat.png"),
    Image(PIXEL),
    Audio("UklGRg==", "wav"),
    Audio("https://example.org/purr.wav"),
    Video("https://example.org/cat.mp4"),
    File(file_url="https://example.org/cat.pdf", filename="cat.pdf"),
    File(file_data="aGk=", filename="hi.txt"),
    Refusal("no"),
)


class Heard:
    """One turn's translator, and what it wrote."""

    def __init__(self, adapter: FrameworkAdapter, budget: int = 1 << 62) -> None:
        ids = count(1)
        self.events: list[Event] = []
        self.composer = Composer(Listener(self.events.append), lambda: str(next(ids)), budget)
        self.translator = adapter.translator(self.composer)

    def feed(self, items: Sequence[object]) -> None:
        for item in items:
            self.translator.feed(item)

    def order(self) -> list[str]:
        """The items that the events are of, each as often as there was talk of another between."""
        return [item for item, _ in groupby(getattr(event, "item", "") for event in self.events)]

    def finish(self) -> list[Item]:
        """End the handler well; the finished items, checked."""
        self.translator.finish()
        self.composer.close()
        items = check_items(self.events)
        assert items == self.composer.output
        return items


class FrameworkKit(ABC):
    """The laws for any adapter."""

    @abstractmethod
    def adapter(self) -> FrameworkAdapter:
        """The adapter, new."""

    @abstractmethod
    def speech(self, pieces: Sequence[str]) -> Sequence[object]:
        """What a handler yields to say the pieces one after the other, as one message."""

    @abstractmethod
    def unknown(self) -> object:
        """Something that no handler of this framework may yield."""

    def test_it_has_a_name(self) -> None:
        assert self.adapter().name.isidentifier()

    def test_a_handler_that_says_nothing(self) -> None:
        assert not Heard(self.adapter()).finish()

    def test_speech_goes_out_as_it_comes(self) -> None:
        heard = Heard(self.adapter())
        heard.feed(self.speech(["Hello ", "wörld", " 😀"]))
        deltas = [event.text for event in heard.events if isinstance(event, TextDelta)]
        assert "".join(deltas) == "Hello wörld 😀"
        assert len(deltas) > 1, "the text went out in one go"
        assert texts(heard.finish()) == ["Hello wörld 😀"]

    @given(st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=8))
    def test_deltas_join_to_the_completed_text(self, pieces: list[str]) -> None:
        heard = Heard(self.adapter())
        heard.feed(self.speech(pieces))
        assert texts(heard.finish()) == ["".join(pieces)]

    def test_the_assistant_speaks(self) -> None:
        heard = Heard(self.adapter())
        heard.feed(self.speech(["hi"]))
        (item,) = heard.finish()
        assert (item.kind, item.role) == ("message", "assistant")

    def test_a_turn_cut_short_keeps_what_was_said(self) -> None:
        said = list(self.speech(["Hello ", "world", "!"]))
        for cut in range(len(said) + 1):
            heard = Heard(self.adapter())
            heard.feed(said[:cut])
            heard.composer.abandon()
            ending = TurnCancelled(2.0, "stopped", tuple(heard.composer.output))
            check_events([TurnAccepted("t", 1.0), TurnStarted(), *heard.events, ending])
            deltas = "".join(event.text for event in heard.events if isinstance(event, TextDelta))
            assert "".join(texts(ending.output)) == deltas

    def test_what_it_cannot_mean_is_refused(self) -> None:
        heard = Heard(self.adapter())
        heard.feed(self.speech(["fine"]))
        before = list(heard.events)
        with pytest.raises(HandlerError) as error:
            heard.translator.feed(self.unknown())
        assert type(self.unknown()).__name__ in str(error.value), "the error names what was yielded"
        assert heard.events == before

    def test_nothing_is_heard_after_the_end(self) -> None:
        heard = Heard(self.adapter())
        heard.composer.end()
        with pytest.raises(HandlerError):
            heard.feed(self.speech(["too late"]))

    def test_the_bound_of_a_turn_holds(self) -> None:
        heard = Heard(self.adapter(), budget=8)
        with pytest.raises(HandlerError, match="turn_bytes"):
            heard.feed(self.speech(["12345", "6789"]))

    def test_turns_do_not_meet(self) -> None:
        adapter = self.adapter()
        one, two = Heard(adapter), Heard(adapter)
        for left, right in zip(self.speech(["a", "b"]), self.speech(["c", "d"]), strict=True):
            one.translator.feed(left)
            two.translator.feed(right)
        assert (texts(one.finish()), texts(two.finish())) == (["ab"], ["cd"])

    @pytest.mark.parametrize("content", CONTENTS, ids=lambda content: type(content).__name__)
    @pytest.mark.parametrize("role", ["user", "assistant", "system"])
    def test_input_of_every_kind_is_taken_or_refused_by_name(self, content: object, role: str) -> None:
        message = Message((content,), role)  # type: ignore[arg-type]
        try:
            assert self.adapter().messages([message]) is not None
        except InvalidRequest as error:
            field = error.field
        else:
            return
        assert field is not None
        assert field.startswith("input[0]")

    def test_empty_input(self) -> None:
        assert not self.adapter().messages([])
        self.adapter().messages([Message()])

    def test_what_is_no_agent_is_refused(self) -> None:
        with pytest.raises(GreenroomError) as error:
            self.adapter().driver(object())
        assert "agent" in str(error.value)


class AgentFrameworkKit(FrameworkKit):
    """The laws for frameworks whose agents think and call tools."""

    @abstractmethod
    def thought(self, thought: Sequence[str], answer: Sequence[str]) -> Sequence[object]:
        """What a handler yields for reasoning in pieces, then an answer in pieces, of one model call."""

    @abstractmethod
    def tool_round(self, call: ToolCall, output: ToolOutput) -> Sequence[object]:
        """What a handler yields for a tool's call and what it gave back."""

    @given(*[st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=5)] * 2)
    def test_reasoning_is_complete_before_the_answer_opens(
        self, thought: list[str], answer: list[str]
    ) -> None:
        heard = Heard(self.adapter())
        heard.feed(self.thought(thought, answer))
        reasoning, message = heard.finish()
        assert (reasoning.kind, texts([reasoning], "reasoning")) == ("reasoning", ["".join(thought)])
        assert (message.kind, texts([message])) == ("message", ["".join(answer)])
        assert heard.order() == [reasoning.id, message.id], "the two interleave"

    def test_a_tool_is_called_and_answers(self) -> None:
        heard = Heard(self.adapter())
        call = ToolCall("call_1", "weather", '{"city": "Paris"}')
        output = ToolOutput("call_1", "weather", (Text("sunny"),))
        heard.feed(self.tool_round(call, output))
        items = heard.finish()
        assert [(item.kind, item.parts) for item in items] == [
            ("tool_call", (call,)),
            ("tool_output", (output,)),
        ]

    def test_a_call_is_complete_before_its_output(self) -> None:
        heard = Heard(self.adapter())
        heard.feed(self.tool_round(ToolCall("c", "n", "{}"), ToolOutput("c", "n", (Text("x"), Image(PIXEL)))))
        call, output = heard.finish()
        assert heard.order() == [call.id, output.id], "the two interleave"

    def test_tools_and_speech_take_turns(self) -> None:
        heard = Heard(self.adapter())
        heard.feed(self.speech(["I look."]))
        heard.feed(self.tool_round(ToolCall("c", "n", "{}"), ToolOutput("c", "n", (Text("x"),))))
        heard.feed(self.speech(["Found."]))
        assert [item.kind for item in heard.finish()] == ["message", "tool_call", "tool_output", "message"]

    @pytest.mark.parametrize("role", ["assistant", "tool"])
    def test_tool_messages_of_the_input_are_taken(self, role: str) -> None:
        call = Data({"call_id": "c", "name": "n", "arguments": '{"x": 1}'})
        output = Data({"call_id": "c", "name": "n", "output": '[{"type": "text", "text": "y"}]'})
        taken = self.adapter().messages(
            [
                Message((Text("hmm"),), "assistant", "reasoning"),
                Message((call,), "assistant", "plugin_call"),
                Message((output,), role, "plugin_call_output"),  # type: ignore[arg-type]
            ]
        )
        assert taken
