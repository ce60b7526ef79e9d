#!/usr/bin/python3
# run: label mpi timeout 300
"""The subcommands as users type them: train, eval, certify, inspect, reference, --version."""
import glob
import json
import os
import shutil
import sys

sys.path.insert(0, os.path.join(os.environ["BCOP_SOURCE_DIR"], "tests", "support"))
from program import CONFIGS, bcop, config, fails, hashes, main, metrics  # noqa: E402

os.environ.pop("OMPI_MCA_pml", None)  # as at a user's


def trained(name="net", ranks=2):
    path = config(name)
    bcop("train", path, "--set", "train.epochs=2", ranks=ranks)
    return path, os.path.join("checkpoints", name)


def check_run_directory():
    _, run = trained()
    for name in ("config.yaml", "metrics.jsonl", "step-00000013", "step-00000026"):
        assert os.path.exists(os.path.join(run, name)), name
    assert os.readlink(os.path.join(run, "latest")) == "step-00000026"
    assert os.readlink(os.path.join(run, "best")).startswith("step-")
    lines = metrics(run)
    steps = [line["step"] for line in lines if line["kind"] == "train"]
    assert steps == list(range(1, 27))
    evaluations = [(line["split"], line["epoch"]) for line in lines if line["kind"] == "eval"]
    assert evaluations == [("holdout", 1), ("holdout", 2), ("test", 2)]
    train, evaluation = lines[0], [line for line in lines if line["kind"] == "eval"][0]
    assert set(train) == {"kind", "step", "epoch", "loss", "accuracy", "lr", "iterations"}
    assert set(evaluation) == {"kind", "step", "epoch", "split", "examples", "loss", "clean",
                               "certified", "lipschitz"}
    assert set(evaluation["certified"]) == {"36/255", "0.5"} and evaluation["examples"] == 64
    assert 1 <= evaluation["lipschitz"] < 1.001


def check_every_name_of_a_checkpoint():
    _, run = trained()
    names = (run, f"{run}/best", f"{run}/latest", f"{run}/step-00000026",
             f"{run}/step-00000026/state.h5")
    answers = [bcop("eval", name, "--json").json for name in names]
    for answer in answers:
        assert set(answer) == {"checkpoint", "step", "epoch", "split", "examples", "loss", "clean"}
        assert answer["examples"] == 70 and answer["split"] == "test"
    assert len({answer["loss"] for answer in answers if answer["step"] == 26}) == 1
    fails(66, "eval", "nothing-here", message="nothing-here")
    os.mkdir("empty")
    fails(66, "eval", "empty", message="empty")


def check_evaluation_equals_training_and_any_ranks():
    _, run = trained()
    last = [line for line in metrics(run) if line["kind"] == "eval" and line["split"] == "test"][0]
    for ranks in (None, 2, 3, 4):
        got = bcop("certify", run, "--eps", "36/255,0.5", "--json", ranks=ranks).json
        for key in ("loss", "clean", "certified", "lipschitz"):
            assert got[key] == last[key], (ranks, key, got[key], last[key])
        assert got["input_scale"] == 1.0
    assert bcop("certify", run, "--eps", "0", "--json").json["certified"]["0"] == got["clean"]
    assert bcop("certify", run, "--eps", "99", "--json").json["certified"]["99"] == 0
    assert bcop("eval", run, "--split", "holdout", "--json").json["examples"] == 64
    assert bcop("eval", run, "--split", "train", "--json").json["examples"] == 416


def check_per_image_radii():
    _, run = trained()
    got = bcop("certify", run, "--eps", "0.25,0.5", "--per-image", "r.csv", "--json", ranks=2).json
    with open("r.csv", encoding="utf-8") as file:
        rows = [line.strip().split(",") for line in file][1:]
    assert [int(row[0]) for row in rows] == list(range(70))
    assert sum(int(row[2]) for row in rows) / 70 == got["clean"]
    for eps in ("0.25", "0.5"):
        share = sum(float(row[4]) > float(eps) for row in rows) / 70
        assert abs(share - got["certified"][eps]) < 1e-12


