"""A user's sessions, against a plain dict."""

from hypothesis import given
from hypothesis import strategies as st

from greenroom.actors.messages import SessionKey
from greenroom.services.user_sessions import UserSessions

USERS = ("a", "b")
STEPS = st.lists(st.tuples(st.booleans(), st.sampled_from(USERS), st.sampled_from(["", "1", "2", "3"])))


@given(steps=STEPS)
def test_it_does_what_a_dict_does(steps: list[tuple[bool, str, str]]) -> None:
    sessions = UserSessions()
    model: dict[str, dict[str, None]] = {user: {} for user in USERS}
    for add, user, session in steps:
        if add:
            sessions.add(SessionKey(user, session))
            model[user][session] = None
        else:
            sessions.discard(SessionKey(user, session))
            model[user].pop(session, None)
        assert [sessions.of(one) for one in USERS] == [tuple(model[one]) for one in USERS]
    assert repr(sessions) == f"<UserSessions of {sum(map(bool, model.values()))} users>"
