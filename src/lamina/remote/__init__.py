# SPDX-License-Identifier: Apache-2.0
"""Sources behind a network: what ADD and build contexts name by URL or as a git repository.

Start with `sources.RemoteSources`: it tells what a URL or a ref is now (lowering asks), and brings
the content here when a step needs it (the builder asks). `http` makes requests that follow
redirects, `download` keeps a record of each URL in the store, `git` runs the git binary with nothing
of the user's configuration. May import everything below `builder`; it is imported only by a build
that names something remote.
"""
