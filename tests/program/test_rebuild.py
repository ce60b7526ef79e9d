#!/usr/bin/python3
# run: label mpi timeout 300
"""Anyone can rebuild the network from state.h5: numpy alone, from the file's own configuration and
stored operators, agrees with `bcop certify` to the image, in long double within the rounding that it
states; and kernels follow from their blocks. With arguments STATE.h5 SPLIT it compares the
answers for that checkpoint of MNIST or CIFAR-10 instead."""
import csv
import gzip
import os
import shutil
import sys
import tempfile

import h5py
import numpy as np
import yaml

sys.path.insert(0, os.path.join(os.environ["BCOP_SOURCE_DIR"], "tests", "support"))
from program import SOURCE, bcop, config, main  # noqa: E402

EPS = ("36/255", "0.5", "1", "1.4")
COUNT, TEST, CLASSES = 96, 53, 5


REAL = np.longdouble


# ---- the network, in REAL from the file ----

def unshuffle(x, s):
    """Pixel-unshuffle of [N][C][H][W]: sub-pixel (dy, dx) of channel ch becomes ch s^2 + dy s + dx."""
    n, c, h, w = x.shape
    y = np.zeros((n, c * s * s, h // s, w // s), x.dtype)
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
    y = np.zeros((len(x), kernel.shape[0], height, width), x.dtype) + bias[None, :, None, None]
    for i in range(k):
        for j in range(k):
            window = padded[:, :, i:i + height, j:j + width]
            y += np.einsum("oc,nchw->nohw", kernel[:, :, i, j], window)
    return y


def group_sort(x, size):
    """Group i holds the channels i, i + C/size, ...; MaxMin is size 2."""
    groups = x.reshape(len(x), size, x.shape[1] // size, *x.shape[2:])
    return -np.sort(-groups, axis=1).reshape(x.shape)


def householder(x, angle):
    """Pairs i, i + C/2 with their component along (-sin t/2, cos t/2) made negative; t = angle + pi/2."""
    half = x.shape[1] // 2
    t = (angle + np.arccos(x.dtype.type(0))).reshape(half, *(1,) * (x.ndim - 2))
    normal = -np.sin(t / 2), np.cos(t / 2)
    twice = 2 * np.maximum(x[:, :half] * normal[0] + x[:, half:] * normal[1], 0)
    return np.concatenate([x[:, :half] - twice * normal[0], x[:, half:] - twice * normal[1]], axis=1)


def layers_of(file):
    """(index, kind, options, group of the file or None) of every layer of the stored configuration."""
    settings = yaml.safe_load(file.attrs["config"])
    for index, entry in enumerate(settings["model"]):
        kind, options = (entry, {}) if isinstance(entry, str) else next(iter(entry.items()))
        name = f"/layers/{index:02d}-{kind}"
        yield index, kind, options or {}, file[name] if name in file else None


def array(group, name, size=0):
    return np.asarray(group[name], "f8") if name in group else np.zeros(size)


def rebuild(path, images, real=np.float64):
    """Logits of images [N][H][W][C]; the network scales by the float32 numbers of mean and 1/std."""
    with h5py.File(path, "r") as file:
        settings = yaml.safe_load(file.attrs["config"])
        mean, std = (np.asarray(settings["input"][key], "f8") for key in ("mean", "std"))
        scale = (1 / std).astype("f4").astype(real)
        x = np.moveaxis((images.astype(real) - mean.astype("f4")) * scale, 3, 1)
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
            elif kind == "householder":
                x = householder(x, array(group, "angle"))
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


def margins_of(state, images, labels, real=REAL):
    logits = rebuild(state, images, real)
    own = logits[np.arange(len(labels)), labels]
    logits[np.arange(len(labels)), labels] = -np.inf
    return own - logits.max(axis=1)


def real_of(eps):
    return np.divide(*map(float, (eps + "/1").split("/")[:2]))


def last_weight(state):
    """The last layer's weight when its rows are normalised, else None."""
    with h5py.File(state, "r") as file:
        *_, (_, _, options, group) = layers_of(file)
        return array(group, "weight").astype(REAL) if options.get("normalize") == "rows" else None


def stretches(state, labels):
    """sqrt(2) over the distances of the rows of each label and every class; 1 if they are orthonormal."""
    weight = last_weight(state)
    if weight is None:
        return 1
    distance = np.sqrt(((weight[labels][:, None] - weight[None]) ** 2).sum(axis=2))
    return np.sqrt(REAL(2)) / np.where(distance > 0, distance, 1)


def scaled_margins_of(state, images, labels):
    """The margins that certify as much with an orthonormal last layer."""
    logits, one = rebuild(state, images, REAL), np.arange(len(labels))
    gaps = (logits[one, labels][:, None] - logits) * stretches(state, labels)
    gaps[one, labels] = np.inf
    return gaps.min(axis=1)


def last_bound(name, state):
    """What margins are not divided by."""
    if last_weight(state) is None:
        return 1
    return bcop("inspect", f"checkpoints/{name}", "--json").json["layers"][-1]["lipschitz"]


def compare_answers(name, state):
    got = bcop("certify", f"checkpoints/{name}", "--eps", ",".join(EPS), "--per-image", f"{name}.csv",
               "--json", ranks=2).json
    with open(f"{name}.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with h5py.File(f"{name}-test.h5", "r") as file:
        images, labels = file["x"][()], file["y"][()]
    if images.dtype == np.uint8:
        images = images.astype("f4") / np.float32(255)
    margin = margins_of(state, images, labels)
    assert len(margin) == len(rows) == TEST == got["examples"]
    assert [int(row["label"]) for row in rows] == list(labels)
    assert [int(row["index"]) for row in rows] == list(range(TEST))
    rounding = np.array([float(row["rounding"]) for row in rows])
    apart = np.abs(np.array([float(row["margin"]) for row in rows]) - margin)
    assert (apart <= rounding).all() and rounding.max() == got["rounding"] < 1e-8
    assert apart.max() > 0, "nothing is rounded?"
    assert abs(round(got["clean"] * TEST) - (margin > 0).sum()) <= (np.abs(margin) < 1e-5).sum()
    scaled = scaled_margins_of(state, images, labels)
    constant = got["lipschitz"] / REAL(last_bound(name, state))
    counts = [(margin > 0).sum()]
    for key in EPS:
        certified = scaled > np.sqrt(REAL(2)) * constant * real_of(key)
        assert got["certified"][key] == certified.sum() / TEST, (name, key)
        assert [float(row["radius"]) > real_of(key) for row in rows] == list(certified), (name, key)
        float32 = sum(float(row["radius_float32"]) > real_of(key) for row in rows)
        assert got["certified_float32"][key] == float32 / TEST <= got["certified"][key]
        counts.append(certified.sum())
    return counts


def compare_operators(name, state):
    """Kernels by definition, and the reported bounds against the singular values."""
    layers = bcop("inspect", f"checkpoints/{name}", "--json").json["layers"]
    product = 1.0
    with h5py.File(state, "r") as file:
        settings = yaml.safe_load(file.attrs["config"])
        for index, kind, options, group in layers_of(file):
            bound, slack = layers[index]["lipschitz"], 1e-4
            if kind == "conv":
                kernel = array(group, "kernel")
                height, width = layers[index]["out"][:2]
                own = kernel_of(group["blocks"], *kernel.shape[:3])
                norm = conv_norm(kernel, height, width, options.get("pad") == "zero")
            elif kind == "dense" and options.get("normalize") == "rows":
                kernel = array(group, "weight")
                own = np.concatenate([array(group["blocks"], f"W{i}") for i in range(len(kernel))], 1).T
                assert np.abs(np.linalg.norm(kernel, axis=1) - 1).max() < 5e-6
                norm = np.linalg.norm(kernel, 2)
                slack = 0.3 * norm  # the general bound is loose
            elif kind == "dense":
                kernel, own = array(group, "weight"), array(group["blocks"], "W")
                own = own if own.shape == kernel.shape and len(kernel) > kernel.shape[1] else own.T
                norm = np.linalg.norm(kernel, 2)
            else:
                assert bound == 1 and (group is None or list(group) == ["angle"])
                continue
            assert np.abs(kernel - own).max() < 1e-6, f"{name}: layer {index}"
            assert norm <= bound <= norm + slack, (name, index, norm, bound)
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


def check_householder_and_normalised_rows():
    # a large step size for plain parameters, so that the angles leave zero
    counts = compare("rows", (6, 6, 3), "[conv: {channels: 8, kernel: 3}, householder, dense: {units: "
                     "20}, householder, dense: {units: 5, normalize: rows}]",
                     inputs="{mean: [0.5], std: [0.8]}")
    assert any(0 < count < TEST for count in counts), counts
    with h5py.File("checkpoints/rows/latest/state.h5", "r") as file:
        assert np.abs(file["layers/01-householder/angle"][()]).max() > 0.02
    compare("few", (2, 2, 1), "[dense: {units: 5, normalize: rows}]")


def check_the_kept_file_is_read():
    """The seed of fuzz_state: a target that refuses its seed at once finds nothing."""
    kept = os.path.join(os.environ["BCOP_SOURCE_DIR"], "tests", "fuzz", "corpus", "state", "dense")
    os.mkdir("kept")
    shutil.copy(kept, "kept/state.h5")
    layers = bcop("inspect", "kept/state.h5", "--json").json["layers"]
    assert [(layer["kind"], layer["out"]) for layer in layers] == [("dense", [1, 1, 2])]


def check_a_wide_dense_layer_alone():
    compare("wide", (2, 3, 2), "[dense: {units: 20}, groupsort: {size: 5}, dense: {units: 5}]")


# ---- real images ----

def idx(path):
    with (gzip.open if path.endswith(".gz") else open)(path, "rb") as file:
        content = file.read()
    sizes = np.frombuffer(content, ">u4", content[3], 4)
    return np.frombuffer(content, "u1", -1, 4 + 4 * content[3]).reshape(sizes)


def read_split(data, split):
    """Images as bytes [N][H][W][C] and labels of the configuration's data."""
    if data["kind"] == "mnist":
        parts = []
        for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
            name = os.path.join(data["dir"], ("t10k-" if split == "test" else "train-") + kind)
            parts.append(idx(name if os.path.exists(name) else name + ".gz"))
        images, labels = parts[0][..., None], parts[1]
    else:
        names = ["test_batch"] if split == "test" else [f"data_batch_{i}" for i in range(1, 6)]
        files = [np.fromfile(os.path.join(data["dir"], f"{name}.bin"), "u1") for name in names]
        records = np.concatenate(files).reshape(-1, 3073)
        images = np.moveaxis(records[:, 1:].reshape(-1, 3, 32, 32), 1, 3)
        labels = records[:, 0]
    keep = slice(len(labels) - data["holdout"], None) if split == "holdout" else slice(None)
    return images[keep], labels[keep]


def compare_checkpoint(state, split):
    """Clean and certified accuracy from the file and the images alone, to the image."""
    with h5py.File(state, "r") as file:
        data = yaml.safe_load(file.attrs["config"])["data"]
    images, labels = read_split(data, split)
    with tempfile.NamedTemporaryFile("r", suffix=".csv") as file:
        got = bcop("certify", state, "--split", split, "--eps", ",".join(EPS), "--per-image", file.name,
                   "--json", ranks=2, timeout=600).json
        rows = list(csv.DictReader(file))
    images = images.astype("f4") / np.float32(255)
    margin = np.concatenate([margins_of(state, images[i:i + 100], labels[i:i + 100], np.float64)
                             for i in range(0, len(images), 100)])
    assert len(rows) == len(margin) == got["examples"]
    for row, m in zip(rows, margin):  # float64 here too: the bound holds for either
        assert abs(float(row["margin"]) - m) <= 2 * float(row["rounding"]), (row, m)
    assert abs(round(got["clean"] * len(rows)) - (margin > 0).sum()) <= (np.abs(margin) < 1e-5).sum()
    line = f"{state}, {split}: clean {(margin > 0).mean()}"
    for key in EPS:
        count = (margin > np.sqrt(2) * got["lipschitz"] * real_of(key)).sum()
        assert round(got["certified"][key] * len(rows)) == count, (key, got["certified"][key], count)
        line += f", {count / len(rows)} at {key}"
    print(line)


def check_mnist_where_it_is():
    folder = os.path.join(SOURCE, "data", "mnist")
    if not os.path.exists(os.path.join(folder, "t10k-images-idx3-ubyte")):
        print("no MNIST here: not compared")
        return
    bcop("train", os.path.join(SOURCE, "configs", "mnist-small.yaml"), "--set", f"data.dir={folder}",
         "--run", "mnist", "--max-steps", 60, ranks=2)
    compare_checkpoint("mnist/latest/state.h5", "holdout")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        compare_checkpoint(sys.argv[1], sys.argv[2])
    else:
        main(globals())
