#!/usr/bin/python3
# run: label mpi timeout 300
"""bcop status, stop and plot on run folders written by hand, so that every answer is known."""
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
import xml.etree.ElementTree as tree

sys.path.insert(0, os.path.join(os.environ["BCOP_SOURCE_DIR"], "tests", "support"))
from program import BCOP, bcop, config, fails, main  # noqa: E402

BATCH, PER_EPOCH, EPOCHS = 32, 13, 5
CERTIFIED = {"36/255": 0.5, "0.5": 0.25}


def make_run(run, steps, clean=0.75, evaluate=True):
    os.makedirs(run)
    shutil.copy(config("made"), os.path.join(run, "config.yaml"))
    with open(os.path.join(run, "metrics.jsonl"), "w", encoding="utf-8") as out:
        for step in range(1, steps + 1):
            epoch = step // PER_EPOCH
            # the last 50 steps alternate between 100 and 300 images a second
            line = {"kind": "train", "step": step, "epoch": epoch, "loss": 2 / step,
                    "accuracy": 0.5, "lr": 0.1, "iterations": 2,
                    "images_per_second": 100 if step % 2 else 300}
            out.write(json.dumps(line) + "\n")
            if step % PER_EPOCH == 0 and evaluate:
                for split in ["holdout"] + ["test"] * (step == PER_EPOCH * EPOCHS):
                    line = {"kind": "eval", "step": step, "epoch": epoch, "split": split,
                            "examples": 64, "loss": 1 / epoch, "clean": clean,
                            "certified": CERTIFIED, "lipschitz": 1.0}
                    out.write(json.dumps(line) + "\n")
        out.write('{"kind":"train","step":99')  # cut in the middle
    return run


def attempts(run, *lines):
    with open(os.path.join(run, "attempts.jsonl"), "a", encoding="utf-8") as out:
        for line in lines:
            out.write(json.dumps(line) + "\n")


def start(number, step, job=None):
    return {"kind": "start", "attempt": number, "time": "2026-11-23T16:00:00Z", "host": "node1",
            "pid": 123, "job": job, "ranks": 4, "step": step}


def end(number, code, step, steps):
    return {"kind": "end", "attempt": number, "time": "2026-11-23T16:10:00Z", "code": code,
            "step": step, "steps": steps}


def lock(run, host, pid, age=0):
    path = os.path.join(run, "lock")
    with open(path, "w", encoding="utf-8") as out:
        json.dump({"host": host, "pid": pid, "job": None, "since": "2026-11-23T16:00:00Z"}, out)
    os.utime(path, (time.time() - age,) * 2)


def state(run):
    return bcop("status", run, "--json").json["state"]


def check_a_running_run():
    run = make_run("a run", 30)
    attempts(run, start(1, 0, "4711"), end(1, 75, 20, 20), start(2, 20))
    lock(run, "elsewhere", 1)
    status = bcop("status", run, "--json").json
    assert (status["state"], status["step"], status["epoch"]) == ("running", 30, 2), status
    assert status["steps"] == PER_EPOCH * EPOCHS
    assert abs(status["images_per_second"] - 150) < 1e-9, status  # the harmonic mean
    assert abs(status["eta_seconds"] - (PER_EPOCH * EPOCHS - 30) * BATCH / 150) < 1e-6, status
    assert status["last_checkpoint"] is None
    assert [a["attempt"] for a in status["attempts"]] == [1, 2]
    first, second = status["attempts"]
    assert (first["job"], first["code"], first["steps"]) == ("4711", 75, 20), first
    assert "code" not in second and second["how"] == "running", second
    said = bcop("status", run).err
    for text in ("running", "step 30 of 65", "holdout", "certified at 36/255 50.00 %", "job 4711",
                 "interrupted by the system"):
        assert text in said, (text, said)


def check_the_states():
    for name, steps, lines, expected in (
            ("new", 0, (), "new"),
            ("finished", 65, (start(1, 0), end(1, 0, 65, 65)), "finished"),
            ("paused", 30, (start(1, 0), end(1, 0, 30, 30)), "paused"),
            ("interrupted", 30, (start(1, 0), end(1, 75, 30, 30)), "interrupted"),
            ("stopped", 30, (start(1, 0), end(1, 79, 30, 30)), "stopped"),
            ("diverged", 30, (start(1, 0), end(1, 80, 30, 30)), "failed"),
            ("killed", 30, (start(1, 0), end(1, 75, 20, 20), start(2, 20)), "killed")):
        run = make_run(name, steps)
        attempts(run, *lines)
        assert state(run) == expected, (name, state(run))


def check_who_holds_the_lock():
    run = make_run("locked", 30)
    attempts(run, start(1, 0))
    here = socket.gethostname()
    dead = subprocess.Popen(["true"])
    dead.wait()
    for holder, expected in ((("elsewhere", 1, 5), "running"), (("elsewhere", 1, 90), "killed"),
                             ((here, os.getpid(), 5), "running"), ((here, dead.pid, 5), "killed")):
        lock(run, *holder)
        assert state(run) == expected, (holder, expected)


