#!/usr/bin/python3
# run: label fault timeout 600 nightly 40 3600
"""One of four ranks is stopped (SIGSTOP) at random steps and at every fault point: the others notice
within the limit, say which rank hangs where, and end with 81; the run then goes on."""
import os
import re
import signal
import sys
import time
from functools import partial

sys.path.insert(0, os.path.join(os.environ["BCOP_SOURCE_DIR"], "tests", "support"))
import faults  # noqa: E402
from program import bcop, main  # noqa: E402

STOPS = faults.count(4)
RANKS = 4
LIMIT = 3  # train.watchdog; longer than mpirun takes to end a rank that it wakes for that


def endless(name):
    return faults.tiny(name, train=f"{{batch: 16, lanes: 4, epochs: 100000, watchdog: {LIMIT}}}")


def hangs(started, victim, note):
    """Ends with 81 and one line that names the rank and what it was doing."""
    code = started.end(LIMIT + 28)
    assert code == 81, f"code {code}: {started.said}\n{note}"
    assert len(started.errors) == 1, f"{started.said}\n{note}"
    assert re.search(rf"\brank {victim}\b", started.errors[0]), f"{started.errors[0]}\n{note}"
    return started.errors[0]


def check_a_rank_stopped_at_a_random_step():
    path = endless("stuck")
    for trial, roll in faults.trials(STOPS):
        run, victim = f"run{trial}", roll.randrange(RANKS)
        started = faults.start(RANKS, "train", path, "--run", run)
        assert started.until(lambda: faults.size(f"{run}/metrics.jsonl") > 2000), started.said
        time.sleep(roll.uniform(0, 0.5))
        os.kill(faults.rank_pids(started.process.pid)[victim], signal.SIGSTOP)
        hangs(started, victim, faults.again(trial))
        goal = faults.steps(run)[-1] + 6
        bcop("train", path, "--run", run, "--max-steps", goal, ranks=2)
        faults.whole(path, goal, f"whole{trial}")
        faults.same_end(run, f"whole{trial}", goal, faults.again(trial))


def stopped(path, name, victim):
    loads = name.startswith("load.")
    if loads:
        faults.copy("begun", name)
    started = faults.start(RANKS, "train", path, "--run", name, name=f"{name}.said",
                           env=faults.with_fault(f"{name}:rank={victim}:hit={1 if loads else 3}:stop"))
    line = hangs(started, victim, name)
    if name.startswith("ckpt."):
        assert "checkpoint" in line, f"{name}: {line}"
    if name == "evaluate":
        assert "evaluation" in line, line
    if loads:
        assert "load" in line, line


def check_a_rank_stopped_at_every_point():
    path, cases = endless("point"), []
    faults.whole(path, 6, "begun")
    for number, (name, each) in enumerate(faults.points()):
        roll = faults.dice(number)
        victim = roll.randrange(RANKS) if each else 0
        # Loading and saving may take four times as long as other things: not all of their points in
        # the ordinary tests.
        rare = name.startswith(("ckpt.", "load.")) and roll.random() > 0.3
        if STOPS > 4 or not rare:
            cases.append(partial(stopped, path, name, victim))
    assert len(cases) > 8
    faults.all_hold(cases, workers=3)


main(globals())
