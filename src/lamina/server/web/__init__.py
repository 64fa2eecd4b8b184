# SPDX-License-Identifier: Apache-2.0
"""The registry's web page: repositories, tags and images, as HTML made on the server.

Owns the page's paths, what is on each page and how it looks. May import the registry server's ports,
rights and wire, spec, record and errors; no socket, no template engine. It only reads.

Start at `site.Site`: which path is which page, who may see it, and the headers that keep a browser
safe. `views` reads the storage, `pages` and `image` write HTML with `html`, which escapes whatever
is not markup. `style.css` and `page.js` are served as they are; without the script everything but
the copy buttons works. ADR 94.
"""

from __future__ import annotations

__all__: list[str] = []
