"""Where the tutorial is looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from kits import tutorial
from kits.tutorial import the_tutorial

PAGE = """# A tutorial

### 步骤 1: say it

```{code-cell}
print("one")
```

### 步骤 2: say more

```{code-cell}
from agentscope.model import DashScopeChatModel
```
"""


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """It is not beside the checkout, and no folder is named. Gives one to name."""
    monkeypatch.delenv("GREENROOM_TUTORIAL", raising=False)
    monkeypatch.setattr(tutorial, "BESIDE", tmp_path / "beside")
    return tmp_path


def test_it_is_in_the_folder_that_is_named(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (nowhere / "page.txt").write_text(PAGE, encoding="utf-8")
    monkeypatch.setenv("GREENROOM_TUTORIAL", str(nowhere))
    assert the_tutorial().cells(1) == ['print("one")\n']
    assert "from scripted_dashscope import" in the_tutorial().code(1, 2)


def test_else_it_is_beside_the_checkout(nowhere: Path) -> None:
    (nowhere / "beside").mkdir()
    (nowhere / "beside" / "page.txt").write_text(PAGE, encoding="utf-8")
    assert the_tutorial().cells(1) == ['print("one")\n']


def test_where_there_is_none_tests_are_skipped_and_say_how_to_name_it(nowhere: Path) -> None:
    with pytest.raises(pytest.skip.Exception, match="GREENROOM_TUTORIAL"):
        the_tutorial()


def test_a_folder_that_is_named_and_has_none_is_a_failure(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GREENROOM_TUTORIAL", str(nowhere))
    with pytest.raises(pytest.fail.Exception, match="no page"):
        the_tutorial()
