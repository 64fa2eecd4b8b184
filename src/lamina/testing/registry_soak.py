# SPDX-License-Identifier: Apache-2.0
"""Load on a registry that keeps account of what was acknowledged: many clients, kills, nothing lost.

`soak` pushes, pulls, mounts and deletes from many connections; `interrupt` kills the server again and
again while clients push, and goes on with their uploads. Both find what was acknowledged and is not
there. bench/soak.py runs them for long, the tests for seconds.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import threading
import time

from lamina.spec import mediatype
from lamina.start.record import Record
from lamina.testing.registry import RegistryClient, with_query

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from lamina.testing.registry import Answer, RegistryServer

_REPOSITORIES = 8
_COMMON = 12  # layers that everybody pushes
_KEPT = 20  # tags of one client; older ones are deleted
_CHUNK = 64 * 1024
_CUT = (OSError, http.client.HTTPException)  # what a killed server looks like to a client


class Pushed(Record):
    """An acknowledged manifest, and the blobs it needs."""

    path: str
    digest: str
    blobs: tuple[str, ...]


class Report(Record):
    """What happened. `failures` are sentences; an empty list is what is wanted."""

    pushed: int
    pulled: int
    resumed: int
    failures: tuple[str, ...]


class Ledger:
    """What the clients of one run did; safe to use from their threads."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._held: dict[str, Pushed] = {}
        self.failures: list[str] = []
        self.counts = {"pushed": 0, "pulled": 0, "resumed": 0}

    def count(self, what: str) -> None:
        with self._guard:
            self.counts[what] += 1

    def fail(self, what: str) -> None:
        with self._guard:
            self.failures.append(what)

    def keep(self, pushed: Pushed) -> None:
        with self._guard:
            self._held[pushed.path] = pushed
            self.counts["pushed"] += 1

    def forget(self, path: str) -> None:
        with self._guard:
            self._held.pop(path, None)

    def held(self) -> list[Pushed]:
        with self._guard:
            return list(self._held.values())

    def report(self) -> Report:
        return Report(**self.counts, failures=tuple(self.failures))


def verify(client: RegistryClient, pushed: Pushed, ledger: Ledger) -> None:
    """Pull the manifest and its blobs, and compare every digest."""
    got = client("GET", pushed.path)
    if got.status != 200 or _sha256(got.body) != pushed.digest:
        ledger.fail(f"{pushed.path}: {got.status} instead of {pushed.digest}")
        return
    repository = pushed.path.rpartition("/manifests/")[0]
    for blob in pushed.blobs:
        answer = client("GET", f"{repository}/blobs/{blob}")
        if answer.status != 200 or _sha256(answer.body) != blob:
            ledger.fail(f"{pushed.path}: blob {blob}: {answer.status}")
    ledger.count("pulled")


def soak(server: RegistryServer, *, clients: int, seconds: float, grace: float) -> Report:
    """Load for that long, then everything acknowledged is pulled again.

    `grace` is the collector's: a push that took longer than it may be told that a blob is gone.
    """
    ledger = Ledger()
    until = time.monotonic() + seconds
    workers = [_Worker(server.port, n, ledger, until=until, grace=grace) for n in range(clients)]
    _together([worker.run for worker in workers])
    client = RegistryClient(server.port)
    for pushed in ledger.held():
        verify(client, pushed, ledger)
    metrics = client("GET", "/metrics").body.decode()
    for line in metrics.splitlines():
        if line.startswith("lamina_registry_requests_total") and 'status="5' in line:
            ledger.fail(line)
    client.connection.close()
    return ledger.report()


