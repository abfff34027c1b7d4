"""The peer of bench/ranks_bench.py: peer_model.py's training steps, the batch shared out among processes by DistributedDataParallel.
usage: peer_ddp.py NAME SEQUENCES CONTEXT STEPS PROCESSES THREADS     prints seconds of each step of process 0, one a line"""
import os
import sys
import tempfile

import torch
import torch.distributed
import torch.multiprocessing
from torch.nn.parallel import DistributedDataParallel

from peer_model import SHAPES, Model, train


def process(rank, meeting, name, sequences, context, steps, processes, threads):
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = run = Model(context=context, **SHAPES[name])
    if processes > 1:
        torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=processes)
        run = DistributedDataParallel(model, gradient_as_bucket_view=True)
    torch.manual_seed(1 + rank)
    for seconds in train(model, run, SHAPES[name]["vocabulary"], sequences // processes, context, steps):
        if rank == 0:
            print(seconds, flush=True)
    if processes > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    name, (sequences, context, steps, processes, threads) = sys.argv[1], map(int, sys.argv[2:])
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # a machine's name need not resolve
    with tempfile.TemporaryDirectory() as folder:
        arguments = (os.path.join(folder, "meeting"), name, sequences, context, steps, processes, threads)
        if processes == 1:
            process(0, *arguments)
        else:
            torch.multiprocessing.spawn(process, arguments, nprocs=processes)
