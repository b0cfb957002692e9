"""Errors that callers can meet. Each says what happened, why, and what to do next.

A contract, importable from every room. Transports turn a `GreenroomError` into their protocol's error with its
`code`, `status` (of HTTP) and, where waiting helps, `retry_after` (seconds).
"""

from __future__ import annotations

from typing import ClassVar


class GreenroomError(Exception):
    """Base of all errors of ours."""

    code: ClassVar[str] = "error"
    status: int = 500
    retry_after: float | None = None
    nothing_kept: bool = False
    """Whether nothing of the request was kept and nothing ran for it, so that it may be sent again as it is."""

    def __init__(self, message: str, *, field: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        if retry_after is not None:
            self.retry_after = retry_after


class InvalidRequest(GreenroomError):
    """The request cannot start a turn; `field` names what is wrong, like `input[0].content`."""

    code = "invalid_request"
    status = 400


class Unauthenticated(GreenroomError):
    """The caller did not show who he is."""

    code = "unauthenticated"
    status = 401


class Forbidden(GreenroomError):
    """The caller is known and this is not his."""

    code = "forbidden"
    status = 403


class TurnNotFound(GreenroomError):
    """No such turn, or it is no longer kept, or it is somebody else's: the caller cannot tell which."""

    code = "turn_not_found"
    status = 404


class ContinuationNotFound(GreenroomError):
    """The turn to continue from, or the session's state after it, is no longer kept, or never was."""

    code = "previous_response_not_found"
    status = 400


class SessionBusy(GreenroomError):
    """The session runs a turn and the request asked not to wait (`overlap: "reject"`)."""

    code = "session_busy"
    status = 409
    retry_after = 1.0


class TurnExists(GreenroomError):
    """The id was given to another turn already."""

    code = "turn_exists"
    status = 409


class KeyReused(GreenroomError):
    """The idempotency key was given to another request already."""

    code = "idempotency_key_reused"
    status = 409


class CursorExpired(GreenroomError):
    """A process ended that may have told other events, up to this number, than the turn has now: they are to be read
    again from the first."""

    code = "cursor_expired"
    status = 410


class BodyTooLarge(GreenroomError):
    """The request's body is over the limit."""

    code = "body_too_large"
    status = 413


class UnsupportedMediaType(GreenroomError):
    """The request's body is not declared as JSON."""

    code = "unsupported_media_type"
    status = 415


class MailboxFull(GreenroomError):
    """Too many turns wait for this session."""

    code = "mailbox_full"
    status = 429
    retry_after = 1.0
    nothing_kept = True


class Overloaded(GreenroomError):
    """The process holds as many turns or sessions as it may."""

    code = "overloaded"
    status = 503
    retry_after = 2.0
    nothing_kept = True


class NotServing(GreenroomError):
    """The application is starting, draining or stopped."""

    code = "not_serving"
    status = 503
    retry_after = 2.0
    nothing_kept = True


class SessionHeld(GreenroomError):
    """Another process works on the session: no more turns may wait for it there, or what was waited for did not come in
    time."""

    code = "session_held"
    status = 503
    retry_after = 1.0
    nothing_kept = True


class SessionLost(GreenroomError):
    """The session belongs to another process now: what this one wanted to write was refused, and not merged.

    Who asked for a turn that was accepted before is told `TurnMoved`.
    """

    code = "session_lost"
    status = 503
    retry_after = 1.0
    nothing_kept = True

    def again(self) -> SessionLost:
        """The same for another caller: an error that is raised twice drags the first one's frames along."""
        return SessionLost(self.message, retry_after=self.retry_after)


class TurnMoved(GreenroomError):
    """The turn was accepted, and is another process's now, which runs or ends it: who asked for it asks for it by its
    id. `named`: its request names itself, and joins the turn when it is sent again; any other would begin one more, so
    that it gets a status on which no client sends a request again. `stored`: the turn is kept as a response."""

    code = "turn_moved"

    def __init__(self, turn_id: str, *, named: bool, stored: bool) -> None:
        does = "sent again as it is, the request joins the turn" if named else "do not send the request again"
        super().__init__(
            f"turn {turn_id} is accepted and goes on in another process, as this one stops or was cut off; ask for it "
            f"by its id; {does}",
            retry_after=1.0 if named else None,
        )
        self.turn_id = turn_id
        self.stored = stored
        self.status = 503 if named else 424


class HandlerError(GreenroomError):
    """The application's handler broke its side: wrong signature, wrong values yielded, a bound overrun."""

    code = "handler_error"


class TurnTooLarge(HandlerError):
    """The turn said more than a turn may (`Limits.turn_bytes`)."""

    code = "turn_too_large"


class AnswerMismatch(GreenroomError):
    """The answer is not of the form that the request asked for; `field` is the path in it to what is wrong."""

    code = "answer_mismatch"
    status = 422


class MissingDependency(GreenroomError, ImportError):
    """A part that is not installed was used; the message names what to install. It is an `ImportError` too, for who
    imports a name that may not be there."""

    code = "missing_dependency"


class ConfigurationError(GreenroomError):
    """The application is put together wrongly; raised at start-up, before anything is served."""

    code = "configuration_error"


class StoreUnavailable(GreenroomError):
    """Where sessions are kept cannot be read or written: locked, full, read-only, damaged as a whole. Nothing is kept
    in part. `maybe_done`: what was to be written may have been, as a whole: sent again, it may be there twice."""

    code = "store_unavailable"
    status = 503
    retry_after: float | None = 5.0

    def __init__(self, message: str, *, retry_after: float | None = None, maybe_done: bool = False) -> None:
        super().__init__(message, retry_after=retry_after)
        self.nothing_kept = not maybe_done


class SessionDamaged(GreenroomError):
    """What is kept of one session cannot be read. Waiting changes nothing, and other sessions are not concerned."""

    code = "session_damaged"


class TurnOver(GreenroomError):
    """Code of a turn that has ended tried to change its session; the change was refused."""

    code = "turn_over"


class SandboxError(GreenroomError):
    """Base of what goes wrong around a sandbox; what a tool itself answers is a `ToolResult`, also when it failed."""

    code = "sandbox_error"


class SandboxUnavailable(SandboxError):
    """No sandbox can be made here, or not safely; the message names what to install or to set."""

    code = "sandbox_unavailable"
    status = 503


class SandboxBusy(SandboxError):
    """As many sandboxes run as may, and none became free in time."""

    code = "sandbox_busy"
    status = 503
    retry_after = 5.0


class SandboxLost(SandboxError):
    """The sandbox ended under way. What it held (pages, logins, files) is gone; the next call gets a new one."""

    code = "sandbox_lost"
    status = 503


class SandboxTimeout(SandboxError):
    """A tool did not answer in time and was stopped."""

    code = "sandbox_timeout"
    status = 504


class SandboxFileError(SandboxError):
    """A file of the workspace could not be read or changed: the path leads out of it, it is full, or in the way."""

    code = "sandbox_file_error"
    status = 409


class SandboxFileNotFound(SandboxFileError):
    """There is no such file in the workspace."""

    code = "sandbox_file_not_found"
    status = 404


class LeaseHeld(SandboxError):
    """The session's sandbox belongs to another process that lives."""

    code = "lease_held"
    status = 409
    retry_after = 5.0


class LeaseOver(SandboxError):
    """A sandbox was used after it was released, or after what gave it was stopped."""

    code = "lease_over"
    status = 409
