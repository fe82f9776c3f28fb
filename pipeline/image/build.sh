#!/usr/bin/env bash
# Makes the Docker image of the program out of this checkout, without a registry: a release build, on Debian's base by debootstrap.
#
#   usage: build.sh [IMAGE]        (default trommel:latest)
#
# Needs root, cargo, debootstrap and a running Docker engine. Where a registry answers, `docker build -f pipeline/image/Dockerfile .` is simpler.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
readonly image=${1:-trommel:latest}

docker info >/dev/null 2>&1 || { echo "no Docker engine answers: install docker.io and start dockerd" >&2; exit 1; }
cargo build --release --features full -p trommel
program=${CARGO_TARGET_DIR:-target}/release/trommel
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The release that this binary was linked on, so that the C library fits.
suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-trixie}")
debootstrap --variant=minbase --include=ca-certificates "$suite" "$work/root" >"$work/log" 2>&1 ||
  { tail -n 20 "$work/log" >&2; exit 1; }
install -D -m 755 "$program" "$work/root/usr/local/bin/trommel"
install -d -m 755 -o 65534 -g 65534 "$work/root/work"
tar -C "$work/root" --exclude=./proc --exclude=./sys --exclude=./var/cache/apt --exclude=./var/lib/apt -c . |
  docker import --change 'USER nobody' --change 'WORKDIR /work' --change 'ENTRYPOINT ["trommel"]' - "$image" >/dev/null
docker run --rm "$image" --version
