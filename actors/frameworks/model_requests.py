"""What the `openai` client does anew for each request, although the outcome is known.

- It goes through a request's body with the types it should have, to rename fields and to convert dates and files. The
  types of a chat know nothing of the kind, so a body of plain JSON comes out as it went in; on the way it takes longer
  than all the rest of the request, the more so the longer the conversation is.
- Each client has a worker thread tell it what operating system it runs on.

Inside of turns both are left out, and answers are listened to (`model_endings`); elsewhere all is as ever. Private
names: `async_maybe_transform` in the module of `AsyncCompletions`, `openai._base_client.get_platform` and a client's
`_platform`. A version without them does what it always did.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from functools import lru_cache, wraps
from typing import Annotated, Any, Final, get_args, get_origin, get_type_hints

import openai
from openai import NotGiven, Omit
from openai.resources.chat.completions import AsyncCompletions
from openai.types.chat.completion_create_params import CompletionCreateParams

from greenroom.actors.frameworks.model_endings import with_ending
from greenroom.actors.scope import current_turn

_PREPARED = "_greenroom_prepared"
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})


def prepare() -> None:
    """Wrap them. Doing it twice is fine."""
    chats: Any = sys.modules[AsyncCompletions.__module__]
    transform = getattr(chats, "async_maybe_transform", None)
    if transform is not None and not hasattr(transform, _PREPARED):
        chats.async_maybe_transform = plain_as_it_is(transform)
    client: Any = openai.AsyncOpenAI
    if not hasattr(client.request, _PREPARED):
        if _PLATFORM is not None:
            client.request = on_known_platform(client.request, _PLATFORM)
        client.request = with_ending(client.request)
        setattr(client.request, _PREPARED, True)


# -- bodies ------------------------------------------------------------------------------------------------------------


def plain_as_it_is(transform: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """`async_maybe_transform` that gives plain JSON back as it is, if that is what would come of it."""

    @wraps(transform)
    async def transform_the_rest(data: Any, expected_type: Any) -> Any:
        if type(data) is dict and current_turn.get() is not None:
            body = {name: value for name, value in data.items() if not isinstance(value, NotGiven | Omit)}
            if is_plain(body) and changes_nothing(expected_type):
                return body
        return await transform(data, expected_type)

    setattr(transform_the_rest, _PREPARED, True)
    return transform_the_rest


def is_plain(value: Any) -> bool:
    """Whether a value consists of what JSON consists of, and of no subclass of it."""
    kind = type(value)
    if kind is dict:
        return all(map(is_plain, value.values()))
    return kind in _SCALARS or (kind is list and all(map(is_plain, value)))


@lru_cache(maxsize=16)
def changes_nothing(expected_type: Any) -> bool:
    """Whether no field within a type is to be renamed or converted: what is, is `Annotated` with how."""
    seen: set[Any] = set()
    found = [expected_type]
    while found:
        form = found.pop()
        if get_origin(form) is Annotated:
            return False
        if isinstance(form, list) or form in seen:  # a list: the arguments of a `Callable`
            continue
        seen.add(form)
        if is_typed_dict(form):
            found.extend(get_type_hints(form, include_extras=True).values())
        found.extend(get_args(form))
    return True


def is_typed_dict(form: Any) -> bool:
    """Whether something is a `TypedDict`, of `typing` or of `typing_extensions`."""
    return isinstance(form, type) and hasattr(form, "__required_keys__")


# -- the platform ------------------------------------------------------------------------------------------------------


def on_known_platform(request: Callable[..., Awaitable[Any]], platform: Any) -> Callable[..., Awaitable[Any]]:
    """A client's `request` that need not ask where it runs."""

    @wraps(request)
    async def request_from_here(self: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(self, "_platform", platform) is None and current_turn.get() is not None:
            self._platform = platform
        return await request(self, *args, **kwargs)

    setattr(request_from_here, _PREPARED, True)
    return request_from_here


# With this module, as it is loaded with a framework; later there may be a loop to hold up.
for _form in get_args(CompletionCreateParams):
    changes_nothing(_form)
_get_platform: Final = getattr(getattr(openai, "_base_client", None), "get_platform", None)
_PLATFORM: Final = None if _get_platform is None else _get_platform()
