# SPDX-License-Identifier: Apache-2.0
"""Changes to a config that no step of a build makes: `--change`, `--env`."""

from __future__ import annotations

from lamina.dockerfile.change import apply_changes
from lamina.start.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamina.spec.config import RunConfig


def changed(config: RunConfig, changes: Sequence[str]) -> RunConfig:
    """The config after Dockerfile instructions (`--change`)."""
    if not changes:
        return config
    return apply_changes(config, changes)


def with_env(config: RunConfig, env: Sequence[tuple[str, str]]) -> RunConfig:
    """The config with variables set; an existing name keeps its place."""
    return replace(config, env=tuple((dict(config.env) | dict(env)).items()))
