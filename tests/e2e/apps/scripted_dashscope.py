"""AgentScope 1.x's `DashScopeChatModel` as the tutorial uses it, thinking with the model that OPENAI_BASE_URL names."""

import os

from agentscope.model import OpenAIChatModel


class DashScopeChatModel(OpenAIChatModel):
    def __init__(self, model_name, api_key, enable_thinking=None, stream=True):
        super().__init__(
            model_name,
            api_key=api_key or "any",
            client_kwargs={"base_url": os.environ["OPENAI_BASE_URL"], "timeout": 60},
            stream=stream,
        )

    async def __call__(self, messages, *args, **kwargs):
        return await super().__call__([as_openai(message) for message in messages], *args, **kwargs)


def as_openai(message):
    """What `DashScopeChatFormatter` makes, in the form of the other service."""
    content = message.get("content")
    if isinstance(content, list):
        content = [{"type": "text", "text": part["text"]} for part in content if part.get("text")]
    return {**message, "content": content or None}
