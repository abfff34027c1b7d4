#!/usr/bin/env python3
"""Golden values for src/model/golden_test.c, from PyTorch 2.15.0: python3 tests/golden/model_golden.py > tests/golden/model_golden.h

Both families written here from docs/numerics.md: Philox, initial weights, tensors in canonical order with numpy; the models as
plain functions of a dictionary of tensors with torch. tests/peers/model_peers.py uses the same functions.
"""
import hashlib
import math

import numpy as np
import torch
import torch.nn.functional as F

# --- docs/numerics.md, section 10 -----------------------------------------------------------------------------------------


def philox(counter, key):
    """Philox4x32-10 on arrays of 4 counter words and 2 key words."""
    m32 = np.uint64(0xFFFFFFFF)
    c = [np.asarray(x, dtype=np.uint64) for x in counter]
    k0, k1 = key
    for _ in range(10):
        a, b = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(b >> np.uint64(32)) ^ c[1] ^ np.uint64(k0), b & m32, (a >> np.uint64(32)) ^ c[3] ^ np.uint64(k1), a & m32]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c


def random_words(seed, purpose, step, sample, layer, element):
    key = (seed & 0xFFFFFFFF, (seed >> 32) ^ (purpose << 24))
    shape = np.broadcast(np.asarray(step), np.asarray(sample), np.asarray(layer), np.asarray(element)).shape
    return philox([np.broadcast_to(x, shape) for x in (element, layer, sample, step)], key)


def random_word(seed, purpose, step, sample, layer, element):
    """Word 0 for one counter, on Python's integers."""
    c0, c1, c2, c3, k0, k1 = element, layer, sample, step, seed & 0xFFFFFFFF, (seed >> 32) ^ (purpose << 24)
    for _ in range(10):
        a, b = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (b >> 32) ^ c1 ^ k0, b & 0xFFFFFFFF, (a >> 32) ^ c3 ^ k1, a & 0xFFFFFFFF
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0


def permute(seed, epoch, n, index):
    """Sample order: a Feistel network of four rounds, cycles walked until they are in range (src/base/README.md)."""
    bits = 2
    while (1 << bits) < n:
        bits += 2
    half = bits // 2
    mask, x = (1 << half) - 1, index
    while True:
        left, right = x >> half, x & mask
        for r in range(4):
            left, right = right, left ^ (random_word(seed, 2, epoch, r, 0, right) & mask)
        x = left << half | right
        if x < n:
            return x


def cos_turns(u):
    """cos(2 pi u), the argument brought into an eighth of a turn exactly."""
    f = np.where(u > 0.5, 1 - u, u)
    tau = 2 * math.pi
    return np.where(f <= 0.125, np.cos(tau * f), np.where(f < 0.375, np.sin(tau * (0.25 - f)), -np.cos(tau * (0.5 - f))))


def initial_tensor(seed, index, shape, deviation, constant):
    count = int(np.prod(shape))
    if deviation == 0:
        return np.full(shape, constant, dtype=np.float32)
    w = random_words(seed, 1, 0, 0, index, np.arange(count))
    eleven, twentyone = np.uint64(11), np.uint64(21)
    u1 = (((w[0] << twentyone) | (w[1] >> eleven)) + np.uint64(1)).astype(np.float64) * 2.0**-53
    u2 = ((w[2] << twentyone) | (w[3] >> eleven)).astype(np.float64) * 2.0**-53
    z = np.sqrt(-2 * np.log(u1)) * cos_turns(u2)
    return (z * deviation).astype(np.float32).reshape(shape)


# --- Tensors in canonical order --------------------------------------------------------------------------------------------


