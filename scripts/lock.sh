#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Write requirements-dev.lock: names, versions and hashes, no addresses. Run after a dependency changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check pip-tools
"$work/venv/bin/pip-compile" -q --no-header --no-annotate --no-emit-index-url --no-emit-trusted-host \
  --no-emit-find-links --strip-extras --allow-unsafe --generate-hashes \
  -o requirements-dev.lock requirements-dev.in pyproject.toml
