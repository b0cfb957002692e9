"""The warm pool with real boxes: paused until a session takes one, which then works at once."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from greenroom.sandbox.leases import LeaseKey
from greenroom.sandbox.settings import EgressRules, SandboxSettings
from greenroom.sandbox.sqlite_leases import SqliteLeases
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


async def test_a_warm_box_is_what_a_session_gets_and_is_made_up_for(backend: SandboxSettings) -> None:
    leases = SqliteLeases()
    await leases.start()
    async with site() as pages:
        address = pages.url.removeprefix("http://")
        settings = structs.replace(backend, egress=EgressRules(private=(address,)), warm=1)
        keeper = await started_keeper(settings)
        try:
            for name in ("first", "second"):
                await until(lambda: keeper.statistics().warm == 1, START_SECONDS)
                (warm,) = [lease.id for lease in await leases.all() if lease.key is None]
                key = LeaseKey("u", name, "browser")
                page = await keeper.call(key, "browser_navigate", {"url": pages("/")})
                assert "Welcome" in page.text
                lease = keeper.lease_of(key)
                assert lease is not None
                assert lease.id == warm
        finally:
            await keeper.stop()
    assert not await leases.all()
    await leases.stop()
