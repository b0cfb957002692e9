"""AgentScope by itself, without a server: so many agents at once on one loop, which is the least a server can take.

    python bare.py STREAMS

prints JSON: seconds to the first text of each, and the CPU seconds of all.
"""

import asyncio
import json
import sys
import time
from importlib.metadata import version
from types import SimpleNamespace

LINE = int(version("agentscope").partition(".")[0])

if LINE == 1:
    from agentscope.message import Msg
    from agentscope.pipeline import stream_printing_messages
    from workshop_for_1 import make_agent, use_model

    async def texts(agent):
        question = Msg("user", "Go.", "user")
        async for msg, _ in stream_printing_messages(agents=[agent], coroutine_task=agent(question)):
            yield msg.get_text_content()
else:
    from agentscope.event import TextBlockDeltaEvent
    from agentscope.message import UserMsg
    from workshop_for_2 import make_agent, use_model

    async def texts(agent):
        async for event in agent.reply_stream([UserMsg("user", "Go.")]):
            if isinstance(event, TextBlockDeltaEvent):
                yield event.delta


async def first_text(model):
    started = time.perf_counter()
    first = 0.0
    async for text in texts(make_agent(model)):
        if text and not first:
            first = time.perf_counter() - started
    return first


async def main(streams):
    owner = SimpleNamespace()
    use_model(owner)
    await first_text(owner.model)
    cpu = time.process_time()
    first = await asyncio.gather(*(first_text(owner.model) for _ in range(streams)))
    sys.stdout.write(json.dumps({"first": first, "cpu": time.process_time() - cpu}))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
