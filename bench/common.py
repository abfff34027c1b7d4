"""What benchmarks share: whether the machine was theirs; running Lockstep and its peers as processes, with times and memory.
As a program: common.py COMMAND [ARGUMENT...] runs a benchmark and says whether the machine was its own (status 3: it was not)."""
import glob
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading

HERE = os.path.dirname(os.path.abspath(__file__))


class Machine:
    """with Machine(): a benchmark. At its end a line on stderr says what other guests of the host took (steal) and other
    processes, as shares of the CPU time that there was; above LIMIT together the figures conclude nothing, and the program
    ends with status 3. Like bench_machine.h, and as quiet below another one, which counts our processes as its own."""

    LIMIT, DISTURBED, ABOVE = 0.05, 3, "BENCH_MACHINE"

    @staticmethod
    def now():
        """Seconds of all CPUs: busy, stolen, all; and those of this process and the children it has waited for."""
        with open("/proc/stat") as f:
            user, nice, system, idle, wait, irq, softirq, steal = (int(x) / os.sysconf("SC_CLK_TCK") for x in f.readline().split()[1:9])
        busy = user + nice + system + irq + softirq
        own = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return busy, steal, busy + steal + idle + wait, own

    @classmethod
    def shares(cls, before, after):
        """Steal and others, of 1; None where ticks of 10 ms say nothing."""
        busy, steal, everything, own = (b - a for a, b in zip(before, after))
        return (steal / everything, max(0.0, busy - own) / everything) if everything >= 0.5 else None

    @classmethod
    def verdict(cls, shares):
        """The lines to print, and the exit status."""
        if not shares:
            return "machine: the run is too short to tell who else used it", 0
        line = f"machine: steal {100 * shares[0]:.1f}%, others {100 * shares[1]:.1f}%"
        if sum(shares) <= cls.LIMIT:
            return line, 0
        if os.environ.get("BENCH_ANYWAY") == "1":
            return line + "\ndisturbed, and BENCH_ANYWAY=1", 0
        return (line + f"\ndisturbed: no conclusion (limit {100 * cls.LIMIT:.0f}%); run again on an idle machine, or with "
                "BENCH_ANYWAY=1"), cls.DISTURBED

    def __enter__(self):
        self.quiet = self.ABOVE in os.environ
        os.environ[self.ABOVE] = "yes"
        self.before = self.now()
        return self

    def __exit__(self, kind, *_):
        if self.quiet:
            return
        del os.environ[self.ABOVE]
        if kind:  # it failed, which says more
            return
        text, status = self.verdict(self.shares(self.before, self.now()))
        sys.stdout.flush()
        print(text, file=sys.stderr)
        if status:
            sys.exit(status)


def field(path, name):
    """A field in kB of a file in /proc, as MB; 0 when the process has just ended or is not ours."""
    try:
        with open(path) as f:
            return next((int(line.split()[1]) / 1024 for line in f if line.startswith(name)), 0)
    except OSError:
        return 0


def descendants(pid):
    """A process and all that it has started, directly or not."""
    found = [pid]
    for one in found:
        for path in glob.glob(f"/proc/{one}/task/*/children"):
            try:
                with open(path) as f:
                    found += map(int, f.read().split())
            except OSError:
                pass
    return found


class Memory(threading.Thread):
    """Peaks in MB of the largest of a job's processes: resident memory, which counts shared pages in every process that has
    touched them, and proportional memory, which shares them out. Asking twice a second costs well below 1% of a step."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.resident, self.proportional, self.over = pid, 0, 0, threading.Event()
        self.start()

    def run(self):
        while not self.over.wait(0.5):
            for one in descendants(self.pid):
                resident = field(f"/proc/{one}/status", "VmHWM:")
                self.resident = max(self.resident, resident)
                if resident > 200:
                    self.proportional = max(self.proportional, field(f"/proc/{one}/smaps_rollup", "Pss:"))


def run(command, **kw):
    """Output of a job, and its Memory."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, **kw)
        memory = Memory(process.pid)
        out = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        memory.over.set()
        memory.join()
        memory.resident = max(memory.resident, usage.ru_maxrss / 1024)
        if status:
            errors.seek(0)
            sys.exit(f"{command[0]} failed: {errors.read()[-2000:]}")
        return out, memory


def seconds_of(out):
    return [float(line) for line in out.split()]


class Bench:
    """Lockstep with a dataset of its own (the King James Bible) in a temporary store."""

    def __init__(self, lockstep, store):
        self.lockstep, self.store = os.path.abspath(lockstep), store
        text = os.path.join(store, "text.txt")
        with open(text, "w") as f:
            subprocess.run(["bible", "gen1:1-rev22:21"], stdout=f, check=True)
        self.run("tokenizer", "train", text, "--vocab", "4096", "--name", "bench")
        self.run("dataset", "build", "bench", text, "--tokenizer", "bench")
        self.config = os.path.join(store, "bench.ini")
        with open(self.config, "w") as f:
            f.write("[data]\ndataset=bench\n[model]\nfamily=gpt2\n[eval]\nevery=0\n[checkpoint]\nevery=0\n")

    def run(self, *arguments, **kw):
        return run([self.lockstep, *arguments, "--store", self.store], **kw)

    def train(self, sequences, context, model, steps, *options):
        """Seconds of each step after two to warm up, and Memory. The run is removed again."""
        keys = [f"model.{k}={v}" for k, v in model.items()] + [f"model.context={context}", f"batch.sequences={sequences}"]
        _, memory = self.run("train", self.config, "run.name=bench", f"run.steps={steps + 2}", *keys, *options)
        log, _ = self.run("runs", "log", "bench", "--json")
        self.run("runs", "rm", "bench")
        self.run("gc", "--grace", "0")
        return [json.loads(line)["seconds"] for line in log.splitlines()][2:], memory


def peer(script, *arguments):
    """Seconds of each step of a peer in this folder, run by the Python that runs us, and Memory."""
    out, memory = run([sys.executable, os.path.join(HERE, script), *map(str, arguments)])
    return seconds_of(out), memory


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: common.py COMMAND [ARGUMENT...]")
    with Machine():
        ended = subprocess.run(sys.argv[1:]).returncode
        if ended:
            sys.exit(ended if ended > 0 else 128 - ended)
