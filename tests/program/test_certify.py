#!/usr/bin/python3
# run: label mpi timeout 300
"""`bcop certify` as users type it: what it prints and writes, on any number of ranks, and what it refuses."""
import csv
import os
import shutil
import sys

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.environ["BCOP_SOURCE_DIR"], "tests", "support"))
from program import bcop, config, fails, main  # noqa: E402

EPS = ("0", "36/255", "0.25", "0.5")
KEYS = {"checkpoint", "step", "epoch", "split", "examples", "loss", "clean", "certified", "lipschitz",
        "input_scale", "rounding", "certified_float32", "rounding_float32", "confidence",
        "clean_interval", "certified_interval", "classes"}


def trained(name="net"):
    path = config(name, train="{batch: 32, lanes: 8, epochs: 2}", input="{mean: [0.5], std: [0.5]}")
    bcop("train", path, ranks=2)
    return f"checkpoints/{name}"


def certify(run, *more, **how):
    return bcop("certify", run, "--eps", ",".join(EPS), "--json", *more, **how).json


def table(path):
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def check_same_on_any_ranks():
    run, answers = trained(), []
    for ranks in (None, 2, 3, 4):
        got = certify(run, "--per-image", "i.csv", "--curve", "c.csv", ranks=ranks)
        with open("i.csv", "rb") as images, open("c.csv", "rb") as curve:
            answers.append((got, images.read(), curve.read()))
    assert all(answer == answers[0] for answer in answers)
    assert set(answers[0][0]) == KEYS


def check_figures_agree_with_each_other():
    run = trained()
    got = certify(run, "--per-image", "i.csv", "--curve", "c.csv")
    n, rows, curve = got["examples"], table("i.csv"), table("c.csv")
    assert n == 70 == len(rows) and got["input_scale"] == 2 and got["lipschitz"] >= 2
    assert 0 < got["rounding"] < 1e-9 < got["rounding_float32"] < 0.1
    assert any(0 < share < 1 for share in got["certified"].values())
    for eps in EPS:
        value = np.divide(*map(float, (eps + "/1").split("/")[:2]))
        right = [float(row["radius"]) > value for row in rows]
        assert got["certified"][eps] == sum(right) / n
        assert got["certified_float32"][eps] == sum(
            float(row["radius_float32"]) > value for row in rows) / n
        assert got["certified_float32"][eps] <= got["certified"][eps] <= got["clean"]
        low, high = got["certified_interval"][eps]
        assert low <= got["certified"][eps] <= high and 0.05 < high - low < 0.3
        for c in got["classes"]:
            mine = [r for r, row in zip(right, rows) if int(row["label"]) == c["class"]]
            assert c["examples"] == len(mine) and c["certified"][eps] == sum(mine) / len(mine)
    assert sum(c["examples"] for c in got["classes"]) == n
    assert abs(sum(c["examples"] * c["clean"] for c in got["classes"]) / n - got["clean"]) < 1e-12
    for row in rows:
        radius, float32 = float(row["radius"]), float(row["radius_float32"])
        assert 0 <= float32 <= radius and (float32 < radius or radius == 0)
        # margin > sqrt(2) L eps, to the rounding
        exact = float(row["margin"]) / (np.sqrt(2) * got["lipschitz"])
        assert radius == 0 if exact <= 0 else exact - 1e-9 < radius < exact, row
    eps = np.array([float(row["eps"]) for row in curve])
    share = np.array([float(row["certified"]) for row in curve])
    assert eps[0] == 0 and share[0] == got["certified"]["0"] and share[-1] == 0
    assert (np.diff(eps) > 0).all() and (np.diff(share) <= 0).all()
    radii = np.array([float(row["radius"]) for row in rows])
    for row, e, s in list(zip(curve, eps, share))[:-1]:
        assert abs(s - (radii > e).mean()) < 1e-8 and float(row["low"]) <= s <= float(row["high"])
    text = bcop("certify", run, "--eps", "36/255").err
    assert "class   images" in text and "36/255" in text and "95%" in text


def check_files_that_cannot_be_written():
    run = trained()
    fails(73, "certify", run, "--eps", "1", "--curve", "no/where.csv", message="no/where.csv")
    fails(73, "certify", run, "--eps", "1", "--per-image", "no/where.csv", message="no/where.csv")
    fails(64, "eval", run, "--curve", "c.csv", message="--curve")


def alone(run, change):
    """The state by itself in a folder, without a manifest, changed."""
    os.makedirs("alone", exist_ok=True)
    shutil.copy(f"{run}/latest/state.h5", "alone/state.h5")
    with h5py.File("alone/state.h5", "r+") as file:
        change(file["layers"])
    return "alone/state.h5"


def add(layers, name, index, value):
    data = layers[name][()]
    data[index] += np.float32(value)
    layers[name][...] = data


def check_refuses_what_is_not_its_blocks():
    run = trained()
    certify(alone(run, lambda layers: None))
    certify(alone(run, lambda layers: add(layers, "02-conv/kernel", (0, 0, 0, 0), 5e-6)))
    for name, index in (("02-conv/kernel", (3, 5, 1, 0)), ("02-conv/blocks/H", (0, 0)),
                        ("02-conv/blocks/Q1", (1, 2))):
        state = alone(run, lambda layers, n=name, i=index: add(layers, n, i, 1e-3))
        fails(65, "certify", state, "--eps", "1",
              message=["02-conv: the stored kernel differs from its blocks"])
        bcop("eval", state)  # what it predicts is another question
    state = alone(run, lambda layers: add(layers, "06-dense/weight", (1, 1), 2e-5))
    fails(65, "certify", state, "--eps", "1", message="06-dense: the stored weight differs")


def check_refuses_what_is_not_finite():
    run = trained()
    for name in ("00-conv/kernel", "00-conv/bias", "04-dense/weight", "04-dense/blocks/W"):
        for bad in (np.nan, np.inf):
            state = alone(run, lambda layers, n=name, b=bad: add(layers, n, 0, b))
            fails(65, "certify", state, "--eps", "1", message="finite", ranks=(2,))


def check_a_large_constant_is_divided_by():
    run = trained()
    before = certify(run)

    def scale(layers):
        for name in ("02-conv/kernel", "02-conv/blocks/H", "02-conv/bias", "04-dense/bias"):
            layers[name][...] = 3 * layers[name][()]
        for name in ("06-dense/weight", "06-dense/blocks/W"):
            layers[name][...] = 5 * layers[name][()]

    after = certify(alone(run, scale))
    ratio = after["lipschitz"] / before["lipschitz"]
    # ||(A^H A)^4||_F^(1/8) is at most m^(1/16) above, m = 12 and 4 here
    assert 15 * (1 - 1e-5) <= ratio <= 15 * (12 * 4) ** (1 / 16), ratio
    assert after["input_scale"] == 2 and 0 < after["rounding"] < 1e-7


main(globals())
