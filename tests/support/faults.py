"""What the fault tests share: counts and seeds, a /dev/shm of their own, runs that are watched while
they go on, and the check that a run ended as the unbroken one did.

A script takes its count as its first argument (the nightly test gives a large one). Whatever is
random comes from dice(trial), so that one trial can be repeated: BCOP_TRIAL_SEED=S BCOP_TRIAL=T.
"""
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from program import SOURCE, bcop, command, config, hashes, metrics

SEED = int(os.environ.get("BCOP_TRIAL_SEED", "1"))
SKIP = 77

# When a rank has gone mpirun ends the others, here without its grace of a second or two: they can
# only wait for the lost one.
os.environ["OMPI_MCA_odls_base_sigkill_timeout"] = "0"

# Six steps an epoch and a checkpoint after each: a whole run is about a second.
TINY = {
    "data": "{kind: synthetic, height: 6, width: 6, channels: 3, classes: 4, count: 120, "
            "test_count: 40, holdout: 24, augment: crop_flip, crop_padding: 1}",
    "model": "\n  - conv: {channels: 6, kernel: 3}\n  - maxmin: {}\n  - dense: {units: 12}\n"
             "  - maxmin\n  - dense: {units: 4}",
    "evaluate": "{eps: [36/255, 0.5]}",
    "checkpoint": "{min_seconds: 0.0}",
}


def tiny(name, epochs=2, **sections):
    """A configuration of 6 steps an epoch with a checkpoint after each; see program.config."""
    train = f"{{batch: 16, lanes: 4, epochs: {epochs}, watchdog: 10}}"
    return config(name, **{**TINY, "train": train, **sections})


def count(small):
    """How many trials: the first argument, else the small number of the ordinary tests."""
    return int(sys.argv[1]) if len(sys.argv) > 1 else small


def trials(number):
    """The trials to run, each with its own dice."""
    only = os.environ.get("BCOP_TRIAL")
    for trial in range(number) if only is None else [int(only)]:
        yield trial, dice(trial)


def dice(trial):
    return random.Random(f"{SEED} {trial}")


def all_hold(cases, workers=2):
    """Runs the functions, some at a time (they wait more than they work), and fails with what any
    of them raised."""
    def attempt(case):
        try:
            case()
            return None
        except Exception as error:  # pylint: disable=broad-except
            return str(error) or repr(error)

    with ThreadPoolExecutor(workers) as pool:
        results = list(pool.map(attempt, cases))
    found = [text for text in results if text]
    for text in found[:20]:
        print(text)
    assert not found, f"{len(found)} of {len(results)} failed"


def again(trial):
    return f"repeat with BCOP_TRIAL_SEED={SEED} BCOP_TRIAL={trial}"


def points(kind="", start=""):
    """The fault points of base/fault.h that can do `kind` (f: fail, n: nan) and begin with `start`, as
    (name, whether every rank passes it)."""
    with open(os.path.join(SOURCE, "src", "base", "fault.h"), encoding="utf-8") as file:
        text = file.read()
    table = re.findall(r'X\(\w+, "([a-z.]+)", "([a-z]*)",\s+"([^"]*)"\)', text)
    assert len(table) > 10, "the table in base/fault.h"
    return [(name, "each rank" in when) for name, kinds, when in table
            if kind in kinds and name.startswith(start)]


def with_fault(text):
    """An environment with this fault."""
    return {**os.environ, "BCOP_FAULT": text}


def skip(reason):
    print(f"SKIP: {reason}")
    sys.exit(SKIP)


def alone(*mounts):
    """Starts the script again in a mount namespace with a /dev/shm of its own, so that what stands
    there is what our programs left, and `mounts` can be made. Returns whether that worked."""
    if os.environ.get("BCOP_ALONE"):
        return True
    if not mounts:
        mounts = ("mount -t tmpfs tmpfs /dev/shm",)
    enter = ["unshare", "-m"] if os.getuid() == 0 else ["unshare", "-rm"]
    script = " && ".join(mounts)
    if subprocess.run([*enter, "sh", "-c", script], capture_output=True, check=False).returncode:
        return False
    sys.stdout.flush()
    os.environ["BCOP_ALONE"] = "1"
    os.execvp(enter[0], [*enter, "sh", "-c", f'{script} && exec "$@"', "sh", sys.executable,
                         *sys.argv])


