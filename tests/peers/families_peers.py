#!/usr/bin/env python3
"""Compares the model families with transformers, live:

    pip install -r tests/peers/requirements.txt
    families_peers.py path/to/lockstep

Models with random weights, made by transformers 5.23.0, of sizes that golden values are too small for. Each is saved as a folder and
imported: the weights must be those bytes. From what was imported, configuration and weights, tests/families.c (built beside
lockstep) computes logits, loss, gradient and the weights after one AdamW step. Then it is exported, and what transformers loads
there must give the logits of the model that it was, by bits. Prints the largest differences and their bounds; exits 1 when
one is over its bound.

The judge is transformers in double, which goes back to float32 for softmax, RMSNorm and rotary angles; what transformers in
float32 differs from it is printed too (in brackets). Logits: relative to their root mean square. Gradients: to their tensor's
greatest, or a hundredth of the model's greatest (with a window of 1, q and k have none). AdamW: to the learning rate; epsilon is large (1e-3), or an update of a tiny gradient would be its sign."""
import json
import math
import os
import random
import subprocess
import sys
import tempfile

import numpy as np
import torch
import transformers

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden"))
import families_golden as families
import model_golden as golden

assert torch.__version__.split("+")[0] == "2.15.0" and transformers.__version__ == "5.23.0"
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(min(2, os.cpu_count() or 1))

SEQUENCES, THREADS = 2, 2
OPTIMIZER = dict(lr=1e-3, betas=(0.9, 0.95), eps=1e-3)
DECAY = 0.1
BOUNDS = dict(logits=2e-5, loss=1e-7, gradient=2e-5, adamw=5e-4)
BASE = dict(family="llama", layers=3, norm_epsilon=1e-5, rope_theta=10000.0, init_std=0.06)
GPT2 = BASE | dict(family="gpt2", rope_theta=0.0)
LLAMA31 = BASE | dict(rope_theta=500000.0, rope_factor=8.0, rope_low=1.0, rope_high=4.0)
QWEN = BASE | dict(norm_epsilon=1e-6, rope_theta=1000000.0)
CASES = [
    ("GPT-2, tied", "gpt2", GPT2 | dict(width=96, heads=6, kv_heads=6, head_dim=16, ffn=384, context=128, vocab=1024, tied=True)),
    ("GPT-2, odd, untied", "gpt2", GPT2 | dict(width=84, heads=12, kv_heads=12, head_dim=7, ffn=131, context=101, vocab=1021, tied=False)),
    ("Llama 2", "llama", BASE | dict(width=96, heads=6, kv_heads=6, head_dim=16, ffn=256, context=128, vocab=1024, tied=False)),
    ("Llama 2, odd", "llama", BASE | dict(width=85, heads=5, kv_heads=1, head_dim=18, ffn=131, context=101, vocab=1021, tied=False)),
    ("Llama 3.1, 4 times rope_original", "llama",
     LLAMA31 | dict(width=96, heads=3, kv_heads=1, head_dim=32, ffn=256, context=256, vocab=1024, tied=False, rope_original=64)),
    ("Llama 3.1, odd, tied, 11 times", "llama",
     LLAMA31 | dict(width=87, heads=3, kv_heads=3, head_dim=30, ffn=131, context=303, vocab=1021, tied=True, rope_original=27, rope_factor=32.0)),
    ("Mistral, window 33 of 128", "mistral",
     BASE | dict(width=96, heads=6, kv_heads=2, head_dim=16, ffn=256, context=128, vocab=1024, tied=False, window=33)),
    ("Mistral, odd, window 1", "mistral",
     BASE | dict(width=85, heads=5, kv_heads=1, head_dim=14, ffn=131, context=71, vocab=1021, tied=True, window=1)),
    ("Mistral, window as long as the context", "mistral",
     BASE | dict(width=96, heads=6, kv_heads=2, head_dim=16, ffn=256, context=96, vocab=1024, tied=False, window=96)),
    ("Mistral, no window", "mistral", BASE | dict(width=96, heads=6, kv_heads=2, head_dim=16, ffn=256, context=128, vocab=1024, tied=False)),
    ("Qwen2, tied", "qwen2", QWEN | dict(width=96, heads=6, kv_heads=2, head_dim=16, ffn=256, context=128, vocab=1024, tied=True, qkv_bias=True)),
    ("Qwen2, odd, untied", "qwen2", QWEN | dict(width=90, heads=5, kv_heads=1, head_dim=18, ffn=131, context=101, vocab=1021, tied=False, qkv_bias=True)),
    ("Qwen3, tied, heads of 128", "qwen3",
     QWEN | dict(width=96, heads=4, kv_heads=2, head_dim=128, ffn=256, context=128, vocab=1024, tied=True, qk_norm=True)),
    ("Qwen3, odd, untied", "qwen3", QWEN | dict(width=85, heads=6, kv_heads=3, head_dim=22, ffn=131, context=101, vocab=1021, tied=False, qk_norm=True)),
    ("SmolLM2", "llama", BASE | dict(width=99, heads=9, kv_heads=3, head_dim=64, ffn=256, context=128, vocab=1024, tied=True, rope_theta=100000.0)),
    ("TinyLlama", "llama", BASE | dict(width=96, heads=8, kv_heads=1, head_dim=12, ffn=256, context=128, vocab=1024, tied=False)),
]
HEADER = ("layers width heads kv_heads head_dim ffn context vocab tied norm_epsilon rope_theta qkv_bias qk_norm window rope_factor "
          "rope_low rope_high rope_original").split()


