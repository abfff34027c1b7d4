#!/usr/bin/env python3
"""What `lockstep serve` says over HTTP beside transformers, live:

    pip install -r tests/peers/requirements.txt
    serve_peers.py path/to/lockstep

The models of families_peers.py (all families, odd sizes, windows, tied or not, grouped heads; random weights), written as
folders by transformers, imported, and served by one server. Of each, many clients at once ask for the log-probabilities of
prompts (`echo`), as ids and as text, of one token to nearly the whole context; and for greedy continuations with their 20
likeliest tokens. The judge is transformers in double, over the same tokens.

A log-probability is a logit less the logarithm of a sum. families_peers.py holds each logit to 2e-5 of the root mean
square of all, so each of the two parts moves by no more than that; and what is told is a float, so it is rounded once:
|difference| <= 2 * 2e-5 * rms + 2^-24 * |log-probability| (printed as a share of that). Twice the first part is what two
logits can move towards each other: where the two likeliest tokens are further apart than that, ours must be theirs.
Exits 1 where one is not."""
import concurrent.futures
import json
import os
import random
import subprocess
import sys
import tempfile
import urllib.request

import numpy as np
import torch

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import families_peers as peers

TOP, DRAWN, CLIENTS = 20, 24, 8
WORDS = "the of and to in that he shall unto for I his a they be is him not them it with all thou was".split()


def write_text(path, r):
    made = ["".join(r.choice("bcdfghklmnprstvwz") + r.choice("aeiou") for _ in range(r.randint(1, 4))) for _ in range(3000)]
    with open(path, "w") as f:
        for _ in range(3000):
            f.write(" ".join(r.choice(made if r.random() < 0.5 else WORDS) for _ in range(12)) + ".\n")


class Tokens:
    """Ids by the texts that OpenAI's log-probabilities call them by."""

    def __init__(self, path):
        with open(path) as f:
            file = json.load(f)
        plain = [b for b in range(256) if 33 <= b < 127 or 161 <= b < 256 and b != 173]  # byte-level BPE's letters for bytes
        byte_of = {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(b for b in range(256) if b not in plain)}
        self.ids = {}
        for token, i in file["model"]["vocab"].items():
            self.ids[self.name(bytes(byte_of[c] for c in token))] = i
        for t in file["added_tokens"]:
            self.ids[t["content"]] = t["id"]

    @staticmethod
    def name(b):
        try:
            return b.decode() if 0 not in b else Tokens.escaped(b)
        except UnicodeDecodeError:
            return Tokens.escaped(b)

    @staticmethod
    def escaped(b):
        return "bytes:" + "".join(f"\\x{x:02x}" for x in b)


class Server:
    def __init__(self, store, names):
        self.process = subprocess.Popen([store.program, "serve", *names, "--listen", "127.0.0.1:0", "--json", "--slots", "5", "--page", "7",
                                         "--memory", "64M", "--store", store.url], stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line:
            sys.exit("the server did not start")
        self.url = "http://" + json.loads(line)["address"]

    def post(self, path, **body):
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request) as f:
                return json.load(f)
        except urllib.error.HTTPError as e:
            sys.exit(f"{path} {body}: {e.code} {e.read().decode()}")

    def close(self):
        self.process.terminate()
        if self.process.wait():
            sys.exit("the server ended with an error")


class Judge:
    """transformers in double."""

    def __init__(self, kind, c, weights):
        self.peer = peers.families.Peer(kind, c, torch.float64)
        self.peer.load(weights)

    def __call__(self, ids):
        with torch.no_grad():
            logits = self.peer.logits(torch.tensor([ids]))[0].double()
        return logits.numpy(), torch.log_softmax(logits, -1).numpy()


class Seen:
    def __init__(self):
        self.difference = self.share = 0.0
        self.tokens = self.values = self.near = 0
        self.wrong = []

    def compare(self, ours, theirs, bound):
        """Arrays of log-probabilities of one place."""
        d = np.abs(np.asarray(ours) - theirs)
        limit = bound + 2.0**-24 * np.abs(theirs)
        self.difference, self.share, self.values = max(self.difference, d.max()), max(self.share, (d / limit).max()), self.values + d.size
        if not (d <= limit).all():
            self.wrong.append(f"log-probabilities {ours}, not {theirs}")


def check_places(seen, answer, ids, first, judge, tokens, greedy_from):
    """Places `first`.. of ids: answer's log-probabilities, in the order of the tokens; from greedy_from on they were drawn."""
    logits, all_ = judge(ids)
    bound = 2 * peers.BOUNDS["logits"] * np.sqrt((logits**2).mean())
    for i, at in enumerate(range(first, len(ids))):
        row, top = all_[at - 1], answer["top_logprobs"][i]
        seen.compare([answer["token_logprobs"][i]], row[[ids[at]]], bound)
        listed = [tokens.ids[t] for t in top]
        best = np.sort(row)[::-1]
        seen.compare(list(top.values()), row[listed], bound)
        seen.compare(sorted(top.values(), reverse=True), best[: len(listed)], bound)  # none is missing
        if len(listed) != TOP or len(set(listed)) != TOP:
            seen.wrong.append(f"{len(listed)} likeliest tokens")
        if at < greedy_from:
            continue
        seen.tokens += 1
        seen.near += best[0] - best[1] <= 2 * bound
        if best[0] - best[1] > 2 * bound and ids[at] != row.argmax():
            seen.wrong.append(f"token {at} is {ids[at]}, not {row.argmax()}: {best[:2]}")


