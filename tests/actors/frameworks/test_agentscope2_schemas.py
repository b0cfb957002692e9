"""Tools of AgentScope 2.x look to a model as ever, and are worked out once."""

from __future__ import annotations

from typing import Any

import pytest

from kits.agentscope_line import require_line

require_line(2)

from agentscope.agent import ContextConfig
from agentscope.agent._config import SummarySchema
from agentscope.tool import FunctionTool, ResetTools, ToolGroup, Toolkit, _adapters

from greenroom.actors.frameworks.agentscope2_schemas import install, once_for_groups
from greenroom.actors.frameworks.tool_descriptions import REMEMBERED

pytestmark = pytest.mark.agentscope2


@pytest.fixture(autouse=True)
def _installed() -> None:
    install()


def weather(place: str, days: int = 3) -> str:
    """Tell the weather.

    For some days.

    Args:
        place (str): Where.
        days (int): How far ahead.
    """
    return place * days


def unwrapped(name: str) -> Any:
    return getattr(_adapters, name).__wrapped__


def test_a_function_looks_as_it_would_and_each_tool_has_its_own() -> None:
    first, second = FunctionTool(weather), FunctionTool(weather)
    assert first.input_schema == second.input_schema == unwrapped("_extract_input_schema")(weather)
    assert first.description == unwrapped("_extract_func_description")(weather.__doc__)
    first.input_schema["properties"].clear()
    assert FunctionTool(weather).input_schema == second.input_schema
    assert set(second.input_schema["properties"]) == {"place", "days"}


def groups(*described: tuple[str, str]) -> list[ToolGroup]:
    return [ToolGroup("basic"), *(ToolGroup(name, description) for name, description in described)]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[ResetTools]:
    """What was asked for its schema in earnest."""
    tools: list[ResetTools] = []
    known: Any = vars(ResetTools)["input_schema"]
    original = known.fget.__wrapped__

    def schema_of(tool: ResetTools) -> Any:
        tools.append(tool)
        return original(tool)

    monkeypatch.setattr(ResetTools, "input_schema", property(once_for_groups(schema_of)))
    return tools


def test_a_choice_of_groups_is_described_once_for_equal_groups(asked: list[ResetTools]) -> None:
    described = [("maps", "Finds ways."), ("mail", "Writes letters.")]
    first, second = ResetTools(groups(*described), ""), ResetTools(groups(*described), "")
    schema = first.input_schema
    assert {name: field["description"] for name, field in schema["properties"].items()} == dict(described)
    schema["properties"].clear()
    assert len(second.input_schema["properties"]) == 2
    assert asked == [first]


def test_other_groups_are_described_anew(asked: list[ResetTools]) -> None:
    tool = ResetTools(groups(("maps", "Finds ways.")), "")
    assert list(tool.input_schema["properties"]) == ["maps"]
    tool.groups.append(ToolGroup("mail", "Writes letters."))
    assert list(tool.input_schema["properties"]) == ["maps", "mail"]
    tool.groups[1].description = "Finds short ways."
    assert tool.input_schema["properties"]["maps"]["description"] == "Finds short ways."
    assert ResetTools(groups(), "").input_schema["properties"] == {}
    assert len(asked) == 4


def test_what_is_remembered_is_bounded(asked: list[ResetTools]) -> None:
    for number in range(REMEMBERED + 1):
        assert ResetTools(groups((f"g{number}", "A group.")), "").input_schema
    first = ResetTools(groups(("g0", "A group.")), "")
    assert list(first.input_schema["properties"]) == ["g0"]
    assert asked[-1] is first


async def test_a_toolkit_offers_the_same() -> None:
    toolkits = [Toolkit(tools=[FunctionTool(weather)]) for _ in range(2)]
    first, second = [await toolkit.get_tool_schemas() for toolkit in toolkits]
    assert first == second
    assert first[0]["function"]["name"] == "weather"


def test_the_form_of_summaries_is_each_agents_own_and_as_ever() -> None:
    first, second = ContextConfig(), ContextConfig()
    assert first.summary_schema == SummarySchema.model_json_schema()
    first.summary_schema.clear()
    assert second.summary_schema == ContextConfig().summary_schema == SummarySchema.model_json_schema()
    assert second.model_fields_set == set()
    form: Any = ContextConfig.model_fields["summary_schema"]
    made = form.default_factory
    assert not hasattr(made, "__func__"), "it is still worked out for each agent"
    install()
    assert form.default_factory is made
