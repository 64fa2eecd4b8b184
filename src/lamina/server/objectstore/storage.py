# SPDX-License-Identifier: Apache-2.0
"""The driver: four parts on one bucket."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from lamina.server.filesystem import DEFAULT_GRACE
from lamina.server.objectstore.blobs import BucketBlobs
from lamina.server.objectstore.bucket import Bucket, Location
from lamina.server.objectstore.documents import Documents
from lamina.server.objectstore.manifests import BucketManifests, is_empty
from lamina.server.objectstore.upkeep import BucketUpkeep
from lamina.server.objectstore.uploads import HOLD, BucketUploads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_THREADS = 16  # that look at a manifest's blobs


class BucketStorage:
    """The storage in a bucket, for any number of processes. `hold`: see `uploads`.

    Raises:
        LaminaError: the bucket cannot be used (`Bucket.probe`).
    """

    remote = True

    def __init__(
        self,
        location: Location,
        *,
        clock: Callable[[], float],
        grace: float = DEFAULT_GRACE,
        upload_expiry: float = 86400.0,
        max_uploads: int = 10_000,
        hold: float = HOLD,
        writable: bool = True,
    ) -> None:
        bucket = Bucket(location)
        bucket.probe(writable=writable)
        index = Documents(bucket, is_empty=lambda document: not document)
        states = Documents(bucket, is_empty=is_empty)
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="bucket")
        self.blobs = BucketBlobs(
            bucket, index, clock=clock, grace=grace, redirect=location.redirect
        )
        self.uploads = BucketUploads(bucket, self.blobs, clock=clock, limit=max_uploads, hold=hold)
        self.manifests = BucketManifests(bucket, states, self.blobs, clock=clock, pool=self._pool)
        self.upkeep = BucketUpkeep(
            bucket,
            index=index,
            states=states,
            uploads=self.uploads,
            manifests=self.manifests,
            clock=clock,
            grace=grace,
            upload_expiry=upload_expiry,
        )

    def close(self) -> None:
        self._pool.shutdown()
