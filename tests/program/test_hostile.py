#!/usr/bin/python3
# run: label mpi timeout 600
"""Checkpoints with numbers that no training leaves, in a state without a manifest: values that are not
finite are refused by every command; the largest, the smallest and zeros are answered in full or refused."""
import os
import shutil
import sys

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.environ["BCOP_SOURCE_DIR"], "tests", "support"))
from program import bcop, config, main  # noqa: E402

MODEL = ("[conv: {channels: 4, kernel: 4, stride: 2}, householder, dense: {units: 12}, maxmin, "
         "dense: {units: 4, normalize: rows}]")
COMMANDS = (("certify", "--eps", "0.1,0", "--json"),
            ("attack", "--eps", "0.1", "--attack", "pgd", "--steps", "2", "--json"),
            ("predict", "x.h5", "--json"), ("export", "out.safetensors"), ("inspect", "--json"),
            ("eval", "--json"))
IMAGES = 5


def trained():
    bcop("train", config("net", model=MODEL, loss="{kind: cross_entropy}",
                         train="{batch: 32, lanes: 8, epochs: 1}"))
    with h5py.File("x.h5", "w") as file:
        file["x"] = np.random.default_rng(1).uniform(0, 1, (IMAGES, 8, 8, 3)).astype("f4")
    os.mkdir("alone")


def changed(value, names):
    """The state alone, with the first number (a float) or all numbers (a list of one) replaced."""
    shutil.copy("checkpoints/net/latest/state.h5", "alone/state.h5")
    with h5py.File("alone/state.h5", "r+") as file:
        for name in names:
            data = file["layers"][name][()]
            if isinstance(value, list):
                data[...] = value[0]
            else:
                data.flat[0] = value
            file["layers"][name][...] = data
    return "alone/state.h5"


def answer(state, name, *more):
    for path in ("out.safetensors", "out.py"):
        if os.path.exists(path):
            os.remove(path)
    got = bcop(name, state, *more, code=None)
    assert got.code in (0, 65) and len(got.errors) == bool(got.code), (name, got.code, got.err)
    return got


PLAIN = ("00-conv/kernel", "00-conv/bias", "01-householder/angle", "02-dense/weight", "02-dense/bias",
         "04-dense/weight", "04-dense/bias")
BLOCKS = ("00-conv/blocks/H", "00-conv/blocks/P1", "02-dense/blocks/W", "04-dense/blocks/W0")


def check_what_is_not_finite_is_refused():
    trained()
    for number, name in enumerate(PLAIN):
        state = changed((np.nan, np.inf, -np.inf)[number % 3], [name])
        for command in COMMANDS:
            got = answer(state, *command)
            assert got.code == 65 and "finite" in got.errors[0] and name in got.errors[0], got.err
    state = changed(np.nan, BLOCKS[1:2])
    for command in (COMMANDS[0], COMMANDS[4]):
        assert answer(state, *command).code == 65


def check_extremes_are_answered_in_full():
    trained()
    for value in ([3e38], [1e-42], [0], 3e38):
        for names in (PLAIN, ("04-dense/weight",), ("04-dense/weight", "04-dense/bias"), BLOCKS):
            state = changed(value, names)
            for command in COMMANDS:
                got = answer(state, *command)
                if command[0] == "certify":
                    assert got.code == 65 and "blocks" in got.errors[0], got.err
                elif got.code == 0 and command[0] == "predict":
                    assert len(got.json["images"]) == IMAGES
                elif got.code == 0 and command[-1] == "--json":
                    assert got.json


def check_a_constant_has_every_radius():
    """All rows are zero: the answer is the bias's wherever one looks."""
    trained()
    state = changed([0], ("04-dense/weight",))
    for image in bcop("predict", state, "x.h5", "--json").json["images"]:
        assert image["radius"] is None and image["margin"] > 0, image


main(globals())
