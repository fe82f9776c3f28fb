# Short names for what cargo does. Nothing needs them: each is one line that you can type yourself.

# List the recipes
default:
    @just --list

# Run a job: just run pipeline/examples/checksums/job.toml
[group('use')]
run job *options:
    cargo run --release -- run {{ job }} {{ options }}

# Build the program with S3, SQS and DynamoDB
[group('use')]
build:
    cargo build --release --features full

# Make thumbnails of real pictures on an emulator: functions and containers at work
[group('use')]
thumbnails:
    bash pipeline/examples/thumbnails/run.sh

# Make a Docker image of the program, without a registry
[group('use')]
image:
    bash pipeline/image/build.sh

# Open the documentation of all crates
[group('use')]
docs:
    cargo doc --workspace --no-deps --open

# Run every test; an emulator is found or started
[group('check')]
test *filter:
    cargo test --workspace {{ filter }}

# Run the tests that need no emulator
[group('check')]
test-offline *filter:
    TROMMEL_TEST_ENDPOINT=none cargo test --workspace {{ filter }}

# Format the code
[group('check')]
fmt:
    cargo fmt

# Check style and common mistakes
[group('check')]
lint:
    cargo clippy --workspace --all-targets -- -D warnings

# Measure throughput
[group('check')]
bench:
    cargo bench -p trommel

# Break it: many seeds in a simulated world; the first that breaks a promise is made small
[group('check')]
simulate *options:
    cargo run --profile dst -p trommel-simulator -- run {{ options }}

# Break it for an hour, on fresh seeds, and crash it at every await
[group('check')]
nightly:
    bash .ci/nightly

# See the kernel bound handlers' memory by cgroups, in a virtual machine
[group('check')]
cgroup:
    bash tests/vm/cgroup.sh

# Do all that the project's own check does, on a bare machine
[group('check')]
ci:
    bash .ci/run

# Make the image of LocalStack without a container registry
[group('emulator')]
localstack-image:
    bash localstack/build-image.sh

# Put the chaos proxy before it: just proxy --rate 5%
[group('emulator')]
proxy *options:
    cargo run -p trommel-localstack --bin trommel-proxy -- {{ options }}

# Start LocalStack and wait until it answers
[group('emulator')]
localstack:
    docker compose -f localstack/compose.yaml up --wait
