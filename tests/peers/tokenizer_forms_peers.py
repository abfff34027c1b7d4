#!/usr/bin/env python3
"""Compares the patterns, forms of tokenizer.json and rank files of `lockstep tokenizer` with the libraries, live:

    pip install tokenizers==0.23.3 tiktoken==0.14.0
    tokenizer_forms_peers.py path/to/lockstep [quick] [forms|patterns [NAME...]]

Vocabularies are made here: one learned from a text of all scripts, and one in which every two bytes merge, so that ids show
where words end. Prints one line a check; exits 1 at a difference."""
import base64
import json
import os
import random
import subprocess
import sys
import tempfile
import unicodedata

import tiktoken
import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

assert tokenizers.__version__ == "0.23.3" and tiktoken.__version__ == "0.14.0"
SCALARS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
PLAIN = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
CHARS = PLAIN + [b for b in range(256) if b not in PLAIN]
CHAR = {b: chr(b if i < len(PLAIN) else 256 + i - len(PLAIN)) for i, b in enumerate(CHARS)}
BACK = {c: b for b, c in CHAR.items()}

LLAMA = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN = LLAMA.replace(r"\p{N}{1,3}", r"\p{N}")
GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
O200K = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)
TIKTOKEN = {"gpt2": GPT2, "cl100k": CL100K, "o200k": O200K, "llama3": LLAMA, "qwen2": QWEN}
SPLIT = {"o200k": O200K, "llama3": LLAMA, "qwen2": QWEN}
# Digits of Unicode 17, which Rust's is_numeric knows in tokenizers' Digits, and its regular expressions (16) do not.
NEWER_DIGITS = dict.fromkeys([*range(0x11DE0, 0x11DEA), *range(0x16FF4, 0x16FF7)])
QUICK = "quick" in sys.argv[2:]


class Ours:
    def __init__(self, program, work):
        self.base, self.work = [program], work
        self.env = {**os.environ, "LOCKSTEP_STORE": os.path.join(work, "store")}

    def run(self, *args, fails=False):
        done = subprocess.run([*self.base, "tokenizer", *args], capture_output=True, text=True, env=self.env)
        if fails:
            return done.stderr if done.returncode == 1 else None
        if done.returncode:
            raise SystemExit(f"lockstep tokenizer {' '.join(args)}: {done.stderr.strip()}")
        return done.stdout

    def file(self, text):
        path = os.path.join(self.work, "text")
        with open(path, "wb") as f:
            f.write(text if isinstance(text, bytes) else text.encode())
        return path

    def encode(self, name, text, *options):
        return list(map(int, self.run("encode", name, self.file(text), "--format", "text", *options).split()))

    def offsets(self, name, text, *options):
        return json.loads(self.run("encode", name, self.file(text), "--format", "text", "--offsets", "--json", *options))

    def decode(self, name, ids):
        return subprocess.run([*self.base, "tokenizer", "decode", name, self.file(" ".join(map(str, ids)))], capture_output=True,
                              check=True, env=self.env).stdout

    def take(self, name, theirs):
        path = os.path.join(self.work, name + ".json")
        with open(path, "w", encoding="utf-8") as f:
            f.write(theirs if isinstance(theirs, str) else theirs.to_str())
        return self.run("import", path, "--name", name).split()[-1]

    def again(self, name):
        path = os.path.join(self.work, name + ".out.json")
        self.run("export", name, path)
        return path, self.run("import", path, "--name", name + ".again").split()[-1]


def check(what, same):
    print(("equal    " if same else "DIFFERENT ") + what, flush=True)
    if not same:
        sys.exit(1)


# --- texts ------------------------------------------------------------------------------------------------------------

NEAR = ["a", "A", "\u00e9", "\u4e2d", "\u02b0", "\u01c5", "\u0301", "1", "\u00bd", "!", "'", "/", " ", "\n", "\r", "\t", "\u3000"]


