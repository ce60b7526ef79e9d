#!/usr/bin/python3
# run: label mpi timeout 300
"""`train --profile`: a trace of every rank that adds up, and training that does not notice it."""
import json
import math
import os
import sys

sys.path.insert(0, os.path.join(os.environ["BCOP_SOURCE_DIR"], "tests", "support"))
from program import bcop, config, hashes, main  # noqa: E402

STEPS, BATCH = 12, 32
MODEL = ("\n  - conv: {channels: 8, kernel: 3}\n  - maxmin\n"
         "  - conv: {channels: 8, kernel: 3, apply: factored}\n  - maxmin\n"
         "  - dense: {units: 40}\n  - maxmin\n  - dense: {units: 4}")
DATA = "{kind: synthetic, height: 8, width: 8, channels: 3, classes: 4, count: 480}"


def profiled(name, ranks):
    path = config(name, model=MODEL, data=DATA, ortho="{placement: owned}", train=f"{{batch: {BATCH}, lanes: 8, epochs: 5}}")
    result = bcop("train", path, "--run", name, "--max-steps", STEPS, "--profile", f"{name}.json",
                  ranks=ranks)
    with open(f"{name}.json") as f:
        return path, json.load(f), result.err


def check_every_rank_adds_up():
    path, trace, text = profiled("two", 2)
    accounts = trace["bcop"]
    assert [a["rank"] for a in accounts] == [0, 1] and float(
        text.split("one core's peak: ")[1].split()[0]) > 1
    plan = json.loads(bcop("plan", path, "--ranks", 2, "--json").out)
    forms = 0
    for a in accounts:
        assert a["steps"] == STEPS
        assert set(a["phases"]) == {"compute", "agree", "exchange", "update", "build"}
        assert math.isclose(sum(a["phases"].values()), a["step_seconds"], rel_tol=1e-6)
        work = {(w["name"], w["work"]): w for w in a["work"]}
        # 2 flops for each weight, pixel and image: 3 x 8 channels, 3 x 3 taps, 8 x 8 pixels
        conv = 2 * 3 * 8 * 9 * 64 * BATCH // 2
        assert work["00-conv", "forward"]["flops"] == work["00-conv", "slope"]["flops"] == conv
        assert ("00-conv", "backward") not in work  # nobody wants the gradient of the pixels
        # by factors: two products of 8 x 4 for each of four, and 8 x 8; the last one is backward's
        pixels = 64 * BATCH // 2
        factored = 2 * pixels * (4 * 2 * 8 * 4 + 8 * 8)
        assert work["02-conv", "forward"]["flops"] == factored
        assert work["02-conv", "slope"]["flops"] == 2 * factored - 2 * pixels * 8 * 8
        assert work["02-conv", "backward"]["flops"] == 2 * pixels * 8 * 8
        assert work["02-conv", "build"]["flops"] == 0
        dense = 2 * 512 * 40 * BATCH // 2
        assert work["04-dense", "forward"]["flops"] == work["04-dense", "backward"]["flops"] == dense
        forms += work.get(("04-dense/blocks/W", "form"), {"flops": 0})["flops"]
        inside = sum(w["seconds"] for w in a["work"])
        assert 0 < inside <= a["step_seconds"] and 0 < a["mpi_seconds"] < a["step_seconds"]
    assert forms == 2 * BATCH * 512 * 40  # by its owner alone
    # the bytes of a step, as the plan counts them
    sent = sum(kind["bytes"] for kind in plan["communication"].values())
    assert sum(a["sent_bytes"] for a in accounts) == sent


def check_the_trace():
    _, trace, _ = profiled("trace", 2)
    events = trace["traceEvents"]
    assert {e["pid"] for e in events} == {0, 1}
    assert all(e["ph"] == "X" and e["dur"] >= 0 and e["ts"] >= 0 for e in events)
    for rank in (0, 1):
        mine = [e for e in events if e["pid"] == rank]
        phases = sorted((e for e in mine if e["cat"] == "phase"), key=lambda e: e["ts"])
        assert len(phases) == 5 * STEPS
        for layer in (e for e in mine if e["cat"] in ("forward", "slope", "backward")):
            around = [p for p in phases if p["name"] == "compute" and p["ts"] <= layer["ts"] + 1e-2
                      and layer["ts"] + layer["dur"] <= p["ts"] + p["dur"] + 1e-2]
            assert len(around) == 1, layer


def check_training_does_not_notice():
    path, _, _ = profiled("with", 2)
    bcop("train", path, "--run", "without", "--max-steps", STEPS, ranks=2)
    assert hashes("with", STEPS) == hashes("without", STEPS)


def check_a_file_that_cannot_be():
    path = config("nowhere", model=MODEL, data=DATA)
    bcop("train", path, "--profile", "absent/folder.json", ranks=2, code=73)
    assert not os.path.exists("checkpoints/nowhere")
    with open("kept.json", "w") as f:
        f.write("{}")
    # a run that does not begin leaves an older profile alone
    bcop("train", "absent.yaml", "--profile", "kept.json", code=66)
    assert open("kept.json").read() == "{}"


main(globals())
