# SPDX-License-Identifier: Apache-2.0
"""The OCI vocabulary as values: no I/O, no clock, nothing above this room is imported.

Start reading at `digest`, then `descriptor`, `manifest`, `config`. `reference` and `platform` hold
Docker's rules for names and hosts, `identity` the chainID, `span` a place in a source text,
`attributes` the values of flags like `--output`.
Specifications: OCI image-spec v1.1, Docker image spec v1.3, distribution/reference.
"""
