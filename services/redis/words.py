"""What a Redis server must be set to, and in words what is wrong with one, or why it did not do what it was asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from greenroom.actors.errors import StoreUnavailable

OLDEST: Final = (6, 2)
"""The version of the server from which on the scripts do what they should."""
OPERATORS_SECONDS: Final = 30.0
"""When to try again after what only a person can mend."""
SOON_SECONDS: Final = 2.0
"""When to try again after what mends itself."""

_FORBIDDEN: Final = (
    "its user may not do what is needed; the operator has to allow scripts, and all keys of the prefix",
    OPERATORS_SECONDS,
)
_ANSWERS: Final = {
    "OOM": ("it is full; the operator has to give it more memory (maxmemory)", OPERATORS_SECONDS),
    "MISCONF": (
        "it cannot write to its disk, and so takes nothing; the operator finds more in its log",
        OPERATORS_SECONDS,
    ),
    "READONLY": (
        "it is a replica, which takes no writes; another server may have its place now",
        SOON_SECONDS,
    ),
    "NOREPLICAS": ("it wants more replicas than it has (min-replicas-to-write)", OPERATORS_SECONDS),
    "MASTERDOWN": ("it is a replica that does not reach the server it copies", SOON_SECONDS),
    "LOADING": ("it has just started, and reads what it kept", SOON_SECONDS),
    "BUSY": ("it works on a long script of somebody's", SOON_SECONDS),
    "NOPERM": _FORBIDDEN,
    "user executing the script": _FORBIDDEN,
    "certificate verify failed": (
        "its certificate is not from an authority that is trusted here (ssl_ca_certs), or not for its name",
        OPERATORS_SECONDS,
    ),
    "max number of clients": (
        "it has as many clients as it may (maxclients); the operator has to allow more",
        OPERATORS_SECONDS,
    ),
}
"""By the words that its errors begin with, or have in them where a script met them."""
REFUSED: Final = (
    "it refused the user or the password, or that there was none; the operator has to see to them",
    OPERATORS_SECONDS,
)
_LOST: Final = "it cannot be reached, or the connection broke; it may be starting anew", SOON_SECONDS
_OTHER: Final = "it answered with an error, which is in the log", OPERATORS_SECONDS


def unanswered(seconds: float) -> tuple[str, float]:
    """What it means that no answer came in that time."""
    return f"it did not answer within {seconds:g} seconds", SOON_SECONDS


def busy(seconds: float) -> tuple[str, float]:
    """What it means that a call was not begun in that time."""
    return (
        f"calls before it took all of {seconds:g} seconds; more connections may help, or more servers",
        SOON_SECONDS,
    )


def meaning(message: str, *, lost: bool) -> tuple[str, float]:
    """What an error means, and after how many seconds it may go better. `lost`: there was no answer."""
    known = next((known for words, known in _ANSWERS.items() if words in message), None)
    return known or (_LOST if lost else _OTHER)


def unavailable(what: str, seconds: float, *, unknown: bool) -> StoreUnavailable:
    """The error for a call that failed. `unknown`: it may have been done, as a whole."""
    done = "it may have been done, as a whole" if unknown else "nothing was changed"
    return StoreUnavailable(
        f"the Redis server that keeps sessions did not do what it was asked, {done}: {what}",
        retry_after=seconds,
        maybe_done=unknown,
    )


def shown(url: str) -> str:
    """The URL without what is secret in it."""
    scheme, found, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}" if found else "this URL"


def flaws(info: Mapping[str, object]) -> Iterator[str]:
    """Why a server cannot be used. `info`: what its command INFO says."""
    version = str(info.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < OLDEST:
        yield f"it is Redis {version}, and {'.'.join(map(str, OLDEST))} is the oldest that will do"
    if info.get("cluster_enabled"):
        yield "it is part of a cluster, whose servers each know a part of the keys; name a server that has all"
    if info.get("role") == "slave":
        yield "it is a replica, which takes no writes; name the server that it copies"


def dangers(info: Mapping[str, object], config: Mapping[str, str]) -> Iterator[str]:
    """What a server's settings may lose. `config`: what it says of its settings, nothing where it may not be asked."""
    appends = config.get("appendonly", "yes" if info.get("aof_enabled") else "no") == "yes"
    if not appends:
        yield (
            "it writes nothing to its disk as it goes (appendonly no), so that sessions are lost when it ends; "
            "set appendonly yes, and appendfsync everysec or always"
        )
    elif config.get("appendfsync") == "no":
        yield (
            "it leaves to the system when to write to the disk (appendfsync no), so that half a minute is lost "
            "when the machine fails; set appendfsync everysec, which loses a second or two, or always"
        )
    policy = config.get("maxmemory-policy", str(info.get("maxmemory_policy", "noeviction")))
    if policy != "noeviction":
        yield (
            f"it throws keys away when it is full (maxmemory-policy {policy}), sessions among them; "
            "set maxmemory-policy noeviction"
        )
