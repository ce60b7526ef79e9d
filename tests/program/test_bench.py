#!/usr/bin/python3
# run: label mpi timeout 300
"""bcop bench: every row that is promised, every number a real one, and the command line. No check
looks at how long anything took."""
import math
import os
import re
import sys

sys.path.insert(0, os.path.join(os.environ["BCOP_SOURCE_DIR"], "tests", "support"))
from program import CONFIGS, bcop, config, fails, main  # noqa: E402

MACHINE = {"ortho": {"ortho_gflops"}, "conv": {"gemm_gflops", "copy_gbs"},
           "comm": {"latency_us", "bandwidth_gbs"}}
# what may be null, or 0
NO_NUMBER = {"owned", "shared", "grid", "gemm_step_ms", "gemm_update_ms", "paper_ms",
             "retraction_ms"}


def numbers(value, name=""):
    """Every number below value, with its key; asserts that nulls stand only where they may."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from numbers(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from numbers(inner, name)
    elif value is None:
        assert name in NO_NUMBER, name
    elif not isinstance(value, str):
        yield name, value


def measured(*names, ranks=None, extra=()):
    result = bcop("bench", *names, "--json", *extra, ranks=ranks)
    got = result.json
    assert set(got) == {"ranks", "blas", "mpi", "machine", *names}
    assert got["ranks"] == (ranks or 1)
    for key, number in numbers(got):
        assert math.isfinite(number) and (number > 0 or key == "without_core"), (key, number)
    wanted = {key for name in names for key in MACHINE[name]
              if name != "comm" or got["ranks"] > 1}
    assert set(got["machine"]) == wanted
    if wanted:
        line = re.search(r"^bcop: --machine (\S+)$", result.err, re.MULTILINE).group(1)
        pairs = dict(pair.split("=") for pair in line.split(","))
        assert set(pairs) == wanted
        for key, text in pairs.items():
            assert abs(float(text) - got["machine"][key]) <= 1e-3 * got["machine"][key]
    return got


def check_ortho():
    for ranks, size in ((None, 128), (1, 128), (2, 512)):
        rows = measured("ortho", ranks=ranks, extra=("--max-size", size))["ortho"]
        sizes = [n for n in (128, 256, 512) if n <= size]
        assert [(r["rows"], r["cols"], r["blocks"]) for r in rows] == (
            [shape for n in sizes for shape in ((n, n, 1), (n, n // 2, 1))]
            + [(n, n, 8) for n in sizes])
        for row in rows:
            shared = ranks == 2 and row["rows"] >= 512  # smaller blocks have one row panel
            assert set(row["ms"]) == {"alone", "replicated", "owned", "shared", "grid"}
            assert set(row["speedup"]) == set(row["ms"]) - {"alone"}
            for key, there in (("alone", True), ("replicated", True), ("owned", ranks == 2),
                               ("shared", shared), ("grid", ranks == 2)):
                assert (row["ms"][key] is not None) == there, (row, key)
                if there and key != "alone":
                    assert math.isclose(row["speedup"][key], row["ms"]["alone"] / row["ms"][key])
            # the step is chosen so that the retraction does what it does in training
            assert row["iterations"] == 1, row
            for key in ("gemm_step_ms", "gemm_update_ms", "paper_ms"):
                assert (row[key] is not None) == (row["blocks"] == 1), (row, key)


def layers_of(config):
    """Kinds and outputs' channels of the layers with parameters, in order."""
    with open(os.path.join(CONFIGS, config), encoding="utf-8") as file:
        return [(kind, int(count)) for kind, count in
                re.findall(r"- (conv|dense): \{(?:channels|units): (\d+)", file.read())]


