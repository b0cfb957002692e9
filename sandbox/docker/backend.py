"""The backend of container engines: Docker, and Podman's socket, which speaks the same API.

Our image's boxes have no network at all: their tool server listens at a socket in the box's directory, and the egress
filter at another. Where an engine cannot share sockets (Docker Desktop), a published port takes the place of the first
one, if the settings say so (`link`); such boxes have the engine's network, and the filter does not stand before it.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import anyio
import msgspec
from anyio import to_thread

from greenroom.actors.errors import SandboxLost, SandboxUnavailable
from greenroom.sandbox.backend import API_SOCKET, BOX_SECONDS, BoxAddress, BoxSpec, FoundBox
from greenroom.sandbox.building.build import image_digest
from greenroom.sandbox.building.context import image_folder, inputs_digest, tail
from greenroom.sandbox.docker.config import (
    LEASE_LABEL,
    OWNER_LABEL,
    PODMANS_OWN,
    ContainerPlan,
    container_config,
    container_name,
    most_processes,
    published_port,
    seccomp_option,
)
from greenroom.sandbox.docker.engine import Engine, EngineError, engine_url
from greenroom.sandbox.docker.folder import close_folder, has_token, is_listening, open_folder
from greenroom.sandbox.docker.link import advice, shared_folder
from greenroom.sandbox.docker.official import wait_for_application
from greenroom.sandbox.settings import OUR_IMAGE, SandboxSettings

logger = logging.getLogger(__name__)

POLL_SECONDS: Final = 0.01
LOOKS: Final = 50
"""At a box's folder, before the engine is asked whether the box, which does not listen yet, still runs."""

REMOVE_SECONDS: Final = 60.0

GONE: Final = frozenset({"die", "died", "destroy", "remove"})
"""Events of containers, in Docker's words and Podman's, after which a box is no more."""


