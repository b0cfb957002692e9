"""AgentScope 2.x events, and the `Msg` objects some handlers yield, as a turn's events.

What becomes what:

- A model call's text blocks, and the data blocks between them, are the parts of one message. It ends where the next
  item or the next model call begins.
- A thinking block is reasoning, closed before the answer opens.
- A tool call is a `tool_call`; its result a `tool_output`, opened when there is something in it, so that a call
  which is handed out to be executed elsewhere stays a call without output.
- A call that waits for the user's confirmation is told as a message that says so, with the call in its metadata under
  `awaiting_confirmation`.
- The final `Msg` of a reply says only what its events have not said.
- An agent that is cancelled swallows it and closes what was open. That is not heard: what its turn was stopped in the
  middle of stays unfinished, and its last words are not said.
- Hints (what AgentScope tells the model: the time, the end of a background task) are no part of the answer.

An answer that must have a form is one message: see `held_message`.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any, TypeAlias

from agentscope.event import (
    DataBlockDeltaEvent,
    DataBlockEndEvent,
    DataBlockStartEvent,
    EventBase,
    ModelCallEndEvent,
    ModelCallStartEvent,
    ReplyEndEvent,
    ReplyStartEvent,
    RequireExternalExecutionEvent,
    RequireUserConfirmEvent,
    TextBlockDeltaEvent,
    TextBlockEndEvent,
    ThinkingBlockDeltaEvent,
    ThinkingBlockEndEvent,
    ToolCallDeltaEvent,
    ToolCallEndEvent,
    ToolCallStartEvent,
    ToolResultDataDeltaEvent,
    ToolResultEndEvent,
    ToolResultStartEvent,
    ToolResultTextDeltaEvent,
)
from agentscope.message import DataBlock, Msg, TextBlock, ThinkingBlock, ToolCallBlock, ToolResultBlock
from agentscope.message import Usage as MsgUsage

from greenroom.actors.composer import Composer
from greenroom.actors.errors import GreenroomError, HandlerError
from greenroom.actors.events import Part
from greenroom.actors.frameworks.agentscope2_blocks import part_of_block, parts_of_output, tool_name
from greenroom.actors.frameworks.agentscope2_options import TurnModels
from greenroom.actors.frameworks.agentscope2_output import ToolItems
from greenroom.actors.frameworks.agentscope2_speech import Speech
from greenroom.actors.frameworks.model_options import is_spent
from greenroom.actors.messages import Data, Text, Usage
from greenroom.actors.scope import current_turn


class AgentFailed(GreenroomError):
    """The agent ended its reply with an error. `kind` is AgentScope's word for it, like `rate_limit`."""

    code = "agent_failed"

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"the agent ended its reply with an error ({kind}): {message}")
        self.kind = kind


