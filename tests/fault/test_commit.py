#!/usr/bin/python3
# run: label fault timeout 600
"""At every fault point of base/fault.h a rank is killed, fails once, or fails for good. Whatever of a
checkpoint was written by then, the newest committed one loads, and the run that goes on ends with the
bits of the unbroken one."""
import os
import sys

sys.path.insert(0, os.path.join(os.environ["BCOP_SOURCE_DIR"], "tests", "support"))
import faults  # noqa: E402
from program import bcop, main  # noqa: E402

RANKS = faults.count(2)
FIRST, MIDDLE, LAST = 6, 12, 18


def ready():
    """A run of 18 steps, and the same one up to its first checkpoint."""
    path = faults.tiny("commit", epochs=3)
    faults.whole(path, LAST)
    faults.whole(path, FIRST, run="begun")
    return path


def places(kind="", start=""):
    """Every point on every rank that passes it."""
    return [(name, rank) for name, each in faults.points(kind, start)
            for rank in (range(RANKS) if each else [0])]


def faulty(path, run, text):
    faults.copy("begun", run)
    started = faults.start(RANKS, "train", path, "--run", run, env=faults.with_fault(text))
    return started, started.end()


def goes_on(path, run, text):
    held = faults.steps(run)
    faults.verified(faults.step_folder(run, held[-1]))
    assert held[-1] >= FIRST, f"{text}: {held}"
    bcop("train", path, "--run", run, ranks=3)
    faults.same_end(run, "whole", LAST, text)
    assert os.readlink(f"{run}/latest") == f"step-{LAST:08d}", text
    assert not faults.writing(run), f"{text}: {os.listdir(run)}"


def check_killed_at_every_point():
    path = ready()
    for name, rank in places():
        hits = (1, 2) if name != "ckpt.write" else (1, 5, 20)
        for hit in hits[:1] if name.startswith("load.") else hits:
            text = f"{name}:rank={rank}:hit={hit}:kill"
            started, code = faulty(path, "run", text)
            assert code == 137, f"{text}: code {code}\n{started.said}"
            goes_on(path, "run", text)


def check_failing_once_is_a_warning():
    path = ready()
    for name, rank in places("f", "ckpt.") + places("f", "metrics."):
        text = f"{name}:rank={rank}:fail"
        started, code = faulty(path, "run", text)
        assert code == 0 and not started.errors, f"{text}: code {code}\n{started.said}"
        assert "warning" in started.said, f"{text}: {started.said}"
        faults.same_end("run", "whole", LAST, text)
        goes_on(path, "run", text)


def check_failing_for_good_is_74_and_keeps_the_old_one():
    path = ready()
    for name, rank in places("f", "ckpt."):
        text = f"{name}:rank={rank}:hit=1+:fail"
        started, code = faulty(path, "run", text)
        if name in ("ckpt.link", "ckpt.prune"):  # the checkpoint is there
            assert code in (0, 74), f"{text}: code {code}\n{started.said}"
        else:
            assert code == 74 and len(started.errors) == 1, f"{text}: code {code}\n{started.said}"
            assert faults.steps("run") == [FIRST], text
        goes_on(path, "run", text)


main(globals())
