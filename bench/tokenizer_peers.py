#!/usr/bin/env python3
"""Our tokenizer and others in turns, each in a process of its own, for bench/tokenizer.sh:
    tokenizer_peers.py BENCH TOKENIZER.json|- FILE VOCAB [--libs lockstep,gigatoken,tiktoken,tokenizers] [--patterns gpt2,llama3,...]
                       [--rounds N] [--calls N] [--threads N] [--trouble]
    pip install tokenizers==0.23.3 tiktoken==0.14.0 gigatoken==0.10.0 (only what --libs names)
Process: from its start to the ids (interpreter, library, vocabulary, text, one call). First: the first call alone. Later: the
median of the other calls, each of which makes a new answer. Medians over the rounds; ids are compared by their number and CRC-32.
gigatoken takes its best of its ways to use the threads. VOCAB > 0 times training too. "-": a tokenizer of VOCAB tokens is
learned from FILE for each pattern; the pattern sentencepiece is a model of that kind (characters, bytes as a last resort) as
conversions of Llama 2 have it, on the first 4 MB as one text. BENCH_CLOCK=cpu: calls by the CPU time of the process, for one thread on a loaded machine.
--trouble: texts that are slow for some, 100 MB each, one call, at most 60 s."""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

from common import Machine

clock = time.process_time if os.environ.get("BENCH_CLOCK") == "cpu" else time.perf_counter
DIGITS = r"""\p{N}|'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+"""
PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""


# --- one library in its own process -------------------------------------------------------------------------------------

def pieces_of(text, newline):
    """About 1 MB each, cut where every library's words end: in front of a newline that follows a letter or a digit."""
    out, at = [], 0
    while at < len(text):
        end = text.find(newline, at + 1_000_000)
        while end > 0 and not text[end - 1:end].isalnum():
            end = text.find(newline, end + 1)
        end = end if end > 0 else len(text)
        out.append(text[at:end])
        at = end
    return out


def tiktoken_of(path):
    import tiktoken
    parsed = json.load(open(path))
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    chars = plain + [b for b in range(256) if b not in plain]
    back = {chr(b if i < len(plain) else 256 + i - len(plain)): b for i, b in enumerate(chars)}
    special = {a["content"] for a in parsed["added_tokens"]}
    ranks = {bytes(back[c] for c in token): i for token, i in parsed["model"]["vocab"].items() if token not in special}
    steps = parsed["pre_tokenizer"].get("pretokenizers", [])
    pattern = steps[0]["pattern"]["Regex"] if steps and steps[0]["type"] == "Split" else PATTERN
    if steps and steps[0]["type"] == "Digits":
        pattern = DIGITS
    return tiktoken.Encoding("x", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})


def encoder_of(lib, path, name, threads):
    """-> a function without arguments that gives the ids as a list of lists or arrays"""
    data = open(name, "rb").read()
    if lib.startswith("gigatoken"):
        import gigatoken
        g = gigatoken.Tokenizer(path)
        way = lib.partition(":")[2]
        if way == "batch":
            pieces = pieces_of(data, b"\n")
            return lambda: [g.encode_batch(pieces, parallel=threads > 1)]
        if way == "file":
            return lambda: [g.encode_files(name)]
        return lambda: [g.encode(data)]
    if lib == "tiktoken":
        e = tiktoken_of(path)
        pieces = pieces_of(data.decode(), "\n")
        if threads > 1:
            return lambda: e.encode_ordinary_batch(pieces, num_threads=threads)
        return lambda: [e.encode_ordinary(p) for p in pieces]
    import tokenizers
    t = tokenizers.Tokenizer.from_file(path)
    pieces = [data.decode()] if t.normalizer and "Prepend" in str(t.normalizer) else pieces_of(data.decode(), "\n")
    if threads > 1:
        return lambda: [e.ids for e in t.encode_batch_fast(pieces)]
    return lambda: [t.encode(p).ids for p in pieces]


