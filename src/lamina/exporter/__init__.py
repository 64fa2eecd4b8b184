# SPDX-License-Identifier: Apache-2.0
"""Results of a build as an image, an archive or a directory.

May import builder, image, store, layer, system, spec, tasks, events, errors. Start with `ports`
(what is asked for, goes in and comes out), `table` (the exporters), `options` (their text),
`assemble` (config and manifest, and the record that makes a rebuild of nothing free), then one
module a kind: `stored` (image), `archives` (oci, docker), `rootfs` (tar, local), `cacheonly`;
`platforms` is what they share for several platforms.
"""
