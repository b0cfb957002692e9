"""What the document says of `/process`, as `process_decode` reads it and `process_encode` writes it."""

from __future__ import annotations

from typing import get_args

from greenroom.actors.messages import MessageType, Role
from greenroom.transports import process_wire as wire
from greenroom.transports.idempotency import HEADER, KEY_CHARS
from greenroom.transports.openapi.operation import OF_A_BODY, Answer, Operation
from greenroom.transports.openapi.schemas import (
    INT64,
    Schema,
    any_of,
    array,
    boolean,
    constant,
    identifier,
    integer,
    mapping,
    nullable,
    optional,
    ref,
    text,
    words,
    written,
)
from greenroom.transports.turn_policies import WEBHOOK_CHARS

_NUMBER: Schema = {"type": "number", "minimum": INT64["minimum"], "exclusiveMaximum": float(1 << 63)}
_GRACE = (
    r"grace=(0\.[0-9]{0,4}[1-9][0-9]{0,4}|([1-9][0-9]{0,2}|[12][0-9]{3}|3[0-5][0-9]{2})(\.[0-9]{1,9})?"
    r"|3600(\.0{1,9})?)s?"
)
POLICIES: dict[str, Schema] = optional(
    {
        "overlap": words(("queue", "reject", "interrupt")),
        "disconnect": text(
            pattern=f"^(continue|cancel|grace|{_GRACE})$",
            description="What becomes of the turn when this client goes: it runs on; is cancelled; is cancelled unless "
            "somebody follows it again within the time",
        ),
        "webhook": text(
            maxLength=WEBHOOK_CHARS,
            description="A URL that is told, signed by the Standard Webhooks specification, when the turn has ended; "
            "refused unless the application has a secret to sign with",
        ),
    }
)
"""Fields that every request for a turn may have."""
KEYED: dict[str, Schema] = {
    HEADER: text(
        minLength=1,
        maxLength=KEY_CHARS,
        pattern="^[!#-\\[\\]-~]([ !#-\\[\\]-~]*[!#-\\[\\]-~])?$",
        description="Names the request: sent again with the same body, it joins the turn or gets its result",
    )
}
"""Headers that every request for a turn may have."""
_CURSOR: dict[str, Schema] = {"Last-Event-ID": text(description="The number of the last event that came")}


def _part(kind: str, needed: dict[str, Schema], others: dict[str, Schema] | None = None) -> Schema:
    properties = {"type": constant(kind), **needed, **optional(others or {})}
    return mapping(properties, ("type", *needed))


_FILE = ("file_url", "file_id", "file_data")
_PARTS = (
    _part("text", {"text": text()}),
    _part("data", {"data": mapping()}),
    _part("image", {"image_url": text()}),
    _part("audio", {"data": text()}, {"format": text()}),
    _part("video", {"video_url": text()}),
    *(
        _part("file", {name: text()}, {other: text() for other in (*_FILE, "filename") if other != name})
        for name in _FILE
    ),
    _part("refusal", {"refusal": text()}),
)
_CONTENTS = [cls.__name__ for cls in wire.CONTENTS.values()]
_ANY_CONTENT = any_of(*(ref(f"Process{name}") for name in _CONTENTS))

