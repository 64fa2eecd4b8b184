# SPDX-License-Identifier: Apache-2.0
"""Which driver a configuration asks for, with its abilities: the only place that names them."""

from __future__ import annotations

from lamina.errors import Kind, LaminaError
from lamina.server.filesystem import FilesystemStorage
from lamina.server.objectstore.storage import BucketStorage
from lamina.server.quotas import Quotas
from lamina.server.sharedstore import SharedStorage
from lamina.start.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lamina.server.config import Config
    from lamina.server.ledger import CachedTags, Ledger
    from lamina.server.ports import Overview, ReadableUploads, Storage


class Driver(Record):
    """An open storage, and what its driver can do besides; None: it cannot."""

    storage: Storage
    ledger: Ledger | None = None
    cached_tags: CachedTags | None = None
    readable_uploads: ReadableUploads | None = None
    overview: Overview | None = None


def open_driver(config: Config, *, clock: Callable[[], float]) -> Driver:
    """The driver with its storage open; the caller closes that.

    Raises:
        LaminaError: it cannot be used, or not by this process too, or not for what is configured.
    """
    if config.bucket is not None:
        driver = Driver(
            BucketStorage(
                config.bucket,
                clock=clock,
                grace=config.grace,
                upload_expiry=config.upload_expiry,
                max_uploads=config.max_uploads,
                writable=not config.read_only,
            )
        )
    else:
        files = FilesystemStorage(
            config.root,
            clock=clock,
            grace=config.grace,
            upload_expiry=config.upload_expiry,
            max_uploads=config.max_uploads,
            window=config.window,
            quotas=Quotas(config.quotas),
        )
        driver = Driver(files, files.ledger, files.cached_tags, files.uploads, files.overview)
    try:
        _check_abilities(driver, config)
    except LaminaError:
        driver.storage.close()
        raise
    if not config.share_store:
        return driver
    shared = SharedStorage(driver.storage, config.share_store, clock=clock)
    return replace(driver, storage=shared, overview=None)  # it would leave out the store's images


def _check_abilities(driver: Driver, config: Config) -> None:
    """Raise LaminaError (UNSUPPORTED) for what the configuration asks and the driver cannot do."""
    asked = (
        ("retention", config.retention, driver.ledger),
        ("quotas", config.quotas, driver.ledger),
        ("proxy", config.proxies, driver.cached_tags),
    )
    for table, rules, ability in asked:
        if rules and ability is None:
            raise LaminaError(
                f"[[{table}]] is not possible with the registry's storage in {config.place}",
                kind=Kind.UNSUPPORTED,
            )
