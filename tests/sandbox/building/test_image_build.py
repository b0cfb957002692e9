"""What the image is built from, and what is in it."""

from __future__ import annotations

import os
import secrets
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from greenroom.actors.errors import SandboxUnavailable
from greenroom.sandbox.backend import BOX_SECONDS, BoxSpec
from greenroom.sandbox.building.build import INPUTS_LABEL, BuildStep, build_image
from greenroom.sandbox.building.context import (
    fetch_packages,
    image_folder,
    inputs_digest,
    packages_folder,
    write_context,
)
from greenroom.sandbox.client import BoxClient
from greenroom.sandbox.docker.backend import DockerBackend
from greenroom.sandbox.docker.engine import Engine
from greenroom.sandbox.settings import SandboxSettings
from kits.engine import OwnEngine
from kits.small_wheel import index_settings

SAFE_VARIABLES = {"PATH", "HOME", "LANG", "PYTHONUNBUFFERED", "NODE_COMPILE_CACHE", "WORKSPACE_DIR"}


def test_the_context_is_the_tool_server_and_nothing_else_of_ours(tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    (packages / "lib" / "__pycache__").mkdir(parents=True)
    (packages / "lib" / "a.py").write_text("x = 1")
    (packages / "lib" / "__pycache__" / "a.pyc").write_bytes(b"")
    write_context(tmp_path / "context.tar", packages)
    with tarfile.open(tmp_path / "context.tar") as tar:
        members = {member.name: member for member in tar.getmembers()}
    assert {"Dockerfile", "packages/lib/a.py"} <= members.keys()
    assert not any("__pycache__" in name for name in members)
    ours = {name for name in members if name.startswith("code/")}
    assert {name for name in ours if not name.startswith("code/greenroom/sandbox/image/")} == {
        "code/greenroom/__init__.py",
        "code/greenroom/sandbox/__init__.py",
    }
    assert members["code/greenroom/__init__.py"].size == 0
    assert "code/greenroom/sandbox/image/__main__.py" in ours
    assert {(member.uid, member.gid) for member in members.values()} == {(0, 0)}
    assert {member.mode & 0o022 for member in members.values()} == {0}


def test_the_digest_tells_contents_apart(tmp_path: Path) -> None:
    copy = tmp_path / "image"
    shutil.copytree(image_folder(), copy)
    assert inputs_digest(copy) == inputs_digest()
    (copy / "__pycache__").mkdir(exist_ok=True)
    (copy / "__pycache__" / "x.pyc").write_bytes(b"x")
    assert inputs_digest(copy) == inputs_digest()
    (copy / "Dockerfile").write_text((copy / "Dockerfile").read_text() + "\n")
    changed = inputs_digest(copy)
    assert changed != inputs_digest()
    (copy / "more.py").write_text("")
    assert inputs_digest(copy) not in {changed, inputs_digest()}


def test_packages_that_cannot_be_had_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "index").mkdir()
    for name, value in index_settings(tmp_path / "index").items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    environ = {"GREENROOM_CACHE": str(tmp_path / "cache")}
    with pytest.raises(SandboxUnavailable, match=r"cannot be fetched.*exit code.*index"):
        fetch_packages("x86_64", on_line=lambda _: None, environ=environ)
    assert not packages_folder("x86_64", environ).exists()
    assert list((tmp_path / "cache" / "sandbox").iterdir()) == []


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="gr-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.mark.slow
async def test_the_image_holds_what_it_says_and_nothing_of_the_machine_it_was_built_on(
    docker_engine: OwnEngine, folder: Path
) -> None:
    engine = Engine(docker_engine.url)
    await engine.open()
    shown = await engine.image(docker_engine.image)
    history = await engine.json("GET", f"images/{docker_engine.image}/history")
    await engine.close()
    assert shown is not None
    config = shown["Config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"][:2] == ["/usr/bin/tini", "--"]
    assert len(config["Labels"][INPUTS_LABEL]) == 32
    names = {variable.partition("=")[0] for variable in config["Env"]}
    assert {name for name in names if not name.startswith("GREENROOM_BOX")} == SAFE_VARIABLES
    assert not any("proxy" in str(layer).lower() for layer in history)
    assert shown["Size"] < 1_000_000_000

    backend = DockerBackend(SandboxSettings(docker_host=docker_engine.url, image=docker_engine.image))
    await backend.start()
    lease = secrets.token_hex(16)
    (folder / lease).mkdir(mode=0o700)
    spec = BoxSpec(lease=lease, owner="image", kind="base", token="x" * 32, directory=folder / lease)
    try:
        client = BoxClient(await backend.create(spec))
        await client.ready(BOX_SECONDS)
        look = (
            "cd /usr/local/lib/python3.11/dist-packages; find greenroom -name '*.py' -not -path '*/image/*' -size +0; "
            "ls /usr/local/share/ca-certificates; find /usr /opt /etc -writable -not -type l"
        )
        said = await client.call("run_shell_command", {"command": look}, 60.0)
        assert said.part("stdout").strip() == "", said
        await client.close()
    finally:
        with anyio.CancelScope(shield=True):
            await backend.remove(lease)
            await backend.stop()


@pytest.mark.slow
async def test_what_is_there_is_not_built_again(docker_engine: OwnEngine) -> None:
    steps: list[BuildStep] = []
    engine = Engine(docker_engine.url)
    try:
        first = await build_image(engine, name=docker_engine.image)
        again = await build_image(engine, name=docker_engine.image, on_step=steps.append)
    finally:
        await engine.close()
    assert (again.fresh, again.id, steps) == (False, first.id, [])
