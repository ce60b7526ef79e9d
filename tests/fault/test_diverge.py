#!/usr/bin/python3
# run: label fault timeout 300
"""A number that is not finite, in one element on one rank: all ranks leave together with 80, nothing
is saved or logged from that step on, and the run goes on from the checkpoint before."""
import os
import sys

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


def check_a_step_size_without_sense():
    path = faults.tiny("huge", epochs=3, optimizer="{kind: sgd, lr: 1.0e+30}")
    for ranks in (None, 3):
        run = f"run{ranks}"
        said = bcop("train", path, "--run", run, ranks=ranks, code=80)
        assert len(said.errors) == 1, said.err
        assert not faults.steps(run), faults.steps(run)


main(globals())
