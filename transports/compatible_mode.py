"""OpenAI's protocols as one part of an HTTP server: what is served under the base path, and its settings."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web
from msgspec import Struct

from greenroom.actors.messages import Disconnect
from greenroom.actors.setting_checks import Share, check_fields
from greenroom.transports.chat_encode import ToolDisplay as ChatToolDisplay
from greenroom.transports.chat_routes import ChatRoutes
from greenroom.transports.compatible_routes import compatible_routes
from greenroom.transports.conversations import Conversations
from greenroom.transports.conversations_routes import ConversationsRoutes
from greenroom.transports.models_routes import ModelsRoutes
from greenroom.transports.request_body import BodyReader
from greenroom.transports.responses_context import ContextRoutes
from greenroom.transports.responses_decode import Settings
from greenroom.transports.responses_echo import ToolDisplay
from greenroom.transports.responses_routes import ResponsesRoutes
from greenroom.transports.responses_socket import ResponsesSocket
from greenroom.transports.responses_turns import ResponsesTurns
from greenroom.transports.transport import Host

COMPATIBLE_BODY_BYTES = 64 * 1024 * 1024
"""Pictures and files come inside the body."""


class CompatibleMode(Struct, frozen=True, kw_only=True):
    """Settings of what is under the base path.

    `compatible_body_bytes`: the largest body and WebSocket message. `tool_display`: how calls of the agent's own tools
    are shown; `chat_tool_display`: in Chat Completions. `tutorial_key`: whether a whole response has a second form of
    itself under `response`, where the tutorial looks. `responses_disconnect`: what becomes of a turn in the foreground
    whose client goes away.
    """

    compatible_body_bytes: Share = COMPATIBLE_BODY_BYTES
    tool_display: ToolDisplay = "mcp_call"
    chat_tool_display: ChatToolDisplay = "hidden"
    tutorial_key: bool = True
    responses_disconnect: Disconnect = Disconnect()

    def __post_init__(self) -> None:
        check_fields(self, "AiohttpServer")
        check_fields(self.responses_disconnect, "AiohttpServer(responses_disconnect=Disconnect(…))")

    def routes(
        self, host: Host, *, read_seconds: float, keepalive_seconds: float, origins: Sequence[str] = ()
    ) -> list[web.RouteDef]:
        """The routes, for an aiohttp application. The last takes what is under the base path and nothing else takes."""
        body = BodyReader(self.compatible_body_bytes, read_seconds, "compatible_body_bytes")
        settings = Settings(
            model=host.name,
            label=host.name,
            honours=host.honours,
            display=self.tool_display,
            disconnect=self.responses_disconnect,
        )
        conversations = Conversations(host, host.conversations, settings)
        turns = ResponsesTurns(host, settings, conversations)
        routes = [
            ContextRoutes(host, turns, settings, body).routes(),
            ResponsesRoutes(
                host,
                turns,
                settings,
                body,
                keepalive_seconds=keepalive_seconds,
                tutorial_key=self.tutorial_key,
            ).routes(),
            ResponsesSocket(
                host,
                turns,
                settings,
                message_bytes=self.compatible_body_bytes,
                keepalive_seconds=keepalive_seconds,
                origins=origins,
            ).routes(),
            ConversationsRoutes(host, conversations, body).routes(),
            ChatRoutes(
                host,
                body=body,
                keepalive_seconds=keepalive_seconds,
                tools=self.chat_tool_display,
                disconnect=self.responses_disconnect,
            ).routes(),
            ModelsRoutes(host).routes(),
        ]
        return compatible_routes([route for some in routes for route in some], host)
