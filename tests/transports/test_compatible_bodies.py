"""Any JSON whatever under the base path: an answer, or an error in the API's form that says whose fault it is."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kits.responses_http import Answer, responses_of
from kits.transport_kit import Script

PATHS = (
    "/responses",
    "/responses/compact",
    "/responses/input_tokens",
    "/conversations",
    "/conversations/c/items",
    "/conversations/c",
    "/chat/completions",
)
FIELDS = """
    model input instructions previous_response_id conversation store stream stream_options background tools tool_choice
    parallel_tool_calls text reasoning include max_output_tokens max_tool_calls temperature top_p top_logprobs metadata
    truncation user safety_identifier prompt_cache_key service_tier prompt context_management presence_penalty overlap
    session_id user_id disconnect items messages type role content id status call_id name arguments output summary error
    encrypted_content format schema strict parameters description image_url file_data file_url filename annotations stop
    response_format functions max_tokens n seed verbosity effort tool_calls tool_call_id server_label
"""
TYPES = """
    message input_text output_text input_image input_file refusal reasoning summary_text function_call text auto none
    function_call_output item_reference compaction mcp_call mcp_list_tools custom_tool_call custom_tool_call_output mcp
    function json_schema json_object required user assistant system developer tool allowed_tools
"""
WORDS = FIELDS.split()
KINDS = TYPES.split()

texts = st.sampled_from([*KINDS, "", "x", "resp_1", "{}", "[", "\0", "\ud83d\ude00"]) | st.text(max_size=8)
scalars = st.none() | st.booleans() | st.integers(-2, 1 << 70) | st.floats(allow_nan=False) | texts
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS) | texts, inner, max_size=5)
    ),
    max_leaves=20,
)
items = st.fixed_dictionaries(
    {"type": st.sampled_from(KINDS)},
    optional=dict.fromkeys(
        ("role", "content", "id", "call_id", "name", "arguments", "output", "summary"), values
    ),
)
bodies = values | st.builds(
    lambda valid, more: valid | more,
    st.sampled_from([{"input": "x"}, {"items": [], "model": "m"}, {"messages": [], "model": "m"}]),
    st.dictionaries(st.sampled_from(WORDS), values | st.lists(items, max_size=3), max_size=4),
)


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors])
@given(some=st.lists(bodies, min_size=1, max_size=8))
async def test_no_body_breaks_the_server(path: str, some: list[Any]) -> None:
    async with responses_of(Script(authenticate=None).app) as client:
        for body in some:
            data = BytesIO(json.dumps(body).encode())
            async with client.http.post(
                client.url + path, data=data, headers={"Content-Type": "application/json"}
            ) as response:
                whole = await response.read()
                assert response.status < 500, (body, whole)
                assert response.status not in (408, 409), body
                if response.status != 200:
                    assert Answer(response.status, response.headers, json.loads(whole)).error
