#!/usr/bin/python3
# run: label slurm timeout 600
"""Jobs on a real SLURM of two nodes, which this test brings up on this machine."""
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.environ["BCOP_SOURCE_DIR"], "tests", "support"))
from cluster import (every_step_once, interrupted, job, logs, long_config, run, shorten, start_slurm,  # noqa: E402
                     submit, until, wait_for, wait_for_step)
from program import SOURCE, bcop, config, hashes, main, metrics  # noqa: E402

HOSTILE = "it's \"a\" $(touch owned) `run`\n%j;&*"


def check_the_same_bits_as_without_slurm():
    path = config("plain")
    bcop("train", path, "--run", "alone", "--max-steps", 20)
    for by in ("mpirun", "srun"):
        number, = submit("--by", by, "--", "train", path, "--run", by, "--max-steps", 20)
        wait_for(number)
        assert hashes(by, 20) == hashes("alone", 20), by
        assert metrics(by) == metrics("alone"), by
        assert ", 4 ranks," in logs()


def check_the_hand_written_script():
    path = config("hand")
    with open(os.path.join(SOURCE, "cluster", "train.sbatch"), encoding="utf-8") as file:
        text = file.read()
    for old, new in (("launch=launcher/bcop-launch", f"launch={SOURCE}/launcher/bcop-launch"),
                     ("config=configs/mnist-small.yaml", f"config={path}"),
                     ("run=checkpoints/mnist-small", "run=hand"), ("--nodes=2", "--nodes=1")):
        assert old in text, old
        text = text.replace(old, new)
    with open("hand.sbatch", "w", encoding="utf-8") as out:
        out.write(text.replace("#SBATCH --ntasks-per-node=16", "#SBATCH --ntasks-per-node=2"))
    wait_for(int(run("sbatch", "--parsable", "hand.sbatch").stdout))
    every_step_once("hand", 65)


def check_hostile_names():
    os.mkdir(HOSTILE)
    os.chdir(HOSTILE)
    path = config("plain")
    os.rename(path, f"a {path}")
    number, = submit("--", "train", f"a {path}", "--max-steps", 5, "--run", f"runs/{HOSTILE}x",
                     shape=(1, 2))
    task, = wait_for(number)
    assert task["JobName"].startswith("bcop-it_s__a____touch_owned_"), task["JobName"]
    assert metrics(f"runs/{HOSTILE}x")[-1]["step"] == 5
    assert sorted(os.listdir(".")) == [f"a {path}", "runs"], os.listdir(".")
    for option, value in (("--name", "a b"), ("--name", "$(x)"), ("--name", "-x"), ("--name", "a\nb"),
                          ("--partition", "x y"), ("--account", "'"), ("--array", "1;2"),
                          ("--time", "1h"), ("--chain", "0"), ("--grace", "x")):
        submit(option, value, "--", "train", f"a {path}", code=64)
    submit("--", "train", f"a {path}", "--set", "name=a/b", code=78)
    submit("--", "train", "none.yaml", code=66)
    submit("--", "train", f"a {path}", shape=(3, 3), code=78)  # more ranks than lanes


def check_an_array_of_seeds():
    path = config("seeds", train="{batch: 32, lanes: 8, epochs: 1}")
    number, = submit("--array", "3-4,7", "--", "train", path, shape=(1, 2))
    assert len(wait_for(number)) == 3
    runs = [f"checkpoints/seeds-seed{seed}" for seed in (3, 4, 7)]
    for seed, folder in zip((3, 4, 7), runs):
        bcop("train", path, "--set", f"seed={seed}", "--run", f"alone{seed}")
        assert hashes(folder, 13) == hashes(f"alone{seed}", 13), seed
        assert os.path.exists(f"{folder}/job.sbatch")
    summary = bcop("status", *runs, "--json").json["summary"]
    assert (summary["runs"], summary["finished"], summary["split"]) == (3, 3, "test"), summary
    clean = [x["clean"] for folder in runs for x in metrics(folder)
             if x["kind"] == "eval" and x["split"] == "test"]
    assert abs(summary["clean"]["mean"] - sum(clean) / 3) < 1e-12


def usr1(number):
    run("scancel", "--batch", "--signal=USR1", number)


def check_one_task_of_an_array_is_requeued_alone():
    """The last task of an array has the array's number as its own."""
    path = long_config("tasks")
    number, = submit("--array", "1-2", "--", "train", path, shape=(1, 2))
    for seed in (1, 2):
        wait_for_step(f"checkpoints/tasks-seed{seed}", 5)
    master, = (x for x in job(number) if x["JobId"] == x["ArrayJobId"])
    usr1(f"{number}_{master['ArrayTaskId']}")
    restarts = until(lambda: (t := {x["JobId"]: x["Restarts"] for x in job(number)})
                     and t[str(number)] == "1" and t)
    assert sorted(restarts.values()) == ["0", "1"], restarts
    run("scancel", number)
    wait_for(number, "CANCELLED")


