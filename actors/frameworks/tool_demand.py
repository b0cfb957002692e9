"""The tool calls that a turn's options demand, whatever the framework: what must yet be called, and whether any model
heard of the tools at all."""

from __future__ import annotations

from collections.abc import Collection

from greenroom.actors.errors import HandlerError
from greenroom.actors.frameworks.model_options import is_spent
from greenroom.actors.messages import TurnOptions
from greenroom.actors.scope import TurnScope


class ToolDemand:
    """A turn's. `open`: the call that must yet be made, a tool's name or `required`; `asked`, `offered`: whether models
    were called, and whether one of them was told of the tools."""

    __slots__ = ("_client_tools", "_options", "_scope", "asked", "offered", "open")

    def __init__(self, scope: TurnScope, options: TurnOptions) -> None:
        self._scope = scope
        self._options = options
        self._client_tools = frozenset(tool.name for tool in options.tools)
        self.open = options.forced_tool or ("required" if options.tool_choice == "required" else None)
        self.asked = self.offered = False

    def __repr__(self) -> str:
        return f"<ToolDemand of {self._scope.turn_id}: {self.open}>"

    def answered(self, called: Collection[str]) -> None:
        """An agent's model has answered with calls of these tools, or none.

        What must be called is asked for until it is; if the client has tools, `required` means one of them. Raises
        `HandlerError` for an answer without the call.
        """
        demand = self.open
        if demand is None:
            return
        if demand == "required":
            met = not self._client_tools.isdisjoint(called) if self._client_tools else bool(called)
        else:
            met = demand in called
        if met:
            self.open = None
        elif not called and not is_spent(self._scope):
            what = "a tool" if demand == "required" else f"the tool {demand!r}"
            raise HandlerError(
                f"the request demands a call of {what} (tool_choice) and the model answered without one; ask again, or "
                "give the agent a model that keeps to tool_choice"
            )

    def check_offered(self, agent: str) -> None:
        """The turn ends well. Raises `HandlerError` if models were called and none of them heard of the tools.

        `agent`: the class of those that can be told of tools.
        """
        options = self._options
        wanted = bool(options.tools) or options.forced_tool is not None or options.tool_choice != "auto"
        if wanted and self.asked and not self.offered:
            raise HandlerError(
                "the request brings tools or a tool_choice, and no agent of this application can call them in this "
                f"turn: it asks a model itself, or has an agent that is no {agent}; leave them out"
            )