def check_inspect():
    _, run = trained()
    got = bcop("inspect", run, "--verify", "--json", ranks=2).json
    assert set(got) == {"step", "config", "layers", "lipschitz", "input_scale", "hashes_ok",
                        "checkpoint", "epoch", "created", "software", "version", "provenance",
                        "hashes"}
    assert got["hashes"] == hashes(run, 26) and got["provenance"]["host"] == os.uname().nodename
    said = bcop("inspect", run).err
    for text in ("/layers/00-conv/kernel", hashes(run, 26)["/layers/00-conv/kernel"][0], "OpenBLAS",
                 f"data {got['provenance']['data_fingerprint']}"):
        assert text in said, text
    assert got["step"] == 26 and got["hashes_ok"] is True
    kinds = [layer["kind"] for layer in got["layers"]]
    assert kinds == ["conv", "maxmin", "conv", "maxmin", "dense", "groupsort", "dense"]
    assert all(layer["defect"] <= 2e-6 and layer["lipschitz"] < 1.0001 for layer in got["layers"])
    assert got["layers"][2]["in"] == [8, 8, 8] and got["layers"][2]["out"] == [4, 4, 12]
    # H 32x12, P1 and Q1 32x16 each, bias 12
    assert got["layers"][2]["parameters"] == 32 * 12 + 2 * 32 * 16 + 12
    # stride 2 makes 4 * 8 inputs of 8 channels, and kernel 4 one of side 2
    shapes = [(block["name"], block["rows"], block["cols"]) for block in got["layers"][2]["blocks"]]
    assert shapes == [("H", 32, 12), ("P1", 32, 16), ("Q1", 32, 16)]
    assert max(block["defect"] for block in got["layers"][2]["blocks"]) == got["layers"][2]["defect"]
    table = bcop("inspect", run).err
    assert "H 32x12, P1-Q1 32x16" in table and "hashes agree" in table and "seed 3" in table


def check_max_steps_and_finished_runs():
    path = config("steps")
    said = bcop("train", path, "--max-steps", 7, ranks=2).err
    assert "step 7 saved" in said and "stopped at" not in said, said  # it ends, nobody stopped it
    assert os.readlink("checkpoints/steps/latest") == "step-00000007"
    bcop("train", path, "--max-steps", 7)
    assert len(metrics("checkpoints/steps")) == 7
    bcop("train", path, "--set", "train.epochs=1", ranks=3)
    finished = bcop("train", path, "--set", "train.epochs=1")
    assert "nothing to do" in finished.err
    assert [x["step"] for x in metrics("checkpoints/steps") if x["kind"] == "train"] == list(
        range(1, 14))


def check_a_time_limit_saves_and_returns_75():
    path = config("time", train="{batch: 32, lanes: 8, epochs: 100000}")
    bcop("train", path, "--max-time", "1s", ranks=2, code=75)
    step = int(os.readlink("checkpoints/time/latest")[5:])
    assert step > 0
    bcop("train", path, "--max-steps", step + 3, ranks=2)
    steps = [x["step"] for x in metrics("checkpoints/time") if x["kind"] == "train"]
    assert steps == list(range(1, step + 4))


def check_dry_run_writes_nothing():
    path = config("dry")
    bcop("train", path, "--dry-run", ranks=2)
    assert not os.path.exists("checkpoints")


def check_resume_rules():
    path, run = trained()
    fails(73, "train", path, "--resume", "never", message="holds a run")
    fails(78, "train", path, "--set", "seed=9", "--set", "train.epochs=3",
          message=["seed", "9", "3"])
    fails(78, "train", path, "--set", "train.batch=16", message=["train.batch", "16", "32"])
    fails(78, "train", path, "--set", "model[0].conv.channels=10",
          message=["model[0].conv.channels", "10", "8"])
    fails(78, "train", path, "--set", "loss.eps=0.25", message=["loss.eps", "0.25", "0.5"])
    other = bcop("train", path, "--set", "optimizer.lr=0.02", "--set", "train.epochs=3", ranks=2)
    assert "optimizer.lr: now 0.02, was 0.03" in other.err
    bcop("train", path, "--run", "more", "--resume", run, "--set", "train.epochs=4", ranks=2)
    assert os.readlink("more/latest") == "step-00000052"