def check_conv():
    for ranks in (1, 2):
        got = measured("conv", ranks=ranks)["conv"]
        layers = got["layers"]
        assert [(x["layer"][3:], x["out"][2]) for x in layers] == layers_of("cifar10-large.yaml")
        assert layers[0]["in"] == [32, 32, 3] and layers[3]["out"] == [8, 8, 64]
        # the backward pass stops at the net's input; the gradients of the two large dense layers
        # are one product over the batch
        assert [x["passes"] for x in layers] == [2, 3, 3, 3, 2, 2, 3]
        # 4x4 with stride 2: k = 2 on 4 x 32 channels, 16 x 16 pixels
        conv, dense = layers[1], layers[4]
        assert conv["in"] == [32, 32, 32] and conv["out"] == [16, 16, 32] and conv["images"] == 8
        flops = 3 * 2 * (2 * 2 * 128 * 32) * (16 * 16) * 8
        assert math.isclose(conv["gflops"], flops / conv["ms"] / 1e6, rel_tol=1e-9)
        # dense layers take all images of a rank, here of two
        assert dense["images"] == 64 and got["batch"] == 128
        assert math.isclose(dense["gflops"], 2 * 2 * 4096 * 512 * 64 / dense["ms"] / 1e6,
                            rel_tol=1e-9)


def check_step():
    path = config("step")
    for ranks in (None, 2, 3):
        got = bcop("bench", "step", path, "--warmup", 2, "--steps", 3, "--json", ranks=ranks).json
        assert set(got["phases"]) == {"compute", "agree", "exchange", "update", "build"}
        assert all(phase["median_ms"] > 0 for phase in got["phases"].values())
        assert max(phase["median_ms"] for phase in got["phases"].values()) < got["step"]["median_ms"]
        assert len(got["traffic"]) == (ranks or 1)
        sent = sum(kind["bytes"] for rank in got["traffic"] for kind in rank.values())
        assert (sent > 0) == (ranks is not None)
    other = bcop("bench", "step", path, "--set", "train.batch=16", "--warmup=0", "--steps=1",
                 "--json").json
    assert math.isclose(other["images_per_second"], 16e3 / other["step"]["median_ms"])
    fails(64, "bench", "step", message="the configuration to train is missing", ranks=(None,))
    fails(66, "bench", "step", "none.yaml", message="none.yaml")
    fails(78, "bench", "step", path, "--set", "train.lanes=2", message="lanes", ranks=(4,))


def check_comm():
    for ranks in (None, 1):
        assert measured("comm", ranks=ranks)["comm"] == {"messages": [], "collectives": []}
    for ranks in (2, 3):
        got = measured("comm", ranks=ranks)["comm"]
        sizes = [8 ** i for i in range(1, 9)]
        assert [row["bytes"] for row in got["messages"]] == sizes
        assert [(row["bytes"], row["what"]) for row in got["collectives"]] == [
            (size, what) for size in sizes[2:] for what in ("gather", "merge", "lanes")]
        for row in got["messages"] + got["collectives"]:
            assert math.isclose(row["gbs"], row["bytes"] / row["us"] / 1e3, rel_tol=1e-9)


def check_several_at_once_and_text():
    measured("comm", "ortho", "conv", ranks=2, extra=("--max-size", 128))
    text = bcop("bench", "ortho", "--max-size=128")
    assert text.out == ""
    for word in ("alone", "replicated", "owned", "shared", "paper", "128x128", "--machine"):
        assert word in text.err, word


def check_usage():
    fails(64, "bench", "orto", message="did you mean 'ortho'?")
    for words, message in (
            ([], "benchmark (ortho, conv, comm or step) is needed"),
            (["everything"], ["everything", "ortho, conv, comm and step"]),
            (["comm", "cnv"], "did you mean 'conv'?"),
            (["comm", "comm"], "named twice"),
            (["comm", "--jsn"], "did you mean '--json'?"),
            (["ortho", "--max-size"], "--max-size needs a value"),
            (["ortho", "--max-size", "many"], "many"),
            (["ortho", "--max-size", "64"], ["128 .. 16384", "64"]),
            (["ortho", "--max-size", "16385"], ["128 .. 16384", "16385"])):
        fails(64, "bench", *words, message=message, ranks=(None,))


main(globals())