def ask(server, name, c, number):
    """One client's question and its answer: the whole's ids, log-probabilities, where the drawn ones begin."""
    r = random.Random(f"{name} {number}")
    prompt = [r.randrange(c["vocab"]) for _ in range([1, 2, 7, c["context"] - DRAWN, c["context"] - 1, r.randint(8, 50)][number % 6])]
    if number % 6 == 5:
        prompt = " ".join(r.choice(WORDS) for _ in range(20))
    v = server.post("/v1/completions", model=name, prompt=prompt, max_tokens=DRAWN, temperature=0, ignore_eos=True, logprobs=TOP,
                    echo=True, lockstep={"receipt": True})
    ids = prompt if isinstance(prompt, list) else server.post("/tokenize", model=name, prompt=prompt)["tokens"]
    p = v["choices"][0]["logprobs"]
    answer = {k: p[k][1:] for k in ("token_logprobs", "top_logprobs")}
    return ids + v["lockstep"]["receipts"][0]["tokens"], answer, len(ids)


def make_models(store):
    write_text(os.path.join(store.work, "text"), random.Random(1))
    tokens, weights = {}, []
    for vocab in sorted({c["vocab"] for _, _, c in peers.CASES}):
        store.run("tokenizer", "train", os.path.join(store.work, "text"), "--vocab", str(vocab), "--name", f"t{vocab}")
        store.run("tokenizer", "export", f"t{vocab}", os.path.join(store.work, f"t{vocab}.json"))
        tokens[vocab] = Tokens(os.path.join(store.work, f"t{vocab}.json"))
    for n, (_, kind, c) in enumerate(peers.CASES):
        torch.manual_seed(n)
        made = peers.families.Peer(kind, c, torch.float32)
        with torch.no_grad():
            for x in made.parameters.values():
                if x.dim() == 1:
                    x.add_(0.2 * torch.randn_like(x))
                elif n % 2:
                    x.mul_(3)  # likelihoods that differ more
        folder = os.path.join(store.work, f"in{n}")
        made.model.save_pretrained(folder)
        store.run("model", "import", folder, "--name", f"m{n}", "--tokenizer", f"t{c['vocab']}")
        weights.append({k: x.astype(np.float32) for k, x in made.weights().items()})
    return tokens, weights


def main():
    print("ours over HTTP against transformers in double; bound: 4e-5 of the logits' root mean square, and the rounding of a float")
    with tempfile.TemporaryDirectory() as work:
        store = peers.Store(sys.argv[1], work)
        tokens, weights = make_models(store)
        names = [f"m{n}" for n in range(len(peers.CASES))]
        server, all_ = Server(store, names), []
        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
            asked = [[pool.submit(ask, server, names[n], c, i) for i in range(12)] for n, (_, _, c) in enumerate(peers.CASES)]
            answers = [[a.result() for a in of] for of in asked]
        server.close()
        for n, (title, kind, c) in enumerate(peers.CASES):
            seen, judge = Seen(), Judge(kind, c, weights[n])
            for ids, answer, drawn in answers[n]:
                check_places(seen, answer, ids, 1, judge, tokens[c["vocab"]], drawn)
            print(f"{title:40}  {seen.values} log-probabilities: difference {seen.difference:.1e}, {seen.share:.2f} of the bound;  "
                  f"{seen.tokens} greedy tokens, {seen.near} of them near ties" + "".join(f"\n  {w}" for w in seen.wrong[:3]), flush=True)
            all_.append(seen)
        control = Seen()
        weights[0]["h.1.mlp.c_fc.weight"] *= np.float32(1.001)
        judge = Judge(peers.CASES[0][1], peers.CASES[0][2], weights[0])
        for ids, answer, drawn in answers[0]:
            check_places(control, answer, ids, 1, judge, tokens[peers.CASES[0][2]["vocab"]], drawn)
        print(f"control: one matrix of {peers.CASES[0][0]} 0.1% larger is {control.share:.1f} of the bound")
    good = bool(control.wrong) and not any(s.wrong for s in all_) and sum(s.tokens for s in all_) > 3000
    print(f"{'largest':40}  {sum(s.values for s in all_)} log-probabilities: difference {max(s.difference for s in all_):.1e}, "
          f"{max(s.share for s in all_):.2f} of the bound;  {sum(s.tokens for s in all_)} greedy tokens, {sum(s.near for s in all_)} near ties")
    print("serve peers:", "equal within the bounds" if good else "DIFFERENT")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