def theirs(kind, c, weights, tokens, targets, dtype):
    peer = families.Peer(kind, c, dtype)
    peer.load(weights)
    optimizer = peer.optimizer(DECAY, **OPTIMIZER)
    loss, logits = peer.loss(tokens, targets)
    loss.backward()
    gradients = peer.gradients()
    optimizer.step()
    return dict(loss=loss.item(), logits=logits.detach().double().numpy(), gradients=gradients, weights=peer.weights())


class Store:
    def __init__(self, program, work):
        self.program, self.work, self.url = os.path.abspath(program), work, "file:" + os.path.join(work, "store")

    def run(self, *arguments):
        p = subprocess.run([self.program, *arguments, "--store", self.url], capture_output=True, text=True)
        if p.returncode != 0:
            sys.exit(f"lockstep {' '.join(arguments)}: {p.stderr}")
        return p.stdout

    def blob(self, root):
        with open(os.path.join(self.work, "store", "blobs", root[:2], root[2:]), "rb") as f:
            return f.read()

    def import_folder(self, folder, name):
        """The configuration as it was read, and all weights in canonical order."""
        self.run("model", "import", folder, "--name", name, "--tokenizer", "none")
        shown = json.loads(self.run("model", "show", name, "--json"))
        number = lambda x: float.fromhex(x) if isinstance(x, str) and x.startswith(("0x", "-0x")) else x
        return {k: number(v) for k, v in shown["config"].items()}, np.frombuffer(self.blob(shown["weights_root"]), "<f4")


def through_the_store(store, n, made, c, weights):
    """The folder of `made` comes in and goes out; returns the configuration that came in."""
    come, gone = os.path.join(store.work, f"in{n}"), os.path.join(store.work, f"out{n}")
    made.model.save_pretrained(come)
    config, data = store.import_folder(come, f"m{n}")
    assert all(config.get(k, 0) == c.get(k, 0) for k in HEADER if c["family"] == "llama" or k != "rope_theta"), config
    assert data.tobytes() == b"".join(x.astype("<f4").tobytes() for x in weights.values())
    store.run("model", "export", f"m{n}", gone)
    model, notes = transformers.AutoModelForCausalLM.from_pretrained(gone, attn_implementation="eager", output_loading_info=True)
    assert not any(notes.values()), notes
    tokens = torch.arange(c["context"])[None] % c["vocab"]
    with torch.no_grad():
        assert torch.equal(model(input_ids=tokens).logits, made.logits(tokens)), "the exported model computes something else"
    return config | dict(family=c["family"])


def ours(program, work, c, weights, tokens, targets):
    numbers = [float(c["family"] == "gpt2"), *(float(c.get(k, 0)) for k in HEADER), *map(float, tokens.shape), OPTIMIZER["lr"],
               *OPTIMIZER["betas"], OPTIMIZER["eps"], DECAY, THREADS]
    source, target = os.path.join(work, "in"), os.path.join(work, "out")
    with open(source, "wb") as f:
        f.write(np.array(numbers, dtype="<f8").tobytes())
        for x in weights.values():
            f.write(x.astype("<f4").tobytes())
        for x in (tokens, targets):
            f.write(x.numpy().astype("<i4").tobytes())  # -1 is a masked target, UINT32_MAX
    p = subprocess.run([program, source, target], capture_output=True, text=True)
    if p.returncode != 0:
        sys.exit(f"{program}: {p.stdout}{p.stderr}")
    with open(target, "rb") as f:
        loss = float(np.frombuffer(f.read(8), "<f8")[0])
        data = np.frombuffer(f.read(), "<f4").astype(np.float64)
    sizes = [int(np.prod(x.shape)) for x in weights.values()]
    count = tokens.numel() * c["vocab"]
    assert len(data) == count + 2 * sum(sizes)
    cut = lambda at: {k: part.reshape(x.shape) for (k, x), part in zip(weights.items(), np.split(data[at : at + sum(sizes)], np.cumsum(sizes)[:-1]))}
    return dict(loss=loss, logits=data[:count].reshape(*tokens.shape, -1), gradients=cut(count), weights=cut(count + sum(sizes)))