SCHEMAS: dict[str, Schema] = {
    "ProcessPart": any_of(*_PARTS),
    "ProcessInput": mapping(
        optional(
            {
                "role": words(get_args(Role)),
                "type": words(get_args(MessageType)),
                "content": any_of(text(), array(ref("ProcessPart"))),
                "id": identifier(),
                "name": identifier(),
                "metadata": mapping(),
            }
        )
    ),
    "ProcessRequest": mapping(
        {
            "input": array(ref("ProcessInput"), minItems=1),
            **optional(
                {
                    "session_id": identifier(),
                    "user_id": identifier(),
                    "id": identifier(),
                    "stream": boolean(),
                    "model": text(),
                    "temperature": _NUMBER,
                    "top_p": _NUMBER,
                    "frequency_penalty": _NUMBER,
                    "presence_penalty": _NUMBER,
                    "max_tokens": integer(),
                    "stop": any_of(text(), array(text())),
                    "n": integer(),
                    "seed": integer(),
                    "tools": array(mapping()),
                }
            ),
            **POLICIES,
        },
        ("input",),
    ),
    "ProcessTask": mapping(
        {
            "task_id": identifier(),
            "status": constant("submitted"),
            "queue": text(),
            "message": text(),
            "session_id": text(),
            "user_id": text(),
        },
        ("task_id", "status", "queue", "message", "session_id", "user_id"),
    ),
    "ProcessStanding": mapping(
        {
            "task_id": identifier(),
            "status": words(("pending", "running", "finished", "error")),
            "started_at": {"type": "number", "description": "Of one that has not ended"},
            "result": any_of(ref("ProcessResponse"), text(description="What went wrong"), {"type": "null"}),
            "response": ref("ProcessResponse"),
            "session_id": text(),
        },
        ("task_id", "status", "result", "session_id"),
    ),
    **written(
        "Process",
        [wire.Response, wire.Message, *wire.CONTENTS.values()],
        {
            ("Response", "output"): nullable(array(ref("ProcessMessage"))),
            ("Message", "content"): nullable(array(_ANY_CONTENT)),
            **{(cls.__name__, "type"): constant(kind) for kind, cls in wire.CONTENTS.items()},
        },
    ),
}

_RESPONSE = ref("ProcessResponse")
_EVENT = any_of(_RESPONSE, ref("ProcessMessage"), _ANY_CONTENT)
_TURN = (401, 403, 404, 503)


def turn_operation(operation_id: str) -> Operation:
    """`POST /process`, or another path for it."""
    return Operation(
        id=operation_id,
        summary="A turn: its events as a stream, or with `stream: false` its response",
        tag="process",
        body=ref("ProcessRequest"),
        headers={**KEYED, **_CURSOR},
        answers={200: Answer(what="The turn", json=_RESPONSE, events=_EVENT)},
        refusals=(*OF_A_BODY, *_TURN, 409, 410, 424),
    )


def task_operation(operation_id: str) -> Operation:
    """`POST /process/task`, also below another path for `/process`."""
    return Operation(
        id=operation_id,
        summary="A turn in the background: answers at once with its id",
        tag="process",
        body=ref("ProcessRequest"),
        headers=KEYED,
        answers={200: Answer(what="The turn is accepted", json=ref("ProcessTask"))},
        refusals=(*OF_A_BODY, 401, 403, 409, 503),
    )


def standing_operation(operation_id: str) -> Operation:
    """`GET /process/task/{id}`."""
    return Operation(
        id=operation_id,
        summary="How a turn in the background stands, and when it has ended its result",
        tag="process",
        answers={200: Answer(what="How it stands", json=ref("ProcessStanding"))},
        refusals=_TURN,
    )


PROCESS: dict[str, Operation] = {
    "POST /process": turn_operation("process"),
    "POST /process/task": task_operation("beginTask"),
    "GET /process/task/{id}": standing_operation("showTask"),
    "GET /process/{id}": Operation(
        id="showTurn",
        summary="A turn's response as it stands",
        tag="process",
        answers={200: Answer(what="The response", json=_RESPONSE)},
        refusals=_TURN,
    ),
    "GET /process/{id}/events": Operation(
        id="followTurn",
        summary="A turn's events, from the one after `Last-Event-ID` on, or from the first",
        tag="process",
        query={"last_event_id": text(description="As the header; for clients that cannot set it")},
        headers=_CURSOR,
        answers={200: Answer(what="The events; each has its `id`", events=_EVENT)},
        refusals=(400, *_TURN, 410),
    ),
    "POST /process/{id}/cancel": Operation(
        id="cancelTurn",
        summary="Stop a turn, running or waiting; twice, or too late, changes nothing",
        tag="process",
        answers={200: Answer(what="The response as it stands", json=_RESPONSE)},
        refusals=_TURN,
    ),
}
