# SPDX-License-Identifier: Apache-2.0
"""The store: blobs, snapshots, metadata, leases under one root, safe for many processes.

May import layer, system, spec, tasks, events, errors. Start with `ports` (the contracts), then
`content`, `snapshots`, `metadata`, `leases`, `gc`. docs/store-layout.md draws it.
"""