def learn_characters(source, vocab, path):
    """SentencePiece's BPE as Hugging Face converts it: three special tokens, 256 bytes, pieces, every merge that makes a piece."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    mark = "\u2581"
    base = Tokenizer(models.BPE())
    base.pre_tokenizer = pre_tokenizers.Metaspace(mark, "always", split=True)
    base.train([source], trainers.BpeTrainer(vocab_size=vocab - 259, limit_alphabet=1000, show_progress=False))
    model = json.loads(base.to_str())["model"]
    names = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    pieces = {p: None for p in sorted(model["vocab"], key=model["vocab"].get) if p not in names}
    ids = {p: i for i, p in enumerate([*names, *pieces])}
    merges = [(p[:k], p[k:]) for p in pieces for k in range(1, len(p)) if {p[:k], p[k:]} <= pieces.keys()]
    t = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend(mark), normalizers.Replace(" ", mark)])
    t.decoder = decoders.Sequence([decoders.Replace(mark, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    t.add_special_tokens(names[:3])
    t.save(path)
    return {}


def head_of(source, size, path):
    """The first `size` bytes, whole characters"""
    with open(source, "rb") as f, open(path, "wb") as out:
        out.write(f.read(size).decode(errors="ignore").encode())
    return path


def child_encode(lib, path, name, threads, calls):
    import zlib
    begin = clock()
    encode = encoder_of(lib, path, name, threads)
    load, times, answer = clock() - begin, [], None
    for _ in range(calls):
        answer = None
        begin = clock()
        answer = encode()
        times.append(clock() - begin)
    print(json.dumps({"load": load, "calls": times}), flush=True)
    if calls == 1:
        return  # the clock of the whole process runs
    import numpy
    crc = count = 0
    for part in answer:
        if type(part).__module__.startswith("awkward"):
            import awkward
            part = awkward.to_numpy(awkward.flatten(part, axis=None))
        ids = numpy.asarray(part, dtype=numpy.uint32)
        crc, count = zlib.crc32(ids.tobytes(), crc), count + len(ids)
    print(json.dumps({"tokens": count, "crc32": crc}))


def child_train(name, vocab):
    import resource
    import tokenizers
    from tokenizers import models, pre_tokenizers, trainers
    t = tokenizers.Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    begin = time.perf_counter()
    t.train([name], trainers.BpeTrainer(vocab_size=vocab - 1, initial_alphabet=alphabet, show_progress=False))
    seconds = time.perf_counter() - begin
    print(json.dumps({"seconds": seconds, "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


# --- all of them in turns -----------------------------------------------------------------------------------------------

def start(command, threads, limit=600):
    env = dict(os.environ, RAYON_NUM_THREADS=str(threads), TOKENIZERS_PARALLELISM="true" if threads > 1 else "false")
    cores = sorted(os.sched_getaffinity(0))[:threads]
    begin = time.perf_counter()
    try:
        done = subprocess.run(command, env=env, preexec_fn=lambda: os.sched_setaffinity(0, cores), capture_output=True,
                              text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"problem": f"over {limit} s"}
    took = time.perf_counter() - begin
    if done.returncode:
        return {"problem": (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1][:80]}
    out = {"process": took}
    for line in done.stdout.splitlines():
        out.update(json.loads(line))
    return out


def encode_once(o, lib, threads, calls, name, limit=600):
    if lib == "lockstep":
        return start([o.bench, "encode", o.tokenizer, name, str(threads), str(calls)], threads, limit)
    return start([sys.executable, __file__, "--child", lib, o.tokenizer, name, str(threads), str(calls)], threads, limit)


def median(rows, key):
    return statistics.median(r[key] for r in rows)


def compare_encoding(o, threads, size):
    ways = []
    for lib in o.libs:
        ways += ["gigatoken", "gigatoken:batch", "gigatoken:file"] if lib == "gigatoken" and threads > 1 else [lib]
    cold, warm = {w: [] for w in ways}, {w: [] for w in ways}
    for _ in range(o.rounds):
        for w in ways:
            calls = o.calls if w.startswith(("lockstep", "gigatoken")) else 2
            cold[w].append(encode_once(o, w, threads, 1, o.file))
            warm[w].append(encode_once(o, w, threads, calls, o.file))
    want, ours = None, None
    for w in ways:
        bad = [r["problem"] for r in cold[w] + warm[w] if "problem" in r]
        if bad:
            print(f"  {w:18} {bad[0]}")
            continue
        process, first = median(cold[w], "process"), statistics.median(r["calls"][0] for r in cold[w] + warm[w])
        later = statistics.median(statistics.median(r["calls"][1:]) for r in warm[w])
        ids = (warm[w][0]["tokens"], warm[w][0]["crc32"])
        want, ours = want or ids, ours or (process, first, later)
        ratios = " ".join(f"{x / y:6.2f}" for x, y in zip((process, first, later), ours))
        print(f"  {w:18} process {process:7.3f} s   first {size / first / 1e6:7.1f} MB/s   later {size / later / 1e6:7.1f} MB/s   "
              f"ours is faster by {ratios}   {'same ids' if ids == want else f'OTHER IDS {ids} {want}'}", flush=True)


def compare_training(o):
    with tempfile.TemporaryDirectory() as work:
        for threads in sorted({1, o.threads}):
            ours = [start([o.bench, "train", str(o.vocab), o.file, str(threads), work + "/t.json"], threads) for _ in range(o.rounds or 3)]
            print(f"  lockstep, threads {threads}: {median(ours, 'seconds'):7.3f} s, peak {median(ours, 'peak_bytes') / 1e6:6.1f} MB", flush=True)
            if "tokenizers" not in o.libs:
                continue
            theirs = [start([sys.executable, __file__, "--child-train", o.file, str(o.vocab)], threads)]
            print(f"  tokenizers, threads {threads}: {median(theirs, 'seconds'):6.3f} s, peak {median(theirs, 'peak_bytes') / 1e6:6.1f} MB; "
                  f"ours is faster by {median(theirs, 'seconds') / median(ours, 'seconds'):.1f}", flush=True)


def trouble(o):
    with tempfile.TemporaryDirectory() as work:
        for what, make in (("one letter", lambda n: b"a" * n), ("spaces", lambda n: b" " * n), ("newlines", lambda n: b"\n" * n),
                           ("random bytes", os.urandom), ("random ASCII", lambda n: bytes(32 + b % 95 for b in os.urandom(n // 8)) * 8)):
            name = work + "/text"
            with open(name, "wb") as f:
                f.write(make(100_000_000))
            for lib in o.libs:
                r = encode_once(o, lib, 1, 1, name, 60)
                shown = r.get("problem") or f"{os.path.getsize(name) / r['calls'][0] / 1e6:7.1f} MB/s"
                peak = f", peak {r['peak_bytes'] / 1e6:.0f} MB" if "peak_bytes" in r else ""
                print(f"  100 MB of {what:13} {lib:12} {shown}{peak}", flush=True)


def main():
    if sys.argv[1] == "--child":
        lib, path, name, threads, calls = sys.argv[2:]
        return child_encode(lib, path, name, int(threads), int(calls))
    if sys.argv[1] == "--child-train":
        return child_train(sys.argv[2], int(sys.argv[3]))
    p = argparse.ArgumentParser()
    p.add_argument("bench")
    p.add_argument("tokenizer")
    p.add_argument("file")
    p.add_argument("vocab", type=int)
    p.add_argument("--libs", type=lambda s: s.split(","), default=["lockstep", "gigatoken", "tiktoken", "tokenizers"])
    p.add_argument("--patterns", type=lambda s: s.split(","), default=["gpt2"])
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--calls", type=int, default=8)
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--trouble", action="store_true")
    o = p.parse_args()
    size = os.path.getsize(o.file)
    given = o.tokenizer != "-"
    if o.vocab and "gpt2" in o.patterns:
        print(f"train {o.vocab} tokens, {size} bytes")
        compare_training(o)
    with tempfile.TemporaryDirectory() as work:
        for pattern in [""] if given else o.patterns:
            if not given:
                o.tokenizer = f"{work}/{pattern}.json"
                if pattern == "sentencepiece":
                    o.file = head_of(o.file, 4_000_000, work + "/head")
                    size = os.path.getsize(o.file)
                learned = learn_characters(o.file, o.vocab, o.tokenizer) if pattern == "sentencepiece" else start([o.bench, "train", str(o.vocab), o.file, str(o.threads), o.tokenizer, pattern], o.threads)
                if "problem" in learned:
                    sys.exit(f"tokenizer_peers.py: {pattern}: {learned['problem']}")
            for threads in sorted({1, o.threads}) if o.rounds else []:
                print(f"encode {size} bytes, {pattern or o.tokenizer}, threads {threads}", flush=True)
                compare_encoding(o, threads, size)
        if o.trouble:
            print("trouble, 1 thread")
            trouble(o)


if __name__ == "__main__":
    with Machine():
        main()
