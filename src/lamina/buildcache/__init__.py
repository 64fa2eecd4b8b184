# SPDX-License-Identifier: Apache-2.0
"""Build cache that travels: `--cache-to` and `--cache-from` (docs/adr/0087, 0088).

`options` reads the flags, `codec` the document that holds the records (both pure); `places` opens
what is read and written (a registry, a directory, an image); `importing` answers lookups from it
and fetches layers, `collecting` finds what a build has to export, `exporting` sends it. Records
from elsewhere are claims: a layer counts once its bytes have the digest and the diffID promised.
May import everything below `app`; nothing below knows this room but by the ports in `builder`.
"""
