"""Tools on pages, in a real browser."""

import asyncio
from pathlib import Path

import pytest

from greenroom.sandbox.image import settling, snapshot
from kits.browser_here import browsing, ref_of
from kits.site import site

pytestmark = pytest.mark.slow

FORM = """<title>Form</title>
<label>Name <input id=name value=old></label>
<label>Colour <select id=colour><option value=r>Red<option value=g>Green<option value=b>Blue</select></label>
<label>Pets <select id=pets multiple><option>Cat<option>Dog<option>Fish</select></label>
<button onclick="out.textContent = `${document.getElementById('name').value}, ${colour.value}, ` +
    [...pets.selectedOptions].map(it => it.value)">Show</button>
<p id=out></p>"""


async def test_a_page_is_opened_and_described(tmp_path: Path) -> None:
    async with site() as served, browsing(tmp_path) as browse:
        text = await browse.good("navigate", url=served("/rows"))
        assert text.startswith(f"Opened {served('/rows')}.")
        assert (
            f"- Page URL: {served('/rows')}\n- Page Title: Rows\n- Page Snapshot:\n```yaml\n- table" in text
        )
        assert 'button "Buy 29"' in text
        assert (await browse.good("snapshot")).count("button") == 30


async def test_history(tmp_path: Path) -> None:
    async with site({"/b": "<title>B</title>"}) as served, browsing(tmp_path) as browse:
        assert "no page to go back to" in await browse.bad("navigate_back")
        await browse.good("navigate", url=served("/"))
        assert "no page to go back to" in await browse.bad("navigate_back")
        await browse.good("navigate", url=served("/b"))
        assert "- Page Title: Home" in await browse.good("navigate_back")
        assert "- Page Title: B" in await browse.good("navigate_forward")
        assert "no page to go forward to" in await browse.bad("navigate_forward")


async def test_forms_are_filled(tmp_path: Path) -> None:
    async with site({"/form": FORM}) as served, browsing(tmp_path) as browse:
        page = await browse.good("navigate", url=served("/form"))
        name, show = ref_of(page, 'textbox "Name"'), ref_of(page, 'button "Show"')
        await browse.good("type", element="Name", ref=name, text="Ada")
        await browse.good(
            "select_option", element="Colour", ref=ref_of(page, 'combobox "Colour"'), values=["Green"]
        )
        await browse.good(
            "select_option", element="Pets", ref=ref_of(page, 'listbox "Pets"'), values=["Cat", "Fish"]
        )
        assert "Ada, g, Cat,Fish" in await browse.good("click", element="Show", ref=show)
        await browse.good("type", element="Name", ref=name, text="!", slowly=True)
        assert "Ada!, g" in await browse.good("click", element="Show", ref=show)
        await browse.good("type", element="Name", ref=name)  # clients drop empty texts
        assert ': ", g, Cat,Fish"' in await browse.good("click", element="Show", ref=show)
        said = await browse.bad(
            "select_option", element="Colour", ref=ref_of(page, "Colour"), values=["Pink"]
        )
        assert "no option 'Pink'. It has: 'Red', 'Green', 'Blue'." in said
        assert "is no select element" in await browse.bad(
            "select_option", element="x", ref=name, values=["a"]
        )


async def test_submitting_opens_the_next_page(tmp_path: Path) -> None:
    search = "<title>Search</title><form action=/found><input name=q aria-label=Query></form>"
    async with site({"/": search, "/found": "<title>Found</title>"}) as served, browsing(tmp_path) as browse:
        page = await browse.good("navigate", url=served("/"))
        found = await browse.good("type", element="Query", ref=ref_of(page, "Query"), text="a b", submit=True)
        assert f"- Page URL: {served('/found?q=a+b')}\n- Page Title: Found" in found


async def test_keys_and_mouse(tmp_path: Path) -> None:
    html = """<input aria-label=Field autofocus onkeydown="keys.textContent += event.key + ' '">
    <button onmouseenter="keys.textContent += 'over '">Menu</button><p id=keys></p>
    <div draggable=true ondragstart="event.dataTransfer.setData('text', 'dragged')" role=img aria-label=Card>card</div>
    <div ondragover="event.preventDefault()" ondrop="keys.textContent += event.dataTransfer.getData('text')"
        role=group aria-label=Bin style="height:50px">bin</div>"""
    async with site({"/": html}) as served, browsing(tmp_path) as browse:
        page = await browse.good("navigate", url=served("/"))
        await browse.good("press_key", key="Escape")
        await browse.good("press_key", key="a")
        assert "Escape a" in await browse.good("snapshot")
        assert "over" in await browse.good("hover", element="Menu", ref=ref_of(page, "Menu"))
        dropped = await browse.good(
            "drag",
            startElement="Card",
            startRef=ref_of(page, "Card"),
            endElement="Bin",
            endRef=ref_of(page, "Bin"),
        )
        assert "dragged" in dropped
        assert "Unknown key" in await browse.bad("press_key", key="NoSuchKey")


