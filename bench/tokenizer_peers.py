#!/usr/bin/env python3
"""The same work by other libraries, for bench/tokenizer.sh:
    tokenizer_peers.py TOKENIZER.json FILE VOCAB        pip install tokenizers==0.23.3 tiktoken==0.14.0 gigatoken==0.10.0
One line each: encoding MB/s on one thread and on all, training seconds. The text is cut at line ends into pieces of about
1 MB for the runs on all threads, as these libraries encode one text on one thread."""
import json
import os
import sys
import time


def best(work, runs=3):
    times = []
    for _ in range(runs):
        begin = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - begin)
        if times[-1] > 20:
            break
    return min(times), result


def pieces_of(text):
    out, at = [], 0
    while at < len(text):
        end = text.find("\n", at + 1_000_000) + 1 or len(text)
        out.append(text[at:end])
        at = end
    return out


def show(name, what, seconds, size=0, note=""):
    print(f"{name:12} {what:22} {seconds:9.3f} s" + (f" {size / seconds / 1e6:9.1f} MB/s" if size else "") + f"  {note}")


def main():
    path, name, vocab = sys.argv[1], sys.argv[2], int(sys.argv[3])
    text = open(name, encoding="utf-8", newline="").read()
    size, cores = len(text.encode()), os.cpu_count()
    pieces = pieces_of(text)

    import tokenizers
    t = tokenizers.Tokenizer.from_file(path)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    seconds, result = best(lambda: sum(len(t.encode(p).ids) for p in pieces), 1)
    show("tokenizers", "encode, 1 thread", seconds, size, f"{result} tokens")
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    seconds, _ = best(lambda: t.encode_batch_fast(pieces), 1)
    show("tokenizers", f"encode, {cores} threads", seconds, size)

    import tiktoken
    model = json.load(open(path))["model"]
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    chars = plain + [b for b in range(256) if b not in plain]
    back = {chr(b if i < len(plain) else 256 + i - len(plain)): b for i, b in enumerate(chars)}
    special = {a["content"] for a in json.load(open(path))["added_tokens"]}
    ranks = {bytes(back[c] for c in token): i for token, i in model["vocab"].items() if token not in special}
    pattern = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
    e = tiktoken.Encoding("x", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    seconds, result = best(lambda: sum(len(e.encode_ordinary(p)) for p in pieces), 2)
    show("tiktoken", "encode, 1 thread", seconds, size, f"{result} tokens")
    seconds, _ = best(lambda: e.encode_ordinary_batch(pieces, num_threads=cores), 2)
    show("tiktoken", f"encode, {cores} threads", seconds, size)

    try:
        import gigatoken
        g = gigatoken.Tokenizer(path)
        seconds, _ = best(lambda: g.encode(text))
        show("gigatoken", "encode, as it comes", seconds, size)
    except Exception as problem:
        print(f"gigatoken    {problem}")

    if vocab:
        from tokenizers import models, pre_tokenizers, trainers

        def train():
            n = tokenizers.Tokenizer(models.BPE())
            n.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            alphabet = pre_tokenizers.ByteLevel.alphabet()
            n.train([name], trainers.BpeTrainer(vocab_size=vocab - 1, initial_alphabet=alphabet, show_progress=False))

        seconds, _ = best(train, 1)
        show("tokenizers", f"train, {cores} threads", seconds)


main()
