"""docs/sandbox.md names what there is, by its names."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

from greenroom.sandbox import BrowserSandbox, EgressRules, SandboxSettings
from greenroom.sandbox.environ import PREFIX
from greenroom.sandbox.image.tool_schemas import TOOLS

PAGE = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", TOOLS)
def test_every_tool_with_its_arguments(name: str) -> None:
    arguments = list(inspect.signature(getattr(BrowserSandbox, name)).parameters)[1:]
    assert f"`{name}({', '.join(arguments)})`" in PAGE


@pytest.mark.parametrize("name", SandboxSettings.__struct_fields__)
def test_every_setting(name: str) -> None:
    assert f"| `{name}` |" in PAGE or name == "egress"


@pytest.mark.parametrize("name", EgressRules.__struct_fields__)
def test_every_rule(name: str) -> None:
    assert f"`egress.{name}`" in PAGE


def test_every_default() -> None:
    settings = SandboxSettings()
    for name in ("boxes", "wait_seconds", "warm", "idle_seconds", "call_seconds"):
        row = re.search(rf"^\| `{name}` \| [^|]*\| (\d+) \|", PAGE, re.MULTILINE)
        assert row, name
        assert float(row[1]) == getattr(settings, name)


def test_every_variable() -> None:
    from greenroom.sandbox import environ

    for suffix in (*environ._SETTINGS, *environ._RULES):
        assert f"{PREFIX}{suffix}" in PAGE or f"`…{suffix}`" in PAGE, suffix


def test_its_code_is_python() -> None:
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE):
        compile(block, "docs/sandbox.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
