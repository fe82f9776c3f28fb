"""A function on a runtime of its own, a few lines over HTTP: does what the event asks it to do."""

import http.client
import json
import mmap
import os
import subprocess
import sys
import time

API = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
ROOT = "/2018-06-01/runtime/"


def ask(method, path, body=None, headers=None):
    API.request(method, ROOT + path, body, headers or {})
    response = API.getresponse()
    return response, response.read()


if os.environ.get("START") == "error":
    error = {"errorType": "Runtime.ImportModuleError", "errorMessage": "no module named app"}
    ask("POST", "init/error", json.dumps(error))
    sys.exit(1)
if os.environ.get("START") == "exit":
    print("cannot find its model", file=sys.stderr, flush=True)
    sys.exit(7)
time.sleep(float(os.environ.get("START_SECONDS", "0")))
if os.environ.get("START") == "leave":
    # Asks, and does not stay for the answer.
    API.request("GET", ROOT + "invocation/next")
    time.sleep(0.05)
    os._exit(0)

calls = 0
while True:
    response, event = ask("GET", "invocation/next")
    name = response.headers["Lambda-Runtime-Aws-Request-Id"]
    event = json.loads(event)
    calls += 1
    asked = event["Items"][0] if "BatchInput" in event else event
    do = asked.get("do", "echo")
    if do == "exit":
        print("out of luck", file=sys.stderr, flush=True)
        sys.exit(event.get("code", 3))
    elif do == "kill":
        os.kill(os.getpid(), 11)
    elif do == "sleep":
        print("goes to sleep", flush=True)
        time.sleep(event["seconds"])
    elif do == "eat":
        eaten = b"x" * event["bytes"]
        time.sleep(30)
    elif do == "gulp":
        # Taken at once and given back at once: who only looks now and then may miss it.
        mmap.mmap(-1, event["bytes"], mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE).close()
    elif do == "hoard":
        # In a file that lies in memory: resident in no process.
        hoard = os.memfd_create("hoard")
        left = event["bytes"]
        while left > 0:
            left -= os.write(hoard, b"x" * min(left, 1 << 20))
        os.close(hoard)
    elif do == "child-eats":
        subprocess.run([sys.executable, "-c", f"import time; eaten = b'x' * {event['bytes']}; time.sleep(30)"])
    if do == "junk":
        ask("POST", f"invocation/{name}/response", "this is no JSON")
    elif do == "long":
        API.request("POST", ROOT + f"invocation/{name}/response", b'"' + b"x" * (9 << 20) + b'"')
        API.getresponse().read()
    elif do == "error":
        print("about to fail", flush=True)
        error = {"errorType": "NotAnImage", "errorMessage": "it has no header", "stackTrace": ["  File app.py, line 3\n"]}
        ask("POST", f"invocation/{name}/error", json.dumps(error), {"Lambda-Runtime-Function-Error-Type": "NotAnImage"})
    elif do == "stream":
        body = (part for part in [b'{"half":', b" 1}"])
        API.request("POST", ROOT + f"invocation/{name}/response", body,
                    {"Lambda-Runtime-Function-Response-Mode": "streaming", "Transfer-Encoding": "chunked"}, encode_chunked=True)
        API.getresponse().read()
    elif do == "wrong-id":
        response, said = ask("POST", "invocation/00000000-0000-4000-8000-000000000000/response", "1")
        ask("POST", f"invocation/{name}/response", json.dumps({"status": response.status}))
    else:
        told = {key.lower(): response.headers[key] for key in response.headers}
        context = json.loads(told["lambda-runtime-client-context"])["custom"]
        left = int(told["lambda-runtime-deadline-ms"]) - time.time() * 1000
        answer = {"event": event, "context": context, "pid": os.getpid(), "calls": calls, "left": round(left / 1000)}
        ask("POST", f"invocation/{name}/response", json.dumps(answer))
