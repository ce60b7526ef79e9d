#!/usr/bin/python3
# run: label fault timeout 180
"""A run that is told to stop, or that hangs, ends with the right code and loses nothing."""
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.environ["BCOP_SOURCE_DIR"], "tests", "support"))
from program import bcop, command, config, hashes, main, metrics  # noqa: E402

ENDLESS = "{batch: 32, lanes: 8, epochs: 1000000, watchdog: 2}"


def started(name, ranks):
    """A run that would never end, once it has made some steps."""
    path, file = config(name, train=ENDLESS), f"checkpoints/{name}/metrics.jsonl"
    process = subprocess.Popen(command(ranks, "train", path), stderr=subprocess.PIPE, text=True)
    for _ in range(600):
        if os.path.exists(file) and os.path.getsize(file) > 2000:
            return path, process
        time.sleep(0.05)
    process.kill()
    raise AssertionError("the run did not start")


def rank_pids(mpirun):
    """The processes of the program below this mpirun."""
    children = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat", encoding="utf-8") as file:
                fields = file.read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(entry))
    return sorted(children.get(mpirun, []))


def saved_and_resumable(name, path, whole_steps=200):
    step = int(os.readlink(f"checkpoints/{name}/latest")[5:])
    assert len([x for x in metrics(f"checkpoints/{name}") if x["kind"] == "train"]) == step
    goal = max(step + 5, whole_steps)
    bcop("train", path, "--max-steps", goal, ranks=3)
    bcop("train", path, "--run", "whole", "--max-steps", goal, ranks=2)
    assert hashes(f"checkpoints/{name}", goal) == hashes("whole", goal)


def check_usr1_to_mpirun_saves_and_returns_75():
    path, process = started("usr1", 2)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=30) == 75
    saved_and_resumable("usr1", path)


def check_usr1_to_one_rank_stops_all():
    path, process = started("one", 4)
    os.kill(rank_pids(process.pid)[2], signal.SIGUSR1)
    assert process.wait(timeout=30) == 75
    saved_and_resumable("one", path)


def check_interrupt_alone_saves_and_returns_79():
    path, process = started("int", None)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 79
    saved_and_resumable("int", path)


def check_the_launchers_stop_file_makes_it_79():
    os.environ["BCOP_STOP_FILE"] = os.path.abspath("stop-file")
    try:
        path, process = started("stop", 2)
        with open("stop-file", "w", encoding="utf-8"):
            pass
        process.send_signal(signal.SIGUSR1)
        assert process.wait(timeout=30) == 79
        os.unlink("stop-file")
    finally:
        del os.environ["BCOP_STOP_FILE"]
    saved_and_resumable("stop", path)


def check_a_stopped_rank_ends_with_81():
    for victim in (0, 2):
        path, process = started(f"hang{victim}", 4)
        os.kill(rank_pids(process.pid)[victim], signal.SIGSTOP)
        begin = time.monotonic()
        code = process.wait(timeout=60)
        errors = [x for x in process.stderr.read().splitlines() if x.startswith("bcop: error")]
        assert code == 81, (code, errors)
        assert time.monotonic() - begin < 45
        assert len(errors) == 1 and "no progress" in errors[0] and " in " in errors[0], errors
        # its last checkpoint, if there was one, still loads
        bcop("train", path, "--max-steps", 30, ranks=2)


main(globals())
