"""What goes wrong with pages and browsers, and that one can go on afterwards."""

import asyncio
import os
import signal
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from kits.browser_here import Browsing, browsing, ref_of
from kits.site import site

pytestmark = pytest.mark.slow

HANG = "<title>Hang</title><button onclick='while (true) {}'>Hang</button>"


async def crash(browse: Browsing) -> None:
    """Crash the current page's renderer, without waiting for it to be noticed."""
    pages = browse.tools._pages
    assert pages is not None
    session = await pages.context.new_cdp_session(pages.current.page)
    task = asyncio.create_task(session.send("Page.crash"))
    await asyncio.wait({task}, timeout=0.2)
    task.cancel()
    await asyncio.wait({task})


async def processes(browse: Browsing, mark: str) -> list[int]:
    """The browser's processes whose command line contains the mark."""
    listed = await asyncio.to_thread(
        subprocess.run, ["ps", "-o", "pid=,ppid=,args=", "-ww", "-e"], capture_output=True, text=True
    )
    rows = [line.split(None, 2) for line in listed.stdout.splitlines()]
    ours = {str(os.getpid())}
    for _ in range(5):
        ours |= {pid for pid, parent, _ in rows if parent in ours}
    return [int(pid) for pid, _, args in rows if mark in args and pid in ours]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:1/", "browsers do not open this port"),
        ("http://no-such-host.invalid/", "did not open"),
        ("http://exa mple.com:99999/", "no valid address"),
        ("chrome://crash", "may not be opened"),
        ("file:///etc/passwd", "may not be opened"),
        ("http://", "no valid address"),
    ],
)
async def test_addresses_that_do_not_open(tmp_path: Path, url: str, said: str) -> None:
    async with browsing(tmp_path) as browse:
        assert said in await browse.bad("navigate", url=url)


async def test_a_name_that_nobody_has(tmp_path: Path) -> None:
    async with browsing(tmp_path, arguments=("--host-resolver-rules=MAP nowhere.test ~NOTFOUND",)) as browse:
        said = await browse.bad("navigate", url="http://nowhere.test/")
        assert "there is no host of this name" in said
        assert "ERR_NAME_NOT_RESOLVED" in said


async def test_hosts_that_refuse_or_break_off(tmp_path: Path) -> None:
    async with site() as gone:
        refused = gone("/")
    async with site() as served, browsing(tmp_path) as browse:
        assert "nothing answers there" in await browse.bad("navigate", url=refused)
        assert "closed the connection without an answer" in await browse.bad(
            "navigate", url=served("/broken")
        )
        lost = await browse.good("navigate", url=served("/lost"))
        assert "The server answered 404 Not Found: that is an error of the site." in lost
        assert "nothing here" in lost


async def test_a_certificate_that_is_not_valid_unless_its_key_is_trusted(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = (
        f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {certificate} -days 2 -subj /CN=localhost "
        "-addext subjectAltName=DNS:localhost"
    )
    await asyncio.to_thread(subprocess.run, command.split(), check=True, capture_output=True)
    key_of = f"openssl x509 -in {certificate} -pubkey -noout | openssl pkey -pubin -outform der"
    made = await asyncio.to_thread(
        subprocess.run,
        f"{key_of} | openssl sha256 -binary | base64",
        shell=True,
        check=True,
        capture_output=True,
        text=True,
    )
    secure = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    await asyncio.to_thread(secure.load_cert_chain, certificate, key)

    async def hello(request: web.Request) -> web.Response:
        return web.Response(text="<title>Safe</title>", content_type="text/html")

    app = web.Application()
    app.router.add_get("/", hello)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=secure).start()
        url = f"https://localhost:{runner.addresses[0][1]}/"
        async with browsing(tmp_path) as browse:
            said = await browse.bad("navigate", url=url)
            assert "its certificate is not valid" in said
            assert "ERR_CERT_AUTHORITY_INVALID" in said
        async with browsing(tmp_path, trusted_keys=made.stdout.strip()) as browse:
            assert "- Page Title: Safe" in await browse.good("navigate", url=url)
    finally:
        await runner.cleanup()


async def test_the_proxy_is_the_only_way_out(tmp_path: Path) -> None:
    """Loopback too; a refusal of the filter is a page for http, a broken tunnel for https."""
    asked = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readline()).decode().split(" ")[1])
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 7\r\nConnection: close\r\n\r\nrefused")
        writer.close()

    proxy = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with proxy, site() as served:
        port = proxy.sockets[0].getsockname()[1]
        async with browsing(tmp_path, proxy=f"http://127.0.0.1:{port}") as browse:
            refused = await browse.good("navigate", url=served("/"))
            assert "403 Forbidden" in refused
            assert "refused" in refused
            said = await browse.bad("navigate", url="https://localhost:8443/")
            assert "the sandbox's egress filter did not let it through" in said
        assert served.asked == []
        assert served("/") in asked
        assert "localhost:8443" in asked


