#!/usr/bin/python3
# run: label mpi timeout 300
"""Training gives the same bits on 1, 2, 3 and 4 ranks, twice, and after a restart on another number
of ranks."""
import os
import sys

sys.path.insert(0, os.path.join(os.environ["BCOP_SOURCE_DIR"], "tests", "support"))
from program import bcop, config, hashes, main, metrics  # noqa: E402


def train(path, run, ranks, steps, *more):
    bcop("train", path, "--run", run, "--max-steps", steps, *more, ranks=ranks)


def check_fifty_steps_on_1_2_3_and_4_ranks():
    path = config("bits")
    for ranks in (None, 1, 2, 3, 4, 8):
        train(path, f"run{ranks}", ranks, 50)
    expected, lines = hashes("runNone", 50), metrics("runNone")
    assert len(expected) > 20 and len([x for x in lines if x["kind"] == "train"]) == 50
    for ranks in (1, 2, 3, 4, 8):
        assert hashes(f"run{ranks}", 50) == expected, f"{ranks} ranks"
        assert metrics(f"run{ranks}") == lines, f"metrics of {ranks} ranks"


def check_another_seed_gives_other_bits():
    path = config("seed")
    train(path, "a", 2, 20)
    train(path, "b", 2, 20, "--set", "seed=4")
    a, b = hashes("a", 20), hashes("b", 20)
    assert all(a[key] != b[key] for key in a)


def check_every_optimizer_and_loss():
    number = 0
    for optimizer in ("{kind: adam, lr: 0.01}", "{kind: adam-block, lr: 0.01}",
                      "{kind: sgd, lr: 0.05}", "{kind: muon, lr: 0.03}"):
        for loss in ("{kind: hinge, eps: 0.5}",
                     "{kind: cross_entropy, offset: 0.5, temperature: 0.25}"):
            number += 1
            path = config(f"each{number}", optimizer=optimizer, loss=loss)
            train(path, f"one{number}", None, 20)
            train(path, f"three{number}", 3, 20)
            assert hashes(f"one{number}", 20) == hashes(f"three{number}", 20), (optimizer, loss)


def check_restart_on_another_number_of_ranks():
    # an epoch is 13 steps: stops inside, at and after its end
    path = config("restart")
    train(path, "whole", 2, 40)
    for first, ranks in ((5, (1, 4)), (13, (3, 2)), (27, (4, 3))):
        run = f"part{first}"
        train(path, run, ranks[0], first)
        train(path, run, ranks[1], 40)
        assert hashes(run, 40) == hashes("whole", 40), f"restart at {first}"
        assert metrics(run) == metrics("whole"), f"metrics after a restart at {first}"


main(globals())
