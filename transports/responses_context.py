"""`/responses/compact` and `/responses/input_tokens`: what is done with a context without running the agent."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from greenroom.transports.json_checks import items, json_object, mapping, missing, string
from greenroom.transports.request_body import BodyReader
from greenroom.transports.responses_decode import CreateRequest, Settings, read_create
from greenroom.transports.responses_items import filled
from greenroom.transports.responses_packed import seal
from greenroom.transports.responses_turns import ResponsesTurns
from greenroom.transports.token_estimate import estimated_tokens, text_tokens
from greenroom.transports.transport import Host

_ABOUT_THE_CONTEXT = frozenset(
    {
        "conversation",
        "input",
        "instructions",
        "model",
        "previous_response_id",
        "prompt_cache_key",
        "session_id",
        "user_id",
    }
)
"""Fields of a request that say what the context is; others, which ask something of a run, have no meaning here."""


class ContextRoutes:
    """Compacting a context, and counting it."""

    def __init__(self, host: Host, turns: ResponsesTurns, settings: Settings, body: BodyReader) -> None:
        self._host = host
        self._turns = turns
        self._settings = settings
        self._body = body

    def routes(self) -> list[web.RouteDef]:
        """The routes, from the base path on."""
        return [
            web.post("/responses/compact", self.compact),
            web.post("/responses/input_tokens", self.input_tokens),
        ]

    async def compact(self, request: web.Request) -> web.StreamResponse:
        """All that was said, as one item to send back in its place.

        Nothing is summarised, as no model is asked: the item holds everything, packed. It is the client that has less
        to carry and to look at; the agent reads as much as before. So no tokens were spent.
        """
        create, fields = await self._asked(request)
        if fields.get("model") is None:
            missing("model", "say which model is to read the result; any name is taken")
        string(fields["model"], "model")
        said = await self._context(create)
        uuid = self._host.sources.uuid
        packed = {
            "id": f"cmp_{uuid().replace('-', '')}",
            "type": "compaction",
            "encrypted_content": seal(said),
        }
        return _json(
            {
                "id": f"resp_{uuid().replace('-', '')}",
                "object": "response.compaction",
                "created_at": int(self._host.sources.now()),
                "output": [packed],
                "usage": {
                    "input_tokens": 0,
                    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                    "output_tokens": 0,
                    "output_tokens_details": {"reasoning_tokens": 0},
                    "total_tokens": 0,
                },
            }
        )

    async def input_tokens(self, request: web.Request) -> web.StreamResponse:
        """About how many tokens the model would read: see `token_estimate`."""
        create, fields = await self._asked(request)
        count = estimated_tokens(await self._context(create))
        options = create.turn.options
        if options is not None and options.instructions:
            count += text_tokens(options.instructions)
        if (tools := fields.get("tools")) is not None:
            for at, tool in enumerate(items(tools, "tools", "tools")):
                count += text_tokens(msgspec.json.encode(mapping(tool, f"tools[{at}]")).decode())
        return _json({"object": "response.input_tokens", "input_tokens": count})

    async def _asked(self, request: web.Request) -> tuple[CreateRequest, dict[str, Any]]:
        principal = await self._host.authenticate(request.headers)
        fields = json_object(await self._body.read(request), "input")
        create = read_create(
            {name: value for name, value in fields.items() if name in _ABOUT_THE_CONTEXT},
            sources=self._host.sources,
            settings=self._settings,
            principal=principal,
        )
        return create, fields

    async def _context(self, create: CreateRequest) -> list[dict[str, Any]]:
        previous = await self._turns.previous(create)
        before = await self._turns.said_before(create, previous)
        assert create.read is not None, "`read_create` gives it"
        return [*before, *filled(create.read, await self._turns.context(create, previous)).listed]


def _json(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")
