"""Load that a server of a small model must bear, by sockets alone: serve_load.py URL MODEL SECONDS [option...]

Many clients at once, each doing one thing after the other by chance: requests whose answers are known (they must come, the
same every time), clients that vanish before, in the middle of and behind their request, that stall, that read nothing, rubbish
of all kinds. Exits 1 when an answer differs or is a 500, when one does not come, or (with --pid) when memory grows or
descriptors are left. With --until-gone it goes on until the server ends, which then may refuse and cut."""
import argparse
import asyncio
import json
import os
import random
import socket
import struct
import sys
import time
from collections import Counter
from urllib.parse import urlparse

options = argparse.ArgumentParser()
options.add_argument("url")
options.add_argument("model")
options.add_argument("seconds", type=float)
options.add_argument("--pid", type=int, help="of the server: its memory and descriptors are watched")
options.add_argument("--key", help="an API key")
options.add_argument("--clients", type=int, default=24)
options.add_argument("--seed", type=int, default=1)
options.add_argument("--until-gone", action="store_true")
options.add_argument("--growth", type=float, default=2.0, help="MiB that anonymous memory may grow by from one half to the other")
options.add_argument("--leaks", action="store_true", help="memory is another's to watch: a sanitizer's")
o = options.parse_args()
host, port = urlparse(o.url).hostname, urlparse(o.url).port
done, wrong, known = Counter(), [], {}
over = False

SCHEMA = {"type": "object", "properties": {"day": {"type": "integer", "minimum": 1, "maximum": 31}, "good": {"type": "boolean"},
                                           "words": {"type": "array", "items": {"enum": ["was", "it", "the"]}, "maxItems": 3}},
          "required": ["day", "good", "words"], "additionalProperties": False}
CHAT = [{"role": "system", "content": "be good"}, {"role": "user", "content": "day 7?"}]
FIXED = [("/v1/completions", dict(prompt=["in the", "it was good", "day 7 and day 8 and"][i % 3], seed=i, max_tokens=5 + 7 * i % 60,
                                  temperature=0.3 * (i % 4), **[{}, {"logprobs": 3}, {"n": 3}, {"presence_penalty": 0.5, "stop": ["w"]}, {"stream": True},
                                                               {"stream": True, "logprobs": 5}][i % 6])) for i in range(18)]
