#!/usr/bin/python3
# run: label fault timeout 600 nightly 5000 14400
"""A state.h5 from a stranger, given to eval and inspect: mutated bytes, and what HDF5 can hold that a
checkpoint may not. The program ends with 0, 65 or 66 and one error line: no crash, no hang, nothing
that a sanitizer finds (with a count of 1,000 or more, the program of the preset asan is used)."""
import os
import resource
import shutil
import subprocess
import sys
from functools import partial

import h5py
import numpy as np

sys.path.insert(0, os.path.join(os.environ["BCOP_SOURCE_DIR"], "tests", "support"))
import faults  # noqa: E402
import program  # noqa: E402
from program import SOURCE, bcop, main  # noqa: E402

FILES = faults.count(100)
SANITIZED = FILES >= 1000
SECONDS = 120
KERNEL, BIAS = "/layers/00-conv/kernel", "/layers/00-conv/bias"
SECRET = "the text of another file"


def limit_memory():
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def judged(arguments, allowed, ranks=None):
    """None, or what is wrong with how the program took it."""
    environment = dict(os.environ)
    if SANITIZED:
        environment["ASAN_OPTIONS"] = ("fast_unwind_on_malloc=0:detect_leaks=0:exitcode=99:"
                                       "intercept_tls_get_addr=0:hard_rss_limit_mb=6000")
    try:
        done = subprocess.run(program.command(ranks, *arguments), capture_output=True,
                              timeout=SECONDS, check=False, env=environment,
                              preexec_fn=None if SANITIZED else limit_memory)
    except subprocess.TimeoutExpired:
        return f"{arguments}: no end in {SECONDS} s"
    said = (done.stdout + done.stderr).decode(errors="replace")
    errors = [x for x in said.splitlines() if x.startswith("bcop: error: ")]
    if done.returncode not in allowed:
        return f"{arguments}: code {done.returncode}\n{said[:3000]}"
    if "Sanitizer" in said or "runtime error" in said:
        return f"{arguments}: {said[:5000]}"
    if SECRET in said:
        return f"{arguments}: gives away another file"
    if len(errors) != (done.returncode != 0):
        return f"{arguments}: {len(errors)} error lines\n{said[:3000]}"
    return None


# ---- mutated bytes ----

def mutate(data, roll):
    """Some of: flipped bits, other bytes, a stretch overwritten, moved, doubled or left out."""
    for _ in range(roll.choice([1, 1, 1, 2, 4, 16])):
        size = len(data)
        if size == 0:
            break
        at, length = roll.randrange(size), roll.choice([1, 2, 4, 8, roll.randint(1, 600)])
        kind = roll.randrange(7)
        # the structure stands in the first part, arrays behind it
        if roll.random() < 0.7:
            at = roll.randrange(min(size, 30000))
        if kind < 2:
            data[at] ^= 1 << roll.randrange(8)
        elif kind == 2:
            data[at:at + length] = bytes(roll.randrange(256) for _ in range(length))
        elif kind == 3:
            value = roll.choice([0, 1, 0x7f, 0x80, 0xff])
            data[at:at + length] = bytes([value]) * len(data[at:at + length])
        elif kind == 4:
            other = roll.randrange(size)
            data[at:at + length] = data[other:other + length]
        elif kind == 5:
            del data[at:at + length]
        else:
            del data[at:]
    return data


def mutated(trial, roll, original):
    name = f"mutated{trial}/state.h5"
    os.mkdir(os.path.dirname(name))
    with open(name, "wb") as out:
        out.write(mutate(bytearray(original), roll))
    arguments = roll.choice([["eval", name], ["inspect", name], ["inspect", name, "--verify"],
                             ["eval", name, "--json"]])
    wrong = judged(arguments, (0, 65, 66), ranks=2 if trial % 50 == 7 else None)
    assert not wrong, f"{wrong}\n{faults.again(trial)}"
    os.unlink(name)


def check_mutated_files():
    path = faults.tiny("foreign")
    bcop("train", path, "--run", "run")
    with open("run/step-00000012/state.h5", "rb") as file:
        original = file.read()
    if SANITIZED:
        subprocess.run([os.path.join(SOURCE, "launcher", "setup"), "--preset", "asan"], check=True)
        program.BCOP = os.path.join(SOURCE, "build", "asan", "bcop")
    faults.all_hold(partial(mutated, trial, roll, original)
                    for trial, roll in faults.trials(FILES))
    print(f"{FILES} mutated files{' under ASan and UBSan' if SANITIZED else ''}: no finding")


# ---- what HDF5 can hold ----

def replaced(file, path=KERNEL, **more):
    """The dataset again, made in another way."""
    old = file[path][()]
    del file[path]
    options = {"data": old, **more}
    if "shape" in options:
        del options["data"]
    file.create_dataset(path, **options)


def external_storage(file):
    size = file[KERNEL].size
    with open("secret", "w", encoding="utf-8") as out:
        out.write((SECRET + " ") * (4 * size))
    shape = file[KERNEL].shape
    del file[KERNEL]
    file.create_dataset(KERNEL, shape, "<f4", external=[(os.path.abspath("secret"), 0, 4 * size)])


def external_link(file):
    with h5py.File("elsewhere.h5", "w") as other:
        other["k"] = file[KERNEL][()]
    del file[KERNEL]
    file[KERNEL] = h5py.ExternalLink("elsewhere.h5", "/k")


