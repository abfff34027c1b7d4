#!/usr/bin/env python3
"""Makes the golden values of the tokenizer's tests, from Hugging Face's and OpenAI's libraries:

    pip install tokenizers==0.23.3 tiktoken==0.14.0 && python3 make.py     (in this folder)

corpus.txt      a text made by a generator of random numbers: many scripts, runs, periods, odd white space
trained.json    what tokenizers learns from it, vocabulary 1000
sample.txt      characters of all scripts and classes
sample.ids      its ids by trained.json, which both libraries agree on; corpus.ids: those of the corpus
classes.sha256  SHA-256 of the class (L, N, S, O) of each code point, as both libraries show it; O for surrogates
"""
import hashlib
import json
import random

import tiktoken
import tokenizers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

assert tokenizers.__version__ == "0.23.3" and tiktoken.__version__ == "0.14.0"
PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
VOCAB = 1000
SCALARS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def classes():
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    one = lambda s: len(level.pre_tokenize_str(s)) == 1
    ours = {}
    for c in SCALARS:
        ch = chr(c)
        ours[c] = "L" if one("a" + ch + "a") else "N" if one("1" + ch + "1") else "O" if one("!" + ch + "!") else "S"
    ranks = {bytes([b]): b for b in range(256)}
    theirs = dict.fromkeys(SCALARS, "O")
    for name, pattern in (("L", r"\p{L}"), ("N", r"\p{N}"), ("S", r"\s")):
        e = tiktoken.Encoding("class", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
        for c in SCALARS:
            if e.encode_ordinary(chr(c)):
                theirs[c] = name
    assert ours == theirs
    return "".join(ours.get(c, "O") for c in range(0x110000))


def make_corpus(kinds, rng):
    """Words over small alphabets, Zipf-like, with contractions, runs and strange spaces between them."""
    letters = [c for c in SCALARS if kinds[c] == "L" and c < 0x30000]
    bases = [0x61] * 6 + [0xE0, 0x3B1, 0x430, 0x5D0, 0x628, 0x905, 0xE01, 0x3042, 0x4E00, 0xAC00] + rng.sample(letters, 6)
    words = []
    for _ in range(400):
        base = rng.choice(bases)
        alphabet = [c for c in range(base, base + 12) if kinds[c] == "L" and not 0xD800 <= c < 0xE000] or [base]
        words.append("".join(chr(rng.choice(alphabet)) for _ in range(rng.randint(1, 7))))
    words += ["12", "1984", "3.5", "--", "...", "\u00bd", "\u0664\u0662", "\u2014", "\U0001f600", "aaaa", "=-=-=-=-"]
    spaces = [" "] * 30 + ["\n"] * 4 + ["  ", "\r\n", "\t", "\n\n", " \n", "\u3000", "\u00a0", "\u2028 ", "'s ", "'ll ", "'re\n", ""]
    out = []
    for _ in range(4000):
        out.append(words[min(int(rng.paretovariate(0.6)) - 1, len(words) - 1)])
        if rng.random() < 0.02:
            out.append(rng.choice("a-= o") * rng.randint(2, 40))
        out.append(rng.choice(spaces))
    return "".join(out)


def make_sample(kinds, rng):
    out = []
    for kind in "LNSO":
        out += [chr(c) for c in rng.sample([c for c in SCALARS if kinds[c] == kind], 25 if kind == "S" else 300)]
    out += ["'s", "'S", "'ll", "'l", "''re", " 've", "a'd", " ", "  ", "\n", " \n ", "\t\t", "\r\n", "x", "10", "?!", "\u200d", "\u0301"] * 30
    rng.shuffle(out)
    return "".join(out)


def write(name, text):
    with open(name, "w", encoding="utf-8", newline="") as f:
        f.write(text)


def main():
    rng = random.Random(20240607)
    kinds = classes()
    write("classes.sha256", hashlib.sha256(kinds.encode()).hexdigest() + "\n")
    corpus, sample = make_corpus(kinds, rng), make_sample(kinds, rng)
    write("corpus.txt", corpus)
    write("sample.txt", sample)
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    t.train(["corpus.txt"], trainers.BpeTrainer(vocab_size=VOCAB - 1, initial_alphabet=alphabet, show_progress=False))
    t.add_special_tokens(["<|endoftext|>"])
    write("trained.json", json.dumps(json.loads(t.to_str()), ensure_ascii=False, separators=(",", ":")) + "\n")

    vocab = json.loads(t.to_str())["model"]["vocab"]
    back = {ch: b for b, ch in byte_characters().items()}
    ranks = {bytes(back[ch] for ch in token): i for token, i in vocab.items()}
    e = tiktoken.Encoding("ours", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})
    for name, text in (("sample", sample), ("corpus", corpus)):
        ids = t.encode(text).ids
        assert ids == e.encode_ordinary(text), name
        write(name + ".ids", " ".join(map(str, ids)) + "\n")


def byte_characters():
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in plain]
    return {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(rest)}


main()
