#!/usr/bin/python3
# run: label fault timeout 600 nightly 60 3600
"""The disk is full, the file size is limited, or writing, syncing and renaming fail on one rank:
training goes on, the old checkpoint stays valid, nothing hangs; once the disk works again, so do
checkpoints, and a run that could not save its end says so with 74."""
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.environ["BCOP_SOURCE_DIR"], "tests", "support"))
import faults  # noqa: E402
from program import BCOP, bcop, main  # noqa: E402

SIZES = faults.count(8)  # of the full disk
ALL = SIZES > 8
FIRST, LAST = 6, 18
FAILURES = (("fsync", "EIO"), ("rename", "EIO"), ("write", "EIO"), ("write", "EDQUOT"),
            ("allocate", "ENOSPC"), ("short", "EIO"), ("unlink", "EIO"), ("mkdir", "EIO"))
FAILING = os.environ["BCOP_FAILING_LIBRARY"]
CAN_MOUNT = faults.alone("mount -t tmpfs tmpfs /dev/shm")
WATCHED = 60


def ready(name, **sections):
    path = faults.tiny(name, epochs=3, **sections)
    faults.whole(path, LAST)
    faults.whole(path, FIRST, run="begun")
    return path


def survived(path, run, code, said, note):
    """The checkpoint from before is valid, and the run goes on from what is there."""
    assert code in (0, 74), f"{note}: code {code}\n{said}"
    held = faults.steps(run)
    assert FIRST in held, f"{note}: {held}"
    assert code == 74 or LAST in held, f"{note}: code 0 without the last checkpoint\n{said}"
    for step in held:
        faults.verified(faults.step_folder(run, step))
    assert not faults.writing(run), f"{note}: {os.listdir(run)}"
    moved = faults.copy(run, "moved")
    bcop("train", path, "--run", moved, ranks=3)
    faults.same_end(moved, "whole", LAST, note)


def check_full_disks():
    if not CAN_MOUNT:
        print("SKIP: no right to mount a tmpfs")
        return
    path = ready("full")
    used = sum(faults.size(os.path.join(at, name)) for at, _, names in os.walk("begun")
               for name in names)
    state = faults.size(f"begun/step-{FIRST:08d}/state.h5")
    os.mkdir("disk")
    codes = []
    for trial, roll in faults.trials(SIZES):
        # from "nothing more fits" to "two more checkpoints fit"
        size = used + 12 * 4096 + int((trial + roll.random()) / SIZES * 3 * state)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", "disk"], check=True)
        try:
            faults.copy("begun", "disk/run")
            started = faults.start(2 + trial % 2, "train", path, "--run", "disk/run", "--set",
                                   "checkpoint.keep=10")
            codes.append(started.end(WATCHED))
            survived(path, "disk/run", codes[-1], started.last,
                     f"{size} bytes, {faults.again(trial)}")
            if codes[-1] == 74:
                assert any("No space left" in x for x in started.errors), started.said
        finally:
            subprocess.run(["umount", "disk"], check=True)
    assert 74 in codes, f"no disk was full: {codes}"


def one_by_one(ranks, path, run, wrap):
    """mpirun with wrap(rank) before each rank's own command."""
    parts = []
    for rank in range(ranks):
        parts += [*([":"] if rank else []), "-n", "1", *wrap(rank), BCOP, "train", path, "--run", run]
    return faults.Started(["mpirun", "-q", *parts])


def check_limited_file_size():
    # the limit must leave room for what MPI keeps in memory files, 4 MiB a rank
    path = ready("limit", model="\n  - dense: {units: 5000}\n  - maxmin\n  - dense: {units: 4}",
                 optimizer="{kind: adam, lr: 0.01}")
    state = faults.size(f"begun/step-{FIRST:08d}/state.h5") // 1024
    assert state > 7000, state
    for kilobytes in (6000, state - 500, state - 1):
        run = faults.copy("begun", "run")
        limit = ["bash", "-c", 'ulimit -f "$0" && exec "$@"', str(kilobytes)]
        started = one_by_one(2, path, run, lambda rank, limit=limit: limit)
        code = started.end(WATCHED)
        assert code == 74 and "File too large" in started.said, f"code {code}: {started.last}"
        survived(path, run, code, started.last, f"{kilobytes} KiB")


