#!/usr/bin/python3
# run: label fault timeout 600 nightly 500 7200
"""Ranks are killed (SIGKILL) at random times, a third of them inside a checkpoint write, and the run
is started again on a random number of ranks until it is finished: its weights and its log must be
the unbroken run's, and nothing may be left in memory or in the run's folder."""
import os
import re
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.environ["BCOP_SOURCE_DIR"], "tests", "support"))
import faults  # noqa: E402
from program import main  # noqa: E402

del os.environ["OMPI_MCA_odls_base_sigkill_timeout"]  # as at a user's
KILLS = faults.count(20)
EPOCHS = 60
LAST = 6 * EPOCHS
PRIVATE = faults.alone()


def shoot(mpirun, roll):
    """Kills one rank, at times all of them, or all and mpirun, as when a machine goes down."""
    pids = faults.rank_pids(mpirun.process.pid)
    if not pids or not mpirun.running():
        return False
    kind = roll.random()
    victims = [roll.choice(pids)] if kind < 0.85 else pids
    if kind > 0.95:
        victims = [mpirun.process.pid, *pids]
    for pid in victims:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    return True


def inside_a_write(ranks, roll):
    """A fault that kills a rank at a random place of one of the first checkpoints."""
    name, each = roll.choice(faults.points("f", "ckpt."))
    rank = roll.randrange(ranks) if each else 0
    hit = roll.randint(1, 100 if name == "ckpt.write" else 4)
    return f"{name}:rank={rank}:hit={hit}:kill"


def attempt(path, run, trial, roll, eager):
    """One start and one kill. Returns the exit code and how it ended: None (it was finished), "time"
    or "write" (killed at a random time, in a checkpoint write)."""
    ranks, before = roll.randint(1, 4), faults.steps(run)
    point = inside_a_write(ranks, roll) if trial % 3 == 2 else None
    note = f"{ranks} ranks, {point}, {faults.again(trial)}"
    started = faults.start(ranks, "train", path, "--run", run,
                           env=faults.with_fault(point) if point else None)
    killed = False
    if not point:
        if not eager:  # the guard against endless restarts wants a checkpoint now and then
            started.until(lambda: faults.steps(run)[-1:] > before[-1:])
        wait = time.monotonic() + roll.uniform(0, 1.2)
        killed = started.until(lambda: time.monotonic() > wait and shoot(started, roll))
    code = started.end()
    nothing_left(started, note)
    if point and code == 137:
        return code, "write"
    assert code == 0 or killed, f"code {code}: {started.said}\n{note}"
    return code, "time" if killed else None


def nothing_left(mpirun, note):
    """mpirun takes away what its ranks left in memory; nobody does when it is killed itself. What is left of
    a file that Open MPI was opening goes with that file, when the run is started again."""
    if not PRIVATE:
        return
    names = faults.left_in_memory()
    if mpirun.process.returncode == -signal.SIGKILL:
        for name in filter(re.compile(r"vader_segment\.").match, names):
            os.unlink(f"/dev/shm/{name}")
        names = faults.left_in_memory()
    names = [x for x in names if not x.startswith("sem.OMPIO_state.h5.")]
    assert not names, f"left in /dev/shm: {names}. {note}"


def finished(path, run, note):
    faults.whole(path, LAST, run=run, ranks=2)
    faults.same_end(run, "whole", LAST, note)
    faults.verified(run)
    names = [x for x in os.listdir(run) if not re.fullmatch(
        r"step-\d{8}|latest|best|config\.yaml|metrics\.jsonl|attempts\.jsonl|lock", x)]
    assert not names, f"left in {run}: {names}. {note}"
    assert not PRIVATE or not faults.left_in_memory(), f"left in /dev/shm: {faults.left_in_memory()}. {note}"


def check_killed_runs_end_as_the_unbroken_one():
    path = faults.tiny("kill", epochs=EPOCHS, optimizer="{kind: adam, lr: 0.01}")
    faults.whole(path, LAST)
    kills, within, number, eager = 0, 0, 0, True
    while kills < KILLS:
        run = f"run{number}"
        before = faults.steps(run)
        code, end = attempt(path, run, kills, faults.dice(kills + 10000 * number), eager)
        eager = faults.steps(run) > before
        kills += end is not None
        within += end == "write"
        if code == 0:
            finished(path, run, f"seed {faults.SEED}, kill {kills}")
            number += 1
    finished(path, f"run{number}", f"seed {faults.SEED}, kill {kills}")
    print(f"{kills} kills, {within} of them inside a checkpoint write, {number + 1} runs")


main(globals())