FIXED += [("/v1/completions", dict(prompt="it was", max_tokens=90, seed=i, response_format={"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}},
                                   stream=bool(i % 2))) for i in range(4)]
FIXED += [("/v1/completions", dict(prompt="it was", max_tokens=60, seed=i, grammar='root ::= ("day " [1-9] [0-9]? ", "){2,%d} "good"' % (2 + i))) for i in range(3)]
FIXED += [("/v1/completions", dict(prompt="day " * 60, max_tokens=0, echo=True, logprobs=20)), ("/v1/completions", dict(prompt=[[300, 40, 41], [50, 60]], n=2, seed=8, max_tokens=30)),
          ("/v1/completions", dict(prompt="in", seed=4, max_tokens=200, ignore_eos=True, lockstep={"receipt": True})),
          ("/v1/chat/completions", dict(messages=CHAT, seed=3, max_tokens=40, logprobs=True, top_logprobs=2)),
          ("/v1/chat/completions", dict(messages=CHAT, seed=5, stream=True, stream_options={"include_usage": True})),
          ("/v1/embeddings", dict(input=["in the", "it was good"])), ("/tokenize", dict(prompt="day 7 was good " * 9)), ("/detokenize", dict(tokens=[40, 41, 50]))]


# --- one request ------------------------------------------------------------------------------------------------------
def head(path, size, method="POST"):
    key = f"Authorization: Bearer {o.key}\r\n" if o.key else ""
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\n{key}Content-Length: {size}\r\n\r\n".encode()


def request(path, body):
    data = json.dumps({"model": o.model, **body}).encode()
    return head(path, len(data)) + data


async def read_answer(r):
    """Status and body; raises IncompleteReadError where it is cut."""
    top = (await r.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status, body = int(top.split()[1]), b""
    if "transfer-encoding: chunked" in top:
        while size := int((await r.readuntil(b"\r\n")), 16):
            body += (await r.readexactly(size + 2))[:-2]
        await r.readexactly(2)
    elif "content-length: " in top:
        body = await r.readexactly(int(top.split("content-length: ")[1].split("\r\n")[0]))
    else:
        body = await r.read()
    return status, body


async def connect(buffer=None):
    s = socket.socket()
    s.setblocking(False)
    if buffer:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    await asyncio.get_running_loop().sock_connect(s, (host, port))
    return await asyncio.open_connection(sock=s, limit=1 << 25)


def end(w, abrupt=False):
    if abrupt:
        w.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        w.transport.abort()
    w.close()


async def ask(data):
    r, w = await connect()
    try:
        w.write(data)
        return await asyncio.wait_for(read_answer(r), 120)
    finally:
        end(w)


# --- answers that are known ---------------------------------------------------------------------------------------------
def essence(path, body, data):
    """What must be the same each time, and the root of the weights that it came from."""
    if body.get("stream"):
        events = data.decode().split("\n\n")
        if events[-2:] != ["data: [DONE]", ""]:
            raise ValueError("the stream has no end")
        said, root = {}, None
        for v in (json.loads(e[6:]) for e in events[:-2]):
            if "error" in v:
                raise ValueError(v)
            root = v.get("lockstep", {}).get("model_root", root)
            for c in v["choices"]:
                text = c.get("text") or c.get("delta", {}).get("content") or ""
                old = said.setdefault(c["index"], ["", [], None])
                old[0] += text
                old[1] += [c["logprobs"]] if c["logprobs"] else []
                old[2] = c["finish_reason"] or old[2]
        return said, root
    v = json.loads(data)
    root = v.get("lockstep", {}).get("model_root", "embedding" if "embedding" in path else "")
    return v.get("choices") or v.get("data") or v.get("tokens") or v.get("prompt"), root


async def ask_known(r):
    i = r.randrange(len(FIXED))
    path, body = FIXED[i]
    status, data = await ask(request(path, body))
    if status in (429, 503):
        done[f"refused {status}"] += 1
        await asyncio.sleep(0.05)
        return
    if status != 200:
        raise ValueError(f"{path} {body}: {status} {data[:300]}")
    said, root = essence(path, body, data)
    roots.add(root)
    if root == "embedding" and len(roots) > 3:  # whose weights they are of is not said
        return
    if known.setdefault((i, root), said) != said:
        raise ValueError(f"{path} {body}: another answer of {root}: {said}, not {known[i, root]}")


roots = set()


# --- clients that behave badly --------------------------------------------------------------------------------------------
async def vanish(r):
    """In the middle of its request, or before or during its answer."""
    path, body = r.choice(FIXED)
    data = request(path, {**body, "stream": r.random() < 0.7, "max_tokens": 200, "echo": False} if path == "/v1/completions" else body)
    reader, w = await connect()
    w.write(data[: r.randrange(len(data))] if r.random() < 0.3 else data)
    if r.random() < 0.6:
        try:
            await asyncio.wait_for(reader.read(r.choice([1, 200, 2000, 9000])), 2)
        except asyncio.TimeoutError:
            pass
    elif r.random() < 0.5:
        await asyncio.sleep(r.random() * 0.05)
    end(w, r.random() < 0.5)


async def stall(r):
    """Sends or reads a little and then nothing for a while."""
    path, body = r.choice(FIXED[:18])
    data = request(path, {**body, "stream": True, "max_tokens": 250, "ignore_eos": True, "logprobs": 20})
    reader, w = await connect(r.choice([2048, None]))
    w.transport.pause_reading()
    w.write(data[: r.randrange(len(data))] if r.random() < 0.5 else data)
    await asyncio.sleep(r.random() * min(6, o.seconds / 8))
    end(w, r.random() < 0.5)


def mutated(r):
    path, body = r.choice(FIXED)
    data = bytearray(json.dumps({"model": o.model, **body}).encode())
    for _ in range(r.randint(1, 4)):
        at = r.randrange(len(data))
        what = r.randrange(4)
        if what == 0:
            data[at] ^= 1 << r.randrange(8)
        elif what == 1:
            del data[at: at + r.randint(1, 5)]
        elif what == 2:
            data[at:at] = r.choice([b"[", b"{", b'"', b"-", b"1e99", b"null", b"\xff", b"\\u0000", b"9" * 30])
        else:
            data[at:at] = data[at: at + 20]
    return head(path, len(data)) + bytes(data)


async def rubbish(r):
    kind = r.randrange(8)
    deep = b'{"prompt": ' + b"[" * r.randint(10, 100000)
    data = [lambda: r.randbytes(r.randint(1, 3000)), lambda: mutated(r), lambda: mutated(r), lambda: head("/v1/completions", len(deep)) + deep,
            lambda: b"GET /" + r.randbytes(30) + b" HTTP/1.1\r\n\r\n", lambda: head(r.choice(["/v1/models", "/health", "/metrics", "/../x", "/v1/%ff"]), 0, r.choice(["GET", "PUT", "TRACE", "X"])),
            lambda: b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + r.choice([b"zz\r\n", b"5\r\nabcde\r\n0\r\n\r\n", b"ffffffffffff\r\n"]),
            lambda: b"POST /v1/completions HTTP/1.1\r\nX: " + b"a" * r.choice([10000, 70000]) + b"\r\n\r\n"][kind]()
    reader, w = await connect()
    try:
        w.write(data)
        status, body = await asyncio.wait_for(read_answer(reader), 3 if kind not in (1, 2) else 60)
        if status == 500 or status > 503:
            raise ValueError(f"{status} {body[:300]} for {data[:600]}")
    except asyncio.TimeoutError:
        if kind in (1, 2):
            raise ValueError(f"no answer to {data[:600]}")
    except (asyncio.IncompleteReadError, ConnectionError, BrokenPipeError):
        pass  # it may close
    finally:
        end(w)


KINDS = [ask_known] * 6 + [vanish] * 3 + [stall, rubbish, rubbish]


async def client(n):
    global over
    r = random.Random(f"{o.seed} {n}")
    while not over:
        kind = r.choice(KINDS)
        try:
            await kind(r)
            done[kind.__name__] += 1
        except (ConnectionError, OSError, asyncio.IncompleteReadError) as e:
            done["cut"] += 1
            if o.until_gone:
                over |= isinstance(e, ConnectionRefusedError)
            elif kind is ask_known:
                wrong.append(f"a known request was cut: {e!r}")
        except (ValueError, KeyError, asyncio.TimeoutError) as e:
            wrong.append(f"{kind.__name__}: {e!r}"[:3000])
        over |= len(wrong) > 5 or (not o.until_gone and time.monotonic() > until)


# --- memory, descriptors --------------------------------------------------------------------------------------------------
def anonymous():
    with open(f"/proc/{o.pid}/status") as f:
        return next(int(line.split()[1]) / 1024 for line in f if line.startswith("RssAnon"))


def descriptors():
    return len(os.listdir(f"/proc/{o.pid}/fd"))


async def watch():
    """Anonymous memory, once a second, in MiB."""
    seen = []
    while not over:
        seen.append(anonymous())
        await asyncio.sleep(1)
    return seen


def judge_memory(seen):
    """Flat behind a warm-up of a fifth: the halves of the rest have the same mean."""
    rest = seen[len(seen) // 5:]
    a, b = rest[: len(rest) // 2], rest[len(rest) // 2:]
    first, second = sum(a) / len(a), sum(b) / len(b)
    mean, middle = sum(rest) / len(rest), (len(rest) - 1) / 2
    slope = sum((i - middle) * (x - mean) for i, x in enumerate(rest)) / sum((i - middle) ** 2 for i in range(len(rest)))
    print(f"anonymous memory: {seen[0]:.1f} MiB at the start, then {first:.2f} and {second:.2f} in the halves behind a fifth of the time "
          f"({min(rest):.1f} to {max(rest):.1f}), {3600 * slope:+.1f} MiB an hour")
    if second - first > o.growth:
        wrong.append(f"memory grew by {second - first:.2f} MiB, more than {o.growth}")


async def main():
    global until, over
    until = time.monotonic() + o.seconds
    fds = descriptors() if o.pid else 0
    watcher = asyncio.create_task(watch()) if o.pid and not o.leaks else None
    await asyncio.gather(*(client(n) for n in range(o.clients)))
    over = True
    if watcher:
        judge_memory(await watcher)
    if o.pid and not o.until_gone:
        for _ in range(100):
            if descriptors() <= fds:
                break
            await asyncio.sleep(0.1)
        print(f"descriptors: {fds} before, {descriptors()} after")
        if descriptors() > fds:
            wrong.append(f"{descriptors()} descriptors, {fds} before")
    print(", ".join(f"{k} {v}" for k, v in sorted(done.items())) + f"; {len(known)} known answers of {len(roots - {'', 'embedding'})} weights")
    for w in wrong[:5]:
        print(f"WRONG: {w}")
    if not done["ask_known"]:
        wrong.append("nothing was answered")
    return len(wrong) > 0


sys.exit(asyncio.run(main()))
