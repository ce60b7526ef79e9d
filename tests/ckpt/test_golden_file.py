#!/usr/bin/python3
# run: label fault timeout 180
"""checkpoints/FORMAT.md against the golden checkpoints: its script as written gives the logits that
stand beside each, its manifest is what other code computes, every command reads it, a run goes on
from it, and h5dump shows it."""
import glob
import json
import os
import re
import shutil
import subprocess
import sys

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.environ["BCOP_SOURCE_DIR"], "tests", "support"))
import sealed  # noqa: E402
from program import SOURCE, bcop, main  # noqa: E402

GOLDEN = sorted(glob.glob(os.path.join(SOURCE, "checkpoints", "golden", "*")))


def script():
    with open(os.path.join(SOURCE, "checkpoints", "FORMAT.md"), encoding="utf-8") as file:
        scripts = re.findall(r"```python\n(.*?)```", file.read(), re.DOTALL)
    return next(text for text in scripts if "images.npy" in text or "sys.argv[2]" in text)


def rebuilt(state, images):
    with open("rebuild.py", "w", encoding="utf-8") as file:
        file.write(script())
    np.save("images.npy", images)
    out = subprocess.run(["/usr/bin/python3", "rebuild.py", state, "images.npy"], check=True,
                         capture_output=True, text=True).stdout
    return np.array([line.split() for line in out.splitlines()], float)


def images_of(folder):
    with h5py.File(os.path.join(folder, "images.h5"), "r") as file:
        return (file["x"][()].astype("f4") / np.float32(255)).astype("f8"), file["y"][()]


def check_the_script_gives_the_logits():
    assert GOLDEN
    for folder in GOLDEN:
        images, labels = images_of(folder)
        logits = rebuilt(os.path.join(folder, "state.h5"), images)
        expected = np.loadtxt(os.path.join(folder, "logits.txt"))
        assert logits.shape == expected.shape == (len(labels), 4)
        assert np.abs(logits - expected).max() < 1e-12
        assert np.abs(expected).max() > 0.1 and np.abs(np.diff(expected, axis=0)).max() > 0.1
        own = expected[np.arange(len(labels)), labels]
        others = np.where(np.arange(4) == labels[:, None], -np.inf, expected).max(axis=1)
        got = bcop("eval", folder, "--data", os.path.join(folder, "images.h5"), "--json").json
        assert abs(got["clean"] - np.mean(own > others)) < 1e-12


def check_the_manifest_as_described():
    for folder in GOLDEN:
        manifest = sealed.load(folder)
        for key, value in sealed.describe(os.path.join(folder, "state.h5")).items():
            assert manifest[key] == value, key
        with open(os.path.join(folder, "MANIFEST.json"), "rb") as file:
            text = file.read()
        head, tail = text.rsplit(b",", 1)
        assert tail == f'\n "checksum": "{sealed.xxh3(head)}"\n}}\n'.encode(), tail
        with h5py.File(os.path.join(folder, "state.h5"), "r") as file:
            assert manifest["config"] == sealed.xxh3(file.attrs["config"])
        assert list(manifest) == [
            "format", "version", "step", "epoch", "created", "software", "config",
            "data_fingerprint", "provenance", "files", "block_bytes", "hashes", "places", "checksum"]


def check_it_can_be_trained_on():
    for folder in GOLDEN:
        name = os.path.basename(folder)
        shutil.copytree(folder, name)
        with h5py.File(f"{name}/state.h5", "r") as file, open("c.yaml", "wb") as out:
            out.write(file.attrs["config"])
        for data in ("train.h5", "images.h5"):
            shutil.copy(f"{name}/{data}", data)
        bcop("inspect", name, "--verify", ranks=2)
        step = json.load(open(f"{name}/MANIFEST.json", encoding="utf-8"))["step"]
        bcop("train", "c.yaml", "--run", "more", "--resume", name, "--set", "train.epochs=4")
        assert os.readlink("more/latest") == f"step-{step + 5:08d}"


def check_h5dump_reads_it():
    for folder in GOLDEN:
        shown = subprocess.run(["h5dump", "-A", os.path.join(folder, "state.h5")], check=True,
                               capture_output=True, text=True).stdout
        for text in ('GROUP "layers"', 'DATASET "kernel"', 'ATTRIBUTE "description"', "bcop-checkpoint"):
            assert text in shown, text


main(globals())
