#!/usr/bin/env bash
# Makes the image trommel-thumbnails: by the Dockerfile where a registry answers, else from Debian's packages alone
# (needs root, and debootstrap). Does nothing where it is there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
readonly image=trommel-thumbnails

docker info >/dev/null 2>&1 || { echo "no Docker engine answers: install docker.io and start dockerd" >&2; exit 1; }
if docker image inspect "$image" >/dev/null 2>&1; then
  exit 0
fi
if timeout 60 docker pull -q debian:trixie-slim >/dev/null 2>&1; then
  docker build -q -t "$image" .
  exit 0
fi
echo "no registry answers: $image is made from Debian's packages"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
debootstrap --variant=minbase --include=python3,python3-pil,python3-boto3 trixie "$work/root" >"$work/log" 2>&1 ||
  { tail -n 20 "$work/log" >&2; exit 1; }
mkdir "$work/root/app"
cp thumbnail.py "$work/root/app/"
tar -C "$work/root" --exclude=./proc --exclude=./sys --exclude=./var/cache/apt --exclude=./var/lib/apt -c . |
  docker import --change 'USER nobody' - "$image" >/dev/null
