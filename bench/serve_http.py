"""What clients of a server see: `lockstep serve`, and llama-server on the same float32 model if its path is given, in turns,
medians and ratios (above 1: Lockstep is better); what HTTP and sampling cost beside the batch alone; what a schema costs;
from exec to the first token. Called by bench/serve.sh; needs numpy, and gguf for llama-server.
    python serve_http.py LOCKSTEP [--llama-server PATH] [--threads N] [--rounds N] [--only PART] [--shape llama135|llama]"""
import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

from common import Machine
import serve_model

SHORT = ["--prompt", "16"]
# name, slots, what `serve bench` is given, what is read from its answer, whether more is better
LOAD = ["--streams", "8", "--requests", "48", "--prompt", "512", "--tokens", "64"]
CASES = [
    ("one stream, tokens/s", 8, ["--streams", "1", "--requests", "2", "--tokens", "128", *SHORT], lambda d: d["tokens_per_second"], True),
    ("8 streams, tokens/s", 8, ["--streams", "8", "--requests", "8", "--tokens", "96", *SHORT], lambda d: d["tokens_per_second"], True),
    ("prompt of 512, tokens/s", 8, ["--streams", "1", "--requests", "3", "--prompt", "512", "--tokens", "2"],
     lambda d: 512e3 / d["first"]["p50_ms"], True),
    ("prompt of 4,096, tokens/s", 8, ["--streams", "1", "--requests", "1", "--prompt", "4096", "--tokens", "2"],
     lambda d: 4096e3 / d["first"]["p50_ms"], True),
    ("prompt of 2,000, first token, ms", 8, ["--streams", "1", "--requests", "5", "--prompt", "2001", "--shared", "2000", "--tokens", "2"],
     lambda d: d["first"]["worst_ms"], False),
    ("  its prefix cached", 8, None, lambda d: d["first"]["p50_ms"], False),
    ("8 streams of 512: first token p50, ms", 8, LOAD, lambda d: d["first"]["p50_ms"], False),
    ("  p99", 8, None, lambda d: d["first"]["p99_ms"], False),
    ("  between tokens p50, ms", 8, None, lambda d: d["between"]["p50_ms"], False),
    ("  p99", 8, None, lambda d: d["between"]["p99_ms"], False),
    ("  drawn, tokens/s", 8, None, lambda d: d["tokens_per_second"], True),
    ("32 streams, tokens/s", 32, ["--streams", "32", "--requests", "32", "--tokens", "64", *SHORT], lambda d: d["tokens_per_second"], True),
]
SCHEMA = {"type": "object", "properties": {"text": {"type": "string", "minLength": 4000}}, "required": ["text"], "additionalProperties": False}
FORMATS = [("free", []), ("any JSON object", ["--json-object"]), ("a schema", ["--schema", "schema.json"])]


