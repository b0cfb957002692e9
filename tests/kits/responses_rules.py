"""The rules of a Responses stream, as a checker: order, identity, and the types of OpenAI's SDK and of Open Responses.

`check_stream` takes the decoded events of a whole stream, without `[DONE]`; `check_response` one response object;
`validate_types` either, against both sets of types. All raise `AssertionError` that says which rule broke.
"""

from collections.abc import Iterable, Sequence
from typing import Any, get_args

import openresponses_types
import pydantic
from openai.types.responses import Response, ResponseStreamEvent

Json = dict[str, Any]

ENDINGS = {
    "response.completed": "completed",
    "response.failed": "failed",
    "response.incomplete": "incomplete",
}
FIELDS = frozenset(
    {
        *(
            "id",
            "object",
            "created_at",
            "completed_at",
            "status",
            "error",
            "incomplete_details",
            "instructions",
        ),
        *(
            "max_output_tokens",
            "max_tool_calls",
            "model",
            "output",
            "parallel_tool_calls",
            "previous_response_id",
        ),
        *(
            "conversation",
            "reasoning",
            "safety_identifier",
            "prompt_cache_key",
            "service_tier",
            "store",
            "background",
        ),
        *(
            "temperature",
            "top_p",
            "presence_penalty",
            "frequency_penalty",
            "top_logprobs",
            "text",
            "tool_choice",
        ),
        *("tools", "truncation", "metadata", "usage"),
    }
)
"""What every response object has, whatever its value."""
MAY_HAVE = frozenset({"user", "response"})

# What may follow what in an item, by its type: state -> event (without `response.`) -> state.
_ARGUMENTS = {"delta": "arguments", "done": "said"}
_MESSAGE = {
    "open": {"content_part.added": "part"},
    "part": {"output_text.delta": "text", "refusal.delta": "refusal"},
    "text": {"output_text.delta": "text", "output_text.done": "said"},
    "refusal": {"refusal.delta": "refusal", "refusal.done": "said"},
    "said": {"content_part.done": "between"},
    "between": {"content_part.added": "part", "output_item.done": "over"},
}
_REASONING = {
    "open": {"reasoning_summary_part.added": "part", "output_item.done": "over"},
    "part": {"reasoning_summary_text.delta": "text"},
    "text": {"reasoning_summary_text.delta": "text", "reasoning_summary_text.done": "said"},
    "said": {"reasoning_summary_part.done": "between"},
    "between": {"reasoning_summary_part.added": "part", "output_item.done": "over"},
}
_FUNCTION_CALL = {
    "open": {"function_call_arguments.delta": "arguments"},
    "arguments": {"function_call_arguments.delta": "arguments", "function_call_arguments.done": "said"},
    "said": {"output_item.done": "over"},
}
_MCP_CALL = {
    "open": {"mcp_call.in_progress": "running"},
    "running": {"mcp_call_arguments.delta": "arguments"},
    "arguments": {"mcp_call_arguments.delta": "arguments", "mcp_call_arguments.done": "said"},
    "said": {"mcp_call.completed": "ended", "mcp_call.failed": "ended"},
    "ended": {"output_item.done": "over"},
}
_GRAMMARS: dict[str, dict[str, dict[str, str]]] = {
    "message": _MESSAGE,
    "reasoning": _REASONING,
    "function_call": _FUNCTION_CALL,
    "mcp_call": _MCP_CALL,
    "function_call_output": {"open": {"output_item.done": "over"}},
}
_PREFIXES = {
    "message": "msg_",
    "reasoning": "rs_",
    "function_call": "fc_",
    "mcp_call": "mcp_",
    "function_call_output": "fco_",
}


_NOTHING: tuple[object, ...] = (None, "", [])


