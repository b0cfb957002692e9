"""Sandbox settings from environment variables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from greenroom.actors.errors import ConfigurationError
from greenroom.sandbox.settings import EgressRules, SandboxSettings

PREFIX: Final = "GREENROOM_SANDBOX"


def settings_of(environ: Mapping[str, str]) -> SandboxSettings:
    """Raises `ConfigurationError` for a value that cannot be understood."""
    return SandboxSettings(**_given(environ, _SETTINGS), egress=EgressRules(**_given(environ, _RULES)))


def _given(
    environ: Mapping[str, str], readers: Mapping[str, tuple[str, Callable[[str], Any]]]
) -> dict[str, Any]:
    given = {}
    for suffix, (field, read) in readers.items():
        value = environ.get(PREFIX + suffix)
        if value:
            try:
                given[field] = read(value)
            except ValueError as error:
                raise ConfigurationError(f"{PREFIX + suffix}={value!r}: {error}") from None
    return given


def _listed(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _hosts(value: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in _listed(value)]
    if not all(name and address for name, _, address in pairs):
        raise ValueError("it is a list like name=10.0.0.1,other=10.0.0.2:8443")
    return {name: address for name, _, address in pairs}


def _link(value: str) -> str:
    if value not in {"socket", "port"}:
        raise ValueError("it is socket or port")
    return value


def _count(value: str) -> int:
    if not value.isdecimal():
        raise ValueError("it is a count, like 10")
    return int(value)


def _switch(value: str) -> bool:
    if value not in {"0", "1"}:
        raise ValueError("it is 0 or 1")
    return value == "1"


_SETTINGS: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    "": ("backend", str),
    "_TOKEN": ("token", str),
    "_IMAGE": ("image", str),
    "_LINK": ("link", _link),
    "_BROWSER": ("browser", str),
    "_UNSAFE": ("unsafe_local_browser", _switch),
    "_TRUST": ("trusted_certificates", Path),
    "_BOXES": ("boxes", _count),
    "_WARM": ("warm", _count),
}
_RULES: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    "_ALLOW": ("allow", _listed),
    "_DENY": ("deny", _listed),
    "_PRIVATE": ("private", _listed),
    "_HOSTS": ("hosts", _hosts),
}
