"""What `import greenroom` gives, and what it costs."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import greenroom
from kits.agentscope_line import installed_line

ONLY_ON = {"AgentScopeSessionHistoryMemory": 1, "AgentScopeSessionHistoryMiddleware": 2}
EXAMPLES = Path(__file__).parents[2] / "examples"
HEAVY = ("agentscope", "aiodocker", "aiohttp", "click", "openai", "pydantic", "rich", "xllamacpp")


@pytest.mark.parametrize("name", greenroom.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(greenroom, name) is not None


@pytest.mark.parametrize(("name", "line"), ONLY_ON.items())
def test_a_name_of_one_line_says_which_extra_brings_it(name: str, line: int) -> None:
    assert name in dir(greenroom)
    if installed_line() == line:
        assert getattr(greenroom, name) is not None
        return
    extra = {1: "greenroom[agentscope1]", 2: "greenroom[agentscope]"}[line]
    with pytest.raises(
        greenroom.MissingDependency, match=re.escape(f"{name} needs {line}.x: `pip install '{extra}'`")
    ):
        getattr(greenroom, name)
    with pytest.raises(ImportError):  # for who goes on without it
        getattr(greenroom, name)


def test_all_of_it_can_be_imported_in_every_environment() -> None:
    names: dict[str, object] = {}
    exec("from greenroom import *", names)
    assert set(greenroom.__all__) <= set(names)


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
    assert sorted(greenroom.__all__) == sorted({*table, "__version__"} - set(ONLY_ON))


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


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_examples_need_public_names_only(example: str) -> None:
    """People copy them, and inner paths change."""
    tree = ast.parse((EXAMPLES / example).read_text())
    found = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    ours = [node for node in found if (node.module or "").partition(".")[0] == "greenroom"]
    assert {node.module for node in ours} == {"greenroom"}
    assert {alias.name for node in ours for alias in node.names} <= {*greenroom.__all__, *ONLY_ON}


def test_examples_keep_their_sessions_apart() -> None:
    """AgentScope 1.x cannot read what agents of 2.x have saved."""
    files = [re.findall(r'"(\w+\.db)"', path.read_text()) for path in EXAMPLES.glob("*.py")]
    assert sorted(files) == [["friday.db"], ["friday_2.db"]]
