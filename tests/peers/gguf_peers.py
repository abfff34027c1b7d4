#!/usr/bin/env python3
"""GGUF files in and out, live beside llama.cpp (llama-cpp-python 0.3.36) and the format's own Python package (gguf 0.19.0):

    pip install -r tests/peers/requirements.txt
    gguf_peers.py path/to/lockstep

Models with random weights of every family, odd sizes among them, come in from transformers' folders.
1. Floats: our file loads in llama.cpp; logits (relative to their root mean square) and the greedy continuation are compared, as
   f32, f16 and bf16; the file comes back with the same weights root. A file that gguf writes, by its own names of tensors and
   with llama's rows in the order of convert_hf_to_gguf, gives the weights root of the folder.
2. Fewer bits: llama.cpp quantises our file to Q8_0 and Q4_0; its blocks are compared with those of `model quantize`, byte by
   byte, and so are gguf's; its file comes in, and both programs compute logits from it, and from our own file.
3. Tokenizers: byte-level ones of four patterns and SentencePiece's: ids of both programs on texts, and of the tokenizer that
   comes back.
Distances of floats are the greatest one. llama.cpp rounds activations to 16 bits beside 16-bit weights, and looks GELU up in a table
of 16 bits, so those are further off. Beside blocks both programs round activations to 8 bits, each by its own rule, and a random
model makes much of that: the judge is the same file with its blocks as floats, and root mean squares are compared: ours from
llama.cpp's, and both from the judge's; ours may not be further from it than "worse" times theirs."""
import ctypes
import json
import os
import random
import subprocess
import sys
import tempfile
import unicodedata

import gguf
import llama_cpp
import numpy as np
import torch

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import families_peers as peers
import tokenizer_forms_peers as forms

assert llama_cpp.__version__ == "0.3.36"
families, PROMPT, TOKENS = peers.families, 8, 24
BOUNDS = {"f32": 1e-4, "gpt2": 5e-3, "f16": 2e-2, "bf16": 0.2, "blocks": 0.06, "worse": 1.2}
BLOCKS = peers.BASE | dict(width=256, heads=4, kv_heads=2, head_dim=64, ffn=512, context=64, vocab=1024, tied=False)
NARROW = [
    ("GPT-2 in blocks", "gpt2", peers.GPT2 | dict(width=256, heads=4, kv_heads=4, head_dim=64, ffn=1024, context=64, vocab=1024, tied=True)),
    ("Llama 2 in blocks", "llama", BLOCKS),
    ("Llama 2, width 96", "llama", BLOCKS | dict(width=96, heads=3, kv_heads=1, head_dim=32, ffn=160, vocab=1021)),
    ("Llama 3.1 in blocks, tied", "llama", BLOCKS | peers.LLAMA31 | dict(rope_original=16, tied=True)),
    ("Qwen2 in blocks", "qwen2", BLOCKS | peers.QWEN | dict(qkv_bias=True, heads=8, head_dim=32)),
    ("Qwen3 in blocks, tied", "qwen3", BLOCKS | peers.QWEN | dict(qk_norm=True, tied=True)),
]
TYPES = {"q8": (7, gguf.GGMLQuantizationType.Q8_0), "q4": (2, gguf.GGMLQuantizationType.Q4_0)}  # llama.cpp's ftype
failed = 0


def check(what, good, about=""):
    global failed
    failed += not good
    print(f"{'ok' if good else 'NOT OK':6} {what} {about}", flush=True)


class Store(peers.Store):
    def logits(self, name, ids):
        source, target = os.path.join(self.work, "ids"), os.path.join(self.work, "logits")
        np.array(ids, dtype="<u4").tofile(source)
        program = os.path.join(os.path.dirname(self.program), "tests", "logits")
        p = subprocess.run([program, self.url, name, source, target], capture_output=True, text=True)
        if p.returncode:
            sys.exit(f"{program}: {p.stdout}{p.stderr}")
        return np.fromfile(target, "<f4").reshape(len(ids), -1).astype(np.float64)

    def root(self, name, key="weights_root"):
        return json.loads(self.run("model", "show", name, "--json"))[key]

    def export(self, name, *options):
        path = os.path.join(self.work, name + "".join(options) + ".gguf")
        self.run("model", "export", name, path, "--format", "gguf", *options)
        return path

    def encode(self, tokenizer, texts):
        path = os.path.join(self.work, "texts.jsonl")
        with open(path, "w", encoding="utf-8") as f:
            f.writelines(json.dumps({"text": t}) + "\n" for t in texts)
        lines = self.run("tokenizer", "encode", tokenizer, path).split("\n")[: len(texts)]
        return [[int(x) for x in line.split()] for line in lines]


