#!/usr/bin/python3
# run: label fault timeout 600
"""Bad input of every kind: one error line that names the place, the contract's exit code, without a
hang, and nothing written or lost; alone, and a part of it on four ranks."""
import glob
import gzip
import hashlib
import itertools
import json
import os
import re
import shutil
import struct
import sys

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.environ["BCOP_SOURCE_DIR"], "tests", "support"))
import sealed  # noqa: E402
from program import bcop, config, fails, main, metrics  # noqa: E402

# When a rank has left with an error mpirun ends the others, here without its grace of a second or two.
os.environ["OMPI_MCA_odls_base_sigkill_timeout"] = "0"

SMALL = {"model": "[dense: {units: 10}]", "train": "{batch: 8, lanes: 4, epochs: 1}"}
SYNTHETIC = "{kind: synthetic, height: 4, width: 4, channels: 3, classes: 10, count: 64, test_count: 8}"


def tree():
    """Every file, folder and link below the current folder with its content."""
    found = {}
    for folder, folders, files in os.walk("."):
        for name in folders + files:
            path = os.path.join(folder, name)
            if os.path.islink(path):
                found[path] = os.readlink(path)
            elif os.path.isfile(path):
                with open(path, "rb") as file:
                    found[path] = hashlib.sha256(file.read()).hexdigest()
            else:
                found[path] = "folder"
    return found


CALLS = itertools.count()


def refused(code, *arguments, message, ranks=None):
    """program.fails, alone and, of cases that nothing else is said of, each eighth on four ranks too:
    a case of every place where ranks must agree. No file may be made, changed or removed."""
    if ranks is None:
        ranks = (None,) if next(CALLS) % 8 else (None, 4)
    before = tree()
    fails(code, *arguments, message=message, ranks=ranks, timeout=60)
    after = tree()
    assert before == after, f"changed: {sorted(set(before.items()) ^ set(after.items()))}"


def write(path, content):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def alter(path, change):
    """Replaces a file's bytes by change(bytes)."""
    write(path, bytes(change(bytearray(read(path)))))


def flip(content, at, bit=1):
    content[at] ^= bit
    return content


# ---- data ----

NAMES = {"images": "{}-images-idx3-ubyte", "labels": "{}-labels-idx1-ubyte"}


def idx(folder, part, kind, zipped, values):
    """One IDX file; values None: good ones."""
    if values is None:
        shape = (24, 4, 4) if kind == "images" else (24,)
        count = int(np.prod(shape))
        values = struct.pack(f">{len(shape) + 1}I", 0x800 + len(shape), *shape) + bytes(
            i % 10 for i in range(count))
    name = os.path.join(folder, NAMES[kind].format(part))
    if zipped:
        write(name + ".gz", gzip.compress(values))
    else:
        write(name, values)


def mnist(folder, zipped=False, bad=None, values=None):
    """A folder of good files, one of which is replaced."""
    for part in ("train", "t10k"):
        for kind in ("images", "labels"):
            own = values if bad == (part, kind) else None
            idx(folder, part, kind, zipped, own)


def check_idx_files():
    good = {kind: None for kind in NAMES}
    for zipped in (False, True):
        mnist("good", zipped)
        path = config("good", data="{kind: mnist, dir: good}", **SMALL)
        bcop("train", path, "--dry-run", ranks=4 if zipped else None)
        suffix = ".gz" if zipped else ""
        for kind, name in NAMES.items():
            content = read("good/" + name.format("train") + suffix)
            good[kind] = gzip.decompress(content) if zipped else content
        shutil.rmtree("good")
    images, labels = good["images"], good["labels"]
    header = struct.Struct(">4I")
    huge = header.pack(0x803, 0xffffffff, 4096, 4096) + images[16:]
    cases = [
        ("images", images[:-1], False, "400 bytes, the file has 399 (truncated)"),
        ("images", images[:-1], True, "400 bytes, the file has 399 (truncated)"),
        ("images", images[:9], False, "IDX header alone has 16"),
        ("images", images + b"\0", False, "(padded)"),
        ("images", images + b"\0", True, "(padded)"),
        ("images", b"", False, "empty"),
        ("images", b"", True, "empty"),
        ("images", labels, False, ["magic number 0x00000801", "0x00000803"]),
        ("images", b"\1" + images[1:], True, "magic number 0x01000803"),
        ("images", header.pack(0x803, 0, 4, 4), False, "dimension 0 is 0"),
        ("images", header.pack(0x803, 1, 5000, 1) + bytes(5000), False, "dimension 1 is 5000"),
        ("images", huge, True, "truncated"),
        ("images", header.pack(0x803, 12, 8, 4) + images[16:], False, ["12 images", "24 labels"]),
        ("labels", labels[:-1], False, "truncated"),
        ("labels", labels + b"\3", True, "padded"),
        ("labels", labels[:-1] + b"\12", False, "label 23 is 10, must be 0 to 9"),
        ("labels", images, True, "magic number 0x00000803"),
    ]
    for number, (kind, values, zipped, text) in enumerate(cases):
        folder = f"idx{number}"
        mnist(folder, zipped, ("train", kind), values)
        path = config(folder, data=f"{{kind: mnist, dir: {folder}}}", **SMALL)
        file = f"{folder}/{NAMES[kind].format('train')}{'.gz' if zipped else ''}"
        texts = [text] if isinstance(text, str) else text
        refused(65, "train", path, message=[file, *texts])