async def test_a_crashed_page_is_replaced_and_told(tmp_path: Path) -> None:
    async with site() as served, browsing(tmp_path) as browse:
        await browse.good("navigate", url=served("/"))
        await browse.good("tab_new", url=served("/rows"))
        await crash(browse)
        text = (await browse("snapshot")).text
        assert f"The page {served('/rows')} crashed" in text
        assert "- Page Title: Rows" in await browse.good("navigate", url=served("/rows"))
        assert f"- 1: [Home] ({served('/')})\n- 2: (current) [Rows]" in await browse.good("tab_list")


async def test_a_crash_ends_the_call_under_way(tmp_path: Path) -> None:
    async with site() as served, browsing(tmp_path) as browse:
        await browse.good("navigate", url=served("/"))
        waiting = asyncio.create_task(browse.bad("wait_for", 20, text="never"))
        await asyncio.wait({waiting}, timeout=0.3)
        await crash(browse)
        async with asyncio.timeout(10):
            assert "crashed, most likely because it needed more memory" in await waiting
        assert "Welcome" in await browse.good("navigate", url=served("/"))


async def test_a_page_that_needs_too_much_memory(tmp_path: Path) -> None:
    html = """<button onclick="const all = []; for (;;) all.push(new Array(100000).fill(all.length))">Eat</button>"""
    arguments = ("--js-flags=--max-old-space-size=50",)
    async with site({"/": html}) as served, browsing(tmp_path, arguments=arguments) as browse:
        page = await browse.good("navigate", url=served("/"))
        said = await browse.bad("click", element="Eat", ref=ref_of(page, "Eat"))
        assert "crashed, most likely because it needed more memory" in said
        assert "- Page Title: Rows" in await browse.good("navigate", url=served("/rows"))


async def test_a_browser_that_dies_is_started_anew(tmp_path: Path) -> None:
    async with site() as served, browsing(tmp_path) as browse:
        await browse.good("navigate", url=served("/"))
        waiting = asyncio.create_task(browse.bad("wait_for", 20, text="never"))
        await asyncio.wait({waiting}, timeout=0.3)
        for pid in await processes(browse, "--remote-debugging-pipe"):
            os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(10):
            assert "The browser ended while this was under way" in await waiting
        assert "Welcome" in await browse.good("navigate", url=served("/"))
        for pid in await processes(browse, "--remote-debugging-pipe"):
            os.kill(pid, signal.SIGKILL)
        while browse.tools._alive():
            await browse.tools._bell.rung()
        assert "was started anew: pages and logins are gone" in await browse.good("navigate", url=served("/"))


async def test_a_driver_that_dies_is_started_anew(tmp_path: Path) -> None:
    async with site() as served, browsing(tmp_path) as browse:
        await browse.good("navigate", url=served("/"))
        waiting = asyncio.create_task(browse("wait_for", 20, text="never"))
        await asyncio.wait({waiting}, timeout=0.3)
        for pid in await processes(browse, "run-driver"):
            os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(10):
            assert (await waiting).is_error
        assert "Welcome" in await browse.good("navigate", url=served("/"))


async def test_a_page_that_hangs_is_given_up_and_left(tmp_path: Path) -> None:
    async with site({"/": HANG}) as served, browsing(tmp_path) as browse:
        page = await browse.good("navigate", url=served("/"))
        assert "was given up" in await browse.bad("click", 3, element="Hang", ref=ref_of(page, "Hang"))
        assert "was given up" in await browse.bad("snapshot", 1)
        assert "about:blank" in await browse.good("close", 10)
        assert "Rows" in await browse.good("navigate", url=served("/rows"))


async def test_a_page_that_does_not_arrive(tmp_path: Path) -> None:
    async with site() as served, browsing(tmp_path) as browse:
        await browse.good("navigate", url=served("/"))
        began = time.monotonic()
        assert "browser_navigate was not done within 1 s" in await browse.bad(
            "navigate", 1, url=served("/held")
        )
        assert time.monotonic() - began < 3
        assert "- Page Title: Rows" in await browse.good("navigate", url=served("/rows"))