class _Worker:
    """One client of a soak, with its own tags in repositories that it shares."""

    def __init__(
        self, port: int, number: int, ledger: Ledger, *, until: float, grace: float
    ) -> None:
        self._client = RegistryClient(port)
        self._number = number
        self._ledger = ledger
        self._until = until
        self._grace = grace
        self._random = random.Random(number)  # noqa: S311  # a workload, no secret
        self._mine: list[Pushed] = []
        self._serial = 0

    def run(self) -> None:
        try:
            while time.monotonic() < self._until:
                self._step()
        except Exception as error:  # noqa: BLE001  # whatever it is, it is a failure
            self._ledger.fail(f"client {self._number}: {error!r}")
        finally:
            self._client.connection.close()

    def _step(self) -> None:
        choice = self._random.random()
        if choice < 0.45 or not self._mine:
            self._push()
        elif choice < 0.85:
            verify(self._client, self._random.choice(self._mine), self._ledger)
        elif choice < 0.95:
            self._delete(self._mine.pop(self._random.randrange(len(self._mine))))
        else:  # an upload that nobody finishes
            location = self._ask("POST", f"/v2/{self._repository()}/blobs/uploads/", 202)
            self._ask("PATCH", location.headers["location"], 202, b"x" * 1000)
        if len(self._mine) > _KEPT:
            self._delete(self._mine.pop(0))

    def _push(self) -> None:
        """An image of a layer that all share and one of its own; sometimes below an index."""
        repository = self._repository()
        self._serial += 1
        tag = f"c{self._number}-{self._serial}"
        begun = time.monotonic()
        common = random.Random(self._random.randrange(_COMMON)).randbytes(30_000)  # noqa: S311
        layers = [self._blob(repository, common), self._blob(repository, self._own())]
        config = self._blob(repository, json.dumps({"made": tag}).encode())
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": mediatype.OCI_MANIFEST,
            "config": {"mediaType": mediatype.OCI_CONFIG, **config},
            "layers": [{"mediaType": mediatype.OCI_LAYER, **layer} for layer in layers],
        }
        raw = json.dumps(document).encode()
        answer = self._client.push_manifest(repository, tag, raw)
        if answer.status == 404 and time.monotonic() - begun > self._grace:
            return
        if answer.status != 201:
            self._ledger.fail(f"{repository}:{tag}: {answer.status} {answer.body[:300]!r}")
            return
        blobs = (config["digest"], *(layer["digest"] for layer in layers))
        pushed = Pushed(f"/v2/{repository}/manifests/{tag}", _sha256(raw), blobs)
        self._mine.append(pushed)
        self._ledger.keep(pushed)

    def _blob(self, repository: str, data: bytes) -> dict[str, Any]:
        """Push as clients do: ask first, mount if one can, else upload in one of three ways."""
        digest = _sha256(data)
        described = {"digest": digest, "size": len(data)}
        path = f"/v2/{repository}/blobs"
        if self._client("HEAD", f"{path}/{digest}").status == 200:
            return described
        way = self._random.randrange(4)
        if way == 0:
            self._ask("POST", f"{path}/uploads/?digest={digest}", 201, data)
        elif way == 1:
            begun = self._client("POST", f"{path}/uploads/?mount={digest}&from=soak/r0")
            if begun.status != 201:
                last = with_query(begun.headers["location"], f"digest={digest}")
                self._ask("PUT", last, 201, data)
        else:
            location = self._ask("POST", f"{path}/uploads/", 202).headers["location"]
            if way == 2:
                location = self._ask("PATCH", location, 202, data[:999]).headers["location"]
                data = data[999:]
            self._ask("PUT", with_query(location, f"digest={digest}"), 201, data)
        return described

    def _delete(self, pushed: Pushed) -> None:
        self._ledger.forget(pushed.path)
        self._ask("DELETE", pushed.path, 202)

    def _ask(self, method: str, path: str, status: int, body: bytes | None = None) -> Answer:
        answer = self._client(method, path, body)
        if answer.status != status:
            self._ledger.fail(f"{method} {path}: {answer.status} {answer.body[:300]!r}")
        return answer

    def _repository(self) -> str:
        return f"soak/r{self._random.randrange(_REPOSITORIES)}"

    def _own(self) -> bytes:
        return self._random.randbytes(self._random.choice((100, 5_000, 200_000)))


class Interrupted:
    """An upload that a kill cut off: `offset` bytes were acknowledged; `closing`: PUT was sent."""

    def __init__(self, repository: str, location: str, data: bytes) -> None:
        self.repository = repository
        self.location = location
        self.data = data
        self.offset = 0
        self.closing = False


