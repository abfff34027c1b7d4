"""The peer of bench/train_bench.py, and the model of peer_ddp.py: full training steps (forward, backward, clip, AdamW) of a GPT-2 model in PyTorch on CPU.
usage: peer_model.py NAME SEQUENCES CONTEXT STEPS [eager|compile]     prints seconds of each step, one a line"""
import os
import sys
import time

import torch
import torch._inductor.config
import torch.nn as nn
import torch.nn.functional as F

SHAPES = {"gpt2-124m": dict(vocabulary=50304, width=768, layers=12, heads=12), "gpt2-14m": dict(vocabulary=8192, width=384, layers=6, heads=6)}


class Layer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_ffn = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention_in, self.attention_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.ffn_in, self.ffn_out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        batch, time_, width = x.shape
        split = lambda t: t.reshape(batch, time_, self.heads, width // self.heads).transpose(1, 2)
        query, key, value = map(split, self.attention_in(self.before_attention(x)).chunk(3, dim=2))
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.attention_out(mixed.transpose(1, 2).reshape(batch, time_, width))
        return x + self.ffn_out(F.gelu(self.ffn_in(self.before_ffn(x)), approximate="tanh"))


class Model(nn.Module):
    def __init__(self, context, vocabulary, width, layers, heads):
        super().__init__()
        self.token, self.place = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.layers = nn.ModuleList([Layer(width, heads) for _ in range(layers)])
        self.last = nn.LayerNorm(width)
        self.apply(lambda m: nn.init.normal_(m.weight, std=0.02) if isinstance(m, (nn.Linear, nn.Embedding)) else None)

    def forward(self, x, y):
        h = self.token(x) + self.place.weight[: x.shape[1]]
        for layer in self.layers:
            h = layer(h)
        logits = F.linear(self.last(h), self.token.weight)
        return F.cross_entropy(logits.flatten(0, 1), y.flatten())


def train(model, run, vocabulary, sequences, context, steps):
    """Yields the seconds of each step, after two to warm up (and to compile). run: the model, or what wraps it."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)
    x = torch.randint(0, vocabulary - 100, (sequences, context))
    y = x.roll(-1, 1)
    for step in range(steps + 2):
        began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        run(x, y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step >= 2:
            yield time.perf_counter() - began


if __name__ == "__main__":
    name, sequences, context, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    torch.manual_seed(0)
    model = Model(context=context, **SHAPES[name])
    if os.environ.get("ATEN_CPU_CAPABILITY") == "avx2":
        torch._inductor.config.cpp.simdlen = 256  # what torch.compile writes itself
    run = torch.compile(model) if sys.argv[5:] == ["compile"] else model
    for seconds in train(model, run, SHAPES[name]["vocabulary"], sequences, context, steps):
        print(seconds, flush=True)
