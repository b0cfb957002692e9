"""The form of a whole `/process` stream, as a checker: what clients of AgentScope Runtime 1.0 rely on."""

from typing import Any

ENDINGS = ("completed", "failed", "canceled")
PLAIN = {"sequence_number", "index", "msg_id", "delta", "status", "object"}

WireEvent = dict[str, Any]


def check_stream(events: list[WireEvent], first: int = 0) -> WireEvent:
    """Check the events of a turn, from the one numbered `first` on; gives the ending. Raises AssertionError."""
    assert [event["sequence_number"] for event in events] == list(range(first, first + len(events)))
    responses = [event for event in events if event["object"] == "response"]
    assert [event["status"] for event in responses[:-1]] == ["created", "in_progress"][first:]
    ending = responses[-1]
    assert ending is events[-1]
    assert ending["status"] in ENDINGS
    assert (ending["status"] == "failed") == (ending["error"] is not None)
    if first == 0:
        _check_messages(events[2:-1], ending)
    return ending


def _check_messages(events: list[WireEvent], ending: WireEvent) -> None:
    open_messages: dict[str, list[WireEvent]] = {}
    done: list[WireEvent] = []
    for event in events:
        if event["object"] == "content":
            open_messages[event["msg_id"]].append(event)
        elif event["status"] == "in_progress":
            assert event["id"] not in open_messages
            open_messages[event["id"]] = []
        else:
            _check_message(event, open_messages.pop(event["id"]))
            done.append(event)
    assert ending["output"][: len(done)] == done
    cut = ending["output"][len(done) :]
    assert [message["id"] for message in cut] == list(open_messages)
    assert not cut or ending["status"] != "completed"


def _check_message(message: WireEvent, contents: list[WireEvent]) -> None:
    """Its contents are those announced as completed, and deltas add up to their text."""
    said = ""
    whole = []
    for content in contents:
        if content["status"] == "completed":
            whole.append(content)
            assert not said or content["text"] == said, f"{said!r} became {content['text']!r}"
            said = ""
        elif content["delta"] and content["type"] == "text":
            said += content["text"]
    assert not said, f"{said!r} was never completed"
    assert message["content"] == whole


def texts(ending: WireEvent, kind: str = "message") -> list[str]:
    """The text of each of the output's messages of a kind."""
    return [
        "".join(part.get("text", "") for part in message["content"] or [])
        for message in ending["output"] or []
        if message["type"] == kind
    ]


def data(ending: WireEvent, kind: str) -> list[dict[str, Any]]:
    """The data of the output's tool calls or tool outputs."""
    return [message["content"][0]["data"] for message in ending["output"] if message["type"] == kind]
