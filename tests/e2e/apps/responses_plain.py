"""A handler without a framework that counts its runs."""

from collections import Counter

from workshop_parts import await_at

from greenroom import AgentApp, Limits

runs = Counter()

counting = AgentApp("Counting", "Counts how often it is run", limits=Limits(waiting_turns=1))


@counting.query()
async def answer(self, msgs, request):
    """Does what the last word says, after it has counted the run."""
    text = msgs[-1].content[0].text
    runs[text] += 1
    if text.endswith("fail silently"):
        raise ValueError("no luck today")
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
