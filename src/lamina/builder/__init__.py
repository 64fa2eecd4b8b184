# SPDX-License-Identifier: Apache-2.0
"""Ops onto stores: what a vertex of a plan does to files, layers and snapshots.

Start with `build.Solve`. `tree` reads a directory by file descriptor, `selection` finds and
digests what a COPY selects (with `statcache`; `listing` shows it), `changes` is a layer being composed in memory over
a base that is only looked at (`layeredbase`: without a mount), `copying` and `archive` put COPY and ADD
into it, `execution` runs
a RUN step, `sources` knows where steps take files from, `making` makes layers, `worker` joins them to
the solver. Rules of COPY: docs/adr/0027, after BuildKit's
`solver/llbsolver/file` and fsutil's `copy`. May import everything below `exporter`.
"""
