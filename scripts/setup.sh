#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Make the virtual environment "$1" with lamina and its tools, and install the programs lamina
# needs from the distribution. Says what it does; does nothing twice. Used by the Makefile.
set -euo pipefail

venv=${1:?usage: setup.sh VENV}
python=${PYTHON:-python3}
say() { printf '==> %s\n' "$*"; }
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else say "sudo $*"; sudo "$@"; fi
}

# What lamina needs (an OCI runtime, networks, base images), and what its tests compare with.
needed=(
  crun runc iproute2 nftables mmdebstrap busybox-static ca-certificates
  uidmap passt slirp4netns # without root: ids, and a way out for containers
)
compared=(
  skopeo umoci buildah podman zstd xz-utils attr git curl openssh-client procps qemu-user-static
  zsh fish groff-base # completion scripts and man pages are read by them
  docker-registry apache2-utils chromium chromium-driver strace iptables
)
missing=()
for package in "${needed[@]}" "${compared[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then missing+=(python3-venv); fi
if [ "${#missing[@]}" -gt 0 ]; then
  command -v apt-get >/dev/null || {
    echo "setup: this needs the packages: ${missing[*]} (no apt-get here: install them by hand)" >&2
    exit 1
  }
  if [[ " ${missing[*]} " == *" docker-registry "* ]] && command -v systemctl >/dev/null; then
    # the package would start an open registry on port 5000; the tests start their own on loopback
    say "masking docker-registry.service, so that installing the package starts no server"
    as_root systemctl mask docker-registry.service
  fi
  say "installing from the distribution: ${missing[*]}"
  as_root apt-get update -q
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
fi

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "setup: lamina needs Python 3.11 or newer; set PYTHON=/path/to/python" >&2
  exit 1
}
say "making $venv"
"$python" -m venv "$venv"
say "installing the locked tools, and lamina from this directory"
"$venv/bin/python" -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
"$venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
# PYTHONDONTWRITEBYTECODE may be set: compile now, or every start compiles again
"$venv/bin/python" -m compileall -q src/lamina
"$venv/bin/python" -m lamina.start.codecache
say "ready: $venv/bin/lamina"
