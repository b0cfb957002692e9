"""Does what the message says. Hooks write to the file that NOTES names."""

import asyncio
import os
import time
from pathlib import Path

from greenroom import AgentApp

app = AgentApp("Plain", "Says what it is told")


def note(text):
    with Path(os.environ["NOTES"]).open("a") as notes:
        notes.write(text + "\n")


@app.init
async def init(self):
    if os.environ.get("FAIL_INIT"):
        raise OSError("the database is not there")
    note("init")


@app.shutdown
async def shutdown(self):
    note("shutdown")


@app.query()
async def answer(self, msgs, request):
    text = msgs[-1].content[0].text
    if text == "stall":
        yield "stalling"
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            note("cancelled")
            raise
    elif text.startswith("slow"):
        for _ in range(int(text.split()[1])):
            yield "."
            await asyncio.sleep(0.1)
        note("slow done")
        yield "done"
    elif text == "block":
        time.sleep(0.6)  # noqa: ASYNC251 - on purpose: the watchdog is to see it
        yield "blocked"
    else:
        yield text


@app.endpoint("/double", methods=["GET"])
def double(number: int):
    return {"double": number * 2}


@app.endpoint("/count")
async def count(to: int):
    for number in range(to):
        yield {"number": number}