class DockerBackend:
    """Boxes that are containers. `network`: the engine's, for those that are reached at a port."""

    name = "docker"

    def __init__(self, settings: SandboxSettings, *, network: str = "bridge") -> None:
        self._settings = settings
        self._network = network
        self._engine: Engine | None = None
        self._plan: ContainerPlan | None = None

    def __repr__(self) -> str:
        return f"<DockerBackend with {self._settings.image} at {self._engine or 'no engine yet'}>"

    @property
    def where(self) -> str:
        """The engine's address."""
        return f"docker {self._engine.url if self._engine else self._settings.docker_host}"

    # ------------------------------------------------------------------------------------------------------ life

    async def start(self) -> None:
        """Find the engine, and look whether it has the image. Doing it twice is fine.

        Raises `SandboxUnavailable`, which says what is missing and what to do.
        """
        if self._plan is not None:
            return
        engine = await self.attach()
        try:
            self._plan = plan = await self._plan_for(engine)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self.stop()
            raise
        if plan.port:
            logger.warning(
                "boxes of %s have the engine's network: the egress rules do not hold for them%s",
                plan.image,
                ", and they run as root" if plan.official else "",
            )

    async def attach(self) -> Engine:
        """Find the engine, which is enough to look at boxes and to remove them; `start` is for making some.

        Raises `SandboxUnavailable` when there is none that can be used.
        """
        if self._engine is None:
            engine = Engine(await engine_url(self._settings.docker_host))
            _refuse_what_cannot_be(engine)
            await engine.open()
            self._engine = engine
        return self._engine

    async def stop(self) -> None:
        """Let go of the engine; its boxes stay. Doing it twice is fine."""
        engine, self._engine, self._plan = self._engine, None, None
        if engine is not None:
            await engine.close()

    # ----------------------------------------------------------------------------------------------------- boxes

    async def create(self, spec: BoxSpec) -> BoxAddress:
        """Start a container, and wait until its tool server listens. Raises `SandboxUnavailable`."""
        engine, plan = self._attached(), self._plan
        if plan is None:
            raise SandboxUnavailable("the docker backend is not started; call start() first")
        try:
            if not plan.official:
                await to_thread.run_sync(_open, spec, plan)
            # Not to be cancelled half way: the engine would go on making what nobody waits for.
            with anyio.CancelScope(shield=True):
                params = {"name": container_name(spec.lease)}
                body = container_config(spec, plan)
                await engine.json("POST", "containers/create", body, params=params)
            await anyio.lowlevel.checkpoint()
            await engine.json("POST", f"containers/{container_name(spec.lease)}/start")
            return await self._address(engine, plan, spec)
        except BaseException as error:
            await self._undo(spec.lease)
            if isinstance(error, EngineError):
                raise SandboxUnavailable(
                    f"the engine at {engine.url} started no sandbox: {error}; "
                    f"`greenroom sandbox doctor` looks at what boxes need{await self._advice(engine)}"
                ) from error
            raise

    async def adopt(self, spec: BoxSpec) -> BoxAddress:
        """The way to a container that another process started. Raises `SandboxLost` when it does not run."""
        engine, plan = self._attached(), self._plan
        path = f"containers/{container_name(spec.lease)}"
        try:
            shown = await engine.json("GET", f"{path}/json")
            if shown["State"].get("Paused"):
                await engine.json("POST", f"{path}/unpause")
        except EngineError as error:
            raise SandboxLost(f"its container is gone: {error}") from error
        if not shown["State"]["Running"]:
            raise SandboxLost("its container has ended")
        if plan is None or not plan.port:
            return BoxAddress(token=spec.token, socket=spec.directory / API_SOCKET)
        return self._published(spec, shown)

    async def let_go(self, lease: str) -> None:
        """Nothing: what leads to a container is in its directory."""

    async def remove(self, lease: str) -> None:
        """Kill the container and remove it. One that is gone, or that somebody else removes just now, is fine."""
        engine = self._attached()
        path = f"containers/{container_name(lease)}"
        with anyio.move_on_after(REMOVE_SECONDS):
            while True:
                try:
                    await engine.json("DELETE", path, params={"force": "true", "v": "true"})
                except EngineError as error:
                    if error.status == 404:
                        return
                    if error.status not in {409, 500}:
                        raise SandboxUnavailable(
                            f"the engine at {engine.url} does not remove a sandbox: {error}"
                        ) from error
                    await anyio.sleep(POLL_SECONDS)  # it is being removed, or was about to start: look again
        raise SandboxUnavailable(
            f"the engine at {engine.url} does not get rid of the sandbox {lease[:8]}; is it stuck?"
        )

    async def boxes(self) -> Sequence[FoundBox]:
        """All containers of this engine that carry a lease, whoever made them."""
        engine = self._attached()
        params = {"all": "true", "filters": _filters(label=[LEASE_LABEL])}
        listed = await engine.json("GET", "containers/json", params=params)
        return [
            FoundBox(
                one["Labels"][LEASE_LABEL],
                one["Labels"].get(OWNER_LABEL, ""),
                str(one.get("State", "")).lower() in {"running", "paused", "restarting"},
            )
            for one in listed
        ]

    async def endings(self) -> AsyncIterator[str]:
        """The leases of containers that end or are removed, from now on, one as often as the engine tells of it."""
        engine = self._attached()
        # Podman finds containers by a label with its value only, so there the label is looked for here.
        podman = (await engine.open()).podman
        filters = (
            _filters(type=["container"]) if podman else _filters(type=["container"], label=[LEASE_LABEL])
        )
        params = {"filters": filters, "stream": "true"}
        async for event in engine.stream("events", method="GET", params=params):
            lease = ((event.get("Actor") or {}).get("Attributes") or {}).get(LEASE_LABEL)
            if lease and event.get("Action", event.get("status")) in GONE:
                yield str(lease)

    async def pause(self, lease: str) -> None:
        """Freeze its processes. Raises `SandboxLost` when it is gone."""
        await self._change(lease, "pause")

    async def resume(self, lease: str) -> None:
        """Let its processes run on. Raises `SandboxLost` when it is gone."""
        await self._change(lease, "unpause")

    # ------------------------------------------------------------------------------------------------------ parts

    def _attached(self) -> Engine:
        if self._engine is None:
            raise SandboxUnavailable("the docker backend is not started; call start() first")
        return self._engine

    async def _undo(self, lease: str) -> None:
        """Remove what `create` began. Where the engine does not even do that, who has the lease does it later."""
        with anyio.CancelScope(shield=True):
            try:
                await self.remove(lease)
            except SandboxUnavailable as error:
                logger.warning(
                    "a sandbox that was not finished is left over for now, %s: %s", lease[:8], error
                )

    async def _plan_for(self, engine: Engine) -> ContainerPlan:
        podman = (await engine.open()).podman
        name, digest = await self._image(engine)
        profile = image_folder() / "seccomp.json"
        return ContainerPlan(
            image=name,
            seccomp=await to_thread.run_sync(lambda: seccomp_option(profile, podman=podman)),
            official=not digest,
            port=self._settings.link == "port" or not digest,
            network=self._network,
            trust=await self._trust(),
            processes=most_processes() if podman else None,
            closed=PODMANS_OWN if podman else (),
        )

    async def _image(self, engine: Engine) -> tuple[str, str]:
        """The image's name, as this engine knows it, and what it was built from: nothing, when it is not ours."""
        named = self._settings.image
        found = await engine.find_image(named)
        if found is None:
            how = (
                "build it: greenroom sandbox build" if named == OUR_IMAGE else f"pull it: docker pull {named}"
            )
            raise SandboxUnavailable(f"the engine at {engine.url} has no image {named}; {how}")
        name, shown = found
        digest = image_digest(shown)
        if named == OUR_IMAGE and digest != await to_thread.run_sync(inputs_digest):
            raise SandboxUnavailable(
                f"the image {named} was built for another version of Greenroom, whose tool server may differ; "
                "build it again: greenroom sandbox build"
            )
        return name, digest

    async def _trust(self) -> str:
        if self._settings.trusted_certificates is None:
            return ""
        from greenroom.sandbox.trust import spki_hashes

        return ",".join(await to_thread.run_sync(spki_hashes, self._settings.trusted_certificates))

    async def _address(self, engine: Engine, plan: ContainerPlan, spec: BoxSpec) -> BoxAddress:
        if plan.official:
            await wait_for_application(engine, container_name(spec.lease))
        else:
            await self._up(engine, plan, spec)
            await to_thread.run_sync(close_folder, shared_folder(spec.directory, port=plan.port))
        if not plan.port:
            return BoxAddress(token=spec.token, socket=spec.directory / API_SOCKET)
        shown = await engine.json("GET", f"containers/{container_name(spec.lease)}/json")
        if published_port(shown) is None:
            raise await self._ended(engine, spec.lease, shown)
        return self._published(spec, shown)

    def _published(self, spec: BoxSpec, shown: Mapping[str, Any]) -> BoxAddress:
        port = published_port(shown)
        if port is None:
            raise SandboxLost("its container publishes no port")
        return BoxAddress(token=spec.token, url=f"http://127.0.0.1:{port}/fastapi")

    async def _up(self, engine: Engine, plan: ContainerPlan, spec: BoxSpec) -> None:
        """Wait until the tool server has done with the directory: a file's change there can only be looked for."""
        is_up = has_token if plan.port else is_listening
        folder = shared_folder(spec.directory, port=plan.port)
        path = f"containers/{container_name(spec.lease)}/json"
        with anyio.move_on_after(BOX_SECONDS):
            for look in itertools.count(1):
                if await to_thread.run_sync(is_up, folder):
                    return
                if look % LOOKS == 0 and not (shown := await engine.json("GET", path))["State"]["Running"]:
                    raise await self._ended(engine, spec.lease, shown)
                await anyio.sleep(POLL_SECONDS)
        raise SandboxUnavailable(
            f"a sandbox's tool server did not start within {BOX_SECONDS:g} s; is the host overloaded?"
            f"{await self._advice(engine)}"
        )

    async def _ended(self, engine: Engine, lease: str, shown: Mapping[str, Any]) -> SandboxUnavailable:
        said = await engine.text(
            f"containers/{container_name(lease)}/logs", {"stdout": "1", "stderr": "1", "tail": "20"}
        )
        state = shown["State"]
        why = "it ran out of memory" if state.get("OOMKilled") else f"exit code {state.get('ExitCode')}"
        return SandboxUnavailable(
            f"a sandbox ended while it started ({why}){await self._advice(engine)}. Its last words:\n{tail(said)}"
        )

    async def _advice(self, engine: Engine) -> str:
        facts = await engine.open()
        port = self._plan is not None and self._plan.port
        return advice(facts.kernel, os.uname().release, port=port)

    async def _change(self, lease: str, action: str) -> None:
        engine = self._attached()
        try:
            await engine.json("POST", f"containers/{container_name(lease)}/{action}")
        except EngineError as error:
            if error.status in {404, 409, 500}:
                raise SandboxLost(f"the sandbox is gone, it cannot be {action}d: {error}") from error
            raise SandboxUnavailable(
                f"the engine at {engine.url} refuses to {action} a sandbox: {error}"
            ) from error


def _open(spec: BoxSpec, plan: ContainerPlan) -> None:
    folder = shared_folder(spec.directory, port=plan.port)
    folder.mkdir(mode=0o700, exist_ok=True)
    open_folder(folder, spec.token)


def _refuse_what_cannot_be(engine: Engine) -> None:
    if urlsplit(engine.url).scheme != "unix":
        raise SandboxUnavailable(
            f"the engine at {engine.url} is on another machine, with which no socket can be shared: run Greenroom "
            "there, or run a box there and name its URL as the backend"
        )


def _filters(**wanted: Sequence[str]) -> str:
    return msgspec.json.encode(wanted).decode()
