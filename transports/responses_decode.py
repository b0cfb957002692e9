"""Reading `POST /responses`: a request's bytes become a `CreateRequest`, from which a `Turn` is made once its session
is known.

Rule 1: no I/O, no clock of its own: time and ids come from `Sources`.
Rule 2: any bytes whatever give a request or a `GreenroomError` that names the field and says what would be right.
Rule 3: what a request asks for is done or refused, never dropped. Hints to a model (temperature, effort) are handed on.
Rule 4: what nearly all requests are made of is read by `responses_usual_request`; all else is read here, which knows
all there is and what to say of it. Both read the same.

`null` means absent, an empty id is no id, and fields that are not known are kept in `AgentRequest.extra`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from msgspec import Struct, structs

from greenroom.actors.errors import InvalidRequest
from greenroom.actors.ids import Sources
from greenroom.actors.messages import (
    AgentRequest,
    Disconnect,
    SessionKey,
    Turn,
    TurnOptions,
)
from greenroom.actors.repeats import UNNAMED
from greenroom.transports.idempotency import fingerprint
from greenroom.transports.json_checks import json_object, missing, owner
from greenroom.transports.openai_fields import refuse_unhonoured
from greenroom.transports.responses_echo import ResponseEcho, ToolDisplay
from greenroom.transports.responses_fields import CHECKS
from greenroom.transports.responses_items import Context, ReadItems, filled, read_items
from greenroom.transports.responses_usual_request import Usual, read_usual, usual_echo, usual_messages
from greenroom.transports.turn_policies import asked_disconnect, asked_overlap, asked_webhook

SEALED_REASONING = "reasoning.encrypted_content"
"""What `include` names to be given reasoning in a form that needs no server to be read again."""

_CONTINUE = Disconnect()
_NOTHING = TurnOptions()
_NO_INPUT = ReadItems((), ())
_ASKED_AS = {
    "tools": "tools",
    "tool_choice": "tool_choice",
    "forced_tool": "tool_choice",
    "parallel_tool_calls": "parallel_tool_calls",
    "max_output_tokens": "max_output_tokens",
    "max_tool_calls": "max_tool_calls",
}
"""The options that not every application honours. Instructions and the form of the answer all do."""
_HANDED_ON = ("model", "temperature", "top_p", "frequency_penalty", "presence_penalty", "stream")
_OWN_PLACE = frozenset(
    {
        *(name for name in AgentRequest.__struct_fields__ if name != "extra"),
        "max_output_tokens",
    }
)
"""What does not go into `AgentRequest.extra`: it has a field of its own there."""


class Settings(Struct, frozen=True, kw_only=True):
    """What the application says about its responses. `model`: what it is called when a request names none; `label`:
    the `server_label` of its tools; `honours`: the fields of `TurnOptions` that its handler does; `disconnect`: what
    becomes of a turn in the foreground whose client goes away."""

    model: str
    label: str
    honours: Collection[str] = frozenset()
    display: ToolDisplay = "mcp_call"
    disconnect: Disconnect = Disconnect()


class CreateRequest(Struct, frozen=True, kw_only=True):
    """What a request asks for. `turn`: as it is when nothing was said before; its session is a new one unless
    `addressed`; what `previous_response_id` names goes before it. `read`: its input, which `needs_context` to be whole
    when it refers to what was said before; none when nothing in it could."""

    turn: Turn
    addressed: bool
    stream: bool
    read: ReadItems | None = None
    previous_response_id: str | None = None
    conversation: str | None = None

    @property
    def needs_context(self) -> bool:
        """Whether `turn_of` needs the context: the input names items or calls of earlier responses."""
        return self.read is not None and bool(self.read.open)


def decode_create(
    body: bytes,
    *,
    sources: Sources,
    settings: Settings,
    principal: str | None = None,
    key: str | None = None,
) -> CreateRequest:
    """The request a body holds. `key`: its idempotency key. Raises `InvalidRequest`, or `Forbidden` for another
    principal's `user_id`."""
    if (usual := read_usual(body)) is not None:
        create = _usual_create(usual, sources, settings, principal)
    else:
        fields = json_object(body, "input")
        create = read_create(fields, sources=sources, settings=settings, principal=principal)
    if key is None:
        return create
    turn = structs.replace(create.turn, idempotency_key=key, fingerprint=fingerprint(body, b"responses"))
    return structs.replace(create, turn=turn)