def check_the_time_limit_leads_to_a_requeue():
    numbers, folder, steps = interrupted("limited", None, "--grace", 45, time_limit="1")
    task, = wait_for(numbers[0])
    assert task["Restarts"] == "1", task
    every_step_once(folder, steps)
    assert "asking the ranks to save a checkpoint" in logs() and "is requeued" in logs()
    first, second = bcop("status", folder, "--json").json["attempts"]
    assert (first["code"], second["code"]) == (75, 0), (first, second)
    assert first["job"] == second["job"] == str(numbers[0]) and first["step"] == 0
    assert second["step"] == first["end_step"] == first["steps"], (first, second)


def check_scontrol_requeue_loses_nothing_saved():
    path = long_config("admin")
    number, = submit("--", "train", path, "--set", "checkpoint.every_epochs=1")
    wait_for_step("checkpoints/admin", 40)
    run("scontrol", "requeue", number)
    until(lambda: job(number)[0]["Restarts"] == "1")
    steps = shorten(path, "checkpoints/admin")
    wait_for(number)
    every_step_once("checkpoints/admin", steps)


def a_rank_of(folder):
    """A process of the run that is not rank 0."""
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                line = file.read().split(b"\0")
            with open(f"/proc/{entry}/environ", "rb") as file:
                ranked = b"OMPI_COMM_WORLD_RANK=2\0" in file.read()
        except OSError:
            continue
        if ranked and line[0].endswith(b"bcop") and folder.encode() in line:
            return int(entry)
    raise AssertionError("no rank 2")


def check_a_killed_rank_leads_to_a_requeue():
    path = long_config("lost")
    bcop("train", path, "--run", "from", "--max-steps", 10)
    # --resume FILE is of the first start; later ones go on with the run's own checkpoints
    number, = submit("--", "train", path, "--run", "a lost rank", "--set", "checkpoint.every_epochs=1",
                     "--resume", "from")
    wait_for_step("a lost rank", 40)
    os.kill(a_rank_of("a lost rank"), signal.SIGKILL)
    until(lambda: job(number)[0]["Restarts"] == "1")
    steps = shorten(path, "a lost rank")
    wait_for(number)
    every_step_once("a lost rank", steps, first=11)
    assert "a rank was killed by signal 9" in logs(), logs()


def check_slurms_term_is_no_persons_stop():
    """What preemption with a grace time sends to the ranks of srun, and a job that is cancelled."""
    path, folder = long_config("term"), "checkpoints/term"
    number, = submit("--by", "srun", "--", "train", path)
    wait_for_step(folder, 20)
    run("scancel", "--signal=TERM", number)
    until(lambda: job(number)[0]["Restarts"] == "1")
    first = bcop("status", folder, "--json").json["attempts"][0]
    assert first["code"] == 75, (first, logs())
    wait_for_step(folder, first["end_step"] + 20)
    run("scancel", number)
    task, = wait_for(number, "CANCELLED")
    assert task["Restarts"] == "1", (task, logs())
    assert bcop("status", folder, "--json").json["state"] in ("interrupted", "killed")
    steps = shorten(path, folder)
    bcop("train", path, ranks=2)
    every_step_once(folder, steps)
    assert job(number)[0]["JobState"] == "CANCELLED", (job(number), logs())


def check_a_chain_of_two():
    (first, second), folder, steps = interrupted("chain", usr1, "--chain", 2)
    assert job(second)[0]["Dependency"].startswith("afterany") or job(first)[0]["JobState"] == "FAILED"
    wait_for(second)
    task, = job(first)
    assert (task["ExitCode"], task["Restarts"]) == ("75:0", "0"), task
    every_step_once(folder, steps)


def check_what_a_person_stops_stays_stopped():
    path = long_config("person")
    first, second = submit("--chain", 2, "--", "train", path)
    wait_for_step("checkpoints/person", 20)
    bcop("stop", "checkpoints/person")
    for number in (first, second):
        task, = wait_for(number, "FAILED")
        assert (task["ExitCode"], task["Restarts"]) == ("79:0", "0"), (task, logs())
    assert bcop("status", "checkpoints/person", "--json").json["state"] == "stopped"
    assert "a person has stopped" in logs()
    # A job that would be requeued is not either. The script may have been edited: it is kept.
    with open("checkpoints/person/job.sbatch", "a", encoding="utf-8") as out:
        out.write("# edited\n")
    number, = submit("--", "train", path)
    wait_for_step("checkpoints/person", metrics("checkpoints/person")[-1]["step"] + 20)
    with open("checkpoints/person/job.sbatch.old", encoding="utf-8") as old:
        assert old.read().endswith("# edited\n")
    bcop("stop", "checkpoints/person")
    task, = wait_for(number, "FAILED")
    assert (task["ExitCode"], task["Restarts"]) == ("79:0", "0"), (task, logs())


def check_nothing_is_left():
    """Of launchers that SLURM did not kill; a cancelled job's may still be ending."""
    folder = os.environ["TMPDIR"]
    until(lambda: not [x for x in os.listdir(folder) if x.startswith("bl.")], seconds=30)


start_slurm()
main(globals())
