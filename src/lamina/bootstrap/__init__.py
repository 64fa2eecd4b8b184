# SPDX-License-Identifier: Apache-2.0
"""`lamina bootstrap`: base images from the distribution's packages, without any registry.

Start with `images.bootstrap`. `debian` checks what is asked for and has `mmdebstrap` (or
`debootstrap`) make the tree, from the mirrors that `aptsources` finds on this host; `contained`
makes the tree a container's. `busybox` and `foreignbusybox` make the small one. With
SOURCE_DATE_EPOCH and an unchanged mirror the image is the same, byte for byte.
"""