async def test_effects_are_awaited_by_what_they_are(tmp_path: Path) -> None:
    html = """<button onclick="fetch('/data').then(it => it.text()).then(it => out.textContent = it)">Fetch</button>
    <button onclick="setTimeout(() => location = '/next', 10)">Leave</button><p id=out></p>"""
    pages = {"/": html, "/data": "<b>fetched</b>", "/next": "<title>Next</title>"}
    async with site(pages) as served, browsing(tmp_path) as browse:
        page = await browse.good("navigate", url=served("/"))
        assert "fetched" in await browse.good("click", element="Fetch", ref=ref_of(page, "Fetch"))
        await browse.good("click", element="Leave", ref=ref_of(page, "Leave"))
        assert "- Page Title: Next" in await browse.good("wait_for", time=0.1)


async def test_a_link_to_a_slow_page_is_followed_to_its_end(tmp_path: Path) -> None:
    async with site({"/": "<a href=/held>Go</a>"}) as served, browsing(tmp_path) as browse:
        page = await browse.good("navigate", url=served("/"))

        async def let_go() -> None:
            await served.waiting.wait()
            served.held.set()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(let_go())
            clicked = await browse.good("click", element="Go", ref=ref_of(page, "Go"))
        assert "- Page Title: Late" in clicked


async def test_a_page_that_does_not_arrive_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "PAGE_SECONDS", 1)
    async with site({"/": "<title>Old</title><a href=/held>Go</a>"}) as served, browsing(tmp_path) as browse:
        page = await browse.good("navigate", url=served("/"))
        clicked = await browse.good("click", element="Go", ref=ref_of(page, "Go"))
        assert f"{served('/held')} did not arrive in time; loading it was stopped." in clicked
        assert "- Page Title: Old" in clicked


async def test_frames_that_do_not_arrive_do_not_hide_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "DATA_SECONDS", 0.3)
    monkeypatch.setattr(snapshot, "FRAMES_SECONDS", 0.3)
    html = (
        "<title>Framed</title><iframe src=/held></iframe><p>Text</p><iframe srcdoc='<b>there</b>'></iframe>"
    )
    async with site({"/": html}) as served, browsing(tmp_path) as browse:
        page = await browse.good("navigate", 10, url=served("/"))
        assert "Frames of the page that have not arrived are left out" in page
        assert "Text" in page
        assert "there" in page
        assert "Text" in await browse.good("snapshot", 2)


@pytest.mark.parametrize("address", ["src=file:///x", "src=chrome://version", "loading=lazy src=/late"])
async def test_frames_that_nothing_is_on_its_way_to_are_not_waited_for(tmp_path: Path, address: str) -> None:
    far = "<div style='height: 9000px'></div>"
    html = f"<title>Framed</title><button>Press</button><iframe srcdoc='<b>there</b>'></iframe>{far}<iframe {address}>"
    async with site({"/": html, "/late": "Late"}) as served, browsing(tmp_path) as browse:
        page = await browse.good("navigate", 10, url=served("/"))  # what waits for them waits 15 s
        assert "Press" in page
        assert "there" in page
        assert "Frames of the page that have not arrived are left out" in page
        assert "there" in await browse.good("snapshot", 10)
        assert "there" in await browse.good("click", 10, element="Press", ref=ref_of(page, "Press"))


async def test_a_page_too_large_to_be_seen_at_once_with_such_a_frame_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "IDLE_FRAMES_SECONDS", 0.001)
    html = "<title>Framed</title><ul>" + "<li>item" * 1000 + "</ul><iframe src=file:///x></iframe>"
    async with site({"/": html}) as served, browsing(tmp_path) as browse:
        assert "item" in await browse.good("navigate", 10, url=served("/"))


async def test_a_page_that_leaves_by_itself_is_waited_for(tmp_path: Path) -> None:
    html = "<title>Old</title><button onclick=\"setTimeout(() => location = '/held', 200)\">Go</button>"
    async with site({"/": html}) as served, browsing(tmp_path) as browse:
        page = await browse.good("navigate", url=served("/"))
        await browse.good("click", element="Go", ref=ref_of(page, "Go"))
        await served.waiting.wait()
        looking = asyncio.create_task(browse.good("snapshot"))
        await asyncio.wait({looking}, timeout=0.3)
        served.held.set()
        assert "- Page Title: Late" in await looking


async def test_waiting(tmp_path: Path) -> None:
    html = (
        """<p id=p>Loading</p><button onclick="setTimeout(() => p.textContent = 'Ready', 300)">Go</button>"""
    )
    async with site({"/": html}) as served, browsing(tmp_path) as browse:
        page = await browse.good("navigate", url=served("/"))
        await browse.good("click", element="Go", ref=ref_of(page, "Go"))
        text = await browse.good("wait_for", text="Ready")
        assert text.startswith("Done: 'Ready' is there.")
        assert "Ready" in await browse.good("wait_for", textGone="Loading")
        assert "needs one of" in await browse.bad("wait_for")
        assert "not done within 0.3 s" in await browse.bad("wait_for", 0.3, text="Never")
        assert "'time' must be at least 0 and at most 27," in await browse.bad("wait_for", 30.0, time=28)
        assert "Ready" in await browse.good("snapshot")


