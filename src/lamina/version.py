# SPDX-License-Identifier: Apache-2.0
"""The version of this lamina, where everything may read it."""

from __future__ import annotations

__version__ = "0.1.0"
