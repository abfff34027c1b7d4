"""Checks as the end-to-end scripts print them: "ok - NAME", or "not ok - NAME: what happened"."""
import http.client
import json
import sys
from urllib.parse import urlparse

failed = 0


def check(name, good, *what):
    global failed
    print(f"{'ok' if good else 'not ok'} - {name}" + ("" if good else f": {' '.join(map(str, what))[:600]}"), flush=True)
    failed += not good


def end():
    sys.exit(failed > 0)


def ask(url, path, body=None, method=None, headers={}):
    """The status and the bytes that a server answers; body: bytes, what becomes JSON, or None for a GET."""
    c = http.client.HTTPConnection(urlparse(url).hostname, urlparse(url).port, timeout=60)
    data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    c.request(method or ("POST" if data is not None else "GET"), path, data, headers)
    r = c.getresponse()
    text = r.read()
    c.close()
    return r.status, text
