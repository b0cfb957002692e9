"""Which backend is chosen, and what is said where none can be."""

import logging
from pathlib import Path

import pytest

from greenroom.actors.errors import ConfigurationError, SandboxUnavailable
from greenroom.sandbox.choose import choose_backend, named_backend
from greenroom.sandbox.settings import SandboxSettings
from kits.engine import OwnEngine
from kits.needs import needs_bubblewrap

NO_ENGINE = "unix:///nowhere/docker.sock"


async def test_auto_takes_local_where_there_is_no_engine_and_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    needs_bubblewrap()
    with caplog.at_level(logging.INFO, "greenroom.sandbox.choose"):
        backend = await choose_backend(SandboxSettings(docker_host=NO_ENGINE))
    try:
        assert backend.name == "local"
        (said,) = [record.getMessage() for record in caplog.records if record.name.endswith("choose")]
        assert "LocalBackend, isolated" in said
        assert "not from docker: " in said
        assert "/nowhere/docker.sock" in said
    finally:
        await backend.stop()


@pytest.mark.slow
async def test_auto_takes_docker_where_engine_and_image_are_there(
    docker_engine: OwnEngine, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "greenroom.sandbox.choose"):
        backend = await choose_backend(
            SandboxSettings(docker_host=docker_engine.url, image=docker_engine.image)
        )
    try:
        assert backend.name == "docker"
        (said,) = [record.getMessage() for record in caplog.records if record.name.endswith("choose")]
        assert docker_engine.url in said
    finally:
        await backend.stop()


@pytest.mark.slow
async def test_auto_takes_local_where_only_the_image_is_missing_and_says_so(
    docker_engine: OwnEngine, caplog: pytest.LogCaptureFixture
) -> None:
    needs_bubblewrap()
    with caplog.at_level(logging.INFO, "greenroom.sandbox.choose"):
        backend = await choose_backend(
            SandboxSettings(docker_host=docker_engine.url, image="greenroom/sandbox-browser:none")
        )
    try:
        assert backend.name == "local"
        assert "has no image greenroom/sandbox-browser:none" in caplog.text
    finally:
        await backend.stop()


async def test_where_none_can_be_the_error_says_what_to_do_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path))
    with pytest.raises(SandboxUnavailable) as caught:
        await choose_backend(SandboxSettings(docker_host=NO_ENGINE))
    said = str(caught.value)
    assert "Docker: " in said
    assert "/nowhere/docker.sock" in said
    assert "Local: no browser of Chromium's family was found; install one" in said
    assert "greenroom sandbox doctor" in said


async def test_a_backend_that_is_named_is_not_replaced_by_another() -> None:
    with pytest.raises(SandboxUnavailable, match=r"/nowhere/docker.sock"):
        await choose_backend(SandboxSettings(backend="docker", docker_host=NO_ENGINE))


def test_names_lead_to_backends() -> None:
    assert named_backend("docker", SandboxSettings()).name == "docker"
    assert named_backend("local", SandboxSettings()).name == "local"
    with pytest.raises(ConfigurationError, match="no sandbox backend 'dokcer'"):
        named_backend("dokcer", SandboxSettings())
