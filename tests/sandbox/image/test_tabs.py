"""Tabs, windows that pages open, files that come and go."""

import base64
from pathlib import Path

import pytest

from kits.browser_here import Browsing, browsing, ref_of
from kits.site import site

pytestmark = pytest.mark.slow


async def test_tabs_are_opened_selected_and_closed(tmp_path: Path) -> None:
    async with site({"/b": "<title>B</title>"}) as served, browsing(tmp_path) as browse:
        await browse.good("navigate", url=served("/"))
        opened = await browse.good("tab_new", url=served("/b"))
        assert opened.startswith(f"Opened tab 2. Opened {served('/b')}.")
        assert "- Page Title: B" in opened
        listed = await browse.good("tab_list")
        assert f"- 1: [Home] ({served('/')})" in listed
        assert f"- 2: (current) [B] ({served('/b')})" in listed
        assert "- Page Title: Home" in await browse.good("tab_select", index=1)
        assert "- Page Title: Home" in await browse.good("tab_close", index=2)
        assert "no tab 2: 1 open" in await browse.bad("tab_select", index=2)
        assert "no tab 2" in await browse.bad("tab_close", index=2)
        await browse.good("tab_new")
        assert "- Page Title: Home" in await browse.good("tab_close")


async def test_a_tab_of_a_bad_address(tmp_path: Path) -> None:
    async with browsing(tmp_path) as browse:
        assert "may not be opened" in await browse.bad("tab_new", url="file:///etc/passwd")
        assert "- 2:" not in await browse.good("tab_list")
        said = await browse.bad("tab_new", url="http://127.0.0.1:9/")
        assert "Opened tab 2. It is empty: http://127.0.0.1:9/ did not open" in said or "port" in said


async def test_there_is_a_bound_on_tabs(tmp_path: Path) -> None:
    async with browsing(tmp_path) as browse:
        for _ in range(19):
            await browse.good("tab_new")
        assert "20 tabs are open" in await browse.bad("tab_new")
        await browse.good("tab_close")
        await browse.good("tab_new")


@pytest.mark.parametrize(
    "opener",
    [
        "<a href=/new target=_blank>Open</a>",
        "<a href=/new target=_blank rel=noopener>Open</a>",
        "<button onclick=\"window.open('/new')\">Open</button>",
        "<button onclick=\"window.open('/new', '', 'width=300,height=200,noopener')\">Open</button>",
    ],
)
async def test_a_window_that_a_click_opens_becomes_current(tmp_path: Path, opener: str) -> None:
    async with site({"/": opener, "/new": "<title>New</title>"}) as served, browsing(tmp_path) as browse:
        page = await browse.good("navigate", url=served("/"))
        clicked = await browse.good("click", element="Open", ref=ref_of(page, "Open"))
        assert "A new tab opened and is now the current one; browser_tab_select with 1 goes back" in clicked
        assert "- Page Title: New" in clicked
        assert "### Open tabs" in clicked


async def test_a_window_that_closes_itself(tmp_path: Path) -> None:
    pages = {"/": "<title>Old</title><button onclick=\"window.open('/new')\">Open</button>"}
    pages["/new"] = "<button onclick='window.close()'>Done</button>"
    async with site(pages) as served, browsing(tmp_path) as browse:
        page = await browse.good("navigate", url=served("/"))
        opened = await browse.good("click", element="Open", ref=ref_of(page, "Open"))
        closed = await browse("click", element="Done", ref=ref_of(opened, "Done"))
        assert "A tab was closed by its page" in closed.text
        assert "- Page Title: Old" in await browse.good("snapshot")


async def test_windows_that_open_by_themselves_stay_in_the_background_and_are_bounded(tmp_path: Path) -> None:
    html = """<title>Front</title><button onclick="setTimeout(open25, 400)">Go</button>
    <script>function open25() { for (let n = 0; n < 25; n++) window.open('/ad') }</script>"""
    async with site({"/": html, "/ad": "<title>Ad</title>"}) as served, browsing(tmp_path) as browse:
        page = await browse.good("navigate", url=served("/"))
        await browse.good("click", element="Go", ref=ref_of(page, "Go"))
        while (listed := await browse.good("tab_list")).count("[Ad]") < 19:
            pass
        assert "- 1: (current) [Front]" in listed
        assert "- 21:" not in listed


async def download(browse: Browsing, url: str, mark: str) -> str:
    page = await browse.good("navigate", url=url)
    return await browse.good("click", element=mark, ref=ref_of(page, mark))


async def test_downloads_are_kept_in_the_workspace_and_told(tmp_path: Path) -> None:
    async with site({"/": "<title>T</title><a href=/file>Get</a>"}) as served, browsing(tmp_path) as browse:
        kept = tmp_path / "workspace" / "downloads"
        text = await download(browse, served("/"), "Get")
        assert f"- Downloaded report.csv: saved as {kept}/report.csv (8 bytes)." in text
        assert (kept / "report.csv").read_bytes() == b"a,b\n1,2\n"
        text = await browse.good("navigate", url=served("/file?name=..%2F..%2Fevil"))
        assert "is a file to download, not a page" in text
        assert "- Page Title: T" in text
        assert [path.name for path in kept.iterdir() if "evil" in path.name] == [
            text.partition("downloads/")[2].partition(" ")[0]
        ]


