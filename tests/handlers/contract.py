"""What the contract of executors calls: as a command (one item, or a batch line by line) and as a Lambda handler."""

import json
import os
import sys
import time


class NotGood(Exception):
    pass


def carry_out(event):
    if event["do"] == "fail":
        raise NotGood("as asked")
    if event["do"] == "die":
        os._exit(9)
    if event["do"] == "sleep":
        time.sleep(600)
    return {"n": event["n"]}


def handle(event, context):
    if "Items" not in event:
        return carry_out(event)
    outputs, failures = {}, []
    for named, item in zip(event["BatchInput"]["items"], event["Items"]):
        try:
            outputs[named["item"]] = carry_out(item)
        except NotGood as error:
            failures.append({"itemIdentifier": named["item"], "errorType": "NotGood", "errorMessage": str(error)})
    return {"outputs": outputs, "batchItemFailures": failures}


def main():
    for line in sys.stdin:
        line = json.loads(line)
        item = line.get("item")
        try:
            output = carry_out(line["input"] if item else line)
            print(json.dumps({"item": item, "output": output} if item else output), flush=True)
        except NotGood as error:
            said = {"error": "NotGood", "cause": str(error)}
            if not item:
                print(json.dumps(said), file=sys.stderr)
                sys.exit(1)
            print(json.dumps({"item": item, **said}), flush=True)


if __name__ == "__main__":
    main()
