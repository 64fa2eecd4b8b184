# SPDX-License-Identifier: Apache-2.0
"""Bake definitions: several targets from one file, to be built as one graph.

Start with `definition.read_definition` (files to targets and groups), then `definition.resolve`
(what some of them need, inherited and overridden) and `print_json` (`--print`). `hcl` reads HCL
and JSON definitions, `scope` evaluates their expressions with the functions of `functions`;
`compose` reads the `build:` sections of compose files. Only `hcl` and `compose` import parsers, and
only when such a file is read (docs/adr/0061). The command turns targets into requests for
`app.build.build_all`.
buildx's `bake` package and its reference decide in doubt.
"""
