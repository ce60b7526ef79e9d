#!/usr/bin/python3
# run: label mpi timeout 300
"""bcop attack and bcop predict as users type them."""
import csv
import os
import sys
from fractions import Fraction

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.environ["BCOP_SOURCE_DIR"], "tests", "support"))
from program import bcop, config, fails, main  # noqa: E402

COUNT, CLASSES, SHAPE = 53, 4, (8, 8, 3)


def trained(as_bytes=False, name="net"):
    """A short run on images of a file with pixels in [0, 1]; the test file is test.h5."""
    random = np.random.default_rng(5)
    prototype = random.uniform(0, 1, (CLASSES, *SHAPE))
    for part, count in (("train", 128), ("test", COUNT)):
        labels = random.integers(0, CLASSES, count)
        images = np.clip(prototype[labels] + random.normal(0, 0.3, (count, *SHAPE)), 0, 1)
        with h5py.File(f"{part}.h5", "w") as file:
            file["x"] = (255 * images).astype("u1") if as_bytes else images.astype("f4")
            file["y"] = labels.astype("i4")
    path = config(name, data=f"{{kind: hdf5, train: train.h5, test: test.h5, classes: {CLASSES}, "
                              "holdout: 32}")
    bcop("train", path, "--set", "train.epochs=3", ranks=2)
    return f"checkpoints/{name}"


def check_attack_lies_between_certified_and_clean():
    run = trained()
    eps = ("0", "36/255", "0.5", "2", "50")
    certified = bcop("certify", run, "--eps", ",".join(eps), "--json").json
    answers = {}
    for kind, steps, restarts in (("pgd", 12, 2), ("fgsm", 1, 1)):
        more = ("--steps", steps, "--restarts", restarts) if kind == "pgd" else ()
        told = [bcop("attack", run, "--eps", ",".join(eps), "--attack", kind, *more, "--json",
                     ranks=ranks) for ranks in (None, 2, 3)]
        assert len({one.out for one in told}) == 1, "the answer depends on the number of ranks"
        got = told[0].json
        assert set(got) == {"split", "examples", "clean", "attack", "steps", "restarts", "eps"}
        assert (got["split"], got["examples"], got["attack"]) == ("test", COUNT, kind)
        assert (got["steps"], got["restarts"]) == (steps, restarts)
        assert got["clean"] == certified["clean"] and list(got["eps"]) == list(eps)
        for key, one in got["eps"].items():
            assert set(one) == {"accuracy", "certified", "violations"} and one["violations"] == 0
            assert one["certified"] == certified["certified"][key]
            assert one["certified"] <= one["accuracy"] <= got["clean"], (kind, key, one)
        answers[kind] = [got["eps"][key]["accuracy"] for key in eps]
    assert answers["pgd"][0] == got["clean"] > 0.5
    # the attacks find something, pgd at least as much, and at a large radius most
    assert answers["pgd"][3] < got["clean"] and answers["pgd"][4] < 0.5
    assert all(p <= f for p, f in zip(answers["pgd"], answers["fgsm"])), answers
    assert sorted(answers["pgd"], reverse=True) == answers["pgd"]


def check_splits_and_text():
    run = trained(as_bytes=True)
    got = bcop("attack", run, "--eps", "0.5", "--attack=fgsm", "--split", "holdout", "--json").json
    assert (got["split"], got["examples"]) == ("holdout", 32)
    text = bcop("attack", run, "--eps", "0.5", "--attack", "pgd", "--steps", 3, ranks=2)
    assert text.out == "" and "right under attack" in text.err and "3 steps" in text.err


