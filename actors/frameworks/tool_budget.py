"""How many calls of the agent's own tools a turn may make (`max_tool_calls`), whatever the framework.

Tools that the client runs are its own to count; a tool by which an agent finishes is none.
"""

from __future__ import annotations

from greenroom.actors.messages import TurnOptions


class ToolBudget:
    """A turn's. `made`: calls that were let through, of all model calls."""

    __slots__ = ("_client_tools", "made", "most")

    def __init__(self, options: TurnOptions) -> None:
        self._client_tools = frozenset(tool.name for tool in options.tools)
        self.most = options.max_tool_calls
        self.made = 0

    def __repr__(self) -> str:
        return f"<ToolBudget {self.made} of {self.most}>"

    @property
    def spent(self) -> bool:
        """Whether no more may be made."""
        return not self.allows(0)

    def allows(self, more: int) -> bool:
        """Whether one may be made after `more` that are not counted yet."""
        return self.most is None or self.made + more < self.most

    def counts(self, name: str) -> bool:
        """Whether a call of the tool is one of them."""
        return name not in self._client_tools
