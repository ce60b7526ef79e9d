#!/usr/bin/python3
# run: label mpi timeout 1200
"""Training gives the same bits on 1, 2, 3 and 4 ranks, twice, and after a restart on another number
of ranks."""
import os
import shutil
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
                     "{kind: cross_entropy, offset: 0.5, temperature: 0.25, gamma: 0.3}"):
            number += 1
            path = config(f"each{number}", optimizer=optimizer, loss=loss)
            train(path, f"one{number}", None, 20)
            train(path, f"three{number}", 3, 20)
            assert hashes(f"one{number}", 20) == hashes(f"three{number}", 20), (optimizer, loss)


def check_convolutions_by_factors():
    """Up, down and with a stride; what is saved is what the blocks say, and what dense ones do."""
    model = ("[conv: {channels: 12, kernel: 3, apply: factored}, maxmin, "
             "conv: {channels: 14, kernel: 4, stride: 2, apply: factored}, maxmin, dense: {units: 4}]")
    path, dense = config("by", model=model), config("dense", model=model.replace("factored", "dense"))
    train(path, "by", None, 20)
    for ranks in (2, 3, 4):
        train(path, f"by{ranks}", ranks, 10)
        train(path, f"by{ranks}", 5 - ranks if ranks < 4 else 2, 20)
        assert hashes(f"by{ranks}", 20) == hashes("by", 20), ranks
        assert metrics(f"by{ranks}") == metrics("by"), ranks
    bcop("inspect", "by", "--verify")
    train(dense, "dense", 2, 1)
    first = [[x for x in metrics(run) if x["kind"] == "train"][0] for run in ("by", "dense")]
    assert abs(first[0]["loss"] - first[1]["loss"]) <= 1e-5


def check_householder_and_a_normalised_last_layer():
    model = ("[conv: {channels: 8, kernel: 3}, householder, dense: {units: 24}, householder, "
             "dense: {units: 4, normalize: rows}]")
    path = config("rows", model=model, loss="{kind: cross_entropy, offset: 0.5, gamma: 0.3}")
    train(path, "one", None, 40)
    for ranks in (2, 3, 5):
        for placement in ("auto", "owned"):
            train(path, "run", ranks, 20, "--set", f"ortho.placement={placement}")
            train(path, "run", 5 - ranks if ranks < 5 else 2, 40)
            assert hashes("run", 40) == hashes("one", 40), (ranks, placement)
            assert metrics("run") == metrics("one"), (ranks, placement)
            shutil.rmtree("run")


def check_every_placement_on_1_to_8_ranks():
    # blocks with 1, 2 and 4 row panels; mixed: some shared, some owned, some replicated
    model = ("\n  - conv: {channels: 16, kernel: 3}\n  - maxmin\n"
             "  - conv: {channels: 32, kernel: 4, stride: 2}\n  - maxmin\n  - dense: {units: 64}\n"
             "  - maxmin\n  - dense: {units: 600}\n  - maxmin\n  - dense: {units: 4}")
    data = ("{kind: synthetic, height: 16, width: 16, channels: 3, classes: 4, count: 480, "
            "test_count: 70, holdout: 64}")
    path = config("placed", model=model, data=data, train="{batch: 32, lanes: 8, epochs: 5}")
    train(path, "alone", None, 50)
    expected, lines = hashes("alone", 50), metrics("alone")
    for ranks in (2, 3, 4, 5, 8):
        for placement in ("replicated", "owned", "shared", "auto"):
            train(path, "run", ranks, 50, "--set", f"ortho.placement={placement}", "--set",
                  "ortho.share_above=" + ("0" if ranks % 2 else "5.0e6"))
            assert hashes("run", 50) == expected, (ranks, placement)
            assert metrics("run") == lines, (ranks, placement)
            shutil.rmtree("run")


def check_restart_in_another_placement():
    path = config("moved")
    train(path, "whole", None, 40)
    for number, (first, second) in enumerate((("owned", "shared"), ("shared", "replicated"),
                                              ("replicated", "owned"))):
        run = f"run{number}"
        train(path, run, 3, 20, "--set", f"ortho.placement={first}")
        train(path, run, 2, 40, "--set", f"ortho.placement={second}")
        assert hashes(run, 40) == hashes("whole", 40), (first, second)


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
