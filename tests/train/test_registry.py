#!/usr/bin/python3
# run: label unit
"""Every member of the structures that a training run lives in is either saved in a checkpoint or
marked below with why it need not be. A new member fails this test until somebody has decided."""
import os
import re
import sys

SOURCE = os.environ.get("BCOP_SOURCE_DIR") or os.path.join(os.path.dirname(__file__), "..", "..")

# Why a member is not saved.
CONFIG = "follows from the configuration, the data and the number of ranks"
SCRATCH = "written in every step (or evaluation) before it is read"
OUTSIDE = "handles, files, threads: made anew by every start"
CLOCK = "time: decides when something is saved or said, never what is computed"
BUILT = "computed from the saved parameters after loading"

STRUCTS = {
    ("train/checkpoint.h", "bcop_progress"): {
        "saved": "step epoch best_step best_certified best_clean evaluated_step"},
    ("train/trainer.c", "trainer"): {
        "saved": "progress worker", CONFIG: "comm experiment request run data steps steps_per_epoch",
        OUTSIDE: "prefetch watchdog made_run lock attempts metrics first",
        CLOCK: "began saved_at failed_at save_seconds evaluation_seconds seconds typical",
        SCRATCH: "lr"},
    ("train/worker.h", "bcop_worker"): {
        "saved": "model stage", CONFIG: "comm experiment data exchange checkpoint evaluator arena memory",
        OUTSIDE: "entered context", CLOCK: "seconds since",
        SCRATCH: "record logit_gradient loss accuracy iterations"},
    ("ortho/stage.h", "bcop_stage"): {
        "saved": "entry parameter", CONFIG: "rule comm group grid count choice offsets state_bytes",
        SCRATCH: "scratch"},
    ("ortho/stage.h", "bcop_stage_entry"): {
        "saved": "parameter state",
        CONFIG: "placement owner first offset size slots slot", SCRATCH: "rows gradient"},
    ("linalg/parameter.h", "bcop_parameter"): {
        "saved": "value", CONFIG: "name rows cols orthonormal factored depth bundle",
        SCRATCH: "gradient image right"},
    ("ortho/optimizer.h", "bcop_step"): {
        "saved": "value state", CONFIG: "lr step rows size", SCRATCH: "gradient scratch"},
    ("ortho/rows.h", "bcop_rows"): {
        CONFIG: "group grid rows cols panels run first count", SCRATCH: "sum squares"},
    ("nn/model.h", "bcop_model"): {
        "saved": "layer parameter",
        CONFIG: "in classes count parameters normalised mean inverse_std tail run group training "
                "lane_length",
        SCRATCH: "input slope image saved narrow wide head_gradient scratch bound_work"},
    ("nn/layer.h", "bcop_layer"): {
        "saved": "parameter",
        CONFIG: "kind where index name options in out parameters batch run group lane_gradient lane_at "
                "factored input_left saved bound_work normalised flops build_flops pull_flops "
                "stored_dimensions stored_size",
        BUILT: "state pairs"},
    ("train/exchange.h", "bcop_exchange"): {
        CONFIG: "comm model stage lanes batch parts part part_of factors row zero tables",
        SCRATCH: "sums lane waiting factor"},
    ("data/prefetch.c", "bcop_prefetch"): {
        CONFIG: "plan shape count steps arena", SCRATCH: "buffer original",
        BUILT: "order order_epoch", OUTSIDE: "thread mutex changed filled given closing"},
}


def without_comments(text):
    return re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)


def members(path, name):
    """The names that a structure declares."""
    with open(os.path.join(SOURCE, "src", path), encoding="utf-8") as file:
        text = without_comments(file.read())
    body = re.search(r"struct " + name + r" \{\n(.*?)\n\}", text, re.DOTALL)
    assert body, f"{path}: no struct {name}"
    found = set()
    for declaration in body.group(1).split(";"):
        pointer = re.search(r"\(\*(\w+)\)", declaration)
        if pointer:
            found.add(pointer.group(1))
            continue
        for part in re.sub(r"\[[^]]*\]", "", declaration).split(","):
            names = re.findall(r"\w+", part)
            if names:
                found.add(names[-1])
    return found


def saved_numbers():
    """The names of the registry of numbers in train/checkpoint.c."""
    with open(os.path.join(SOURCE, "src", "train", "checkpoint.c"), encoding="utf-8") as file:
        table = re.search(r"progress_table\[\] = \{(.*?)\n\};", file.read(), re.DOTALL)
    return set(re.findall(r"offsetof\(bcop_progress, (\w+)\)", table.group(1)))


def main():
    wrong = []
    for (path, name), marks in STRUCTS.items():
        marked = [member for members_of in marks.values() for member in members_of.split()]
        wrong += [f"{name}.{m}: marked twice" for m in set(marked) if marked.count(m) > 1]
        declared = members(path, name)
        wrong += [f"src/{path}: {name}.{m} is neither saved nor marked in this test"
                  for m in sorted(declared - set(marked))]
        wrong += [f"{name}.{m}: marked, but src/{path} has none" for m in sorted(set(marked) - declared)]
    if saved_numbers() != members("train/checkpoint.h", "bcop_progress"):
        wrong.append("bcop_progress: not all of it is in progress_table of train/checkpoint.c")
    for line in wrong:
        print(line)
    print(f"{len(STRUCTS)} structures, {len(wrong)} faults")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