class _Item:
    """One item of the stream, as its events say it."""

    def __init__(self, added: Json, index: int, rewrites: bool) -> None:
        item = added["item"]
        assert added["output_index"] == index, f"item {index} has the output_index {added['output_index']}"
        assert item["type"] in _GRAMMARS, f"an item of the type {item['type']!r}"
        prefix = _PREFIXES[item["type"]]
        assert item["id"].startswith(prefix), f"the id of a {item['type']} is {item['id']!r}"
        assert item["status"] == "in_progress", f"an item is added with the status {item['status']!r}"
        for name in ("content", "summary", "arguments", "output"):
            assert item.get(name) in _NOTHING, f"an item is added with {name} {item[name]!r}"
        self.added, self.index, self.state, self.rewrites = item, index, "open", rewrites
        self.said: list[str] = []
        self.parts: list[Json] = []
        self.done: Json | None = None
        self.ended = ""

    def hear(self, event: Json) -> None:
        name = event["type"].removeprefix("response.")
        after = _GRAMMARS[self.added["type"]].get(self.state, {})
        assert name in after, (
            f"{name} in a {self.added['type']} whose state is {self.state!r}, not {[*after]}"
        )
        self.state = after[name]
        assert event["output_index"] == self.index, f"item {self.index} became {event['output_index']}"
        if name != "output_item.done":
            assert event["item_id"] == self.added["id"], f"{self.added['id']} became {event['item_id']}"
        for place in ("content_index", "summary_index"):
            assert event.get(place, len(self.parts)) == len(self.parts), (
                f"{place} {event[place]} is out of order"
            )
        kind, _, what = name.rpartition(".")
        check = {"added": self._part_added, "delta": self._delta, "done": self._done}.get(what)
        if kind == "output_item":
            self._item_done(event["item"])
        elif check is not None:
            check(event)
        else:
            self.ended = what

    def _part_added(self, event: Json) -> None:
        part = event["part"]
        assert part.get("text", part.get("refusal")) == "", f"a part is added with {part!r}"

    def _delta(self, event: Json) -> None:
        self.said.append(event["delta"])
        if event["type"] == "response.output_text.delta":
            assert event["logprobs"] == [], "logprobs of a delta are []"

    def _done(self, event: Json) -> None:
        if "part" in event:
            part = event["part"]
            assert part.get("text", part.get("refusal")) == self.said[0], f"the text became {part!r}"
            self.parts.append(part)
            self.said = []
            return
        whole = next(event[name] for name in ("text", "refusal", "arguments") if name in event)
        said = "".join(self.said)
        assert self.rewrites or said == whole, f"the deltas say {said!r}, not {whole!r}"
        self.said = [whole]

    def _item_done(self, item: Json) -> None:
        for name in ("id", "type", "role", "call_id", "name", "server_label"):
            assert item.get(name) == self.added.get(name), f"{name} became {item.get(name)!r}"
        assert item["status"] in {"completed", "incomplete", "failed"}, f"done with {item['status']!r}"
        for name in ("content", "summary"):
            if name in item:
                assert item[name] == self.parts, f"{item[name]!r} were not announced; {self.parts!r} were"
        if "arguments" in item:
            assert [item["arguments"]] == self.said, f"the arguments became {item['arguments']!r}"
        if self.ended:
            assert (item["status"] == "completed") == (self.ended == "completed"), (
                "an mcp_call ended otherwise"
            )
        self.done = item


def check_stream(events: Sequence[Json], *, cancelled: bool = False, rewrites: bool = False) -> Json:
    """Check a whole stream; gives the last response. `cancelled`: it has no terminal event; `rewrites`: a handler took
    back what it had said, which deltas cannot."""
    assert events, "a stream without events"
    numbers = [event["sequence_number"] for event in events]
    assert numbers == list(range(len(events))), f"sequence numbers {numbers}"
    head = [event["type"] for event in events if event["type"] in _LIFECYCLE]
    assert head in _HEADS or (cancelled and head in _HEADS_WAITING), f"a stream begins with {head}"
    assert [event["type"] for event in events[: len(head)]] == head, f"items before {head[-1]}"
    endings = [at for at, event in enumerate(events) if event["type"] in ENDINGS]
    assert endings == ([] if cancelled else [len(events) - 1]), (
        f"terminal events at {endings} of {len(events)}"
    )
    done = _check_items(events[len(head) : len(events) if cancelled else -1], rewrites)
    last = _check_responses([event["response"] for event in events if "response" in event], len(head))
    if not cancelled:
        ending = events[-1]["type"]
        assert last["status"] == ENDINGS[ending], f"{ending} with the status {last['status']!r}"
        assert last["output"] == done, f"the output is {last['output']!r}; {done!r} were done"
    return last


def _check_responses(responses: Sequence[Json], before_items: int) -> Json:
    first, last = responses[0], responses[-1]
    for response in responses:
        check_response(response)
        for name in ("id", "created_at", "model"):
            assert response[name] == first[name], f"{name} was {first[name]!r} and became {response[name]!r}"
    for response in responses[:before_items]:
        assert response["output"] == [], f"output before any item: {response['output']}"
        assert response["usage"] is None, "usage before the end"
    return last


_LIFECYCLE = ("response.created", "response.queued", "response.in_progress")
_HEADS = (["response.created", "response.in_progress"], [*_LIFECYCLE])
_HEADS_WAITING = (["response.created"], ["response.created", "response.queued"])