def check_gzip_files():
    packed = gzip.compress(bytes(400))
    for number, (content, text) in enumerate([
            (packed[:-9], "cut short"), (packed[:7], "cut short"), (b"not gzip at all", "damaged"),
            (bytes(flip(bytearray(packed), len(packed) - 6)), "damaged"), (b"", "empty")]):
        folder = f"zip{number}"
        mnist(folder, zipped=True)
        file = f"{folder}/train-images-idx3-ubyte.gz"
        write(file, content)
        path = config(folder, data=f"{{kind: mnist, dir: {folder}}}", **SMALL)
        refused(65, "train", path, message=[file, text])


def check_missing_and_odd_files():
    mnist("some")
    path = config("some", data="{kind: mnist, dir: some}", **SMALL)
    os.remove("some/train-labels-idx1-ubyte")
    refused(66, "train", path, message="some/train-labels-idx1-ubyte", ranks=(None, 4))
    os.mkdir("some/train-labels-idx1-ubyte")
    refused(65, "train", path, message="not a regular file", ranks=(None,))
    os.rmdir("some/train-labels-idx1-ubyte")
    os.mkfifo("some/train-labels-idx1-ubyte")  # opening it must not wait for a writer
    refused(65, "train", path, message="not a regular file", ranks=(None, 4))
    path = config("none", data="{kind: mnist, dir: nowhere}", **SMALL)
    refused(66, "train", path, message="nowhere/train-images-idx3-ubyte")
    # a bad test file is bad data; a missing one is not wanted
    mnist("test", bad=("t10k", "labels"), values=b"\0\0\10\1\0\0\0\30" + b"\12" * 24)
    path = config("test", data="{kind: mnist, dir: test}", **SMALL)
    refused(65, "train", path, message="test/t10k-labels-idx1-ubyte: label 0 is 10", ranks=(None, 4))
    # images of another shape than the training's
    mnist("shape", bad=("t10k", "images"),
          values=struct.pack(">4I", 0x803, 24, 2, 2) + bytes(96))
    path = config("shape", data="{kind: mnist, dir: shape}", **SMALL)
    refused(65, "train", path, message="differ in shape", ranks=(None, 4))


def cifar(folder, bad=None, content=None):
    record = bytes([3]) + bytes(range(256)) * 12
    for name in [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]:
        write(f"{folder}/{name}", content if name == bad else record * 3)
    return config(folder, data=f"{{kind: cifar10, dir: {folder}}}", **SMALL)


def check_cifar10_files():
    bcop("train", cifar("good"), "--dry-run")
    record = bytes([9]) + bytes(3072)
    cases = [
        ("data_batch_1.bin", b"", "empty"),
        ("data_batch_2.bin", record[:-1], "3072 bytes, not a whole number of 3073-byte records"),
        ("data_batch_3.bin", record + b"\0", "3074 bytes, not a whole number"),
        ("data_batch_4.bin", record + b"\12" + bytes(3072), "label 1 is 10, must be 0 to 9"),
        ("test_batch.bin", b"\377" + bytes(3072), "label 0 is 255"),
    ]
    for number, (name, content, text) in enumerate(cases):
        path = cifar(f"set{number}", name, content)
        refused(65, "train", path, message=[f"set{number}/{name}", text])
    path = cifar("hole")
    os.remove("hole/data_batch_5.bin")
    refused(66, "train", path, message="hole/data_batch_5.bin", ranks=(None, 4))


