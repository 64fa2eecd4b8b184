# SPDX-License-Identifier: Apache-2.0
"""What makes a start cheap: stand-ins for modules of the standard library.

Imports nothing of lamina. Each module does what one standard module does for the ordinary case, and
leaves every other case to it: `record` (dataclasses), `enumeration` (enum), `pattern` with
`patterncodes` (re), `jsontext` (json), `hashing` (hashlib), `sqlitemodule` (sqlite3), `lowlevel`
(signal, threading), `socketmodule` (socket), `libc` (ctypes). `lifetime` is the beginning and the end
of a command, `codecache` loads lamina's own modules from one file. What each saves, on each Python, and
what stays only while it saves something: docs/adr/0089-lean-start.md.
"""
