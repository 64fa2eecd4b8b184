# SPDX-License-Identifier: Apache-2.0
"""Renderers of the event stream: `tty` (live), `plain` (logs), `jsonl` (machines).

Each is an emitter: a callable that takes an event, from any thread. `escape` makes foreign text
safe for a terminal. Nothing here decides anything.
"""