def interrupt(server: RegistryServer, *, kills: int, clients: int = 4, pushes: int = 8) -> Report:
    """Kill the server that often, each time after `pushes` acknowledged manifests.

    After each restart: every manifest acknowledged since the last one is whole and every upload goes
    on from what was acknowledged. At the end all are pulled again.
    """
    ledger = Ledger()
    for round_ in range(kills):
        before = {pushed.path for pushed in ledger.held()}
        cut = _push_until_killed(server, ledger, round_=round_, clients=clients, pushes=pushes)
        server.start()
        client = RegistryClient(server.port)
        for upload in cut:
            _resume(client, upload, ledger)
        for pushed in ledger.held():
            if pushed.path not in before:
                verify(client, pushed, ledger)
        client.connection.close()
    client = RegistryClient(server.port)
    for pushed in ledger.held():
        verify(client, pushed, ledger)
    client.connection.close()
    return ledger.report()


def _push_until_killed(
    server: RegistryServer, ledger: Ledger, *, round_: int, clients: int, pushes: int
) -> list[Interrupted]:
    """Uploads that the kill cut off."""
    cut: list[Interrupted] = []
    enough = threading.Semaphore(0)

    def work(number: int) -> None:
        client = RegistryClient(server.port)
        serial = 0
        try:
            while True:
                serial += 1
                name = f"kill/r{number}/manifests/k{round_}-{serial}"
                _push_in_chunks(client, f"/v2/{name}", ledger, cut)
                enough.release()
        except _CUT:
            pass
        finally:
            client.connection.close()
            enough.release()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for _ in range(pushes):
        enough.acquire()
    server.kill()
    for thread in threads:
        thread.join()
    return cut


def _push_in_chunks(
    client: RegistryClient, path: str, ledger: Ledger, cut: list[Interrupted]
) -> None:
    repository, _, tag = path.removeprefix("/v2/").partition("/manifests/")
    layer = random.Random(path).randbytes(4 * _CHUNK + 17)  # noqa: S311  # as above
    location = client("POST", f"/v2/{repository}/blobs/uploads/").headers["location"]
    upload = Interrupted(repository, location, layer)
    try:
        _continue(client, upload)
    except _CUT:
        cut.append(upload)
        raise
    config = client.push_blob(repository, tag.encode())
    blobs = (config, _sha256(layer))
    document = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": {"mediaType": mediatype.OCI_CONFIG, "digest": config, "size": len(tag)},
        "layers": [{"mediaType": mediatype.OCI_LAYER, "digest": blobs[1], "size": len(layer)}],
    }
    raw = json.dumps(document).encode()
    answer = client.push_manifest(repository, tag, raw)
    if answer.status == 201:
        ledger.keep(Pushed(path, _sha256(raw), blobs))
    else:
        ledger.fail(f"{path}: {answer.status} {answer.body[:300]!r}")


def _continue(client: RegistryClient, upload: Interrupted) -> Answer:
    """Send the rest in chunks, and the digest; the last answer."""
    while upload.offset < len(upload.data):
        part = upload.data[upload.offset : upload.offset + _CHUNK]
        span = f"{upload.offset}-{upload.offset + len(part) - 1}"
        answer = client("PATCH", upload.location, part, {"Content-Range": span})
        if answer.status != 202:
            return answer
        upload.offset += len(part)
    upload.closing = True
    return client("PUT", with_query(upload.location, f"digest={_sha256(upload.data)}"), b"")


def _resume(client: RegistryClient, upload: Interrupted, ledger: Ledger) -> None:
    """Go on from the server's offset, which is at least what was acknowledged."""
    status = client("GET", upload.location)
    blob = f"/v2/{upload.repository}/blobs/{_sha256(upload.data)}"
    if status.status == 404 and upload.closing and client("HEAD", blob).status == 200:
        ledger.count("resumed")  # the PUT was done and its answer was lost
        return
    if status.status != 204:
        ledger.fail(f"{upload.location}: {status.status} after a restart")
        return
    offset = int(status.headers["range"].partition("-")[2]) + 1
    if offset == 1 and not upload.offset:
        offset = 0  # "0-0" is what an empty upload says
    if offset < upload.offset:
        ledger.fail(f"{upload.location}: {offset} bytes of {upload.offset} acknowledged")
        return
    upload.offset = offset
    answer = _continue(client, upload)
    if answer.status != 201 or client("GET", blob).body != upload.data:
        ledger.fail(f"{upload.location}: {answer.status} {answer.body[:300]!r} at the end")
        return
    ledger.count("resumed")


def _together(works: Sequence[Any]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()
