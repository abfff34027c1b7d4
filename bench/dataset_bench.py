#!/usr/bin/env python3
"""Building a dataset from .jsonl, .jsonl.gz and .jsonl.zst, in turns with the inflaters alone:
    dataset_bench.py LOCKSTEP [--text FILE] [--rounds N] [--threads N]
The text is bench/text.sh's 40 MB in records of about 2,000 bytes, encoded with 32,768 tokens learned from it. Every build is a
process from start to end, its dataset synced to the disk. zlib: Python's, reading the file in pieces of 256 KiB, output thrown
away; zstd: `zstd -dc` to /dev/null. Medians; MB are those of the unpacked .jsonl."""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
import zlib

from common import Machine


def write_records(text, name):
    with open(name, "w", encoding="utf-8", newline="") as out:
        record, size = [], 0
        for line in open(text, encoding="utf-8", newline="\n"):
            record.append(line)
            size += len(line)
            if size > 2000:
                out.write(json.dumps({"text": "".join(record)}, ensure_ascii=False) + "\n")
                record, size = [], 0
        if record:
            out.write(json.dumps({"text": "".join(record)}, ensure_ascii=False) + "\n")


def inflate(name):
    unpacker = zlib.decompressobj(15 + 16)
    with open(name, "rb") as f:
        while data := f.read(1 << 18):
            unpacker.decompress(data)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("lockstep")
    p.add_argument("--text")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    o = p.parse_args()
    here = os.path.dirname(os.path.abspath(__file__))
    lockstep = os.path.abspath(o.lockstep)
    with tempfile.TemporaryDirectory() as work:
        text = o.text
        if not text:
            text = work + "/text"
            subprocess.run([here + "/text.sh", text], check=True)
        lines = work + "/t.jsonl"
        write_records(text, lines)
        subprocess.run(["gzip", "-k", lines], check=True)
        subprocess.run(["zstd", "-q", "-k", lines], check=True)
        size = os.path.getsize(lines)
        env = dict(os.environ, LOCKSTEP_STORE=work + "/store")

        def run(*command):
            subprocess.run([lockstep, *command], env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        run("tokenizer", "train", text, "--vocab", "32768", "--name", "t")
        empty = work + "/empty"
        shutil.copytree(work + "/store", empty)
        works = {}
        for threads in sorted({1, o.threads}):
            for end in ("", ".gz", ".zst"):
                works[f"build .jsonl{end}, threads {threads}"] = lambda end=end, threads=threads: run(
                    "dataset", "build", "d", lines + end, "--tokenizer", "t", "--threads", str(threads))
        works["zlib alone"] = lambda: inflate(lines + ".gz")
        works["zstd -dc alone"] = lambda: subprocess.run(["zstd", "-dc", lines + ".zst"], stdout=subprocess.DEVNULL, check=True)
        times = {name: [] for name in works}
        for _ in range(o.rounds):
            for name, do in works.items():
                shutil.rmtree(work + "/store")
                shutil.copytree(empty, work + "/store")
                begin = time.perf_counter()
                do()
                times[name].append(time.perf_counter() - begin)
        print(f"{size} bytes of .jsonl, {os.path.getsize(lines + '.gz')} as .gz, {os.path.getsize(lines + '.zst')} as .zst")
        for name, seconds in times.items():
            middle = statistics.median(seconds)
            print(f"  {name:28} {middle:7.3f} s {size / middle / 1e6:8.1f} MB/s   best {min(seconds):.3f} s")


if __name__ == "__main__":
    with Machine():
        main()
