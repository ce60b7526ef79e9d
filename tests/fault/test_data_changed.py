#!/usr/bin/python3
# run: label fault timeout 300
"""The training data is not what the checkpoint was trained on: labels swapped, an image changed,
examples added, removed or cut off. Resuming refuses with both fingerprints, and loses nothing."""
import os
import re
import sys

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.environ["BCOP_SOURCE_DIR"], "tests", "support"))
import faults  # noqa: E402
from program import bcop, fails, main  # noqa: E402

RECORD = 3073


def write_cifar(folder, count=40):
    os.makedirs(folder, exist_ok=True)
    rng = np.random.default_rng(7)
    for name in [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]:
        records = rng.integers(0, 256, (count, RECORD), dtype=np.uint8)
        records[:, 0] = np.arange(count) % 10
        records.tofile(os.path.join(folder, name))


def change(path, edit):
    with open(path, "rb") as file:
        data = bytearray(file.read())
    data = edit(data)
    with open(path, "wb") as file:
        file.write(data)


def swap_labels(data):
    data[0], data[RECORD] = data[RECORD], data[0]
    return data


def one_pixel(data):
    data[20 * RECORD + 700] ^= 1
    return data


def exchange_images(data):
    return data[RECORD:2 * RECORD] + data[:RECORD] + data[2 * RECORD:]


CHANGES = (swap_labels, one_pixel, exchange_images,
           lambda data: data + data[:RECORD],
           lambda data: data[:-RECORD])


def refused(path, run, *more):
    before = faults.steps(run), faults.size(f"{run}/metrics.jsonl")
    for ranks in (None, 2):
        said = bcop("train", path, "--run", run, *more, ranks=ranks, code=65)
        assert len(said.errors) == 1, said.err
        prints = re.findall(r"\b[0-9a-f]{16}\b", said.errors[0])
        assert len(set(prints)) == 2, said.errors
    assert before == (faults.steps(run), faults.size(f"{run}/metrics.jsonl")), "nothing is touched"


def check_cifar_files():
    write_cifar("data")
    model = ("\n  - conv: {channels: 4, kernel: 8, stride: 4}\n  - maxmin\n  - dense: {units: 10}")
    path = faults.tiny("cifar", data="{kind: cifar10, dir: data}", model=model)
    bcop("train", path, "--run", "run", "--max-steps", 5)
    for edit in CHANGES:
        change("data/data_batch_3.bin", edit)
        refused(path, "run")
        write_cifar("data")
    change("data/data_batch_3.bin", lambda data: data[:-1])  # a file that makes no sense at all
    fails(65, "train", path, "--run", "run", message="data_batch_3.bin", ranks=(None, 2))
    write_cifar("data")
    bcop("train", path, "--run", "run", "--max-steps", 8, ranks=2)


def write_hdf5(name, edit=None):
    rng = np.random.default_rng(5)
    x, y = rng.random((96, 6, 6, 3), dtype=np.float32), (np.arange(96) % 4).astype(np.int32)
    if edit:
        x, y = edit(x, y)
    with h5py.File(name, "w") as file:
        file["x"], file["y"] = x, y


def nudged(x, y):
    x[50, 3, 3, 1] = np.nextafter(x[50, 3, 3, 1], np.float32(2))
    return x, y


def check_hdf5_arrays():
    write_hdf5("train.h5")
    path = faults.tiny("arrays", data="{kind: hdf5, train: train.h5, classes: 4}")
    bcop("train", path, "--run", "run", "--max-steps", 5)
    for edit in (lambda x, y: (x, np.roll(y, 1)), nudged,
                 lambda x, y: (np.concatenate([x, x[:1]]), np.concatenate([y, y[:1]])),
                 lambda x, y: (x[:-1], y[:-1])):
        write_hdf5("train.h5", edit)
        refused(path, "run")
    write_hdf5("train.h5")  # the same numbers in a new file are the same data
    bcop("train", path, "--run", "run", "--max-steps", 8, ranks=2)


main(globals())
