# SPDX-License-Identifier: Apache-2.0
"""lamina: container images for Python people, with no daemon."""

__version__ = "0.1.0"