def read_create(
    fields: dict[str, Any], *, sources: Sources, settings: Settings, principal: str | None = None
) -> CreateRequest:
    """The same of a body that is decoded already, as those of WebSocket messages are."""
    fields = {name: value for name, value in fields.items() if value is not None}
    given = {name: check(fields[name], name) for name, check in CHECKS.items() if name in fields}
    session_id = _session_id(given)
    _check_together(fields, given)
    options = _options(given)
    refuse_unhonoured(options, settings.honours, _ASKED_AS)
    said = fields.get("input")
    read = _NO_INPUT if said is None else read_items(said, "input", sources.uuid, settings.label)
    key_id = session_id or sources.uuid()
    key = SessionKey(owner(given.get("user_id"), principal, key_id), key_id)
    response_id = f"resp_{sources.uuid().replace('-', '')}"
    background = given.get("background", False)
    store = given.get("store", True)
    asked = asked_disconnect(fields.get("disconnect"))
    turn = Turn(
        id=response_id,
        key=key,
        request=_request(fields, given, read, key, response_id),
        principal=principal,
        overlap=asked_overlap(fields.get("overlap")),
        disconnect=_CONTINUE if background else asked or settings.disconnect,
        created_at=sources.now(),
        options=None if options == _NOTHING else options,
        kept=store or bool(session_id),
        stored=store,
        background=background,
        echo=_echo(given, read, settings),
        fingerprint=UNNAMED,
        webhook=asked_webhook(fields.get("webhook")),
    )
    return CreateRequest(
        turn=turn,
        addressed=bool(session_id),
        stream=given.get("stream", False),
        read=read,
        previous_response_id=given.get("previous_response_id") or None,
        conversation=given.get("conversation") or None,
    )


def turn_of(
    create: CreateRequest,
    *,
    key: SessionKey | None = None,
    after: str | None = None,
    context: Context | None = None,
    conversation: str | None = None,
) -> Turn:
    """The turn. `key`, `after` and `conversation`: those of the response it continues. `context`: what can be referred
    to.

    Raises `InvalidRequest` for an item or a call that is not in the context.
    """
    turn = create.turn
    if create.read is not None and create.read.open:
        read = filled(create.read, context or Context())
        echo = structs.replace(turn.echo, items=read.listed)
        turn = structs.replace(turn, request=structs.replace(turn.request, input=read.messages), echo=echo)
    if conversation is not None:
        turn = structs.replace(turn, echo=structs.replace(turn.echo, conversation=conversation))
    if key is not None and key != turn.key:
        request = structs.replace(turn.request, session_id=key.session_id, user_id=key.user_id)
        turn = structs.replace(turn, key=key, request=request)
    return turn if after is None else structs.replace(turn, after=after)


# -- what nearly all requests are ----------------------------------------------------------------------------------


def _usual_create(asked: Usual, sources: Sources, settings: Settings, principal: str | None) -> CreateRequest:
    messages = usual_messages(asked.input, sources.uuid)
    key_id = asked.session_id or sources.uuid()
    key = SessionKey(owner(asked.user_id, principal, key_id), key_id)
    response_id = f"resp_{sources.uuid().replace('-', '')}"
    instructions, previous = asked.instructions, asked.previous_response_id
    background, store, stream = asked.background is True, asked.store is not False, asked.stream is True
    echo = usual_echo(
        asked.model or settings.model, settings.label, settings.display, background, store, stream
    )
    if instructions is not None or previous:
        echo = structs.replace(echo, instructions=instructions, previous_response_id=previous or None)
    addressed = bool(asked.session_id)
    turn = Turn(
        id=response_id,
        key=key,
        request=AgentRequest(
            input=messages,
            session_id=key_id,
            user_id=key.user_id,
            id=response_id,
            stream=stream,
            model=asked.model,
            extra=_usual_extra(asked),
        ),
        principal=principal,
        disconnect=_CONTINUE if background else settings.disconnect,
        created_at=sources.now(),
        options=TurnOptions(instructions=instructions) if instructions else None,
        kept=store or addressed,
        stored=store,
        background=background,
        echo=echo,
        fingerprint=UNNAMED,
    )
    return CreateRequest(turn=turn, addressed=addressed, stream=stream, previous_response_id=previous or None)


