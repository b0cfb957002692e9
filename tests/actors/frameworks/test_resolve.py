"""The names of frameworks."""

import re
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from greenroom.actors.errors import ConfigurationError, MissingDependency
from greenroom.actors.frameworks import resolve
from greenroom.actors.frameworks.plain import PlainAdapter
from greenroom.actors.frameworks.resolve import resolve_framework
from kits.agentscope_line import installed_line

LINE = installed_line()


@pytest.fixture
def agentscope(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pretend that a version of AgentScope is installed, or none."""

    def install(installed: str | None) -> None:
        def version(name: str) -> str:
            assert name == "agentscope"
            if installed is None:
                raise PackageNotFoundError(name)
            return installed

        monkeypatch.setattr(resolve, "version", version)

    return install


@pytest.mark.parametrize("name", ["text", "events"])
def test_without_a_framework(name: str) -> None:
    assert isinstance(resolve_framework(name), PlainAdapter)


def test_each_application_has_its_own_adapter() -> None:
    assert resolve_framework("text") is not resolve_framework("text")


def test_an_adapter_passes_through() -> None:
    adapter = PlainAdapter()
    assert resolve_framework(adapter) is adapter


@pytest.mark.parametrize("unknown", ["langgraph", "AgentScope", "", None, 1, object()])
def test_what_is_not_known_is_refused_with_what_is(unknown: Any) -> None:
    with pytest.raises(
        ConfigurationError, match=r"'agentscope'.*'agentscope1'.*'agentscope2'.*'text'.*'events'"
    ):
        resolve_framework(unknown)


@pytest.mark.agentscope1
def test_the_first_line() -> None:
    assert resolve_framework("agentscope").name == resolve_framework("agentscope1").name == "agentscope1"


@pytest.mark.agentscope2
def test_the_second_line() -> None:
    assert resolve_framework("agentscope").name == resolve_framework("agentscope2").name == "agentscope2"


@pytest.mark.skipif(LINE is None, reason="no AgentScope is installed")
def test_the_other_line_is_not_there() -> None:
    other = {1: "agentscope2", 2: "agentscope1"}[LINE or 1]
    with pytest.raises(
        MissingDependency, match=rf"AgentScope {LINE}\..* is installed.*environment of its own"
    ):
        resolve_framework(other)


@pytest.mark.parametrize(
    ("name", "installed", "install"),
    [
        ("agentscope", None, "not installed.*greenroom\\[agentscope\\].*greenroom\\[agentscope1\\]"),
        ("agentscope1", None, "not installed.*pip install 'greenroom\\[agentscope1\\]'"),
        ("agentscope2", None, "not installed.*pip install 'greenroom\\[agentscope\\]'"),
        ("agentscope1", "2.0.10", "2.0.10 is installed.*greenroom\\[agentscope1\\]"),
        ("agentscope2", "1.0.21", "1.0.21 is installed.*greenroom\\[agentscope\\]"),
        ("agentscope", "3.0", "3.0 is installed.*2.x or 1.x"),
        ("agentscope", "0.1.6", "0.1.6 is installed"),
    ],
)
def test_what_is_missing_is_named(agentscope: Any, name: str, installed: str | None, install: str) -> None:
    agentscope(installed)
    with pytest.raises(MissingDependency, match=install):
        resolve_framework(name)


def test_an_installation_that_does_not_import(agentscope: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    agentscope("1.0.21")
    monkeypatch.setitem(resolve.AGENTSCOPE, 1, ("broken_agentscope", "Adapter", "greenroom[agentscope1]"))
    monkeypatch.setitem(sys.modules, "broken_agentscope", None)
    with pytest.raises(MissingDependency, match=r"cannot be imported.*greenroom\[agentscope1\]"):
        resolve_framework("agentscope")


@pytest.mark.parametrize("shadow", ["agentscope.py", "agentscope/__init__.py", "agentscope/notes.txt"])
def test_what_is_called_like_agentscope_is_named(
    agentscope: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shadow: str
) -> None:
    (tmp_path / shadow).parent.mkdir(exist_ok=True)
    (tmp_path / shadow).touch()
    monkeypatch.delitem(sys.modules, "agentscope", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])  # a folder without __init__.py is found last
    agentscope("2.0.10")
    monkeypatch.setitem(resolve.AGENTSCOPE, 2, ("agentscope.agent", "Agent", "greenroom[agentscope]"))
    monkeypatch.delitem(sys.modules, "agentscope.agent", raising=False)
    taken = str(tmp_path / shadow).removesuffix("/notes.txt")
    with pytest.raises(MissingDependency, match=rf"as {re.escape(taken)} is called like it.*another name"):
        resolve_framework("agentscope")


def test_a_line_is_told_without_importing_it(agentscope: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    light = ModuleType("light_adapter")
    light.Adapter = PlainAdapter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "light_adapter", light)
    monkeypatch.setitem(sys.modules, "agentscope", None)
    monkeypatch.setitem(resolve.AGENTSCOPE, 2, ("light_adapter", "Adapter", "greenroom[agentscope]"))
    agentscope("2.0.10")
    assert isinstance(resolve_framework("agentscope"), PlainAdapter)
