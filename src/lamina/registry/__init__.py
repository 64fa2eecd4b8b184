# SPDX-License-Identifier: Apache-2.0
"""Registries: the distribution-spec's two sides. `server` is the registry that lamina can be."""

from __future__ import annotations

__all__: list[str] = []
