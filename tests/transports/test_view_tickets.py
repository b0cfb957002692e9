"""Links to look into a session's browser."""

from urllib.parse import parse_qs, urlsplit

import pytest

from greenroom.actors.errors import ConfigurationError, Forbidden
from greenroom.actors.messages import SessionKey
from greenroom.transports.view_tickets import BrowserView, Ticket, ViewTickets

SECRET = "a secret of some length"
KEY = SessionKey("ann", "trip/1")


class Clock:
    """Time that tests set."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def tickets(clock: Clock, secret: str = SECRET) -> ViewTickets:
    return ViewTickets(BrowserView(secret=secret, seconds=60), clock)


def ticket_of(link: str) -> str:
    return parse_qs(urlsplit(link).query)["ticket"][0]


def test_a_link_names_its_session_and_is_good_for_a_while() -> None:
    clock = Clock()
    link = tickets(clock).link(KEY, control=True)
    assert urlsplit(link).path == "/sessions/trip%2F1/browser"
    clock.now += 20
    assert tickets(clock).read(ticket_of(link), "trip/1") == Ticket(KEY, True, 40.0)


def test_looking_is_not_taking_over() -> None:
    clock = Clock()
    assert not tickets(clock).read(ticket_of(tickets(clock).link(KEY, control=False)), "trip/1").control


def test_after_its_time_it_is_refused() -> None:
    clock = Clock()
    ticket = ticket_of(tickets(clock).link(KEY, control=True))
    clock.now += 61
    with pytest.raises(Forbidden, match="good for 60 s"):
        tickets(clock).read(ticket, "trip/1")


def test_it_is_for_its_session_alone() -> None:
    clock = Clock()
    with pytest.raises(Forbidden, match="another session"):
        tickets(clock).read(ticket_of(tickets(clock).link(KEY, control=True)), "trip/2")


@pytest.mark.parametrize("where", range(0, 100, 7))
def test_a_changed_ticket_is_none_of_ours(where: int) -> None:
    clock = Clock()
    ticket = ticket_of(tickets(clock).link(KEY, control=False))
    at = where % len(ticket)
    changed = ticket[:at] + ("A" if ticket[at] != "A" else "B") + ticket[at + 1 :]
    with pytest.raises(Forbidden):
        tickets(clock).read(changed, "trip/1")


def test_another_secret_signs_other_links() -> None:
    clock = Clock()
    ticket = ticket_of(tickets(clock, "another secret of some length").link(KEY, control=True))
    with pytest.raises(Forbidden, match="none of ours"):
        tickets(clock).read(ticket, "trip/1")
    for nonsense in ("", "x", "a.b.c", "é"):
        with pytest.raises(Forbidden, match="none of ours"):
            tickets(clock).read(nonsense, "trip/1")


def test_a_short_secret_is_refused_and_none_is_shown() -> None:
    with pytest.raises(ConfigurationError, match="has 5 characters and needs 16"):
        tickets(Clock(), "short")
    assert SECRET not in repr(BrowserView(secret=SECRET))