def llama(path, **options):
    return llama_cpp.Llama(path, n_ctx=64, n_batch=64, type_k=0, type_v=0, n_threads=2, n_threads_batch=2, verbose=False, **options)


def greedy(path, count):
    """A prompt, what llama.cpp goes on with, and its logits at all these positions."""
    m = llama(path, logits_all=True)
    ids = [7 * i % m.n_vocab() for i in range(min(PROMPT, count))]
    m.eval(ids)
    while len(ids) < count:
        ids.append(int(np.argmax(m._scores[-1])))
        m.eval(ids[-1:])
    return ids, m._scores[:count].astype(np.float64)


def compare(store, what, name, path, bound, count):
    """Logits along llama.cpp's continuation; where it takes another token than we do, ours is no better than the bound."""
    ids, theirs = greedy(path, count)
    ours = store.logits(name, ids)
    rms = float(np.sqrt((theirs**2).mean()))
    apart = float(np.abs(ours - theirs).max()) / rms
    others = [p for p in range(PROMPT - 1, count - 1) if int(np.argmax(ours[p])) != ids[p + 1]]
    lost = [(ours[p].max() - ours[p][ids[p + 1]]) / rms for p in others]
    check(what, apart < bound and all(x < 2 * bound for x in lost),
          f"logits {apart:.1e} apart, of {max(count - PROMPT, 0)} greedy tokens {len(others)} other ones")
    return apart


def floats_of(path, out):
    """The file with its blocks as the floats that they stand for."""
    r = gguf.GGUFReader(path)
    w = gguf.GGUFWriter(out, r.fields["general.architecture"].contents())
    for f in r.fields.values():
        if not f.name.startswith("GGUF.") and f.name != "general.architecture":
            w.add_key_value(f.name, f.contents(), f.types[0], f.types[-1] if len(f.types) > 1 else None)
    for t in r.tensors:
        w.add_tensor(t.name, gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32).reshape([int(n) for n in t.shape[::-1]]))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def compare_blocks(store, what, name, path):
    judge = os.path.join(store.work, "judge.gguf")
    floats_of(path, judge)
    store.run("model", "import", judge, "--name", "judge", "--tokenizer", "none")
    ids, theirs = greedy(path, TOKENS)
    ours, exact = store.logits(name, ids), store.logits("judge", ids)
    rms = float(np.sqrt((exact**2).mean()))
    apart, mine, other = (float(np.sqrt(((a - b) ** 2).mean())) / rms for a, b in ((ours, theirs), (ours, exact), (theirs, exact)))
    places = [p for p in range(PROMPT - 1, TOKENS - 1) if int(np.argmax(ours[p])) != ids[p + 1]]
    lost = [(ours[p].max() - ours[p][ids[p + 1]]) / rms for p in places]
    check(what, apart < BOUNDS["blocks"] and mine < BOUNDS["worse"] * other and all(x < 8 * BOUNDS["blocks"] for x in lost),
          f"rms of logits {apart:.1e} apart, from floats {mine:.1e} [{other:.1e}], of {TOKENS - PROMPT} greedy tokens {len(places)} other ones")


def folder(store, n, kind, c):
    torch.manual_seed(n)
    made = families.Peer(kind, c, torch.float32)
    with torch.no_grad():
        for x in made.parameters.values():
            x.add_(0.2 * torch.randn_like(x)) if x.dim() == 1 else x.mul_(2)
    path = os.path.join(store.work, f"folder{n}")
    made.model.save_pretrained(path)
    store.run("model", "import", path, "--name", f"m{n}", "--tokenizer", "none")
    return made


