"""One message an answer, where the answer must have a form: text that turns out not to be it is told as reasoning.

A model that is to answer in JSON may say something before it calls a tool. Whether a message is the answer is known
when nothing follows it, so messages are held back until then.
"""

from __future__ import annotations

from greenroom.actors.composer import Composer, Listener
from greenroom.actors.drafts import MessageDraft
from greenroom.actors.events import Event, Item, Part
from greenroom.actors.messages import Content, Text


class HeldMessage:
    """Holds back a turn's last message. Give it the messages, `demote` where work goes on, `release` at the end."""

    __slots__ = ("_composer", "_draft")

    def __init__(self, composer: Composer) -> None:
        self._composer = composer
        self._draft: MessageDraft | None = None

    def message(self, role: str = "assistant") -> MessageDraft:
        """A new message; the one before was not the answer."""
        self.demote()
        # Written with a pen that nobody hears, and that may write as much as the turn may still say.
        apart = Composer(Listener(_unheard), str, self._composer.limit - self._composer.spent)
        self._draft = apart.message(role)
        return self._draft

    def parts(self) -> tuple[Part, ...]:
        """What is held and complete."""
        return self._draft.item(complete=True).parts if self._draft is not None else ()

    def demote(self) -> None:
        """What is held was not the answer: it is told as reasoning."""
        held = self._taken()
        if held is None:
            return
        texts = [part.text for part in held.parts if isinstance(part, Text)]
        if texts:
            reasoning = self._composer.reasoning()
            reasoning.text("\n".join(texts))
            reasoning.done()

    def release(self) -> None:
        """What is held is the answer."""
        held = self._taken()
        if held is None:
            return
        message = self._composer.message(held.role)
        message.usage, message.metadata = held.usage, held.metadata
        for part in held.parts:
            if isinstance(part, Text):
                message.text(part.text)
                message.end_text()
            elif isinstance(part, Content):
                message.content(part)
        message.done()

    def _taken(self) -> Item | None:
        draft, self._draft = self._draft, None
        if draft is None:
            return None
        draft.done()
        return draft.item(complete=True)


def _unheard(event: Event) -> None:
    pass
