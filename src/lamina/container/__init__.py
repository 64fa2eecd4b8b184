# SPDX-License-Identifier: Apache-2.0
"""Processes in containers: RUN steps and `lamina run`, on an OCI runtime of the host.

May import store, system, spec and below. Start with `ports.py` (what is asked for), then
`spec.py` (pure: how a process is confined), `executor.py` (a RUN step), `runtime.py` (which
runtime, and why) and `launcher.py` (why nothing outlives lamina).

runtime-spec config.md, config-linux.md; docs/adr/0030 to 0034.
"""
