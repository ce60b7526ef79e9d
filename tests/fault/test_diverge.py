#!/usr/bin/python3
# run: label fault timeout 300
"""A number that is not finite, in one element on one rank: all ranks leave together with 80, nothing
is saved or logged from that step on, and the run goes on from the checkpoint before."""
import os
import sys

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.environ["BCOP_SOURCE_DIR"], "tests", "support"))
import faults  # noqa: E402
from program import bcop, main  # noqa: E402

LAST = 18


def check_one_element_on_one_rank():
    path = faults.tiny("nan", epochs=3)
    faults.whole(path, LAST)
    for name, _ in faults.points("n"):
        for rank in range(4):
            run = f"{name}{rank}"
            # step 9 is in the middle of the second epoch, 12 is its last: a checkpoint follows
            hit = 9 if rank % 2 else 12
            started = faults.start(4, "train", path, "--run", run,
                                   env=faults.with_fault(f"{name}:rank={rank}:hit={hit}:nan"))
            code = started.end()
            if name == "step.update" and code == 0:
                # this rank holds no block then, so nothing was spoiled
                faults.same_end(run, "whole", LAST)
                continue
            assert code == 80, f"{run}: code {code}\n{started.said}"
            assert len(started.errors) == 1 and "step" in started.errors[0], started.said
            assert faults.steps(run) == [6], f"{run}: {faults.steps(run)}"
            taken = [x["step"] for x in faults.log_of_steps(run) if x["kind"] == "train"]
            assert taken == list(range(1, len(taken) + 1)) and len(taken) <= hit, f"{run}: {taken}"
            bcop("train", path, "--run", run, ranks=2)
            faults.same_end(run, "whole", LAST, run)


def check_images_that_overflow():
    with h5py.File("train.h5", "w") as file:
        file["x"] = np.full((96, 6, 6, 3), 3e38, np.float32)
        file["y"] = (np.arange(96) % 4).astype(np.int32)
    path = faults.tiny("huge", data="{kind: hdf5, train: train.h5, classes: 4}")
    for ranks in (None, 3):
        said = bcop("train", path, "--run", f"run{ranks}", ranks=ranks, code=80)
        assert len(said.errors) == 1 and "step 1" in said.errors[0], said.err
        assert not faults.steps(f"run{ranks}") and not faults.log_of_steps(f"run{ranks}")


main(globals())
