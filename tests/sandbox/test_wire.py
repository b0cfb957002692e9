"""The protocol of boxes: what is asked, and that no answer is believed."""

import json
import math
from collections.abc import Callable
from email.parser import BytesParser
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from greenroom.actors.errors import (
    SandboxError,
    SandboxFileError,
    SandboxFileNotFound,
    SandboxLost,
    SandboxUnavailable,
)
from greenroom.sandbox import wire
from greenroom.sandbox.result import ToolResult

ANSWERS: dict[str, Callable[[int, bytes], Any]] = {
    "tool": wire.tool_result,
    "tools": wire.tool_list,
    "file": wire.file_bytes,
    "entry": wire.entry,
    "entries": wire.entries,
    "flag": lambda status, body: wire.flag(status, body, "exists"),
    "done": wire.done,
    "health": wire.healthy,
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["type", "text", "content", "isError", "data", "mimeType", "description", "detail", "x"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)
bodies = st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode())
statuses = st.sampled_from([200, 201, 204, 301, 400, 403, 404, 409, 413, 422, 500, 502, 503, 504, 507])


# ------------------------------------------------------------------------------------------------------------ requests


@given(st.dictionaries(st.text(max_size=5), json_values, max_size=5))
def test_empty_arguments_are_dropped_and_no_others(arguments: dict[str, Any]) -> None:
    kept = wire.without_empty(arguments)
    dropped = [value for name, value in arguments.items() if name not in kept]

    assert all(value is None or value == "" for value in dropped)
    assert all(value is not None and value != "" for value in kept.values())
    assert kept == {name: arguments[name] for name in kept}


def test_false_zero_and_empty_lists_say_something() -> None:
    given_ = {"raw": False, "index": 0, "paths": [], "filename": "", "text": None}

    assert wire.without_empty(given_) == {"raw": False, "index": 0, "paths": []}


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_lacks_is_sent_by_its_name(number: float) -> None:
    request = wire.call("browser_wait_for", {"time": number}, 5)

    assert json.loads(request.body or b"")["arguments"] == {"time": str(number)}


def test_a_browser_tool_goes_to_the_common_route() -> None:
    request = wire.call("browser_click", {"element": "Button", "ref": "e2", "x": None}, 30)

    assert (request.method, request.path) == ("POST", "/mcp/call_tool")
    assert request.headers == {"Content-Type": "application/json", "X-Greenroom-Seconds": "30.000"}
    assert json.loads(request.body or b"") == {
        "tool_name": "browser_click",
        "arguments": {"element": "Button", "ref": "e2"},
    }


@pytest.mark.parametrize(("tool", "field"), [("run_ipython_cell", "code"), ("run_shell_command", "command")])
def test_base_tools_have_routes_of_their_own(tool: str, field: str) -> None:
    request = wire.call(tool, {field: "x"}, 1)

    assert request.path == f"/tools/{tool}"
    assert json.loads(request.body or b"") == {field: "x"}
    assert json.loads(wire.call(tool, {}, 1).body or b"") == {field: ""}


any_text = st.text(st.characters(), max_size=10)  # half characters too


@given(any_text, any_text)
@example("\ud83d", "\udc00")
def test_half_characters_are_sent_as_question_marks(name: str, text: str) -> None:
    requests = [
        wire.call("browser_type", {"text": text, "deep": {name: [text]}}, 1),
        wire.call("run_shell_command", {"command": text}, 1),
        wire.read(name),
        wire.write(name, b""),
        wire.list_folder(name, 1),
        wire.exists(name),
        wire.remove(name),
        wire.move(name, text),
        wire.make_folder(name),
        wire.write_many({name: b""}, "x"),
    ]

    for request in requests:
        (request.body or b"").decode()
        "".join(request.query.values()).encode()
    assert json.loads(requests[1].body or b"")["command"] == text.encode("utf-8", "replace").decode()


@given(st.dictionaries(st.text(min_size=1, max_size=20), st.binary(max_size=200), max_size=4))
def test_a_form_holds_paths_and_files_as_they_are(files: dict[str, bytes]) -> None:
    request = wire.write_many(files, "0123456789abcdef")
    head = f"Content-Type: {request.headers['Content-Type']}\r\n\r\n".encode()
    form = BytesParser().parsebytes(head + (request.body or b""))
    parts = list(form.walk())[1:] if files else []

    names = [part.get_param("name", header="content-disposition") for part in parts]
    assert names == ["paths", "files"] * len(files)


