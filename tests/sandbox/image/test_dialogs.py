"""Dialogs of pages interrupt a call; answering them resumes it."""

from pathlib import Path

import pytest

from kits.browser_here import browsing, ref_of
from kits.site import site

pytestmark = pytest.mark.slow

ASKING = """<title>Asking</title><p id=out></p>
<button onclick="alert('Look out'); out.textContent = 'alerted'">Alert</button>
<button onclick="out.textContent = 'answer: ' + confirm('Really?')">Confirm</button>
<button onclick="out.textContent = 'name: ' + prompt('Your name?', 'nobody')">Prompt</button>
<button onclick="out.textContent = confirm('One') + ' ' + confirm('Two')">Twice</button>
<button onclick="setTimeout(() => alert('Surprise'), 300)">Later</button>"""


async def test_an_alert_interrupts_a_click_and_its_answer_ends_it(tmp_path: Path) -> None:
    async with site({"/": ASKING}) as served, browsing(tmp_path) as browse:
        page = await browse.good("navigate", url=served("/"))
        asked = await browse.good("click", element="Alert", ref=ref_of(page, "Alert"))
        assert "(alert) and waits: 'Look out'" in asked
        assert "browser_handle_dialog" in asked
        assert "Page Snapshot" not in asked
        done = await browse.good("handle_dialog", accept=True)
        assert "Accepted the alert 'Look out'." in done
        assert "Clicked Alert" in done
        assert "alerted" in done


@pytest.mark.parametrize(("accept", "out"), [(True, "answer: true"), (False, "answer: false")])
async def test_a_confirm_is_answered(tmp_path: Path, accept: bool, out: str) -> None:
    async with site({"/": ASKING}) as served, browsing(tmp_path) as browse:
        page = await browse.good("navigate", url=served("/"))
        await browse.good("click", element="Confirm", ref=ref_of(page, "Confirm"))
        assert out in await browse.good("handle_dialog", accept=accept)


async def test_a_prompt_takes_a_text(tmp_path: Path) -> None:
    async with site({"/": ASKING}) as served, browsing(tmp_path) as browse:
        page = await browse.good("navigate", url=served("/"))
        prompt = ref_of(page, "Prompt")
        assert "suggests 'nobody'" in await browse.good("click", element="Prompt", ref=prompt)
        assert "name: Ada" in await browse.good("handle_dialog", accept=True, promptText="Ada")
        await browse.good("click", element="Prompt", ref=prompt)
        assert "name: nobody" in await browse.good("handle_dialog", accept=True)
        await browse.good("click", element="Prompt", ref=prompt)
        assert "name: null" in await browse.good("handle_dialog", accept=False)


async def test_one_dialog_after_another(tmp_path: Path) -> None:
    async with site({"/": ASKING}) as served, browsing(tmp_path) as browse:
        page = await browse.good("navigate", url=served("/"))
        assert "'One'" in await browse.good("click", element="Twice", ref=ref_of(page, "Twice"))
        again = await browse.good("handle_dialog", accept=True)
        assert "Accepted the confirm 'One'." in again
        assert "waits: 'Two'" in again
        assert "true false" in await browse.good("handle_dialog", accept=False)


async def test_other_tools_say_that_a_dialog_is_open(tmp_path: Path) -> None:
    async with site({"/": ASKING}) as served, browsing(tmp_path) as browse:
        page = await browse.good("navigate", url=served("/"))
        await browse.good("click", element="Confirm", ref=ref_of(page, "Confirm"))
        for tool, arguments in (
            ("snapshot", {}),
            ("click", {"ref": "e2"}),
            ("navigate", {"url": served("/rows")}),
        ):
            said = await browse.bad(tool, 2, **arguments)
            assert f"browser_{tool} cannot be done now" in said
            assert "'Really?'" in said
        assert f"- 1: (current) [] ({served('/')})" in await browse.good("tab_list", 2)
        assert await browse.good("console_messages", 2)
        assert "Opened tab 2" in await browse.good("tab_new", 5)
        assert "Tab 1 has an open dialog" in await browse.good("snapshot", 5)
        await browse.good("tab_select", 5, index=1)
        assert "answer: true" in await browse.good("handle_dialog", 5, accept=True)


async def test_a_dialog_that_comes_by_itself(tmp_path: Path) -> None:
    async with site({"/": ASKING}) as served, browsing(tmp_path) as browse:
        page = await browse.good("navigate", url=served("/"))
        await browse.good("click", element="Later", ref=ref_of(page, "Later"))
        assert "waits: 'Surprise'" in await browse.good("wait_for", time=2)
        assert "Accepted the alert 'Surprise'" in await browse.good("handle_dialog", accept=True)
        assert "No dialog is open" in await browse.bad("handle_dialog", accept=True)


async def test_a_dialog_while_a_page_loads(tmp_path: Path) -> None:
    pages = {"/": "<script>alert('Welcome')</script><title>Loaded</title><p>inside"}
    async with site(pages) as served, browsing(tmp_path) as browse:
        assert "waits: 'Welcome'" in await browse.good("navigate", url=served("/"))
        loaded = await browse.good("handle_dialog", accept=True)
        assert "- Page Title: Loaded" in loaded
        assert "inside" in loaded


async def test_a_page_asks_whether_to_leave_it(tmp_path: Path) -> None:
    html = "<title>Draft</title><script>onbeforeunload = event => event.preventDefault()</script><button>Touch</button>"
    async with site({"/": html}) as served, browsing(tmp_path) as browse:
        page = await browse.good("navigate", url=served("/"))
        await browse.good(
            "click", element="Touch", ref=ref_of(page, "Touch")
        )  # untouched pages are not asked
        assert "question whether to leave the page" in await browse.good("navigate", url=served("/rows"))
        stayed = await browse("handle_dialog", accept=False)
        assert "- Page Title: Rows" not in stayed.text
        assert "- Page Title: Draft" in await browse.good("snapshot")
        await browse.good("navigate", url=served("/rows"))
        assert "- Page Title: Rows" in await browse.good("handle_dialog", accept=True)


async def test_a_tab_is_closed_over_its_dialog(tmp_path: Path) -> None:
    async with site({"/": ASKING}) as served, browsing(tmp_path) as browse:
        page = await browse.good("navigate", url=served("/"))
        await browse.good("click", element="Alert", ref=ref_of(page, "Alert"))
        assert "about:blank" in await browse.good("close", 5)
        assert "Asking" in await browse.good("navigate", 5, url=served("/"))
