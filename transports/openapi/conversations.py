"""What the document says of conversations and models."""

from __future__ import annotations

from greenroom.transports.conversations import ITEMS_AT_ONCE
from greenroom.transports.openapi.operation import Answer, Operation
from greenroom.transports.openapi.responses import METADATA, PAGE
from greenroom.transports.openapi.schemas import (
    Schema,
    array,
    constant,
    identifier,
    integer,
    mapping,
    nullable,
    ref,
    text,
)

_USER = {"user_id": identifier()}
_PATH = {"id": identifier()}
_OWNER = nullable(identifier())
_HERE = (400, 401, 403, 404, 503)
_ITEMS = array(ref("InputItem"), maxItems=ITEMS_AT_ONCE)

SCHEMAS: dict[str, Schema] = {
    "ConversationObject": mapping(
        {
            "id": text(),
            "object": constant("conversation"),
            "created_at": integer(),
            "metadata": METADATA,
        },
        ("id", "object", "created_at", "metadata"),
    ),
    "Model": mapping(
        {"id": text(), "object": constant("model"), "created": integer(), "owned_by": text()},
        ("id", "object", "created", "owned_by"),
    ),
}

_CONVERSATION = Answer(what="The conversation", json=ref("ConversationObject"))


def _operation(
    id: str, summary: str, answer: Answer, body: Schema | None = None, **more: object
) -> Operation:
    fields: dict[str, object] = {"path": _PATH, "query": _USER, "body": body, **more}
    refusals = (*_HERE, 413, 415) if body is not None else _HERE
    return Operation(
        id=id,
        summary=summary,
        tag="conversations",
        form="openai",
        answers={200: answer},
        refusals=refusals,
        **fields,  # type: ignore[arg-type]
    )


CONVERSATIONS: dict[str, Operation] = {
    "POST /conversations": _operation(
        "createConversation",
        "A new conversation, with items in it if any are given",
        _CONVERSATION,
        mapping({"items": nullable(_ITEMS), "metadata": nullable(METADATA), "user_id": _OWNER}),
        body_needed=False,
        path={},
    ),
    "GET /conversations/{id}": _operation("showConversation", "A conversation", _CONVERSATION),
    "POST /conversations/{id}": _operation(
        "describeConversation",
        "Give it other metadata",
        _CONVERSATION,
        mapping({"metadata": nullable(METADATA), "user_id": _OWNER}, ("metadata",)),
    ),
    "DELETE /conversations/{id}": _operation(
        "deleteConversation",
        "Delete it and its session, whatever runs in it",
        Answer(
            what="It is deleted",
            json=mapping(
                {"id": text(), "object": constant("conversation.deleted"), "deleted": {"const": True}},
                ("id", "object", "deleted"),
            ),
        ),
    ),
    "GET /conversations/{id}/items": _operation(
        "listConversationItems",
        "Its items, a page at a time",
        Answer(what="A page of items", json=ref("ItemList")),
        query={**_USER, **PAGE},
    ),
    "POST /conversations/{id}/items": _operation(
        "addConversationItems",
        "Put items into it; its next turn takes them to the agent",
        Answer(what="The items", json=ref("ItemList")),
        mapping({"items": {**_ITEMS, "minItems": 1}, "user_id": _OWNER}, ("items",)),
    ),
    "GET /conversations/{id}/items/{item}": _operation(
        "showConversationItem", "One of its items", Answer(what="The item", json=ref("ListedItem"))
    ),
    "DELETE /conversations/{id}/items/{item}": _operation(
        "deleteConversationItem",
        "Delete an item, which is not listed any more; an agent that has read it goes on knowing it",
        _CONVERSATION,
    ),
}

MODELS: dict[str, Operation] = {
    "GET /models": Operation(
        id="listModels",
        summary="The one model there is: the application",
        tag="models",
        form="openai",
        answers={
            200: Answer(
                what="The list",
                json=mapping({"object": constant("list"), "data": array(ref("Model"))}, ("object", "data")),
            )
        },
        refusals=(401, 503),
    ),
    "GET /models/{model}": Operation(
        id="showModel",
        summary="It, by its name",
        tag="models",
        form="openai",
        answers={200: Answer(what="The model", json=ref("Model"))},
        refusals=(401, 404, 503),
    ),
}
