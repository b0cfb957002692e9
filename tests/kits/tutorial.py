"""The AgentScope Runtime tutorial's code, taken from the page itself where that is at hand."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

NO_TUTORIAL = "needs the tutorial in ../shared/seed, or in the folder that GREENROOM_TUTORIAL names"

BESIDE = Path(__file__).parents[3] / "shared" / "seed"
CELL = re.compile(r"^```\{code-cell\}\n(.*?)^```$", re.DOTALL | re.MULTILINE)

MODEL = "from agentscope.model import DashScopeChatModel\n"
SCRIPTED = "from scripted_dashscope import DashScopeChatModel\n"
"""tests/e2e/apps/scripted_dashscope.py: the same class, which thinks with the scripted model."""


class Tutorial:
    """Its code cells, by the numbers of its steps."""

    def __init__(self, page: str) -> None:
        steps = re.split(r"^### 步骤 (\d+)", page, flags=re.MULTILINE)
        self._cells = {
            int(number): CELL.findall(text) for number, text in zip(steps[1::2], steps[2::2], strict=True)
        }

    def cells(self, step: int) -> list[str]:
        """The cells of one step."""
        return self._cells[step]

    def code(self, *steps: int) -> str:
        """The code of these steps, as a reader who copies it has it in one file. The model alone is another."""
        code = "\n\n".join(cell for step in steps for cell in self._cells[step])
        return code.replace(MODEL, SCRIPTED)


def the_tutorial() -> Tutorial:
    """Skips the test when it is not at hand; fails it when it is not where GREENROOM_TUTORIAL says that it is."""
    named = os.environ.get("GREENROOM_TUTORIAL")
    folder = Path(named) if named else BESIDE
    pages = sorted(folder.glob("*.txt")) if folder.is_dir() else []
    if not pages and named:
        pytest.fail(f"GREENROOM_TUTORIAL names {named}, where no page (*.txt) is")
    if not pages:
        pytest.skip(NO_TUTORIAL)
    return Tutorial(pages[0].read_text(encoding="utf-8"))
