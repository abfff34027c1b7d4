#!/usr/bin/env python3
"""dataset_peers.py LOCKSTEP: exported datasets through numpy itself, and through Megatron-LM's way of mapping an index."""
import json, os, subprocess, sys, tempfile
import numpy as np

lockstep = os.path.abspath(sys.argv[1])


def run(*args):
    return subprocess.run([lockstep, *args], check=True, capture_output=True, text=True, env={**os.environ, "LOCKSTEP_STORE": "store"}).stdout


def main():
    texts = [f"document {i}, of {i * i} words " + "and more " * (i % 50) for i in range(300)]
    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)
        with open("text.jsonl", "w") as f:
            for t in texts:
                f.write(json.dumps({"prompt": t[:9], "response": t[9:]}) + "\n")
        with open("text.txt", "w") as f:
            f.write("\n".join(texts))
        run("tokenizer", "train", "text.txt", "--vocab", "400", "--name", "t")
        run("dataset", "build", "d", "text.jsonl", "--tokenizer", "t", "--holdout", "0.1", "--holdout-by", "tail")
        end = json.loads(run("tokenizer", "show", "t", "--json"))["end"]
        run("dataset", "export", "d", "npy", "--format", "npy")
        run("dataset", "export", "d", "megatron", "--format", "megatron", "--without-masks")
        run("dataset", "export", "d", "llmc", "--format", "llmc", "--without-masks")
        for split, name in (("train", "train"), ("val", "held_out")):
            about = json.loads(run("dataset", "show", "d", "--json"))[name]
            tokens = np.load(f"npy/d_{split}.npy", mmap_mode="r")
            ends = np.load(f"npy/d_{split}_ends.npy")
            mask = np.load(f"npy/d_{split}_loss_mask.npy")
            assert tokens.dtype == np.uint16 and mask.dtype == bool and ends.dtype == np.uint64
            assert tokens.shape == mask.shape == (about["tokens"],) and len(ends) == about["documents"]
            assert (np.flatnonzero(tokens == end)[1:] == ends).all() and not mask.all() and mask[ends].all()
            index = f"megatron/d_{split}.idx"
            head = np.fromfile(index, np.uint8, 34)
            assert head[:9].tobytes() == b"MMIDIDX\0\0" and head[17] == 8
            count, documents = np.frombuffer(head[18:].tobytes(), np.int64)
            mapped = memoryview(np.memmap(index, mode="r", order="C"))
            lengths = np.frombuffer(mapped, np.int32, count, 34)
            pointers = np.frombuffer(mapped, np.int64, count, 34 + lengths.nbytes)
            numbers = np.frombuffer(mapped, np.int64, documents, 34 + lengths.nbytes + pointers.nbytes)
            stream = np.memmap(f"megatron/d_{split}.bin", dtype=np.uint16, mode="r")
            assert (stream == tokens[1:]).all() and (numbers == np.arange(count + 1)).all()
            for i in range(count):
                document = np.frombuffer(stream, np.uint16, lengths[i], pointers[i])
                assert (document == tokens[(ends[i - 1] if i else 0) + np.uint64(1) : ends[i] + np.uint64(1)]).all()
            header = np.fromfile(f"llmc/d_{split}_000000.bin", np.int32, 256)
            assert header[:3].tolist() == [20240520, 1, about["tokens"] - 1]
            assert (np.fromfile(f"llmc/d_{split}_000000.bin", np.uint16, offset=1024) == tokens[:-1]).all()
            print(f"ok - {split}: {len(tokens)} tokens of {len(ends)} documents, numpy, Megatron and llm.c alike")


main()
