"""Requests made up from an OpenAPI document, sent to the server that gave it, and its answers held against it.

Schemathesis makes requests that fit the document and such that do not; what it knows to check of an answer is checked
(status, content type, headers, schema), and besides, what OpenAPI 3.1 cannot say: the JSON inside of events. Half of
the requests about something (a turn, a response, a conversation) are about one that there is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import jsonschema_rs
import requests
import schemathesis
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.failures import FailureGroup

from greenroom.transports.sse import SSEParser

SLOW = [
    hypothesis.HealthCheck.too_slow,
    hypothesis.HealthCheck.filter_too_much,
    hypothesis.HealthCheck.data_too_large,
]
"""What of making requests up is no fault of the test."""
CURSOR = "Last-Event-ID"
SECONDS = 20
"""No answer takes longer."""
CHECKED = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
)
BEYOND_WORDS = (
    r"does not fit 64 bits",
    r"nests objects and lists",
    # What depends on what there is, or on two things at once:
    r"there is no response ",
    r"is not known here; send the item itself",
    r"no such call is in its context",
    r"answers no call of an assistant's message",
    r"no message of role tool answers the call",
    r"cannot go together",
    r"name two sessions",
    r"background needs store",
    r"is a second tool called",
    r"none of the request's tools",
    r"has the id .* which an item of the conversation has already",
    r"nothing after the last assistant's message",
    r"messages has no content",
    r"was not created with `background: true`",
    r"the list has no such item",
    r"starting_after is ",
    r"Last-Event-ID",
    r"dempotency",
    # What a schema may be, is said in words:
    r"\.schema\b",
    # What was packed here, and was not:
    r"compaction|encrypted_content",
    r"webhook",
    # What the agent's framework cannot take:
    r"is neither a URL nor a data URI",
)
"""What a request that fits the document may be refused for: the document's words cannot say it."""


class Fuzz:
    """`url`: of the server. `known`: gives something that there is, for a path's parameter."""

    def __init__(self, url: str, known: Callable[[Case[Any]], dict[str, str]] = lambda _: {}) -> None:
        load_all_checks()
        self.url = url
        self._known = known
        self._http = requests.Session()
        self.document = self._http.get(f"{url}/openapi.json", timeout=SECONDS).json()
        self._schema = schemathesis.openapi.from_dict(self.document)
        self._checks: Any = [CHECKS.get_one(name) for name in CHECKED]
        self._components = {"components": self.document["components"]}
        self.sent = 0
        self.seen: set[tuple[str, int]] = set()
        """The routes and statuses that were met."""

    def run(self, mode: GenerationMode, examples: int, only: str = "") -> list[str]:
        """What was wrong, in words with the request that shows it. `only`: the operations whose route matches."""
        return [
            wrong for operation in self._operations(only) for wrong in self._run(operation, mode, examples)
        ]

    def send(self, only: str, *bodies: Any) -> None:
        """Send bodies that are known to be fine, to the operation whose route matches. Raises for what is wrong."""
        (operation,) = self._operations(only)
        for body in bodies:
            case = operation.Case(body=body, media_type="application/json")
            case.path_parameters.update(self._known(case))
            self._send(case, fits=True)

    def _operations(self, only: str) -> Iterator[Any]:
        schema: Any = self._schema
        for result in schema.get_all_operations():
            operation = result.ok()
            if re.search(only, operation.label) and not operation.path.endswith("/live"):
                yield operation

    def _run(self, operation: Any, mode: GenerationMode, examples: int) -> list[str]:
        if mode is GenerationMode.NEGATIVE and not (operation.body or operation.query):
            return []  # whatever stands in a path's place is some id, and there is nothing else to be wrong

        @hypothesis.settings(
            max_examples=examples,
            derandomize=True,
            database=None,
            deadline=None,
            report_multiple_bugs=False,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=SLOW,
        )
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode), about_known=st.booleans())
        def send(case: Case[Any], about_known: bool) -> None:
            fits = mode is GenerationMode.POSITIVE
            if fits and about_known and case.path_parameters:
                # It is nobody's in particular, and is read from its beginning.
                for given, name in (
                    (case.query, "user_id"),
                    (case.query, "last_event_id"),
                    (case.headers, CURSOR),
                ):
                    given.pop(name, None)
                case.path_parameters.update(self._known(case))
            self._send(case, fits=fits)

        try:
            send()
        except (Exception, FailureGroup) as error:  # noqa: BLE001 - it is told
            return [f"{operation.label}: {error}"]
        return []

    def _send(self, case: Case[Any], *, fits: bool) -> None:
        self.sent += 1
        response = case.call(base_url=self.url, session=self._http, timeout=SECONDS)
        self.seen.add((case.operation.label, response.status_code))
        case.validate_response(response, checks=self._checks)
        if response.headers.get("content-type", [""])[0].startswith("text/event-stream"):
            self._check_events(case, response.content)
        if fits and response.status_code == 400:
            message = response.json()["error"]["message"]
            assert any(re.search(reason, message) for reason in BEYOND_WORDS), (
                f"it fits the document and is refused: {message}\n{case.as_curl_command()}"
            )

    def _check_events(self, case: Case[Any], stream: bytes) -> None:
        content = case.operation.definition.raw["responses"]["200"]["content"]
        _, described = content["text/event-stream"]["schema"]["properties"]["data"]["anyOf"]
        validator = jsonschema_rs.Draft202012Validator({**described["contentSchema"], **self._components})
        events = SSEParser().feed(stream)
        assert events or case.method == "HEAD", "a stream without events"
        for event in events:
            if event.data != "[DONE]":
                validator.validate(json.loads(event.data))
