"""The same random model twice, float32: a Hugging Face folder for `lockstep model import`, a GGUF for llama-server.
The llama of 135M has the shape of SmolLM2-135M and 50,304 rows; llama is that of bench/decode.sh (114M), llama1b has
the shape of TinyLlama-1.1B (1.07B with one table; 13 GB of disk).
    python serve_model.py LOCKSTEP FOLDER [llama135|llama|llama1b]   (needs numpy and gguf) writes hf/, model.gguf and a store
Its tokenizer is learned from words of random letters; the last norm makes logits that differ as a trained model's do."""
import json
import os
import random
import string
import struct
import subprocess
import sys

import numpy as np

SHAPES = {"llama135": dict(layers=30, width=576, heads=9, kv=3, hidden=1536),
          "llama": dict(layers=12, width=768, heads=12, kv=4, hidden=2048),
          "llama1b": dict(layers=22, width=2048, heads=32, kv=4, hidden=5632)}
CONTEXT, ROWS, IDS = 8192, 50304, 50257


def tensors(layers, width, heads, kv, hidden):
    """(our name, GGUF's name, array): Q and K stand as GGUF has them, which pairs neighbours."""
    chance = np.random.default_rng(1)

    def matrix(rows, columns):
        return chance.standard_normal((rows, columns), dtype=np.float32) * np.float32(0.02)

    def halves(w, n):  # from pairs of neighbours to pairs of halves
        return w.reshape(n, -1, 2, width).swapaxes(1, 2).reshape(w.shape)
    ones = np.ones(width, dtype=np.float32)
    table = matrix(ROWS, width)
    yield "model.embed_tokens.weight", "token_embd.weight", table, table
    for i in range(layers):
        ours, theirs = f"model.layers.{i}.", f"blk.{i}."
        for name, other in ("input_layernorm", "attn_norm"), ("post_attention_layernorm", "ffn_norm"):
            yield ours + name + ".weight", theirs + other + ".weight", ones, ones
        for name, other, n in ("q", "attn_q", heads), ("k", "attn_k", kv):
            w = matrix(width * n // heads, width)
            yield f"{ours}self_attn.{name}_proj.weight", f"{theirs}{other}.weight", halves(w, n), w
        for name, other, rows, columns in (("self_attn.v_proj", "attn_v", width * kv // heads, width),
                                           ("self_attn.o_proj", "attn_output", width, width),
                                           ("mlp.gate_proj", "ffn_gate", hidden, width),
                                           ("mlp.up_proj", "ffn_up", hidden, width),
                                           ("mlp.down_proj", "ffn_down", width, hidden)):
            w = matrix(rows, columns)
            yield f"{ours}{name}.weight", f"{theirs}{other}.weight", w, w
    yield "model.norm.weight", "output_norm.weight", ones * 6, ones * 6


def write_folder(folder, shape, all_tensors):
    os.makedirs(folder, exist_ok=True)
    config = dict(architectures=["LlamaForCausalLM"], model_type="llama", num_hidden_layers=shape["layers"],
                  hidden_size=shape["width"], num_attention_heads=shape["heads"], num_key_value_heads=shape["kv"],
                  intermediate_size=shape["hidden"], max_position_embeddings=CONTEXT, vocab_size=ROWS, rms_norm_eps=1e-5,
                  rope_theta=10000.0, tie_word_embeddings=True, hidden_act="silu", torch_dtype="float32")
    with open(f"{folder}/config.json", "w") as f:
        json.dump(config, f)
    header, at = {}, 0
    for name, _, w, _ in all_tensors:
        header[name] = dict(dtype="F32", shape=list(w.shape), data_offsets=[at, at + w.nbytes])
        at += w.nbytes
    text = json.dumps(header).encode()
    with open(f"{folder}/model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for _, _, w, _ in all_tensors:
            f.write(np.ascontiguousarray(w).tobytes())


def write_gguf(path, tokenizer, shape, all_tensors):
    import gguf
    with open(tokenizer) as f:
        learned = json.load(f)["model"]
    ids = {i: t for t, i in learned["vocab"].items()}
    merges = [m if isinstance(m, str) else " ".join(m) for m in learned["merges"]]
    w = gguf.GGUFWriter(path, "llama")
    w.add_context_length(CONTEXT)
    w.add_embedding_length(shape["width"])
    w.add_block_count(shape["layers"])
    w.add_feed_forward_length(shape["hidden"])
    w.add_head_count(shape["heads"])
    w.add_head_count_kv(shape["kv"])
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_dimension_count(shape["width"] // shape["heads"])
    w.add_vocab_size(ROWS)
    w.add_file_type(0)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list([ids.get(i, f"[unused{i}]") for i in range(ROWS)])
    w.add_token_types([gguf.TokenType.NORMAL if i in ids else gguf.TokenType.UNUSED for i in range(ROWS)])
    w.add_token_merges(merges)
    w.add_eos_token_id(IDS - 1)
    w.add_bos_token_id(IDS - 1)
    w.add_add_bos_token(False)
    for _, name, _, data in all_tensors:
        w.add_tensor(name, data)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def make(lockstep, folder, name="llama135", peer=True):
    """Names: the model and its tokenizer are `random` in FOLDER/store."""
    shape, store = SHAPES[name], ["--store", f"file:{folder}/store"]
    chance = random.Random(1)
    words = ("".join(chance.choices(string.ascii_lowercase, k=chance.randint(2, 9))) for _ in range(400000))
    os.makedirs(f"{folder}/hf", exist_ok=True)
    with open(f"{folder}/words.txt", "w") as f:
        f.write(" ".join(words))

    def run(*arguments):
        subprocess.run([lockstep, *arguments, *store], check=True, stdout=subprocess.DEVNULL)
    run("tokenizer", "train", f"{folder}/words.txt", "--vocab", str(IDS), "--name", "random")
    run("tokenizer", "export", "random", f"{folder}/hf/tokenizer.json")
    all_tensors = list(tensors(**shape))
    write_folder(f"{folder}/hf", shape, all_tensors)
    run("model", "import", f"{folder}/hf", "--name", "random")
    if peer:
        write_gguf(f"{folder}/model.gguf", f"{folder}/hf/tokenizer.json", shape, all_tensors)


if __name__ == "__main__":
    make(*sys.argv[1:])
