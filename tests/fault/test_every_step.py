#!/usr/bin/python3
# run: label fault timeout 600
"""N steps in one go are k steps and N - k more, bit for bit, for every k of two epochs; and a run that
is stopped again and again, on another number of ranks each time, is the unbroken one too."""
import os
import sys

sys.path.insert(0, os.path.join(os.environ["BCOP_SOURCE_DIR"], "tests", "support"))
import faults  # noqa: E402
from program import bcop, main  # noqa: E402

OPTIMIZERS = ("{kind: muon, lr: 0.03}", "{kind: adam, lr: 0.01}", "{kind: sgd, lr: 0.05}")
SCHEDULE = "{kind: cosine, warmup: 0.5}"
LAST = 12  # two epochs


def check_every_step_of_two_epochs():
    for number, optimizer in enumerate(OPTIMIZERS):
        path = faults.tiny(f"step{number}", epochs=2, optimizer=optimizer, schedule=SCHEDULE)
        expected = faults.whole(path, LAST, f"whole{number}", ranks=None)
        for k in range(1, LAST):
            run = f"run{number}-{k}"
            bcop("train", path, "--run", run, "--max-steps", k)
            bcop("train", path, "--run", run)
            faults.same_end(run, expected, LAST, f"{optimizer} stopped at {k}")


def check_another_number_of_ranks_at_every_stop():
    for number, optimizer in enumerate(OPTIMIZERS):
        path = faults.tiny(f"ranks{number}", epochs=7, optimizer=optimizer, schedule=SCHEDULE)
        expected = faults.whole(path, 40, f"whole{number}", ranks=None)
        roll, at, run, told = faults.dice(number), 0, f"run{number}", []
        while at < 40:
            at = min(40, at + roll.randint(1, 7))
            ranks = roll.choice([None, 2, 3, 4])
            told.append((at, ranks))
            bcop("train", path, "--run", run, "--max-steps", at, ranks=ranks)
        faults.same_end(run, expected, 40, f"{optimizer}, {told}, seed {faults.SEED}")


main(globals())