def check_attack_errors():
    fails(64, "attack", "a", "--attack", "pgd", message="--eps")
    fails(64, "attack", "a", "--eps", "0.5", message="--attack")
    fails(64, "attack", "a", "--eps", "0.5", "--attack", "pdg", message=["--attack", "pdg"])
    fails(64, "attack", "a", "--eps", "-1", "--attack", "pgd", message=["--eps", "-1"])
    fails(64, "attack", "a", "--eps", "1", "--attack", "pgd", "--steps", "0", message="--steps")
    fails(64, "attack", "a", "--eps", "1", "--attack", "pgd", "--restarts", "x",
          message=["--restarts", "x"])
    fails(64, "attack", "a", "--eps", "1", "--attack", "fgsm", "--steps", "3", message="--steps")
    fails(64, "attack", "--eps", "1", "--attack", "pgd", message="CHECKPOINT")
    fails(66, "attack", "a", "--eps", "1", "--attack", "pgd", message="a")


def check_predictions_are_the_certificates():
    for as_bytes in (False, True):
        run = trained(as_bytes, f"net{as_bytes}")
        certified = bcop("certify", run, "--eps", "0.5", "--per-image", "r.csv", "--json").json
        with open("r.csv", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        with h5py.File("test.h5", "r") as file, h5py.File("alone.h5", "w") as alone:
            alone["x"] = file["x"][()]
            alone["z"] = "something else"
        told = [bcop("predict", run, "alone.h5", "--json", ranks=ranks) for ranks in (None, 2, 3)]
        assert len({one.out for one in told}) == 1, "the answer depends on the number of ranks"
        got = told[0].json
        assert got["examples"] == COUNT == len(got["images"]) and got["file"] == "alone.h5"
        assert got["lipschitz"] == certified["lipschitz"]
        right = 0
        for i, (image, row) in enumerate(zip(got["images"], rows)):
            assert image["index"] == i and 0 <= image["label"] < CLASSES
            assert image["margin"] >= 0 and image["radius"] >= 0
            if image["label"] == int(row["label"]):
                assert image["margin"] == float(row["margin"])
                assert image["radius"] == float(row["radius"])
                right += 1
            else:
                assert row["correct"] == "0"
        assert right / COUNT == certified["clean"]
    text = bcop("predict", run, "alone.h5")
    assert text.out == ""
    lines = [line.split() for line in text.err.splitlines() if len(line.split()) == 5]
    shown = [Fraction(line[4]) for line in lines if line[1].isdigit()]
    assert len(shown) == COUNT
    for printed, image in zip(shown, got["images"]):  # rounded, but not up
        assert 0 <= Fraction(image["radius"]) - printed < Fraction(1, 10**6), (printed, image)


def check_predict_errors():
    run = trained()
    fails(64, "predict", message="CHECKPOINT")
    fails(64, "predict", run, message="FILE.h5")
    fails(64, "predict", run, "a.h5", "b.h5", message="b.h5")
    fails(66, "predict", run, "nothing.h5", message="nothing.h5")
    fails(66, "predict", "nothing", "test.h5", message="nothing")
    with open("text.h5", "w", encoding="utf-8") as out:
        out.write("not this")
    fails(65, "predict", run, "text.h5", message="text.h5")
    with h5py.File("test.h5", "r") as file:
        images = file["x"][()]

    def refused(name, x, *message):
        with h5py.File(name, "w") as file:
            if x is not None:
                file["x"] = x
        fails(65, "predict", run, name, message=[name, *message], ranks=(None, 2))

    refused("none.h5", None, "dataset x")
    refused("shape.h5", images[:, :7], "7x8x3", "8x8x3")
    refused("flat.h5", images.reshape(COUNT, -1), "[N,H,W,C]")
    refused("type.h5", images.astype("f8"), "float32 or uint8")
    images[3, 0, 0, 0] = np.nan
    refused("nan.h5", images, "example 3")
    images[3] = 3e38  # too much for float32 sums, not for float64's
    with h5py.File("large.h5", "w") as file:
        file["x"] = images
    large = bcop("predict", run, "large.h5", "--json").json["images"]
    assert large[3]["margin"] > 1e35 and large[4]["margin"] < 10


main(globals())