def neighbourhoods():
    """Every code point between letters, digits, signs, spaces, quotes and itself."""
    for begin in range(0, len(SCALARS), 20_000):
        step = 29 if QUICK else 1
        yield "".join("a@1 @!@@ '@s\n@A@b/@\r@".replace("@", chr(c)) for c in SCALARS[begin : begin + 20_000 : step])


def products(rng):
    """Some code points of every general category with every class before and behind."""
    kinds = {}
    for c in SCALARS:
        kinds.setdefault(unicodedata.category(chr(c)), []).append(c)
    for kind in sorted(kinds):
        some = rng.sample(kinds[kind], min(len(kinds[kind]), 2 if QUICK else 24))
        yield "".join(x + chr(c) + y + rng.choice(". x\n") for c in some for x in NEAR for y in NEAR)
    yield "".join(x + y + z + w for x in NEAR for y in NEAR for z in NEAR for w in NEAR[:: 5 if QUICK else 1])


EMOJI = "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f44d\U0001f3fd\U0001f1e9\U0001f1ea\U0001f1fa 1\ufe0f\u20e3#\ufe0f\u20e3 \u2764\ufe0f\u200d\U0001f525\U0001f3f4\U000e0067\U000e0062\U000e007f x"
WORDS = (
    "it's IT'S we'LL 'tis \u2018s '\u017f x'\u017f rock'n'roll I'Ve d'accord HelloWorld camelCase XMLHttp iPhone ABC abc Abc\n\n\n  "
    "if (x)\r\n\t\treturn 12345.678;\n  // see http://a.b/c/\n/\r\n \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 \u0928\u092e\u0938\u094d\u0924\u0947 "
    "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd \ud55c\uad6d\uc5b4 \u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8 e\u0301a\u0300A\u030a \u1100\u1161\u11a8 \u2126 \u212b\n \n"
)


def random_text(rng, size):
    some = "aabcdestlvrmABCSTL    \n\n\t\r''''1920.,!-/\u00e9\u0301\u03b1\u0391\u2028\u3000\u4e2d\u0661\u00bd\U0001f600\u00a0\u0085\u017f\u02b0\u01c5\u0903"
    return "".join(rng.choice(some) if rng.random() < 0.9 else chr(rng.choice(SCALARS)) for _ in range(size))


def long_runs(rng):
    return "".join(c * n + rng.choice(["", " ", "\n", "x"]) for c in "aA -=\n\r/\u4e2d'1\u0301\u00e9" for n in (1, 2, 3, 4, 50, 1000, 3000))


def texts(rng):
    yield "all code points in neighbourhoods", neighbourhoods()
    yield "products of classes", products(rng)
    yield "emoji and words", [EMOJI, WORDS, EMOJI * 3 + WORDS * 3]
    yield "long runs", [long_runs(rng)]
    yield "random texts", [random_text(rng, 20_000) for _ in range(2 if QUICK else 20)]
    yield "ends of text", ["a" + end for end in ["", " ", "  ", "\n", "\n ", " \n", " \n \n  ", "\r\n\t", "'", "'s", " '", "1", "\u3000 ", "\n\n\u0301"]]


# --- vocabularies -----------------------------------------------------------------------------------------------------

def pre_tokenizer(pattern, files=None):
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern in ("gpt2", "smollm"))
    if pattern == "gpt2":
        return level
    if pattern == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), level])
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(SPLIT[pattern]), "isolated"), level])


