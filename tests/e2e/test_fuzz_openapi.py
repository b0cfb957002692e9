"""Requests made up from the OpenAPI document: the server does what the document says, whatever it is asked."""

from __future__ import annotations

import re
from typing import Any

import hypothesis
import pytest
import requests
from anyio import to_thread
from schemathesis import Case, GenerationMode

from kits.api_fuzz import SECONDS, Fuzz
from kits.http_client import body
from kits.stage import Stage, for_installed_line, stage_of

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

MORE = max(1, hypothesis.settings().max_examples // 100)
"""How much more is tried than usual: HYPOTHESIS_PROFILE=thorough."""
V1 = "/compatible-mode/v1"


TOOL = {"name": "look", "parameters": {"type": "object"}}
SAID = [{"role": "user", "content": "hi"}]
USUAL: dict[str, tuple[Any, ...]] = {
    "/process": (body("hi"), body("hi", stream=False)),
    "/process/task": (body("hi"),),
    "/book": ({"title": "Emma"},),
    "/echo": ({"a": 1},),
    "/responses": (
        {"input": "hi"},
        {"input": "hi", "stream": True},
        {"input": SAID, "background": True, "metadata": {"a": "b"}, "reasoning": {"effort": "low"}},
        {
            "input": SAID,
            "tools": [{"type": "function", **TOOL}],
            "tool_choice": {"type": "function", "name": "look"},
        },
    ),
    "/responses/compact": ({"input": SAID, "model": "any"},),
    "/responses/input_tokens": ({"input": SAID},),
    "/chat/completions": (
        {"messages": SAID},
        {"messages": SAID, "stream": True},
        {"messages": SAID, "stream": True, "stream_options": {"include_usage": True}, "session_id": "s"},
        {"messages": SAID, "tools": [{"type": "function", "function": TOOL}]},
    ),
    "/conversations": ({"items": SAID}, {"metadata": {"a": "b"}}),
    "/conversations/{id}": ({"metadata": {"a": "b"}},),
    "/conversations/{id}/items": ({"items": SAID},),
    "/books/{shelf}/{place}": ({"title": "Emma"},),
}
"""For each route with a body, bodies that are answered well."""


class Known:
    """Makes what requests are about."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._http = requests.Session()

    def __call__(self, case: Case[Any]) -> dict[str, str]:
        path = case.operation.path
        if path.startswith("/books"):
            return {"shelf": "novels", "place": "3"}
        if path.startswith(f"{V1}/models"):
            return {"model": "Fuzzed"}
        if path.startswith("/process/task"):
            return {"id": self._post("/process/task", body("hi"))["task_id"]}
        if path.startswith("/process"):
            return {"id": self._post("/process", body("hi", stream=False))["id"]}
        if path.startswith(f"{V1}/responses"):
            asked = {"input": "hi", "background": case.path.endswith("/cancel")}
            return {"id": self._post(f"{V1}/responses", asked)["id"]}
        if path.startswith(f"{V1}/conversations"):
            items = [{"role": "user", "content": "hi", "id": "msg_known"}]
            return {"id": self._post(f"{V1}/conversations", {"items": items})["id"], "item": "msg_known"}
        return {}

    def _post(self, path: str, asked: dict[str, Any]) -> dict[str, Any]:
        answer = self._http.post(self._url + path, json=asked, timeout=SECONDS)
        assert answer.status_code == 200, answer.text
        made: dict[str, Any] = answer.json()
        return made


@pytest.mark.parametrize(
    ("mode", "examples"),
    [(GenerationMode.POSITIVE, 8), (GenerationMode.NEGATIVE, 4)],
    ids=["fits", "does not"],
)
async def test_every_answer_is_as_documented(fuzzed: Stage, mode: GenerationMode, examples: int) -> None:
    url = fuzzed.process.url
    fuzz = await to_thread.run_sync(Fuzz, url, Known(url))
    wrong = await to_thread.run_sync(fuzz.run, mode, examples * MORE)
    assert not wrong, "\n\n".join(wrong)
    status, standing = await fuzzed.client.json("GET", "/turns")
    assert (status, standing["open_turns"]) == (200, 0)
    if mode is GenerationMode.POSITIVE:  # or it would be about errors alone
        for path, bodies in USUAL.items():
            await to_thread.run_sync(fuzz.send, rf"^(POST|PUT) ({V1})?{re.escape(path)}$", *bodies)
        fine = {route for route, status in fuzz.seen if status == 200}
        everything = {
            f"{method.upper()} {path}"
            for path, methods in fuzz.document["paths"].items()
            for method, operation in methods.items()
            if "200" in operation["responses"]
        }
        assert everything - fine == {"GET /sessions/{session}/browser"}  # which needs a link


async def test_an_agent_and_its_model_are_asked_all_kinds_of_things() -> None:
    async with stage_of(for_installed_line("workshop_for_{}.py") + ":actor") as stage:
        fuzz = await to_thread.run_sync(Fuzz, stage.process.url)
        turns = r"POST (/process|.*/responses|.*/chat/completions)$"
        wrong = await to_thread.run_sync(fuzz.run, GenerationMode.POSITIVE, 4 * MORE, turns)
        assert not wrong, "\n\n".join(wrong)
        assert stage.model.requests, "the agent asked its model nothing"
