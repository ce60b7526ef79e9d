#!/usr/bin/python3
# run: label nightly timeout 900
"""What waits for SLURM's clocks: preemption, and nodes that die under a job."""
import os
import sys

sys.path.insert(0, os.path.join(os.environ["BCOP_SOURCE_DIR"], "tests", "support"))
from cluster import (CLUSTER, every_step_once, interrupted, job, logs, long_config, run,  # noqa: E402
                     shorten, start_slurm, submit, until, wait_for, wait_for_step)
from program import config, main  # noqa: E402


def check_preemption():
    urgent = []

    def preempt(_):
        path = config("urgent", train="{batch: 32, lanes: 8, epochs: 1}")
        urgent.extend(submit("--partition", "urgent", "--", "train", path, cancel=False))
    (number,), folder, steps = interrupted("preempted", preempt)
    wait_for(urgent[0])
    every_step_once("checkpoints/urgent", 13)
    task, = wait_for(number)
    assert int(task["Restarts"]) >= 1, task
    every_step_once(folder, steps)


def check_preemption_by_term():
    """A job that asks for no signal gets TERM when its grace time begins."""
    for by in ("srun", "mpirun"):
        path, folder = long_config(by), f"checkpoints/{by}"
        script = submit("--print", "--by", by, "--", "train", path, "--set",
                        "checkpoint.every_epochs=1", script=True)
        os.makedirs(folder)
        with open(f"{folder}/own.sbatch", "w", encoding="utf-8") as out:
            out.writelines(x for x in script.splitlines(True) if "--signal" not in x)
        number = int(run("sbatch", "--parsable", f"{folder}/own.sbatch").stdout)
        wait_for_step(folder, 40)
        urgent = config(f"urgent-{by}", train="{batch: 32, lanes: 8, epochs: 1}")
        first, = submit("--partition", "urgent", "--", "train", urgent, cancel=False)
        until(lambda number=number: int(job(number)[0]["Restarts"]) >= 1)
        steps = shorten(path, folder)
        wait_for(first)
        task, = wait_for(number)
        assert task["Restarts"] == "1", (task, logs())
        every_step_once(folder, steps)


def killed_node(node):
    path, folder = long_config("node"), "checkpoints/node"
    number, = submit("--", "train", path, "--set", "checkpoint.every_epochs=1")
    wait_for_step(folder, 40)
    run(CLUSTER, "kill-node", SLURM, node)
    until(lambda: int(job(number)[0]["Restarts"]) >= 1, 90)
    steps = shorten(path, folder)
    run(CLUSTER, "start-node", SLURM, node)
    wait_for(number, seconds=180)
    every_step_once(folder, steps)


def check_a_lost_node():
    killed_node("n2")
    assert "was lost" in logs(), logs()


def check_a_lost_batch_node():
    killed_node("n1")


SLURM = start_slurm()
main(globals())