async def test_elements_that_cannot_be_acted_on_say_why(tmp_path: Path) -> None:
    html = """<button id=b>Under</button><div style="position:fixed;inset:0" id=cover>cover</div>
    <button disabled>Off</button>"""
    async with site({"/": html}) as served, browsing(tmp_path) as browse:
        page = await browse.good("navigate", url=served("/"))
        assert "intercepts pointer events" in await browse.bad(
            "click", element="Under", ref=ref_of(page, "Under")
        )
        assert "not enabled" in await browse.bad("click", element="Off", ref=ref_of(page, "Off"))


async def test_stale_refs_are_answered_at_once(tmp_path: Path) -> None:
    html = """<button onclick="this.remove()">Vanish</button><button>Stay</button>
    <iframe srcdoc="<button>Inner</button>"></iframe>
    <button onclick="document.querySelector('iframe').remove()">Unframe</button>"""
    async with site({"/": html}) as served, browsing(tmp_path) as browse:
        page = await browse.good("navigate", url=served("/"))
        vanish, inner = ref_of(page, "Vanish"), ref_of(page, "Inner")
        await browse.good("click", element="Vanish", ref=vanish)
        said = await browse.bad("click", 2, element="Vanish", ref=vanish)
        assert said.startswith(f"Vanish ({vanish}) is not on the page (any more)")
        await browse.good("click", element="Unframe", ref=ref_of(page, "Unframe"))
        assert "is not on the page" in await browse.bad("click", 2, element="Inner", ref=inner)
        await browse.good("navigate", url=served("/rows"))
        stay = ref_of(page, "Stay")
        assert "is not on the page" in await browse.bad("hover", 2, element="Stay", ref=stay)
        assert "is no ref" in await browse.bad("click", element="x", ref="#submit")


async def test_iframes_are_seen_and_used(tmp_path: Path) -> None:
    inner = """<button onclick="this.textContent = 'Pressed'">Inner</button>"""
    async with site({"/inner": inner}) as other, browsing(tmp_path) as browse:
        outer = f"<title>Outer</title><iframe src={other('/inner')}></iframe>"
        async with site({"/": outer}) as served:
            another = served("/").replace("127.0.0.1", "localhost")  # another site, so another process
            page = await browse.good("navigate", url=another)
            assert "Pressed" in await browse.good("click", element="Inner", ref=ref_of(page, '"Inner"'))


async def test_a_huge_page_is_cut_and_seen_in_parts(tmp_path: Path) -> None:
    items = "".join(f"<li><a href='#{n}'>Item number {n}</a></li>" for n in range(3000))
    html = f"<title>Huge</title><nav><a href=/>Home</a></nav><ul>{items}</ul><footer>The end</footer>"
    async with site({"/": html}) as served, browsing(tmp_path) as browse:
        page = await browse.good("navigate", url=served("/"))
        assert 60_000 < len(page.encode()) < 61_500
        assert "# Cut: the first 60 of" in page
        assert "The end" not in page
        assert "The end" in await browse.good("snapshot", depth=1)
        part = await browse.good("snapshot", ref=ref_of(page, "- navigation"))
        assert 'link "Home"' in part
        assert "Item" not in part


async def test_one_huge_line_is_cut(tmp_path: Path) -> None:
    async with site({"/": f"<p>{'ä' * 200_000}</p>"}) as served, browsing(tmp_path) as browse:
        assert 60_000 < len((await browse.good("navigate", url=served("/"))).encode()) < 61_000


async def test_console_and_requests(tmp_path: Path) -> None:
    html = """<script>console.log('hello', 1); console.error('bad'); fetch('/missing');
    setTimeout(() => { throw new Error('thrown') })</script>"""
    async with site({"/": html}) as served, browsing(tmp_path) as browse:
        await browse.good("navigate", url=served("/"))
        console = await browse.good("console_messages")
        assert "[LOG] hello 1" in console
        assert "[ERROR] bad" in console
        assert "[EXCEPTION] thrown" in console
        requests = await browse.good("network_requests")
        assert f"[GET] {served('/')} (document) => [200] OK" in requests
        assert f"[GET] {served('/missing')} (fetch) => [404] Not Found" in requests
        await browse.good("navigate", url=served("/rows"))
        assert await browse.good("console_messages") == "The console is empty."
        assert "missing" not in await browse.good("network_requests")


async def test_resizing(tmp_path: Path) -> None:
    html = "<p id=p></p><script>onresize = () => p.textContent = innerWidth + 'x' + innerHeight</script>"
    async with site({"/": html}) as served, browsing(tmp_path) as browse:
        await browse.good("navigate", url=served("/"))
        assert "400x300" in await browse.good("resize", width=400, height=300)


async def test_closing_leaves_an_empty_page(tmp_path: Path) -> None:
    async with site() as served, browsing(tmp_path) as browse:
        await browse.good("navigate", url=served("/"))
        assert "- Page URL: about:blank" in await browse.good("close")
        assert "Welcome" in await browse.good("navigate", url=served("/"))
