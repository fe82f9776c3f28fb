"""The work of the handlers' journeys, as a Lambda function and as a command: squares a number, in a few wrong ways if asked."""

import json
import os
import sys
import time


def work(event, context=None):
    do = event.get("do")
    if do == "sleep":
        time.sleep(600)
    elif do == "exit":
        os._exit(3)
    elif do == "eat":
        eaten = b"x" * (400 << 20)
        time.sleep(600)
        return len(eaten)
    elif do == "junk":
        # Nothing that JSON knows.
        return {1j}
    return {"n": event["n"], "square": event["n"] ** 2, "upper": event["text"].upper()}


if __name__ == "__main__":
    print(json.dumps(work(json.load(sys.stdin))))