def soft_link(file):
    file["/k"] = file[KERNEL][()]
    del file[KERNEL]
    file[KERNEL] = h5py.SoftLink("/k")


def link_to_itself(file):
    del file[KERNEL]
    file[KERNEL] = h5py.SoftLink(KERNEL)


def virtual(file):
    shape = file[KERNEL].shape
    del file[KERNEL]
    layout = h5py.VirtualLayout(shape=shape, dtype="<f4")
    layout[...] = h5py.VirtualSource("elsewhere.h5", "/k", shape=shape)
    file.create_virtual_dataset(KERNEL, layout)


def a_group_instead(file):
    del file[KERNEL]
    file.create_group(KERNEL)


def compound(file):
    shape = file[KERNEL].shape
    replaced(file, shape=shape, dtype=np.dtype([("a", "<f4"), ("b", "<f8")]))


def not_finite(file):
    kernel = file[KERNEL]
    kernel[0, 0, 0, 0] = np.nan


def fixed(text):
    """Text as checkpoints hold it: UTF-8 of fixed length, with its end."""
    data = (text.encode() if isinstance(text, str) else text) + b"\0"
    return np.array(data, h5py.string_dtype("utf-8", len(data)))


def with_text(name, text):
    def edit(file):
        file.attrs[name] = fixed(text) if isinstance(text, (str, bytes)) else text
    edit.__name__ = f"{name} = {str(text)[:40]!r}"
    return edit


def without(name):
    def edit(file):
        del file.attrs[name]
    edit.__name__ = f"no {name}"
    return edit


def of_layers(model):
    """The configuration with another network."""
    def edit(file):
        text = file.attrs["config"]
        text = text.decode() if isinstance(text, bytes) else text
        head, tail = text.split("model:", 1)
        tail = tail[tail.index("\nloss:"):]
        file.attrs["config"] = fixed(f"{head}model:{model}{tail}")
    edit.__name__ = f"model {model[:40]!r}"
    return edit


BOMB = "a: &a [1,1]\n" + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)},*{chr(97 + i)}]\n"
                                 for i in range(24))
EDITS = [
    external_storage, external_link, soft_link, link_to_itself, virtual, a_group_instead, compound,
    not_finite,
    lambda f: replaced(f, chunks=True, compression="gzip"),
    lambda f: replaced(f, chunks=True, fletcher32=True),
    lambda f: replaced(f, maxshape=(None,) * 4, chunks=True),
    lambda f: replaced(f, dtype=">f4"), lambda f: replaced(f, dtype="<f8"),
    lambda f: replaced(f, dtype="<i4"), lambda f: replaced(f, dtype=h5py.vlen_dtype(np.float32),
                                                           shape=f[KERNEL].shape),
    lambda f: replaced(f, shape=(1, 1, 1, 1, 1), dtype="<f4"),
    lambda f: replaced(f, shape=(1 << 20, 1 << 20, 1 << 10, 4), dtype="<f4", chunks=(1, 1, 64, 4)),
    lambda f: replaced(f, shape=(0, 3, 3, 3), dtype="<f4"),
    lambda f: replaced(f, shape=(), dtype="<f4"),
    lambda f: replaced(f, BIAS, shape=(7,), dtype="<f4"),
    with_text("format", "another"), with_text("version", np.int64(99)), with_text("version", "1"),
    with_text("step", np.int64(-1)), with_text("step", np.float64(12)), with_text("step", [1, 2]),
    with_text("input_height", np.int64(1 << 40)), with_text("classes", np.int64(0)),
    with_text("input_channels", np.int64(4)), with_text("config", ""),
    with_text("config", BOMB), with_text("config", "[" * 5000), with_text("config", "a: " * 3000),
    with_text("config", b"\xff\xfe name: x"), with_text("config", "name: x\nname: y\n"),
    without("config"), without("version"), without("format"), without("step"), without("classes"),
    of_layers("\n  - conv: {channels: 1000000, kernel: 9}\n  - dense: {units: 4}"),
    of_layers("\n  - dense: {units: 1000000}\n  - dense: {units: 1000000}"),
    of_layers("\n  - dense: {units: 4}"), of_layers(" []"),
]


def edited(folder, edit, allowed):
    os.mkdir(folder)
    name = shutil.copy("run/step-00000012/state.h5", folder)
    with h5py.File(name, "r+", libver=("v110", "v110")) as file:
        edit(file)
    verbs = ("eval", "inspect") if SANITIZED or folder[-1] in "02468" else ("eval",)
    found = [judged([verb, name], allowed) for verb in verbs]
    assert not any(found), f"{folder} {edit.__name__}: {found}"


def check_what_hdf5_can_hold():
    path = faults.tiny("hold")
    bcop("train", path, "--run", "run")
    control = (lambda file: None, lambda file: replaced(file))  # what the edits must not fail for
    for number, edit in enumerate(control):
        edited(f"control{number}", edit, (0,))
    faults.all_hold(partial(edited, f"edit{number}", edit, (65,))
                    for number, edit in enumerate(EDITS))


def check_an_old_superblock():
    path = faults.tiny("old")
    bcop("train", path, "--run", "run")
    with h5py.File("run/step-00000012/state.h5") as old, h5py.File("state.h5", "w") as new:
        for key in old:
            old.copy(key, new)
    for verb in ("eval", "inspect"):
        said = bcop(verb, "state.h5", code=65)
        assert "superblock" in said.errors[0] or "format" in said.errors[0], said.errors


main(globals())
