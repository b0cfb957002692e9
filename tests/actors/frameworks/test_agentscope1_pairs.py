"""AgentScope 1.x prompts: every call has its result right after it, whatever became of it and when."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kits.agentscope_line import require_line

require_line(1)

from agentscope.formatter import OpenAIChatFormatter
from agentscope.message import Msg

from greenroom.actors.frameworks.agentscope1 import AgentScope1Adapter
from greenroom.actors.frameworks.agentscope1_pairs import INTERRUPTED, paired, unechoed

pytestmark = pytest.mark.agentscope1


def says(text: str, role: str = "user") -> Msg:
    return Msg(role, text, role)


def calls(*ids: str, text: str | None = None) -> Msg:
    blocks: list[Any] = [] if text is None else [{"type": "text", "text": text}]
    blocks += [{"type": "tool_use", "id": call_id, "name": f"tool_{call_id}", "input": {}} for call_id in ids]
    return Msg("Friday", blocks, "assistant")


def result(call_id: str, output: Any = "ok", name: str | None = None) -> Msg:
    named = f"tool_{call_id}" if name is None else name
    return Msg("system", [{"type": "tool_result", "id": call_id, "name": named, "output": output}], "system")


def shape(msgs: list[Msg]) -> list[str]:
    """The messages in short: `user`, `call a b`, `result a=ok`."""
    shown = []
    for msg in msgs:
        blocks = msg.get_content_blocks()
        kinds = {block["type"] for block in blocks}
        if "tool_use" in kinds:
            shown.append(
                " ".join(["call", *(block["id"] for block in blocks if block["type"] == "tool_use")])
            )
        elif kinds == {"tool_result"}:
            shown += [f"result {block['id']}={block['output']}" for block in blocks]
        else:
            shown.append(f"{msg.role}: {msg.get_text_content()}")
    return shown


def test_what_is_in_order_is_left_alone() -> None:
    msgs = [
        says("hi"),
        calls("a", "b", text="Look:"),
        result("b"),
        result("a"),
        says("so", "assistant"),
        says("ok"),
    ]
    assert paired(msgs) == msgs


def test_an_open_call_gets_a_result() -> None:
    assert shape(paired([calls("a"), says("never mind")])) == [
        "call a",
        f"result a={INTERRUPTED}",
        "user: never mind",
    ]


def test_a_result_that_came_later_goes_to_its_call() -> None:
    msgs = [calls("a", "b"), result("b"), says("wait"), says("yes", "assistant"), result("a", "late")]
    assert shape(paired(msgs)) == ["call a b", "result a=late", "result b=ok", "user: wait", "assistant: yes"]


def test_a_message_with_a_result_and_words_is_taken_apart() -> None:
    both = Msg("user", [{"type": "text", "text": "there"}, *result("a").content], "user")
    assert shape(paired([calls("a"), both])) == ["call a", "result a=ok", "user: there"]


def test_a_result_gets_the_name_of_its_tool() -> None:
    _, named = paired([calls("a"), result("a", name="")])
    assert named.content[0]["name"] == "tool_a"


def test_a_result_whose_call_is_gone_becomes_text_and_a_second_one_is_dropped() -> None:
    msgs = [result("x", "far away"), calls("a"), result("a"), result("a", "again"), says("hi")]
    found = shape(paired(msgs))
    assert found[1:] == ["call a", "result a=ok", "user: hi"]
    assert found[0].startswith("user: ")
    assert "far away" in found[0]


def test_ids_that_are_used_again_belong_to_the_latest_call() -> None:
    msgs = [calls("a"), result("a", "one"), calls("a"), says("hm"), result("a", "two")]
    assert shape(paired(msgs)) == ["call a", "result a=one", "call a", "result a=two", "user: hm"]


def test_a_call_that_is_handed_back_with_its_result_is_there_once() -> None:
    msgs = [calls("a", "b", text="Look:"), calls("a"), calls("b"), result("b"), result("a"), says("hi")]
    assert shape(paired(msgs)) == ["call a b", "result a=ok", "result b=ok", "user: hi"]
    assert paired(msgs)[0] == msgs[0]


def test_a_message_that_hands_a_call_back_keeps_its_words() -> None:
    (_, _, said) = paired([calls("a"), calls("a", text="as I said"), result("a")])
    assert shape([said]) == ["assistant: as I said"]


def test_an_id_that_is_used_again_for_another_call_is_no_echo() -> None:
    other = Msg("Friday", [{"type": "tool_use", "id": "a", "name": "tool_a", "input": {"x": 1}}], "assistant")
    assert shape(paired([calls("a"), other, result("a")])) == [
        "call a",
        f"result a={INTERRUPTED}",
        "call a",
        "result a=ok",
    ]


def test_an_answered_call_that_is_handed_back_is_not_told_again_unless_that_is_all() -> None:
    remembered = [says("hi"), calls("a", "b"), result("a"), result("b"), calls("c")]
    told = [calls("a", text="as I said"), result("a", "again"), calls("c"), result("d"), says("and now?")]
    assert shape(list(unechoed(remembered, told))) == [
        "assistant: as I said",
        "call c",
        "result d=ok",
        "user: and now?",
    ]
    assert unechoed(remembered, told[1:2]) == told[1:2]
    echo = [calls("a"), result("a")]
    assert unechoed(remembered, echo) == echo


pieces = st.one_of(
    st.builds(says, st.sampled_from(["x", "y"]), st.sampled_from(["user", "assistant", "system"])),
    st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True).map(lambda ids: calls(*ids)),
    st.builds(result, st.sampled_from("abcd"), st.just("ok"), st.sampled_from(["", "tool"])),
)


@given(st.lists(pieces, max_size=8))
def test_any_prompt_comes_out_whole(msgs: list[Msg]) -> None:
    ordered = paired(msgs)
    assert paired(ordered) == ordered
    waiting: set[str] = set()
    for msg in ordered:
        results = [block["id"] for block in msg.get_content_blocks("tool_result")]
        assert set(results) <= waiting
        waiting -= set(results)
        assert results or not waiting
        waiting |= {block["id"] for block in msg.get_content_blocks("tool_use")}
    assert not waiting
    assert [msg for msg in ordered if isinstance(msg.content, str)] == [
        msg for msg in msgs if isinstance(msg.content, str)
    ]


async def test_outside_of_turns_formatters_do_what_they_did() -> None:
    AgentScope1Adapter()
    prompt = await OpenAIChatFormatter().format([calls("a"), says("never mind")])
    assert [message["role"] for message in prompt] == ["assistant", "user"]
