# SPDX-License-Identifier: Apache-2.0
"""`lamina commit`: an image of a container: its image's layers, and what it wrote as one more."""

from __future__ import annotations

import os

from lamina.app.container_files import image_items
from lamina.container import freezer
from lamina.errors import Kind, LaminaError
from lamina.image.blobs import fresh_ingest
from lamina.image.changes import changed
from lamina.image.names import set_names
from lamina.image.resolve import find_image
from lamina.image.times import format_time
from lamina.image.told import tell_image
from lamina.layer.create import create_layer
from lamina.spec import mediatype
from lamina.spec.config import History
from lamina.spec.descriptor import Descriptor
from lamina.spec.manifest import Manifest
from lamina.spec.reference import Reference
from lamina.start.record import Record, replace
from lamina.system.userns import enter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.app.containers import Container
    from lamina.container.state import ContainerConfig
    from lamina.image.view import Image
    from lamina.spec.config import RunConfig
    from lamina.spec.digest import DiffID, Digest
    from lamina.store.ports import Store
    from lamina.tasks import CancelToken


class CommitOptions(Record):
    """`names` are normalised references; `changes` Dockerfile instructions; `created` is now.

    `pause`: a running container stands still while its files are read.
    """

    created: float
    names: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    message: str = ""
    author: str = ""
    pause: bool = True


def commit(
    store: Store, container: Container, options: CommitOptions, *, cancel: CancelToken
) -> Digest:
    """The id of the new image. What is mounted in the container is not in it.

    Raises LaminaError: NOT_FOUND (its image has gone), CONFLICT (files change while they are read),
    UNSUPPORTED (it cannot be paused).
    """
    config = container.config
    enter()  # owners are those of the user's namespace
    with store.lease("commit"):
        base = find_image(store, config.image_id)
        image = base.config()
        run_config = changed(_run_config(config, image.config), options.changes)
        with _Paused(container, wanted=options.pause):
            layer, diff_id = _layer(store, container, cancel=cancel)
        created = format_time(options.created)
        history = History(
            created,
            created_by=" ".join(config.process.argv),
            author=options.author,
            comment=options.message,
        )
        raw = replace(
            image,
            config=run_config,
            diff_ids=(*image.diff_ids, diff_id),
            history=(*image.history, history),
            created=created,
            author=options.author,
        ).serialise()
        described = Descriptor(mediatype.OCI_CONFIG, store.content.add(raw), len(raw))
        manifest = Manifest.make(described, [*_base_layers(base), layer])
        store.content.add(manifest.raw)
        set_names(store, options.names, manifest.descriptor())
        tagged = [Reference.parse(name).familiar() for name in options.names]
        tell_image(store, "tag", manifest.descriptor(), names=tagged)
    container.tell("commit", comment=options.message)
    return described.digest


def _run_config(config: ContainerConfig, image: RunConfig) -> RunConfig:
    """What `docker commit` keeps of the container's settings: all that an image can say."""
    process = config.process
    return replace(
        image,
        user=process.user,
        exposed_ports=config.exposed,
        env=process.env,
        entrypoint=config.entrypoint or None,
        cmd=config.cmd or None,
        volumes=tuple(sorted({*image.volumes, *config.volumes})),
        working_dir=image.working_dir if process.cwd == "/" else process.cwd,
        labels=config.labels,
        stop_signal=image.stop_signal if config.stop_signal == "SIGTERM" else config.stop_signal,
    )


def _layer(store: Store, container: Container, *, cancel: CancelToken) -> tuple[Descriptor, DiffID]:
    """What the container wrote, as a blob of the store."""
    with fresh_ingest(store, f"commit {container.id} {os.getpid()}") as ingest:
        try:
            created = create_layer(
                image_items(store, container),
                ingest.write,
                compression="gzip",
                digest=ingest.digest,
                cancel=cancel,
            )
        except BaseException:
            ingest.abort()
            raise
        digest = ingest.commit(digest=created.digest, size=created.compressed_size)
    layer = Descriptor(mediatype.OCI_LAYER_GZIP, digest, created.compressed_size)
    store.metadata.put_layer(created.diff_id, created.size, layer)
    return layer, created.diff_id


def _base_layers(base: Image) -> list[Descriptor]:
    """The layers of the container's image, in the media types of OCI."""
    return [
        replace(
            layer, media_type=mediatype.OCI_LAYER_OF[mediatype.LAYER_COMPRESSION[layer.media_type]]
        )
        for layer in base.manifest().layers
    ]


class _Paused:
    """The container stands still in the block, if it runs and that is wanted."""

    def __init__(self, container: Container, *, wanted: bool) -> None:
        state = container.state()
        self._id, self._pid = container.id, state.pid
        self._does = wanted and state.is_running and not freezer.is_frozen(state.pid, self._id)

    def __enter__(self) -> None:
        if not self._does:
            return
        try:
            freezer.freeze(self._pid, self._id)
        except LaminaError as error:
            if error.kind is Kind.UNSUPPORTED:
                error.hint = "'--pause=false' commits it while it runs"
            raise

    def __exit__(self, *exc: object) -> None:
        if self._does:
            freezer.thaw(self._pid, self._id)