_USUAL_EXTRA = [name for name in Usual.__struct_fields__ if name not in _OWN_PLACE]


def _usual_extra(asked: Usual) -> dict[str, Any]:
    extra: dict[str, Any] = {}
    for name in _USUAL_EXTRA:
        if (value := getattr(asked, name)) is not None:
            extra[name] = value
    return extra


# -- what fits together --------------------------------------------------------------------------------------------


def _session_id(given: dict[str, Any]) -> str | None:
    """The session that is addressed: a conversation is one."""
    session_id, conversation = given.get("session_id") or None, given.get("conversation") or None
    if conversation and session_id and conversation != session_id:
        raise InvalidRequest(
            "session_id and conversation name two sessions; a conversation is a session, so give one of them",
            field="session_id",
        )
    return conversation or session_id


def _check_together(fields: dict[str, Any], given: dict[str, Any]) -> None:
    if "prompt" in fields:
        raise InvalidRequest(
            "prompt names a template kept by OpenAI, and there are none here; send instructions and input",
            field="prompt",
        )
    previous, conversation = given.get("previous_response_id"), given.get("conversation")
    if previous and conversation:
        raise InvalidRequest(
            "previous_response_id and conversation cannot go together: each says what was said before; leave one out",
            field="previous_response_id",
        )
    if not (fields.get("input") or fields.get("input") == "" or previous or conversation):
        missing(
            "input", "send a text, a list of items, or the previous_response_id or conversation to go on with"
        )
    if given.get("background") and given.get("store") is False:
        raise InvalidRequest(
            "background needs store: a response that is not kept could never be fetched; leave out `store: false`",
            field="background",
        )


def _options(given: dict[str, Any]) -> TurnOptions:
    tools, choice, text = given.get("tools"), given.get("tool_choice"), given.get("text")
    return TurnOptions(
        instructions=given.get("instructions") or None,
        tools=tools.tools if tools is not None else (),
        tool_choice=choice.choice if choice is not None else "auto",
        forced_tool=choice.forced if choice is not None else None,
        parallel_tool_calls=given.get("parallel_tool_calls"),
        max_output_tokens=given.get("max_output_tokens"),
        temperature=given.get("temperature"),
        top_p=given.get("top_p"),
        reasoning_effort=given.get("reasoning", {}).get("effort"),
        answer=text.answer if text is not None else None,
        presence_penalty=given.get("presence_penalty"),
        frequency_penalty=given.get("frequency_penalty"),
        max_tool_calls=given.get("max_tool_calls"),
    )


# -- what is made of it --------------------------------------------------------------------------------------------


def _request(
    fields: dict[str, Any], given: dict[str, Any], read: ReadItems, key: SessionKey, response_id: str
) -> AgentRequest:
    """What a handler gets as `request`. Fields of this API that `/process` does not have are in `extra`."""
    handed_on = {name: given[name] for name in _HANDED_ON if name in given}
    handed_on.setdefault("stream", False)
    return AgentRequest(
        input=read.messages,
        session_id=key.session_id,
        user_id=key.user_id,
        id=response_id,
        max_tokens=given.get("max_output_tokens"),
        extra={name: value for name, value in fields.items() if name not in _OWN_PLACE},
        **handed_on,
    )


_REPEATED = [
    name
    for name in ResponseEcho.__struct_fields__
    if name in CHECKS
    and name not in {"model", "tools", "tool_choice", "text", "previous_response_id", "conversation"}
]


def _echo(given: dict[str, Any], read: ReadItems, settings: Settings) -> ResponseEcho:
    tools, choice, text = given.get("tools"), given.get("tool_choice"), given.get("text")
    return ResponseEcho(
        model=given.get("model") or settings.model,
        items=read.listed,
        label=settings.label,
        display=settings.display,
        sealed_reasoning=SEALED_REASONING in given.get("include", ()),
        previous_response_id=given.get("previous_response_id") or None,
        conversation=given.get("conversation") or None,
        text=text.shown if text is not None else None,
        tool_choice=choice.shown if choice is not None else "auto",
        tools=tools.shown if tools is not None else (),
        **{name: given[name] for name in _REPEATED if name in given},
    )
