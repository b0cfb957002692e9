"""What is said to a box's tool server and what it answers, without I/O: our server and the official image speak it.

Rule 1: a `Request` is all that a carrier must send: it adds the host and the token.
Rule 2: an answer is what a box says, and a box runs what it was told by pages and models: nothing in an answer is
believed. What is not of the protocol raises `SandboxError`; sizes are for the carrier to bound.
Rule 3: what a tool answers is a `ToolResult`, its failures too; errors are for the box itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from greenroom.actors.errors import (
    SandboxError,
    SandboxFileError,
    SandboxFileNotFound,
    SandboxLost,
    SandboxUnavailable,
)
from greenroom.sandbox.result import ToolResult

SECONDS_HEADER: Final = "X-Greenroom-Seconds"
"""How long a tool may take; the official image does not look at it."""

TOOL_ROUTES: Final = {"run_ipython_cell": "code", "run_shell_command": "command"}
"""Tools with a route of their own, and the one argument each takes."""

FORM_BOUNDARY: Final = "greenroom-"
"""Begins the line that parts a form; the carrier's random word follows."""


MOST_PARTS: Final = 250_000
"""Of an answer's JSON: `{},{},{}` takes thirty times its bytes in memory, and a second for some megabytes."""

_ABOUT_TOKEN: Final = {"Missing or invalid authorization header", "Invalid secret token"}
_TOO_MUCH: Final = (
    "that is more than the server before the sandbox takes at once (the official image's: 1 MiB); write it in parts, "
    "and put them together with a command"
)
_PATH_PART: Final = 'name="paths"'
_FILE_PART: Final = 'name="files"; filename="file"\r\nContent-Type: application/octet-stream'

T = TypeVar("T")


class Request(Struct, frozen=True, kw_only=True):
    """One request. `path` is below the box's URL."""

    method: str
    path: str
    query: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}
    body: bytes | None = None


class Entry(Struct, frozen=True):
    """A file or folder of the workspace. `path` is absolute inside the box; `type` one of `file`, `dir`, `symlink`,
    `other`; `size` in bytes, of files; `mtime_ms` since the epoch."""

    path: str
    name: str
    type: str
    size: int | None = None
    mtime_ms: int = 0


# ------------------------------------------------------------------------------------------------------------ requests


def health(*, warm: bool = False) -> Request:
    """Whether the box answers. `warm`: only when its browser is up too (the official image answers at once)."""
    return Request(method="GET", path="/healthz", query={"warm": "1"} if warm else {})


def call(tool: str, arguments: Mapping[str, Any], seconds: float) -> Request:
    """Run a tool. Arguments that are none or empty are left out: the official image fails on them."""
    given = {name: _named(value) for name, value in without_empty(arguments).items()}
    headers = {SECONDS_HEADER: f"{seconds:.3f}"}
    field = TOOL_ROUTES.get(tool)
    if field is not None:
        return _json("POST", f"/tools/{tool}", {field: "", **given}, headers)
    return _json("POST", "/mcp/call_tool", {"tool_name": tool, "arguments": given}, headers)


def _named(value: Any) -> Any:
    """Numbers that JSON has none for by their names, so that the tool can say what is wrong: `nan`, `inf`."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def without_empty(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that say something: `False` and 0 do, none and an empty text do not."""
    return {name: value for name, value in arguments.items() if value is not None and value != ""}


def tools() -> Request:
    """Which tools there are."""
    return Request(method="GET", path="/mcp/list_tools")


def reset() -> Request:
    """Make the box as it was at its start. Ours only."""
    return Request(method="POST", path="/reset")


def read(path: str) -> Request:
    """A file's bytes."""
    return Request(method="GET", path="/workspace/file", query={"path": _whole(path), "format": "bytes"})


def write(path: str, data: bytes) -> Request:
    """Make a file, or put other bytes into it; folders above it are made."""
    return Request(
        method="PUT",
        path="/workspace/file",
        query={"path": _whole(path)},
        headers={"Content-Type": "application/octet-stream"},
        body=data,
    )


def write_many(files: Mapping[str, bytes], boundary: str) -> Request:
    """Several files at once, by path. `boundary`: a random word of letters and digits."""
    line = f"--{FORM_BOUNDARY}{boundary}"
    parts: list[bytes] = []
    for path, data in files.items():
        for about, value in ((_PATH_PART, _whole(path).encode()), (_FILE_PART, data)):
            parts += (f"{line}\r\nContent-Disposition: form-data; {about}\r\n\r\n".encode(), value, b"\r\n")
    parts.append(f"{line}--\r\n".encode())
    kind = f"multipart/form-data; boundary={FORM_BOUNDARY}{boundary}"
    return Request(
        method="POST", path="/workspace/files:batch", headers={"Content-Type": kind}, body=b"".join(parts)
    )


def list_folder(path: str, depth: int) -> Request:
    """What is in a folder, and in its folders down to `depth` (1: its own entries)."""
    return Request(method="GET", path="/workspace/list", query={"path": _whole(path), "depth": str(depth)})


def exists(path: str) -> Request:
    """Whether there is something at a path."""
    return Request(method="GET", path="/workspace/exists", query={"path": _whole(path)})