def check_the_end_is_known_in_the_first_epoch():
    run = make_run("young", 5)
    attempts(run, start(1, 0) | {"total": PER_EPOCH * EPOCHS})
    status = bcop("status", run, "--json").json
    assert (status["step"], status["steps"]) == (5, PER_EPOCH * EPOCHS), status
    assert status["eta_seconds"] > 0, status


def check_epochs_of_a_foreign_log():
    run = make_run("foreign", 0)
    with open(os.path.join(run, "metrics.jsonl"), "w", encoding="utf-8") as out:
        for step, epoch in ((1, -1), (2, 0), (13, 1)):
            out.write(json.dumps({"kind": "train", "step": step, "epoch": epoch}) + "\n")
    assert bcop("status", run, "--json").json["steps"] == 13 * EPOCHS


def check_several_runs_are_summed_up():
    clean = [0.70, 0.75, 0.83]
    runs = [make_run(f"made-seed{i}", 65, c) for i, c in enumerate(clean)]
    for run in runs:
        attempts(run, start(1, 0), end(1, 0, 65, 65))
    out = bcop("status", *runs, "--json").json
    summary = out["summary"]
    assert len(out["runs"]) == 3 and summary["runs"] == summary["finished"] == 3
    assert summary["split"] == "test" and summary["steps"] == [65, 65]
    assert abs(summary["clean"]["mean"] - statistics.mean(clean)) < 1e-12
    assert abs(summary["clean"]["error"] - statistics.stdev(clean) / 3**0.5) < 1e-12
    assert summary["certified"]["0.5"] == {"mean": 0.25, "error": 0}, summary
    said = bcop("status", *runs).err
    assert "3 runs, 3 finished, test at step 65" in said, said
    assert f"{100 * statistics.mean(clean):.4f} +- " in said, said
    # one without a test evaluation: what they all have
    other = make_run("made-seed3", 30)
    assert bcop("status", *runs, other, "--json").json["summary"]["split"] == "holdout"
    bare = make_run("bare", 30, evaluate=False)
    assert bcop("status", runs[0], bare, "--json").json["summary"]["split"] is None


def check_a_loss_that_is_no_number():
    runs = [make_run(f"inf{i}", 65, evaluate=False) for i in range(2)]
    for run in runs:
        with open(os.path.join(run, "metrics.jsonl"), "a", encoding="utf-8") as out:
            out.write("\n" + json.dumps({"kind": "eval", "step": 65, "epoch": 5, "split": "test",
                                         "examples": 64, "loss": None, "clean": 0.5,
                                         "certified": CERTIFIED, "lipschitz": None}) + "\n")
    out = bcop("status", *runs, "--json").json
    test = out["runs"][0]["test"]
    assert (test["loss"], test["clean"], test["certified"]) == (None, 0.5, CERTIFIED), test
    summary = out["summary"]
    assert summary["loss"] == {"mean": None, "error": None}, summary
    assert summary["clean"] == {"mean": 0.5, "error": 0}, summary


def check_stop():
    run = make_run("it's \"a\" run\n2", 30)
    attempts(run, start(1, 0))
    lock(run, "elsewhere", 1)
    assert "asked to save" in bcop("stop", run).err
    assert os.path.exists(os.path.join(run, "stop"))
    assert bcop("status", run, "--json").json["stop_requested"] is True
    done = make_run("done", 65)
    attempts(done, start(1, 0), end(1, 0, 65, 65))
    assert "nothing to stop" in bcop("stop", done).err
    assert not os.path.exists(os.path.join(done, "stop"))
    # Not running, it may still be started: by a pending job, or a chain's next link.
    for code in (0, 74, 75, 78, 79, 80, 81, None):
        run = make_run(f"ended {code}", 30)
        attempts(run, start(1, 0), *([] if code is None else [end(1, code, 30, 30)]))
        said = bcop("stop", run).err
        assert "not running" in said and f"remove {run}/stop" in said, said
        assert os.path.exists(os.path.join(run, "stop")), code


def waiting(run):
    """What bcop-slurm leaves of a job that has not started yet."""
    os.makedirs(run)
    with open(os.path.join(run, "job.sbatch"), "w", encoding="utf-8") as out:
        out.write("#!/bin/sh\n")
    return run


def check_a_job_that_waits():
    run = waiting("folder/later")
    status = bcop("status", run, "--json").json
    assert (status["state"], status["name"], status["step"]) == ("new", "later", 0), status
    assert status["steps"] is None and status["epochs"] is None, status
    assert "new" in bcop("status", run).err
    assert "is new, not running" in bcop("stop", run).err
    assert bcop("status", run, "--json").json["stop_requested"] is True
    said = bcop("train", config("later"), "--run", run, ranks=2, code=79).err
    assert "stopped at step 1 of 65" in said, said
    assert not os.path.exists(os.path.join(run, "stop"))
    # its line in attempts.jsonl comes before its configuration
    begun = waiting("begun")
    attempts(begun, start(1, 0) | {"total": 65})
    assert state(begun) == "killed"
    fails(66, "plot", waiting("bare"), message="no metrics", ranks=(None,))


