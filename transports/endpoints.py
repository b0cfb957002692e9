"""Routes of the user's own: `@app.endpoint(path, methods=[…])`.

`EndpointCaller` calls the function, whatever its kind, and needs no server; `respond` is what the aiohttp server calls.
A synchronous function runs in a worker thread. A generator's items go out as server-sent events, each
`data: {JSON}`. Anything else it gives back is the JSON answer; a response of aiohttp goes out as it is.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from typing import Any

import msgspec
from aiohttp import hdrs, web

from greenroom.actors.errors import (
    GreenroomError,
    HandlerError,
    NotServing,
)
from greenroom.actors.offload import call, iterate_in_thread
from greenroom.transports.endpoint_arguments import Binder, Given
from greenroom.transports.event_stream import HEADERS
from greenroom.transports.http_errors import error_response, in_own_words
from greenroom.transports.json_checks import json_value
from greenroom.transports.request_body import BodyReader
from greenroom.transports.sse import data_frame
from greenroom.transports.transport import Endpoint, Host

logger = logging.getLogger("greenroom.endpoints")

_BODY = BodyReader(None, 30.0, "body_bytes")

_PATH_NAME = re.compile(r"\{(\w+)(?::[^}]*)?\}")


class EndpointCaller:
    """Calls one endpoint's function. Raises `ConfigurationError` when no request could satisfy its parameters."""

    __slots__ = ("binder", "endpoint")

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.binder = Binder(endpoint.function, frozenset(_PATH_NAME.findall(endpoint.path)))

    def __repr__(self) -> str:
        return f"<EndpointCaller {self.endpoint.path} {self.binder!r}>"

    async def call(self, given: Given) -> Any:
        """What the function gives back, as an asynchronous generator if it is a generator of any kind.

        Raises `InvalidRequest`, and whatever the function raises.
        """
        bound = self.binder.bind(given)
        result = await call(self.endpoint.function, *bound.args, **bound.kwargs)
        return iterate_in_thread(result) if isinstance(result, Generator) else result


async def respond(caller: EndpointCaller, request: web.Request, host: Host) -> web.StreamResponse:
    """Answer a request with an endpoint.

    Raises a `GreenroomError` for a request that does not fit, and what the function raised of these or of aiohttp's own
    errors. Whatever else it raises is logged under an id and answered with 500, `{"error": {code, message, id}}`.
    """
    given = await read_request(caller, request, host)
    try:
        result = await caller.call(given)
        if not isinstance(result, web.StreamResponse | AsyncIterator):
            return web.Response(body=encode(result), content_type="application/json")
    except HandlerError as error:
        return error_response(500, **report(error, caller, host))
    except GreenroomError:
        raise
    except web.HTTPException as error:
        return in_own_words(error)
    except Exception as error:  # noqa: BLE001 - the user's function may raise anything; it is logged and told
        return error_response(500, **report(error, caller, host))
    if isinstance(result, web.StreamResponse):
        return result
    return await _stream(result, caller, request, host)


async def read_request(caller: EndpointCaller, request: web.Request, host: Host) -> Given:
    """What the request brings; the body only if the function wants of it. Raises a `GreenroomError`."""
    if host.state != "ready":
        raise NotServing(f"the application is {host.state} and answers nothing now; try again in a moment")
    return Given(
        request=request,
        principal=await host.authenticate(request.headers),
        sources=host.sources,
        path=dict(request.match_info),
        query={name: request.query.getall(name) for name in request.query},
        body=await _body(request) if caller.binder.reads_body and request.can_read_body else None,
    )


async def _body(request: web.Request) -> Any:
    body = await _BODY.read(request)
    return json_value(body) if body else None


async def _stream(
    items: AsyncIterator[Any], caller: EndpointCaller, request: web.Request, host: Host
) -> web.StreamResponse:
    response = web.StreamResponse(headers=HEADERS)
    try:
        # The headers go before the first item, which may be long in coming: the client sees that it is connected.
        await response.prepare(request)
        if request.method == hdrs.METH_HEAD:  # what followed the headers would be taken for the next response
            return response
        async for frame in frames(items, caller, host):
            await response.write(frame)
        await response.write_eof()
    finally:
        if isinstance(items, AsyncGenerator):
            await items.aclose()
    return response


async def frames(items: AsyncIterator[Any], caller: EndpointCaller, host: Host) -> AsyncIterator[bytes]:
    """Each item as a frame of its own. An error of the function's ends them with `data: {"error": …}`."""
    while True:
        try:
            frame = data_frame(encode(await anext(items)))
        except StopAsyncIteration:
            return
        except Exception as error:  # noqa: BLE001 - the user's function may raise anything; it is logged and told
            yield data_frame(encode({"error": report(error, caller, host)}))
            return
        yield frame


def encode(result: Any) -> bytes:
    """A result as JSON. Raises `HandlerError` for what JSON cannot say."""
    try:
        return msgspec.json.encode(result, enc_hook=_plain)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise HandlerError(
            f"the endpoint gave back {type(result).__name__}, which cannot be sent as JSON ({error}); "
            "give back what JSON can say (dict, list, text, numbers), a Struct, a dataclass or a pydantic model"
        ) from error


def _plain(value: Any) -> Any:
    for method, options in (("model_dump", {"mode": "json"}), ("to_dict", {}), ("to_map", {})):
        convert = getattr(value, method, None)
        if callable(convert) and not inspect.isclass(value):
            return convert(**options)
    raise TypeError(f"{type(value).__name__} is not JSON")


def report(error: Exception, caller: EndpointCaller, host: Host) -> dict[str, str]:
    """Log an error under an id; what of it goes on the wire: `code`, `message` and `id`.

    Errors of ours are written for callers. Of others only the class goes out, unless the application debugs.
    """
    error_id = f"err_{host.sources.uuid()}"
    logger.error("endpoint %s failed [%s]", caller.endpoint.path, error_id, exc_info=error)
    if isinstance(error, GreenroomError):
        return {"code": error.code, "message": error.message, "id": error_id}
    code = type(error).__name__
    details = str(error) if host.debug else f"the log has the details under {error_id}"
    return {"code": code, "message": f"the endpoint failed ({code}): {details}", "id": error_id}