def tensors(c):
    """[(name, shape, deviation, constant)]"""
    std, out = c["init_std"], c["init_std"] / math.sqrt(2.0 * c["layers"])
    width, ffn, q, kv = c["width"], c["ffn"], c["heads"] * c["head_dim"], c["kv_heads"] * c["head_dim"]
    t = []
    if c["family"] == "llama":
        t.append(("model.embed_tokens.weight", (c["vocab"], width), std, 0))
        for i in range(c["layers"]):
            p = f"model.layers.{i}."
            t += [(p + "input_layernorm.weight", (width,), 0, 1)]
            for n, rows in (("q", q), ("k", kv), ("v", kv)):
                t += [(p + f"self_attn.{n}_proj.weight", (rows, width), std, 0)]
                t += [(p + f"self_attn.{n}_proj.bias", (rows,), 0, 0)] if c.get("qkv_bias") else []
            if c.get("qk_norm"):
                t += [(p + f"self_attn.{n}_norm.weight", (c["head_dim"],), 0, 1) for n in "qk"]
            t += [(p + "self_attn.o_proj.weight", (width, q), out, 0), (p + "post_attention_layernorm.weight", (width,), 0, 1),
                  (p + "mlp.gate_proj.weight", (ffn, width), std, 0), (p + "mlp.up_proj.weight", (ffn, width), std, 0),
                  (p + "mlp.down_proj.weight", (width, ffn), out, 0)]
        t.append(("model.norm.weight", (width,), 0, 1))
    else:
        t += [("wte.weight", (c["vocab"], width), std, 0), ("wpe.weight", (c["context"], width), std, 0)]
        for i in range(c["layers"]):
            p = f"h.{i}."
            t += [(p + "ln_1.weight", (width,), 0, 1), (p + "ln_1.bias", (width,), 0, 0),
                  (p + "attn.c_attn.weight", (3 * width, width), std, 0), (p + "attn.c_attn.bias", (3 * width,), 0, 0),
                  (p + "attn.c_proj.weight", (width, width), out, 0), (p + "attn.c_proj.bias", (width,), 0, 0),
                  (p + "ln_2.weight", (width,), 0, 1), (p + "ln_2.bias", (width,), 0, 0),
                  (p + "mlp.c_fc.weight", (ffn, width), std, 0), (p + "mlp.c_fc.bias", (ffn,), 0, 0),
                  (p + "mlp.c_proj.weight", (width, ffn), out, 0), (p + "mlp.c_proj.bias", (width,), 0, 0)]
        t += [("ln_f.weight", (width,), 0, 1), ("ln_f.bias", (width,), 0, 0)]
    if not c["tied"]:
        t.append(("lm_head.weight", (c["vocab"], width), std, 0))
    return t


def initial(c, seed):
    return {name: initial_tensor(seed, i, shape, dev, const) for i, (name, shape, dev, const) in enumerate(tensors(c))}


# --- The models ------------------------------------------------------------------------------------------------------------


def attention(q, k, v, start):
    """q: (B, heads, T, d); k, v: (B, kv_heads, T, d); start: (B, T) first visible key of each position, or None."""
    t = torch.arange(q.shape[2])
    mask = t[None, None, :] <= t[None, :, None]
    if start is not None:
        mask = mask & (t[None, None, :] >= start[:, :, None])
    group = q.shape[1] // k.shape[1]
    return F.scaled_dot_product_attention(q, k.repeat_interleave(group, 1), v.repeat_interleave(group, 1), attn_mask=mask[:, None])


def rotate(x, theta):
    """Hugging Face's rotate-half: pairs (i, i + d/2)."""
    d = x.shape[-1]
    inv = 1.0 / theta ** (torch.arange(0, d, 2, dtype=x.dtype) / d)
    angle = torch.arange(x.shape[2], dtype=x.dtype)[:, None] * inv
    cos, sin = torch.cos(angle), torch.sin(angle)
    a, b = x[..., : d // 2], x[..., d // 2 :]
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def heads_of(x, d):
    return x.view(x.shape[0], x.shape[1], -1, d).transpose(1, 2)


def merge(x):
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)


def llama(c, w, tokens, start):
    x, d, eps = w["model.embed_tokens.weight"][tokens], c["head_dim"], c["norm_epsilon"]
    norm = lambda x, g: F.rms_norm(x, (x.shape[-1],), w[g], eps)
    for i in range(c["layers"]):
        p = f"model.layers.{i}."
        h = norm(x, p + "input_layernorm.weight")
        q, k, v = (heads_of(h @ w[p + f"self_attn.{n}_proj.weight"].T, d) for n in "qkv")
        o = attention(rotate(q, c["rope_theta"]), rotate(k, c["rope_theta"]), v, start)
        x = x + merge(o) @ w[p + "self_attn.o_proj.weight"].T
        h = norm(x, p + "post_attention_layernorm.weight")
        h = F.silu(h @ w[p + "mlp.gate_proj.weight"].T) * (h @ w[p + "mlp.up_proj.weight"].T)
        x = x + h @ w[p + "mlp.down_proj.weight"].T
    return norm(x, "model.norm.weight") @ (w["model.embed_tokens.weight"] if c["tied"] else w["lm_head.weight"]).T


def gpt2(c, w, tokens, start):
    x, eps = w["wte.weight"][tokens] + w["wpe.weight"][: tokens.shape[1]], c["norm_epsilon"]
    norm = lambda x, p: F.layer_norm(x, (x.shape[-1],), w[p + ".weight"], w[p + ".bias"], eps)
    linear = lambda x, p: F.linear(x, w[p + ".weight"], w[p + ".bias"])
    for i in range(c["layers"]):
        p = f"h.{i}."
        q, k, v = (heads_of(y, c["head_dim"]) for y in linear(norm(x, p + "ln_1"), p + "attn.c_attn").split(c["width"], -1))
        x = x + linear(merge(attention(q, k, v, start)), p + "attn.c_proj")
        x = x + linear(F.gelu(linear(norm(x, p + "ln_2"), p + "mlp.c_fc"), approximate="tanh"), p + "mlp.c_proj")
    return norm(x, "ln_f") @ (w["wte.weight"] if c["tied"] else w["lm_head.weight"]).T


