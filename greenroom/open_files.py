"""How many files a server may have open: each connection is one, and boxes of sandboxes may hold hundreds each."""

from __future__ import annotations

import sys
from typing import Final

ENOUGH: Final = 65_536
"""Where the system sets no bound. Some programs that are started walk all numbers there could be."""


def raise_open_files() -> None:
    """Let this process have as many as the system lets it: the usual soft bound, 1,024, is for programs that use
    `select`, and stops a server early."""
    if sys.platform == "win32":
        return  # it has no such bound
    import resource

    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if most == resource.RLIM_INFINITY else min(most, ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
