"""The docker backend around its boxes: what it refuses and why, other links, other users, boxes that do not start."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from aiohttp import web

from greenroom.actors.errors import ConfigurationError, SandboxUnavailable
from greenroom.sandbox.backend import BOX_SECONDS, EGRESS_SOCKET, MIB, BoxLimits, BoxSpec
from greenroom.sandbox.client import BoxClient
from greenroom.sandbox.docker.backend import DockerBackend
from greenroom.sandbox.docker.config import ContainerPlan, container_config, published_port
from greenroom.sandbox.docker.engine import Engine, engine_url, usual_sockets
from greenroom.sandbox.docker.link import advice
from greenroom.sandbox.settings import OFFICIAL_IMAGE, OUR_IMAGE, SandboxSettings
from greenroom.sandbox.trust import spki_hashes
from kits.engine import OwnEngine
from kits.other_user import TESTS, USER, as_other_user, environment

LIMITS = BoxLimits()


@pytest.fixture
def folder() -> Iterator[Path]:
    """With a short path, and passed through by boxes' users."""
    path = Path(tempfile.mkdtemp(prefix="gr-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


def spec(folder: Path, limits: BoxLimits = LIMITS) -> BoxSpec:
    lease = secrets.token_hex(16)
    directory = folder / lease
    directory.mkdir(mode=0o700)
    return BoxSpec(
        lease=lease,
        owner="parts",
        kind="base",
        token=secrets.token_hex(16),
        directory=directory,
        limits=limits,
    )


# ------------------------------------------------------------------------------------------------- what it refuses


async def test_without_an_engine_it_says_where_it_looked_and_what_to_do(folder: Path) -> None:
    environ = {"XDG_RUNTIME_DIR": str(folder)}
    assert f"{folder}/podman/podman.sock" in map(str, usual_sockets(environ))
    if not any(path.exists() for path in usual_sockets(environ)):
        with pytest.raises(
            SandboxUnavailable, match=r"podman\.sock.*apt-get install docker\.io.*DOCKER_HOST"
        ):
            await engine_url(None, environ)
    assert await engine_url(None, {"DOCKER_HOST": "unix:///x"}) == "unix:///x"
    assert await engine_url("unix:///y", {"DOCKER_HOST": "unix:///x"}) == "unix:///y"


@pytest.mark.parametrize("listens", [False, True])
async def test_an_engine_that_does_not_answer_is_named(folder: Path, listens: bool) -> None:
    path = folder / "engine.sock"

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_unix_server(hang_up, path) if listens else None
    backend = DockerBackend(SandboxSettings(docker_host=f"unix://{path}"))
    with pytest.raises(SandboxUnavailable, match=rf"{path} does not answer.*is it running"):
        await backend.start()
    await backend.stop()
    if server is not None:
        server.close()


async def test_an_engine_elsewhere_is_refused() -> None:
    backend = DockerBackend(SandboxSettings(docker_host="tcp://engine.test:2375"))
    with pytest.raises(SandboxUnavailable, match="another machine"):
        await backend.start()


async def test_what_is_not_started_makes_no_box(folder: Path) -> None:
    backend = DockerBackend(SandboxSettings())
    with pytest.raises(SandboxUnavailable, match="not started"):
        await backend.create(spec(folder))
    with pytest.raises(SandboxUnavailable, match="not started"):
        await backend.boxes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("image", "todo"),
    [("greenroom/none:here", "docker pull greenroom/none:here"), (OUR_IMAGE, "sandbox build")],
)
async def test_an_image_that_is_not_there_is_named(docker_engine: OwnEngine, image: str, todo: str) -> None:
    backend = DockerBackend(SandboxSettings(docker_host=docker_engine.url, image=image))
    with pytest.raises(SandboxUnavailable, match=todo):
        await backend.start()


@pytest.mark.slow
async def test_an_image_for_another_version_is_refused(docker_engine: OwnEngine) -> None:
    async with opened(docker_engine) as engine:
        repository, _, tag = OUR_IMAGE.partition(":")
        config = {"Labels": {"greenroom.inputs": "of-another-version"}}
        made = await engine.json(
            "POST", "containers/create", {"Image": docker_engine.image, "HostConfig": {"NetworkMode": "none"}}
        )
        try:
            params = {"container": made["Id"], "repo": repository, "tag": tag}
            await engine.json("POST", "commit", config, params=params)
            backend = DockerBackend(SandboxSettings(docker_host=docker_engine.url))
            with pytest.raises(SandboxUnavailable, match=r"another version.*greenroom sandbox build"):
                await backend.start()
        finally:
            await engine.json("DELETE", f"containers/{made['Id']}")
            await engine.json("DELETE", f"images/{OUR_IMAGE}")


@pytest.mark.slow
async def test_a_box_that_does_not_start_says_why_and_is_gone(docker_engine: OwnEngine, folder: Path) -> None:
    backend = DockerBackend(SandboxSettings(docker_host=docker_engine.url, image=docker_engine.image))
    await backend.start()
    try:
        tiny = spec(folder, BoxLimits(pids=1))  # too few for the server to be started
        with pytest.raises(SandboxUnavailable, match="ended while it started"):
            await backend.create(tiny)
        assert tiny.lease not in {box.lease for box in await backend.boxes()}
    finally:
        await backend.stop()


# ------------------------------------------------------------------------------------------------------ other links


@pytest.mark.slow
async def test_a_box_can_be_reached_at_a_port_of_this_host_only(
    docker_engine: OwnEngine, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(docker_engine) as engine, network(engine) as name:
        settings = SandboxSettings(docker_host=docker_engine.url, image=docker_engine.image, link="port")
        backend = DockerBackend(settings, network=name)
        await backend.start()
        assert "the egress rules do not hold for them" in caplog.text
        box = spec(folder)
        (
            box.directory / EGRESS_SOCKET
        ).touch()  # the keeper's filter, which such a box must not take for its way out
        try:
            address = await backend.create(box)
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+/fastapi", address.url)
            client = BoxClient(address)
            await client.ready(BOX_SECONDS)
            said = await client.call(
                "run_shell_command", {"command": "id -u; ls /box; env | grep -i proxy; echo > /box/x"}, 20.0
            )
            assert said.part("stdout").split() == ["10001"]
            assert said.is_error
            seen = await client.call(
                "run_shell_command", {"command": "cat /proc/*/environ | tr '\\0' '\\n'"}, 20.0
            )
            assert box.token not in seen.text
            await client.close()
            shown = await engine.json("GET", f"containers/greenroom-{box.lease}/json")
            bindings = [one for ports in shown["NetworkSettings"]["Ports"].values() for one in ports or ()]
            assert {one["HostIp"] for one in bindings} == {"127.0.0.1"}
        finally:
            await backend.remove(box.lease)
            await backend.stop()


async def test_an_engine_in_a_virtual_machine_is_known_and_the_way_to_use_it_is_named(folder: Path) -> None:
    async with engine_in_a_vm(folder / "engine.sock") as url:
        for link, named in [("socket", "GREENROOM_SANDBOX_LINK=port"), ("port", "GREENROOM_RUN")]:
            settings = msgspec.convert({"docker_host": url, "image": "ours", "link": link}, SandboxSettings)
            backend = DockerBackend(settings)
            await backend.start()
            with pytest.raises(
                SandboxUnavailable, match=rf"its kernel is 6\.6\.6-linuxkit.*{named}"
            ) as raised:
                await backend.create(spec(folder))
            assert ("without the egress filter" in str(raised.value)) == (link == "socket")
            await backend.stop()


@asynccontextmanager
async def engine_in_a_vm(path: Path) -> AsyncIterator[str]:
    """What an engine with another kernel says whose boxes end at once, as they find nothing of what is shared."""
    answers: dict[str, Any] = {
        "version": {"ApiVersion": "1.41", "Version": "27.0", "Arch": "amd64"},
        "info": {"KernelVersion": "6.6.6-linuxkit"},
        "images/ours/json": {"Config": {"Labels": {"greenroom.inputs": "something"}}},
        "containers/json": [],
    }
    state = {"State": {"Running": False, "ExitCode": 1}, "NetworkSettings": {}}

    async def answer(request: web.Request) -> web.Response:
        asked = re.sub(r"^/(v[0-9.]+/)?", "", request.path)
        if request.method == "DELETE":
            return web.json_response({"message": "it is gone"}, status=404)
        if asked.endswith("/logs"):
            return web.Response(text="there is no token")
        return web.json_response(answers.get(asked, state))

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.UnixSite(runner, str(path)).start()
    try:
        yield f"unix://{path}"
    finally:
        await runner.cleanup()


def test_what_a_port_lacks_is_asked_for_only_where_it_helps() -> None:
    assert advice("6.1.0", "6.1.0", port=False) == ""
    assert advice("", "6.1.0", port=False) == ""


def test_the_official_image_gets_what_it_needs_and_no_more(folder: Path) -> None:
    box = spec(folder, BoxLimits(memory=700 * MIB, pids=300))
    made = container_config(box, ContainerPlan(image=OFFICIAL_IMAGE, seccomp="", official=True, port=True))
    assert f"SECRET_TOKEN={box.token}" in made["Env"]
    assert "WORKSPACE_DIR=/workspace" in made["Env"]
    # Its front server outwaits all calls: what it ends is taken for a box that is gone.
    (timeout,) = [one for one in made["Env"] if one.startswith("NGINX_TIMEOUT=")]
    assert int(timeout.partition("=")[2]) > 3600
    assert made["ExposedPorts"] == {"80/tcp": {}}
    assert "User" not in made
    host: dict[str, Any] = made["HostConfig"]
    assert host["PortBindings"] == {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (700 * MIB, 700 * MIB, 300)
    assert "Binds" not in host
    assert host["ShmSize"] >= 256 * MIB
    assert published_port({"NetworkSettings": {"Ports": {"80/tcp": [{"HostPort": "4711"}]}}}) == 4711
    assert published_port({"NetworkSettings": {"Ports": {"80/tcp": None}}}) is None


# ------------------------------------------------------------------------------------------------------ other users


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
async def test_an_ordinary_user_of_the_engine_has_the_same_boxes(
    docker_engine: OwnEngine, folder: Path
) -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("needs bubblewrap: apt-get install bubblewrap")
    engine_socket = Path(docker_engine.url.removeprefix("unix://"))
    group = engine_socket.stat().st_gid
    os.chown(engine_socket, -1, USER)  # as being in the group `docker` would do
    home = folder / "home"
    tests = str(TESTS / "sandbox" / "docker" / "test_docker.py")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", tests, "-k", "TestDocker"]
    try:
        process = await asyncio.create_subprocess_exec(
            *as_other_user(command),
            env={
                **environment(home),
                "GREENROOM_TEST_DOCKER": docker_engine.url,
                "GREENROOM_TEST_IMAGE": docker_engine.image,
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said = (await process.communicate())[0].decode()
    finally:
        os.chown(engine_socket, -1, group)
    assert process.returncode == 0, said
    assert int(re.findall(r"(\d+) passed", said)[-1]) >= 20, said


# ------------------------------------------------------------------------------------------------------ certificates


@pytest.mark.parametrize("key", ["rsa:2048", "ec"])
def test_certificates_are_known_by_their_public_keys(tmp_path: Path, key: str) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl: apt-get install openssl")
    kind = ["-newkey", key] if key != "ec" else ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    pem = tmp_path / "authority.pem"
    subject = ["-subj", "/CN=authority", "-keyout", str(tmp_path / "key"), "-out", str(pem)]
    openssl("req", "-x509", *kind, "-nodes", *subject)
    der = openssl(
        "pkey", "-pubin", "-outform", "DER", data=openssl("x509", "-in", str(pem), "-noout", "-pubkey")
    )
    expected = base64.b64encode(hashlib.sha256(der).digest()).decode()
    pem.write_text(f"{pem.read_text()}\n{pem.read_text()}")
    assert spki_hashes(pem) == [expected, expected]


@pytest.mark.parametrize("text", ["", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate_is_refused(tmp_path: Path, text: str) -> None:
    pem = tmp_path / "authority.pem"
    pem.write_text(text)
    with pytest.raises(ConfigurationError, match=r"authority\.pem"):
        spki_hashes(pem)


def openssl(*arguments: str, data: bytes | None = None) -> bytes:
    return subprocess.run(["openssl", *arguments], input=data, capture_output=True, check=True).stdout


@asynccontextmanager
async def opened(own: OwnEngine) -> AsyncIterator[Engine]:
    """The engine itself."""
    engine = Engine(own.url)
    await engine.open()
    try:
        yield engine
    finally:
        await engine.close()


@asynccontextmanager
async def network(engine: Engine) -> AsyncIterator[str]:
    """A network of the engine's with a bridge on this host: it has none by itself."""
    name = f"greenroom-{secrets.token_hex(4)}"
    await engine.json("POST", "networks/create", {"Name": name, "Driver": "bridge", "CheckDuplicate": True})
    try:
        yield name
    finally:
        with anyio.CancelScope(shield=True):
            await engine.json("DELETE", f"networks/{name}")
