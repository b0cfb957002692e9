"""How sandboxes are made and bounded, in one place; each setting can come from the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from msgspec import Struct

from greenroom.actors.setting_checks import Count, Seconds, Share, Wait, check_fields
from greenroom.sandbox.backend import BoxLimits

OUR_IMAGE: Final = "greenroom/sandbox-browser:latest"
OFFICIAL_IMAGE: Final = "agentscope/runtime-sandbox-browser:latest"


class EgressRules(Struct, frozen=True, kw_only=True):
    """Where boxes may go. Refused by default: loopback, link-local, private, metadata and other addresses that are not
    public, whatever name leads to them.

    `allow`: if there are any, only these hosts: `example.com`, `*.example.com`, each with `:port` or for all ports.
    `deny`: never these, written likewise. `private`: exceptions to the refusal of private addresses: networks
    (`10.1.0.0/16`), addresses, `address:port`. `hosts`: names that are not looked up but taken from here: `name` to
    `address` or `address:port`; these addresses are fine without `private`. Metadata addresses are refused always.
    """

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    private: tuple[str, ...] = ()
    hosts: Mapping[str, str] = {}

    def __post_init__(self) -> None:
        check_fields(self)


class SandboxSettings(Struct, frozen=True, kw_only=True):
    """What a `BrowserSandbox`, a `SandboxService` or an application's sandboxes are made with. Times are in seconds.

    Raises `ConfigurationError` for what is none of them.
    """

    backend: str = "auto"
    """`auto` (docker, then local), `docker`, `local`, or the URL of a box that runs elsewhere (remote)."""
    token: str | None = None
    """What the remote box wants to be shown."""
    docker_host: str | None = None
    """The engine's socket, `unix:///…`; none: `DOCKER_HOST`, then the usual places of Docker's and Podman's."""
    image: str = OUR_IMAGE
    link: Literal["socket", "port"] = "socket"
    """How a container of our image is reached. `port`: at a port of 127.0.0.1 with its token, for engines that cannot
    share sockets, as in virtual machines. Such boxes have the engine's network: `egress` does not hold for them."""
    browser: str | None = None
    """The browser of the local backend; none: it is looked for."""
    unsafe_local_browser: bool = False
    """Let the local backend run without isolation where there is no other way. Pages then run as this user."""
    limits: BoxLimits = BoxLimits()
    egress: EgressRules = EgressRules()
    trusted_certificates: Path | None = None
    """A PEM file: authorities of your own that boxes' browsers trust besides the public ones."""
    boxes: Share = 10
    """Boxes at a time, the warm ones too."""
    wait_seconds: Wait = 30.0
    """How long a first use waits for a box to become free before it is refused."""
    warm: Count = 0
    """Boxes kept ready and paused for the next session."""
    idle_seconds: Seconds = 600.0
    """A box unused for so long is removed, unless a turn or a call that may use it runs."""
    grace_seconds: Wait = 20.0
    """How long a box whose process died or let it go waits for its session, where processes share their leases."""
    call_seconds: Seconds = 60.0
    """How long a tool may take."""

    def __post_init__(self) -> None:
        check_fields(self)

    def __repr__(self) -> str:
        return f"<SandboxSettings {self.backend!r}, {self.boxes} boxes>"  # the token is for nobody's log

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> SandboxSettings:
        """The settings that the environment gives: `GREENROOM_SANDBOX` (backend), `GREENROOM_SANDBOX_TOKEN`,
        `…_IMAGE`, `…_LINK`, `…_BROWSER`, `…_UNSAFE` (`1`), `…_TRUST` (`trusted_certificates`), `…_ALLOW`, `…_DENY`,
        `…_PRIVATE` (lists, separated by commas), `…_HOSTS` (`name=address,…`), `…_BOXES`, `…_WARM`.

        Raises `ConfigurationError` for what cannot be understood.
        """
        from greenroom.sandbox.environ import settings_of

        return settings_of(environ)
