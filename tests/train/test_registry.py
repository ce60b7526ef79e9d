#!/usr/bin/python3
# run: label unit
"""Every member of the structures that a training run lives in is either saved in a checkpoint or
marked below with why it need not be, and so is every variable of the files it runs through. The
structures are found from the trainer's on, by the types of members. What is new fails this test until
somebody has decided."""
import glob
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
        OUTSIDE: "prefetch watchdog made_run lock attempts metrics first works",
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
        CONFIG: "placement owner first root in_parts offset size slots slot",
        SCRATCH: "rows gradient small outcome"},
    ("linalg/parameter.h", "bcop_parameter"): {
        "saved": "value", CONFIG: "name rows cols orthonormal factored depth bundle",
        SCRATCH: "gradient image right"},
    ("ortho/optimizer.h", "bcop_step"): {
        "saved": "value state", CONFIG: "lr step rows size", SCRATCH: "gradient scratch"},
    ("ortho/rows.h", "bcop_rows"): {
        CONFIG: "group grid rows cols panels run first count root triangle",
        SCRATCH: "sum root_sum squares"},
    ("nn/model.h", "bcop_model"): {
        "saved": "layer parameter",
        CONFIG: "in classes count parameters normalised mean inverse_std tail run group training "
                "lane_length",
        SCRATCH: "input slope image saved narrow wide head_gradient scratch bound_work"},
    ("nn/layer.h", "bcop_layer"): {
        "saved": "parameter",
        CONFIG: "kind where index name options in out parameters batch run group lane_gradient lane_at "
                "factored input_left saved bound_work normalised flops slope_share build_flops pull_flops "
                "stored_dimensions stored_size",
        BUILT: "state pairs"},
    ("train/exchange.h", "bcop_exchange"): {
        CONFIG: "comm model stage lanes batch parts part part_of factors row zero tables",
        SCRATCH: "sums lane waiting factor"},
    ("train/exchange.h", "bcop_exchange_factor"): {
        CONFIG: "layer entry first rows cols", SCRATCH: "left right image"},
    ("train/worker.h", "bcop_worker_data"): {CONFIG: "split"},
    ("train/checkpoint.h", "bcop_checkpoint"): {
        CONFIG: "comm model count field part stage first_slot", SCRATCH: "stored"},
    ("ckpt/store.h", "bcop_field"): {CONFIG: "path type dimensions size data unit help"},
    ("train/evaluate.h", "bcop_evaluator"): {
        CONFIG: "comm model dataset loss loss_options", SCRATCH: "x margin value"},
    ("comm/lanes.h", "bcop_lanes"): {
        CONFIG: "comm lanes length parts part whole run capacity others nodes node_covers offset per_part",
        SCRATCH: "stack height covers slice mine total request requests"},
    ("comm/lanes.h", "bcop_lane_part"): {CONFIG: "begin length root"},
    ("comm/lanes.h", "bcop_lane_run"): {CONFIG: "first count"},
    ("comm/columns.h", "bcop_columns"): {
        CONFIG: "comm width row first count", SCRATCH: "own wanted packed request requests"},
    ("ortho/stage.h", "bcop_stage_rule"): {CONFIG: "optimizer optimizer_options placement bjorck"},
    ("ortho/placement.h", "bcop_placement_rule"): {
        CONFIG: "wanted share_above grid_above grid_rows step_wide step_small"},
    ("ortho/placement.h", "bcop_placement_choice"): {CONFIG: "placement owner first root"},
    ("ortho/bjorck.h", "bcop_bjorck_rule"): {CONFIG: "tolerance max_iterations"},
    ("ortho/bjorck.h", "bcop_bjorck_outcome"): {SCRATCH: "iterations finite settled moved again defect"},
    ("ortho/optimizer.h", "bcop_slot"): {CONFIG: "name single"},
    ("grid/grid.h", "bcop_grid"): {CONFIG: "rows cols row col", OUTSIDE: "comm context handle line"},
    ("nn/layer.h", "bcop_layer_pairs"): {BUILT: "distance", SCRATCH: "label slope"},
    ("nn/conv.h", "bcop_conv"): {
        CONFIG: "c_in c_out height width k stride zero_pad apply",
        BUILT: "kernel taps has_taps forward adjoint h ht v vt dense factored",
        SCRATCH: "slope tap transposed"},
    ("nn/layer_dense.c", "dense_state"): {
        CONFIG: "in out few", BUILT: "rows packed adjoint", SCRATCH: "upright"},
    ("nn/kernel.h", "bcop_kernel"): {
        CONFIG: "c m r k factors", BUILT: "taps projected", SCRATCH: "product slope slope_projected"},
    ("data/prefetch.h", "bcop_prefetch_plan"): {
        CONFIG: "dataset batch first_row rows seed augment crop_padding first_step"},
    ("data/dataset.c", "bcop_dataset"): {CONFIG: "kind images first count"},
    ("data/dataset.h", "bcop_images"): {CONFIG: "count shape classes fingerprint", OUTSIDE: "state"},
    ("data/prefetch.c", "buffer"): {SCRATCH: "x label example"},
    ("data/prefetch.c", "bcop_prefetch"): {
        CONFIG: "plan shape count steps arena", SCRATCH: "buffer original",
        BUILT: "order order_epoch", OUTSIDE: "thread mutex changed filled given closing"},
}

