#!/usr/bin/env python3
"""Golden values of the model families for src/model/golden_test.c, from transformers 5.23.0 with PyTorch 2.15.0:

    python3 tests/golden/families_golden.py > tests/golden/families_golden.h

The models are transformers' own, in double where they do not go back to float32 themselves (softmax, RMSNorm, rotary angles);
weights are docs/numerics.md's initial ones, gains and biases moved so that none is 1 or 0. tests/peers/families_peers.py uses
the same functions.
"""
import numpy as np
import torch
import torch.nn.functional as F
import transformers
from transformers import GPT2Config, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

import model_golden as golden


def hf_config(kind, c):
    """transformers' configuration of ours; kind: its model_type."""
    common = dict(initializer_range=c["init_std"], vocab_size=c["vocab"], tie_word_embeddings=c["tied"], attn_implementation="eager", bos_token_id=None,
                  eos_token_id=None, pad_token_id=None)
    if kind == "gpt2":
        return GPT2Config(n_embd=c["width"], n_layer=c["layers"], n_head=c["heads"], n_inner=c["ffn"], n_positions=c["context"],
                          layer_norm_epsilon=c["norm_epsilon"], resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, **common)
    rope = dict(rope_type="default", rope_theta=c["rope_theta"])
    if c.get("rope_factor"):
        rope |= dict(rope_type="llama3", factor=c["rope_factor"], low_freq_factor=c["rope_low"], high_freq_factor=c["rope_high"],
                     original_max_position_embeddings=c["rope_original"])
    common |= dict(hidden_size=c["width"], intermediate_size=c["ffn"], num_hidden_layers=c["layers"], num_attention_heads=c["heads"],
                   num_key_value_heads=c["kv_heads"], max_position_embeddings=c["context"], rms_norm_eps=c["norm_epsilon"],
                   rope_parameters=rope)
    if kind == "qwen2":  # has no head_dim
        assert c["head_dim"] * c["heads"] == c["width"] and c["qkv_bias"]
        return Qwen2Config(use_sliding_window=False, **common)
    common |= dict(head_dim=c["head_dim"])
    if kind == "mistral":
        return MistralConfig(sliding_window=c.get("window") or None, **common)
    if kind == "qwen3":
        assert c["qk_norm"]
        return Qwen3Config(use_sliding_window=False, attention_bias=False, **common)
    assert kind == "llama"
    return LlamaConfig(attention_bias=False, mlp_bias=False, **common)


class Peer:
    """A model of transformers, its parameters by our names and in our shapes."""

    def __init__(self, kind, c, dtype=torch.float64):
        self.c, self.transposed = c, {}
        self.model = transformers.AutoModelForCausalLM.from_config(hf_config(kind, c), attn_implementation="eager").to(dtype)
        theirs, self.parameters = dict(self.model.named_parameters()), {}
        for name, shape, _, _ in golden.tensors(c):
            full = "transformer." + name if kind == "gpt2" and name != "lm_head.weight" else name
            self.parameters[name] = theirs.pop(full)
            self.transposed[name] = kind == "gpt2" and len(shape) == 2 and name.startswith("h.")  # Conv1D is (in, out)
            assert self.turned(name, self.parameters[name]).shape == shape, name
        assert not theirs, theirs.keys()

    def turned(self, name, x):
        return x.T if self.transposed[name] else x

    def load(self, weights):
        with torch.no_grad():
            for name, x in self.parameters.items():
                x.copy_(self.turned(name, torch.from_numpy(weights[name])))

    def weights(self):
        return {k: self.turned(k, x).detach().double().numpy().copy() for k, x in self.parameters.items()}

    def gradients(self):
        return {k: self.turned(k, x.grad).double().numpy().copy() for k, x in self.parameters.items()}

    def logits(self, tokens):
        return self.model(input_ids=tokens, use_cache=False).logits

    def loss(self, tokens, targets):
        """The mean over the targets that are not masked (-100); and the logits."""
        logits = self.logits(tokens)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100), logits

    def optimizer(self, decay, **options):
        return torch.optim.AdamW(golden.groups(self.parameters, decay), **options)


