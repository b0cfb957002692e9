"""Clients of models made in turns share what is slow to make; others do not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from greenroom.actors.frameworks.model_clients import prepare
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


def test_what_clients_import_late_is_imported_with_the_framework() -> None:
    code = (
        "from greenroom.actors.frameworks.model_clients import prepare; prepare();"
        "import sys; print('openai.resources.chat.completions' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
