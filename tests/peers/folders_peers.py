#!/usr/bin/env python3
"""Hugging Face folders in and out, live:

    pip install -r tests/peers/requirements.txt
    folders_peers.py path/to/lockstep

Folders of every model_type, written by transformers 5.23.0 with random weights, are imported, exported as f32, bf16 and f16, and
loaded by AutoModelForCausalLM and AutoTokenizer, with warnings as errors. f32: equal logits, and an import of the export has
the same weights root; bf16, f16: the largest difference of logits, relative to their root mean square, is printed. The greedy
continuation of lockstep equals transformers', and the tokenizers give equal ids. A run that began with the model goes out too."""
import json
import logging
import os
import subprocess
import sys
import tempfile
import warnings

import torch
import transformers

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden"))
import folders

lockstep = os.path.abspath(sys.argv[1])
BOUNDS = {"f32": 0.0, "bf16": 0.25, "f16": 0.03}
TEXTS = [folders.PROMPT, "Don't 12345 a\n\n b  <|endoftext|> caf\u00e9 \u4e2d\u6587 \U0001f469\u200d\U0001f680", ""]
failed = 0


class Warned(logging.Handler):
    def emit(self, record):
        if record.levelno >= logging.WARNING:
            raise RuntimeError("transformers says: " + record.getMessage())


def load(folder, dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return (transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype), transformers.AutoTokenizer.from_pretrained(folder))


def run(store, *args):
    p = subprocess.run([lockstep, *args, "--store", store], capture_output=True, text=True)
    if p.returncode:
        raise RuntimeError(f"{args}: {p.stderr}")
    return p.stdout


def check(what, good, about=""):
    global failed
    failed += not good
    print(f"{'ok' if good else 'NOT OK':6} {what} {about}")


def logits(model):
    ids = torch.arange(40).reshape(2, 20) * 7 % 270
    with torch.no_grad():
        return model(ids).logits.double()


def one(kind, work, dtype, shard):
    name = f"{kind}, {str(dtype).split('.')[1]}, {'one file' if shard == '1GB' else 'several files'}"
    store, source = os.path.join(work, "store"), os.path.join(work, "source")
    folders.make(kind, source, dtype=dtype, shard=shard, seed=7)
    root = json.loads(run(store, "model", "import", source, "--name", "m", "--json"))["weights_root"]
    model, tokenizer = load(source, torch.float32)
    base = logits(model)
    size = base.square().mean().sqrt()
    for form, bound in BOUNDS.items():
        out = os.path.join(work, form)
        run(store, "model", "export", "m", out, "--dtype", form)
        again, tokens = load(out, torch.float32)
        worst = float((logits(again) - base).abs().max() / size)
        exact = form == "f32" or {"bf16": torch.bfloat16, "f16": torch.float16}[form] == dtype
        check(f"{name}: exported as {form}", worst <= (0 if exact else bound), f"largest difference {worst:.2g} (bound {0 if exact else bound:g})")
        check(f"{name}: its tokenizer", all(tokens(t)["input_ids"] == tokenizer(t)["input_ids"] for t in TEXTS))
    back = json.loads(run(store, "model", "import", os.path.join(work, "f32"), "--name", "back", "--json"))["weights_root"]
    check(f"{name}: f32 comes back", back == root, root[:16])
    ids = json.loads(run(store, "generate", "m", folders.PROMPT, "--tokens", "24", "--temperature", "0", "--json"))["ids"]
    want = folders.greedy(source)
    want = want[:want.index(tokenizer.eos_token_id) + 1] if tokenizer.eos_token_id in want else want
    check(f"{name}: greedy continuation", ids == want)
    return store


def begun(kind, store, work):
    text, config, out = (os.path.join(work, f) for f in ("text.txt", "begun.ini", "begun"))
    with open(text, "w") as f:
        f.write("in the beginning God created the heaven and the earth.\n" * 200)
    run(store, "dataset", "build", "d", text, "--tokenizer", "model:m")
    with open(config, "w") as f:
        f.write("[run]\nsteps=3\n[data]\ndataset=d\n[model]\nfrom=m\n[batch]\nsequences=4\ncontext=24\n[optimizer]\nlearning_rate=1e-3\n")
    run(store, "train", config)
    run(store, "model", "export", "begun", out)
    model, tokenizer = load(out, torch.float32)
    ids = json.loads(run(store, "generate", "begun", folders.PROMPT, "--tokens", "24", "--temperature", "0", "--json"))["ids"]
    want = folders.greedy(out)
    want = want[:want.index(tokenizer.eos_token_id) + 1] if tokenizer.eos_token_id in want else want
    check(f"{kind}: trained from it, exported, continued", ids == want and type(model).__name__ == type(load(os.path.join(work, "f32"), torch.float32)[0]).__name__)


def ours(work):
    """A run of our own: its tokenizer and configuration were never in a folder."""
    store, text, out = (os.path.join(work, f) for f in ("store", "text.txt", "out"))
    with open(text, "w") as f:
        f.write("in the beginning God created the heaven and the earth.\n" * 200)
    run(store, "tokenizer", "train", text, "--vocab", "262", "--name", "t")
    run(store, "dataset", "build", "d", text, "--tokenizer", "t")
    for family in ("gpt2", "llama"):
        config = os.path.join(work, f"{family}.ini")
        with open(config, "w") as f:
            f.write(f"[run]\nsteps=3\n[data]\ndataset=d\n[model]\nfamily={family}\nlayers=2\nwidth=24\nheads=3\ncontext=64\n[batch]\nsequences=4\n")
        run(store, "train", config)
        run(store, "model", "export", family, out + family)
        model, tokenizer = load(out + family, torch.float32)
        end = tokenizer.eos_token_id
        ids = torch.tensor([[end] + tokenizer(folders.PROMPT)["input_ids"]])
        want = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False, pad_token_id=0)[0, ids.shape[1]:].tolist()
        have = json.loads(run(store, "generate", family, folders.PROMPT, "--tokens", "20", "--temperature", "0", "--json"))["ids"]
        check(f"a run of the {family} family in transformers: greedy continuation", have == want)


def main():
    assert transformers.__version__ == "5.23.0"
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("transformers").addHandler(Warned())
    for kind in folders.KINDS:
        for dtype, shard in ((torch.float32, "1GB"), (torch.bfloat16, "12KB"), (torch.float16, "1GB")):
            with tempfile.TemporaryDirectory() as work:
                store = one(kind, work, dtype, shard)
                if dtype == torch.float32:
                    begun(kind, store, work)
    with tempfile.TemporaryDirectory() as work:
        ours(work)
    print(f"{failed} failed" if failed else "all equal")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
