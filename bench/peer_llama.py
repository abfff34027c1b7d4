"""llama.cpp on the llama of bench/decode.sh (random weights, float32): seconds of each token drawn, then of each prompt read.
Needs llama-cpp-python, gguf and numpy:  python peer_llama.py THREADS TOKENS PROMPT"""
import ctypes
import os
import sys
import tempfile
import time

import gguf
import llama_cpp
import numpy as np

LAYERS, WIDTH, HEADS, KV_HEADS, FFN, CONTEXT, VOCAB = 12, 768, 12, 4, 2048, 1024, 50304


def write(path):
    random = np.random.default_rng(1)
    w = gguf.GGUFWriter(path, "llama")
    w.add_context_length(CONTEXT)
    w.add_embedding_length(WIDTH)
    w.add_block_count(LAYERS)
    w.add_feed_forward_length(FFN)
    w.add_head_count(HEADS)
    w.add_head_count_kv(KV_HEADS)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_dimension_count(WIDTH // HEADS)
    w.add_vocab_size(VOCAB)
    w.add_file_type(0)
    w.add_tokenizer_model("no_vocab")

    def matrix(name, rows, columns):
        w.add_tensor(name, random.standard_normal((rows, columns), dtype=np.float32) * np.float32(0.02))

    def gain(name):
        w.add_tensor(name, np.ones(WIDTH, dtype=np.float32))
    matrix("token_embd.weight", VOCAB, WIDTH)
    for i in range(LAYERS):
        gain(f"blk.{i}.attn_norm.weight")
        matrix(f"blk.{i}.attn_q.weight", WIDTH, WIDTH)
        matrix(f"blk.{i}.attn_k.weight", WIDTH * KV_HEADS // HEADS, WIDTH)
        matrix(f"blk.{i}.attn_v.weight", WIDTH * KV_HEADS // HEADS, WIDTH)
        matrix(f"blk.{i}.attn_output.weight", WIDTH, WIDTH)
        gain(f"blk.{i}.ffn_norm.weight")
        matrix(f"blk.{i}.ffn_gate.weight", FFN, WIDTH)
        matrix(f"blk.{i}.ffn_up.weight", FFN, WIDTH)
        matrix(f"blk.{i}.ffn_down.weight", WIDTH, FFN)
    gain("output_norm.weight")
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def fewer_bits(path):
    """The file that is read: in fewer bits, where BENCH_DTYPE says so (q8, q4, bf16), the embedding of q4 in q8."""
    kind = {"q8": 7, "q4": 2, "bf16": 32}.get(os.environ.get("BENCH_DTYPE", ""))
    if kind is None:
        return path
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = kind
    if kind == 2:
        params.token_embedding_type = params.output_tensor_type = 8
    if llama_cpp.llama_model_quantize(path.encode(), (path + ".less").encode(), ctypes.byref(params)):
        sys.exit("llama_model_quantize failed")
    return path + ".less"


def main():
    threads, tokens, prompt = map(int, sys.argv[1:4])
    llama_cpp.llama_backend_init()
    silent = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(silent, None)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "peer.gguf")
        write(path)
        params = llama_cpp.llama_model_default_params()
        params.use_mmap = False
        model = llama_cpp.llama_model_load_from_file(fewer_bits(path).encode(), params)
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx, settings.n_batch, settings.n_ubatch = CONTEXT, max(prompt, 1), 512
    settings.n_threads = settings.n_threads_batch = threads
    settings.type_k = settings.type_v = 0
    context = llama_cpp.llama_init_from_model(model, settings)
    memory = llama_cpp.llama_get_memory(context)

    def decode(ids):
        array = (llama_cpp.llama_token * len(ids))(*ids)
        began = time.perf_counter()
        if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(array, len(ids))):
            sys.exit("llama_decode failed")
        logits = llama_cpp.llama_get_logits_ith(context, -1)
        row = np.ctypeslib.as_array(logits, shape=(VOCAB,))
        return time.perf_counter() - began, int(row.argmax())
    seconds = []
    token = 1
    for _ in range(tokens):
        took, token = decode([token])
        seconds.append(took)
    print("decode", *seconds[2:])
    seconds = []
    for _ in range(4):
        llama_cpp.llama_memory_clear(memory, True)
        seconds.append(decode([(7 * i) % VOCAB for i in range(prompt)])[0])
    print("prefill", *seconds[1:])


if __name__ == "__main__":
    main()
