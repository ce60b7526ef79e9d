#!/usr/bin/python3
# run: label mpi timeout 900
"""bcop plan: what a job of N ranks would hold, send and take, against numbers derived by hand for a
small network, and against the memory that a real start plans."""
import json
import math
import os
import re
import sys

sys.path.insert(0, os.path.join(os.environ["BCOP_SOURCE_DIR"], "tests", "support"))
from program import bcop, config, fails, main  # noqa: E402

BATCH, LANES, IMAGES = 32, 8, 4  # images per lane
# conv 3 -> 8, k 3 on 8 x 8; conv 32 -> 12, k 2 on 4 x 4; dense 192 -> 24, by factors; dense 24 -> 4
FLOPS = [2 * 9 * 3 * 8 * 64, 2 * 4 * 32 * 12 * 16, 2 * 192 * 24, 2 * 24 * 4]
# the first layer's input needs no gradient; the third's operator gets its by factors
PER_IMAGE = 2 * FLOPS[0] + 3 * FLOPS[1] + 2 * FLOPS[2] + 3 * FLOPS[3]
LANE_FLOATS = (9 * 3 * 8 + 8) + (4 * 32 * 12 + 12) + 24 + (24 * 4 + 4)
SIZES = {"00-conv/blocks/H": (8, 3), "00-conv/blocks/P1": (8, 4), "00-conv/blocks/Q1": (8, 4),
         "00-conv/blocks/P2": (8, 4), "00-conv/blocks/Q2": (8, 4), "00-conv/bias": (8, 1),
         "02-conv/blocks/H": (32, 12), "02-conv/blocks/P1": (32, 16),
         "02-conv/blocks/Q1": (32, 16), "02-conv/bias": (12, 1), "04-dense/blocks/W": (192, 24),
         "04-dense/bias": (24, 1), "06-dense/blocks/W": (24, 4), "06-dense/bias": (4, 1)}
OWNED = "ortho.placement=owned"


def plan(path, ranks, *more):
    return bcop("plan", path, "--ranks", ranks, "--json", *more).json