async def test_a_full_workspace_is_told(tmp_path: Path) -> None:
    async with site({"/": "<a href=/file>Get</a>"}) as served, browsing(tmp_path) as browse:
        (tmp_path / "workspace" / "downloads").write_text("in the way")
        assert "The download of report.csv failed: " in await download(browse, served("/"), "Get")


async def test_files_of_the_workspace_are_uploaded(tmp_path: Path) -> None:
    form = """<form action=/upload method=post enctype=multipart/form-data>
    <input type=file name=f multiple aria-label=Files><button>Send</button></form>"""
    async with site({"/": form}) as served, browsing(tmp_path) as browse:
        (tmp_path / "workspace" / "a.txt").write_text("A")
        (tmp_path / "workspace" / "b.txt").write_text("B")
        (tmp_path / "secret").write_text("secret")
        page = await browse.good("navigate", url=served("/"))
        assert "No file chooser is open" in await browse.bad("file_upload", paths=["a.txt"])
        opened = await browse.good("click", element="Files", ref=ref_of(page, "Files"))
        assert "A file chooser is open" in opened
        assert "not in the workspace" in await browse.bad("file_upload", paths=[str(tmp_path / "secret")])
        assert "without '..'" in await browse.bad("file_upload", paths=["../secret"])
        given = await browse.good("file_upload", paths=["a.txt", f"{tmp_path}/workspace/b.txt"])
        assert "Gave a.txt, b.txt to the page." in given
        assert "file chooser is open" not in given
        sent = await browse.good("click", element="Send", ref=ref_of(given, "Send"))
        assert "2 received" in sent
        assert served.uploads == {"a.txt": b"A", "b.txt": b"B"}


async def test_a_file_chooser_for_one_file_and_cancelling(tmp_path: Path) -> None:
    async with site({"/": "<input type=file aria-label=File>"}) as served, browsing(tmp_path) as browse:
        (tmp_path / "workspace" / "a.txt").write_text("A")
        page = await browse.good("navigate", url=served("/"))
        await browse.good("click", element="File", ref=ref_of(page, "File"))
        assert "one file only" in await browse.bad("file_upload", paths=["a.txt", "a.txt"])
        assert "cancelled" in await browse.good("file_upload", paths=[])


async def test_pictures(tmp_path: Path) -> None:
    html = "<title>T</title><p style='height:3000px'><button style='width:100px;height:50px'>B</button><p hidden>C"
    async with site({"/": html}) as served, browsing(tmp_path) as browse:
        page = await browse.good("navigate", url=served("/"))
        jpeg = await browse("take_screenshot")
        assert jpeg["content"][0]["type"] == "image"
        assert jpeg.images[0][0] == "image/jpeg"
        assert base64.b64decode(jpeg.images[0][1]).startswith(b"\xff\xd8\xff")
        png = await browse(
            "take_screenshot", raw=True, element="B", ref=ref_of(page, '"B"'), filename="shots/b.png"
        )
        data = base64.b64decode(png.images[0][1])
        assert png.images[0][0] == "image/png"
        assert data.startswith(b"\x89PNG")
        assert (int.from_bytes(data[16:20]), int.from_bytes(data[20:24])) == (100, 50)
        assert (tmp_path / "workspace/shots/b.png").read_bytes() == data
        assert "without '..'" in await browse.bad("take_screenshot", filename="../x.png")


async def test_an_element_far_down_is_in_its_picture(tmp_path: Path) -> None:
    button = "<body style='margin:8px'><button style='width:100px;height:50px;background:teal'>Blue</button>"
    far = f"<div style='height:3000px;width:2000px'></div>{button}"
    async with site({"/near": button, "/far": far}) as served, browsing(tmp_path) as browse:
        pictures = []
        for path in ("/near", "/far"):
            page = await browse.good("navigate", url=served(path))
            pictures.append((await browse("take_screenshot", raw=True, ref=ref_of(page, "Blue"))).images)
        assert pictures[0] == pictures[1]


async def test_a_page_is_saved_as_pdf(tmp_path: Path) -> None:
    async with site() as served, browsing(tmp_path) as browse:
        await browse.good("navigate", url=served("/"))
        assert f"as {tmp_path}/workspace/home.pdf" in await browse.good("pdf_save", filename="home.pdf")
        assert (tmp_path / "workspace/home.pdf").read_bytes().startswith(b"%PDF")
        await browse.good("pdf_save")
        assert len([*(tmp_path / "workspace").glob("page-*.pdf")]) == 1


async def test_a_picture_does_not_wait_for_what_never_arrives(tmp_path: Path) -> None:
    html = """<style>@font-face { font-family: Slow; src: url(/held) } p { font-family: Slow }</style>
    <p>text</p><img src=/held>"""
    async with site({"/": html}) as served, browsing(tmp_path) as browse:
        await browse.good("navigate", url=served("/"))
        assert (await browse("take_screenshot", 5)).images
