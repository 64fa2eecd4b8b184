# SPDX-License-Identifier: Apache-2.0
"""What a command is given of the world: environment, directory, streams, clock, store."""

from __future__ import annotations

import os
import sys

from lamina.app.settings import store_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TextIO

    from lamina.app.settings import Settings
    from lamina.cli.helptext import Aliases, Commands
    from lamina.events import Emitter, Event
    from lamina.registry.client import Registries
    from lamina.spec.platform import Platform
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken, Work


class Context:
    """The world as one command sees it. Made once in `main`; tests make their own.

    `root` is the store's directory; `store()` opens it on first use. `token()` is cancelled by the
    first SIGINT or SIGTERM; a second one ends the process at once.
    """

    def __init__(
        self,
        *,
        env: Mapping[str, str],
        cwd: str,
        uid: int,
        stdin: TextIO,
        stdout: TextIO,
        stderr: TextIO,
        clock: Callable[[], float],
        root: str = "",
    ) -> None:
        self.env = env
        self.cwd = cwd
        self.uid = uid
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.clock = clock
        self.root = root or store_root(env, uid)
        self.tables: tuple[Commands, Aliases] = ({}, {})  # of the commands that there are
        self._store: Store | None = None
        self._token: CancelToken | None = None
        self._settings: Settings | None = None
        self._told: set[str] = set()  # notices

    def store(self) -> Store:
        """The store at `root`, opened on the first call."""
        if self._store is None:
            from lamina.store import open_store

            self._store = open_store(
                self.root, clock=self.clock, layers=lambda: self.settings().layers
            )
        return self._store

    def settings(self) -> Settings:
        """The configuration files and `LAMINA_*` variables, read on the first call."""
        if self._settings is None:
            from lamina.app.settings import load_settings

            self._settings = load_settings(self.env, uid=self.uid)
        return self._settings

    def token(self) -> CancelToken:
        """The cancel token of this process; installs the signal handlers on the first call."""
        if self._token is None:
            self._token = _signalled_token()
        return self._token

    def work(self, emit: Emitter) -> Work:
        """What a command's work is done with: it tells `emit`, and the signals cancel it."""
        from lamina.tasks import Work

        return Work(emit, self.token(), self.clock)

    def platform(self) -> Platform:
        """The platform of this host."""
        from lamina.spec.platform import host

        return host(os.uname().machine)

    def registries(self) -> Registries:
        """The way into registries with the user's settings and credentials: a context manager."""
        from lamina.app.registries import connect

        return connect(
            self.env,
            uid=self.uid,
            settings=self.settings(),
            clock=self.clock,
            cancel=self.token(),
        )

    def print(self, text: str = "") -> None:
        """One line on standard output."""
        self.stdout.write(text + "\n")

    def warn(self, text: str) -> None:
        """One line on standard error."""
        self.stderr.write(text + "\n")
        self.stderr.flush()

    def notices(self, event: Event) -> None:
        """An emitter (`emit=context.notices`): prints notices on standard error, each once, and
        nothing else.
        """
        from lamina.cli.ui.escape import printable
        from lamina.events import Notice

        if isinstance(event, Notice) and event.message not in self._told:
            self._told.add(event.message)
            self.warn(f"lamina: {printable(event.message)}")

    def path(self, path: str) -> str:
        """`path` made absolute from the working directory (links and `..` are left alone)."""
        return path if path.startswith("/") else f"{self.cwd.rstrip('/')}/{path}"

    def close(self) -> None:
        """Close what was opened. Idempotent."""
        if self._store is not None:
            self._store.close()
            self._store = None


def _signalled_token() -> CancelToken:
    import os

    from lamina.errors import EXIT_INTERRUPTED
    from lamina.start.lowlevel import signal
    from lamina.tasks import CancelToken

    token = CancelToken()

    def stop(number: int, frame: object) -> None:  # noqa: ARG001  # the signature is signal's
        if token.is_cancelled:
            sys.stderr.write("\nlamina: stopped at once\n")
            os._exit(EXIT_INTERRUPTED)
        token.cancel()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    return token
