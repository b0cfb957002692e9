"""The `format`s of JSON schemas that are checked. Others are for people, and hold for every text."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from datetime import date, time
from urllib.parse import urlsplit

LONGEST = 4_096
"""No text of one of these formats is longer."""

_DURATION = re.compile(
    r"P(?=.)(?:\d{1,9}W|(?:\d{1,9}Y)?(?:\d{1,9}M)?(?:\d{1,9}D)?"
    r"(?:T(?=.)(?:\d{1,9}H)?(?:\d{1,9}M)?(?:\d{1,9}(?:\.\d{1,9})?S)?)?)",
    re.ASCII,
)
_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_TIME = re.compile(r"\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)


def has_format(text: str, name: str) -> bool:
    """Whether the text is of that format. Of one that is not known here every text is."""
    check = _CHECKS.get(name)
    if check is None:
        return True
    try:
        return len(text) <= LONGEST and check(text)
    except ValueError:
        return False


# Each says so of text that has not the form, or raises `ValueError`.


def _date(text: str) -> bool:
    if _DATE.fullmatch(text) is None:
        return False
    date.fromisoformat(text)
    return True


def _time(text: str) -> bool:
    if _TIME.fullmatch(text) is None:
        return False
    time.fromisoformat(text[:8])
    return True


def _date_time(text: str) -> bool:
    return text[10:11] in {"T", "t"} and _date(text[:10]) and _time(text[11:])


def _email(text: str) -> bool:
    name, _, host = text.rpartition("@")
    return bool(name) and " " not in name and _hostname(host)


def _hostname(text: str) -> bool:
    return 0 < len(text) <= 253 and all(_LABEL.fullmatch(label) for label in text.split("."))


def _ipv4(text: str) -> bool:
    ipaddress.IPv4Address(text)
    return True


def _ipv6(text: str) -> bool:
    ipaddress.IPv6Address(text)
    return True


def _uri(text: str) -> bool:
    return bool(urlsplit(text).scheme) and not re.search(r"[\s<>\"{}|\\^`]", text)


_CHECKS: Mapping[str, Callable[[str], bool]] = {
    "date": _date,
    "time": _time,
    "date-time": _date_time,
    "duration": lambda text: _DURATION.fullmatch(text) is not None,
    "email": _email,
    "hostname": _hostname,
    "ipv4": _ipv4,
    "ipv6": _ipv6,
    "uuid": lambda text: _UUID.fullmatch(text) is not None,
    "uri": _uri,
}
