#!/usr/bin/python3
# run: label fault timeout 180
"""What a run directory says about its attempts: attempts.jsonl, the lock, the stop file."""
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.environ["BCOP_SOURCE_DIR"], "tests", "support"))
from program import bcop, command, config, fails, hashes, main  # noqa: E402

ENDLESS = "{batch: 32, lanes: 8, epochs: 1000000}"


def attempts(run):
    with open(f"{run}/attempts.jsonl", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def wait_for(what, seconds=30):
    for _ in range(int(seconds / 0.05)):
        if what():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen")


def started(path, run, ranks=None):
    """A run that would never end, once it has made some steps."""
    file = f"{run}/metrics.jsonl"
    size = os.path.getsize(file) if os.path.exists(file) else 0
    process = subprocess.Popen(command(ranks, "train", path, "--run", run),
                               stderr=subprocess.PIPE, text=True)
    wait_for(lambda: os.path.exists(file) and os.path.getsize(file) > size + 2000)
    return process


def check_attempts_are_recorded():
    path = config("a")
    os.environ["SLURM_JOB_ID"] = "4711"
    bcop("train", path, "--run", "run", "--max-steps", 10, ranks=2)
    del os.environ["SLURM_JOB_ID"]
    with open("run/attempts.jsonl", "a", encoding="utf-8") as file:
        file.write('{"kind":"end","att')  # cut in the middle by a lost node
    bcop("train", path, "--run", "run", "--max-steps", 25)
    lines = open("run/attempts.jsonl", encoding="utf-8").read().splitlines()
    assert len(lines) == 5, lines
    first, end, second, last = (json.loads(x) for x in lines[:2] + lines[3:])
    assert (first["kind"], first["attempt"], first["job"], first["ranks"], first["step"]) == (
        "start", 1, "4711", 2, 0)
    assert first["host"] == os.uname().nodename and first["pid"] > 0
    time.strptime(first["time"], "%Y-%m-%dT%H:%M:%SZ")
    assert (end["kind"], end["attempt"], end["code"], end["step"], end["steps"]) == (
        "end", 1, 0, 10, 10)
    assert (second["attempt"], second["job"], second["ranks"], second["step"]) == (2, None, 1, 10)
    assert (last["attempt"], last["step"], last["steps"]) == (2, 25, 15)
    bcop("train", path, "--run", "run", "--max-steps", 25)  # nothing to do
    bcop("train", path, "--run", "run", "--max-steps", 30, "--dry-run")
    assert len(open("run/attempts.jsonl", encoding="utf-8").read().splitlines()) == 5
    assert not os.path.exists("run/lock")


def check_a_failed_start_leaves_no_folder():
    path = config("f")
    fails(66, "train", path, "--run", "new/run", "--resume", "none", message="none")
    assert not os.path.exists("new/run")


def check_a_killed_attempt_has_no_end():
    path = config("k", train=ENDLESS)
    process = started(path, "run", 2)
    process.kill()
    process.wait()
    lock = json.load(open("run/lock", encoding="utf-8"))
    wait_for(lambda: not os.path.exists(f"/proc/{lock['pid']}"))
    assert [x["kind"] for x in attempts("run")] == ["start"]
    # The dead process's lock is free, and there is something to do: it may have saved a best one.
    step = int(os.readlink("run/latest")[5:]) if os.path.islink("run/latest") else 0
    bcop("train", path, "--run", "run", "--max-steps", step + 5)
    found = [(x["kind"], x["attempt"], x["step"]) for x in attempts("run")]
    assert found == [("start", 1, 0), ("start", 2, step), ("end", 2, step + 5)], found


def check_one_run_at_a_time():
    path = config("one", train=ENDLESS)
    process = started(path, "run", 2)
    fails(73, "train", path, "--run", "run",
          message=[f"process {json.load(open('run/lock', encoding='utf-8'))['pid']} on "
                   f"{os.uname().nodename}", "run/lock"])
    bcop("train", path, "--run", "run", "--dry-run")
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=30) == 75
    assert not os.path.exists("run/lock")


def lock_of(host, age):
    with open("run/lock", "w", encoding="utf-8") as file:
        json.dump({"host": host, "pid": 1, "job": "77", "since": "2026-11-23T16:00:00Z"}, file)
    os.utime("run/lock", (time.time() - age,) * 2)


