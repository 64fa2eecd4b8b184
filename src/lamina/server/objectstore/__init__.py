# SPDX-License-Identifier: Apache-2.0
"""The storage driver on an S3 bucket, for any number of server processes at once (ADR 90).

    PREFIX/data/<upload>/<nonce>              bytes of blobs and of uploads; never changed
    PREFIX/documents/<repository>!/<digest>-<nonce>     bytes of manifests; never changed
    PREFIX/index/<algorithm>/<hhh>            who holds the blobs whose digests begin so
    PREFIX/repositories/<repository>!         manifests, tags and referrers of a repository
    PREFIX/uploads/<upload>                   an upload: who, which pieces, who writes it now
    PREFIX/collector                          which process collects now

The processes share nothing but the bucket. Documents in index, repositories, uploads and collector
are changed by compare and swap only (PUT with If-Match or If-None-Match), so each change is a
transaction; what they point to is written before and has a name that is never used again.

May import the server's ports and wire, spec, record and errors. Start at `storage.BucketStorage`;
`bucket` is the only module that knows the S3 library, `documents` does the compare and swap, `blobs`,
`uploads`, `manifests` and `upkeep` are the four parts of the port.
"""

from __future__ import annotations

__all__: list[str] = []
