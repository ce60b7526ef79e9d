#!/usr/bin/python3
# run: label fault timeout 300
"""Where a run starts: its own newest valid checkpoint whatever stands beside it, another run's, or
none; and ranks that do not see the same files."""
import os
import shutil
import subprocess
import sys

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.environ["BCOP_SOURCE_DIR"], "tests", "support"))
from program import BCOP, bcop, config, fails, hashes, main, metrics  # noqa: E402


def train(path, run, steps, *more, ranks=None, **options):
    return bcop("train", path, "--run", run, "--max-steps", steps, *more, ranks=ranks, **options)


def step_folder(run, step):
    return os.path.join(run, f"step-{step:08d}")


def spoil(run, step):
    """Flips one byte in the middle of a state.h5: some array's."""
    with open(os.path.join(step_folder(run, step), "state.h5"), "r+b") as file:
        file.seek(os.path.getsize(file.name) // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 0x40]))


def check_a_damaged_checkpoint_gives_way_to_an_older_one():
    path = config("damaged")
    train(path, "whole", 40)
    train(path, "run", 30)  # checkpoints at 13, 26 and 30
    spoil("run", 30)
    os.unlink(os.path.join(step_folder("run", 26), "MANIFEST.json"))
    before = sorted(os.listdir("run"))
    train(path, "run", 40, "--dry-run", ranks=2)
    assert sorted(os.listdir("run")) == before
    said = train(path, "run", 40, ranks=2).err
    assert "warning" in said and "differs from its hash" in said and "trying step 13" in said
    assert {"step-00000030.bad", "step-00000026.bad"} <= set(os.listdir("run"))
    assert hashes("run", 40) == hashes("whole", 40) and metrics("run") == metrics("whole")


def check_no_valid_checkpoint_is_an_error():
    path = config("none")
    train(path, "run", 20)  # 13 and 20
    spoil("run", 13)
    spoil("run", 20)
    fails(65, "train", path, "--run", "run", message="none of its checkpoints is valid")
    for step in (13, 20):
        os.unlink(os.path.join(step_folder("run", step), "MANIFEST.json"))
    fails(65, "train", path, "--run", "run", message="none is valid")
    assert os.path.isdir(step_folder("run", 20)), "nothing is deleted"


def check_leftovers_of_a_killed_write_go():
    path = config("left")
    train(path, "run", 5)
    os.mkdir("run/step-00000009.tmp")
    with open("run/step-00000009.tmp/state.h5", "wb"):
        pass
    train(path, "run", 9)
    assert "step-00000009.tmp" not in os.listdir("run")
    assert os.readlink("run/latest") == "step-00000009"


def check_best_belongs_to_the_run_and_the_radius():
    path = config("best")
    train(path, "first", 26)
    train(path, "second", 39, "--resume", "first")
    assert os.readlink("second/best") in ("step-00000039",)
    # at another radius the old best says nothing
    train(path, "first", 39, "--set", "evaluate.eps=[0.25]")
    assert os.readlink("first/best") == "step-00000039"


def check_a_users_own_config_is_not_replaced():
    os.mkdir("mine")
    path = config("mine")
    shutil.move(path, "mine/config.yaml")
    with open("mine/config.yaml", encoding="utf-8") as file:
        before = file.read()
    fails(73, "train", "mine/config.yaml", "--run", "mine", message="config.yaml")
    with open("mine/config.yaml", encoding="utf-8") as file:
        assert file.read() == before


def write_set(folder, seed, count=96):
    os.makedirs(folder, exist_ok=True)
    rng = np.random.default_rng(seed)
    for name, n in (("train", count), ("test", 20)):
        with h5py.File(os.path.join(folder, f"{name}.h5"), "w") as file:
            file["x"] = rng.random((n, 8, 8, 3), dtype=np.float32)
            file["y"] = (np.arange(n) % 4).astype(np.int32)


def two_folders(*arguments, code):
    """Two ranks, each standing in its own folder."""
    inner = [BCOP, *arguments]
    script = 'cd "$0" && exec "$@"'
    done = subprocess.run(
        ["mpirun", "-q", "-n", "1", "bash", "-c", script, "a", *inner, ":", "-n", "1", "bash", "-c",
         script, "b", *inner], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, (done.returncode, done.stderr)
    return [line for line in done.stderr.splitlines() if line.startswith("bcop: error: ")]


def check_ranks_must_see_the_same_data():
    data = "{kind: hdf5, train: train.h5, test: test.h5, classes: 4, holdout: 16}"
    path = os.path.abspath(config("same", data=data, train="{batch: 16, lanes: 4, epochs: 2}"))
    for number, (change, what) in enumerate((
            (lambda: write_set("b", 1, 128), "train"),
            (lambda: write_set("b", 2), "train"),
            (lambda: os.unlink("b/test.h5"), "test"))):
        for folder in ("a", "b"):
            shutil.rmtree(folder, ignore_errors=True)
            write_set(folder, 1)
        change()
        errors = two_folders("train", path, "--run", f"run{number}", code=65)
        assert len(errors) == 1 and f"rank 1 sees another {what}" in errors[0], errors


def check_ranks_may_stand_in_different_folders():
    for folder in ("a", "b"):
        os.mkdir(folder)
    path = os.path.abspath(config("stand"))
    two_folders("train", path, "--run", "run", "--max-steps", "20", code=0)
    assert os.path.isdir("a/run/step-00000020") and not os.path.exists("b/run")
    train(path, "one", 20)
    assert hashes("a/run", 20) == hashes("one", 20)


main(globals())
