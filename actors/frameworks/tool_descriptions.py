"""A tool function's JSON schema, worked out once a function and not once a turn: it takes a millisecond or two.

A handler as the tutorial has it makes a toolkit for every turn. What its functions look like to a model depends on
their signatures and docstrings, which no turn changes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from copy import deepcopy
from functools import wraps
from itertools import chain
from operator import is_
from types import FunctionType, MethodType
from typing import Any

_ONCE = "_greenroom_once"
REMEMBERED = 256
"""Functions remembered by each describing function; beyond it all are described again."""


def described_once(describe: Callable[..., Any]) -> Callable[..., Any]:
    """A function that describes a tool function, made to do so once a function and set of other arguments. What it
    gives is the caller's own. Doing it twice is fine.

    Only for functions of a module's own and methods of its classes, which live as long as it does; others would be kept
    alive by being remembered, as is no object that has the method. A function that was changed since is described anew.
    What its annotations name is taken to stay as it is.
    """
    if hasattr(describe, _ONCE):
        return describe
    remembered: dict[tuple[Any, ...], tuple[tuple[Any, ...], Any]] = {}

    @wraps(describe)
    def described(tool: Any, *args: Any, **kwargs: Any) -> Any:
        bound = type(tool) is MethodType
        function = tool.__func__ if bound else tool
        if type(function) is not FunctionType or not _stays(function):
            return describe(tool, *args, **kwargs)
        key = (function, bound, args, *kwargs.items())
        known = remembered.get(key)
        form = _form(function)
        if known is None or len(known[0]) != len(form) or not all(map(is_, known[0], form)):
            if len(remembered) >= REMEMBERED:
                remembered.clear()
            known = remembered[key] = form, describe(tool, *args, **kwargs)
        return deepcopy(known[1])

    setattr(described, _ONCE, True)
    return described


def _stays(function: FunctionType) -> bool:
    """Whether the function is what its module has by its name, with defaults that nothing changes in place."""
    found: Any = sys.modules.get(function.__module__)
    for name in function.__qualname__.split("."):
        found = getattr(found, name, None)
    if found is not function:
        return False
    defaults = chain(function.__defaults__ or (), (function.__kwdefaults__ or {}).values())
    return not any(isinstance(default, list | dict | set | bytearray) for default in defaults)


def _form(function: FunctionType) -> tuple[Any, ...]:
    """What a description depends on, to be compared by identity."""
    return (
        function.__name__,
        function.__doc__,
        function.__code__,
        *(function.__defaults__ or ()),
        *(function.__kwdefaults__ or {}).values(),
        *function.__annotations__.values(),
        *vars(function).values(),  # `__signature__`, `__wrapped__`
    )