# (model_type, our configuration); every size is odd or small
BASE = dict(family="llama", layers=2, norm_epsilon=1e-5, rope_theta=10000.0, init_std=0.25, documents=False)
CASES = [
    ("gpt2", BASE | dict(family="gpt2", width=21, heads=3, kv_heads=3, head_dim=7, ffn=40, context=13, vocab=31, tied=True,
                         rope_theta=0.0, seed=11)),
    ("llama", BASE | dict(name="Llama 2", width=20, heads=2, kv_heads=2, head_dim=10, ffn=27, context=14, vocab=37, tied=False, seed=12)),
    ("llama", BASE | dict(name="Llama 3.1", width=20, heads=4, kv_heads=2, head_dim=12, ffn=29, context=40, vocab=33, tied=False,
                          rope_theta=100.0, rope_factor=8.0, rope_low=1.0, rope_high=4.0, rope_original=26, seed=13)),
    ("llama", BASE | dict(name="SmolLM2", width=18, heads=3, kv_heads=1, head_dim=6, ffn=25, context=15, vocab=35, tied=True,
                          rope_theta=100000.0, seed=14)),
    ("llama", BASE | dict(name="TinyLlama", width=24, heads=8, kv_heads=2, head_dim=4, ffn=23, context=12, vocab=29, tied=False, seed=15)),
    ("mistral", BASE | dict(width=20, heads=4, kv_heads=2, head_dim=6, ffn=21, context=20, vocab=31, tied=False, window=7, seed=16)),
    ("mistral", BASE | dict(width=20, heads=4, kv_heads=2, head_dim=8, ffn=21, context=16, vocab=31, tied=False, seed=17)),
    ("qwen2", BASE | dict(width=28, heads=2, kv_heads=1, head_dim=14, ffn=33, context=15, vocab=39, tied=True, qkv_bias=True,
                          norm_epsilon=1e-6, rope_theta=1000000.0, seed=18)),
    ("qwen3", BASE | dict(width=20, heads=3, kv_heads=1, head_dim=14, ffn=31, context=17, vocab=41, tied=True, qk_norm=True,
                          norm_epsilon=1e-6, rope_theta=1000000.0, seed=19)),
]


def moved(weights):
    """Gains and biases with other values than 1 and 0; golden_test.c does the same."""
    for x in weights.values():
        if x.ndim == 1:
            i = np.arange(x.size)
            x[:] = (x.astype(np.float64) + ((7 * i + 3) % 11 - 5) * 0.02).astype(np.float32)
    return weights


def run(kind, c):
    first = golden.initial(c, c["seed"])
    digest = golden.hashlib.sha256(b"".join(x.tobytes() for x in first.values())).hexdigest()
    peer = Peer(kind, c)
    peer.load(moved(first))
    optimizer = peer.optimizer(golden.DECAY, **golden.OPTIMIZER)
    tokens, targets, _ = golden.batch(c)
    losses = []
    for step in range(golden.STEPS):
        optimizer.zero_grad()
        loss, out = peer.loss(tokens, targets)
        loss.backward()
        losses.append(loss.item())
        if step == 0:
            logits, gradients = out.detach().double().numpy(), peer.gradients()
        optimizer.step()
    rows = []
    for name, after in peer.weights().items():
        g, a = gradients[name].flatten(), after.flatten()
        at = golden.watched(g.size)
        rows.append((name, float(np.linalg.norm(g)), [float(g[i]) for i in at], [float(a[i]) for i in at],
                     float(np.linalg.norm(a - first[name].astype(np.float64).flatten()))))
    return digest, losses, rows, logits


def main():
    assert torch.__version__.split("+")[0] == "2.15.0" and transformers.__version__ == "5.23.0"
    torch.manual_seed(0)
    print("/* Made by tests/golden/families_golden.py with transformers 5.23.0 and PyTorch 2.15.0. Do not edit. */")
    for n, (kind, c) in enumerate(CASES):
        digest, losses, rows, logits = run(kind, c)
        last = ", ".join(f"{x:.9g}" for x in logits[:, -1].flatten())
        print(f"static const float golden_logits_{n}[] = {{{last}}};")
        golden.emit("golden_family", n, c, digest, losses, rows, f', "{c.get("name", kind)}", golden_logits_{n}')
    print(f"#define GOLDEN_FAMILIES {', '.join(f'&golden_family_{n}' for n in range(len(CASES)))}")


if __name__ == "__main__":
    main()
