#!/usr/bin/python3
# run: label mpi timeout 300
"""bcop export: both file formats hold the checkpoint's operators bit for bit, numpy alone computes the
network and its certificates from them, and the Python file is a program without bcop. That the
program computes the same in PyTorch is test_export_in_torch.py's."""
import ast
import json
import os
import sys

import h5py
import numpy as np

for folder in ("support", "program"):
    sys.path.insert(0, os.path.join(os.environ["BCOP_SOURCE_DIR"], "tests", folder))
from program import bcop, config, fails, main  # noqa: E402
from test_rebuild import rebuild  # noqa: E402


def trained(name="net", **sections):
    path = config(name, **sections)
    bcop("train", path, "--set", "train.epochs=1", ranks=2)
    return f"checkpoints/{name}"


def read_safetensors(path):
    """By the letter of the format."""
    with open(path, "rb") as file:
        content = file.read()
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0 and content[8:9] == b"{"
    header, data = json.loads(content[8:8 + length]), content[8 + length:]
    about, arrays, end = header.pop("__metadata__"), {}, 0
    assert all(isinstance(value, str) for value in about.values())
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        assert set(entry) == {"dtype", "shape", "data_offsets"}
        begin, now = entry["data_offsets"]
        kind = {"F32": "<f4", "F64": "<f8"}[entry["dtype"]]
        arrays[name] = np.frombuffer(data[begin:now], kind).reshape(entry["shape"])
        assert begin == end, "no holes"
        end = now
    assert end == len(data)
    return arrays, about


def read_hdf5(path):
    arrays = {}

    def take(name, item):
        if isinstance(item, h5py.Dataset):
            arrays[name.replace("/", ".")] = item[()]

    with h5py.File(path, "r") as file:
        file.visititems(take)
        about = {key: value.decode() if isinstance(value, bytes) else value
                 for key, value in file.attrs.items()}
    return arrays, about


def check_both_formats_hold_the_operators():
    run = trained(input="{mean: [0.5, 0.25, 0.4], std: [0.5, 0.25, 0.75]}")
    for ranks, name in ((None, "a.safetensors"), (2, "b.safetensors"), (None, "c.h5"), (3, "d.h5")):
        bcop("export", run, name, ranks=ranks)
        assert os.path.exists(os.path.splitext(name)[0] + ".py")
    arrays, about = read_safetensors("a.safetensors")
    with open("a.safetensors", "rb") as one, open("b.safetensors", "rb") as other:
        assert one.read() == other.read()
    inspected = bcop("inspect", run, "--json").json
    wanted = {"format": "bcop-export", "version": 1, "name": "net", "step": inspected["step"],
              "config": inspected["config"], "classes": 4, "input_height": 8, "input_width": 8,
              "input_channels": 3, "lipschitz": inspected["lipschitz"],
              "input_scale": inspected["input_scale"]}
    for key, value in wanted.items():
        assert type(value)(about[key]) == value, key
    with h5py.File(f"{run}/latest/state.h5", "r") as state:
        stored = {f"layers.{layer}.{name}": group[name][()] for layer, group in state["layers"].items()
                  for name in group if name != "blocks"}
    for name in ("c.h5", "d.h5"):
        others, said = read_hdf5(name)
        assert {key: str(value) for key, value in said.items() if not isinstance(value, float)} == {
            key: value for key, value in about.items() if not isinstance(said[key], float)}
        assert all(said[key] == float(about[key]) for key in ("lipschitz", "input_scale"))
        assert set(others) == set(arrays) == set(stored) | {
            "input.mean", "input.inverse_std", "certificate.pair"}
        for key, array in arrays.items():
            assert array.dtype == others[key].dtype and np.array_equal(array, others[key]), key
    for key, array in stored.items():
        assert np.array_equal(arrays[key], array), key
    assert np.array_equal(arrays["input.mean"], np.array([0.5, 0.25, 0.4], "f4"))
    assert np.array_equal(arrays["input.inverse_std"], np.array([2, 4, 1 / 0.75], "f4"))


def check_numpy_computes_the_same():
    run = trained()
    bcop("export", run, "net.h5")
    images = np.random.default_rng(1).uniform(0, 1, (40, 8, 8, 3)).astype("f4")
    with h5py.File("x.h5", "w") as file:
        file["x"] = images
    told = bcop("predict", run, "x.h5", "--json").json["images"]
    logits = rebuild("net.h5", images)
    apart = np.abs(logits - np.array([image["logits"] for image in told])).max()
    assert apart < 1e-5, apart
    pair = read_hdf5("net.h5")[0]["certificate.pair"]
    for z, image in zip(logits, told):
        label = z.argmax()
        others = np.arange(4) != label
        radius = ((z[label] - z[others]) / pair[label, others]).min()
        assert image["label"] == label and abs(image["radius"] - radius) < 1e-5


def check_the_program_is_stand_alone():
    run = trained()
    os.mkdir("out")
    bcop("export", run, "out/net.safetensors", ranks=2)
    with open("out/net.py", encoding="utf-8") as file:
        tree = ast.parse(file.read())
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import)
               for alias in node.names} | {node.module for node in ast.walk(tree)
                                           if isinstance(node, ast.ImportFrom)}
    assert modules == {"json", "os", "torch", "torch.nn.functional"}, modules
    defined = {node.name for node in ast.walk(tree)
               if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    assert {"Network", "load", "read", "certified", "radius"} <= defined


def check_nothing_is_overwritten():
    run = trained()
    for name, other in (("net.h5", "net.py"), ("net.safetensors", "net.py"), ("other.py", "other.h5")):
        with open(name, "w", encoding="utf-8") as file:
            file.write("mine")
        out = name if name != "other.py" else "other.h5"
        fails(73, "export", run, out, message=name, ranks=(None, 2))
        with open(name, encoding="utf-8") as file:
            assert file.read() == "mine"
        assert not os.path.exists(other)
        os.remove(name)
    assert sorted(os.listdir()) == ["checkpoints", "net.yaml"]


def check_errors():
    run = trained()
    fails(64, "export", run, message="OUT.safetensors")
    fails(64, "export", run, "net.onnx", message=["net.onnx", ".safetensors or .h5"])
    fails(64, "export", run, ".h5", message=".h5", ranks=(None,))
    fails(64, "export", run, "a.h5", "b.h5", message="b.h5", ranks=(None,))
    fails(66, "export", "nothing", "net.h5", message="nothing", ranks=(None, 2))
    for name in ("no/net.h5", "no/net.safetensors"):
        fails(73, "export", run, name, message="no/net.py", ranks=(None, 2))
    assert sorted(os.listdir()) == ["checkpoints", "net.yaml"]


main(globals())