def learned(pattern, path, vocab):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizer(pattern)
    t.train([path], trainers.BpeTrainer(vocab_size=vocab, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    t.decoder = decoders.ByteLevel()
    return t


def pairs():
    """256 bytes, then all pairs of bytes."""
    return {bytes([b]): b for b in range(256)} | {bytes([a, b]): 256 + 256 * a + b for a in range(256) for b in range(256)}


def as_model(ranks, merges=None, **more):
    text = lambda token: "".join(CHAR[b] for b in token)
    if merges is None:
        merges = [(t[:1], t[1:]) for t in sorted(ranks, key=ranks.get) if len(t) == 2]
    return Tokenizer(models.BPE(vocab={text(t): i for t, i in ranks.items()}, merges=[(text(a), text(b)) for a, b in merges], **more))


def write_ranks(path, ranks):
    with open(path, "wb") as f:
        for token, rank in sorted(ranks.items(), key=lambda x: x[1]):
            f.write(base64.b64encode(token) + b" %d\n" % rank)


# --- checks -----------------------------------------------------------------------------------------------------------

def patterns(ours, work, rng):
    corpus = os.path.join(work, "corpus.txt")
    with open(corpus, "w", encoding="utf-8", newline="") as f:
        f.write("".join(random_text(rng, 400) * rng.randint(1, 4) for _ in range(60)) + WORDS * 20 + EMOJI * 9)
    rank_file = os.path.join(work, "pairs.tiktoken")
    write_ranks(rank_file, pairs())
    names = ["smollm", "cl100k", *SPLIT, "gpt2"]
    for pattern in [n for n in names if n in sys.argv] or names:
        encoders = []
        if pattern != "cl100k":
            theirs = learned(pattern, corpus, 1200)
            ours.run("train", corpus, "--vocab", "1201", "--pattern", pattern, "--name", f"{pattern}.own")
            mine = json.load(open(ours.again(f"{pattern}.own")[0], encoding="utf-8"))["model"]
            want = json.loads(theirs.to_str())["model"]
            got = [m.split(" ") for m in mine["merges"]]
            check(f"{pattern}: merges learned", got == [list(m) for m in want["merges"]])
            root = ours.take(f"{pattern}.learned", theirs)
            path, again = ours.again(f"{pattern}.learned")
            check(f"{pattern}: an export comes in with the same root", root == again)
            encoders.append((f"{pattern}.learned", [theirs, Tokenizer.from_file(path)]))
            model = as_model(pairs())
            model.pre_tokenizer = pre_tokenizer(pattern)
            ours.take(f"{pattern}.pairs", model)
            encoders.append((f"{pattern}.pairs", [model]))
        if pattern in TIKTOKEN:
            ours.run("import", rank_file, "--pattern", pattern, "--name", f"{pattern}.ranks")
            others = [tiktoken.Encoding("x", pat_str=TIKTOKEN[pattern], mergeable_ranks=pairs(), special_tokens={})]
            others.append(Tokenizer.from_file(ours.again(f"{pattern}.ranks")[0]))
            encoders.append((f"{pattern}.ranks", others))
        for what, some in texts(random.Random(7)):
            some = list(some)
            for name, others in encoders:
                for text in some[:: 7 if name.endswith("learned") and len(some) > 40 else 1]:
                    if pattern == "smollm":
                        text = text.translate(NEWER_DIGITS)
                    ids = ours.encode(name, text)
                    for other in others:
                        want = other.encode_ordinary(text) if isinstance(other, tiktoken.Encoding) else other.encode(text, add_special_tokens=False).ids
                        if ids != want:
                            report(name, other, text, ours)
            check(f"{pattern}: {what}", True)


def small_model(rng, **more):
    """A model of a few hundred merges over letters, marks, spaces and digits."""
    ranks = {bytes([b]): b for b in range(256)}
    merges, id_ = [], 1000
    seen = [bytes([b]) for b in b"abcdest .\n'123<|>"] + [b"\xc3", b"\xa9", b"\xcc", b"\x81"]
    while len(merges) < 300:
        a, b = rng.choice(seen), rng.choice(seen)
        if a + b in ranks or len(a + b) > 6:
            continue
        ranks[a + b] = id_
        id_ += 1
        merges.append((a, b))
        seen.append(a + b)
    return as_model(ranks, merges, **more)


def form_text(rng, tokens, size):
    some = [*"abcdest  .\n'123<|>\u00e9e\u0301\u0301\u0327\u3000\u00a0\t", "the ", "<|", "|>", "\u1100\u1161\u11a8", "\ufb01", "\u212b", "\u0344", *tokens, *tokens]
    return "".join(rng.choice(some) for _ in range(size))


def forms(ours, rng):
    """Added tokens with all their flags, normal form C, a space in front, templates, ignore_merges."""
    contents = ["<|endoftext|>", "<|end", "<tool>", "the", "\u00e9x", "  ", "<|a1|>", "ab ", "|>|"]
    for i in range(20 if QUICK else 150):
        prefix, nfc = rng.random() < 0.3, rng.random() < 0.4
        prefix = prefix and not nfc
        t = small_model(rng, ignore_merges=rng.random() < 0.3)
        t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True) if prefix else pre_tokenizer(rng.choice(["gpt2", "llama3", "qwen2", "o200k", "smollm"]))
        if nfc:
            t.normalizer = normalizers.NFC()
        t.decoder = decoders.ByteLevel()
        # a token that merges make, too, is refused
        some = [c for c in rng.sample(contents, rng.randint(2, 7)) if t.token_to_id(c) is None] or ["<tool>"]
        for content in some:
            special, normalized = rng.random() < 0.6, rng.random() < 0.3
            strip = rng.random() < 0.3 and not (nfc and normalized) and all(c == c.strip() for c in some)
            token = AddedToken(content, special=special, normalized=normalized, lstrip=strip and rng.random() < 0.7, rstrip=strip and rng.random() < 0.7)
            t.add_special_tokens([token]) if special else t.add_tokens([token])
        if rng.random() < 0.6:
            before, after = t.token_to_id(some[0]), t.token_to_id(some[-1])
            single = rng.choice(["{0} $A", "{0} $A {1}", "$A {1}"]).format(f"X", f"Y")
            t.post_processor = processors.TemplateProcessing(
                single=single.replace("X", "[X]").replace("Y", "[Y]"), special_tokens=[("[X]", before), ("[Y]", after)])
            if rng.random() < 0.5:
                t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), t.post_processor])
        root = ours.take("form", t)
        path, again = ours.again("form")
        if root != again:
            check(f"form {i}: an export comes in with the same root", False)
        exported = Tokenizer.from_file(path)
        for text in ["", " ", "e\u0301", *(form_text(rng, contents, rng.randint(1, 60)) for _ in range(4 if QUICK else 12)), form_text(rng, contents, 4000)]:
            for other in (t, exported):
                other.encode_special_tokens = False
                same_ids(f"form {i}: special", t, ours.encode("form", text, "--special"), other.encode(text, add_special_tokens=False).ids, text)
                same_ids(f"form {i}: around", t, ours.encode("form", text, "--special", "--around"), other.encode(text).ids, text)
                other.encode_special_tokens = True
                same_ids(f"form {i}: plain", t, ours.encode("form", text), other.encode(text, add_special_tokens=False).ids, text)
            check_offsets(ours, t, text, nfc)
    check("forms: added tokens, NFC, a space in front, templates, ignore_merges", True)