@pytest.mark.parametrize("tool", ["navigate", "click", "wait_for", "type"])
async def test_a_cancelled_call_leaves_the_page_usable(tmp_path: Path, tool: str) -> None:
    html = """<title>Here</title><button disabled>Off</button><button>On</button><input aria-label=Field>"""
    async with site({"/": html}) as served, browsing(tmp_path) as browse:
        page = await browse.good("navigate", url=served("/"))
        arguments: dict[str, dict[str, Any]] = {
            "navigate": {"url": served("/held")},
            "click": {"ref": ref_of(page, "Off")},
            "wait_for": {"text": "never"},
            "type": {"ref": ref_of(page, "Field"), "text": "x" * 20000, "slowly": True},
        }
        call = asyncio.create_task(browse(tool, **arguments[tool]))
        await asyncio.wait({call}, timeout=0.5)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        again = await browse.good("click", 5, element="On", ref=ref_of(page, "On"))
        assert "- Page Title: Here" in again
        typed = len(ref_line(await browse.good("snapshot"), "Field"))
        assert typed == len(ref_line(await browse.good("wait_for", time=0.3), "Field"))  # it types no more


def ref_line(page: str, mark: str) -> str:
    return next(line for line in page.splitlines() if mark in line)


async def test_calls_run_one_after_another_in_order(tmp_path: Path) -> None:
    async with (
        site({f"/{n}": f"<title>Page {n}</title>" for n in range(5)}) as served,
        browsing(tmp_path) as browse,
    ):
        texts = await asyncio.gather(*(browse.good("navigate", url=served(f"/{n}")) for n in range(5)))
        for n, text in enumerate(texts):
            assert f"- Page Title: Page {n}" in text
        assert served.asked == [f"/{n}" for n in range(5)]


async def test_waiting_for_a_turn_counts_as_time(tmp_path: Path) -> None:
    async with browsing(tmp_path) as browse:
        first = asyncio.create_task(browse.good("wait_for", time=2))
        await asyncio.wait({first}, timeout=0.1)
        assert "not done within 0.5 s" in await browse.bad("snapshot", 0.5)
        await first


async def test_a_reset_takes_everything_with_it(tmp_path: Path) -> None:
    html = "<title>T</title><script>document.cookie ||= 'a=1'; localStorage.b ||= 2</script>"
    look = "<p id=p></p><script>p.textContent = `cookie ${document.cookie} stored ${localStorage.b}`</script>"
    async with site({"/": html, "/look": look}) as served, browsing(tmp_path) as browse:
        await browse.good("navigate", url=served("/"))
        assert "cookie a=1 stored 2" in await browse.good("navigate", url=served("/look"))
        await browse.good("tab_new")
        call = asyncio.create_task(browse.bad("wait_for", text="never"))
        await asyncio.wait({call}, timeout=0.2)
        await browse.tools.reset()
        assert "was reset" in await call
        assert await browse.good("tab_list") == "### Open tabs\n- 1: (current) [] (about:blank)\n"
        assert "cookie stored undefined" in await browse.good("navigate", url=served("/look"))


async def test_arguments_are_checked_and_names_known(tmp_path: Path) -> None:
    async with browsing(tmp_path) as browse:
        assert "browser_click needs 'ref'" in await browse.bad("click", element="x")
        with pytest.raises(KeyError):
            await browse("fly")


async def test_a_browser_that_does_not_start_says_so(tmp_path: Path) -> None:
    async with browsing(tmp_path) as browse:
        await browse.tools.stop()
        await browse.tools.stop()
        object.__setattr__(browse.tools.options, "executable", "/nowhere/chromium")
        assert "The browser does not start" in await browse.bad("snapshot")


async def test_a_reset_of_a_browser_that_is_gone_starts_another(tmp_path: Path) -> None:
    async with site() as served, browsing(tmp_path) as browse:
        for mark in ("--remote-debugging-pipe", "run-driver"):
            for pid in await processes(browse, mark):
                os.kill(pid, signal.SIGKILL)
            await browse.tools.reset()
            assert "Welcome" in await browse.good("navigate", url=served("/"))


async def test_a_driver_that_does_not_start_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with browsing(tmp_path) as browse:
        await browse.tools.stop()
        monkeypatch.setenv("PLAYWRIGHT_NODEJS_PATH", "/bin/false")
        said = await browse.bad("snapshot")
        assert "The browser does not start: the browser's driver does not start" in said
        monkeypatch.delenv("PLAYWRIGHT_NODEJS_PATH")
        assert "about:blank" in await browse.good("snapshot")