def positions(c):
    """What llama.cpp computes too: it knows no window."""
    return min(TOKENS, c["context"], c.get("window") or TOKENS)


# --- 1 -------------------------------------------------------------------------------------------------------------------------


def written_by_gguf(store, n, kind, c, made, dtype):
    """A file of another program: gguf's writer, names of tensors by its own table."""
    arch = "llama" if kind == "mistral" else kind
    path = os.path.join(store.work, f"theirs{n}.gguf")
    w = gguf.GGUFWriter(path, arch)
    number = {v: k for k, v in gguf.MODEL_ARCH_NAMES.items()}[arch]
    names = gguf.get_tensor_name_map(number, c["layers"])
    w.add_context_length(c["context"])
    w.add_embedding_length(c["width"])
    w.add_block_count(c["layers"])
    w.add_feed_forward_length(c["ffn"])
    w.add_head_count(c["heads"])
    w.add_file_type(0)
    w.add_name("a model")
    if kind == "gpt2":
        w.add_layer_norm_eps(c["norm_epsilon"])
    else:
        w.add_head_count_kv(c["kv_heads"])
        w.add_key_length(c["head_dim"])
        w.add_value_length(c["head_dim"])
        w.add_layer_norm_rms_eps(c["norm_epsilon"])
        w.add_rope_freq_base(c["rope_theta"])
        w.add_rope_dimension_count(c["head_dim"])
        if c.get("window"):
            w.add_sliding_window(c["window"])
    w.add_tokenizer_model("none")
    if c.get("rope_factor"):  # as convert_hf_to_gguf makes them
        plain = 1.0 / (c["rope_theta"] ** (np.arange(0, c["head_dim"], 2, dtype=np.float32) / c["head_dim"]))
        length = 2 * np.pi / plain
        low, high, factor = c["rope_original"] / c["rope_low"], c["rope_original"] / c["rope_high"], c["rope_factor"]
        smooth = (c["rope_original"] / length - c["rope_low"]) / (c["rope_high"] - c["rope_low"])
        middle = 1 / ((1 - smooth) / factor + smooth)
        w.add_tensor("rope_freqs.weight", np.where(length < high, 1, np.where(length > low, factor, middle)).astype(np.float32))
    for name, x in made.parameters.items():
        x = made.turned(name, x).detach().numpy()
        if arch == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = c["heads"] if "q_proj" in name else c["kv_heads"]
            x = x.reshape(heads, 2, c["head_dim"] // 2, c["width"]).swapaxes(1, 2).reshape(x.shape)
        full = names.get_name(name if kind != "gpt2" or name == "lm_head.weight" else "transformer." + name, try_suffixes=(".weight", ".bias"))
        type = gguf.GGMLQuantizationType.F32 if x.ndim == 1 or "wpe" in name else dtype
        w.add_tensor(full, gguf.quants.quantize(np.ascontiguousarray(x), type), raw_dtype=type)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path


def floats(store, n, title, kind, c):
    made, count = folder(store, n, kind, c), positions(c)
    path = store.export(f"m{n}")
    gguf.GGUFReader(path)
    compare(store, f"{title}: f32", f"m{n}", path, BOUNDS["gpt2" if kind == "gpt2" else "f32"], count)
    store.run("model", "import", path, "--name", "back", "--tokenizer", "none")
    config = [json.loads(store.run("model", "show", x, "--json"))["config"] for x in (f"m{n}", "back")]
    check(f"{title}: comes back", store.root("back") == store.root(f"m{n}") and config[0] == config[1])
    again = store.export("back")
    check(f"{title}: the same bytes again", open(again, "rb").read() == open(path, "rb").read())
    os.remove(again)
    for dtype in ("f16", "bf16"):
        path = store.export(f"m{n}", "--dtype", dtype)
        store.run("model", "import", path, "--name", dtype, "--tokenizer", "none")
        compare(store, f"{title}: {dtype}", dtype, path, BOUNDS[dtype], count)
    theirs = written_by_gguf(store, n, kind, c, made, gguf.GGMLQuantizationType.F32)
    store.run("model", "import", theirs, "--name", "theirs", "--tokenizer", "none")
    number = lambda x: float.fromhex(x) if isinstance(x, str) and x.startswith("0x") else x
    got = {k: number(v) for k, v in json.loads(store.run("model", "show", "theirs", "--json"))["config"].items()}
    want = {k: number(v) for k, v in config[0].items()}
    for k in ("rope_low", "rope_high", "rope_original"):  # say the same together only
        got.pop(k, None), want.pop(k, None)
    got.pop("init_std"), want.pop("init_std")
    check(f"{title}: a file of gguf's", store.root("theirs") == store.root(f"m{n}") and got == want, "" if got == want else f"{got} {want}")
    if c.get("rope_factor"):
        ids = [3 * i % c["vocab"] for i in range(c["context"])]
        a, b = store.logits("theirs", ids), store.logits(f"m{n}", ids)
        apart = float(np.abs(a - b).max() / np.sqrt((b**2).mean()))
        check(f"{title}: its scaling of frequencies", apart < 2e-4, f"logits {apart:.1e} apart")


# --- 2 -------------------------------------------------------------------------------------------------------------------------


def tensors(path):
    return {t.name: (t.tensor_type, t.data.tobytes()) for t in gguf.GGUFReader(path).tensors}


def other_bytes(ours, theirs, type):
    """Of the tensors that both have in that type: bytes, those that differ, tensors."""
    both = [k for k in ours if k in theirs and ours[k][0] == theirs[k][0] == type]
    pairs = [(np.frombuffer(ours[k][1], np.uint8), np.frombuffer(theirs[k][1], np.uint8)) for k in both]
    assert all(len(a) == len(b) for a, b in pairs)
    return sum(len(a) for a, _ in pairs), sum(int((a != b).sum()) for a, b in pairs), len(both)


def quantized(store, n, title, kind, c):
    made = folder(store, n, kind, c)
    source = store.export(f"m{n}")
    store.run("model", "quantize", f"m{n}", "--to", "bf16", "--as", f"m{n}-bf16")
    own = store.export(f"m{n}-bf16")
    check(f"{title}: bf16 has the bytes of the rounded floats", tensors(own) == tensors(store.export(f"m{n}", "--dtype", "bf16")))
    compare(store, f"{title}: bf16", f"m{n}-bf16", own, BOUNDS["bf16"], TOKENS)
    for to, (ftype, type) in TYPES.items():
        store.run("model", "quantize", f"m{n}", "--to", to, "--as", f"m{n}-{to}")
        own = store.export(f"m{n}-{to}")
        compare_blocks(store, f"{title}: {to}", f"m{n}-{to}", own)
        store.run("model", "import", own, "--name", "back", "--tokenizer", "none")
        check(f"{title}: {to} comes back", store.root("back") == store.root(f"m{n}-{to}"))
        target = os.path.join(store.work, f"llama{n}-{to}.gguf")
        params = llama_cpp.llama_model_quantize_default_params()
        params.ftype, params.nthread = ftype, 2
        assert llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)) == 0
        all_, other, count = other_bytes(tensors(own), tensors(target), type)
        check(f"{title}: {to} of llama.cpp", count > 0 and other == 0, f"{other} of {all_} bytes in {count} tensors differ")
        store.run("model", "import", target, "--name", "llama", "--tokenizer", "none")
        compare_blocks(store, f"{title}: {to} that llama.cpp made", "llama", target)
        theirs = written_by_gguf(store, n, kind, c, made, type)
        all_, other, count = other_bytes(tensors(own), tensors(theirs), type)
        check(f"{title}: {to} of gguf", count > 0 and other == 0, f"{other} of {all_} bytes in {count} tensors differ")


