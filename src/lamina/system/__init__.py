# SPDX-License-Identifier: Apache-2.0
"""Kernel doors: confined paths, mounts, xattrs, namespaces, file locks.

May import tasks, events, spec, errors. Each module wraps one family of system calls and turns
errno into a LaminaError that says what was tried. Nothing here knows what an image is.
"""
