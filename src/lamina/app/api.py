# SPDX-License-Identifier: Apache-2.0
"""The Python API: what `import lamina` offers, on the same use cases as the command line.

Like the command line this is an edge: defaults (store, configuration, platform) come from the
environment unless they are given. A store is opened once a root and stays open. Containers, images and
builds have modules of their own: `apicontainers`, `apiimages`, `apibuilds`.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager

from lamina.app import apart
from lamina.app.apicontainers import Container, containers_api
from lamina.app.apistore import find_image, open_store
from lamina.app.build import build as build_request
from lamina.app.buildcontext import is_remote, read_context
from lamina.app.buildrequest import BuildRequest
from lamina.app.contexts import context_source
from lamina.app.platforms import build_platforms
from lamina.app.pulling import PullOptions, pull_image
from lamina.app.pushing import push_image
from lamina.app.registries import connect
from lamina.app.settings import Settings, load_settings
from lamina.app.streamedcontext import remote_context
from lamina.app.wiring import BuildHost, remote_sources
from lamina.builder.secrets import Secrets
from lamina.events import silent
from lamina.image import resolve
from lamina.image.view import Image
from lamina.spec.platform import Platform, host
from lamina.system.userns import can_mount, enter, own_uid
from lamina.tasks import CancelToken as Token
from lamina.tasks import Work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from lamina.app.buildcontext import BuildContext
    from lamina.app.run_options import RunOptions
    from lamina.events import Emitter
    from lamina.registry.client import Registries
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken

__all__ = [
    "Container",
    "Image",
    "build",
    "enter_namespace",
    "find_image",
    "open_store",
    "pull",
    "push",
    "run",
]


def enter_namespace() -> None:
    """Make an ordinary user's process root of a user namespace for the rest of its life: it sees its own
    files as root's. The kernel allows it before threads start only.

    `build` does it by itself when a step runs. In a process with threads the work is done in another
    process, which takes a tenth of a second more for each build. Nothing happens if the process is
    root's, or did it before.

    Raises:
        LaminaError: UNSUPPORTED (there are threads), DENIED (the host refuses user namespaces).
    """
    enter()


def build(
    context: str | os.PathLike[str] = ".",
    *,
    tags: Sequence[str] = (),
    dockerfile: str | os.PathLike[str] = "",
    target: str = "",
    build_args: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    no_cache: bool = False,
    pull: bool = False,
    epoch: int | None = None,
    jobs: int | None = None,
    network: str = "default",
    platforms: Sequence[str] = (),
    build_contexts: Mapping[str, str] | None = None,
    secrets: Mapping[str, bytes] | None = None,
    allow: Sequence[str] = (),
    root: str = "",
    settings: Settings | None = None,
    on_event: Emitter = silent,
    cancel: CancelToken | None = None,
) -> Image:
    """Build the image of a directory's Dockerfile and return it; `tags` name it.

    `context` may be the URL of a git repository, an archive or a Dockerfile; `build_contexts` are
    those of `--build-context`. `dockerfile` is a path (default: `Dockerfile` of the context),
    `epoch` a SOURCE_DATE_EPOCH. Bases that are not in the store are pulled; `pull` asks the
    registries again for all of them. `secrets` are values by id for `RUN --mount=type=secret`, `allow`
    what RUN steps may do beyond their confinement (`network.host`, `security.insecure`).
    `platforms` are like `linux/arm64`; several make an index, of which this host's image is returned.
    `on_event` gets every event of `lamina.events`, from any thread. Steps run in a mount namespace
    of their own: the first build that runs one moves this process into it, unless it is an ordinary
    user's and has threads: then the whole build is done in a process of its own.

    Raises:
        SourceError: the Dockerfile is wrong, a base is missing, or a step failed (STEP_FAILED).
        LaminaError: anything else; see `lamina.errors`.
        Cancelled: `cancel` was set.
    """
    if apart.is_needed():
        arguments: dict[str, object] = {
            "context": os.fspath(context),
            "tags": tuple(tags),
            "dockerfile": os.fspath(dockerfile),
            "target": target,
            "build_args": dict(build_args or {}),
            "labels": dict(labels or {}),
            "no_cache": no_cache,
            "pull": pull,
            "epoch": epoch,
            "jobs": jobs,
            "network": network,
            "platforms": tuple(platforms),
            "build_contexts": dict(build_contexts or {}),
            "secrets": dict(secrets or {}),
            "allow": tuple(allow),
            "root": open_store(root).root,
            "settings": settings,
            "env": dict(os.environ),
        }
        listener = None if on_event is silent else on_event
        id = apart.call("lamina.app.api:build_here", arguments, on_event=listener, cancel=cancel)
        return find_image(id, root=root)
    store = open_store(root)
    chosen = settings or load_settings(os.environ, uid=own_uid())
    token = cancel or Token()
    native = host(os.uname().machine)
    wanted = build_platforms(platforms, host=native)
    with _sources(os.fspath(context), os.fspath(dockerfile), store, chosen, token) as sources:
        request = BuildRequest(
            context=sources.directory,
            is_lasting=sources.is_lasting,
            dockerfile=sources.dockerfile,
            dockerfile_name=sources.dockerfile_name,
            ignore=sources.ignore,
            platform=wanted[0],
            platforms=wanted if len(wanted) > 1 else (),
            build_platform=native,
            tags=tuple(tags),
            target=target,
            build_args=tuple((build_args or {}).items()),
            labels=tuple((labels or {}).items()),
            no_cache=no_cache,
            pull=pull,
            epoch=epoch,
            jobs=jobs,
            network=network,
            build_contexts=tuple(
                context_source(name, where, cwd=os.getcwd())
                for name, where in (build_contexts or {}).items()
            ),
            allow=tuple(allow),
            secrets=Secrets({}, secrets) if secrets else None,
        )
        outcome = build_request(
            request,
            store=store,
            host=BuildHost(
                store,
                chosen,
                search_path=os.environ.get("PATH", ""),
                emit=on_event,
                env=os.environ,
                registries=lambda: _registries(chosen, token),
            ),
            work=Work(emit=on_event, cancel=token, clock=time.time),
        )
    return find_image(str(outcome.config or outcome.manifest), root=root)


def build_here(env: dict[str, str], cancel: CancelToken, **arguments: Any) -> str:
    """The id of an image that is built in this process, which was made for that: see `apart`."""
    os.environ.clear()
    os.environ.update(env)  # what the other process's program has set since it began
    return str(build(**arguments, cancel=cancel).id)


@contextmanager
def _sources(
    context: str, dockerfile: str, store: Store, settings: Settings, cancel: CancelToken
) -> Iterator[BuildContext]:
    """The build context, there until the block ends."""
    if not is_remote(context):
        yield read_context(os.path.abspath(context), dockerfile, cwd=os.getcwd())
        return
    remote = remote_sources(store, settings, env=os.environ, clock=time.time)
    with remote_context(context, dockerfile, remote=remote, store=store, cancel=cancel) as found:
        yield found


def pull(
    name: str,
    *,
    platform: str = "",
    root: str = "",
    settings: Settings | None = None,
    on_event: Emitter = silent,
    cancel: CancelToken | None = None,
) -> Image:
    """Pull an image from its registry and return it; credentials are those of `docker login`.

    Raises:
        LaminaError: NOT_FOUND, DENIED, UNAVAILABLE, INTEGRITY...
    """
    store = open_store(root)
    token = cancel or Token()
    wanted = Platform.parse(platform) if platform else None
    chosen = settings or load_settings(os.environ, uid=own_uid())
    registries = _registries(chosen, token)
    try:
        pulled = pull_image(
            store,
            registries,
            name,
            PullOptions(host=host(os.uname().machine), platform=wanted, unpack=can_mount()),
            work=Work(emit=on_event, cancel=token, clock=time.time),
        )
    finally:
        registries.close()
    return resolve.find_image(store, str(pulled.reference), wanted)


def push(
    name: str,
    *,
    root: str = "",
    settings: Settings | None = None,
    on_event: Emitter = silent,
    cancel: CancelToken | None = None,
) -> str:
    """Push the stored image of that name to its registry; the digest of what was pushed.

    Raises:
        LaminaError: NOT_FOUND (no image has the name), DENIED, UNAVAILABLE...
    """
    token = cancel or Token()
    registries = _registries(settings or load_settings(os.environ, uid=own_uid()), token)
    try:
        pushed = push_image(
            open_store(root),
            registries,
            name,
            host=host(os.uname().machine),
            work=Work(emit=on_event, cancel=token, clock=time.time),
        )
    finally:
        registries.close()
    return str(pushed.target.digest)


def _registries(settings: Settings, cancel: CancelToken) -> Registries:
    return connect(os.environ, uid=own_uid(), settings=settings, clock=time.time, cancel=cancel)


def run(
    image: Image | str,
    command: Sequence[str] | str = (),
    *,
    ports: Mapping[int, int] | None = None,
    env: Mapping[str, str] | None = None,
    name: str = "",
    options: RunOptions | None = None,
    root: str = "",
    settings: Settings | None = None,
    on_event: Emitter = silent,
) -> Container:
    """Start a container of `image` and return while it runs: `containers.run` with `detach`.

    `ports` maps ports of the container to ports of the host (0: a free one). `options` has what
    `lamina run` has flags for.

    Raises:
        LaminaError: NOT_FOUND (image), CONFLICT (name or port), and whatever kept it from starting.
    """
    return containers_api.run(
        image,
        command,
        detach=True,
        ports=ports,
        env=env,
        name=name,
        options=options,
        root=root,
        settings=settings,
        on_event=on_event,
    )
