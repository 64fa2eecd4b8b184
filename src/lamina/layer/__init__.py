# SPDX-License-Identifier: Apache-2.0
"""Layers as changesets: overlay trees and directories to OCI tar and back.

May import system, spec, tasks, errors. Start with `entry` (what a layer holds), then `tarwrite`
and `tarread` (deterministic bytes and hostile ones; `sparse` for the maps), `walk` (trees and
overlay upper directories as items), `apply` (a layer onto a directory; `place` does it beneath the
directory by file descriptor, `lower` says what the layers below show), `compress`, and `create`,
the one-pass pipeline. `wrap` makes a
layer mountable without unpacking it (`nodes` places it in memory, `erofs` writes the index; `rules` are
the checks that it shares with `place`). `twin` makes the form that is mounted while `create` writes the
tar. `rewrite` clamps the times of an existing layer.
Specification: image-spec layer.md.
"""
