"""The warm pool with real boxes: paused until a session takes one, and at once on a page then."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from greenroom.sandbox.keeper import Keeper
from greenroom.sandbox.leases import LeaseKey
from greenroom.sandbox.settings import EgressRules, SandboxSettings
from greenroom.sandbox.standalone import started_keeper
from kits.engine import OwnEngine
from kits.needs import needs_bubblewrap
from kits.site import site
from kits.until import until

pytestmark = pytest.mark.slow

START_SECONDS = 90.0
"""Until a warm one is there: the first start of a browser on a machine is slow."""


@pytest.fixture(params=["local", "docker", "podman"])
def backend(request: pytest.FixtureRequest) -> SandboxSettings:
    if request.param == "local":
        needs_bubblewrap()
        return SandboxSettings(backend="local")
    engine: OwnEngine = request.getfixturevalue(f"{request.param}_engine")
    return SandboxSettings(backend="docker", docker_host=engine.url, image=engine.image)


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """State and runtime folders of the test's own, with short paths."""
    with tempfile.TemporaryDirectory(prefix="gr-") as folder:
        Path(folder).chmod(0o711)
        monkeypatch.setenv("GREENROOM_STATE", f"{folder}/s")
        monkeypatch.setenv("GREENROOM_RUN", f"{folder}/r")
        yield


async def test_a_warm_box_is_taken_at_once_and_made_up_for(backend: SandboxSettings) -> None:
    async with site() as pages:
        address = pages.url.removeprefix("http://")
        cold = await opened(backend, address, 0, pages("/"), "cold")
        taken = await opened(backend, address, 1, pages("/"), "first", "second")
    # A new browser takes a second or more, one that only has to be woken some hundredths.
    assert max(taken) < min(cold) / 2, f"{taken} from the warm pool, {cold} cold"


async def opened(backend: SandboxSettings, address: str, warm: int, url: str, *sessions: str) -> list[float]:
    """Seconds until each session, one after another, has the page. Each has a browser of its own."""
    settings = SandboxSettings(
        backend=backend.backend,
        docker_host=backend.docker_host,
        image=backend.image,
        egress=EgressRules(private=(address,)),
        warm=warm,
    )
    keeper = await started_keeper(settings)
    try:
        return [await _opened(keeper, warm, url, LeaseKey("u", name, "browser")) for name in sessions]
    finally:
        await keeper.stop()


async def _opened(keeper: Keeper, warm: int, url: str, key: LeaseKey) -> float:
    await until(lambda: keeper.statistics().warm == warm, START_SECONDS)
    began = time.perf_counter()
    page = await keeper.call(key, "browser_navigate", {"url": url})
    took = time.perf_counter() - began
    assert "Welcome" in page.text
    return took
