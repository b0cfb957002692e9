"""Run by the official application's own Python, in its folder: serves it as its image does, below `/fastapi`.

`serve.py PORT`. In the image nginx stands before the application and takes the prefix away; here these lines do.
"""

import sys

import uvicorn
from app import app  # type: ignore[import-not-found]

PREFIX = "/fastapi"


async def below_prefix(scope, receive, send):  # type: ignore[no-untyped-def]
    """The application, for requests below the prefix."""
    if scope["type"] == "http":
        path = scope["path"]
        if not path.startswith(PREFIX + "/"):
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b"nginx: 404 Not Found"})
            return
        raw = scope["raw_path"].removeprefix(PREFIX.encode())
        scope = {**scope, "path": path.removeprefix(PREFIX), "raw_path": raw}
    await app(scope, receive, send)


if __name__ == "__main__":
    uvicorn.run(below_prefix, host="127.0.0.1", port=int(sys.argv[1]), log_level="info")
