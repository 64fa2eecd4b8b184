# SPDX-License-Identifier: Apache-2.0
"""A registry as a process: storage, rights, HTTP server, signals, and the collector's thread."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from lamina.errors import EXIT_INTERRUPTED, Kind, LaminaError
from lamina.server import routes
from lamina.server.admin import AdminPages
from lamina.server.caches import Caches
from lamina.server.handlers import Registry
from lamina.server.metrics import Metrics
from lamina.server.past import Past
from lamina.server.rights import ADMIN, ADMIN_PATH, OpenGate
from lamina.server.rsgi import Edge
from lamina.server.storage import open_driver
from lamina.server.web.site import Site
from lamina.server.webhooks import Webhooks
from lamina.server.wire import Blocking, Refusal, Request, Response

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TextIO

    from granian.server.embed import Server

    from lamina.registry.endpoints import NetworkSettings
    from lamina.server.config import Config
    from lamina.server.ports import Storage
    from lamina.server.rights import Gate
    from lamina.server.storage import Driver
    from lamina.server.wire import Answer

_log = logging.getLogger(__name__)
_THREADS = 16  # for writes, hashes and flushes; they release the GIL
_WAITING = 64  # threads for a storage that is remote: most of them wait
_CONNECTIONS = 8192
_SHUTDOWN = 20.0  # seconds that requests in flight get; below Kubernetes' 30


def serve(
    config: Config,
    *,
    ready: Callable[[str], None],
    clock: Callable[[], float] = time.time,
    access_log: TextIO | None = None,
    network: NetworkSettings | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; `ready` is called with the address once it accepts requests.

    `network` is how the upstreams of pull-through caches are reached.

    Raises:
        LaminaError: the port is taken, the configuration names files that are not there, another
            process serves the directory, or the HTTP server is not installed.
    """
    try:
        import granian  # noqa: F401  # the extra `lamina[registry]`
    except ImportError as error:
        raise _not_installed(error) from error
    host, port = config.address()
    check_tls(config)
    gate = make_gate(config, clock=clock)
    with reserved(host, port) as number:
        driver = open_driver(config, clock=clock)
        try:
            asyncio.run(
                _run(
                    config,
                    driver,
                    gate,
                    host,
                    number,
                    ready=ready,
                    access_log=access_log,
                    clock=clock,
                    network=network,
                )
            )
        finally:
            driver.storage.close()


def check_tls(config: Config) -> None:
    """Nothing, if the certificate and the key can be served.

    Raises:
        LaminaError: kind NOT_FOUND, or INVALID if they are broken or do not fit each other.
    """
    if not config.tls_certificate:
        return
    import ssl

    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(config.tls_certificate, config.tls_key)
    except FileNotFoundError as error:
        raise LaminaError(
            f"{config.tls_certificate} or {config.tls_key} does not exist", kind=Kind.NOT_FOUND
        ) from error
    except ssl.SSLError as error:
        raise LaminaError(
            f"{config.tls_certificate} and {config.tls_key} are no certificate and its key:"
            f" {error.reason}",
            kind=Kind.INVALID,
        ) from error


def make_gate(config: Config, *, clock: Callable[[], float]) -> Gate:
    """The gate that the configuration asks for."""
    if not config.authenticates:
        return OpenGate()
    try:
        import bcrypt  # noqa: F401  # the extra `lamina[registry]`
        import jwt  # noqa: F401

        from lamina.server.gate import ConfiguredGate
    except ImportError as error:
        raise _not_installed(error) from error
    return ConfiguredGate(config, clock=clock)


def _not_installed(error: ImportError) -> LaminaError:
    return LaminaError(
        f"the registry server needs a package that is not installed: {error.name}",
        kind=Kind.SYSTEM,
        hint="pip install 'lamina[registry]'",
    )


