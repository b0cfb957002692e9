"""What a scripted model says: the steps of a reply, and the scripts that choose one.

A *step* is one thing the model does: `Say`, `Think`, `CallTool`, `Pause`, `Gate`, `Hang`, `Fail`, `Break`,
`Finish`, `Usage`. A *reply* is a step, a string (short for `Say`) or a sequence of both. A *script* picks the
reply to a request:

    # A list of replies, one a request; the second is two parallel calls.
    [Say("Hello."), [CallTool("clock", {}), CallTool("weather", {"city": "Paris"})], "Sunny at noon."]
    # Decided by code.
    lambda request: Say(str(len(request["messages"])))
    # By the last user text.
    rules({"weather": CallTool("weather", {"city": "Paris"}), "hello|hi": "Hello."}, otherwise="Ask me more.")
    # Ready made.
    friday(), counter(), steady(50)

No I/O and no clock here: `scripted_model_wire` turns steps into bytes, `scripted_model` sends them.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

Request: TypeAlias = dict[str, Any]
"""The decoded body of `POST /v1/chat/completions`."""

MID_WORD_ARGUMENTS = 8
"""Characters in a fragment of tool arguments: short enough to cut keys and values in two, as providers do."""


class ScriptError(Exception):
    """The script, not the code under test, is wrong: it ran out of replies, raised, or returned no reply."""


class Step(msgspec.Struct, frozen=True):
    """One thing the model does."""


class _Text(Step, frozen=True):
    text: str = ""
    chunks: Sequence[str] = ()
    chunk_size: int = 0
    delay: float = 0.0

    def __post_init__(self) -> None:
        if self.chunks and self.text and "".join(self.chunks) != self.text:
            raise ScriptError(
                f"chunks {list(self.chunks)!r} do not add up to {self.text!r}: give only one of the two"
            )

    def pieces(self) -> list[str]:
        """The deltas; joined they are the text."""
        return list(self.chunks) or cut(self.text, self.chunk_size)


class Say(_Text, frozen=True):
    """Visible text, streamed as `content` deltas.

    Cut into words, unless `chunk_size` (characters a delta) or `chunks` (the deltas themselves) is given.
    `delay` is the seconds between two deltas, not before the first: for that, put a `Pause` in front.
    """


class Think(_Text, frozen=True):
    """Reasoning, streamed as `reasoning_content` deltas; same fields as `Say`."""


class CallTool(Step, frozen=True):
    """A call of one of the client's tools; several in a reply are parallel calls, in this order.

    `arguments` given as a string go out as they are, so a script can send broken JSON. Without `id` the
    server numbers the call. `chunk_size` is the characters of a fragment, 0 for all in one fragment; `delay` is
    the seconds between two.
    """

    name: str
    arguments: Mapping[str, Any] | str = {}
    id: str | None = None
    chunk_size: int = MID_WORD_ARGUMENTS
    delay: float = 0.0

    def pieces(self) -> list[str]:
        """The fragments of the arguments; joined they are the JSON text."""
        text = (
            self.arguments
            if isinstance(self.arguments, str)
            else msgspec.json.encode(self.arguments).decode()
        )
        return cut(text, self.chunk_size) if self.chunk_size else [text]


class Pause(Step, frozen=True):
    """Wait `seconds` before the next step, by the sleep the server was given."""

    seconds: float


class Gate(Step, frozen=True):
    """Wait until the test opens the gate of this name; a gate once open stays open."""

    name: str


class Hang(Step, frozen=True):
    """Send nothing more until the client goes, or the test calls `release()`: then the reply goes on."""


class Fail(Step, frozen=True):
    """End with an error: of this HTTP status before the first byte, else as an error event in the stream.

    Clients retry 408, 409, 429 and 5xx, and every try asks the script again: give the client `max_retries=0`.
    """

    status: int
    message: str
    code: str | None = None
    type: str | None = None
    headers: Mapping[str, str] = {}


class Break(Step, frozen=True):
    """Drop the connection: here, or once `after` deltas of this reply are sent, wherever the step stands.

    `after=0` drops it before the first byte.
    """

    after: int | None = None


class Finish(Step, frozen=True):
    """Give this finish reason in place of `stop` or, after a tool call, `tool_calls`."""

    reason: Literal["stop", "length", "tool_calls", "content_filter"]


class Usage(Step, frozen=True):
    """The token counts to report; without it, words of the request and deltas of the reply are counted."""

    prompt: int
    completion: int
    cached: int = 0
    reasoning: int = 0


Reply: TypeAlias = Step | str | Sequence[Step | str]
Script: TypeAlias = Callable[[Request], Reply]


def cut(text: str, chunk_size: int) -> list[str]:
    """Cut `text` into pieces of `chunk_size` characters; if that is 0, into words with the space after."""
    if chunk_size:
        return [text[start : start + chunk_size] for start in range(0, len(text), chunk_size)]
    return re.findall(r"\S+\s*|^\s+", text)


def steps_of(reply: object) -> tuple[Step, ...]:
    """Spell a reply out as steps. Raises ScriptError for what is no reply."""
    if isinstance(reply, Step | str):
        return (_step(reply),)
    if not isinstance(reply, Sequence):
        raise ScriptError(
            f"{reply!r} is no reply: return a step such as Say('…'), a string, or a list of them"
        )
    return tuple(map(_step, reply))


def _step(part: object) -> Step:
    if isinstance(part, str):
        return Say(part)
    if isinstance(part, Step):
        return part
    raise ScriptError(
        f"{part!r} is no step: use Say, Think, CallTool, Pause, Gate, Hang, Fail, Break, Finish or Usage"
    )


# Scripts


def as_script(script: Script | Sequence[Reply]) -> Script:
    """Take a callable as it is and a list of replies as `in_order`."""
    if callable(script):
        return script
    return in_order(*script)


def in_order(*replies: Reply, repeat_last: bool = False) -> Script:
    """One reply a request, in the order of arrival; after the last, repeat it or raise ScriptError."""
    asked = 0

    def script(request: Request) -> Reply:
        nonlocal asked
        asked += 1
        if asked <= len(replies):
            return replies[asked - 1]
        if repeat_last and replies:
            return replies[-1]
        raise ScriptError(
            f"request {asked} came and the script has {len(replies)} replies: "
            "add one, or use in_order(…, repeat_last=True)"
        )

    return script


def rules(
    by_pattern: Mapping[str, Reply | Script],
    *,
    otherwise: Reply | Script = (),
    after_tool: Reply | Script | None = None,
) -> Script:
    """The reply of the first pattern found in the last user text, letter case ignored, else `otherwise`.

    Once the client sends tool results, `after_tool` answers (by default it tells what the tools said), so a
    rule that calls a tool does not call it for ever.
    """
    compiled = [(re.compile(pattern, re.IGNORECASE), reply) for pattern, reply in by_pattern.items()]
    told = tell_tool_results if after_tool is None else after_tool

    def script(request: Request) -> Reply:
        if tool_results(request):
            return _resolve(told, request)
        text = last_user_text(request)
        return _resolve(
            next((reply for pattern, reply in compiled if pattern.search(text)), otherwise), request
        )

    return script


def _resolve(reply: Reply | Script, request: Request) -> Reply:
    return reply(request) if callable(reply) else reply


def counter(*, delay: float = 0.0) -> Script:
    """Answer with the number of user messages in the request: what shows lost or doubled history."""
    return lambda request: Say(str(len(user_texts(request))), delay=delay)


def steady(deltas: int, *, size: int = 20, delay: float = 0.0) -> Script:
    """Answer everything with `deltas` deltas of `size` characters, `delay` seconds apart: for measuring."""
    reply = Say(chunks=("x" * (size - 1) + " ",) * deltas, delay=delay)
    return lambda request: reply


# Friday, the assistant of the tutorial

CAPITALS = {
    "france": "Paris",
    "germany": "Berlin",
    "italy": "Rome",
    "spain": "Madrid",
    "japan": "Tokyo",
    "china": "Beijing",
}

_CALL = re.compile(r"\b(?:call|use) (?:the tool )?`?(\w+)`?(?: with)? (\{.*\})", re.IGNORECASE | re.DOTALL)
_CAPITAL = re.compile(r"capital of (\w+)", re.IGNORECASE)
_MY_NAME = re.compile(r"my name is (\w+)", re.IGNORECASE)
_WHAT_NAME = re.compile(r"what(?:'s| is) my name|who am i", re.IGNORECASE)
_WHO = re.compile(r"who are you|what(?:'s| is) your name", re.IGNORECASE)


def friday(*, delay: float = 0.0, chunk_size: int = 0, think: bool = False) -> Script:
    """A helpful assistant that always answers the same.

    Knows a few capitals, who it is, and the name the user gave anywhere in the request. Calls a tool when told
    to (`Call get_weather with {"city": "Paris"}`, if the request offers it) and tells what it returned. Else it
    says what was said. `think=True` puts reasoning in front; `delay` and `chunk_size` are those of `Say`.
    """

    def script(request: Request) -> Reply:
        answer = _friday_answer(request)
        if isinstance(answer, CallTool):
            return answer
        said = Say(answer, delay=delay, chunk_size=chunk_size)
        return [Think(f"The user said: {last_user_text(request)}", delay=delay), said] if think else said

    return script


def _friday_answer(request: Request) -> str | CallTool:
    text = last_user_text(request)
    if tool_results(request):
        return tell_tool_results(request)
    if (call := _CALL.search(text)) and call[1] in tool_names(request):
        return CallTool(call[1], call[2])
    if (country := _CAPITAL.search(text)) and country[1].lower() in CAPITALS:
        return f"The capital of {country[1].capitalize()} is {CAPITALS[country[1].lower()]}."
    if _WHAT_NAME.search(text):
        name = _name_given(request)
        return f"Your name is {name}." if name else "You have not told me your name."
    if given := _MY_NAME.search(text):
        return f"Nice to meet you, {given[1]}."
    return "I'm Friday, a helpful assistant." if _WHO.search(text) else f"You said: {text}"


def _name_given(request: Request) -> str | None:
    found = [match[1] for text in user_texts(request) for match in _MY_NAME.finditer(text)]
    return found[-1] if found else None


# Reading a request


def text_of(message: Mapping[str, Any]) -> str:
    """The text of a message, whether its content is a string, a list of parts or null."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or [] if part.get("type") == "text")


