"""What tools of AgentScope 2.x look like to a model, worked out once and not in every turn that makes a toolkit.

AgentScope makes a pydantic model for each function (`FunctionTool`), another for each look at the tool by which an
agent chooses among groups of tools, if there are any or not (`ResetTools.input_schema`), and describes for each agent
the form of summaries (`ContextConfig`): together nearly half the time until a short turn's first text. What is given is
as AgentScope makes it, and the caller's own.

Private names: `agentscope.tool._adapters._extract_input_schema` and `._extract_func_description`. An AgentScope
without them works out what it needs, as ever.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import lru_cache, wraps
from typing import Any

from agentscope.agent import ContextConfig
from agentscope.tool import ResetTools, _adapters
from pydantic import BaseModel

from greenroom.actors.frameworks.tool_descriptions import REMEMBERED, described_once

_ONCE = "_greenroom_once"


def install() -> None:
    """Wrap the four. Doing it twice is fine."""
    schema = getattr(_adapters, "_extract_input_schema", None)
    if schema is not None:
        _adapters._extract_input_schema = described_once(schema)
    summary = getattr(_adapters, "_extract_func_description", None)
    if summary is not None and not hasattr(summary, "cache_info"):  # a function of the docstring alone
        _adapters._extract_func_description = lru_cache(maxsize=REMEMBERED)(summary)
    groups = vars(ResetTools).get("input_schema")
    if isinstance(groups, property) and groups.fget is not None and not hasattr(groups.fget, _ONCE):
        ResetTools.input_schema = property(
            once_for_groups(groups.fget), groups.fset, groups.fdel, groups.__doc__
        )
    form = ContextConfig.model_fields.get("summary_schema")
    make: Any = form.default_factory if form is not None else None
    described: Any = BaseModel.model_json_schema
    if form is not None and getattr(make, "__func__", None) is described.__func__:
        form.default_factory = copied(make())
        ContextConfig.model_rebuild(force=True)


def copied(value: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    """A factory of copies."""
    return lambda: deepcopy(value)


def once_for_groups(schema_of: Callable[[Any], dict[str, Any]]) -> Callable[[Any], dict[str, Any]]:
    """The schema by which an agent chooses: it depends on the names and descriptions of its groups of tools."""
    remembered: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}

    @wraps(schema_of)
    def input_schema(self: ResetTools) -> dict[str, Any]:
        groups = tuple((group.name, group.description) for group in self.groups)
        known = remembered.get(groups)
        if known is None:
            if len(remembered) >= REMEMBERED:
                remembered.clear()
            known = remembered[groups] = schema_of(self)
        return deepcopy(known)

    setattr(input_schema, _ONCE, True)
    return input_schema