def same_ids(what, t, ids, want, text):
    if ids != want:
        first = next((i for i, (a, b) in enumerate(zip(ids, want)) if a != b), 0)
        text, ids, want = text[-300:], ids[max(first - 5, 0) : first + 20], want[max(first - 5, 0) : first + 20]
        print("text", ascii(text), "\nours  ", ids, "\ntheirs", want, "\n", json.dumps({k: v for k, v in json.loads(t.to_str()).items() if k != "model"}))
        check(what, False)


def check_offsets(ours, t, text, nfc):
    """Offsets follow one another from the first byte to the last; where nothing is normalized they are the bytes of each
    token, and those of the library where these are whole characters."""
    data, spans = text.encode(), ours.offsets("form", text)
    assert [i for i, _, _ in spans] == ours.encode("form", text)
    ends = [0] + [e for _, _, e in spans]
    if spans and (ends[-1] != len(data) or any(b != e for (_, b, _), e in zip(spans, ends)) or ends != sorted(ends)):
        print(ascii(text), spans)
        check("offsets cover the text", False)
    if nfc:
        return
    t.encode_special_tokens = True
    places = [len(c.encode()) for c in text]
    at = [sum(places[:i]) for i in range(len(text) + 1)] if len(text) < 200 else None
    for (_, begin, end), (first, last) in zip(spans, t.encode(text, add_special_tokens=False).offsets if at else []):
        if begin in at and end in at and end > begin and at[first] != begin and data[begin:end].strip() == data[begin:end]:
            print(ascii(text), spans, (begin, end), (at[first], at[last]))
            check("offsets are the library's", False)