# --- 3 -------------------------------------------------------------------------------------------------------------------------


def texts():
    here, r = os.path.dirname(os.path.abspath(__file__)), random.Random(3)
    with open(os.path.join(here, "..", "..", "docs", "numerics.md"), encoding="utf-8") as f:
        page = f.read()
    out = [" ", "a", "  the", "Don't 12345 a\n\n b", "I'LL we'Re\t\tx", "caf\u00e9 \u4e2d\u6587 \U0001f469\u200d\U0001f680", "aaaaaaaaaaaa" * 5, " " * 40,
           "1234567 89", "x=1;\r\n\r\ny", "\n \n  \n", "end  ", "<s>a</s>", "<|endoftext|>"]
    for _ in range(150):
        at = r.randrange(len(page) - 300)
        out.append(page[at : at + r.randint(1, 300)])
    letters = "abcxyzABC  \n019.,'-\u00e4\u00df\u03b1\u0416\u4e2d\u3042\u00bd\u0661\u2003"
    for _ in range(300):
        out.append("".join(r.choice(letters) for _ in range(r.randint(1, 40))))
    return out


def sentencepiece(words, seed, shape, scheme="never"):
    """A tokenizer.json whose merges are every way to make a piece of two, as Hugging Face's converter lists them."""
    data = json.loads(forms.converted(random.Random(seed), words, shape, False, False, scheme, True, [1000]).to_str())
    data["added_tokens"] = [t for t in data["added_tokens"] if t["id"] < 3]
    vocab, taken = data["model"]["vocab"], {t["content"] for t in data["added_tokens"]} | {f"<0x{b:02X}>" for b in range(256)}
    pieces = set(vocab) - taken
    ways = {p: [(p[:k], p[k:]) for k in range(len(p) - 1, 0, -1) if {p[:k], p[k:]} <= pieces] for p in sorted(pieces, key=vocab.get)}
    data["model"]["merges"] = [list(w) for p in ways for w in ways[p]]
    return json.dumps(data)