class AgentScope2Translator(Speech):
    """Hears one turn."""

    __slots__ = ("_models", "_parked", "_replies", "_scope", "_tools")

    def __init__(self, composer: Composer, models: TurnModels | None = None) -> None:
        super().__init__(composer, formed=models is not None and models.options.answer is not None)
        self._models = models
        self._scope = current_turn.get()
        self._tools = ToolItems(
            composer, self._go_on, elsewhere=models.client_tools if models is not None else ()
        )
        self._replies: set[str] = set()
        self._parked: set[str] = set()
        """Replies that wait for a confirmation or an execution elsewhere."""

    @property
    def stopped(self) -> bool:
        """Whether the turn is being cancelled, or was."""
        own = self._scope.own if self._scope is not None else None
        return own is not None and own.cancelling() > 0

    def feed(self, item: object) -> None:
        """One event, `Msg` or text. Raises `HandlerError` for anything else, `AgentFailed` when the agent did."""
        hear = _HEAR.get(type(item)) or _inherited(type(item))
        hear(self, item)

    def finish(self) -> None:
        self._end_all()
        self._tools.finish()
        if self._models is not None:
            self._models.demand.check_offered("agentscope.agent.Agent")
            if is_spent(self._models.scope):
                self._tools.give_up()  # what the models called last is not run
                self._composer.cut_short("max_output_tokens")
        if self._scope is not None and self._scope.cut is not None:
            self._composer.cut_short(self._scope.cut)
        if self._held_message is not None:
            self._held_message.release()
        self._composer.close()

    # -- tools -----------------------------------------------------------------------------------------------------

    def _call_start(self, event: ToolCallStartEvent) -> None:
        self._tools.start(event.tool_call_id, event.tool_call_name)

    def _call_delta(self, event: ToolCallDeltaEvent) -> None:
        self._tools.arguments(event.tool_call_id, event.delta)

    def _call_end(self, event: ToolCallEndEvent) -> None:
        self._tools.end(event.tool_call_id)

    def _result_start(self, event: ToolResultStartEvent) -> None:
        self._tools.name(event.tool_call_id, event.tool_call_name)

    def _result_text(self, event: ToolResultTextDeltaEvent) -> None:
        self._tools.output(event.tool_call_id).text(event.delta)

    def _result_data(self, event: ToolResultDataDeltaEvent) -> None:
        output = self._tools.output(event.tool_call_id)
        output.data(event.block_id, event.media_type, event.data, event.url)

    def _result_end(self, event: ToolResultEndEvent) -> None:
        self._tools.result(event.tool_call_id, str(event.state))

    def _awaits_confirmation(self, event: RequireUserConfirmEvent) -> None:
        self._awaits_execution(event)
        for block in event.tool_calls:
            name = tool_name(block.name)[0]
            self._open_text(f"confirm {block.id}")
            self._say(f"{name}({block.input}) waits for your confirmation and has not run.")
            message = self._message
            assert message is not None
            message.metadata = message.metadata or {"awaiting_confirmation": []}
            pending = {"call_id": block.id, "name": name, "arguments": block.input}
            message.metadata["awaiting_confirmation"].append(pending)

    def _awaits_execution(self, event: RequireExternalExecutionEvent | RequireUserConfirmEvent) -> None:
        self._replies.add(event.reply_id)
        self._parked.add(event.reply_id)
        for block in event.tool_calls:
            if not self._tools.was_told(block.id):
                self._tools.whole(block)

    # -- model calls and replies -----------------------------------------------------------------------------------

    def _reply_start(self, event: ReplyStartEvent) -> None:
        self._replies.add(event.reply_id)

    def _model_start(self, event: ModelCallStartEvent) -> None:
        self._replies.add(event.reply_id)
        self._go_on()

    def _used(self, usage: ModelCallEndEvent | MsgUsage) -> None:
        if usage.input_tokens or usage.output_tokens:
            used = Usage(usage.input_tokens, usage.output_tokens, usage.cache_input_tokens)
            self._composer.report_usage(used)
            if self._message is not None:
                self._message.usage = used

    def _reply_end(self, event: ReplyEndEvent) -> None:
        self._replies.add(event.reply_id)
        self._finished(event.finished_reason, event.error)
        self._end_speech()

    def _finished(self, reason: str | None, error: Any) -> None:
        """How a reply ended: an error ends the turn; what cut it short stands with its last message."""
        if reason == "error":
            if error is None:
                raise AgentFailed("unknown", "it gave no details")
            raise AgentFailed(str(error.type), error.message)
        if reason not in (None, "completed") and self._message is not None:
            self._message.metadata = (self._message.metadata or {}) | {"finished_reason": str(reason)}

    def _msg(self, msg: Msg) -> None:
        self._end_speech()
        known = msg.id in self._replies
        self._replies.add(msg.id)
        if known:
            self._say_the_rest(msg)
        else:
            self._say_all(msg)
        self._finished(msg.finished_reason, msg.error)
        self._end_speech()

    def _say_all(self, msg: Msg) -> None:
        if msg.role != "assistant" and msg.content:
            self._message = self._new_message(msg.role)
        for block in msg.content:
            self._whole(block)
        if msg.structured_output is not None:
            self._structured(msg.structured_output)
        if msg.usage is not None:
            self._used(msg.usage)

    def _say_the_rest(self, msg: Msg) -> None:
        """A reply's final message, after its events."""
        if msg.id in self._parked:
            return  # it says that it waits, which was told
        said = [part for item in self._composer.output for part in item.parts]
        said += self._held_message.parts() if self._held_message is not None else ()
        if msg.structured_output is not None:  # beside it AgentScope says that it was generated
            if Data(msg.structured_output) not in said:
                self._structured(msg.structured_output)
            return
        for block in msg.content:
            if not self._was_said(block, said):
                self._whole(block)

    def _was_said(self, block: Any, said: Container[Part]) -> bool:
        if isinstance(block, ToolCallBlock):
            return self._tools.was_told(block.id)
        if isinstance(block, ToolResultBlock):
            return self._tools.was_answered(block.id)
        if isinstance(block, ThinkingBlock):
            return Text(block.thinking) in said
        return isinstance(block, TextBlock | DataBlock) and part_of_block(block) in said

    def _whole(self, block: Any) -> None:
        if isinstance(block, TextBlock) and block.text:
            self._open_text(block.id)
            self._say(block.text)
            self._end_text()
        elif isinstance(block, DataBlock):
            self._show(part_of_block(block))
        elif isinstance(block, ThinkingBlock) and block.thinking:
            self._end_speech()
            self._reasoning = self._composer.reasoning()
            self._reasoning.text(block.thinking)
        elif isinstance(block, ToolCallBlock):
            self._tools.whole(block)
        elif isinstance(block, ToolResultBlock):
            self._tools.name(block.id, block.name)
            self._tools.result(block.id, str(block.state), parts_of_output(block.output))

    def _ignore(self, event: object) -> None:
        """What tells about the agent's work and says nothing to the caller."""


