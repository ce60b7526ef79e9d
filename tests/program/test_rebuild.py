#!/usr/bin/python3
# run: label mpi timeout 300
"""Anyone can rebuild the network from state.h5: numpy alone, from the file's own configuration and
stored operators, agrees with `bcop certify` to the image; and kernels follow from their blocks."""
import csv
import os
import sys

import h5py
import numpy as np
import yaml

sys.path.insert(0, os.path.join(os.environ["BCOP_SOURCE_DIR"], "tests", "support"))
from program import bcop, config, main  # noqa: E402

EPS = ("36/255", "0.5", "1", "1.4")
COUNT, TEST, CLASSES = 96, 53, 5


# ---- the network, in float64 from the file ----

def unshuffle(x, s):
    """Pixel-unshuffle of [N][C][H][W]: sub-pixel (dy, dx) of channel ch becomes ch s^2 + dy s + dx."""
    n, c, h, w = x.shape
    y = np.zeros((n, c * s * s, h // s, w // s))
    for ch in range(c):
        for dy in range(s):
            for dx in range(s):
                y[:, ch * s * s + dy * s + dx] = x[:, ch, dy::s, dx::s]
    return y


def convolve(x, options, kernel, bias):
    x = unshuffle(x, options.get("stride", 1))
    k = kernel.shape[2]
    before = k // 2
    sides = (before, k - 1 - before)
    mode = "constant" if options.get("pad") == "zero" else "wrap"
    padded = np.pad(x, ((0, 0), (0, 0), sides, sides), mode=mode)
    height, width = x.shape[2:]
    y = np.zeros((len(x), kernel.shape[0], height, width)) + bias[None, :, None, None]
    for i in range(k):
        for j in range(k):
            window = padded[:, :, i:i + height, j:j + width]
            y += np.einsum("oc,nchw->nohw", kernel[:, :, i, j], window)
    return y


def group_sort(x, size):
    """Group i holds the channels i, i + C/size, ...; MaxMin is size 2."""
    groups = x.reshape(len(x), size, x.shape[1] // size, *x.shape[2:])
    return -np.sort(-groups, axis=1).reshape(x.shape)


def layers_of(file):
    """(index, kind, options, group of the file or None) of every layer of the stored configuration."""
    settings = yaml.safe_load(file.attrs["config"])
    for index, entry in enumerate(settings["model"]):
        kind, options = (entry, {}) if isinstance(entry, str) else next(iter(entry.items()))
        name = f"/layers/{index:02d}-{kind}"
        yield index, kind, options or {}, file[name] if name in file else None


def array(group, name, size=0):
    return np.asarray(group[name], "f8") if name in group else np.zeros(size)


def rebuild(path, images):
    """Logits of images [N][H][W][C]."""
    with h5py.File(path, "r") as file:
        settings = yaml.safe_load(file.attrs["config"])
        mean, std = (np.asarray(settings["input"][key], "f8") for key in ("mean", "std"))
        x = np.moveaxis((images.astype("f8") - mean) / std, 3, 1)
        for _, kind, options, group in layers_of(file):
            if kind == "conv":
                kernel = array(group, "kernel")
                x = convolve(x, options, kernel, array(group, "bias", len(kernel)))
            elif kind == "dense":
                weight = array(group, "weight")
                x = x.reshape(len(x), -1) @ weight.T + array(group, "bias", len(weight))
            elif kind == "maxmin":
                x = group_sort(x, 2)
            elif kind == "groupsort":
                x = group_sort(x, options["size"])
            else:
                raise AssertionError(kind)
    return x.reshape(len(x), -1)


# ---- kernels from blocks, by definition ----

def block_convolve(a, b):
    """(A*B)[i,j] = sum over a,b of A[a,b] B[i-a,j-b]; [rows of taps][columns of taps][c][c]."""
    out = np.zeros((a.shape[0] + b.shape[0] - 1, a.shape[1] + b.shape[1] - 1, *a.shape[2:]))
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            for m in range(b.shape[0]):
                for n in range(b.shape[1]):
                    out[i + m, j + n] += a[i, j] @ b[m, n]
    return out


def kernel_of(blocks, c_out, c_in, k):
    c = max(c_in, c_out)
    one, taps = np.eye(c), np.eye(c)[None, None]
    for pair in range(1, k):
        p, q = (v @ v.T for v in (array(blocks, f"{name}{pair}", (c, 0)) for name in "PQ"))
        taps = block_convolve(taps, np.array([[p @ q, p @ (one - q)],
                                              [(one - p) @ q, (one - p) @ (one - q)]]))
    h = array(blocks, "H")
    if c_in <= c_out:
        return np.einsum("abdo,di->oiab", taps, h)
    return np.einsum("do,abdi->oiab", h, taps)


def conv_norm(kernel, height, width, zero):
    """Largest singular value over the frequencies of the map (with zero padding: of the map extended by
    k - 1)."""
    k = kernel.shape[2]
    if zero:
        height, width = height + k - 1, width + k - 1
    row = np.exp(2j * np.pi * np.outer(np.arange(height), np.arange(k)) / height)
    column = np.exp(2j * np.pi * np.outer(np.arange(width), np.arange(k)) / width)
    at = np.einsum("oiab,ua,vb->uvoi", kernel, row, column)
    return np.linalg.svd(at, compute_uv=False).max()


# ---- what is compared ----

def write_set(name, shape, seed, as_bytes):
    """Noisy prototypes of the classes; x as bytes or as floats."""
    random = np.random.default_rng(seed)
    prototype = random.uniform(0, 1, (CLASSES, *shape))
    for part, count in (("train", COUNT), ("test", TEST)):
        labels = random.integers(0, CLASSES, count)
        images = np.clip(prototype[labels] + random.normal(0, 0.25, (count, *shape)), 0, 1)
        with h5py.File(f"{name}-{part}.h5", "w") as file:
            file["x"] = (255 * images).astype("u1") if as_bytes else images.astype("f4")
            file["y"] = labels.astype("i4")
    return f"{{kind: hdf5, train: {name}-train.h5, test: {name}-test.h5, classes: {CLASSES}}}"


def trained(name, shape, model, as_bytes=False, inputs="{mean: [0.0], std: [1.0]}"):
    """The state.h5 of a short run."""
    path = config(name, data=write_set(name, shape, len(model), as_bytes), model=model, input=inputs,
                  optimizer="{kind: muon, lr: 0.05, bias_lr: 0.01}",
                  train="{batch: 16, lanes: 4, epochs: 3}")
    bcop("train", path, ranks=2)
    return f"checkpoints/{name}/latest/state.h5"


def compare_answers(name, state):
    got = bcop("certify", f"checkpoints/{name}", "--eps", ",".join(EPS), "--per-image", f"{name}.csv",
               "--json").json
    with open(f"{name}.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with h5py.File(f"{name}-test.h5", "r") as file:
        images, labels = file["x"][()], file["y"][()]
    if images.dtype == np.uint8:
        images = images.astype("f4") / np.float32(255)
    logits = rebuild(state, images)
    assert logits.shape == (TEST, CLASSES) and len(rows) == TEST == got["examples"]
    own = logits[np.arange(TEST), labels]
    logits[np.arange(TEST), labels] = -np.inf
    margin = own - logits.max(axis=1)
    assert [int(row["label"]) for row in rows] == list(labels)
    assert [int(row["index"]) for row in rows] == list(range(TEST))
    apart = np.abs([float(row["margin"]) for row in rows] - margin)
    assert apart.max() < 1e-4, f"{name}: margins differ by {apart.max()}"
    bound = got["lipschitz"]
    counts = []
    for key, stated, eps in [("clean", got["clean"], 0.0)] + [
            (eps, got["certified"][eps], np.divide(*map(float, (eps + "/1").split("/")[:2])))
            for eps in EPS]:
        limit = np.sqrt(2) * bound * eps
        count, near = (margin > limit).sum(), (np.abs(margin - limit) <= 1e-5).sum()
        assert abs(round(stated * TEST) - count) <= near, (name, key, stated * TEST, count, near)
        counts.append(count)
        if eps > 0:
            for row, m in zip(rows, margin):
                assert abs(m - limit) <= 1e-5 or (float(row["radius"]) > eps) == (m > limit), (key, row)
    return counts


def compare_operators(name, state):
    """Kernels by definition, and the reported bounds against the singular values."""
    layers = bcop("inspect", f"checkpoints/{name}", "--json").json["layers"]
    product = 1.0
    with h5py.File(state, "r") as file:
        settings = yaml.safe_load(file.attrs["config"])
        for index, kind, options, group in layers_of(file):
            bound = layers[index]["lipschitz"]
            if kind == "conv":
                kernel = array(group, "kernel")
                height, width = layers[index]["out"][:2]
                own = kernel_of(group["blocks"], *kernel.shape[:3])
                norm = conv_norm(kernel, height, width, options.get("pad") == "zero")
            elif kind == "dense":
                kernel, own = array(group, "weight"), array(group["blocks"], "W")
                own = own if own.shape == kernel.shape and len(kernel) > kernel.shape[1] else own.T
                norm = np.linalg.norm(kernel, 2)
            else:
                assert bound == 1 and group is None
                continue
            assert np.abs(kernel - own).max() < 1e-6, f"{name}: layer {index}"
            assert norm <= bound <= norm + 1e-4, (name, index, norm, bound)
            product *= bound
        scale = 1 / np.min(settings["input"]["std"])
    total = bcop("inspect", f"checkpoints/{name}", "--json").json
    assert abs(total["input_scale"] / scale - 1) < 1e-6
    assert product * scale * (1 - 1e-6) <= total["lipschitz"] <= product * scale * (1 + 1e-6)


def compare(name, shape, model, **more):
    state = trained(name, shape, model, **more)
    counts = compare_answers(name, state)
    compare_operators(name, state)
    return counts


def check_strides_and_paddings():
    counts = compare("strides", (8, 8, 3), "\n  - conv: {channels: 16, kernel: 4, stride: 2}\n"
                     "  - maxmin: {}\n  - conv: {channels: 18, kernel: 3, pad: zero}\n"
                     "  - groupsort: {size: 3}\n  - conv: {channels: 10, kernel: 4, stride: 2, bias: "
                     "false}\n  - maxmin\n  - dense: {units: 44}\n  - maxmin\n  - dense: {units: 5}")
    # what is compared must not be all or nothing
    assert any(0 < count < TEST for count in counts), counts


def check_every_kernel_side():
    for k in range(1, 6):
        pad = "cyclic" if k % 2 else "zero"
        compare(f"side{k}", (6, 5, 4), f"[conv: {{channels: 6, kernel: {k}}}, maxmin, "
                f"conv: {{channels: 4, kernel: {k}, pad: {pad}}}, groupsort: {{size: 4}}, "
                f"dense: {{units: {CLASSES}}}]", as_bytes=k == 3)


def check_channels_down_odd_and_one():
    compare("down", (6, 6, 9), "[conv: {channels: 7, kernel: 3}, conv: {channels: 1, kernel: 2}, "
            "conv: {channels: 3, kernel: 5, pad: zero}, conv: {channels: 9, kernel: 3, stride: 3}, "
            "groupsort: {size: 9}, dense: {units: 5, bias: false}]")


def check_normalised_input():
    compare("means", (4, 4, 3), "[conv: {channels: 14, kernel: 2, stride: 2}, maxmin, "
            "conv: {channels: 8, kernel: 2, pad: zero}, dense: {units: 5}]", as_bytes=True,
            inputs="{mean: [0.5, 0.25, 0.4], std: [0.5, 0.25, 0.75]}")


def check_a_wide_dense_layer_alone():
    compare("wide", (2, 3, 2), "[dense: {units: 20}, groupsort: {size: 5}, dense: {units: 5}]")


if __name__ == "__main__":
    main(globals())
