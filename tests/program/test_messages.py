#!/usr/bin/python3
# run: label mpi timeout 300
"""What the program counts as sent, and what `bcop plan` says beforehand, against a PMPI layer that
sees every call: one step's messages and bytes, rank by rank, to the byte."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.environ["BCOP_SOURCE_DIR"], "tests", "support"))
from program import BCOP, bcop, config, main  # noqa: E402

# A shared block of each kind: by factors, square and tall, and from a convolution's sum. The step is
# so small that every retraction takes one iteration: others would form more Gram matrices.
SECTIONS = {
    "data": "{kind: synthetic, height: 4, width: 4, channels: 3, classes: 4, count: 960}",
    "model": "\n  - conv: {channels: 520, kernel: 2, stride: 2}\n  - maxmin\n"
             "  - dense: {units: 600}\n  - maxmin\n  - dense: {units: 100}\n  - maxmin\n"
             "  - dense: {units: 4}",
    "train": "{batch: 32, lanes: 8, epochs: 1}",
    "checkpoint": "{every_epochs: 0}",
}
OPTIMIZERS = [
    ("{kind: muon, lr: 1.0e-6}", [(2, "auto"), (3, "shared"), (4, "owned")]),
    ("{kind: adam-block, lr: 1.0e-6}", [(2, "shared"), (4, "replicated")]),
]


def seen(path, ranks, steps, placement):
    """(messages, bytes) of each rank in a run of so many steps, by the PMPI layer."""
    run = f"run-{steps}"
    environment = dict(os.environ, BCOP_MESSAGES=os.path.abspath("messages"))
    subprocess.run(["mpirun", "-q", "-n", str(ranks), "-x",
                    f"LD_PRELOAD={os.environ['BCOP_MESSAGES_LIBRARY']}", BCOP, "train", path,
                    "--run", run, "--max-steps", str(steps), "--set", f"ortho.placement={placement}"],
                   env=environment, check=True, capture_output=True, timeout=120)
    subprocess.run(["rm", "-r", run], check=True)
    counts = []
    for rank in range(ranks):
        with open(f"messages.{rank}", encoding="utf-8") as file:
            counts.append(tuple(map(int, file.read().split())))
    return counts


def check_a_step_to_the_byte():
    for optimizer, wanted in OPTIMIZERS:
        path = config("net", optimizer=optimizer, **SECTIONS)
        for ranks, placement in wanted:
            more = ("--set", f"ortho.placement={placement}")
            counted = bcop("bench", "step", path, "--warmup", 2, "--steps", 2, "--json", *more,
                           ranks=ranks).json
            assert counted["iterations"] <= 1
            planned = bcop("plan", path, "--ranks", ranks, "--iterations", 1, "--json", *more).json
            few, many = (seen(path, ranks, steps, placement) for steps in (2, 3))
            for rank in range(ranks):
                kinds = counted["traffic"][rank]
                total = {what: sum(kind[what] for kind in kinds.values())
                         for what in ("messages", "bytes")}
                step = [b - a for a, b in zip(few[rank], many[rank])]
                assert [total["messages"], total["bytes"]] == step, (placement, rank, total, step)
                for kind, sent in kinds.items():
                    said = planned["per_rank"][rank]["communication"][kind]
                    assert all(said[what] == sent[what] for what in ("messages", "bytes")), (
                        placement, rank, kind, said, sent)


if "asan" in subprocess.run(["ldd", BCOP], capture_output=True, text=True, check=True).stdout:
    print("SKIP: nothing can be preloaded before a sanitizer")
    sys.exit(77)
main(globals())
