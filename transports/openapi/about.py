"""What the document says of what the server tells of itself, of errors, and of looking into browsers."""

from __future__ import annotations

from greenroom.transports.openapi.operation import Answer, Operation
from greenroom.transports.openapi.schemas import Schema, array, constant, mapping, nullable, text, words

_STATES = ("starting", "ready", "draining", "stopped")
_TICKET = {"ticket": text(description="Of the link, as `AgentApp.browser_link` makes it")}

ERRORS: dict[str, Schema] = {
    "Error": mapping(
        {
            "error": mapping(
                {
                    "code": text(description="A word for programs, like `invalid_request`"),
                    "message": text(description="What happened, why, and what to do next"),
                    "field": text(description="What is wrong, like `input[0].content`"),
                    "id": text(description="What the server's log has it under"),
                },
                ("code", "message"),
            )
        },
        ("error",),
    ),
    "ApiError": mapping(
        {
            "error": mapping(
                {
                    "message": text(description="What happened, why, and what to do next"),
                    "type": text(),
                    "param": nullable(text(description="What is wrong, like `input[0].content`")),
                    "code": nullable(text(description="A word for programs")),
                },
                ("message", "type", "param", "code"),
            )
        },
        ("error",),
    ),
}

ABOUT: dict[str, Operation] = {
    "GET /": Operation(
        id="about",
        summary="What is served here",
        tag="about",
        answers={
            200: Answer(
                what="The application, and every route there is",
                json=mapping(
                    {
                        "name": text(),
                        "description": text(),
                        "state": words(_STATES),
                        "routes": array(mapping({"method": text(), "path": text()}, ("method", "path"))),
                    },
                    ("name", "description", "state", "routes"),
                ),
            )
        },
    ),
    "GET /health": Operation(
        id="health",
        summary="Whether the process is alive",
        tag="about",
        answers={
            200: Answer(
                what="It is",
                json=mapping({"status": constant("healthy"), "state": words(_STATES)}, ("status", "state")),
            )
        },
    ),
    "GET /ready": Operation(
        id="ready",
        summary="Whether turns are taken",
        tag="about",
        answers={200: Answer(what="They are", json=mapping({"status": constant("ready")}, ("status",)))},
        refusals=(503,),
    ),
    "GET /openapi.json": Operation(
        id="openapi",
        summary="This document",
        tag="about",
        answers={
            200: Answer(
                what="It",
                json=mapping(
                    {"openapi": text(), "info": mapping(), "paths": mapping()}, ("openapi", "info", "paths")
                ),
            )
        },
    ),
}

LOOKING: dict[str, Operation] = {
    "GET /sessions/{session}/browser": Operation(
        id="lookIntoBrowser",
        summary="A page that shows a session's browser live, for whoever has a link to it",
        tag="browsers",
        query=_TICKET,
        answers={200: Answer(what="The page", types=("text/html",))},
        refusals=(403,),
    ),
    "GET /sessions/{session}/browser/live": Operation(
        id="followBrowser",
        summary="The WebSocket of that page",
        tag="browsers",
        query=_TICKET,
        answers={101: Answer(what="Pictures, and who has the browser")},
        refusals=(400, 403),
    ),
}
