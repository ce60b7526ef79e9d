#!/usr/bin/python3
# run: label fault timeout 900 nightly 1 3600
"""At every fault point of base/fault.h a rank is killed, fails once, or fails for good. Whatever of a
checkpoint was written by then, the newest committed one loads, and the run that goes on ends with the
bits of the unbroken one."""
import os
import sys
from functools import partial

sys.path.insert(0, os.path.join(os.environ["BCOP_SOURCE_DIR"], "tests", "support"))
import faults  # noqa: E402
from program import bcop, main  # noqa: E402

ALL = faults.count(0) > 0  # every rank that passes a point, and more than one hit
RANKS = 3 if ALL else 2
FIRST, LAST = 6, 18


def ready():
    """A run of 18 steps, and the same one up to its first checkpoint."""
    path = faults.tiny("commit", epochs=3)
    faults.whole(path, LAST)
    faults.whole(path, FIRST, run="begun")
    return path


def places(kind="", start=""):
    """Every point, on a random rank that passes it (or on all)."""
    for number, (name, each) in enumerate(faults.points(kind, start)):
        ranks = range(RANKS) if each else [0]
        for rank in ranks if ALL else [faults.dice(number).choice(ranks)]:
            yield name, rank


def faulty(path, text):
    run = faults.copy("begun", text.replace(":", "-"))
    started = faults.start(RANKS, "train", path, "--run", run, env=faults.with_fault(text),
                           name=f"{run}.said")
    return run, started, started.end()


def goes_on(path, run, text):
    held = faults.steps(run)
    faults.verified(faults.step_folder(run, held[-1]))
    assert held[0] <= FIRST or held[-1] == LAST, f"{text}: {held}"
    bcop("train", path, "--run", run, ranks=2)
    faults.same_end(run, "whole", LAST, text)
    assert os.readlink(f"{run}/latest") == f"step-{LAST:08d}", text
    assert not faults.writing(run), f"{text}: {os.listdir(run)}"


def killed(path, text):
    run, started, code = faulty(path, text)
    assert code == 137, f"{text}: code {code}\n{started.said}"
    goes_on(path, run, text)


def check_killed_at_every_point():
    path, cases = ready(), []
    for number, (name, rank) in enumerate(places()):
        hits = (1,) if name.startswith("load.") else (1, 2) if name != "ckpt.write" else (1, 5, 20)
        for hit in hits if ALL else [faults.dice(number).choice(hits)]:
            cases.append(partial(killed, path, f"{name}:rank={rank}:hit={hit}:kill"))
    faults.all_hold(cases)


def failed_once(path, text):
    run, started, code = faulty(path, text)
    assert code == 0 and not started.errors, f"{text}: code {code}\n{started.said}"
    assert "warning" in started.said, f"{text}: {started.said}"
    faults.same_end(run, "whole", LAST, text)
    goes_on(path, run, text)


def check_failing_once_is_a_warning():
    path = ready()
    faults.all_hold(partial(failed_once, path, f"{name}:rank={rank}:fail")
                    for start in ("ckpt.", "metrics.") for name, rank in places("f", start))


def failed_always(path, text):
    run, started, code = faulty(path, text)
    note, held = f"{text}: code {code}\n{started.said}", faults.steps(run)
    if text.startswith("ckpt.prune"):  # all is saved
        assert code == 0 and held[-1] == LAST and "is saved, but" in started.said, note
    elif text.startswith("ckpt.link"):  # the checkpoints are there, and said to be
        assert code == 74 and len(started.errors) == 1 and held[-1] == LAST, note
        assert f"the checkpoint of step {LAST} may not last" in started.errors[0], note
        assert "no checkpoint at" not in started.said, note
    else:
        assert code == 74 and len(started.errors) == 1 and held == [FIRST], note
        assert f"no checkpoint at step {LAST}" in started.errors[0], note
    goes_on(path, run, text)


def check_failing_for_good_is_74_and_keeps_the_old_one():
    path = ready()
    faults.all_hold(partial(failed_always, path, f"{name}:rank={rank}:hit=1+:fail")
                    for name, rank in places("f", "ckpt."))


main(globals())