def differences(a, judge):
    greatest = lambda x: np.abs(x).max()
    least = max(greatest(g) for g in judge["gradients"].values()) / 100
    return dict(logits=greatest(a["logits"] - judge["logits"]) / np.sqrt((judge["logits"] ** 2).mean()), loss=abs(a["loss"] / judge["loss"] - 1),
                gradient=max(greatest(a["gradients"][k] - g) / max(greatest(g), least) for k, g in judge["gradients"].items()),
                adamw=max(greatest(a["weights"][k] - w) for k, w in judge["weights"].items()) / OPTIMIZER["lr"])


def compare(program, store, n, title, kind, c):
    torch.manual_seed(n)
    made = families.Peer(kind, c, torch.float32)  # transformers' own random weights, with gains and biases that are seen
    with torch.no_grad():
        for x in made.parameters.values():
            if x.dim() == 1:
                x.add_(0.2 * torch.randn_like(x))
    weights = {k: x.astype(np.float32) for k, x in made.weights().items()}
    imported = through_the_store(store, n, made, c, weights)
    tokens = torch.randint(0, c["vocab"], (SEQUENCES, c["context"]))
    targets = torch.randint(0, c["vocab"], (SEQUENCES, c["context"]))
    masked = torch.rand(targets.shape) < 0.1
    judge, single = (theirs(kind, c, weights, tokens, targets.masked_fill(masked, -100), t) for t in (torch.float64, torch.float32))
    mine, other = differences(ours(program, store.work, imported, weights, tokens, targets.masked_fill(masked, -1)), judge), differences(single, judge)
    print(f"{title:40}" + "".join(f"  {k} {mine[k]:.1e} [{other[k]:.1e}]" for k in BOUNDS), flush=True)
    return mine


def scaled_frequency(v, factor, low, high, original):
    """docs/numerics.md, section 5, word by word; v: the unscaled one."""
    f = np.float32
    length = (f(1) / v) * f(2 * math.pi)
    if length > f(original / low):
        return v / f(factor)
    if length < f(original / high):
        return v
    z = ((f(1) / length) * f(original) - f(low)) / f(high - low)
    return ((f(1) - z) * v) / f(factor) + z * v


def compare_frequencies(count):
    """By bits, from transformers' unscaled frequencies; src/math/vectors_test.c holds ours to the page."""
    r, other, all_ = random.Random(1), 0, 0
    for _ in range(count):
        d, theta, low = 2 * r.randint(1, 128), r.choice([10000.0, 500000.0, 1e6, r.uniform(2, 1e6)]), r.choice([1.0, r.uniform(0.1, 3)])
        scaling = [r.choice([8.0, 32.0, r.uniform(1, 64)]), low, low + r.choice([3.0, r.uniform(0.01, 9)]), r.choice([8192, r.randint(2, 20000)])]
        c = BASE | dict(width=d, heads=1, kv_heads=1, head_dim=d, ffn=1, context=131072, vocab=2, tied=True, rope_theta=theta)
        plain = families.hf_config("llama", c)
        c |= dict(zip(("rope_factor", "rope_low", "rope_high", "rope_original"), scaling))
        rotary = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding
        unscaled, judge = (rotary(x).inv_freq.numpy() for x in (plain, families.hf_config("llama", c)))
        mine = np.array([scaled_frequency(v, *scaling) for v in unscaled], dtype=np.float32)
        other, all_ = other + int((mine.view(np.uint32) != judge.view(np.uint32)).sum()), all_ + d // 2
    print(f"scaled rotary frequencies: {all_} of {count} random configurations, {other} with other bits")
    return other == 0


def main():
    program = os.path.join(os.path.dirname(os.path.abspath(sys.argv[1])), "tests", "families")
    print("ours against transformers in double [transformers in float32 against it]; bounds: "
          + ", ".join(f"{k} {v:.0e}" for k, v in BOUNDS.items()))
    with tempfile.TemporaryDirectory() as work:
        store = Store(sys.argv[1], work)
        seen = [compare(program, store, n, *case) for n, case in enumerate(CASES)]
    worst = {k: max(x[k] for x in seen) for k in BOUNDS}
    good = compare_frequencies(3000) and all(worst[k] < BOUNDS[k] for k in BOUNDS)
    print(f"{'largest':40}" + "".join(f"  {k} {v:.1e}" for k, v in worst.items()))
    print("family peers:", "equal within the bounds" if good else "DIFFERENT")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
