#!/usr/bin/python3
# run: label fault timeout 240
"""When a run saves, what it keeps, and what it owes when it was stopped before an evaluation."""
import json
import os
import re
import shutil
import sys

sys.path.insert(0, os.path.join(os.environ["BCOP_SOURCE_DIR"], "tests", "support"))
import sealed  # noqa: E402
from program import bcop, config, hashes, main, metrics  # noqa: E402

# six steps an epoch
DATA = ("{kind: synthetic, height: 6, width: 6, channels: 3, classes: 4, count: 120, test_count: 40, "
        "holdout: 24, augment: crop_flip, crop_padding: 1}")
MODEL = "[conv: {channels: 6, kernel: 3}, maxmin, dense: {units: 12}, maxmin, dense: {units: 4}]"


def small(name, epochs=3, **sections):
    return config(name, data=DATA, model=MODEL, **{
        "train": f"{{batch: 16, lanes: 4, epochs: {epochs}}}", **sections})


def train(path, run, *more, **options):
    return bcop("train", path, "--run", run, *more, **options)


def steps(run):
    return sorted(int(x[5:]) for x in os.listdir(run) if re.fullmatch(r"step-\d{8}", x))


def stop_after_one_step(path, run, ranks):
    """The stop file is there when the run starts: it takes one step."""
    with open(f"{run}/stop", "w", encoding="utf-8"):
        pass
    train(path, run, code=79, ranks=ranks)


def check_stopped_in_the_last_step_of_an_epoch():
    path = small("epoch")
    train(path, "whole")
    for end, more in ((6, 2), (12, None), (18, 3)):
        run = f"run{end}"
        train(path, run, "--max-steps", end - 1)
        stop_after_one_step(path, run, 2)
        assert os.readlink(f"{run}/latest") == f"step-{end:08d}"
        assert not any(x["kind"] == "eval" and x["step"] == end for x in metrics(run))
        if end == 6:  # killed after the evaluation that was owed, before anything else was saved
            result = bcop("train", path, "--run", run, code=None, ranks=None, fault="step.agree")
            assert result.code < 0
            assert sum(x["kind"] == "eval" and x["step"] == end for x in metrics(run)) <= 1
        said = train(path, run, ranks=more).err
        assert metrics(run) == metrics("whole"), end
        assert hashes(run, 18) == hashes("whole", 18)
        assert os.readlink(f"{run}/best") == os.readlink("whole/best"), (end, said)
        with open(f"{run}/attempts.jsonl", encoding="utf-8") as file:
            lines = [json.loads(line) for line in file]
        assert (lines[-1]["kind"], lines[-1]["code"], lines[-1]["step"]) == ("end", 0, 18), lines
        assert bcop("status", run, "--json").json["state"] == "finished", end
        assert "nothing to do" in train(path, run).err
        with open(f"{run}/attempts.jsonl", encoding="utf-8") as file:
            assert len(list(file)) == len(lines), "a start with nothing to do is no attempt"
        assert metrics(run) == metrics("whole"), end


def check_not_so_soon_after_the_last():
    never_better = "{eps: [1000]}"  # certified is 0 always, clean may rise
    path = small("soon", epochs=4, checkpoint="{keep: 100}", evaluate=never_better)
    train(path, "run")
    best = {0}
    top = -1.0
    for line in metrics("run"):
        if line["kind"] == "eval" and line["split"] == "holdout" and line["clean"] >= top:
            top = line["clean"]
            best.add(line["step"])
    assert set(steps("run")) == (best | {24}) - {0}
    path = small("often", epochs=4, checkpoint="{keep: 100, min_seconds: 0, every_epochs: 2}",
                 evaluate="{every: 0, eps: [0.1]}")
    train(path, "often", ranks=2)
    assert steps("often") == [12, 24]


def check_what_is_kept():
    path = small("kept", epochs=8,
                 checkpoint="{keep: 2, min_seconds: 0, keep_every_epochs: 3}")
    train(path, "run", ranks=2)
    best = int(os.readlink("run/best")[5:])
    assert set(steps("run")) == {18, 36, 42, 48, best}
    assert not [x for x in os.listdir("run") if "tmp" in x or "old" in x]


def check_what_was_set_aside_says_why():
    path = small("aside")
    train(path, "run")
    with open("run/step-00000018/state.h5", "r+b") as file:
        file.seek(100)
        byte = file.read(1)
        file.seek(100)
        file.write(bytes([byte[0] ^ 1]))
    os.unlink("run/step-00000012/MANIFEST.json")
    train(path, "run", "--set", "train.epochs=4")
    with open("run/step-00000018.bad/REASON", encoding="utf-8") as file:
        assert "differs from its hash outside of the arrays" in file.read()
    with open("run/step-00000012.bad/REASON", encoding="utf-8") as file:
        assert "never committed" in file.read()


def check_another_machine_is_told():
    path = small("machine")
    train(path, "run", "--max-steps", 6)
    assert "last bits" not in train(path, "run", "--max-steps", 7).err
    for key, value, word in (("cpu", "Other CPU", "CPU"), ("blas", "Other BLAS", "BLAS"),
                             ("threads", 64, "threads")):
        folder = f"run/step-{steps('run')[-1]:08d}"
        sealed.write(folder, provenance={**sealed.load(folder)["provenance"], key: value})
        said = train(path, "run", "--max-steps", steps("run")[-1] + 1, ranks=2).err
        assert f"written with {word}" in said and str(value) in said and "last bits" in said, said


def check_failures_in_a_row():
    path = small("crash", checkpoint="{min_seconds: 0, max_failures: 3}")
    train(path, "run", "--max-steps", 6)
    for _ in range(3):
        train(path, "run", code=-9, fault="step.update:hit=3")
    before = set(os.listdir("run")) - {"lock"}  # the dead one's
    refused = train(path, "run", code=78, ranks=2)
    assert len(refused.errors) == 1, refused.err
    for text in ("last 3 starts", "step 6", "checkpoint.max_failures=0", "attempts.jsonl"):
        assert text in refused.errors[0], refused.errors
    assert set(os.listdir("run")) == before
    train(path, "run", "--set", "checkpoint.max_failures=0", "--max-steps", 12)
    for _ in range(2):
        train(path, "run", code=-9, fault="step.update:hit=3")
    train(path, "run")
    train(path, "whole")
    assert hashes("run", 18) == hashes("whole", 18)
    shutil.rmtree("whole")


main(globals())
