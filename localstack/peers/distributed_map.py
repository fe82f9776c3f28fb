#!/usr/bin/env python3
"""One emulator, warm, the same objects, the same no-op, one call an item: its own Step Functions Distributed Map beside
Trommel.

    AWS_ENDPOINT_URL=http://127.0.0.1:4566 localstack/peers/distributed_map.py [--rounds 5] [--small 1000] [--large 10000]

Needs boto3, and the bench of Trommel (`cargo bench -p trommel --features full --bench emulator --no-run`). Each row is a median.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
from botocore.config import Config

# A body of some kilobytes, as thumbnails have; nobody reads it.
BODY = b"x" * 1024
POLL_SECONDS = 0.05


def clients():
    url = os.environ.get("AWS_ENDPOINT_URL") or sys.exit("set AWS_ENDPOINT_URL to an emulator")
    settings = {"endpoint_url": url, "region_name": os.environ.get("AWS_REGION", "us-east-1"),
                "aws_access_key_id": "test", "aws_secret_access_key": "test",
                "config": Config(max_pool_connections=32)}
    return boto3.client("s3", **settings), boto3.client("stepfunctions", **settings)


def bucket_of(s3, count):
    name = f"peers-{count}-{time.time_ns():x}"
    s3.create_bucket(Bucket=name)
    put = lambda number: s3.put_object(Bucket=name, Key=f"in/object-{number:06}", Body=BODY)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(put, range(count)))
    return name


def machine(states, bucket):
    definition = {
        "StartAt": "Each",
        "States": {"Each": {
            "Type": "Map", "End": True, "MaxConcurrency": 1000,
            "ItemReader": {"Resource": "arn:aws:states:::s3:listObjectsV2", "Parameters": {"Bucket": bucket, "Prefix": "in/"}},
            "ItemProcessor": {
                "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
                "StartAt": "Nothing", "States": {"Nothing": {"Type": "Pass", "End": True}},
            },
            "ResultPath": None,
        }},
    }
    made = states.create_state_machine(name=f"peers-{time.time_ns():x}", definition=json.dumps(definition),
                                       roleArn="arn:aws:iam::000000000000:role/peers")
    return made["stateMachineArn"]


def distributed_map(states, arn):
    begun = time.monotonic()
    run = states.start_execution(stateMachineArn=arn)["executionArn"]
    while (status := states.describe_execution(executionArn=run))["status"] == "RUNNING":
        time.sleep(POLL_SECONDS)
    if status["status"] != "SUCCEEDED":
        sys.exit(f"the Distributed Map ended as {status['status']}: {status.get('cause', '')}")
    return time.monotonic() - begun


def trommel(bench, bucket):
    """Seconds as the bench measures them, and what it says of its calls."""
    said = subprocess.run([bench, "objects", bucket], check=True, text=True, stdout=subprocess.PIPE).stdout
    return float(re.search(r": ([0-9.]+) s,", said)[1]), said


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--small", type=int, default=1000)
    arguments.add_argument("--large", type=int, default=10000)
    arguments.add_argument("--bench", type=Path, required=True, help="the bench's program")
    chosen = arguments.parse_args()
    s3, states = clients()
    small, large = bucket_of(s3, chosen.small), bucket_of(s3, chosen.large)
    arn = machine(states, small)
    # Warm: both once, unmeasured.
    distributed_map(states, arn)
    trommel(chosen.bench, small)
    rows = {"map": [], "small": [], "large": []}
    said = ""
    for _ in range(chosen.rounds):
        rows["map"].append(distributed_map(states, arn))
        rows["small"].append(trommel(chosen.bench, small)[0])
        seconds, said = trommel(chosen.bench, large)
        rows["large"].append(seconds)
    map_rate = chosen.small / statistics.median(rows["map"])
    for name, count, times in (("its own Distributed Map", chosen.small, rows["map"]),
                               ("trommel", chosen.small, rows["small"]), ("trommel", chosen.large, rows["large"])):
        rate = count / statistics.median(times)
        print(f"{name:24} {count:6} objects  {statistics.median(times):7.2f} s  {rate:7.0f} items/s  {rate / map_rate:5.2f} ×"
              f"   rounds: {' '.join(f'{seconds:.2f}' for seconds in times)}")
    print(said, end="")


if __name__ == "__main__":
    main()
