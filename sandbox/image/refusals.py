"""Requests that are refused, in the protocol's form: a status and `{"detail": ...}`."""

from __future__ import annotations

import hmac
import logging
import math
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

SECONDS_HEADER: Final = "X-Greenroom-Seconds"
USUAL_SECONDS: Final = 60.0
MOST_SECONDS: Final = 3600.0


class Refused(Exception):
    """The request is not done, and why."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


async def json_of(request: web.Request) -> dict[str, Any]:
    """The body, an object. Raises `Refused`."""
    try:
        body = await request.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Refused(422, "the body must be a JSON object")
    return body


def seconds_of(request: web.Request) -> float:
    """How long the call may take. Raises `Refused`."""
    given = request.headers.get(SECONDS_HEADER)
    if given is None:
        return USUAL_SECONDS
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= MOST_SECONDS:
        raise Refused(400, f"{SECONDS_HEADER} is a number of seconds up to {MOST_SECONDS:g}")
    return seconds


def asking_for(token: str, most: int) -> Any:
    """The middleware around all routes: who does not show the token learns nothing; of who does, `most` at a time."""
    wanted = token.encode()
    busy = 0

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        nonlocal busy
        try:
            _let_in(request.headers.get("Authorization", ""), wanted)
            if busy >= most:
                raise Refused(503, f"{most} calls are under way in this sandbox; wait for some to end")
            busy += 1
            try:
                return await handler(request)
            finally:
                busy -= 1
        except Refused as refused:
            return web.json_response({"detail": refused.detail}, status=refused.status)
        except web.HTTPException as error:
            return web.json_response({"detail": error.reason}, status=error.status)
        except (ConnectionError, TimeoutError):
            raise
        except Exception:
            number = secrets.token_hex(6)
            logger.exception("error %s", number)
            detail = f"the sandbox's tool server failed; its log tells why under {number}"
            return web.json_response({"detail": detail}, status=500)

    return guard


def _let_in(shown: str, wanted: bytes) -> None:
    scheme, _, token = shown.partition(" ")
    if scheme != "Bearer":
        raise Refused(403, "Missing or invalid authorization header")
    if not hmac.compare_digest(token.encode("utf-8", "surrogateescape"), wanted):
        raise Refused(403, "Invalid secret token")