# Of one value or one handle: whoever has such a member has marked it.
PLAIN = "bcop_shape bcop_arena bcop_comm"

# Variables outside of structures in the folders that a step runs through, and why they are not saved.
FOLDERS = ("train", "ortho", "nn", "data", "linalg", "grid", "comm")
VARIABLES = {
    "train/stop.c system_asked": OUTSIDE, "train/stop.c person_asked": OUTSIDE,
    "train/stop.c stop_file": OUTSIDE,
    "train/stop.c in_job": OUTSIDE, "train/stop.c looked_at": CLOCK,
    "comm/traffic.c counted": CLOCK, "comm/traffic.c current": CLOCK,
    "comm/traffic.c unreported": CLOCK,
    "comm/comm.c text": BUILT, "linalg/product.c text": BUILT,
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


def definitions():
    """{structure: (file, body)} of all that src/ defines."""
    found = {}
    for path in glob.glob(os.path.join(SOURCE, "src", "*", "*.[ch]")):
        with open(path, encoding="utf-8") as file:
            text = without_comments(file.read())
        for name, body in re.findall(r"struct (\w+) \{\n(.*?)\n\}", text, re.DOTALL):
            found[name] = os.path.relpath(path, os.path.join(SOURCE, "src")), body
    return found


def layer_states():
    """The structures behind bcop_layer.state."""
    for path in glob.glob(os.path.join(SOURCE, "src", "nn", "*.c")):
        with open(path, encoding="utf-8") as file:
            yield from re.findall(r"\.state_size = sizeof\((\w+)\)", file.read())


def reached():
    """The structures that the trainer can change through its members, theirs and so on, but those of
    handles and clocks, and those it only reads: (file, name)."""
    defined, found, ways = definitions(), set(), ["trainer", *layer_states()]
    while ways:
        name = ways.pop()
        place, body = defined[name]
        if (place, name) in found or name in PLAIN.split():
            continue
        found.add((place, name))
        marks = STRUCTS.get((place, name), {})
        ignored = f"{marks.get(OUTSIDE, '')} {marks.get(CLOCK, '')}".split()
        for declaration in body.split(";"):
            kind = re.match(r"\s*(const )?(?:struct )?(\w+) ", declaration)
            names = re.findall(r"\w+", re.sub(r"\[[^]]*\]", "", declaration))
            read_only = kind and kind.group(1) and "*" in declaration
            if kind and kind.group(2) in defined and not read_only and names[-1] not in ignored:
                ways.append(kind.group(2))
    return found


def variables():
    """Those that can change, of a file or of a function: "file name"."""
    found = set()
    for folder in FOLDERS:
        for path in glob.glob(os.path.join(SOURCE, "src", folder, "*.c")):
            with open(path, encoding="utf-8") as file:
                text = without_comments(file.read())
            place = f"{folder}/{os.path.basename(path)}"
            for line in re.findall(r"^(?:\s*static\s|[a-z_]\w*\s)[^;({]*;", text, re.MULTILINE):
                name = re.search(r"(\w+)(\[[^]]*\])*\s*(=[^;]*)?;", line)
                if name and not re.match(r"\s*(static\s+)?(extern|const|typedef|struct \w+;)", line):
                    found.add(f"{place} {name.group(1)}")
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
    wrong += [f"src/{path}: no member of {name} is marked in this test"
              for path, name in sorted(reached() - set(STRUCTS))]
    wrong += [f"src/{v}: a variable that is not marked in this test"
              for v in sorted(variables() - set(VARIABLES))]
    wrong += [f"src/{v}: marked, but there is none" for v in sorted(set(VARIABLES) - variables())]
    if saved_numbers() != members("train/checkpoint.h", "bcop_progress"):
        wrong.append("bcop_progress: not all of it is in progress_table of train/checkpoint.c")
    for line in wrong:
        print(line)
    print(f"{len(STRUCTS)} structures, {len(wrong)} faults")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
