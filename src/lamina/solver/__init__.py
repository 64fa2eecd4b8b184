# SPDX-License-Identifier: Apache-2.0
"""Decides what of a plan must run, in what order, and under which cache keys.

`keys` (pure) makes cache keys, `scheduler` (pure, sans-I/O) proposes actions and is fed their
outcomes, `driver` carries the actions out: lookups in the caller's thread, the rest in threads.
The room knows ops and digests, but neither files nor containers: `driver.Worker` is the port for
those. Start with `keys`. After BuildKit's `solver` (edges, cache maps), with two keys in place of
its cross product of keys (docs/adr/0025).
"""
