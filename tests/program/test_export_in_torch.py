#!/usr/bin/python3
# run: label mpi timeout 300
"""The exported Python file in PyTorch: the same logits and the same certified accuracy as ours, for
every kind of layer, and on 1,000 hold-out images of Fashion-MNIST."""
import gzip
import importlib.util
import os
import sys

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.environ["BCOP_SOURCE_DIR"], "tests", "support"))
from program import CONFIGS, bcop, config, main  # noqa: E402

FASHION = "/usr/share/datasets/fashion-mnist"
if importlib.util.find_spec("torch") is None:
    print("SKIP: PyTorch is not installed (Debian: python3-torch)")
    sys.exit(77)
import torch  # noqa: E402

torch.set_num_threads(1)


def load(path):
    """The module beside the exported file."""
    python = os.path.splitext(path)[0] + ".py"
    spec = importlib.util.spec_from_file_location("exported", python)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load()


def compare(run, images, labels, ending, eps):
    """Images [N,H,W,C], float32. Returns the certified accuracies."""
    name = f"{os.path.basename(run)}{ending}"
    bcop("export", run, name)
    with h5py.File("x.h5", "w") as file:
        file["x"] = images
    told = bcop("predict", run, "x.h5", "--json").json
    network = load(name)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    with torch.no_grad():
        logits = network(x).numpy()
        ours = np.array([image["logits"] for image in told["images"]])
        assert logits.shape == ours.shape and logits.dtype == np.float32
        assert np.abs(logits - ours).max() < 1e-4, np.abs(logits - ours).max()
        assert network.lipschitz == told["lipschitz"]
        network = network.double()
        right = network(x.double()).argmax(dim=1).numpy() == labels
        radius = network.radius(x.double()).numpy()
        certified = [int((right & network.certified(x.double(), e).numpy()).sum()) for e in eps]
    stated = np.array([image["radius"] for image in told["images"]])
    assert np.abs(radius - stated).max() < 1e-5
    own = np.array([image["label"] for image in told["images"]]) == labels
    assert certified == [int((own & (stated > e)).sum()) for e in eps], (certified, eps)
    return certified


def check_every_kind_of_layer():
    random = np.random.default_rng(2)
    nets = {
        "strides": "[conv: {channels: 16, kernel: 4, stride: 2}, maxmin, conv: {channels: 18, kernel: "
                   "3, pad: zero}, groupsort: {size: 3}, conv: {channels: 10, kernel: 4, stride: 2, "
                   "bias: false}, maxmin, dense: {units: 44}, maxmin, dense: {units: 4, bias: false}]",
        "even": "[conv: {channels: 5, kernel: 2}, conv: {channels: 8, kernel: 4, pad: zero}, maxmin, "
                "conv: {channels: 6, kernel: 5}, groupsort: {size: 6}, dense: {units: 4}]",
        "larger": "[conv: {channels: 8, kernel: 8, stride: 8}, maxmin, conv: {channels: 8, kernel: 7}, "
                  "maxmin, conv: {channels: 6, kernel: 4}, dense: {units: 4}]",
        "rows": "[conv: {channels: 8, kernel: 3}, householder, dense: {units: 12}, householder, dense: "
                "{units: 4, normalize: rows}]",
        "maps": "[conv: {channels: 8, kernel: 4, stride: 4}, maxmin, conv: {channels: 1, kernel: 3}]",
    }
    for name, model in nets.items():
        path = config(name, model=model, input="{mean: [0.5, 0.25, 0.4], std: [0.5, 0.25, 0.75]}")
        bcop("train", path, "--set", "train.epochs=1", ranks=2)
        images = random.uniform(0, 1, (64, 8, 8, 3)).astype("f4")
        labels = random.integers(0, 4, 64)
        for ending in (".safetensors", ".h5"):
            compare(f"checkpoints/{name}", images, labels, ending, (0.001, 0.01, 0.1))
            os.remove(f"{name}.py")


def check_thousand_images_of_the_hold_out():
    if not os.path.isdir(FASHION):
        print(f"left out: there is no {FASHION}")
        return
    bcop("train", os.path.join(CONFIGS, "fashion-small.yaml"), "--set", f"data.dir={FASHION}",
         "--set", "data.holdout=1000", "--set", "train.epochs=1", "--max-steps", 60, "--run", "fashion",
         ranks=2)
    with gzip.open(f"{FASHION}/train-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), "u1", offset=16).reshape(-1, 28, 28, 1)[-1000:]
    with gzip.open(f"{FASHION}/train-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), "u1", offset=8)[-1000:]
    images = pixels.astype("f4") / np.float32(255)
    eps = ("36/255", "0.3")
    counts = compare("fashion", images, labels, ".safetensors", (36 / 255, 0.3))
    told = bcop("certify", "fashion", "--split", "holdout", "--eps", ",".join(eps), "--json").json
    assert told["examples"] == 1000 and 100 < counts[1] < counts[0] < 1000, counts
    assert [round(1000 * told["certified"][key]) for key in eps] == counts, (told, counts)


main(globals())