def hdf5_set(name, x=None, y=None, change=None):
    """Writes an hdf5 set and a configuration that trains on it."""
    x = np.linspace(0, 1, 24 * 48, dtype="f4").reshape(24, 4, 4, 3) if x is None else x
    y = np.arange(24, dtype="i4") % 10 if y is None else y
    with h5py.File(f"{name}.h5", "w") as file:
        if x is not False:
            file["x"] = x
        if y is not False:
            file["y"] = y
        if change:
            change(file)
    return config(name, data=f"{{kind: hdf5, train: {name}.h5, classes: 10}}", **SMALL)


def external(file):
    del file["x"]
    file.create_dataset("x", (24, 4, 4, 3), "f4", external=[("/etc/passwd", 0, 4608)])


def soft(file):
    file.move("x", "z")
    file["x"] = h5py.SoftLink("/z")


def other_file(file):
    del file["x"]
    file["x"] = h5py.ExternalLink("good.h5", "/x")


def virtual(file):
    del file["x"]
    layout = h5py.VirtualLayout((24, 4, 4, 3), "f4")
    layout[:] = h5py.VirtualSource("good.h5", "x", (24, 4, 4, 3))
    file.create_virtual_dataset("x", layout)


def promise(file):
    del file["x"]
    file.create_dataset("x", (1 << 20, 64, 64, 3), "f4", chunks=(1, 64, 64, 3), compression="gzip")


