"""The process that a local model runs in. Started by `LocalModel` as a script, with the interpreter that runs it.

It is a process of its own because xllamacpp holds the interpreter's lock for all of the seconds that loading takes,
waits for ever, still holding it, when a server is destroyed right after it was made, and aborts the process on what
llama.cpp takes for a broken file. Each of these would stop a program that serves others at the time.

What is said over the pipes: settings as one line of JSON on standard input; then `{"url": …}` or `{"error": …}`
as one line on standard output. It runs until its standard input ends, which it does however the parent dies.
"""

import json
import os
import signal
import sys
import tempfile
import time
from typing import Any

LAST_LINES = 5  # of what llama.cpp logged, which a failure quotes
LOG_DELAY = 0.2  # seconds; it logs from a thread of its own, which nothing can wait for
ERRORS_ONLY = 1  # llama.cpp's verbosity: 0 output, 1 errors, 2 warnings, 3 information


def main() -> None:
    # The parent says when it is over: a Ctrl-C or a stop sent to the whole group reaches it too, and it may have
    # turns to finish first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever llama.cpp prints, the answer is alone on its pipe
    settings = json.loads(sys.stdin.buffer.readline())
    server, answer = load(settings)
    answers.write(json.dumps(answer) + "\n")
    answers.flush()
    if server is not None:
        sys.stdin.buffer.read()
    os._exit(0)  # destroying the server can hang, and there is nothing to save


def load(settings: dict[str, Any]) -> tuple[Any, dict[str, str]]:
    """The running server and where it listens; or none and what llama.cpp said."""
    import xllamacpp

    own_stderr = os.dup(2)
    with tempfile.TemporaryFile() as log:
        os.dup2(log.fileno(), 2)
        try:
            server = xllamacpp.Server(parameters(settings))
        except (RuntimeError, ValueError) as error:
            time.sleep(LOG_DELAY)
            log.seek(0)
            said = log.read().decode(errors="replace").strip().splitlines()[-LAST_LINES:]
            return None, {"error": "\n".join([str(error), *said])}
        finally:
            os.dup2(own_stderr, 2)
    return server, {"url": server.listening_address}


def parameters(settings: dict[str, Any]) -> Any:
    """llama.cpp's own, with a bound on all that grows."""
    import xllamacpp

    wanted = xllamacpp.CommonParams()
    wanted.model.path = settings["path"]
    wanted.model_alias = {settings["name"]}
    wanted.api_keys = [
        settings["api_key"]
    ]  # the port is open to every program, and web page, on this machine
    wanted.cors_origins = ""
    wanted.hostnames = ["127.0.0.1"]
    wanted.port = 0
    wanted.use_jinja = True
    wanted.n_parallel = settings["slots"]
    wanted.n_ctx = settings["context"] * settings["slots"]  # llama.cpp deals it out to the slots
    wanted.n_predict = settings["max_tokens"]
    wanted.cache_ram_mib = 0  # a cache of old prompts, 8 GB unless told otherwise
    wanted.cpuparams.n_threads = settings["threads"]
    wanted.cpuparams_batch.n_threads = settings["threads"]
    wanted.sampling.temp = settings["temperature"]
    wanted.verbosity = ERRORS_ONLY
    wanted.ui = False
    wanted.endpoint_slots = False
    return wanted


if __name__ == "__main__":
    main()