def remove(path: str) -> Request:
    """Remove a file, or a folder with all that is in it."""
    return Request(method="DELETE", path="/workspace/entry", query={"path": _whole(path)})


def move(source: str, destination: str) -> Request:
    """Give a file or folder another path; a file that is there is replaced."""
    return _json("POST", "/workspace/move", {"source": source, "destination": destination})


def make_folder(path: str) -> Request:
    """Make a folder, and those above it."""
    return _json("POST", "/workspace/mkdir", {"path": path})


def _json(
    method: str, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> Request:
    return Request(
        method=method,
        path=path,
        headers={"Content-Type": "application/json", **(headers or {})},
        body=_encoded(body),
    )


def _encoded(body: Mapping[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError:
        return msgspec.json.encode(_whole(body))


def _whole(value: Any) -> Any:
    """With `?` for half characters, which models write now and then, and which are no UTF-8."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {_whole(name): _whole(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_whole(inner) for inner in value]
    return value


# ------------------------------------------------------------------------------------------------------------- answers


def tool_result(status: int, body: bytes) -> ToolResult:
    """What a tool answered. A server that says why it could not run one is a result too: models can mend arguments."""
    if status in {400, 404, 422, 500}:
        return ToolResult.of_text(_reason(body), is_error=True)
    _refuse(status, body)
    answer = _object(body)
    content = answer.get("content")
    if not isinstance(content, list) or not all(map(_is_part, content)):
        raise _strange("a tool's answer", body)
    answer["isError"] = answer.get("isError") is True
    answer.setdefault("meta", None)
    return ToolResult(answer)


def tool_list(status: int, body: bytes) -> dict[str, dict[str, Any]]:
    """Servers' tools by name: `{server: {tool: {"name", "json_schema"}}}`."""
    _refuse(status, body)
    servers = _object(body)
    if not all(isinstance(named, dict) for named in servers.values()):
        raise _strange("the list of tools", body)
    return servers


def file_bytes(status: int, body: bytes) -> bytes:
    """A file's bytes."""
    _refuse(status, body, files=True)
    return body


def entry(status: int, body: bytes) -> Entry:
    """What was written or moved."""
    _refuse(status, body, files=True)
    return _decoded(body, Entry)


def entries(status: int, body: bytes) -> Sequence[Entry]:
    """What is in a folder."""
    _refuse(status, body, files=True)
    return _decoded(body, list[Entry])


def flag(status: int, body: bytes, name: str) -> bool:
    """The answer to `exists`, or whether a folder was `created`."""
    _refuse(status, body, files=True)
    return _object(body).get(name) is True


def done(status: int, body: bytes) -> None:
    """The answer to what has none but an error."""
    _refuse(status, body, files=True)


def healthy(status: int, body: bytes) -> None:
    """Raises `SandboxUnavailable` when the box says that it cannot work, and why."""
    if status == 503:
        raise SandboxUnavailable(f"the sandbox started and cannot work: {_reason(body)}")
    _refuse(status, body)


def _refuse(status: int, body: bytes, *, files: bool = False) -> None:
    """Raise what a status other than 2xx means."""
    if 200 <= status < 300:
        return
    is_page = body.lstrip().startswith(
        b"<"
    )  # of a front server, which knows the protocol no more than the reason
    reason = _TOO_MUCH if status == 413 and is_page else _reason(body)
    if status == 403 and reason in _ABOUT_TOKEN:
        raise SandboxUnavailable(
            f"the sandbox refused our token ({reason}); for a box of your own set GREENROOM_SANDBOX_TOKEN to its "
            "SECRET_TOKEN"
        )
    if status in {502, 504}:
        raise SandboxLost(f"the sandbox's tool server no longer answers ({status}: {reason})")
    if files:
        raise (SandboxFileNotFound if status == 404 else SandboxFileError)(reason)
    raise SandboxError(f"the sandbox answered {status}: {reason}")


def _reason(body: bytes) -> str:
    """The server's own words, without the traceback that the official image adds."""
    try:
        detail = _object(body)["detail"]
    except (SandboxError, KeyError):
        detail = body[:200].decode("utf-8", "replace").strip()
    words = detail if isinstance(detail, str) else msgspec.json.encode(detail).decode()
    return words.partition(": Traceback (most recent call last)")[0][:2000] or "no reason given"


def _object(body: bytes) -> dict[str, Any]:
    return _decoded(body, dict[str, Any])


def _decoded(body: bytes, kind: type[T]) -> T:
    if body.count(b",") > MOST_PARTS:
        raise _strange(f"it has more than {MOST_PARTS} parts", body)
    try:
        return msgspec.json.decode(body, type=kind)
    except (ValueError, RecursionError) as error:
        raise _strange(str(error), body) from None


def _is_part(part: Any) -> bool:
    match part:
        case {"type": "text", "text": str()}:
            return isinstance(part.get("description") or "", str)
        case {"type": "image", "data": str(), "mimeType": str()}:
            return True
        case {"type": str(kind)}:
            return kind not in {"text", "image"}
    return False


def _strange(what: str, body: bytes) -> SandboxError:
    said = body[:100].decode("utf-8", "replace")
    return SandboxError(
        f"the sandbox answered something that is not its protocol ({what}): {said!r}; is there another server at its "
        "address?"
    )
