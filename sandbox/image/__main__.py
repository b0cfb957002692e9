"""`python -m greenroom.sandbox.image`: the tool server of a box. What it is told comes by the environment:

`GREENROOM_BOX`: the box's directory: it holds `token`, and `egress.sock` if there is a way out; `api.sock` is made
in it.
`GREENROOM_BOX_LISTEN`: `host:port` to listen at instead. `SECRET_TOKEN`: the token, where there is no file of it.
`GREENROOM_BOX_KIND`: `browser` (the default) or `base`. `GREENROOM_BOX_BROWSER`: the browser's path.
`GREENROOM_BOX_TRUST`: hashes of public keys (SPKI) that pages may show. `GREENROOM_BOX_NO_SANDBOX=1`: run the browser
without its own sandbox. `GREENROOM_BOX_RELAY`: the port of the way out inside the box, 3128; 0: any that is free, for
boxes that share the network of their host. `WORKSPACE_DIR`: `/workspace`.
"""

import gc
import os
import sys


def main() -> None:
    """Listen first, so that callers can connect, and wait while the rest is imported."""
    from greenroom.sandbox.image.options import listener, options_of

    try:
        options = options_of(os.environ)
        listening = listener(options)
    except (OSError, ValueError) as error:
        sys.exit(f"the box's tool server cannot start: {error}")

    gc.disable()
    import asyncio

    from greenroom.sandbox.image.serving import serve

    asyncio.run(serve(options, listening))


if __name__ == "__main__":
    main()
