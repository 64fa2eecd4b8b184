# SPDX-License-Identifier: Apache-2.0
"""The Python API: what `import lamina` offers, on the same use cases as the command line.

Like the command line this is an edge: defaults (store, configuration, platform) come from the
environment unless they are given. A store is opened once a root and stays open.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager

from lamina.app import containers
from lamina.app.build import build as build_request
from lamina.app.buildcontext import is_remote, read_context
from lamina.app.buildrequest import BuildRequest
from lamina.app.containers import Container
from lamina.app.contexts import context_source
from lamina.app.platforms import build_platforms
from lamina.app.pulling import PullOptions, pull_image
from lamina.app.pushing import push_image
from lamina.app.registries import connect
from lamina.app.settings import Settings, load_settings, store_root
from lamina.app.streamedcontext import remote_context
from lamina.app.wiring import BuildHost, remote_sources
from lamina.builder.secrets import Secrets
from lamina.events import silent
from lamina.image import resolve
from lamina.image.resolve import preferred_image
from lamina.image.view import Image
from lamina.spec.platform import Platform, host
from lamina.store import open_store as _open_store
from lamina.system.userns import can_mount, enter, own_uid
from lamina.tasks import CancelToken as Token
from lamina.tasks import Work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

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

_stores: dict[str, Store] = {}


def open_store(root: str = "") -> Store:
    """The store at `root` (empty: `LAMINA_ROOT` or the user's); opened once, then shared.

    Raises:
        LaminaError: the store belongs to someone else, or cannot be made.
    """
    path = os.path.abspath(root) if root else store_root(os.environ, own_uid())
    if path not in _stores:
        _stores[path] = _open_store(path, layers=_layer_form)
    return _stores[path]


def enter_namespace() -> None:
    """Make an ordinary user's process able to build, for the rest of its life: it becomes root of a
    user namespace, and sees its own files as root's. The kernel allows it before threads start only.

    `build` does it by itself where it can. Nothing happens if the process is root's, or did it before.

    Raises:
        LaminaError: UNSUPPORTED (there are threads), DENIED (the host refuses user namespaces).
    """
    enter()


def _layer_form() -> str:
    return load_settings(os.environ, uid=own_uid()).layers


def find_image(name: str, *, root: str = "") -> Image:
    """The stored image of this name, id or beginning of an id; of images for several platforms that
    for this host, else the first. Raises LaminaError (NOT_FOUND).
    """
    return preferred_image(open_store(root), name, host(os.uname().machine))


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
    of their own: the first build that runs one moves this process into it.

    Raises:
        SourceError: the Dockerfile is wrong, a base is missing, or a step failed (STEP_FAILED).
        LaminaError: anything else; see `lamina.errors`.
        Cancelled: `cancel` was set.
    """
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
    command: Sequence[str] = (),
    *,
    ports: Mapping[int, int] | None = None,
    env: Mapping[str, str] | None = None,
    name: str = "",
    options: RunOptions | None = None,
    root: str = "",
    settings: Settings | None = None,
    on_event: Emitter = silent,
) -> Container:
    """Start a container of `image` and return while it runs.

    `ports` maps ports of the container to ports of the host (0: a free one). `options` has what
    `lamina run` has flags for.

    Raises:
        LaminaError: NOT_FOUND (image), CONFLICT (name or port), and whatever kept it from starting.
    """
    chosen = settings or load_settings(os.environ, uid=own_uid())
    return containers.run(
        open_store(root),
        image if isinstance(image, str) else str(image.id),
        command,
        ports=ports,
        env=env,
        name=name,
        options=options,
        host=containers.Host(runtime=chosen.runtime, subnet=chosen.subnet),
        emit=on_event,
    )
