# SPDX-License-Identifier: Apache-2.0
"""Layers as changesets: overlay trees and directories to OCI tar and back.

May import system, spec, errors. Start with `entry` (what a layer holds), then `tarwrite` and
`tarread` (deterministic bytes and hostile ones), `walk` (trees and overlay upper directories as
entries), `apply` (a layer onto a directory, beneath it by file descriptor), `compress`, and
`create`, the one-pass pipeline. Specification: image-spec layer.md.
"""
