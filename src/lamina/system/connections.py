# SPDX-License-Identifier: Apache-2.0
"""HTTP connections (urllib3's) that can be cut from outside.

A server that says nothing keeps whoever waits for it until a timeout of a minute: ^C does not wait
for that. The response alone is not enough (`shutdown` of urllib3): it may be what is waited for.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from weakref import WeakValueDictionary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from urllib3 import PoolManager
    from urllib3.connection import HTTPConnection


class Connections:
    """The connections of the pools that it watches. `is_cut` once they were cut."""

    def __init__(self) -> None:
        self.is_cut = False
        self._live: WeakValueDictionary[int, HTTPConnection] = WeakValueDictionary()

    def watch(self, pools: PoolManager) -> PoolManager:
        """The manager itself, whose connections are known here from now on."""
        from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
        from urllib3.connection import HTTPConnection, HTTPSConnection

        live = self._live

        class Plain(HTTPConnection):
            def connect(self) -> None:
                super().connect()
                live[id(self)] = self

        class Secure(HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                live[id(self)] = self

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(HTTPSConnectionPool):
            ConnectionCls = Secure

        pools.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}
        return pools

    def cut(self) -> None:
        """End them: what reads or writes raises. May be called by a signal handler: takes no lock."""
        self.is_cut = True
        for reference in self._live.valuerefs():
            connection = reference()
            if connection is not None and connection.sock is not None:
                with suppress(OSError):  # it has ended
                    # not SSLSocket's, which takes the session from under the thread that reads
                    socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)