async def _run(
    config: Config,
    driver: Driver,
    gate: Gate,
    host: str,
    port: int,
    *,
    ready: Callable[[str], None],
    access_log: TextIO | None,
    clock: Callable[[], float],
    network: NetworkSettings | None,
) -> None:
    metrics = Metrics()
    storage = driver.storage
    threads = _WAITING if storage.remote else _THREADS
    pool = ThreadPoolExecutor(threads, thread_name_prefix="registry")
    stop = threading.Event()
    hooks = None
    if config.webhooks:
        hooks = Webhooks(config.webhooks)
    notify = None if hooks is None else hooks.notify
    past = Past(driver.ledger, config)
    caches = Caches(config, driver, clock=clock, metrics=metrics, network=network)
    registry = Registry(
        storage,
        gate,
        limits=config.limits,
        read_only=config.read_only,
        notify=notify,
        ledger=past.ledger,
        upstreams=caches.through,
    )
    admin = AdminPages(past, gate, read_only=config.read_only)
    scheme = "https" if config.tls_certificate else "http"
    address = f"{f'[{host}]' if ':' in host else host}:{port}"
    site = None
    if config.web:
        site = Site(storage, gate, overview=driver.overview, address=address, clock=time.time)
    pages = Pages(registry, gate, storage, metrics, site=site, admin=admin)
    edge = Edge(
        pages.answer,
        pool=pool,
        metrics=metrics,
        limits=config.edge,
        access=None if access_log is None else AccessLog(access_log),
    )
    metrics.gauges["lamina_registry_requests_in_flight"] = (
        "Requests being answered.",
        lambda: float(edge.in_flight),
    )
    keepers = [
        threading.Thread(
            target=past.keep, kwargs={"metrics": metrics, "stop": stop, "notify": notify}
        )
    ]
    if config.gc_interval:
        keepers.append(
            threading.Thread(target=_collect_forever, args=(storage, config, metrics, stop))
        )
    if config.scrub_interval:
        keepers.append(
            threading.Thread(target=_scrub_forever, args=(storage, config, metrics, stop))
        )
    server = _server(edge, config, host, port)
    task = asyncio.create_task(server.serve())
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop_soon() -> None:
        if edge.closing:  # the second signal
            os._exit(EXIT_INTERRUPTED)
        ended.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop_soon)
    task.add_done_callback(lambda _: ended.set())
    for keeper in keepers:
        keeper.start()
    try:
        await _accepting(host, port)
        ready(f"{scheme}://{address}")
        await ended.wait()
    finally:
        stop.set()
        edge.closing = True
        deadline = loop.time() + _SHUTDOWN
        while edge.in_flight and loop.time() < deadline:  # noqa: ASYNC110  # once, at the end
            await asyncio.sleep(0.02)
        edge.cut()
        await asyncio.sleep(0)  # the pipes of what was cut are closed
        server.stop()  # type: ignore[no-untyped-call]  # granian's
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(task, max(1.0, deadline - loop.time()))
        for keeper in keepers:
            await loop.run_in_executor(None, keeper.join)
        await loop.run_in_executor(None, caches.close)
        if hooks is not None:
            await loop.run_in_executor(None, hooks.close)
        pool.shutdown(cancel_futures=True)


class Pages:
    """The registry's own pages beside the API. `site` is the web page, if there is one."""

    def __init__(
        self,
        registry: Registry,
        gate: Gate,
        storage: Storage,
        metrics: Metrics,
        *,
        admin: AdminPages,
        site: Site | None = None,
    ) -> None:
        self._registry = registry
        self._admin = admin
        self._gate = gate
        self._storage = storage
        self._metrics = metrics
        self._site = site

    def answer(self, request: Request) -> Answer:
        if request.method not in _READS:
            _check_origin(request)
        if self._site is not None and self._site.owns(request.path):
            return self._site.answer(request)
        if request.path.startswith("/v2/"):
            return self._registry.answer(request)
        if request.path.startswith(ADMIN_PATH):
            return self._admin.answer(request)
        found = routes.route(request.path)
        if isinstance(found, routes.Page):
            return self._page(found.name, request)
        return self._registry.answer(request)

    def _page(self, name: str, request: Request) -> Answer:
        text = ("content-type", "text/plain; charset=utf-8")
        if name == "token":
            return self._gate.token(request)
        if request.method not in _READS:
            raise Refusal("UNSUPPORTED", "only GET and HEAD", headers=(("allow", "GET, HEAD"),))
        if name == "healthz":
            return Blocking(lambda: self._healthy(text))
        if name == "metrics":
            identity = self._gate.known(request)
            if identity is None:
                identity = self._gate.identify(request)
            if not self._gate.allows(identity, "", ADMIN):
                raise self._gate.refusal(identity, "", ADMIN)
            kind = ("content-type", "text/plain; version=0.0.4; charset=utf-8")
            return Response(200, (kind,), self._metrics.text().encode())
        return Response(200, (text,), b"a lamina registry; its API is at /v2/\n")

    def _healthy(self, text: tuple[str, str]) -> Response:
        self._storage.manifests.repositories(n=1, last="")
        return Response(200, (text,), b"ok\n")


_READS = frozenset({"GET", "HEAD"})


