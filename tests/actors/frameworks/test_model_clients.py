"""Clients of models made in turns share what is slow to make; others do not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from greenroom.actors.frameworks.model_clients import ADDRESSES, LONGEST, prepare, share_addresses
from greenroom.actors.messages import SessionKey
from greenroom.actors.scope import TurnScope, current_turn


def trust_of(**options: object) -> object:
    transport = httpx.AsyncHTTPTransport(**options)  # type: ignore[arg-type]
    return transport._pool._ssl_context


def test_in_turns_it_is_read_once_and_elsewhere_each_has_his_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    prepare()
    prepare()
    assert trust_of() is not trust_of()
    token = current_turn.set(TurnScope(SessionKey("u", "s"), "t"))
    try:
        assert trust_of() is trust_of()
        assert trust_of(verify=False) is not trust_of()
        before = trust_of()
        monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
        assert trust_of() is not before
    finally:
        current_turn.reset(token)


class Parse:
    """Stands where httpx's `urlparse` is."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, url: str = "", **parts: Any) -> tuple[Any, ...]:
        self.asked += 1
        return url, parts


@pytest.fixture
def turn() -> Iterator[None]:
    token = current_turn.set(TurnScope(SessionKey("u", "s"), "t"))
    yield
    current_turn.reset(token)


@pytest.mark.usefixtures("turn")
def test_an_address_is_taken_apart_once() -> None:
    parse = Parse()
    shared = share_addresses(parse)
    for number in (1, 2, 2):
        for path in ("/a", "/b", None):
            expected = "http://h/", {"path": path}
            assert shared("http://h/", path=path) == expected
        assert parse.asked == 3, number
    for number in range(ADDRESSES):
        shared(f"http://h{number}/")
    shared("http://h/", path="/a")
    assert parse.asked == 3 + ADDRESSES + 1


@pytest.mark.usefixtures("turn")
@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://u:p@h/", {}),
        ("http://h/?key=1", {}),
        ("http://h/" + "x" * LONGEST, {}),
        ("", {"authority": "u@h"}),
        ("", {"raw_path": "/?key=1"}),
        ("", {"query": "key=1"}),
        ("", {"password": "p"}),
        ("", {"port": 80}),
    ],
)
def test_what_may_be_secret_is_not_remembered(url: str, parts: dict[str, Any]) -> None:
    parse = Parse()
    shared = share_addresses(parse)
    assert shared(url, **parts) == shared(url, **parts) == (url, parts)
    assert parse.asked == 2


def test_outside_of_turns_no_address_is_remembered() -> None:
    parse = Parse()
    shared = share_addresses(parse)
    shared("http://h/")
    shared("http://h/")
    assert parse.asked == 2


def test_addresses_in_turns_are_as_ever() -> None:
    def forms() -> list[str]:
        url = httpx.URL("HTTP://Bücher.example:80/a b/")
        return [
            str(url),
            str(url.copy_with(raw_path=b"/v1/x")),
            str(url.join("../c?d=1")),
            str(url.copy_with(port=1)),
        ]

    prepare()
    elsewhere = forms()
    token = current_turn.set(TurnScope(SessionKey("u", "s"), "t"))
    try:
        assert forms() == forms() == elsewhere
        with pytest.raises(httpx.InvalidURL):
            httpx.URL("http://h:port/")
    finally:
        current_turn.reset(token)


def test_what_clients_import_late_is_imported_with_the_framework() -> None:
    code = (
        "from greenroom.actors.frameworks.model_clients import prepare; prepare();"
        "import sys; print('openai.resources.chat.completions' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
