"""An application whose turns open what their text names in their session's browser, to be killed while they do.

Environment: what sandboxes are made with.
"""

import os
from collections.abc import AsyncIterator
from typing import Any

from greenroom import AgentApp
from greenroom.actors.errors import SandboxLost
from greenroom.actors.messages import AgentRequest, Text

app = AgentApp("Opening", sandboxes=os.environ["GREENROOM_SANDBOX"])


@app.query("text")
async def answer(request: AgentRequest, session: Any) -> AsyncIterator[str]:
    part = request.input[0].content[0]
    assert isinstance(part, Text)
    try:
        result = await session.browser.browser_navigate(part.text)
    except SandboxLost:  # with the process that had it
        result = await session.browser.browser_navigate(part.text)
    assert not result.is_error, result.text
    yield result.text
