#!/usr/bin/python3
# run: label mpi timeout 300
"""A wide network trains within the memory that `bcop plan` says: the arenas take what was planned, and
the process no more than that, what a tiny net needs, and BLAS's own buffer."""
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.environ["BCOP_SOURCE_DIR"], "tests", "support"))
from program import BCOP, bcop, command, config, main  # noqa: E402

RANKS = 4
PACKING = 32 * 2**20  # what OpenBLAS touches of its buffer in large products
COMMON = {
    "data": "{kind: synthetic, height: 16, width: 16, channels: 8, classes: 4, count: 640}",
    "train": "{batch: 32, lanes: 8, epochs: 1}",
    "checkpoint": "{every_epochs: 0}",
}
WIDE = "\n  - dense: {units: 1024}\n  - maxmin\n  - dense: {units: 4}"  # a block of 2048 x 1024
TINY = "\n  - conv: {channels: 4, kernel: 4, stride: 4}\n  - maxmin\n  - dense: {units: 4}"


def train(path, run):
    """Trains for 20 steps in a process of its own; returns the peak of any rank's memory in bytes,
    and what the program says it planned."""
    script = ("import resource, subprocess, sys; "
              "done = subprocess.run(sys.argv[1:], stderr=subprocess.PIPE, text=True); "
              "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); "
              "sys.stderr.write(done.stderr); sys.exit(done.returncode)")
    done = subprocess.run([sys.executable, "-c", script,
                           *command(RANKS, "train", path, "--run", run, "--max-steps", 20)],
                          capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    planned = float(re.search(r"at most ([0-9.]+) MiB a rank", done.stderr).group(1))
    return int(done.stdout) * 1024, planned * 2**20


def largest(plan):
    return max(rank["memory"]["total"] for rank in plan["per_rank"])


def check_memory_as_planned():
    tiny = config("tiny", model=TINY, **COMMON)
    wide = config("wide", model=WIDE, **COMMON)
    plans = {path: bcop("plan", path, "--ranks", RANKS, "--json").json for path in (tiny, wide)}
    places = {p["block"]: p for p in plans[wide]["placements"]}
    block = places["00-dense/blocks/W"]
    assert (block["rows"], block["cols"], block["placement"]) == (2048, 1024, "shared")
    peak = {}
    for path in (tiny, wide):
        said = largest(plans[path])
        peak[path], used = train(path, path + ".run")
        assert abs(said - used) <= 0.05 * 2**20, (said, used)  # printed with one digit
    most = largest(plans[wide])
    assert peak[wide] - peak[tiny] <= 1.05 * most + PACKING, (peak, most)
    with open(wide + ".run/metrics.jsonl", encoding="utf-8") as file:
        assert sum('"kind":"train"' in line for line in file) == 20


if "asan" in subprocess.run(["ldd", BCOP], capture_output=True, text=True, check=True).stdout:
    print("SKIP: a sanitizer's memory is not the program's")
    sys.exit(77)
main(globals())