def check_the_other_runs_are_gone_on_with():
    runs = ["nowhere", waiting("later"), "nothing", make_run("made", 30)]
    result = bcop("status", *runs, "--json", code=66)
    assert [r["name"] for r in result.json["runs"]] == ["later", "made"], result.out
    assert len(result.errors) == 1 and "nowhere" in result.errors[0], result.err
    assert "nothing" in result.err, result.err
    fails(66, "stop", *runs, message="nowhere", ranks=(None,))
    for run in ("later", "made"):
        assert os.path.exists(os.path.join(run, "stop")), run


def check_only_our_own_leftovers_are_removed():
    run = waiting("run")
    ours = (".config.yaml.17", ".metrics.jsonl.4711", "lock.node1.site.99")
    others = (".config.yaml.swp", ".metrics.jsonl.bak", "lock.txt", "lock.5", "config.yaml.7")
    for name in ours + others:
        with open(os.path.join(run, name), "w", encoding="utf-8") as out:
            out.write("text")
    for name in ("step-00000003.tmp", "step-00000003.old.tmp", "step-mine.tmp"):
        os.makedirs(os.path.join(run, name))
        with open(os.path.join(run, name, "file"), "w", encoding="utf-8") as out:
            out.write("text")
    bcop("train", config("clean"), "--run", run, "--max-steps", 1)
    names = os.listdir(run)
    assert not {*ours, "step-00000003.tmp", "step-00000003.old.tmp"} & set(names), names
    assert set(others) <= set(names), names
    assert os.listdir(os.path.join(run, "step-mine.tmp")) == ["file"]


def check_bad_folders():
    for command in ("status", "stop", "plot"):
        fails(66, command, "nowhere", message="nowhere", ranks=(None,))
        os.makedirs("empty", exist_ok=True)
        fails(66, command, "empty", message="config.yaml", ranks=(None,))
        fails(64, command, message="RUN is needed", ranks=(None,))
    make_run("new", 0)
    fails(66, "plot", "new", message="no metrics", ranks=(None,))


def is_png(path):
    with open(path, "rb") as file:
        return file.read(8) == b"\x89PNG\r\n\x1a\n"


def check_plot():
    run = make_run("it's a `run`\n'2'", 65)
    with open("curve.csv", "w", encoding="utf-8") as out:
        out.write("eps,certified,low,high\n0,0.75,0.7,0.8\n0.5,0.25,0.2,0.3\n")
    with open("trace.json", "w", encoding="utf-8") as out:
        json.dump({"traceEvents": [{"name": "forward", "ph": "X", "ts": 0, "dur": 1500},
                                   {"name": "up\"date", "ph": "X", "ts": 2, "dur": 2500}]}, out)
    if not shutil.which("gnuplot"):
        fails(66, "plot", run, message="no gnuplot", ranks=(None,))
        print("        no gnuplot here: only its absence was checked")
        return
    bcop("plot", run)
    bcop("plot", run, "--curve", "curve.csv", "--profile", "trace.json", "--out", "figures")
    for folder in (os.path.join(run, "plots"), "figures"):
        for name in ("loss", "accuracy", "radius", "time"):
            text = tree.tostring(tree.parse(os.path.join(folder, name + ".svg")).getroot(),
                                 encoding="unicode", method="text")
            assert is_png(os.path.join(folder, name + ".png")), name
            if name == "accuracy":
                assert "certified at 36/255" in text and "test, clean" in text, text
            if name == "time":
                assert ("forward" in text) == (folder == "figures"), text
    for bad, message in (("a,b\n1,2\n", "eps and certified"), ("eps,certified\nx,y\n", "line 2")):
        with open("bad.csv", "w", encoding="utf-8") as out:
            out.write(bad)
        fails(65, "plot", run, "--curve", "bad.csv", message=message, ranks=(None,))
    fails(65, "plot", run, "--profile", "bad.csv", message="bad.csv", ranks=(None,))
    fails(66, "plot", run, "--profile", "none.json", message="none.json", ranks=(None,))
    done = subprocess.run([BCOP, "plot", run], env=os.environ | {"PATH": "/nowhere"}, check=False,
                          capture_output=True, text=True)
    assert done.returncode == 66 and "gnuplot-nox" in done.stderr, done


def check_a_real_run():
    path = config("real")
    bcop("train", path, "--max-steps", 20, ranks=2)
    status = bcop("status", "checkpoints/real", "--json").json
    assert (status["step"], status["last_checkpoint"]["step"]) == (20, 20), status
    assert status["state"] in ("paused", "interrupted"), status
    bcop("train", path, ranks=2)
    assert state("checkpoints/real") == "finished"


main(globals())