def nfc_texts(ours):
    """Normal form C of every code point before and behind marks, jamo and letters."""
    t = as_model(pairs())
    t.pre_tokenizer, t.normalizer = pre_tokenizer("llama3"), normalizers.NFC()
    ours.take("nfc", t)
    near = ["e", "\u0301", "\u0327", "\u0345", "\u1100", "\u1161", "\uac00", "\u0b47", "\u09be", "\u094d\u093c"]
    for begin in range(0, len(SCALARS), 20_000):
        some = [chr(c) for c in SCALARS[begin : begin + 20_000 : 17 if QUICK else 1]]
        for text in ["".join(a + c + b + "." for c in some for a, b in zip(near, near[k:] + near[:k])) for k in ([3] if QUICK else range(0, 10, 3))]:
            same_ids("NFC", t, ours.encode("nfc", text), t.encode(text).ids, "")
    rng = random.Random(5)
    marks = [c for c in SCALARS if unicodedata.combining(chr(c))]
    for _ in range(10):
        text = "".join(chr(rng.choice(marks)) if rng.random() < 0.8 else rng.choice(near + ["a", "\u00e9"]) for _ in range(5000))
        same_ids("NFC of marks", t, ours.encode("nfc", text), t.encode(text).ids, text)
    check("NFC: every code point among marks, jamo and letters; runs of marks", True)


