# SPDX-License-Identifier: Apache-2.0
"""Which driver a configuration asks for: the only place that names them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lamina.server.config import Config
    from lamina.server.ports import Storage


def open_storage(config: Config, *, clock: Callable[[], float]) -> Storage:
    """The storage, open; the caller closes it.

    Raises:
        LaminaError: it cannot be used, or not by this process too.
    """
    own: Storage
    if config.bucket is not None:
        from lamina.server.objectstore.storage import BucketStorage

        own = BucketStorage(
            config.bucket,
            clock=clock,
            grace=config.grace,
            upload_expiry=config.upload_expiry,
            max_uploads=config.max_uploads,
            writable=not config.read_only,
        )
    else:
        from lamina.server.filesystem import FilesystemStorage
        from lamina.server.quotas import Quotas

        own = FilesystemStorage(
            config.root,
            clock=clock,
            grace=config.grace,
            upload_expiry=config.upload_expiry,
            max_uploads=config.max_uploads,
            window=config.window,
            quotas=Quotas(config.quotas),
        )
    if not config.share_store:
        return own
    from lamina.server.sharedstore import SharedStorage

    return SharedStorage(own, config.share_store, clock=clock)