def breaking(victim, error="EIO"):
    """Rank `victim` runs with calls that fail while ./broken exists."""
    def wrap(rank):
        if rank != victim:
            return []
        # a sanitizer wants to be the first library
        return ["env", f"LD_PRELOAD={FAILING}", f"BCOP_FAIL={os.path.abspath('broken')}",
                f"BCOP_FAIL_ERROR={error}", "ASAN_OPTIONS=verify_asan_link_order=0"]
    return wrap


def victims(number):
    return (0, 1) if ALL else (faults.dice(number).randrange(2),)


def broken(calls):
    with open("broken.new", "w", encoding="utf-8") as out:
        out.write(calls)
    os.rename("broken.new", "broken")


def fail_for_a_while(path, calls, error, victim):
    started = one_by_one(2, path, "run", breaking(victim, error))
    try:
        assert started.until(lambda: len(faults.steps("run")) > 1), "it did not start"
        broken(calls)
        wait = time.monotonic() + 0.7
        assert started.until(lambda: time.monotonic() > wait), "it ended"
        os.unlink("broken")
        held = faults.steps("run")[-1]
        assert started.until(lambda: faults.steps("run")[-1] > held + 6), "no new checkpoint"
        os.kill(started.process.pid, signal.SIGUSR1)
        code = started.end(WATCHED)
        assert code == 75, f"code {code}"
        told = victim == 0 and calls != "unlink"  # removing is a courtesy
        assert "warning" in started.said or not told, "nothing failed"
    except AssertionError as error:
        raise AssertionError(f"{error}\n{started.last}") from None
    finally:
        started.kill()
    for step in faults.steps("run"):
        faults.verified(faults.step_folder("run", step))
    last = faults.steps("run")[-1] + 1  # a stop at an epoch's end leaves its evaluation to the next
    for run in ("run", "whole"):
        faults.whole(path, last, run, 2, "--set", "checkpoint.min_seconds=1000")
    faults.same_end("run", "whole", last)


def check_calls_that_fail_for_a_while():
    endless = "{batch: 16, lanes: 4, epochs: 100000, watchdog: 10}"
    # a pause between tries: without one every step would try, and say so
    path = os.path.abspath(faults.tiny("call", train=endless, checkpoint="{min_seconds: 0.05}"))
    wrong = []
    for number, (calls, error) in enumerate(FAILURES):
        for victim in victims(number):
            note = f"{calls} {error} on rank {victim}"
            os.mkdir(note)
            os.chdir(note)
            try:
                fail_for_a_while(path, calls, error, victim)
            except AssertionError as reason:
                wrong.append(f"{note}: {reason}")
            finally:
                os.chdir("..")
    assert not wrong, "\n".join(wrong)


def check_calls_that_fail_for_good():
    path = ready("good")
    wrong = []
    for number, (calls, error) in enumerate(FAILURES):
        for victim in victims(number):
            note = f"{calls} {error} on rank {victim}"
            broken(calls)
            run = faults.copy("begun", "run")
            started = one_by_one(2, path, run, breaking(victim, error))
            try:
                code = started.end(WATCHED)
                os.unlink("broken")
                survived(path, run, code, started.last, note)
            except AssertionError as reason:
                wrong.append(f"{note}: {reason}")
    assert not wrong, "\n".join(wrong)


def check_what_is_there_is_said():
    """Calls that fail only when a checkpoint has its name already: it is not said to be missing."""
    endless = "{batch: 16, lanes: 4, epochs: 100000, watchdog: 10}"
    path = faults.tiny("there", train=endless, checkpoint="{min_seconds: 0.05}")
    for calls, expected, words in (("symlink", 75, "is saved, but links"),
                                   ("settle", 74, "the checkpoint of step {} may not last")):
        started = one_by_one(2, path, "run", breaking(0))
        first = faults.steps("run")[-1:]
        try:
            assert started.until(lambda: faults.steps("run")[-1:] > first), "it did not start"
            broken(calls)
            held = faults.steps("run")[-1]
            assert started.until(lambda: faults.steps("run")[-1] > held), "no new checkpoint"
            os.kill(started.process.pid, signal.SIGUSR1)
            code = started.end(WATCHED)
        finally:
            started.kill()
            if os.path.exists("broken"):
                os.unlink("broken")
        last = faults.steps("run")[-1]
        assert code == expected and words.format(last) in started.said, f"{code}: {started.last}"
        assert "no checkpoint at" not in started.said, started.last
        for step in faults.steps("run"):
            faults.verified(faults.step_folder("run", step))
        bcop("train", path, "--run", "run", "--max-steps", last + 1)
        assert os.readlink("run/latest") == f"step-{last + 1:08d}"


main(globals())