def tokenizer(store, n, name, all_):
    """A model with that tokenizer; what llama.cpp makes of texts, and what comes back."""
    path = os.path.join(store.work, f"tokens{n}")
    c = peers.BASE | dict(layers=1, width=32, heads=2, kv_heads=2, head_dim=16, ffn=32, context=64, vocab=1800, tied=True)
    families.Peer("llama", c, torch.float32).model.save_pretrained(path)
    store.run("model", "import", path, "--name", name, "--tokenizer", name)
    m = llama(store.export(name), vocab_only=False)
    ours = store.encode(name, all_)
    theirs = [m.tokenize(t.encode(), add_bos=False, special=False) for t in all_]
    other = [i for i in range(len(all_)) if ours[i] != theirs[i]]
    check(f"tokenizer {name}", not other, f"{len(all_)} texts, {len(other)} with other ids" + "".join(f"\n  {all_[i]!r} {ours[i]} {theirs[i]}" for i in other[:3]))
    store.run("model", "import", os.path.join(store.work, name + ".gguf"), "--name", "back")
    check(f"tokenizer {name} comes back", store.root("back", "tokenizer_root") == store.root(name, "tokenizer_root"))


def tokenizers(store):
    docs = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "docs")
    corpus = [os.path.join(docs, x) for x in sorted(os.listdir(docs)) if x.endswith(".md")]
    all_ = texts()
    for n, pattern in enumerate(("gpt2", "llama3", "qwen2", "smollm")):
        store.run("tokenizer", "train", *corpus, "--vocab", "1700", "--pattern", pattern, "--name", pattern)
        tokenizer(store, n, pattern, all_)
    words = [open(x, encoding="utf-8").read()[:20000] for x in corpus]
    for n, shape in enumerate(("prepend", "replace")):
        path = os.path.join(store.work, f"{shape}.json")
        with open(path, "w", encoding="utf-8") as f:
            f.write(sentencepiece(words, n, shape))
        store.run("tokenizer", "import", path, "--name", "sp-" + shape)
        tokenizer(store, 10 + n, "sp-" + shape, [x for x in all_ if "\u2581" not in x and "\0" not in x])


def main():
    print("distances of logits relative to their root mean square; bounds: " + ", ".join(f"{k} {v:g}" for k, v in BOUNDS.items()))
    with tempfile.TemporaryDirectory() as work:
        store = Store(sys.argv[1], work)
        tokenizers(store)
        for n, case in enumerate(NARROW):
            quantized(store, 100 + n, *case)
        for n, case in enumerate(peers.CASES):
            floats(store, n, *case)
    print("GGUF peers:", "equal within the bounds" if not failed else f"{failed} DIFFERENT")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