def check_init_from_takes_the_parameters_alone():
    path, run = trained()
    # steps so small that nothing moves: what is saved is what was taken over
    still = ("--set", "optimizer.lr=1e-30", "--set", "optimizer.bias_lr=0")
    bcop("train", path, "--run", "init", "--init-from", run, "--max-steps", 1, *still, ranks=2)
    there, here = hashes(run, 26), hashes("init", 1)
    for key in there:
        assert (here[key] == there[key]) == key.startswith("/layers/"), key
    assert [line["step"] for line in metrics("init")] == [1]


def check_a_run_without_a_checkpoint_starts_again():
    path = config("again")
    bcop("train", path, "--max-steps", 1)
    shutil.rmtree("checkpoints/again/step-00000001")
    again = bcop("train", path, "--max-steps", 2, ranks=2)
    assert "no checkpoint was committed yet" in again.err
    assert [line["step"] for line in metrics("checkpoints/again")] == [1, 2]


def check_retention_keeps_the_newest_and_the_best():
    path = config("keep", checkpoint="{keep: 2}")
    bcop("train", path, "--set", "train.epochs=5")
    kept = sorted(os.path.basename(x) for x in glob.glob("checkpoints/keep/step-*"))
    best = os.readlink("checkpoints/keep/best")
    assert kept == sorted({"step-00000052", "step-00000065", best}), kept


def check_usage_errors():
    fails(64, message="command is needed", ranks=(None,))
    fails(64, "trian", message="did you mean 'train'", ranks=(None,))
    fails(64, "train", message="CONFIG is needed")
    fails(64, "train", "a.yaml", "b.yaml", message="b.yaml")
    fails(64, "train", "a.yaml", "--max-step", "3", message="did you mean '--max-steps'")
    fails(64, "train", "a.yaml", "--max-steps", "three", message="three")
    fails(64, "train", "a.yaml", "--max-time", "1x", message="1x")
    fails(64, "certify", "a", message="--eps")
    fails(64, "certify", "a", "--eps", "1/0", message="1/0")
    fails(64, "certify", "a", "--eps", "0.5,,1", message="0.5,,1")
    fails(66, "train", "missing.yaml", message="missing.yaml")


def check_reference_is_current():
    with open(os.path.join(CONFIGS, "reference.yaml"), encoding="utf-8") as file:
        assert bcop("reference").out == file.read(), (
            "configs/reference.yaml is not what `bcop reference` prints")


def check_every_config_reads():
    paths = sorted(glob.glob(os.path.join(CONFIGS, "*.yaml")))
    assert len(paths) >= 8
    for path in paths:
        if os.path.basename(path) == "reference.yaml":
            continue
        result = bcop("train", path, "--dry-run", code=None)
        # 66: the data is not here; everything in the file was read before that
        assert result.code in (0, 66), f"{path}: {result.err}"


def check_version():
    out = bcop("--version").out
    for word in ("bcop ", "MPI ", "HDF5 ", "BLAS "):
        assert word in out
    help_text = bcop("--help").out
    for name in ("train", "eval", "certify", "inspect", "reference"):
        assert f"bcop {name}" in help_text


def check_config_in_run_reads_back():
    _, run = trained()
    bcop("train", f"{run}/config.yaml", "--run", run, "--dry-run")
    stored = json.loads(bcop("inspect", run, "--json").out)["config"]
    with open(f"{run}/config.yaml", encoding="utf-8") as file:
        assert stored == file.read()


main(globals())