def _check_origin(request: Request) -> None:
    """Nothing, unless a browser sends the request for a page of somebody else.

    The browser of a user who has signed in adds the password to such a request too. Other clients
    do not send the header (Fetch Metadata, W3C).

    Raises:
        Refusal: DENIED.
    """
    if request.header("sec-fetch-site") not in {"", "same-origin", "none"}:
        raise Refusal("DENIED", "requests from other sites' pages are not taken")


class AccessLog:
    """One JSON object a line for each request."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, request: Request, status: int, sent: int, seconds: float) -> None:
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "client": request.client,
            "method": request.method,
            "path": request.path,
            "status": status,
            "bytes": sent,
            "ms": round(seconds * 1000, 2),
            "agent": request.header("user-agent"),
        }
        self._stream.write(json.dumps(entry) + "\n")
        self._stream.flush()


def _collect_forever(
    storage: Storage, config: Config, metrics: Metrics, stop: threading.Event
) -> None:
    while not stop.wait(config.gc_interval):
        try:
            found = storage.upkeep.collect(untagged_after=config.untagged_after)
        except Exception:  # noqa: BLE001  # the collector's own edge: it must live to try again
            _log.exception("garbage collection failed")
            continue
        metrics.add("lamina_registry_collected_bytes_total", found.bytes, help="Bytes collected.")
        metrics.add("lamina_registry_collected_blobs_total", found.blobs, help="Blobs collected.")


def _scrub_forever(
    storage: Storage, config: Config, metrics: Metrics, stop: threading.Event
) -> None:
    while not stop.wait(config.scrub_interval):
        try:
            damaged = storage.upkeep.scrub(cancelled=stop.is_set)
        except Exception:  # noqa: BLE001  # as the collector's
            _log.exception("scrubbing failed")
            continue
        for digest in damaged:
            _log.error("damaged: %s", digest)
        metrics.gauges["lamina_registry_damaged"] = (
            "Blobs and manifests that the last scrub found damaged.",
            partial(float, len(damaged)),
        )


def _server(edge: Edge, config: Config, host: str, port: int) -> Server:
    from granian.constants import HTTPModes, Interfaces, SSLProtocols
    from granian.http import HTTP1Settings
    from granian.server.embed import Server

    return Server(
        edge,
        address=host,
        port=port,
        interface=Interfaces.RSGI,
        http=HTTPModes.http1,  # registry clients gain nothing from HTTP/2, and uploads lose
        websockets=False,
        backlog=1024,
        backpressure=_CONNECTIONS,
        runtime_threads=config.threads,
        log_enabled=False,
        http1_settings=HTTP1Settings(header_read_timeout=int(config.header_timeout * 1000)),
        ssl_cert=Path(config.tls_certificate) if config.tls_certificate else None,
        ssl_key=Path(config.tls_key) if config.tls_key else None,
        ssl_protocol_min=SSLProtocols.tls12,
    )


@contextlib.contextmanager
def reserved(host: str, port: int) -> Iterator[int]:
    """The port, which is free (0: any): bound until the block ends, so that nobody else takes it.

    granian listens with SO_REUSEPORT, under which two servers would share a port unnoticed. So the
    port is taken as other servers take it, by listening, which one socket can; then it is opened to
    granian, but to nobody who does not ask for SO_REUSEPORT, such as the next registry here.
    With SO_REUSEADDR the past connections of another server (TIME_WAIT) do not count.

    Raises:
        LaminaError: kind CONFLICT if it is taken, DENIED, or INVALID if there is no such host.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise LaminaError(f"cannot listen on {host}: {error}", kind=Kind.INVALID) from error
    with socket.socket(family, kind) as chosen, socket.socket(family, kind) as held:
        try:
            for each in (chosen, held):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            chosen.bind(address)
            number: int = chosen.getsockname()[1]
            held.bind((host, number, *address[2:]))  # only a port asked for survives `shutdown`
            held.listen()
        except OSError as error:
            kind_of = Kind.DENIED if isinstance(error, PermissionError) else Kind.CONFLICT
            raise LaminaError(
                f"cannot listen on {host}:{port}: {error.strerror}", kind=kind_of
            ) from error
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        held.shutdown(socket.SHUT_RDWR)  # no connection is for it
        chosen.close()  # granian could not bind beside it
        yield number


async def _accepting(host: str, port: int) -> None:
    """Return when a connection is accepted."""
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            await asyncio.sleep(0.02)
            continue
        writer.close()
        return
    raise LaminaError(f"the server does not accept connections on {host}:{port}")