def lanes_of(ranks):
    return [LANES * (r + 1) // ranks - LANES * r // ranks for r in range(ranks)]


def sent(answer, kind):
    return answer["communication"][kind]["bytes"]


def check_contract():
    result = bcop("plan", config("net"), "--ranks", 2, "--json")
    answer = result.json
    for key in ("ranks", "placements", "memory", "communication", "step_seconds", "layers",
                "machine", "scaling", "crossover", "imbalance"):
        assert key in answer, key
    for key in ("block", "rows", "cols", "placement", "owner"):
        assert key in answer["placements"][0], key
    assert answer["ranks"] == 2 and answer["step_seconds"] > 0
    assert {p["block"]: (p["rows"], p["cols"]) for p in answer["placements"]} == SIZES
    assert math.isclose(answer["step_seconds"], sum(answer["terms"].values()), rel_tol=1e-9)
    assert math.isclose(answer["step_seconds"], sum(answer["phases"].values()), rel_tol=1e-9)
    assert not bcop("plan", "net.yaml", "--ranks", 2).out
    for text in ("machine: ", "04-dense/blocks/W", "ranks", "step: "):
        assert text in result.err, text
    assert not os.path.exists("checkpoints")


def check_layers():
    layers = plan(config("net"), 1)["layers"]
    assert [layer["flops"] for layer in layers if layer["kind"] in ("conv", "dense")] == FLOPS
    # 1, 2, 4 and 6 taps before the factors, two products with [8][4] on 3 rows of each
    assert layers[0]["build_flops"] == (1 + 2 + 4 + 6) * 2 * 2 * 3 * 8 * 4
    assert layers[0]["pull_flops"] == 2 * layers[0]["build_flops"]
    assert layers[2]["build_flops"] == (1 + 2) * 2 * 2 * 12 * 32 * 16
    assert sum(layer["gradient_bytes"] for layer in layers) == 4 * LANE_FLOATS
    assert [layer["factored"] for layer in layers if layer["kind"] == "dense"] == [True, False]


def check_tiny_blocks_stay_everywhere():
    path = config("net")
    for ranks in (1, 2, 4):
        answer = plan(path, ranks)
        for place in answer["placements"]:
            assert place["placement"] == "replicated" and place["owner"] is None
            assert place["holders"] == ranks
        # a plain all-reduce; every rank wants all factors; nothing else but the records
        assert sent(answer, "gradients") == 2 * (ranks - 1) * 4 * LANE_FLOATS
        assert sent(answer, "factors") == (ranks - 1) * BATCH * (192 + 24 + 24) * 4
        record = 8 * (2 * LANES + ranks + 1) + 4 + 8
        assert sent(answer, "record") == (ranks * record if ranks > 1 else 0)
        assert sent(answer, "rows") == sent(answer, "sums") == sent(answer, "blocks") == 0


def check_owned_by_longest_processing_time():
    """Costs of the bundles: dense 192 x 24 940032, conv 32 209920, conv 8 5840, dense 24 x 4 3456.
    The bias of the factored layer is a bundle of its own, which is not worth moving."""
    path = config("net")
    owner = {2: {"04-dense": 0, "02-conv": 1, "00-conv": 1, "06-dense": 1},
             3: {"04-dense": 0, "02-conv": 1, "00-conv": 2, "06-dense": 2},
             4: {"04-dense": 0, "02-conv": 1, "00-conv": 2, "06-dense": 3}}
    for ranks, owners in owner.items():
        answer = plan(path, ranks, "--set", OWNED)
        moved = 0
        for place in answer["placements"]:
            if place["block"] == "04-dense/bias":
                assert place["placement"] == "replicated"
                continue
            assert place["placement"] == "owned" and place["holders"] == 1
            assert place["owner"] == owners[place["block"].split("/")[0]], place
            moved += place["rows"] * place["cols"]
        assert sent(answer, "blocks") == (ranks - 1) * 4 * moved
        others = BATCH - IMAGES * lanes_of(ranks)[0]
        assert sent(answer, "factors") == others * (192 + 24 + 24) * 4
        held = [rank["load"]["update_flops"] for rank in answer["per_rank"]]
        assert all(h > 0 for h in held) and held[0] == max(held)


def check_shared():
    """1024 rows are two panels of 512, so at most two ranks hold some; every rank holds a part of
    the block, and gets the others'."""
    path = config("wide", data="{kind: synthetic, height: 8, width: 8, channels: 16, classes: 4}",
                  model="\n  - dense: {units: 32}\n  - maxmin\n  - dense: {units: 4}")
    for ranks in (2, 3, 4, 8):
        answer = plan(path, ranks, "--set", "ortho.placement=shared")
        place = answer["placements"][0]
        assert place["placement"] == "shared" and (place["rows"], place["cols"]) == (1024, 32)
        assert place["holders"] == min(ranks, 2)
        assert sent(answer, "sums") > 0
        owned = [p for p in answer["placements"] if p["placement"] == "owned"]
        moved = 1024 * 32 + sum(p["rows"] * p["cols"] for p in owned)
        assert sent(answer, "blocks") == (ranks - 1) * 4 * moved


def check_loads():
    path = config("net")
    for ranks in (1, 2, 3, 4):
        answer = plan(path, ranks)
        images = [IMAGES * lanes for lanes in lanes_of(ranks)]
        assert [rank["images"] for rank in answer["per_rank"]] == images
        for rank, n in zip(answer["per_rank"], images):
            assert rank["load"]["compute_flops"] == n * PER_IMAGE
        assert math.isclose(answer["imbalance"]["compute_flops"], max(images) * ranks / BATCH)
        for kind, traffic in answer["communication"].items():
            parts = [rank["communication"][kind] for rank in answer["per_rank"]]
            for key in ("messages", "bytes"):
                assert sum(part[key] for part in parts) == traffic[key]
            if kind != "record":
                assert sum(part["received_bytes"] for part in parts) == traffic["bytes"]


def check_state_is_held_once():
    """Two moments of adam for every number of a parameter, in float32, where it is held: each piece
    fills whole lines of 64 bytes."""
    path = config("state", optimizer="{kind: adam, lr: 0.01}")
    for placement in ("replicated", "owned"):
        for ranks in (1, 3):
            answer = plan(path, ranks, "--set", f"ortho.placement={placement}")
            wanted = 0
            for place in answer["placements"]:
                lines = -(-4 * place["rows"] * place["cols"] // 64)
                wanted += 2 * 64 * lines * (ranks if place["placement"] == "replicated" else 1)
            assert sum(rank["memory"]["state"] for rank in answer["per_rank"]) == wanted


def check_memory_is_what_training_plans():
    path = config("net")
    for ranks in (1, 2, 3, 4):
        for more in ((), ("--set", OWNED)):
            answer = plan(path, ranks, *more)
            for rank in answer["per_rank"]:
                parts = rank["memory"]
                assert parts["total"] == sum(parts.values()) - parts["total"]
            started = bcop("train", path, "--dry-run", *more, ranks=ranks).err
            said = float(re.search(r"at most ([0-9.]+) MiB a rank", started).group(1))
            assert abs(answer["memory"]["total"] / 2**20 - said) <= 0.05001, (ranks, said)


def check_the_model_of_time():
    """Everything but one number made negligible leaves that term's closed form."""
    path = config("net")
    fast = "gemm_gflops=1e6,ortho_gflops=1e6,copy_gbs=1e6,latency_us=1e-9,bandwidth_gbs=1e6"
    terms = plan(path, 4, "--machine", fast + ",gemm_gflops=2")["terms"]
    assert math.isclose(terms["compute"], BATCH / 4 * PER_IMAGE / 2e9, rel_tol=1e-2)
    build = (13 * 4 * 3 * 8 * 4 + 3 * 4 * 12 * 32 * 16) / 2e9
    assert math.isclose(terms["build"], build, rel_tol=1e-2)
    form = 2 * build + 2 * BATCH * 192 * 24 / 2e9
    assert math.isclose(terms["form"], form, rel_tol=1e-2)
    terms = plan(path, 4, "--machine", fast + ",latency_us=10")["terms"]
    assert math.isclose(terms["agree"], 3 * 2 * 2 * 10e-6, rel_tol=1e-2)  # there and back
    # three nodes, three of either factor and of the image; then a gather over two levels
    assert math.isclose(terms["exchange"], (12 + 2) * 10e-6, rel_tol=1e-2)
    terms = plan(path, 4, "--machine", fast + ",bandwidth_gbs=1e-3,overlap=0")["terms"]
    through = 2 * (2 * 3 / 4 * 4 * LANE_FLOATS + 3 / 4 * BATCH * (192 + 24 + 24) * 4)
    assert math.isclose(terms["exchange"], through / 1e6, rel_tol=1e-2)


def check_scaling():
    path = config("net")
    answer = plan(path, 2)
    rows = answer["scaling"]
    assert [row["ranks"] for row in rows] == [2**i for i in range(11)]
    for row in rows:
        assert row["lanes"] == max(LANES, row["ranks"])
        assert row["batch"] == max(BATCH, row["ranks"])
        assert math.isclose(row["images_per_second"] * row["step_seconds"], row["batch"])
        assert math.isclose(row["efficiency"] * row["ranks"], row["speedup"])
        assert sum(row["placements"].values()) == len(SIZES)
    assert rows[0]["speedup"] == 1
    for i, ranks in enumerate((1, 2, 4, 8)):
        assert rows[i]["step_seconds"] == plan(path, ranks)["step_seconds"]
    # lanes are powers of two, so a batch that they do not divide grows to the next that they do
    rows = plan(path, 2, "--set", "train.batch=48", "--set", "train.lanes=16")["scaling"]
    assert [row["batch"] for row in rows[:8]] == [48, 48, 48, 48, 48, 64, 64, 128]


def check_crossover():
    path = config("net")
    near, far = (plan(path, 2, "--machine", f"latency_us={x}")["crossover"] for x in (1, 20000))
    assert [c["ranks"] for c in near] == [2, 4, 8, 16]
    for a, b in zip(near, far):
        assert a["shared"] >= 512 and a["shared"] % 64 == 0  # two panels of 256 rows
        assert b["shared"] is None or b["shared"] > a["shared"]
        assert b["owned"] is None or b["owned"] > a["owned"]


def replay(tables, lines):
    """Runs the actions of all ranks with messages that are sent at once; every receive must find the
    next message of its sender, and be as long. Gives each rank's bytes sent, as comm/ counts."""
    ranks = len(lines)
    at, sent_bytes = [0] * ranks, [0] * ranks
    sends = {(a, b): [] for a in range(ranks) for b in range(ranks)}
    waiting = [[] for _ in range(ranks)]
    collective = {}
    moved = True
    while moved:
        moved = False
        for r, line in enumerate(lines):
            while at[r] < len(line["actions"]):
                action = line["actions"][at[r]]
                if action[0] == "isend":
                    sends[r, action[1]].append(action[2])
                    sent_bytes[r] += action[2]
                elif action[0] == "irecv":
                    waiting[r].append(action[1:])
                elif action[0] == "waitall":
                    while waiting[r] and sends[waiting[r][0][0], r]:
                        peer, length = waiting[r].pop(0)
                        assert sends[peer, r].pop(0) == length, (r, peer, length)
                    if waiting[r]:
                        break
                elif action[0] in ("allreduce", "allgatherv"):
                    collective[r] = action
                    break
                else:
                    assert action[0] == "compute" and action[1] >= 0
                at[r] += 1
                moved = True
        if len(collective) == ranks:
            assert all(action == collective[0] for action in collective.values())
            for r in range(ranks):
                kind, what = collective[r]
                sent_bytes[r] += what if kind == "allreduce" else (ranks - 1) * tables[what][r]
                at[r] += 1
            collective, moved = {}, True
    assert all(at[r] == len(line["actions"]) for r, line in enumerate(lines)), "a deadlock"
    assert not any(sends.values())
    return sent_bytes


def check_pattern():
    paths = (config("net"), config("wide", model="\n  - dense: {units: 40}\n  - maxmin\n"
                                                 "  - dense: {units: 1030}\n  - maxmin\n"
                                                 "  - dense: {units: 4}"))
    for path in paths:
        for ranks in (2, 3, 7):
            for placement in ("owned", "shared"):
                answer = plan(path, ranks, "--set", f"ortho.placement={placement}", "--pattern",
                              "steps")
                with open("steps", encoding="utf-8") as file:
                    lines = [json.loads(line) for line in file]
                head, lines = lines[0], lines[1:]
                assert head["ranks"] == ranks
                assert [line["rank"] for line in lines] == list(range(ranks))
                for got, rank in zip(replay(head["tables"], lines), answer["per_rank"]):
                    assert got == sum(k["bytes"] for k in rank["communication"].values())
    fails(73, "plan", path, "--ranks", 2, "--pattern", ".", message="Is a directory",
          ranks=(None,))


def check_usage():
    path, alone = config("net"), {"ranks": (None,)}
    fails(64, "plan", path, message="--ranks", **alone)
    for ranks in (0, 4097, "two"):
        fails(64, "plan", path, "--ranks", ranks, message="--ranks", **alone)
    fails(78, "plan", path, "--ranks", 9, message=["train.lanes", "8 lanes are too few for 9 ranks"],
          **alone)
    for text, message in (("gemm_gflop=3", ["gemm_gflop", "did you mean 'gemm_gflops'?"]),
                          ("latency_us", "not key=value"), ("latency_us=-1", "latency_us"),
                          ("latency_us=0", "latency_us"), ("overlap=1.5", "overlap"),
                          ("copy_gbs=fast", "copy_gbs"), ("", "not key=value")):
        fails(64, "plan", path, "--ranks", 2, "--machine", text, message=message, **alone)
    fails(66, "plan", "nothing.yaml", "--ranks", 2, message="nothing.yaml", **alone)
    mnist = config("mnist", data="{kind: mnist, dir: nowhere}")
    fails(66, "plan", mnist, "--ranks", 2, message="nowhere", **alone)


main(globals())
