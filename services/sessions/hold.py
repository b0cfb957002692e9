"""What a process remembers of a session that is its own, so that a turn costs two writes and no read."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType, field

from greenroom.services.sessions.head import EARLIER, ENDED, TURN, EndedTurn, OpenTurn, SessionHead
from greenroom.services.sessions.lines import Line
from greenroom.services.sessions.log import OpenLog
from greenroom.services.storage import Fence


class Hold(Struct):
    """A session's fence, head and owner as of this process's last write.

    `state`: the state after the newest turn; unset, it must be read. `logs`: of the open turns, by their numbers, as
    far as they were needed. `turns`, `earlier`, `ended`: the sizes of what is the oldest.
    """

    fence: Fence
    head: SessionHead
    owner: str
    turns: Line[int]
    earlier: Line[int]
    ended: Line[EndedTurn]
    state: bytes | None | UnsetType = UNSET
    logs: dict[int, OpenLog] = field(default_factory=dict)

    def turn(self, turn_id: str, principal: str | None) -> OpenTurn | None:
        """The open turn; none: there is none with that id and principal."""
        for opened in self.head.open:
            if opened.turn_id == turn_id and opened.principal == principal:
                return opened
        return None


def hold_of(fence: Fence, head: SessionHead, owner: str) -> Hold:
    """What is known of a session when its head was read, and nothing else."""
    return Hold(
        fence,
        head,
        owner,
        Line(TURN, head.oldest_turn, whole=head.oldest_turn > head.commits),
        Line(EARLIER, head.oldest_state, whole=head.oldest_state >= head.commits),
        Line(ENDED, head.oldest_entry, whole=not head.ended_size),
        UNSET if head.commits else None,
    )