def rank_files(ours, work, rng):
    """Random vocabularies, most of whose tokens no orderly training would make."""
    path = os.path.join(work, "random.tiktoken")
    for i in range(60 if QUICK else 400):
        ranks = {bytes([b]): b for b in range(256)}
        alphabet = rng.choice([b"ab", b"abc", b"a ", b"ab1\n", b"xyz."])
        while len(ranks) < 256 + rng.choice([5, 20, 80, 200]):
            if len(ranks) > 300 and len(alphabet) == 2:
                break
            ranks.setdefault(bytes(rng.choice(alphabet) for _ in range(rng.randint(2, 7))), len(ranks))
        shuffled = list(ranks.values())
        if rng.random() < 0.5:
            rng.shuffle(shuffled)
        ranks = dict(zip(ranks, shuffled))
        pattern = rng.choice(list(TIKTOKEN))
        write_ranks(path, ranks)
        special = {"<|endoftext|>": len(ranks) + 5, "<|x=1|>": len(ranks)}
        theirs = tiktoken.Encoding("x", pat_str=TIKTOKEN[pattern], mergeable_ranks=ranks, special_tokens=special)
        ours.run("import", path, "--pattern", pattern, "--name", "ranks", *(x for k, v in special.items() for x in ("--special", f"{k}={v}")))
        exported = Tokenizer.from_file(ours.again("ranks")[0])
        exported.encode_special_tokens = True
        for size in (1, 2, 3, 5, 8, 13, 40, 3000):
            text = "".join(rng.choice(alphabet.decode()) for _ in range(size))
            want = theirs.encode_ordinary(text)
            same_ids(f"rank file {i}", exported, ours.encode("ranks", text), want, text)
            same_ids(f"rank file {i}, exported", exported, exported.encode(text).ids, want, text)
            text = text[: size // 2] + "<|endoftext|>" + text[size // 2 :] + "<|x=1|>"
            same_ids(f"rank file {i}, special", exported, ours.encode("ranks", text, "--special"), theirs.encode(text, allowed_special="all"), text)
    check("rank files of random vocabularies, and their exports", True)


# --- SentencePiece's BPE as Hugging Face converts it ------------------------------------------------------------------

MARK = "\u2581"


def converted(rng, corpus, shape, flag, crossing, scheme, last, sizes=(300, 900, 2500)):
    """A model over characters with byte tokens, as conversions of Llama and Mistral look: <unk>, <s>, </s>, bytes, pieces."""
    base = Tokenizer(models.BPE())
    base.pre_tokenizer = pre_tokenizers.Metaspace(MARK, "always", split=not crossing)
    base.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=rng.choice(sizes), limit_alphabet=rng.choice([60, 200, 1000]), show_progress=False))
    model = json.loads(base.to_str())["model"]
    names = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    taken = {*names, "<tool>", "[INST]"}  # a piece that is an added token, too, is refused where merges use it
    pieces = [p for p in sorted(model["vocab"], key=model["vocab"].get) if p not in taken]
    multi, single = [p for p in pieces if len(p) > 1], [p for p in pieces if len(p) == 1]
    vocab = {p: i for i, p in enumerate(names + (multi + single if last else single + multi))}
    merges = [tuple(m) for m in model["merges"] if taken.isdisjoint((*m, "".join(m)))]
    if rng.random() < 0.5:  # every way to make a piece, in the order of the pieces: what the converters write
        merges = [(p[:k], p[k:]) for p in multi for k in range(1, len(p)) if {p[:k], p[k:]} <= vocab.keys() - taken]
    t = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    replace = normalizers.Replace(" ", MARK)
    strip = shape == "prepend" or scheme != "never"
    if shape == "prepend":
        t.normalizer = normalizers.Sequence([normalizers.Prepend(MARK), replace])
    elif shape == "replace":
        t.normalizer, strip = rng.choice([replace, normalizers.Sequence([replace])]), False
    else:
        t.pre_tokenizer = pre_tokenizers.Metaspace(MARK, scheme, split=False)
    t.decoder = decoders.Sequence([decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse(), *([decoders.Strip(" ", 1, 0)] if strip else [])])
    t.add_special_tokens([AddedToken(s, special=True, normalized=flag) for s in names[:3]])
    if rng.random() < 0.5:
        t.add_tokens([AddedToken("<tool>", normalized=rng.random() < 0.5), AddedToken("[INST]", normalized=False), AddedToken("\u00e9x y", normalized=rng.random() < 0.5)])
    if rng.random() < 0.7:
        t.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)])
    return t


PIECES = [
    *"abcdest  .\n123<>/|", " ", "  ", "    ", "the ", " the", "<s>", " <s>", "</s>", "<unk>", "<tool>", "[INST]", " [INST] ", "\u00e9x y", "<0x41>",
    MARK, MARK * 3, MARK + "<s>", "\u2580", "\u2582", "\u00e9", "e\u0301", "\u4e2d\u6587", "\U0001f600", "\U0001f468\u200d\U0001f469", "\u0928\u092e", "\u0000", "\t", "\r\n", "\u3000", "\u00a0",
]


def piece_text(rng, size):
    return "".join(rng.choice(PIECES) if rng.random() < 0.9 else chr(rng.choice(SCALARS)) for _ in range(size))


def whole_texts(rng):
    """Texts of every kind; the long ones are one word, or many, between added tokens."""
    yield from ["", " ", "  ", "a", " a", "a ", "\n", MARK, MARK + " ", "<s>", " <s>", "<s> ", "<s>a", "<s> a", "a<s>b", "a <s> b", "<s><s>", " " * 40, "\u00e9x y", EMOJI, WORDS]
    yield from (piece_text(rng, rng.randint(1, 60)) for _ in range(6 if QUICK else 25))
    yield piece_text(rng, 6000)
    yield random_text(rng, 6000)
    yield long_runs(rng).replace("a", rng.choice("ab "))
    yield "".join(chr(c) for c in SCALARS[:: 97 if QUICK else 17])


