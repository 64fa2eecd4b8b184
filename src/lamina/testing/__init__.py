# SPDX-License-Identifier: Apache-2.0
"""Tools for tests: `plugin` is for everyone's, the other modules are for lamina's own."""