def loss_of(c, w, tokens, targets, start=None):
    """Mean over the targets that are not masked (masked: -100)."""
    logits = (llama if c["family"] == "llama" else gpt2)(c, w, tokens, start)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)


def groups(w, decay):
    """Parameter groups of AdamW: tensors of two dimensions decay, gains and biases do not."""
    return [{"params": [x for x in w.values() if x.dim() == 2], "weight_decay": decay},
            {"params": [x for x in w.values() if x.dim() == 1], "weight_decay": 0.0}]


# --- Golden values ---------------------------------------------------------------------------------------------------------

VARIANTS = ("qkv_bias", "qk_norm", "window", "rope_factor", "rope_low", "rope_high", "rope_original")
CASES = [
    dict(family="llama", layers=2, width=20, heads=4, kv_heads=2, head_dim=6, ffn=27, context=19, vocab=37, tied=True,
         norm_epsilon=1e-5, rope_theta=10000.0, init_std=0.25, documents=True, seed=7),
    dict(family="llama", layers=1, width=15, heads=3, kv_heads=1, head_dim=8, ffn=32, context=11, vocab=29, tied=False,
         norm_epsilon=1e-6, rope_theta=500000.0, init_std=0.2, documents=False, seed=(3 << 32) + 5),
    dict(family="gpt2", layers=2, width=21, heads=3, kv_heads=3, head_dim=7, ffn=40, context=13, vocab=31, tied=True,
         norm_epsilon=1e-5, rope_theta=0.0, init_std=0.25, documents=True, seed=9),
]
SEQUENCES, STEPS = 3, 3
OPTIMIZER = dict(lr=3e-3, betas=(0.9, 0.95), eps=1e-3)  # a large epsilon: tiny gradients must not become signs
DECAY = 0.1


def batch(c):
    i = np.arange(SEQUENCES * c["context"])
    tokens, targets = (7 * i * i + 3 * i + 1) % c["vocab"], (5 * i * i + i + 2) % c["vocab"]
    targets[i % 6 == 4] = -100
    shape = (SEQUENCES, c["context"])
    start = i % c["context"] // 5 * 5 if c["documents"] else None
    return [None if x is None else torch.from_numpy(x.reshape(shape)) for x in (tokens, targets, start)]


def watched(count):
    return [0, count // 2, count - 1]


def run(c):
    torch.manual_seed(0)
    first = initial(c, c["seed"])
    digest = hashlib.sha256(b"".join(x.tobytes() for x in first.values())).hexdigest()
    w = {k: torch.from_numpy(x.astype(np.float64)).requires_grad_() for k, x in first.items()}
    optimizer = torch.optim.AdamW(groups(w, DECAY), **OPTIMIZER)
    tokens, targets, start = batch(c)
    losses, gradients = [], None
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(c, w, tokens, targets, start)
        loss.backward()
        losses.append(loss.item())
        if gradients is None:
            gradients = {k: x.grad.clone() for k, x in w.items()}
        optimizer.step()
    rows = []
    for name, x in w.items():
        g, after = gradients[name].flatten(), x.detach().flatten()
        at = watched(g.numel())
        rows.append((name, g.norm().item(), [g[i].item() for i in at], [after[i].item() for i in at],
                     (after - torch.from_numpy(first[name].astype(np.float64)).flatten()).norm().item()))
    return digest, losses, rows


def emit(prefix, n, c, digest, losses, rows, more=""):
    """One case as C: an array of tensors, then the struct."""
    print(f"static const struct golden_tensor {prefix}_tensors_{n}[] = {{")
    for name, norm, g, w, change in rows:
        print(f'    {{"{name}", {norm!r}, {{{", ".join(map(repr, g))}}},')
        print(f'     {{{", ".join(map(repr, w))}}}, {change!r}}},')
    print("};")
    family = "LK_LLAMA" if c["family"] == "llama" else "LK_GPT2"
    sizes = ", ".join(str(c[k]) for k in ("layers", "width", "heads", "kv_heads", "head_dim", "ffn", "context", "vocab"))
    later = "".join(f", .{k} = {str(c[k]).lower()}" for k in VARIANTS if c.get(k))
    print(f"static const struct golden {prefix}_{n} = {{")
    print(f"    {{{family}, {sizes}, {str(c['tied']).lower()}, {c['norm_epsilon']!r}, {c['rope_theta']!r}, {c['init_std']!r}{later}}},")
    print(f"    {c['seed']}u, {str(c['documents']).lower()}, \"{digest}\",")
    print(f"    {{{', '.join(map(repr, losses))}}}, {len(rows)}, {prefix}_tensors_{n}{more}}};")


def main():
    assert torch.__version__.split("+")[0] == "2.15.0", torch.__version__
    print("/* Made by tests/golden/model_golden.py with PyTorch 2.15.0 in double precision. Do not edit. */")
    for n, c in enumerate(CASES):
        emit("golden", n, c, *run(c))


if __name__ == "__main__":
    main()
