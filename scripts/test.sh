#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Run the tests that need the real kernel, on tmpfs if there is room: they make and remove many
# file trees, which a disk's file system makes slow. Usage: test.sh PYTEST [ARGUMENTS]
set -euo pipefail
pytest=${1:?usage: test.sh PYTEST [ARGUMENTS]}
shift
roomy() { [ "$(df --output=avail -k "$1" | tail -n 1)" -gt 6000000 ]; }
runs_programs() { findmnt -n -o OPTIONS --target "$1" | tr , '\n' | grep -qx noexec && return 1 || return 0; }
if [ -z "${TMPDIR:-}" ] && [ -w /dev/shm ] && roomy /dev/shm && runs_programs /dev/shm; then
  TMPDIR=$(mktemp -d /dev/shm/lamina-test-XXXXXX)
  export TMPDIR
  trap 'rm -rf "$TMPDIR"' EXIT
fi
# Long tests do a part of their work, which the seed chooses: each commit another, always the same.
if [ -z "${LAMINA_TEST_WHOLE:-}" ]; then
  : "${LAMINA_TEST_SEED:=$(git rev-parse --short HEAD 2>/dev/null || date +%F)}"
  export LAMINA_TEST_SEED
fi
# Twice as many workers as processors: many tests wait, for a lock, a timeout or another process.
# worksteal: a worker that is done takes over from the one that has most left.
"$pytest" -n $(($(nproc) * 2)) --dist worksteal "$@"