# ------------------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize("read", ANSWERS.values(), ids=ANSWERS.keys())
@given(status=statuses, body=bodies)
@example(status=200, body=b"[" * 100_000)
@example(status=500, body=b'{"detail":' * 50_000)
@example(status=200, body=b'{"content": [{"type": "text"}]}')
@example(status=200, body=b'{"content": [{"type": "text", "text": 7}], "isError": "no"}')
def test_no_answer_breaks_the_reader(read: Callable[[int, bytes], Any], status: int, body: bytes) -> None:
    try:
        result = read(status, body)
    except SandboxError:
        return
    if isinstance(result, ToolResult):
        assert isinstance(result.text, str)
        assert isinstance(str(result), str)
        assert isinstance(result.is_error, bool)
        assert result.part("stdout") is not None
        assert all(isinstance(data, str) for _, data in result.images)


def test_a_tools_answer_stays_as_it_is() -> None:
    answer = {
        "meta": None,
        "content": [
            {"type": "text", "text": "a", "annotations": None, "description": "stdout"},
            {"type": "image", "data": "aGk=", "mimeType": "image/png"},
            {"type": "resource", "resource": {"uri": "file:///x"}},
        ],
        "isError": False,
    }

    assert wire.tool_result(200, json.dumps(answer).encode()) == answer


@pytest.mark.parametrize("part", ["{}", "[]", '"ab"', '{"path": "", "name": "", "type": ""}'])
def test_an_answer_of_very_many_parts_is_not_taken_apart(part: str) -> None:
    parts = ",".join([part] * (wire.MOST_PARTS + 2))
    with pytest.raises(SandboxError, match="more than 250000 parts"):
        wire.tool_result(200, f'{{"content": [{parts}]}}'.encode())
    with pytest.raises(SandboxError, match="more than 250000 parts"):
        wire.entries(200, f"[{parts}]".encode())
    assert len(wire.tool_result(500, f'{{"detail": [{parts}]}}'.encode()).text) <= 200


@pytest.mark.parametrize("status", [400, 404, 422, 500])
def test_a_call_that_the_server_refuses_is_a_result_that_says_why(status: int) -> None:
    body = b'{"detail": "Tool \'x\' not found.: Traceback (most recent call last):\\n  File secret.py"}'
    result = wire.tool_result(status, body)

    assert result.is_error
    assert result.text == "Tool 'x' not found."


def test_reasons_that_are_lists_are_told() -> None:
    body = b'{"detail": [{"loc": ["body", "code"], "msg": "Field required"}]}'

    assert "Field required" in wire.tool_result(422, body).text


REFUSALS = [
    (wire.tool_result, 403, b'{"detail": "Invalid secret token"}', SandboxUnavailable),
    (wire.done, 403, b'{"detail": "Missing or invalid authorization header"}', SandboxUnavailable),
    (wire.file_bytes, 403, b'{"detail": "\'../token\' leads out of the workspace"}', SandboxFileError),
    (wire.file_bytes, 404, b'{"detail": "not found"}', SandboxFileNotFound),
    (wire.file_bytes, 413, b"too long", SandboxFileError),
    (wire.entry, 413, b"<html>413 Request Entity Too Large", SandboxFileError),
    (wire.entry, 507, b'{"detail": "workspace: it is full"}', SandboxFileError),
    (wire.tool_result, 502, b"Bad Gateway", SandboxLost),
    (wire.tool_result, 504, b"<html>Gateway Time-out", SandboxLost),
    (wire.healthy, 503, b'{"detail": "the browser could not be started"}', SandboxUnavailable),
    (wire.healthy, 302, b"", SandboxError),
    (wire.tool_result, 503, b'{"detail": "64 calls are under way"}', SandboxError),
]


@pytest.mark.parametrize(("read", "status", "body", "error"), REFUSALS)
def test_refusals_have_types(
    read: Callable[[int, bytes], Any], status: int, body: bytes, error: type[SandboxError]
) -> None:
    with pytest.raises(SandboxError) as raised:
        read(status, body)

    assert type(raised.value) is error


def test_entries_are_read() -> None:
    body = b'[{"path": "/workspace/a", "name": "a", "type": "file", "size": 3, "mtime_ms": 5, "more": 1}]'

    assert wire.entries(200, body) == [wire.Entry("/workspace/a", "a", "file", 3, 5)]
    assert msgspec.json.decode(msgspec.json.encode(wire.entries(200, body)[0]))["size"] == 3
