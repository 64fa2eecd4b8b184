#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The main job on this machine: build the tutorial's two images, run them, fetch a page from each,
# change a file, rebuild, and show what was cached. Exit 0 only if every check held.
# Usage: demo.sh LAMINA ; keeps its store in .demo/ so that a second run is quick.
set -uo pipefail

lamina=$(readlink -f "${1:?usage: demo.sh LAMINA}")
here=$(cd "$(dirname "$0")/.." && pwd)
# a store belongs to one user: root's demo and yours do not share one
demo="${LAMINA_DEMO_DIR:-$here/.demo$([ "$(id -u)" = 0 ] || printf -- '-%s' "$(id -u)")}"
export LAMINA_ROOT="$demo/store"
work="$demo/work"
checks=()
failed=0

say() { printf '\n\033[1m==> %s\033[0m\n' "$*"; }
check() { # check TEXT COMMAND...: runs the command, remembers whether it succeeded
  local text=$1; shift
  if "$@"; then checks+=("ok      $text"); else checks+=("FAILED  $text"); failed=1; fi
}
die() { printf 'demo: %s\n' "$*" >&2; exit 1; }
run() { printf '$ %s\n' "${*/$lamina/lamina}"; "$@"; }
has_image() { "$lamina" inspect --type image "$1" >/dev/null 2>&1; }

containers=()
cleanup() { for c in ${containers[@]+"${containers[@]}"}; do "$lamina" rm -f "$c" >/dev/null 2>&1; done; }
trap cleanup EXIT
mkdir -p "$demo" || die "cannot write $demo: set LAMINA_DEMO_DIR to a directory of yours"
rm -rf "$work"
cp -r "$here/examples" "$work"

# A host behind a company proxy has its own CA bundle: RUN steps need it, images must not keep it.
if [ -n "${SSL_CERT_FILE:-}" ] && [ -f "${SSL_CERT_FILE:-}" ] && [ -z "${LAMINA_CA_BUNDLE:-}" ]; then
  say "RUN steps get this host's CA bundle (SSL_CERT_FILE); it stays out of the images"
  export LAMINA_CA_BUNDLE="$SSL_CERT_FILE"
fi

free_port() { # the first free port from $1 on
  python3 - "$1" <<'PY'
import socket, sys
for port in range(int(sys.argv[1]), 65536):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("0.0.0.0", port))
        except OSError:
            continue
        print(port)
        break
PY
}
fetch() { # fetch URL: the page, with a few tries while the server starts
  python3 - "$1" <<'PY'
import sys, time, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
for attempt in range(100):
    try:
        with opener.open(sys.argv[1], timeout=5) as answer:
            sys.stdout.write(answer.read().decode())
            sys.exit(0)
    except OSError as error:
        last = error
        time.sleep(0.1)
sys.exit(f"no answer from {sys.argv[1]}: {last}")
PY
}
contains() { case "$1" in *"$2"*) return 0;; *) printf 'expected %s in: %s\n' "$2" "$1"; return 1;; esac; }
seconds() { date +%s.%N; }
outcome() { # outcome LOG STEP: how the step whose name contains STEP ended, in a plain log
  printf '%s\n' "$1" | awk -v step="$2" '
    !number && index($0, step) && /^#[0-9]+ \[/ { number = $1 }
    $1 == number && ($2 == "CACHED" || $2 == "DONE" || $2 == "ERROR:") { print $2; exit }'
}
is_outcome() { test "$(outcome "$1" "$2")" = "$3"; }

run "$lamina" version
run "$lamina" info
run "$lamina" doctor || die "this host cannot run containers"

say "Base images"
registry=unasked # asked once, and only if an image is missing: its answer takes 3 seconds at most
can_pull() {
  if [ "$registry" = unasked ]; then
    registry=no
    printf '$ lamina digest alpine:latest   (is there a registry?)\n'
    if timeout -k 1 3 "$lamina" digest alpine:latest >/dev/null 2>"$demo/registry-answer"; then
      registry=yes
    else
      printf 'No registry answers here (%s):\nstand-ins are made from packages of the distribution instead.\n' \
        "$(tail -n 1 "$demo/registry-answer" | cut -c 1-200 | grep . || echo 'no answer within 3 seconds')"
    fi
  fi
  test "$registry" = yes
}
real() { # real NAME: pull it, if a registry can be reached at all
  can_pull || return 1
  if timeout -k 5 300 "$lamina" pull "$1"; then
    printf '%s is the real image.\n' "$1"
  else
    printf '%s cannot be pulled: a stand-in is made.\n' "$1"; return 1
  fi
}
stand_in() { # stand_in NAME BOOTSTRAP-WORDS...
  local name=$1; shift
  printf '%s is a stand-in: %s.\n' "$name" "$1 from packages"
  run "$lamina" bootstrap "$1" -t "$name" "${@:2}" || die "cannot make the stand-in for $name"
}
for name in ubuntu:latest golang:1.16 alpine:latest; do
  if has_image "$name"; then printf '%s is here from the run before.\n' "$name"; fi
