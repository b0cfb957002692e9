"""Handlers without a framework: `counting` counts its runs, `thinking` shows reasoning and a tool of its own."""

from collections import Counter

from workshop_parts import await_at

from greenroom import AgentApp, ItemDone, ItemStarted, Limits, PartDone, Text, TextDelta, ToolCall, ToolOutput

runs = Counter()

counting = AgentApp("Counting", "Counts how often it is run", limits=Limits(waiting_turns=1))


@counting.query()
async def answer(self, msgs, request):
    """Does what the last word says, after it has counted the run."""
    text = msgs[-1].content[0].text
    runs[text] += 1
    yield "half "
    word, _, door = text.rpartition(" ")[2].partition("@")
    if word == "fail":
        raise ValueError("no luck today")
    if word == "knock":
        yield await await_at(door)
    yield f"done: {text}"


@counting.endpoint("/runs", methods=["GET"])
def count(text: str):
    return {"runs": runs[text]}


thinking = AgentApp("Thinking")


@thinking.query(framework="events")
async def think(self, msgs, request):
    yield ItemStarted("r", "reasoning")
    for word in ("Let ", "me ", "see."):
        yield TextDelta(word, "r")
    yield ItemDone("r")
    yield PartDone(ToolCall("call-1", "look_up", '{"word": "sun"}'), "c")
    yield PartDone(ToolOutput("call-1", "look_up", (Text("It shines."),)), "o")
    yield TextDelta("The sun ")
    yield TextDelta("shines.")