def check_a_lock_of_another_host():
    path = config("other")
    os.mkdir("run")
    lock_of("elsewhere", 61)  # long dead
    bcop("train", path, "--run", "run", "--max-steps", 2)
    lock_of("elsewhere", 54)  # young, but nobody touches it, for longer than ranks may wait
    begin = time.monotonic()
    bcop("train", path, "--run", "run", "--max-steps", 4, "--set", "train.watchdog=1", ranks=2)
    assert time.monotonic() - begin > 2
    # A clock of ours that is wrong makes nobody dead, nor alive; and waiting for a lock is no hang.
    for wrong in ("1000", "-1000"):
        lock_of("elsewhere", 30)
        toucher = threading.Timer(2, lambda: os.utime("run/lock"))
        toucher.start()
        clock = {"LD_PRELOAD": os.environ["BCOP_FAILING_LIBRARY"], "BCOP_FAIL_CLOCK": wrong}
        os.environ.update(clock)
        try:
            result = bcop("train", path, "--run", "run", "--max-steps", 6, "--set",
                          "train.watchdog=1", code=73)
        finally:
            for name in clock:
                del os.environ[name]
        toucher.join()
        assert len(result.errors) == 1 and "process 1 on elsewhere, job 77" in result.errors[0]
    assert not [x for x in os.listdir("run") if x.startswith("lock.")], os.listdir("run")
    lock_of(os.uname().nodename, 0)  # of this host, and nobody holds it
    bcop("train", path, "--run", "run", "--max-steps", 8)
    with open("run/lock", "w", encoding="utf-8") as file:  # taken, and nothing written yet
        fcntl.flock(file, fcntl.LOCK_EX)
        fails(73, "train", path, "--run", "run", message="another process trains this run")
    with open("run/lock", "w", encoding="utf-8") as file:
        file.write("not JSON")
    bcop("train", path, "--run", "run", "--max-steps", 10)


def check_a_restart_goes_on_with_its_own():
    """What a launcher's later starts do with the arguments of the first (BCOP_RESTART=1)."""
    path = config("again")
    bcop("train", path, "--run", "from", "--max-steps", 5)
    more = ("train", path, "--run", "run", "--resume", "from")
    bcop(*more, code=-signal.SIGKILL, fault="step.update:hit=2")  # nothing of its own is saved yet
    fails(73, *more, message="holds a run", ranks=(None,))
    os.environ["BCOP_RESTART"] = "1"
    try:
        assert "continuing from from/" in bcop(*more, "--max-steps", 7, ranks=2).err
        assert "continuing from" in bcop(*more, "--max-steps", 9).err
        bcop("train", path, "--run", "run", "--resume", "never", "--max-steps", 11)
    finally:
        del os.environ["BCOP_RESTART"]
    fails(73, *more, message="holds a run", ranks=(None,))
    assert [x["step"] for x in attempts("run") if x["kind"] == "start"] == [5, 5, 7, 9]
    bcop("train", path, "--run", "whole", "--max-steps", 11)
    assert hashes("run", 11) == hashes("whole", 11)


def check_term_in_a_batch_job_is_the_systems():
    path = config("term", train=ENDLESS)
    os.environ["SLURM_JOB_ID"] = "4711"
    try:
        process = started(path, "run")
    finally:
        del os.environ["SLURM_JOB_ID"]
    os.kill(process.pid, signal.SIGSTOP)  # so that both come at once: the second is no hard stop
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGUSR1)
    os.kill(process.pid, signal.SIGCONT)
    assert process.wait(timeout=30) == 75
    assert attempts("run")[-1]["code"] == 75


def check_only_bad_checkpoints_are_no_fresh_start():
    path = config("bad")
    bcop("train", path, "--run", "run", "--max-steps", 3)
    os.rename("run/step-00000003", "run/step-00000003.bad")
    for more in ((), ("--resume", "auto"), ("--init-from", "nowhere")):
        fails(65, "train", path, "--run", "run", *more, message="none is valid", ranks=(None,))
    os.unlink("run/metrics.jsonl")
    fails(65, "train", path, "--run", "run", message="none is valid", ranks=(None, 2))
    fails(73, "train", path, "--run", "run", "--resume", "never", message="holds a run", ranks=(None,))
    os.rename("run/step-00000003.bad", "run/step-00000003")
    bcop("train", path, "--run", "run", "--max-steps", 4)


def check_the_stop_file_ends_the_run():
    path = config("stop", train=ENDLESS)
    process = started(path, "run", 4)
    with open("run/stop", "w", encoding="utf-8"):
        pass
    assert process.wait(timeout=30) == 79
    assert not os.path.exists("run/stop")
    step = int(os.readlink("run/latest")[5:])
    assert attempts("run")[-1]["code"] == 79 and attempts("run")[-1]["step"] == step
    bcop("train", path, "--run", "run", "--max-steps", step + 5)
    bcop("train", path, "--run", "whole", "--max-steps", step + 5, ranks=2)
    assert hashes("run", step + 5) == hashes("whole", step + 5)


def check_a_second_signal_stops_at_once():
    path = config("twice", train=ENDLESS)
    process = started(path, "run")
    os.kill(process.pid, signal.SIGSTOP)  # so that both signals wait for it
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    os.kill(process.pid, signal.SIGCONT)
    assert process.wait(timeout=30) in (-signal.SIGINT, -signal.SIGTERM)
    assert [x["kind"] for x in attempts("run")] == ["start"]


main(globals())
