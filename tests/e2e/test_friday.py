"""Friday as `make serve` starts it on a machine without a key: on the small model, and it says what to expect."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from greenroom import local_model_warning
from greenroom.services.local_model.cache import fetch_model
from kits.http_client import http_client
from kits.server_process import server
from kits.stage import check_log

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"
NO_KEYS = {"DASHSCOPE_API_KEY": "", "OPENAI_API_KEY": ""}
ANSWER_SECONDS = 120.0
"""More than the model takes on a busy machine."""


@pytest.mark.parametrize(
    "example",
    [
        pytest.param("friday.py", marks=pytest.mark.agentscope1),
        pytest.param("friday_2.py", marks=pytest.mark.agentscope2),
    ],
)
async def test_friday_without_a_key_says_what_it_is_and_answers(example: str, tmp_path: Path) -> None:
    await asyncio.to_thread(fetch_model)
    env = {**NO_KEYS, "FRIDAY_DATABASE": str(tmp_path / "friday.db")}
    async with server(EXAMPLES / example, env=env) as running, http_client(running.url) as client:
        async with asyncio.timeout(ANSWER_SECONDS):
            for question in ("What is the capital of France?", "And of Italy?"):
                status, text = await (await client.ask(question, "s")).ending()
                assert (status, bool(text.strip())) == ("completed", True), running.log
        assert await running.stop() == 0, running.log
    assert local_model_warning() in running.log
    check_log(running.log)