def left_in_memory():
    """What stands in /dev/shm; only telling after alone()."""
    return sorted(os.listdir("/dev/shm"))


def rank_pids(mpirun):
    """The processes of the program below this mpirun."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat", encoding="utf-8") as file:
                parent = int(file.read().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        if parent == mpirun:
            found.append(int(entry))
    return sorted(found)


class Started:
    """A command that goes on while the test watches it; what it says goes to a file."""

    def __init__(self, arguments, name="said", **more):
        with open(name, "w", encoding="utf-8") as out:
            self.process = subprocess.Popen(arguments, stdout=out, stderr=out, stdin=subprocess.DEVNULL,
                                            start_new_session=True, **more)
        self.name = name
        self.began = time.monotonic()

    @property
    def said(self):
        with open(self.name, encoding="utf-8", errors="replace") as file:
            return file.read()

    @property
    def last(self):
        """The end of what it said."""
        return "\n".join(x[:400] for x in self.said.splitlines()[-8:])

    @property
    def errors(self):
        return [x for x in self.said.splitlines() if x.startswith("bcop: error: ")]

    def running(self):
        return self.process.poll() is None

    def until(self, happened, seconds=60):
        """Waits until happened() is true; False when the command ended before."""
        limit = time.monotonic() + seconds
        while not happened():
            if not self.running():
                return False
            assert time.monotonic() < limit, f"nothing happened in {seconds} s:\n{self.last}"
            time.sleep(0.002)
        return True

    def kill(self):
        """Nothing when it has ended."""
        if self.running():
            for pid in [*rank_pids(self.process.pid), self.process.pid]:
                os.kill(pid, signal.SIGKILL)
            self.process.wait()

    def end(self, seconds=60):
        """The exit code. What hangs is ended hard, and is a failure."""
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running after {seconds} s:\n{self.last}") from None


def start(ranks, *arguments, **more):
    return Started(command(ranks, *arguments), **more)


def size(path):
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def steps(run):
    """The steps of the committed checkpoints, the oldest first."""
    names = os.listdir(run) if os.path.isdir(run) else []
    return sorted(int(x[5:]) for x in names if re.fullmatch(r"step-\d{8}", x)
                  and os.path.exists(f"{run}/{x}/MANIFEST.json"))


def step_folder(run, step):
    return os.path.join(run, f"step-{step:08d}")


def writing(run):
    """Whether a checkpoint is being written."""
    names = os.listdir(run) if os.path.isdir(run) else []
    return any(re.search(r"^step-\d{8}\..*tmp|^step-\d{8}\.tmp", x) for x in names)


def whole(path, last, run="whole", ranks=2, *more):
    """The unbroken run."""
    bcop("train", path, "--run", run, "--max-steps", last, *more, ranks=ranks)
    return run


def log_of_steps(run):
    """The lines of the log that every run of the same steps must have, and each exactly once."""
    return [x for x in metrics(run) if x["kind"] in ("train", "eval")]


def same_end(run, other, last, note=""):
    """Both runs hold the same bits and the same log at step `last`."""
    assert hashes(run, last) == hashes(other, last), f"{run}: other bits at step {last}. {note}"
    mine, expected = log_of_steps(run), log_of_steps(other)
    taken = [x["step"] for x in mine if x["kind"] == "train"]
    assert taken == list(range(1, last + 1)), f"{run}: steps {taken} in the log. {note}"
    for line, other_line in zip(mine, expected):
        assert line == other_line, f"{run}: {line} in the log, not {other_line}. {note}"
    assert mine == expected, f"{run}: {len(mine)} lines in the log, not {len(expected)}. {note}"


def verified(checkpoint):
    """The hashes and the kernels of a checkpoint are as they should be."""
    assert bcop("inspect", checkpoint, "--verify", "--json").json["hashes_ok"] is True


def manifest_of(folder):
    with open(os.path.join(folder, "MANIFEST.json"), encoding="utf-8") as file:
        return json.load(file)


def copy(run, to):
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(run, to, symlinks=True)
    return to
