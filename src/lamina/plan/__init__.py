# SPDX-License-Identifier: Apache-2.0
"""The build graph as values: ops, vertices, edges, and their digests. Pure.

Start with `ops` (what a vertex does) and `graph` (Vertex, Edge, Plan, their digests). The plan
knows no containers and no files; `meta` is for people and never part of a digest. After BuildKit's
`solver/types.go` and `client/llb`.
"""
