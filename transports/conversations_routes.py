"""The routes of conversations on aiohttp. A conversation is a session: its id is the `session_id` of `/process`."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from greenroom.actors.messages import SessionKey
from greenroom.services.conversation_store import Conversation
from greenroom.transports.conversations import Conversations
from greenroom.transports.json_checks import identifier, items, json_object, missing, owner
from greenroom.transports.openai_fields import metadata
from greenroom.transports.request_body import BodyReader
from greenroom.transports.responses_paging import asked_page, page_of
from greenroom.transports.transport import Host


class ConversationsRoutes:
    """`/conversations` and what belongs to it.

    A session of another user than the one its id names is found with `user_id`, in the query or the body; where
    callers are authenticated, it is theirs.
    """

    def __init__(self, host: Host, conversations: Conversations, body: BodyReader) -> None:
        self._host = host
        self._conversations = conversations
        self._body = body

    def routes(self) -> list[web.RouteDef]:
        """The routes, from the base path on."""
        return [
            web.post("/conversations", self.create),
            web.get("/conversations/{id}", self.show, allow_head=False),
            web.post("/conversations/{id}", self.describe),
            web.delete("/conversations/{id}", self.delete),
            web.get("/conversations/{id}/items", self.list, allow_head=False),
            web.post("/conversations/{id}/items", self.add),
            web.get("/conversations/{id}/items/{item}", self.item, allow_head=False),
            web.delete("/conversations/{id}/items/{item}", self.hide),
        ]

    async def create(self, request: web.Request) -> web.StreamResponse:
        """A new conversation, with items in it if any are given. No body is one that asks for nothing."""
        principal = await self._host.authenticate(request.headers)
        body = await self._body.read(request)
        fields = json_object(body, "items") if body.strip() else {}
        conversation_id = f"conv_{self._host.sources.uuid().replace('-', '')}"
        key = self._key(request, fields, conversation_id, principal)
        conversation = await self._conversations.create(key, _metadata(fields), _items(fields))
        return _json(_shown(key, conversation))

    async def show(self, request: web.Request) -> web.StreamResponse:
        """A conversation."""
        key, _ = await self._asked(request)
        return _json(_shown(key, await self._conversations.show(key)))

    async def describe(self, request: web.Request) -> web.StreamResponse:
        """Give it other metadata."""
        principal = await self._host.authenticate(request.headers)
        fields = json_object(await self._body.read(request), "metadata")
        if "metadata" not in fields:
            missing("metadata", "it is what can be changed of a conversation; null removes it")
        key = self._key(request, fields, request.match_info["id"], principal)
        return _json(_shown(key, await self._conversations.describe(key, _metadata(fields))))

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """Delete it and its session, whatever runs in it."""
        key, _ = await self._asked(request)
        await self._conversations.delete(key)
        return _json({"id": key.session_id, "object": "conversation.deleted", "deleted": True})

    async def list(self, request: web.Request) -> web.StreamResponse:
        """Its items, a page at a time."""
        page = asked_page(request.query)
        key, principal = await self._asked(request)
        return _body(page_of(await self._conversations.items(key, principal), page))

    async def add(self, request: web.Request) -> web.StreamResponse:
        """Put items into it; its next turn takes them to the agent."""
        principal = await self._host.authenticate(request.headers)
        fields = json_object(await self._body.read(request), "items")
        key = self._key(request, fields, request.match_info["id"], principal)
        if not (given := _items(fields)):
            missing("items", 'send a list of items, such as [{"role": "user", "content": "Hello"}]')
        added = await self._conversations.add(key, given, principal)
        return _json(
            {
                "object": "list",
                "data": added,
                "first_id": added[0]["id"],
                "last_id": added[-1]["id"],
                "has_more": False,
            }
        )

    async def item(self, request: web.Request) -> web.StreamResponse:
        """One of its items."""
        key, principal = await self._asked(request)
        return _json(await self._conversations.item(key, request.match_info["item"], principal))

    async def hide(self, request: web.Request) -> web.StreamResponse:
        """Delete an item, which is not listed any more; an agent that has read it goes on knowing it."""
        key, principal = await self._asked(request)
        return _json(_shown(key, await self._conversations.hide(key, request.match_info["item"], principal)))

    async def _asked(self, request: web.Request) -> tuple[SessionKey, str | None]:
        principal = await self._host.authenticate(request.headers)
        return self._key(request, {}, request.match_info["id"], principal), principal

    def _key(
        self, request: web.Request, fields: dict[str, Any], conversation_id: str, principal: str | None
    ) -> SessionKey:
        user_id = fields.get("user_id") or request.query.get("user_id") or None
        if user_id is not None:
            identifier(user_id, "user_id")
        session_id = identifier(conversation_id, "conversation_id")
        return SessionKey(owner(user_id, principal, session_id), session_id)


def _metadata(fields: dict[str, Any]) -> dict[str, str]:
    value = fields.get("metadata")
    return {} if value is None else metadata(value, "metadata")


def _items(fields: dict[str, Any]) -> list[Any]:
    value = fields.get("items")
    return [] if value is None else items(value, "items", "items")


def _shown(key: SessionKey, conversation: Conversation) -> dict[str, Any]:
    return {
        "id": key.session_id,
        "object": "conversation",
        "created_at": int(conversation.created_at),
        "metadata": conversation.metadata,
    }


def _json(value: object) -> web.Response:
    return _body(msgspec.json.encode(value))


def _body(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")
