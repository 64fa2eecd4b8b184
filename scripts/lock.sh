#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Write requirements-dev.lock and requirements-test.lock: names, versions and hashes, no addresses. Run after
# a dependency changes. What is locked stays as it is; with --upgrade everything is chosen anew.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q --disable-pip-version-check pip-tools
compile() {
  "$work/venv/bin/pip-compile" -q --no-header --no-annotate --no-emit-index-url --no-emit-trusted-host \
    --no-emit-find-links --strip-extras --allow-unsafe --generate-hashes "$@" pyproject.toml
}
compile "$@" -o requirements-dev.lock requirements-dev.in
rm -f requirements-test.lock # the versions are those of the other one
compile -c requirements-dev.lock -o requirements-test.lock requirements-test.in