def more(x, than):
    """By how much, the median over rounds: what is beside one another in time is compared."""
    return f"{100 * (statistics.median(a / b for a, b in zip(x, than)) - 1):+.1f}%"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    def __init__(self, command, port):
        self.command, self.port = command, port

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5):
                    return self
            except OSError:  # refused, or 503 while it loads
                time.sleep(0.001)
        sys.exit(f"{' '.join(self.command)} ended at once")

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def first_token(self):
        body = json.dumps({"prompt": [40, 77, 99], "max_tokens": 4, "temperature": 0, "stream": True, "ignore_eos": True}).encode()
        ask = urllib.request.Request(f"http://127.0.0.1:{self.port}/v1/completions", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(ask) as answer:
            for line in answer:
                if b'"text":"' in line and b'"text":""' not in line:
                    return


class Bench:
    def __init__(self, a, folder):
        self.a, self.folder, self.store = a, folder, ["--store", f"file:{folder}/store"]
        self.next = 0

    def ours(self, slots):
        port = free_port()
        return Server([self.a.lockstep, "serve", "random", *self.store, "--listen", f"127.0.0.1:{port}", "--slots", str(slots),
                       "--memory", "2G", "--threads", str(self.a.threads)], port)

    def theirs(self, slots):
        """Caches of its own for each slot, which are faster than one for all; no copies of prompts that leave a slot."""
        port = free_port()
        context = slots * (4608 if slots <= 8 else 512)
        return Server([self.a.llama_server, "-m", f"{self.folder}/model.gguf", "--host", "127.0.0.1", "--port", str(port), "-np",
                       str(slots), "-c", str(context), "-t", str(self.a.threads), "-tb", str(self.a.threads), "-ctk", "f32", "-ctv",
                       "f32", "--cache-ram", "0"], port)

    def load(self, server, options, first):
        out = subprocess.run([self.a.lockstep, "serve", "bench", f"http://127.0.0.1:{server.port}", "--json", "--first", str(first),
                              *options], cwd=self.folder, stdout=subprocess.PIPE, text=True)
        if out.returncode:
            sys.exit(f"serve bench {' '.join(options)} failed: {out.stdout}")
        return json.loads(out.stdout)

    def turn(self, servers, options):
        """The same requests to each; no server has seen their prompts."""
        self.next += 1000
        return [self.load(s, options, self.next) for s in servers]

    def clients(self):
        kinds = [self.ours] + ([self.theirs] if self.a.llama_server else [])
        seen = {}
        for slots in (8, 32):
            servers = [make(slots).__enter__() for make in kinds]
            try:
                self.turn(servers, ["--streams", "2", "--requests", "4", "--prompt", "64", "--tokens", "16"])
                for _ in range(self.a.rounds):
                    for at, (_, its, options, value, _) in enumerate(CASES):
                        if its == slots:
                            got = self.turn(servers, options) if options else got
                            seen.setdefault(at, []).append([value(d) for d in got])
                            print(f"  {CASES[at][0]:40}", *(f"{x:10.4g}" for x in seen[at][-1]), file=sys.stderr, flush=True)
            finally:
                for s in servers:
                    s.__exit__()
        print(f"{'through HTTP':40} {'Lockstep':>10} {'llama.cpp':>10} {'ratio':>6}")
        for at, (name, _, _, _, high) in enumerate(CASES):
            middle = [statistics.median(x) for x in zip(*seen[at])]
            ratio = "" if len(middle) < 2 else f"{middle[0] / middle[1] if high else middle[1] / middle[0]:6.2f}"
            print(f"{name:40} {middle[0]:10.4g} {middle[1] if ratio else '':>10.4} {ratio:>6}", flush=True)

    def overhead(self):
        """Passes of the batch without a network, and what a client sees, in turns; a token's time of one stream."""
        batch, http = {"1": [], "8": []}, {"1": [], "8": []}
        with self.ours(8) as server:
            for _ in range(self.a.rounds):
                out = subprocess.run([self.a.batch_bench, str(self.a.threads), self.a.shape, os.environ.get("LOCKSTEP_ISA", ""),
                                      "decode"], env=os.environ | {"LOCKSTEP_BENCH_PLAIN": "1"}, stdout=subprocess.PIPE, text=True, check=True).stdout
                rates = dict(line.split() for line in out.splitlines())
                for n in batch:
                    batch[n].append(1e3 / float(rates[f"decode_{n}"]) * int(n))
                    [d] = self.turn([server], ["--streams", n, "--requests", n, "--tokens", "96", *SHORT])
                    http[n].append(d["between"]["p50_ms"])
        for n in batch:
            b, h = statistics.median(batch[n]), statistics.median(http[n])
            print(f"a pass with {n} streams: {b:.2f} ms in the batch alone, {h:.2f} ms through HTTP: {more(http[n], batch[n])}", flush=True)

    def constrained(self):
        seen = {(name, n): [] for name, _ in FORMATS for n in ("1", "8")}
        with open(f"{self.folder}/schema.json", "w") as f:
            json.dump(SCHEMA, f)
        with self.ours(8) as server:
            for _ in range(self.a.rounds):
                for name, n in seen:
                    [d] = self.turn([server], ["--streams", n, "--requests", n, "--tokens", "96", *SHORT, *dict(FORMATS)[name]])
                    seen[name, n].append(d["between"]["p50_ms"])
        for (name, n), x in seen.items():
            print(f"a token of {n} streams, {name}: {statistics.median(x):.2f} ms ({more(x, seen['free', n])})", flush=True)

    def start(self):
        """From exec to the first token; the model is in the page cache."""
        for name, make in [("lockstep serve", self.ours)] + ([("llama-server", self.theirs)] if self.a.llama_server else []):
            took = []
            for _ in range(2 * self.a.rounds + 1):
                began = time.perf_counter()
                with make(8) as server:
                    server.first_token()
                    took.append(time.perf_counter() - began)
            print(f"start to first token, {name}: {statistics.median(took):.3f} s, worst {max(took):.3f} s", flush=True)
        took = []
        for _ in range(2 * self.a.rounds + 1):
            began = time.perf_counter()
            process = subprocess.Popen([self.a.lockstep, "generate", "random", "the", "--tokens", "4", *self.store],
                                       stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0)
            process.stdout.read(4)  # the prompt, and a byte behind it
            took.append(time.perf_counter() - began)
            process.communicate()
        print(f"start to first token, lockstep generate: {statistics.median(took):.3f} s, worst {max(took):.3f} s", flush=True)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("lockstep")
    p.add_argument("--llama-server", default=os.environ.get("LLAMA_SERVER"))
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--only", choices=("clients", "overhead", "constrained", "start"))
    p.add_argument("--shape", choices=list(serve_model.SHAPES), default="llama135")
    a = p.parse_args()
    a.lockstep = os.path.abspath(a.lockstep)
    a.batch_bench = os.path.join(os.path.dirname(a.lockstep), "bench", "batch_bench")
    with tempfile.TemporaryDirectory() as folder, Machine():
        serve_model.make(a.lockstep, folder, a.shape, bool(a.llama_server))
        bench = Bench(a, folder)
        for part in ("start", "overhead", "constrained", "clients"):
            if a.only in (None, part):
                getattr(bench, part)()


if __name__ == "__main__":
    main()
