"""A page that says hello, served with bottle on port 8000."""

import os
import signal

from bottle import route, run

GREETING = "Hello from lamina"


@route("/")
def index():
    return f"<!doctype html><title>python-app</title><h1>{GREETING}</h1><p>{os.uname().nodename}</p>\n"


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # a container's first process has no default action
    run(host="0.0.0.0", port=8000)