def characters(ours):
    rng = random.Random(23)
    kinds = [("prepend", "never"), ("replace", "never"), *(("metaspace", s) for s in ("first", "always", "never"))]
    for i in range(15 if QUICK else 60):
        shape, scheme = kinds[i % len(kinds)]
        corpus = [piece_text(rng, 200).replace("\u0000", "") for _ in range(30)] + [WORDS, EMOJI] * 3 + ["the the rest is best and bad  \u4e2d\u6587\u4e2d " * 9]
        t = converted(rng, corpus, shape, rng.random() < 0.4, rng.random() < 0.3, scheme, rng.random() < 0.7)
        root = ours.take("characters", t)
        path, again = ours.again("characters")
        what = f"characters {i} ({shape}, {scheme})"
        if root != again:
            check(f"{what}: an export comes in with the same root", False)
        exported = Tokenizer.from_file(path)
        for text in whole_texts(rng):
            for other in (t, exported):
                other.encode_special_tokens = False
                ids = ours.encode("characters", text, "--special")
                same_ids(f"{what}: special", t, ids, other.encode(text, add_special_tokens=False).ids, text)
                same_ids(f"{what}: around", t, ours.encode("characters", text, "--special", "--around"), other.encode(text).ids, text)
                mine, back = ours.decode("characters", ids), other.decode(ids, skip_special_tokens=False).encode()
                if mine != back:
                    at = next(i for i in range(len(mine) + 1) if mine[: i + 1] != back[: i + 1])
                    print("decoded", mine[max(at - 20, 0) :][:60], "\ntheirs ", back[max(at - 20, 0) :][:60])
                    check(f"{what}: decode", False)
                other.encode_special_tokens = True
                same_ids(f"{what}: plain", t, ours.encode("characters", text), other.encode(text, add_special_tokens=False).ids, text)
            check_spans(ours, t, text)
    check("SentencePiece's BPE: Prepend, Replace and Metaspace, byte_fallback, added tokens, decoding", True)


def check_spans(ours, t, text):
    """Offsets follow one another from the first byte to the last, and a token that is text stands for that text."""
    data, spans = text.encode(), ours.offsets("characters", text, "--special")
    ends = [0] + [e for _, _, e in spans]
    if spans and (ends[-1] != len(data) or any(b != e for (_, b, _), e in zip(spans, ends))):
        print(ascii(text), spans)
        check("offsets cover the text", False)
    for id_, begin, end in spans:
        piece, said = t.id_to_token(id_), data[begin:end].decode(errors="replace")
        if end > begin and not piece.startswith("<0x") and said.replace(MARK, " ").strip(" ") != piece.replace(MARK, " ").strip(" "):
            print(ascii(text), id_, ascii(piece), begin, end, ascii(said))
            check("offsets of a token", False)


def report(name, other, text, ours):
    """The shortest piece of a text that differs."""
    def differs(piece):
        want = other.encode_ordinary(piece) if isinstance(other, tiktoken.Encoding) else other.encode(piece, add_special_tokens=False).ids
        return ours.encode(name, piece) != want
    size = len(text)
    while size > 1:
        step, found = max(size // 2, 1), None
        for cut in {step, size - 1, size // 4 * 3}:
            for piece in (text[:cut], text[size - cut :]):
                if piece and len(piece) < size and differs(piece):
                    found = piece
                    break
            if found:
                break
        if not found:
            break
        text, size = found, len(found)
    print("shortest:", ascii(text), "ours", ours.encode(name, text), type(other).__name__)
    check(f"{name}: ids", False)


def main():
    rng = random.Random(11)
    with tempfile.TemporaryDirectory() as work:
        ours = Ours(os.path.abspath(sys.argv[1]), work)
        if "patterns" not in sys.argv[2:]:
            forms(ours, rng)
            characters(ours)
            nfc_texts(ours)
            rank_files(ours, work, rng)
        if "forms" not in sys.argv[2:]:
            patterns(ours, work, rng)


if __name__ == "__main__":
    main()
