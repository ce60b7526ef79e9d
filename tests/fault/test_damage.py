#!/usr/bin/python3
# run: label fault timeout 600 nightly 2000 7200
"""The newest checkpoint is truncated, or bits of it are flipped, at random places of state.h5 and of
MANIFEST.json: every time it must be noticed before anything of it is used, the older checkpoint
takes its place, and training ends with the right bits. For every ten flips there is a truncation."""
import os
import shutil
import sys
from functools import partial

sys.path.insert(0, os.path.join(os.environ["BCOP_SOURCE_DIR"], "tests", "support"))
import faults  # noqa: E402
from program import bcop, main  # noqa: E402

FLIPS = faults.count(200)
TRUNCATIONS = FLIPS // 10
OLD, LAST = 6, 12


def flip(path, roll):
    """One bit, or each bit of a byte, or some bytes."""
    with open(path, "r+b") as file:
        data = bytearray(file.read())
        at = roll.randrange(len(data))
        kind = roll.random()
        if kind < 0.6:
            data[at] ^= 1 << roll.randrange(8)
        elif kind < 0.8:
            data[at] ^= roll.randint(1, 255)
        else:
            for i in range(at, min(len(data), at + roll.randint(2, 64))):
                data[i] ^= roll.randint(1, 255)
        file.seek(0)
        file.write(data)
    return f"{os.path.basename(path)}, byte {at}"


def truncate(path, roll):
    length = roll.choice([0, 1, os.path.getsize(path) - 1, None, None, None, None])
    if length is None:
        length = roll.randrange(os.path.getsize(path))
    os.truncate(path, length)
    return f"{os.path.basename(path)} cut to {length} bytes"


def damaged(trial, roll, change):
    run = faults.copy("whole", f"run{trial}")
    name = "state.h5" if roll.random() < 0.75 else "MANIFEST.json"
    what = change(os.path.join(faults.step_folder(run, LAST), name), roll)
    note = f"{what}, {faults.again(trial)}"
    if trial % 5 == 0:
        bcop("inspect", faults.step_folder(run, LAST), "--verify", code=65)
    said = bcop("train", "damage.yaml", "--run", run, ranks=None if trial % 10 else 2).err
    assert f"trying step {OLD}" in said, f"{note}: not noticed:\n{said}"
    assert os.path.isdir(faults.step_folder(run, LAST) + ".bad"), f"{note}: {os.listdir(run)}"
    faults.same_end(run, "whole", LAST, note)
    shutil.rmtree(run)


def check_every_damage_is_noticed():
    path = faults.tiny("damage")
    faults.whole(path, LAST)
    faults.all_hold(partial(damaged, trial, roll, flip if trial < FLIPS else truncate)
                    for trial, roll in faults.trials(FLIPS + TRUNCATIONS))
    print(f"{FLIPS} flips and {TRUNCATIONS} truncations: all noticed")


def check_a_file_that_is_gone():
    path = faults.tiny("gone")
    faults.whole(path, LAST)
    for name, words in (("state.h5", f"trying step {OLD}"), ("MANIFEST.json", "continuing from")):
        run = faults.copy("whole", f"without-{name}")
        os.unlink(os.path.join(faults.step_folder(run, LAST), name))
        said = bcop("train", path, "--run", run).err
        assert words in said and f"step-{OLD:08d} (step {OLD}" in said, said
        assert os.path.isdir(faults.step_folder(run, LAST) + ".bad"), os.listdir(run)
        faults.same_end(run, "whole", LAST, name)
        for step in (OLD, LAST):  # and of all of them
            os.unlink(os.path.join(faults.step_folder(run, step), name))
        held = os.listdir(run)
        for ranks in (None, 2):
            refused = bcop("train", path, "--run", run, "--set", "train.epochs=3", ranks=ranks, code=65)
            assert len(refused.errors) == 1 and "valid" in refused.errors[0], refused.err
        assert sorted(os.listdir(run)) == sorted(held), "nothing is touched"


main(globals())
