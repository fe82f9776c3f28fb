#!/usr/bin/env bash
# The whole example by one command: `bash pipeline/examples/thumbnails/run.sh`. Draws pictures, uploads them to an emulator,
# runs the job, and fetches the thumbnails onto one sheet. Uses what AWS_ENDPOINT_URL names; else it starts LocalStack in Docker
# for as long as it runs. Needs Docker, python3 with pip, and cargo.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
readonly localstack=localstack/localstack:4.14.0

echo "[1/5] Python's packages"
[[ -d .packages ]] || python3 -m pip install --quiet --no-input --no-warn-conflicts --root-user-action=ignore --target .packages awslambdaric==4.2.2 pillow==13.0.0 boto3
export PYTHONPATH=.packages

echo "[2/5] the image of the container lane"
bash build-image.sh

if [[ -z ${AWS_ENDPOINT_URL:-} ]]; then
  echo "[3/5] LocalStack"
  docker image inspect "$localstack" >/dev/null 2>&1 || bash ../../../localstack/build-image.sh
  container=$(docker run --rm -d -p 127.0.0.1::4566 -e SERVICES=s3 "$localstack")
  trap 'docker stop "$container" >/dev/null' EXIT
  port=$(docker port "$container" 4566/tcp | head -n 1)
  export AWS_ENDPOINT_URL=http://$port AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_REGION=us-east-1
  deadline=$((SECONDS + 120))
  until python3 -c "import urllib.request; urllib.request.urlopen('$AWS_ENDPOINT_URL/_localstack/health')" 2>/dev/null; do
    ((SECONDS < deadline)) || { docker logs "$container" | tail -n 20 >&2; exit 1; }
    sleep 0.5
  done
else
  echo "[3/5] $AWS_ENDPOINT_URL"
fi
python3 pictures.py upload

echo "[4/5] the job"
status=0
cargo run --quiet --release --features full --manifest-path ../../../Cargo.toml -p trommel -- run job.toml || status=$?
# 3: it succeeded, and tolerated a failure.
((status == 0 || status == 3)) || exit "$status"

echo "[5/5] the thumbnails"
python3 pictures.py fetch out/thumbnails
