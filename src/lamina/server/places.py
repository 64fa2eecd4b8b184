# SPDX-License-Identifier: Apache-2.0
"""Where the driver on a directory keeps blobs and uploads."""

from __future__ import annotations

import os


class Places:
    """Where things are below a root; makes the directories."""

    def __init__(self, root: str) -> None:
        self.blobs = os.path.join(root, "blobs")
        self.uploads = os.path.join(root, "uploads")
        for algorithm in ("sha256", "sha512"):
            for number in range(256):
                os.makedirs(os.path.join(self.blobs, algorithm, f"{number:02x}"), exist_ok=True)
        os.makedirs(self.uploads, exist_ok=True)

    def blob(self, digest: str) -> str:
        """The file of a blob."""
        algorithm, _, hex_digits = digest.partition(":")
        return f"{self.blobs}/{algorithm}/{hex_digits[:2]}/{hex_digits}"
