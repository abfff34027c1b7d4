"""Connections that only hold places: serve_connections.py URL MODEL COUNT PID SECONDS. Opens COUNT of them, a third idle, a third
with half a head, a third with half a body, from addresses 127.0.0.x; asks as usual meanwhile; and looks on until the server has
closed them all, which must take SECONDS (--client-timeout) for half requests and twice that for idle ones."""
import json
import os
import resource
import select
import socket
import sys
import time
from urllib.parse import urlparse

import report
from report import check

url, model, count, pid, limit = urlparse(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4], float(sys.argv[5])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, count + 200) if hard > 0 else count + 200, hard))


def memory():
    with open(f"/proc/{pid}/status") as f:
        return {k: int(v.split()[0]) for k, v in (line.split(":") for line in f) if k in ("RssAnon", "VmRSS")}


def ask():
    began = time.monotonic()
    status, text = report.ask(sys.argv[1], "/v1/completions", {"model": model, "prompt": "it was", "max_tokens": 20, "seed": 3})
    return json.loads(text)["choices"][0]["text"] if status == 200 else status, time.monotonic() - began


def come(n):
    s = socket.socket()
    s.bind((f"127.0.0.{2 + n // 5000}", 0))
    s.connect((url.hostname, url.port))
    if n % 3:
        s.send([b"", b"POST /v1/completions HTTP/1.1\r\nHo", b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{\"prompt\": \""][n % 3])
    return s


alone, _ = ask()
before, began = memory(), time.monotonic()
all_ = [come(n) for n in range(count)]
opened = time.monotonic() - began
deadline = time.monotonic() + 30
while len(os.listdir(f"/proc/{pid}/fd")) < count and time.monotonic() < deadline:
    time.sleep(0.02)
held = len(os.listdir(f"/proc/{pid}/fd"))
check(f"{count} connections are open at the same time", held >= count, held)
times = []
for _ in range(20):
    text, took = ask()
    times.append(took)
    if text != alone:
        break
check("a request beside them has its answer", text == alone, text)
after = memory()
print(f"    opened in {opened:.1f} s; {(after['VmRSS'] - before['VmRSS']) / count:.1f} KiB of the server each; a request beside them takes {1e3 * min(times):.1f} to {1e3 * max(times):.1f} ms")
poll, left, ended = select.poll(), {s.fileno(): n for n, s in enumerate(all_)}, [0.0, 0.0, 0.0]
for fd in left:
    poll.register(fd, select.POLLIN | select.POLLHUP)
while left and time.monotonic() - began < opened + 3 * limit + 30:
    for fd, _ in poll.poll(500):
        n = left[fd]
        try:
            over = not all_[n].recv(4096)
        except ConnectionError:
            over = True
        if over:
            poll.unregister(fd)
            all_[n].close()
            ended[n % 3] = max(ended[n % 3], time.monotonic() - began)
            del left[fd]
check("the server closes them all", not left, len(left))
slack = opened + limit + 10
check("in their time", all(e <= slack + (2 * limit if i < 2 else limit) for i, e in enumerate(ended)), ended)
print(f"    the last idle one after {ended[0]:.1f} s, half a head {ended[1]:.1f}, half a body {ended[2]:.1f}")
check("and goes on as before", ask()[0] == alone)
report.end()
