# SPDX-License-Identifier: Apache-2.0
"""Results of a build as an image, an archive or a directory.

May import builder, image, store, layer, system, spec, tasks, events, errors. Start with `ports`
(what goes in and comes out), `options` (`--output` text to a checked `Output`), `assemble` (config
and manifest, and the record that makes a rebuild of nothing free), then one module a kind:
`stored` (image), `archives` (oci, docker), `rootfs` (tar, local).
"""

from __future__ import annotations

from lamina.exporter.options import Output, parse_output
from lamina.exporter.ports import BuildResult, Exported, Exporter, PendingExport, make_exporter

__all__ = [
    "BuildResult",
    "Exported",
    "Exporter",
    "Output",
    "PendingExport",
    "make_exporter",
    "parse_output",
]
