#!/usr/bin/python3
# run: label fault timeout 600 nightly 2000 7200
"""The newest checkpoint is truncated, or bits of it are flipped, at random places of state.h5 and of
MANIFEST.json: every time it must be noticed before anything of it is used, the older checkpoint
takes its place, and training ends with the right bits. For every ten flips there is a truncation."""
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

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
    """The failure of this trial, or None."""
    run = faults.copy("whole", f"run{trial}")
    name = "state.h5" if roll.random() < 0.75 else "MANIFEST.json"
    what = change(os.path.join(faults.step_folder(run, LAST), name), roll)
    ranks = None if trial % 10 else 2
    try:
        if trial % 5 == 0:
            bcop("inspect", os.path.join(run, f"step-{LAST:08d}"), "--verify", code=65)
        said = bcop("train", "damage.yaml", "--run", run, ranks=ranks).err
        assert f"trying step {OLD}" in said, f"not noticed:\n{said}"
        assert os.path.isdir(faults.step_folder(run, LAST) + ".bad"), os.listdir(run)
        faults.same_end(run, "whole", LAST)
    except Exception as error:  # pylint: disable=broad-except
        return f"{what}: {error}\n{faults.again(trial)}"
    finally:
        shutil.rmtree(run)
    return None


def check_every_damage_is_noticed():
    path = faults.tiny("damage")
    faults.whole(path, LAST)
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(damaged, trial, roll, flip if trial < FLIPS else truncate)
                for trial, roll in faults.trials(FLIPS + TRUNCATIONS)]
        found = [text for text in (job.result() for job in jobs) if text]
    for text in found[:20]:
        print(text)
    assert not found, f"{len(found)} of {len(jobs)} were not handled"
    print(f"{FLIPS} flips and {TRUNCATIONS} truncations: all noticed")


main(globals())
