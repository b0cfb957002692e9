"""Versions of what lies on a Redis server behind a prefix, and how what an older version wrote becomes the newest.

To change what lies where (`scripts`), add a migration to `MIGRATIONS` and leave those there are as they are:
servers with every version are out there. A migration is Lua that is carried out behind what all scripts have in common,
within the script that starts a storage: so it is done as a whole, nobody else is served meanwhile, and it may not fail
once it has written. Processes of the version before may be at work (a deploy rolls): each of their writes asks for the
version, and is refused from then on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from greenroom.actors.errors import StoreUnavailable

MIGRATIONS: Final[tuple[str, ...]] = ("-- There is nothing to be made before it is written.",)
"""The first makes version 1 out of nothing, each further one the next version out of the one before it."""
VERSION: Final = len(MIGRATIONS)

CHECK: Final = """
-- A newer process may have changed what lies where.
local version = tonumber(redis.call('GET', PREFIX .. 'version') or 0)
if version > VERSION then return answer({-2, now, version}) end
"""
"""What each script that writes does first. `VERSION` is replaced by the one that its process knows."""


def start_body(migrations: Sequence[str] = MIGRATIONS) -> str:
    """The script that brings all to the newest version, and answers with the one it is then."""
    steps = [
        f"if version < {number} then\n{migration}\nend" for number, migration in enumerate(migrations, 1)
    ]
    return "\n".join(
        [
            "local version = tonumber(redis.call('GET', PREFIX .. 'version') or 0)",
            *steps,
            f"if version < {len(migrations)} then",
            f"  version = {len(migrations)}",
            "  redis.call('SET', PREFIX .. 'version', version)",
            "end",
            "return answer({0, now, version})",
        ]
    )


def newer(version: int) -> StoreUnavailable:
    """The error for what a newer version has written."""
    return StoreUnavailable(
        f"the sessions are kept on a Redis server in version {version}, which a newer Greenroom has made; this one "
        f"knows version {VERSION} and leaves them as they are; run the newer one, or name another prefix"
    )
