"""A stream through nginx: deploy_stream.py PORT URL KEY. Its first event comes while the server still computes, and when its
client goes, so does its text."""
import http.client
import json
import socket
import ssl
import sys
import time
from urllib.parse import urlparse

port, url, key = int(sys.argv[1]), urlparse(sys.argv[2]), sys.argv[3]


def running():
    c = http.client.HTTPConnection(url.hostname, url.port, timeout=60)
    c.request("GET", "/metrics", headers={"Authorization": f"Bearer {key}"})
    text = c.getresponse().read().decode()
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith("vllm:num_requests_running"))


def begin():
    tls = ssl.create_default_context(cafile="models.pem").wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="models.example")
    body = json.dumps({"prompt": "in", "max_tokens": 250, "n": 16, "ignore_eos": True, "stream": True, "logprobs": 5, "seed": 1}).encode()
    tls.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: models.example\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n" % (key.encode(), len(body)) + body)
    return tls


s, began, text, first = begin(), time.monotonic(), b"", 0.0
while b"[DONE]" not in text:
    piece = s.recv(65536)
    assert piece, text[-300:]
    text += piece
    if not first and b"data: {" in text:
        first, still = time.monotonic() - began, running()
whole = time.monotonic() - began
print(f"first event after {1e3 * first:.0f} ms, while {still:.0f} texts were computed; the last after {1e3 * whole:.0f}")
assert still > 0 and first < whole / 2, "nginx kept the stream back"
s.close()
s = begin()
s.recv(1000)
s.close()
for i in range(100):
    if running() == 0:
        break
    time.sleep(0.01)
print(f"a client that goes: its texts have ended {10 * i} ms later")
assert running() == 0, "texts go on without a client"
