# SPDX-License-Identifier: Apache-2.0
"""Use cases, one per verb, for the command line and for Python programs alike.

`wiring` alone names concrete adapters (store, runtime, network). Nothing here reads the
environment, parses flags or prints: values come as arguments, what happens goes out as events.
"""
