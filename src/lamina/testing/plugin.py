# SPDX-License-Identifier: Apache-2.0
"""Fixtures for projects that test with lamina; pytest finds them where lamina is installed.

    def test_app(lamina_image, lamina_container):
        image = lamina_image(".")
        container = lamina_container(image, ports=[8000], wait_for=8000)
        urlopen(f"http://127.0.0.1:{container.host_port(8000)}")

Every pytest of an environment loads this module: what it needs beyond pytest is imported in use.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import pytest

import lamina

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import Protocol

    from lamina.app.apicontainers import Container
    from lamina.app.run_options import RunOptions
    from lamina.image.view import Image
    from lamina.testing.registry import RegistryServer

    WaitFor = int | str | Callable[[Container], bool] | None

    class ImageBuilder(Protocol):
        """What `lamina_image` gives."""

        def __call__(
            self,
            source: str | os.PathLike[str],
            *,
            files: Mapping[str, str | bytes] | None = None,
            tag: str = "",
            target: str = "",
            build_args: Mapping[str, str] | None = None,
        ) -> Image: ...

    class ContainerStarter(Protocol):
        """What `lamina_container` gives."""

        def __call__(
            self,
            image: Image | str,
            command: Sequence[str] | str = (),
            *,
            ports: Iterable[int] | Mapping[int, int] = (),
            env: Mapping[str, str] | None = None,
            name: str = "",
            options: RunOptions | None = None,
            wait_for: WaitFor = None,
            timeout: float = 60,
        ) -> Container: ...


_PAUSE = 0.02  # seconds between two looks
_LAST_LINES = 200  # of a container's log, in a report
_LISTENING = "0A"  # state of a socket in /proc/PID/net/tcp
_CONTAINERS = pytest.StashKey[list["Container"]]()


@pytest.fixture(scope="session")
def lamina_image(tmp_path_factory: pytest.TempPathFactory) -> ImageBuilder:
    """A function that builds an image: of a directory, or of a Dockerfile's text with `files` beside
    it. What was built before comes from the cache. Errors are `lamina.build`'s.
    """

    def build(
        source: str | os.PathLike[str],
        *,
        files: Mapping[str, str | bytes] | None = None,
        tag: str = "",
        target: str = "",
        build_args: Mapping[str, str] | None = None,
    ) -> Image:
        context = source
        if isinstance(source, str) and "\n" in source:
            place = tmp_path_factory.mktemp("lamina-context")
            _write(place, {"Dockerfile": source, **(files or {})})
            context = place
        elif files:
            raise lamina.LaminaError(
                "files are for a Dockerfile's text, a directory has its own", kind=lamina.Kind.USAGE
            )
        return lamina.build(
            context, tags=[tag] if tag else [], target=target, build_args=build_args
        )

    return build


def _write(place: Path, files: Mapping[str, str | bytes]) -> None:
    for name, content in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.fixture
def lamina_container(request: pytest.FixtureRequest) -> Iterator[ContainerStarter]:
    """A function that runs a container, which is removed after the test. If the test fails, the end of
    its log is in the report.

    `ports` are published on free ones of the host. `wait_for` is what the function waits for, at most
    `timeout` seconds: a port of the container on which something listens, `"healthy"`, a function of
    the container; a container that ends meanwhile fails the test.
    """
    started = request.node.stash.setdefault(_CONTAINERS, [])

    def run(
        image: Image | str,
        command: Sequence[str] | str = (),
        *,
        ports: Iterable[int] | Mapping[int, int] = (),
        env: Mapping[str, str] | None = None,
        name: str = "",
        options: RunOptions | None = None,
        wait_for: WaitFor = None,
        timeout: float = 60,
    ) -> Container:
        container = lamina.containers.create(
            image,
            command,
            ports=_mapped(ports),
            env=env,
            name=name,
            options=options,
        )
        started.append(container)
        container.start()
        if wait_for is not None:
            _wait(container, wait_for, timeout)
        return container

    yield run
    for container in reversed(started):
        with container:  # which removes it
            pass
    started.clear()


def _mapped(ports: Iterable[int] | Mapping[int, int]) -> dict[int, int]:
    return dict(ports) if isinstance(ports, Mapping) else dict.fromkeys(ports, 0)


def _wait(container: Container, wait_for: WaitFor, timeout: float) -> None:
    """Return when it is so. Fails the test if the container ends, or the time."""
    is_ready = _condition(container, wait_for)
    deadline = time.monotonic() + timeout
    while not is_ready():
        status = container.exit_status
        if status is not None:
            pytest.fail(f"container {container.name} ended with status {status}", pytrace=False)
        if time.monotonic() > deadline:
            pytest.fail(
                f"container {container.name} was not ready in {timeout} s ({wait_for})",
                pytrace=False,
            )
        time.sleep(_PAUSE)


def _condition(container: Container, wait_for: WaitFor) -> Callable[[], bool]:
    if isinstance(wait_for, int):
        return lambda: _listens(container, wait_for)
    if wait_for == "healthy":
        return lambda: _is_healthy(container)
    if callable(wait_for):
        return lambda: wait_for(container)
    raise ValueError(f"wait_for is a port, 'healthy' or a function, not {wait_for!r}")


def _listens(container: Container, port: int) -> bool:
    """Whether something in the container listens on the port. The kernel knows it: a connection would be
    the server's first, and lamina's own forwarder accepts one before there is a server.
    """
    pid = container.attrs["State"]["Pid"]
    wanted = f":{port:04X}"
    for name in ("tcp", "tcp6"):
        try:
            with open(f"/proc/{pid}/net/{name}", encoding="ascii") as file:
                rows = [line.split() for line in file]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if any(row[1].endswith(wanted) and row[3] == _LISTENING for row in rows[1:]):
            return True
    return False


def _is_healthy(container: Container) -> bool:
    health = container.attrs["State"].get("Health")
    if health is None:
        pytest.fail(f"container {container.name} has no health check", pytrace=False)
    return bool(health["Status"] == "healthy")


@pytest.fixture
def lamina_registry(tmp_path: Path) -> Iterator[RegistryServer]:
    """An empty registry server on a free port, for this test: `host` is the registry part of names. It
    needs what `pip install lamina[registry]` brings.
    """
    from lamina.testing.registry import RegistryServer

    with RegistryServer(tmp_path / "lamina-registry") as server:
        yield server


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.CallInfo[None], None]:
    """Add the logs of the test's containers to the report of its failure."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]  # pluggy's Result
    if report.failed:
        for container in item.stash.get(_CONTAINERS, []):
            report.sections.append((f"lamina container {container.name}", _log_of(container)))


def _log_of(container: Container) -> str:
    try:
        lines = [entry.data for entry in container.logs(tail=_LAST_LINES)]
    except Exception as error:  # noqa: BLE001  # a report of a failure must not fail
        return f"(no log: {error})"
    return b"".join(lines).decode("utf-8", "replace")
