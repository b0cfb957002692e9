"""An application with every kind of route, whose handler does whatever it is asked for."""

import msgspec

from greenroom import AgentApp, BrowserView

HONOURED = {"tools", "tool_choice", "forced_tool", "parallel_tool_calls", "max_output_tokens", "answer"}

app = AgentApp(
    "Fuzzed",
    "Says two words, or in JSON that there is nothing to say",
    browser_view=BrowserView(secret="a secret that is only for tests!"),
    sandboxes="local",  # no box is ever asked for
)


class Book(msgspec.Struct):
    title: str
    pages: int = 0


@app.query(honours=HONOURED)
async def answer(self, msgs, request):
    yield "two "
    yield "words"


@app.endpoint("/books/{shelf:[a-z]+}/{place}", methods=["GET", "PUT"])
async def books(shelf: str, place: int, title: str = ""):
    return {"shelf": shelf, "place": place, "title": title}


@app.endpoint("/book")
async def book(book: Book) -> Book:
    return book


@app.endpoint("/echo")
async def echo(**fields):
    return fields


@app.endpoint("/count", methods=["GET"])
async def count(to: int):
    for number in range(max(1, min(to, 3))):
        yield number


@app.endpoint("/turns", methods=["GET"])
async def turns():
    return app.statistics()
