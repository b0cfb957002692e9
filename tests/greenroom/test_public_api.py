"""What `import greenroom` gives, and what it costs."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import greenroom
from kits.agentscope_line import installed_line

ONLY_ON = {"AgentScopeSessionHistoryMemory": 1, "AgentScopeSessionHistoryMiddleware": 2}
HEAVY = ("agentscope", "aiodocker", "aiohttp", "click", "openai", "pydantic", "rich", "xllamacpp")


@pytest.mark.parametrize("name", greenroom.__all__)
def test_every_public_name_is_there(name: str) -> None:
    if name in ONLY_ON and installed_line() != ONLY_ON[name]:
        with pytest.raises(ImportError):
            getattr(greenroom, name)
    else:
        assert getattr(greenroom, name) is not None


def test_types_table_and_list_name_the_same() -> None:
    assert greenroom.__file__ is not None
    tree = ast.parse(Path(greenroom.__file__).read_text())
    typed = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    table = importlib.import_module("greenroom")._MODULE_OF
    assert table == typed
    assert sorted(greenroom.__all__) == sorted([*table, "__version__"])


def test_what_is_not_there_is_said() -> None:
    with pytest.raises(AttributeError, match="nothing_like_that"):
        _ = greenroom.nothing_like_that


def test_importing_greenroom_loads_nothing_heavy() -> None:
    code = f"import greenroom, sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_application_loads_no_framework_and_no_server() -> None:
    code = (
        "import sys; from greenroom import AgentApp; AgentApp().query()(lambda msgs: 'hi');"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
