# SPDX-License-Identifier: Apache-2.0
"""Registries: the client that pulls, pushes, copies and asks.

May import image, store, layer, spec, tasks, events, errors. Start with `ports` (Source, Sink) and
`graph` (`copy_graph`: pull, push and copy are one walk); then `client` (a repository as Source and
Sink), `protocol` (pure: routes, headers, errors), `auth` (challenges, tokens, realm rules),
`endpoints` (which hosts to ask, and how), `config` (stored credentials), `registriesconf`
(mirrors, rewriting), `transport` (the only door to the network; urllib3). `storeend` and `layout`
are the store and image layouts as Source and Sink, `journal` remembers uploads, `arrivals` unpacks
layers behind their downloads. `lamina.server` is the registry that lamina can be, and uses this room. Specifications:
distribution-spec 1.1; distribution's token
authentication; containers-registries.conf(5). docs/registry.md is for users.
"""

from __future__ import annotations

__all__: list[str] = []