def check_hdf5_files():
    bcop("train", hdf5_set("good"), "--dry-run")
    nan = np.zeros((24, 4, 4, 3), "f4")
    nan[7, 1, 2, 0] = np.nan
    infinite = np.where(np.isnan(nan), -np.inf, nan).astype("f4")
    labels = np.arange(24) % 10
    cases = [
        ({"x": np.zeros((24, 48), "f4")}, "dataset x: must have 4 dimensions"),
        ({"x": np.zeros((24, 4, 4, 3), "f8")}, "dataset x: must be float32 or uint8"),
        ({"x": np.zeros((23, 4, 4, 3), "f4")}, "23 images in x, 24 labels in y"),
        ({"x": np.zeros((24, 4, 0, 3), "f4")}, "dataset x: dimension 2 is 0"),
        ({"x": nan}, "a value of example 7 is nan"),
        ({"x": infinite}, "a value of example 7 is -inf"),
        ({"x": False}, "dataset x: there is none"),
        ({"y": False}, "dataset y: there is none"),
        ({"y": np.where(labels == 4, 10, labels)}, "dataset y: label 4 is 10, must be 0 to 9"),
        ({"y": labels - 1}, "dataset y: label 0 is -1"),
        ({"y": labels.astype("f4")}, "dataset y: must be integers"),
        ({"y": labels.reshape(4, 6)}, "dataset y: must have 1 dimension"),
        ({"change": external}, "dataset x: external storage is not read"),
        ({"change": soft}, "dataset x: soft and external links are not followed"),
        ({"change": other_file}, "dataset x: soft and external links are not followed"),
        ({"change": virtual}, "dataset x: virtual datasets are not read"),
        ({"change": promise}, "dataset x: "),
    ]
    for number, (how, text) in enumerate(cases):
        path = hdf5_set(f"set{number}", **how)
        refused(65, "train", path, message=[f"set{number}.h5: ", text])
    path = hdf5_set("cut")
    alter("cut.h5", lambda content: content[:len(content) // 2])
    refused(65, "train", path, message="cut.h5: no HDF5 file, or damaged", ranks=(None, 4))
    write("cut.h5", "this is no HDF5 file")
    refused(65, "train", path, message="cut.h5: no HDF5 file, or damaged", ranks=(None,))
    os.remove("cut.h5")
    refused(66, "train", path, message="cut.h5", ranks=(None, 4))
    path = config("classes", data="{kind: hdf5, train: good.h5, classes: 9}", **SMALL)
    refused(65, "train", path, message="dataset y: label 9 is 9, must be 0 to 8", ranks=(None,))


# ---- the configuration ----

GOOD = f"""name: good
seed: 1
data: {SYNTHETIC}
model:
  - conv: {{channels: 6, kernel: 2}}
  - maxmin
  - dense: {{units: 10}}
loss: {{kind: hinge, eps: 0.5}}
train: {{batch: 8, lanes: 4, epochs: 1}}
"""


def edited(old, new):
    assert GOOD.count(old) == 1, old
    return GOOD.replace(old, new)


def check_configurations_that_do_not_parse():
    write("a.yaml", GOOD)
    bcop("train", "a.yaml", "--dry-run", ranks=4)
    deep = "deep: " + "[" * 9 + "]" * 9 + "\n"
    cases = [
        ("", "a.yaml:1:1: the configuration is empty"),
        ("- a\n- b\n", "a.yaml:1:1: the top level must be a map"),
        (GOOD + "extra: [1, 2\n", "a.yaml:11:"),
        (edited("seed: 1", "seed: \t1\n bad: x"), "a.yaml:3:"),
        (GOOD + "seed: 2\n", "a.yaml:10:1: seed: given twice (first in line 2)"),
        (edited("hinge, eps", "hinge, kind"), "a.yaml:8:21: loss.kind: given twice"),
        (edited("seed: 1", "seed: &one 1"), "a.yaml:2:7: seed: an anchor (&) is not allowed"),
        (edited("seed: 1", "seed: *one"), "a.yaml:2:7: seed: an alias (*) is not allowed"),
        (edited("seed: 1", "seed: !!int 1"), "a.yaml:2:7: seed: a tag (!) is not allowed"),
        (GOOD + "<<: {seed: 2}\n", "a.yaml:10:1: <<: unknown key"),
        (GOOD + deep, "a.yaml:10:14: deep[0][0][0][0][0][0][0]: nested deeper than 8"),
        (GOOD + "--- \nname: b\n", "more than one document"),
        ("%YAML 1.1\n---\n" + GOOD, "a.yaml:1:1: a line must not begin with %"),
        (GOOD.encode() + b"# \xff\xfe\n", "a.yaml:10:3: "),
        (edited("name: good", 'name: "go\\0od"'), "a.yaml:1:7: name: a NUL character"),
        ("#" * (1 << 20) + "\n" + GOOD, "a.yaml:1:1: larger than 1 MiB"),
        (edited("name: good", f"{'k' * 65}: 1"), "a.yaml:1:1: a key is longer than 64 bytes"),
        (edited("seed: 1", "? [a]\n: 1"), "a key must not be a list or a map"),
        (GOOD + f"a: [{'1,' * 10001}]\n", "more than 10000 values"),
    ]
    for text, message in cases:
        write("a.yaml", text)
        refused(78, "train", "a.yaml", message=message)


def check_keys_and_values():
    cases = [
        ("seed: 1", "sead: 1", "a.yaml:2:1: sead: unknown key; did you mean 'seed'?"),
        ("{kind: hinge, eps: 0.5}", "{kind: hinge, epz: 0.5}",
         "a.yaml:8:21: loss.epz: unknown key; did you mean 'eps'?"),
        ("hinge, eps: 0.5", "hinge, eps: 0.5, offset: 1", "a.yaml:8:31: loss.offset: unknown key"),
        ("kernel: 2", "kernal: 2", "model[0].conv.kernal: unknown key; did you mean 'kernel'?"),
        ("- maxmin", "- maxmim", "a.yaml:6:5: model[1]: unknown layer 'maxmim'; did you mean 'maxmin'?"),
        ("hinge", "hing", "a.yaml:8:8: loss.kind: must be one of hinge, cross_entropy (got 'hing'); "
         "did you mean 'hinge'?"),
        (", eps: 0.5", "", "a.yaml:8:1: loss: 'eps' is required"),
        ("name: good\n", "", "a.yaml:1:1: 'name' is required"),
        ("name: good", "name: a/b", "a.yaml:1:1: name: only letters"),
        ("name: good", "name: ..", "a.yaml:1:1: name: only letters"),
        ("seed: 1", "seed: one", "a.yaml:2:1: seed: must be an integer"),
        ("seed: 1", 'seed: "1"', "a.yaml:2:1: seed: must be an integer"),
        ("seed: 1", "seed: -1", "a.yaml:2:1: seed: must be "),
        ("seed: 1", "seed: 99999999999999999999", "a.yaml:2:1: seed: "),
        ("seed: 1", "seed: [1]", "a.yaml:2:1: seed: must be an integer"),
        ("eps: 0.5", "eps: .nan", "a.yaml:8:21: loss.eps: must be a number"),
        ("eps: 0.5", "eps: 1e999", "a.yaml:8:21: loss.eps: "),
        ("loss: {kind: hinge, eps: 0.5}", "loss: hinge", "a.yaml:8:1: loss: must be a map"),
        ("- maxmin", "- 7", "a.yaml:6:5: model[1]: unknown layer '7'"),
        ("- maxmin", "- {maxmin: {}, dense: {units: 3}}", "a.yaml:6:5: model[1]: must be one layer"),
        ("channels: 6", "channels: 0", "a.yaml:5:12: model[0].conv.channels: must be "),
        ("epochs: 1", "epochs: yes", "train.epochs: must be an integer"),
    ]
    for old, new, message in cases:
        write("a.yaml", edited(old, new))
        refused(78, "train", "a.yaml", message=message)


def check_impossible_shapes():
    cases = [
        ("kernel: 2", "kernel: 3, stride: 2",
         "a.yaml:5:25: model[0].conv.kernel: must divide by stride 2 (got 3)"),
        ("kernel: 2", "kernel: 3, stride: 3",
         "a.yaml:5:36: model[0].conv.stride: must divide the map's sides 4 x 4 (got 3)"),
        ("kernel: 2", "kernel: 8",
         "a.yaml:5:25: model[0].conv.kernel: at most 7 times the stride 1 (got 8)"),
        ("units: 10", "units: 9", "a.yaml:7:5: model[2].dense: gives 9 outputs for 10 classes"),
        ("channels: 6", "channels: 7", "a.yaml:6:5: model[1]: 7 channels do not divide into groups of 2"),
        ("- maxmin", "- groupsort: {size: 4}",
         "a.yaml:6:5: model[1].groupsort: 6 channels do not divide into groups of 4"),
        ("lanes: 4", "lanes: 3", "a.yaml:9:19: train.lanes: must be a power of two (got 3)"),
        ("batch: 8", "batch: 10", "a.yaml:9:9: train.batch: must be a multiple of the 4 lanes (got 10)"),
        ("seed: 1", "input: {mean: [0, 0]}", "a.yaml:2:1: input: mean and std need one number or 3"),
        ("count: 64, ", "count: 64, holdout: 64, ", "data.holdout: 64 of 64 training examples"),
        ("batch: 8", "batch: 68", "train.batch: 68 is more than the 64 training images"),
        ("count: 64, ", "count: 64, holdout: 60, ", "train.batch: 8 is more than the 4 training images"),
    ]
    for old, new, message in cases:
        write("a.yaml", edited(old, new))
        refused(78, "train", "a.yaml", message=message)
    exact = bcop("train", "a.yaml", "--set", "model[0].conv.kernel=3", "--set",
                 "model[0].conv.stride=2", "--set", "data.holdout=0", code=78)
    assert exact.err == ("bcop: error: --set model[0].conv.kernel: must divide by stride 2 (got 3)\n")
    write("a.yaml", edited("kernel: 2", "kernel: 3, stride: 2"))
    exact = bcop("train", "a.yaml", code=78)
    assert exact.err == (
        "bcop: error: a.yaml:5:25: model[0].conv.kernel: must divide by stride 2 (got 3)\n")
    write("a.yaml", edited("lanes: 4", "lanes: 2"))
    refused(78, "train", "a.yaml", message="train.lanes: 2 lanes are too few for 4 ranks", ranks=(4,))
    write("a.yaml", GOOD)
    refused(78, "train", "a.yaml", "--set", "ortho.grid_rows=3", ranks=(4,),
            message="ortho.grid_rows: a grid of 3 process rows does not fit 4 ranks")
    bcop("train", "a.yaml", "--dry-run", ranks=2)


def check_assignments():
    write("a.yaml", GOOD)
    cases = [
        ("seed", "--set"), ("=1", "--set"), ("seed=", "seed: "), ("sead=1", "sead: unknown key"),
        ("loss.kind=hing", "loss.kind: must be one of"),
        ("model[7].dense.units=3", "model[7]"), ("model[0].conv.kernal=3", "did you mean 'kernel'"),
        ("seed=[1", "seed"), ("seed=*a", "seed: an alias"),
        ("loss={kind: hinge}", "loss: the value must be a scalar or a list"),
        ("seed.x=1", "seed"), ("loss..eps=1", "loss"),
    ]
    for text, message in cases:
        refused(78, "train", "a.yaml", "--set", text, message=["--set", message])


def check_places_that_are_no_configuration():
    os.mkdir("folder")
    write("file", "x")
    write("a.yaml", GOOD)
    before = tree()
    for ranks in (None, 4):
        got = bcop("train", "folder", ranks=ranks, code=None)
        assert got.code in (66, 74) and len(got.errors) == 1 and "folder" in got.errors[0], got.err
    assert tree() == before
    refused(66, "train", "nowhere/a.yaml", message="nowhere/a.yaml", ranks=(None, 4))
    refused(73, "train", "a.yaml", "--run", "file", message="file: is not a folder", ranks=(None, 4))
    refused(73, "train", "a.yaml", "--run", "file/run", message="file")
    if os.geteuid() != 0:
        os.chmod("a.yaml", 0)
        refused(77, "train", "a.yaml", message="a.yaml")
        os.chmod("a.yaml", 0o600)
        os.chmod("folder", 0o500)
        refused(77, "train", "a.yaml", "--run", "folder/run", message="folder/run")


# ---- checkpoints ----

def trained(name="net"):
    """A run with one checkpoint, step-00000008, with weights that moved."""
    path = config(name, data=SYNTHETIC, train="{batch: 8, lanes: 4, epochs: 2}",
                  model="[conv: {channels: 6, kernel: 2}, maxmin, dense: {units: 10}]")
    bcop("train", path, "--max-steps", 8, "--set", "checkpoint.keep=1")
    return path, f"checkpoints/{name}/step-00000008"


def offset_of(state, dataset):
    with h5py.File(state, "r") as file:
        return file[dataset].id.get_offset()


def refused_everywhere(path, step, message):
    """Every subcommand that reads the checkpoint refuses it."""
    refused(65, "inspect", step, "--verify", message=message)
    refused(65, "certify", step, "--eps", "0.1", message=message, ranks=(None,))
    refused(65, "eval", step, message=message, ranks=(4,))
    refused(65, "train", path, message=message)


def check_damaged_checkpoints():
    path, step = trained()
    state, names = f"{step}/state.h5", f"{step}/MANIFEST.json"
    good, good_names = read(state), read(names)
    bcop("inspect", step, "--verify", ranks=4)

    alter(state, lambda content: content[:len(content) // 2])
    refused_everywhere(path, step, [state, "its manifest says"])
    write(state, b"")
    refused_everywhere(path, step, [state, "has 0 bytes"])
    # the same length, so that the size gives nothing away
    write(state, b"\0" * len(good))
    refused_everywhere(path, step, [state, "differs from its hash"])

    for dataset in ("layers/00-conv/kernel", "layers/02-dense/bias"):
        write(state, bytes(flip(bytearray(good), offset_of_good(good, dataset), 4)))
        refused_everywhere(path, step, f"/{dataset} differs from its hash in bytes 0 to ")
    with_blocks = bytes(flip(bytearray(good), offset_of_good(good, "layers/00-conv/blocks/P1") + 2))
    write(state, with_blocks)
    refused(65, "train", path, message="/layers/00-conv/blocks/P1 differs from its hash")
    refused(65, "inspect", step, "--verify", message="blocks/P1 differs from its hash")
    write(state, good)

    for old, new, text in ((b'"bcop-checkpoint"', b'"bcop-checkpoinu"', "format"),
                           (b'"version": 1', b'"version": 3', "version"),
                           (b'{', b'[', ""), (b'"step": 8', b'"step": -', "")):
        assert old in good_names, old
        write(names, good_names.replace(old, new, 1))
        refused(65, "eval", step, message=[names, "checksum"])
    write(names, good_names)
    for change, text in (({"format": "bcop-checkpoinu"}, "format"), ({"version": 3}, "version"),
                         ({"step": -8}, "step"), ({"hashes": {}}, "places")):
        sealed.write(step, **change)
        refused_everywhere(path, step, [names, text])
        write(names, good_names)
    hashes = json.loads(good_names)["hashes"]
    hashes["/layers/00-conv/kernel"] = ["0123456789abcdef"]
    sealed.write(step, hashes=hashes)
    refused(65, "eval", step, message="/layers/00-conv/kernel differs from its hash")
    write(names, good_names[:len(good_names) // 2])
    refused_everywhere(path, step, names)
    write(names, good_names)

    # all is well again, and the run goes on
    bcop("inspect", step, "--verify")
    bcop("train", path, "--max-steps", 9)


def offset_of_good(good, dataset):
    write("good.h5", good)
    try:
        return offset_of("good.h5", dataset)
    finally:
        os.remove("good.h5")


def check_one_flipped_byte_of_any_dataset():
    _, step = trained()
    state = f"{step}/state.h5"
    good, missed = read(state), []
    with open(f"{step}/MANIFEST.json", encoding="utf-8") as file:
        names = sorted(json.load(file)["hashes"])
    for name in names:
        write(state, bytes(flip(bytearray(good), offset_of_good(good, name) + 1)))
        got = bcop("inspect", step, "--verify", code=None)
        if got.code != 65 or len(got.errors) != 1 or name not in got.errors[0]:
            missed.append((name, got.code))
    assert len(names) >= 6 and not missed, missed


def check_one_flipped_byte_of_the_manifest():
    path, step = trained()
    names = f"{step}/MANIFEST.json"
    good = read(names)
    for at in range(3, len(good), len(good) // 25):
        write(names, bytes(flip(bytearray(good), at)))
        before = tree()
        got = bcop("train", path, code=None)
        assert got.code == 65 and len(got.errors) == 1, (at, got.code, got.err)
        assert tree() == before, at
    write(names, good)


def check_no_manifest():
    path, step = trained()
    bcop("eval", step)
    os.remove(f"{step}/MANIFEST.json")
    assert bcop("eval", step, "--json", ranks=4).json["step"] == 8
    refused(65, "inspect", step, "--verify", message=[step, "MANIFEST.json"])
    assert bcop("inspect", step, "--json").json["hashes_ok"] is not True
    # the run cannot go on from it, and does not start anew beside it
    refused(65, "train", path, message="checkpoints/net: has checkpoint folders, but none is valid", ranks=(None, 4))


def check_foreign_hdf5_files():
    _, step = trained()
    os.mkdir("other")
    for bounds in ("v110", "earliest"):
        with h5py.File("other/state.h5", "w", libver=(bounds, "v110")) as file:
            file["x"] = np.zeros(3)
        refused(65, "eval", "other/state.h5", message="other/state.h5: ")
    with h5py.File(f"{step}/state.h5", "r") as good, h5py.File(
            "other/state.h5", "w", libver=("v110", "v110")) as file:
        for key in good.attrs:
            file.attrs.create(key, good.attrs[key], dtype=good.attrs.get_id(key).dtype)
        for key in good:
            good.copy(key, file)
    bcop("eval", "other", ranks=4)  # a good copy, made by others
    for change, text in [
            (lambda f: f.attrs.modify("version", np.int64(99)), "version 99"),
            (lambda f: f.__delitem__("layers/00-conv/kernel"), "/layers/00-conv/kernel: no such dataset"),
            (lambda f: f.move("layers/00-conv", "layers/09-conv"), "/layers/00-conv/kernel"),
            (lambda f: f["layers/02-dense/bias"].write_direct(np.full(10, np.nan, "f4")),
             "/layers/02-dense/bias is not finite"),
            (lambda f: f.attrs.__delitem__("config"), "config"),
            (lambda f: f.attrs.create("config", np.bytes_(b"name: [")), "did not find"),
            (lambda f: f.attrs.modify("input_height", np.int64(1 << 40)), "input_height"),
            (lambda f: f.attrs.modify("classes", np.int64(9)), "is for 4x4x3 and 9 classes"),
    ]:
        shutil.copyfile("other/state.h5", "kept.h5")
        with h5py.File("other/state.h5", "r+", libver=("v110", "v110")) as file:
            change(file)
        refused(65, "eval", "other", message=text)
        shutil.move("kept.h5", "other/state.h5")
    write("other/weights.h5", "x")
    refused(65, "eval", "other/weights.h5", message="other/weights.h5")


def check_a_kernel_altered_together_with_its_hash():
    path, step = trained()
    state = f"{step}/state.h5"
    with h5py.File(state, "r+", libver=("v110", "v110")) as file:
        kernel = file["layers/00-conv/kernel"]
        kernel[0, 0, 0, 0] += np.float32(1e-3)
    sealed.write(step)
    bcop("eval", step)
    refused(65, "inspect", step, "--verify", message="00-conv: the stored kernel differs from its blocks")
    bcop("train", path, "--dry-run")


def check_resume_from_a_bad_file():
    path, step = trained()
    bad = ["train", path, "--run", "new", "--resume"]
    refused(66, *bad, "nowhere", message="nowhere", ranks=(None, 4))
    os.mkdir("empty")
    refused(66, *bad, "empty", message="empty")
    write("text", "x")
    refused(65, *bad, "text", message="text", ranks=(None, 4))
    refused(64, "train", path, "--run", "new", "--resume", message="--resume needs a value")
    refused(64, *bad, step, "--init-from", step, message="exclude each other")
    refused(78, *bad, step, "--set", "model[0].conv.channels=8", message="model[0].conv.channels", ranks=(None, 4))
    refused(73, "train", path, "--resume", step, message="holds a run", ranks=(None, 4))
    refused(66, "train", path, "--run", "new", "--init-from", "nowhere", message="nowhere")
    refused(65, "train", path, "--run", "new", "--init-from", step, "--set",
            "model[0].conv.channels=8", message="/layers/00-conv/blocks")


def check_changed_training_data():
    x = np.linspace(0, 1, 24 * 48, dtype="f4").reshape(24, 4, 4, 3)
    path = hdf5_set("set")
    bcop("train", path, "--max-steps", 1)
    with open("checkpoints/set/step-00000001/MANIFEST.json", encoding="utf-8") as file:
        then = json.load(file)["data_fingerprint"]
    labels = np.arange(24, dtype="i4") % 10
    labels[[3, 4]] = labels[[4, 3]]
    pixels = x.copy()
    pixels[20, 0, 0, 0] += 1e-6
    for change in ({"y": labels}, {"x": pixels}, {"x": x[:-1], "y": np.arange(23) % 10}):
        hdf5_set("set", **change)
        refused(65, "train", path, message=["training data changed", f"was trained on {then}"])
    now = bcop("train", path, code=65).errors[0]
    found = re.findall(r"\b[0-9a-f]{16}\b", now)
    assert len(set(found)) == 2 and then in found, now
    hdf5_set("set")
    bcop("train", path, "--max-steps", 2, ranks=2)


# ---- divergence ----

def all_finite(run):
    """Every number of every checkpoint of the run."""
    states = glob.glob(f"{run}/step-*/state.h5")
    for state in states:
        bad = []
        with h5py.File(state, "r") as file:
            def look(name, item):
                if isinstance(item, h5py.Dataset) and not np.isfinite(item[()]).all():
                    bad.append(name)
            file.visititems(look)
        assert not bad, f"{state}: {bad} not finite"
    return len(states)


def diverges(path, run, ranks, *more):
    """Ends with 80 and one line; every checkpoint is finite and not of a step after the last whole
    one."""
    got = bcop("train", path, "--run", run, "--set", "checkpoint.every_minutes=1e-9", *more,
               ranks=ranks, code=80, timeout=60)
    assert len(got.errors) == 1, got.err
    assert re.search(r"step \d+: |/blocks/|Bjorck", got.errors[0]), got.err
    all_finite(run)
    assert not glob.glob(f"{run}/*.tmp")
    steps = [line["step"] for line in metrics(run)]
    last = max(steps, default=0)
    if last:
        assert os.readlink(f"{run}/latest") == f"step-{last:08d}"
        bcop("inspect", run, "--verify")
    return last


def check_divergence():
    x = np.linspace(0, 1, 24 * 48, dtype="f4").reshape(24, 4, 4, 3)
    one = x.copy()
    one[7] = 3e38
    path = hdf5_set("one", one)
    for ranks in (None, 4):
        last = diverges(path, f"one{ranks}", ranks)
        assert last < 3
    path = hdf5_set("all", x * np.float32(3e38))
    for ranks in (None, 4):
        assert diverges(path, f"all{ranks}", ranks, "--set", "optimizer.kind=sgd") == 0
    # a step that Bjorck cannot bring back in the iterations it may take
    path = hdf5_set("step")
    for ranks in (None, 4):
        diverges(path, f"step{ranks}", ranks, "--set", "optimizer.lr=10", "--set",
                 "ortho.max_iterations=1", "--set", "schedule.kind=constant")


def check_large_values_leave_no_state_that_cannot_be_read():
    x = np.linspace(0, 1, 24 * 48, dtype="f4").reshape(24, 4, 4, 3)
    for number, kind in enumerate(("adam", "adam-block", "sgd", "muon")):
        path = hdf5_set(f"large{number}", x * np.float32(1e25))
        got = bcop("train", path, "--set", f"optimizer.kind={kind}", code=None, timeout=60)
        assert got.code in (0, 80), (kind, got.code, got.err)
        all_finite(f"checkpoints/large{number}")


main(globals())