Hear: TypeAlias = Callable[[AgentScope2Translator, Any], None]


def _unless_stopped(hear: Hear) -> Hear:
    """`hear` that hears nothing in a turn that is being cancelled."""

    def hear_or_not(translator: AgentScope2Translator, event: Any) -> None:
        if not translator.stopped:
            hear(translator, event)

    return hear_or_not


_HEAR: dict[type, Hear] = {
    str: AgentScope2Translator._plain_text,
    TextBlockDeltaEvent: AgentScope2Translator._text_delta,
    TextBlockEndEvent: AgentScope2Translator._text_end,
    ThinkingBlockDeltaEvent: AgentScope2Translator._thinking_delta,
    ThinkingBlockEndEvent: _unless_stopped(AgentScope2Translator._thinking_end),
    DataBlockStartEvent: AgentScope2Translator._data_start,
    DataBlockDeltaEvent: AgentScope2Translator._data_delta,
    DataBlockEndEvent: _unless_stopped(AgentScope2Translator._data_end),
    ToolCallStartEvent: AgentScope2Translator._call_start,
    ToolCallDeltaEvent: AgentScope2Translator._call_delta,
    ToolCallEndEvent: _unless_stopped(AgentScope2Translator._call_end),
    ToolResultStartEvent: _unless_stopped(AgentScope2Translator._result_start),
    ToolResultTextDeltaEvent: _unless_stopped(AgentScope2Translator._result_text),
    ToolResultDataDeltaEvent: _unless_stopped(AgentScope2Translator._result_data),
    ToolResultEndEvent: _unless_stopped(AgentScope2Translator._result_end),
    RequireUserConfirmEvent: AgentScope2Translator._awaits_confirmation,
    RequireExternalExecutionEvent: AgentScope2Translator._awaits_execution,
    ReplyStartEvent: AgentScope2Translator._reply_start,
    ReplyEndEvent: _unless_stopped(AgentScope2Translator._reply_end),
    ModelCallStartEvent: AgentScope2Translator._model_start,
    ModelCallEndEvent: AgentScope2Translator._used,
    Msg: _unless_stopped(AgentScope2Translator._msg),
    # Block starts, hints, custom events, what was fed in to resume a reply, and what later versions of 2.x add.
    EventBase: AgentScope2Translator._ignore,
}


def _inherited(kind: type) -> Hear:
    """How to hear a class that is not in the table: as the class it descends from, remembered for the next."""
    for base in kind.__mro__:
        if base in _HEAR:
            _HEAR[kind] = _HEAR[base]
            return _HEAR[kind]
    hint = ""
    if kind is tuple:
        hint = "; (msg, last) pairs are what AgentScope 1.x handlers yield"
    raise HandlerError(
        f"the handler yielded a {kind.__name__}; with AgentScope 2.x it yields what Agent.reply_stream(msgs) gives, "
        f"a Msg or str{hint}"
    )
