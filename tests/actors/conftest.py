"""The laws of actors hold whatever store there is: these modules run on one in memory and one that is shared."""

from collections.abc import Iterator

import pytest

from kits import system

BOTH = {
    "test_actor",
    "test_branches",
    "test_continuation",
    "test_cut_off",
    "test_interleavings",
    "test_system",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.function.__module__.rpartition(".")[2] in BOTH:
        metafunc.parametrize("_store", ["memory", "shared"], indirect=True, scope="module")


@pytest.fixture(scope="module", autouse=True)
def _store(request: pytest.FixtureRequest) -> Iterator[None]:
    before = system.kind
    system.kind = getattr(request, "param", "memory")
    yield
    system.kind = before
