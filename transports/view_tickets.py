"""Links to look into a session's browser: signed, so that nobody makes one, and good for a while."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

from msgspec import Struct

from greenroom.actors.errors import ConfigurationError, Forbidden, MissingDependency
from greenroom.actors.messages import SessionKey
from greenroom.actors.setting_checks import Seconds, check_fields

SECRET_LENGTH: Final = 16
"""A shorter secret can be guessed."""


class BrowserView(Struct, frozen=True, kw_only=True):
    """Lets people look into sessions' browsers, with links that are good for `seconds`.

    `secret`: what links are signed with, at least 16 characters; processes that share it take each other's links.
    """

    secret: str
    seconds: Seconds = 900.0

    def __post_init__(self) -> None:
        check_fields(self)

    def __repr__(self) -> str:
        return f"<BrowserView, links for {self.seconds:g} s>"  # the secret is for nobody's log


class Ticket(Struct, frozen=True):
    """What a link is good for. `control`: to take the browser over, and not only to look. `left`: seconds."""

    key: SessionKey
    control: bool
    left: float


class ViewTickets:
    """Makes and reads tickets. `clock`: seconds since the epoch.

    Raises `ConfigurationError` for a secret that is too short, `MissingDependency` without itsdangerous.
    """

    def __init__(self, view: BrowserView, clock: Callable[[], float]) -> None:
        if len(view.secret) < SECRET_LENGTH:
            raise ConfigurationError(
                f"browser_view: the secret has {len(view.secret)} characters and needs {SECRET_LENGTH}; "
                "make one with: python -c 'import secrets; print(secrets.token_urlsafe())'"
            )
        self._seconds = view.seconds
        self._clock = clock
        self._serializer = _serializer(view.secret, clock)

    def link(self, key: SessionKey, *, control: bool) -> str:
        """The path, with its ticket, where this session's browser can be seen."""
        ticket = self._serializer.dumps([key.user_id, key.session_id, control])
        text = ticket if isinstance(ticket, str) else ticket.decode()
        return f"/sessions/{quote(key.session_id, safe='')}/browser?ticket={text}"

    def read(self, ticket: str, session_id: str) -> Ticket:
        """What the ticket is good for. Raises `Forbidden` when it is not ours, too old, or of another session."""
        from itsdangerous import BadData, SignatureExpired

        try:
            (user_id, named, control), made = self._serializer.loads(
                ticket, max_age=math.ceil(self._seconds), return_timestamp=True
            )
        except SignatureExpired:
            raise Forbidden(
                f"this link was good for {self._seconds:g} s; ask the application for a new one"
            ) from None
        except BadData:
            raise Forbidden(
                "this link is none of ours, or it was changed; ask the application for one"
            ) from None
        if named != session_id:
            raise Forbidden("this link is for another session")
        left = made.timestamp() + self._seconds - self._clock()
        return Ticket(SessionKey(user_id, session_id), control, left)


def _serializer(secret: str, clock: Callable[[], float]) -> Any:
    try:
        from itsdangerous import TimestampSigner, URLSafeTimedSerializer
    except ImportError:
        raise MissingDependency(
            "browser_view signs its links with itsdangerous, which is not installed: pip install 'greenroom[sandbox]'"
        ) from None

    class Signer(TimestampSigner):
        """With our clock."""

        def get_timestamp(self) -> int:
            return int(clock())

    return URLSafeTimedSerializer(
        secret,
        salt="greenroom.browser_view",
        signer=Signer,
        signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
    )
