# SPDX-License-Identifier: Apache-2.0
"""The registry server: OCI distribution-spec 1.1 over a storage port, with no other service.

Owns routes, rights, uploads, manifests, tags, referrers, garbage collection, the past of tags, the
pull-through cache and the HTTP edge. May import spec, system, record and errors; `sharedstore` alone
the store, `upstream`, `caches` and `pullthrough` the client. Only `rsgi`, `feeds`, `pipes` and
`serve` know asyncio and the HTTP library; everything else is synchronous and knows no socket.

Start at `handlers.Registry.answer`: a `wire.Request` in, a `wire.Response` or a step that needs the
body out. `routes` and `wire` are pure (distribution-spec spec.md §Endpoints, §Error Codes); `ports`
is what a storage driver gives, `filesystem` the driver on a directory, `database` its tables,
`objectstore` the driver on an S3 bucket, `storage` names them; `rights`, `passwords` and `tokens`
say who may do what, `tokenservice` is `/token`; `collect` removes what nothing needs while pushes go
on; `web` is the page for people, `overview` what only the page asks a driver; `config` and
`policies` read the one configuration file with `tables`, `limits` are values of it; `answers` are made
alike for what is here and what an upstream has.

`ledger` is what a driver may do besides: `history` (moves, removed manifests), `sqliteledger`,
`retention` and `quotas` (pure rules), `past` (on a running server), `admin` (pages). `pullthrough`
fills the storage from an `upstream`; `flights` are blobs on their way.
"""

from __future__ import annotations

__all__: list[str] = []