def user_texts(request: Request) -> list[str]:
    """What the user wrote, oldest first.

    Frameworks put notes of their own under the role `user` too: AgentScope 2.x sends the time so, as
    `<system-reminder>…`. They are left out.
    """
    return [
        text_of(message)
        for message in request["messages"]
        if message["role"] == "user" and not _is_note(message)
    ]


def _is_note(message: Mapping[str, Any]) -> bool:
    return message["role"] == "user" and text_of(message).lstrip().startswith("<system-")


def last_user_text(request: Request) -> str:
    """What the user wrote last, or an empty string."""
    return next(reversed(user_texts(request)), "")


def tool_names(request: Request) -> list[str]:
    """The names of the tools the request offers."""
    return [tool["function"]["name"] for tool in request.get("tools") or []]


def tool_results(request: Request) -> list[tuple[str, str]]:
    """(tool, result text) of the tool messages that end the request; empty when someone spoke after them."""
    messages = [message for message in request["messages"] if not _is_note(message)]
    calls = [call for message in messages for call in message.get("tool_calls") or []]
    names = {call["id"]: call["function"]["name"] for call in calls}
    results: list[tuple[str, str]] = []
    for message in reversed(messages):
        if message["role"] != "tool":
            break
        results.append((names.get(message["tool_call_id"], "the tool"), text_of(message)))
    return results[::-1]


def tell_tool_results(request: Request) -> str:
    """`get_weather says: Sunny.` for each result that ends the request."""
    return " ".join(f"{name} says: {result}" for name, result in tool_results(request))
