"""llama.cpp as llama-server computes: several sequences in one batch, prompts in ubatches of 512; on the llama of
bench/decode.sh with a context of 8,192. The lines of batch_bench: KEY VALUE. Needs llama-cpp-python, gguf, numpy.
    python peer_llama_batch.py THREADS"""
import ctypes
import os
import sys
import tempfile
import time

import llama_cpp
import numpy as np
import peer_llama

peer_llama.CONTEXT = 8192
VOCAB, ROUNDS = peer_llama.VOCAB, 3


def main():
    threads = int(sys.argv[1])
    llama_cpp.llama_backend_init()
    silent = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(silent, None)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "peer.gguf")
        peer_llama.write(path)
        params = llama_cpp.llama_model_default_params()
        params.use_mmap = False
        model = llama_cpp.llama_model_load_from_file(peer_llama.fewer_bits(path).encode(), params)
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx, settings.n_batch, settings.n_ubatch, settings.n_seq_max = 3 * 8192, 4096, 512, 32
    settings.n_threads = settings.n_threads_batch = threads
    settings.type_k = settings.type_v = 0
    settings.kv_unified = True
    context = llama_cpp.llama_init_from_model(model, settings)
    memory = llama_cpp.llama_get_memory(context)
    batch = llama_cpp.llama_batch_init(4096, 0, 32)
    random = np.random.default_rng(3)

    def decode(tokens):  # [(id, position, sequence, wants logits)]
        batch.n_tokens = len(tokens)
        for i, (token, position, sequence, wants) in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, position, 1, wants
            batch.seq_id[i][0] = sequence
        if llama_cpp.llama_decode(context, batch):
            sys.exit("llama_decode failed")
        out = []
        for i, t in enumerate(tokens):
            if t[3]:
                row = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, i), shape=(VOCAB,))
                out.append(int(row.argmax()))
        return out

    def read(ids, sequence=0):
        for at in range(0, len(ids), 512):
            part = ids[at:at + 512]
            out = decode([(int(t), at + i, sequence, at + i == len(ids) - 1) for i, t in enumerate(part)])
        return out[0]

    for n in (1, 2, 4, 8, 16, 32):
        rates = []
        steps = 40 if n > 8 else 60
        for _ in range(ROUNDS):
            llama_cpp.llama_memory_clear(memory, True)
            last = [read(random.integers(0, VOCAB, 16), s) for s in range(n)]
            began = time.perf_counter()
            for step in range(steps - 1):
                last = decode([(last[s], 16 + step, s, 1) for s in range(n)])
            rates.append(n * (steps - 1) / (time.perf_counter() - began))
        print(f"decode_{n}", sorted(rates)[ROUNDS // 2], flush=True)
    for n in (512, 2000, 4096):
        rates = []
        for _ in range(ROUNDS):
            llama_cpp.llama_memory_clear(memory, True)
            ids = random.integers(0, VOCAB, n)
            began = time.perf_counter()
            read(ids)
            rates.append(n / (time.perf_counter() - began))
        print(f"prefill_{n}", sorted(rates)[ROUNDS // 2], flush=True)
    # seven sequences are drawn while prompts of 512 come, one after another; a prompt goes into the next batch as a whole
    llama_cpp.llama_memory_clear(memory, True)
    last = [read(random.integers(0, VOCAB, 16), s) for s in range(7)]
    at, first, worst, told = 16, [], 0, time.perf_counter()
    for _ in range(12):
        llama_cpp.llama_memory_seq_rm(memory, 7, -1, -1)
        ids = random.integers(0, VOCAB, 512)
        began = time.perf_counter()
        out = decode([(last[s], at, s, 1) for s in range(7)] + [(int(t), i, 7, i == 511) for i, t in enumerate(ids)])
        at, last, mine = at + 1, out[:7], out[7]
        first.append(time.perf_counter() - began)
        worst = max(worst, time.perf_counter() - told)
        told = time.perf_counter()
        for step in range(15):
            out = decode([(last[s], at, s, 1) for s in range(7)] + [(mine, 512 + step, 7, 1)])
            at, last, mine = at + 1, out[:7], out[7]
            worst = max(worst, time.perf_counter() - told)
            told = time.perf_counter()
    print("first_token_p50", sorted(first)[6])
    print("first_token_worst", max(first))
    print("between_tokens_worst", worst)


if __name__ == "__main__":
    main()
