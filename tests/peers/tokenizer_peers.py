#!/usr/bin/env python3
"""Compares `lockstep tokenizer` with Hugging Face's and OpenAI's libraries, live:

    pip install tokenizers==0.23.3 tiktoken==0.14.0
    tokenizer_peers.py path/to/lockstep [TEXT...]

1. merges and ids learned from each text and from random corpora; 2. ids of every code point in every class of neighbourhood,
of random texts and of the given texts, after export and after import. Prints one line a check; exits 1 at a difference.
Texts must be UTF-8. Without one, the King James Bible of Debian's bible-kjv is taken if it is there."""
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile

import tiktoken
import tokenizers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

assert tokenizers.__version__ == "0.23.3" and tiktoken.__version__ == "0.14.0"
PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
SCALARS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
PLAIN = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
CHARS = PLAIN + [b for b in range(256) if b not in PLAIN]
BACK = {chr(b if i < len(PLAIN) else 256 + i - len(PLAIN)): b for i, b in enumerate(CHARS)}


class Ours:
    def __init__(self, program, work):
        self.base, self.work = [program], work
        self.env = {**os.environ, "LOCKSTEP_STORE": os.path.join(work, "store")}

    def run(self, *args):
        done = subprocess.run([*self.base, "tokenizer", *args], capture_output=True, text=True, env=self.env)
        if done.returncode:
            raise SystemExit(f"lockstep tokenizer {' '.join(args)}: {done.stderr.strip()}")
        return done.stdout

    def encode(self, name, text):
        path = os.path.join(self.work, "text")
        with open(path, "w", encoding="utf-8", newline="") as f:
            f.write(text)
        return list(map(int, self.run("encode", name, path).split()))

    def export(self, name):
        path = os.path.join(self.work, name + ".json")
        self.run("export", name, path)
        return path


def train_theirs(path, vocab):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    t.train([path], trainers.BpeTrainer(vocab_size=vocab - 1, initial_alphabet=alphabet, show_progress=False))
    return t


def merges_of(text):
    return [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in json.loads(text)["model"]["merges"]]


def vocab_of(text):
    return {k: v for k, v in json.loads(text)["model"]["vocab"].items() if k != "<|endoftext|>"}


def tiktoken_of(path):
    ranks = {bytes(BACK[c] for c in token): i for token, i in vocab_of(open(path, encoding="utf-8").read()).items()}
    return tiktoken.Encoding("x", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})


def check(what, same):
    print(("equal    " if same else "DIFFERENT ") + what, flush=True)
    if not same:
        sys.exit(1)


def neighbourhoods():
    """Every code point between letters, digits, signs, spaces and itself; in pieces that no library finds too long."""
    for begin in range(0, len(SCALARS), 50_000):
        yield "".join("a@1 @!@@ '@s\n@  @\t@'@ @1@\n".replace("@", chr(c)) for c in SCALARS[begin : begin + 50_000])


def random_text(rng, size):
    some = "aabcdestlvrm    \n\n\t\r''''1920.,!-\u00e9\u0301\u03b1\u2028\u3000\u4e2d\u0661\u00bd\U0001f600\u00a0\u0085"
    return "".join(rng.choice(some) if rng.random() < 0.9 else chr(rng.choice(SCALARS)) for _ in range(size))


def compare(ours, name, texts, rng):
    path = ours.export(name)
    theirs, other = Tokenizer.from_file(path), tiktoken_of(path)

    def same(text):
        ids = ours.encode(name, text)
        return ids == theirs.encode(text).ids and ids == other.encode_ordinary(text)

    if name == "t0":
        check(f"{name}: ids of all code points in all neighbourhoods", all(same(text) for text in neighbourhoods()))
    check(f"{name}: ids of random texts", all(same(random_text(rng, 20_000)) for _ in range(20)))
    runs = "".join(c * n + rng.choice(["", " ", "\n", "x"]) for c in "a -=\n\u4e2d'1" for n in (1, 2, 3, 50, 1000, 5000))
    check(f"{name}: ids of long runs", same(runs))
    for text in texts:
        check(f"{name}: ids of {text}", same(open(text, encoding="utf-8", newline="").read()))


def main():
    texts, rng = sys.argv[2:], random.Random(7)
    with tempfile.TemporaryDirectory() as work:
        ours = Ours(os.path.abspath(sys.argv[1]), work)
        if not texts and shutil.which("bible"):
            texts = [os.path.join(work, "kjv.txt")]
            with open(texts[0], "wb") as f:
                f.write(subprocess.run(["bible", "gen1:1-rev22:21"], capture_output=True, check=True).stdout)
        generated = os.path.join(work, "generated.txt")
        with open(generated, "w", encoding="utf-8", newline="") as f:
            f.write("".join(random_text(rng, 400) * rng.randint(1, 4) for _ in range(300)))
        for i, text in enumerate([generated, *texts]):
            vocab = 1500 if i == 0 else 8000
            ours.run("train", text, "--vocab", str(vocab), "--name", f"t{i}")
            exported = open(ours.export(f"t{i}"), encoding="utf-8").read()
            theirs = train_theirs(text, vocab).to_str()
            check(f"t{i}: merges and ids learned from {text}",
                  merges_of(exported) == merges_of(theirs) and vocab_of(exported) == vocab_of(theirs))
        for i in range(40):
            small, vocab = os.path.join(work, "small.txt"), 320
            alphabet = rng.choice(["ab", "abc ", "a-", "a ", "ab \n", "=-", "a\u00e9\u4e2d", "\n \t a"])
            with open(small, "w", encoding="utf-8", newline="") as f:
                f.write("".join(rng.choice(alphabet) * rng.choice([1, 1, 2, 5]) for _ in range(3000)))
            theirs = train_theirs(small, vocab).to_str()
            vocab = len(vocab_of(theirs)) + 1
            ours.run("train", small, "--vocab", str(vocab), "--name", "small")
            exported = open(ours.export("small"), encoding="utf-8").read()
            if merges_of(exported) != merges_of(theirs):
                check(f"merges of random corpus {i}", False)
        check("merges of 40 random corpora", True)
        for i in range(1 + len(texts)):
            compare(ours, f"t{i}", texts, rng)
        ours.run("import", ours.export("t0"), "--name", "again")
        check("import of an export is the same", ours.encode("again", runs_text()) == ours.encode("t0", runs_text()))


def runs_text():
    return "".join(chr(c) for c in range(0x20, 0x3000)) * 2


main()