done
# pip of Ubuntu 24.04 and Debian 12 refuses to install outside a venv, as the tutorial does: both the
# real base and the stand-in get the setting that allows it
if ! has_image ubuntu:latest; then
  if real ubuntu:latest; then
    printf 'FROM ubuntu:latest\nENV PIP_BREAK_SYSTEM_PACKAGES=1\n' \
      | run "$lamina" build --progress=plain -t ubuntu:latest - || die "cannot set ENV on ubuntu:latest"
  else
    stand_in ubuntu:latest debian:bookworm --env PIP_BREAK_SYSTEM_PACKAGES=1
  fi
fi
has_image golang:1.16 || real golang:1.16 \
  || stand_in golang:1.16 debian:bookworm --include golang-go,ca-certificates
has_image alpine:latest || real alpine:latest || stand_in alpine:latest busybox

say "Build both"
build() { run "$lamina" build --progress=plain -t "$1" "$work/$1"; }
check "python-app builds from the tutorial's Dockerfile" build python-app
check "go-app builds from the tutorial's Dockerfile" build go-app
[ "$failed" = 0 ] || die "a build failed"

say "Run both, published on this host"
python_port=$(free_port 8000)
go_port=$(free_port $((python_port > 8080 ? python_port + 1 : 8080)))
start() { # start NAME HOST_PORT CONTAINER_PORT
  local id
  id=$(run "$lamina" run -d --name "demo-$1-$$" -p "$2:$3" "$1" | tail -n 1) || return 1
  containers+=("demo-$1-$$")
  printf '%s\n' "$id"
}
check "python-app starts" start python-app "$python_port" 8000
check "go-app starts" start go-app "$go_port" 8080
page=$(fetch "http://127.0.0.1:$python_port/"); printf '%s\n' "$page"
check "python-app answers on port $python_port" contains "$page" "Hello from lamina"
page=$(fetch "http://127.0.0.1:$go_port/"); printf '%s\n' "$page"
check "go-app answers on port $go_port" contains "$page" "Hello from Go"
run "$lamina" ps

say "What was built"
run "$lamina" images
run "$lamina" history python-app
size_of() { "$lamina" inspect --format '{{.Size}}' "$1"; }
"$lamina" build -q --target builder -t go-app-builder "$work/go-app" >/dev/null
app_size=$(size_of go-app); builder_size=$(size_of go-app-builder)
printf 'go-app: %s bytes; its builder stage: %s bytes (%s times as much)\n' \
  "$app_size" "$builder_size" "$((builder_size / (app_size > 0 ? app_size : 1)))"
check "go-app is under a tenth of its builder stage" test "$((app_size * 10))" -lt "$builder_size"

say "Build again, nothing changed"
id_before=$("$lamina" inspect --format '{{.Id}}' python-app)
begin=$(seconds)
again=$(run "$lamina" build --progress=plain -t python-app "$work/python-app" 2>&1); end=$(seconds)
printf '%s\n' "$again"
took=$(python3 -c "print(f'{$end - $begin:.3f}')")
nothing_ran() { ! printf '%s\n' "$1" | grep -qE '^#[0-9]+ (DONE|ERROR)'; }
check "every step is cached ($took s for the whole command)" nothing_ran "$again"
check "and the image is the same" test "$("$lamina" inspect --format '{{.Id}}' python-app)" = "$id_before"

say "Edit app.py and build again"
sed -i 's/Hello from lamina/Hello again from lamina/' "$work/python-app/app.py"
edited=$(run "$lamina" build --progress=plain -t python-app "$work/python-app" 2>&1)
printf '%s\n' "$edited"
check "the apt step stays cached" is_outcome "$edited" "RUN apt-get" CACHED
check "COPY runs again" is_outcome "$edited" "COPY . /app" DONE
check "what follows it runs again" is_outcome "$edited" "RUN pip3" DONE
"$lamina" rm -f "demo-python-app-$$" >/dev/null
containers=("demo-go-app-$$")
check "the new python-app starts" start python-app "$python_port" 8000
page=$(fetch "http://127.0.0.1:$python_port/")
check "and answers with the edit" contains "$page" "Hello again from lamina"

cleanup
containers=()
check "nothing is left running" test -z "$("$lamina" ps -q)"

say "Summary"
printf '  %s\n' "${checks[@]}"
if [ "$failed" = 0 ]; then printf 'Every check held.\n'; else printf 'Some checks FAILED.\n'; fi
exit "$failed"