def _check_items(events: Iterable[Json], rewrites: bool) -> list[Json]:
    items: list[_Item] = []
    for event in events:
        try:
            if event["type"] == "response.output_item.added":
                items.append(_Item(event, len(items), rewrites))
            else:
                assert "output_index" in event, f"{event['type']} is no event of an item"
                assert event["output_index"] < len(items), "an event of an item that was not added"
                items[event["output_index"]].hear(event)
        except AssertionError as broken:
            raise AssertionError(f"event {event['sequence_number']}, {event['type']}: {broken}") from broken
    ids = [item.added["id"] for item in items]
    assert len(ids) == len(set(ids)), f"ids are not unique: {ids}"
    left = [item.added for item in items if item.state != "over"]
    assert not left, f"left open: {left}"
    return [item.done for item in items if item.done is not None]


def check_response(response: Json) -> None:
    """Check a response object: every field is there, and those that belong together agree."""
    names = frozenset(response)
    assert names >= FIELDS, f"a response without {sorted(FIELDS - names)}"
    assert names <= FIELDS | MAY_HAVE, f"a response with {sorted(names - FIELDS - MAY_HAVE)}"
    status = response["status"]
    over = status in {"completed", "failed", "incomplete", "cancelled"}
    assert over or status in {"queued", "in_progress"}, f"the status is {status!r}"
    assert response["object"] == "response", response["object"]
    assert type(response["created_at"]) is int, f"created_at is {response['created_at']!r}"
    for name in ("temperature", "top_p", "presence_penalty", "frequency_penalty"):
        assert type(response[name]) in {int, float}, f"{name} is {response[name]!r}"
    for name in ("model", "service_tier", "truncation"):
        assert type(response[name]) is str, f"{name} is {response[name]!r}"
    assert (response["usage"] is not None) == over, (
        f"usage is {response['usage']!r} and the status {status!r}"
    )
    assert (response["error"] is not None) == (status == "failed"), f"error is {response['error']!r}"
    assert (response["incomplete_details"] is not None) == (status == "incomplete"), "incomplete_details"
    assert (type(response["completed_at"]) is int) == (status == "completed"), "completed_at"
    assert response.get("user", "") is not None, "user is null"
    assert over or all(item["status"] != "in_progress" for item in response["output"]), "open items in output"
    ids = [item["id"] for item in response["output"]]
    assert len(ids) == len(set(ids)), f"ids are not unique: {ids}"


# -- types ---------------------------------------------------------------------------------------------------------


def _events_by_type(kinds: Iterable[Any]) -> dict[str, type[pydantic.BaseModel]]:
    return {str(word): kind for kind in kinds for word in _words(kind.model_fields["type"].annotation)}


def _words(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) or tuple(annotation)  # a Literal, or an enumeration


_OPENAI = _events_by_type(get_args(get_args(ResponseStreamEvent)[0]))
_OPEN = _events_by_type(
    kind
    for name, kind in vars(openresponses_types).items()
    if name.endswith("StreamingEvent") and isinstance(kind, type)
)
_OPEN_ITEMS = ("message", "function_call", "function_call_output", "reasoning", "compaction")


def validate_types(said: Json | Sequence[Json]) -> None:
    """Validate a response object, or the events of a stream, against both sets of types.

    Open Responses does not know `mcp_call`, as an item or in events: it is validated without. And its types have a
    mistake: the schema of a `json_schema` format must be null.
    """
    for one in [said] if isinstance(said, dict) else said:
        if "object" in one:
            Response.model_validate(one)
            openresponses_types.ResponseResource.model_validate(_open_response(one))
        else:
            _validate_event(one)


def _validate_event(event: Json) -> None:
    kind = event["type"]
    assert kind in _OPENAI, f"the SDK knows no event {kind!r}"
    _OPENAI[kind].model_validate(event)
    if kind.startswith("response.mcp_call") or event.get("item", {}).get("type") == "mcp_call":
        return
    assert kind in _OPEN, f"Open Responses knows no event {kind!r}"
    if "response" in event:
        event = {**event, "response": _open_response(event["response"])}
    _OPEN[kind].model_validate(event)


def _open_response(response: Json) -> Json:
    text = response["text"]
    if "schema" in text["format"]:
        text = {**text, "format": {**text["format"], "schema": None}}
    output = [item for item in response["output"] if item["type"] in _OPEN_ITEMS]
    return {**response, "text": text, "output": output}
