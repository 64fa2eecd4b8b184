# SPDX-License-Identifier: Apache-2.0
"""The Dockerfile language: text -> syntax tree -> checks -> plan. Pure: no I/O, clock or threads.

Start with `parser.parse` (text to `ast`), then `lower.Lowering` (tree to plan and image config,
asking for the images it needs; `lowered` is what comes out). `lexer` joins physical lines, `words` cuts arguments, `expand`
replaces variables; `bases` understands FROM, `stage` holds what each instruction does, `operands`
what it may be given, `checks` the findings that do not stop a build; `ignore` has the patterns of
`.dockerignore` and COPY, `change` applies single instructions to a config. Imports `plan`, `spec`,
`events`.

Specifications: docs/dockerfile.md lists what is done; Docker's Dockerfile reference and BuildKit's
`frontend/dockerfile` decide in doubt (docs/adr/0020).
"""
