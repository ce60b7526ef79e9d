"""A real SLURM of several nodes for a test, and what tests ask of its jobs."""
import atexit
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from program import SOURCE, at_any_end, bcop, config, metrics

BCOP_SLURM = os.path.join(SOURCE, "launcher", "bcop-slurm")
CLUSTER = os.path.join(SOURCE, "cluster", "one-machine-slurm")


def skip(reason):
    print(f"SKIP: {reason}")
    sys.exit(77)


def run(*command, code=0, **more):
    # With SIGPIPE ignored munge's client tries again when munged has closed a connection that was
    # silent for two seconds, as on a machine that stalls; else the signal kills SLURM's commands.
    done = subprocess.run([str(x) for x in command], capture_output=True, text=True, timeout=60,
                          check=False, **{"restore_signals": False, **more})
    assert code is None or done.returncode == code, (command, done.returncode, done.stdout, done.stderr)
    return done


def clean_at_end(*command):
    """Runs the command when this process ends, also when it is killed."""
    writer = at_any_end(*command)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    def at_exit():
        subprocess.run(command, capture_output=True, check=False)
        os.close(writer)
    atexit.register(at_exit)


def start_slurm(nodes=2):
    """Brings a SLURM up for the rest of the test, or skips the test with the reason."""
    if not shutil.which("slurmctld", path=os.environ["PATH"] + ":/usr/sbin:/sbin"):
        skip("there is no slurmctld")
    folder = tempfile.mkdtemp(prefix="sl.", dir="/tmp")
    os.rmdir(folder)
    clean_at_end(CLUSTER, "down", folder)
    done = run(CLUSTER, "up", folder, "--nodes", nodes, code=None, restore_signals=True)
    if done.returncode != 0:
        skip(done.stderr.strip().replace("\n", " | ")[-300:] or "SLURM does not come up")
    with open(os.path.join(folder, "env"), encoding="utf-8") as file:
        for name, value in re.findall(r"(\w+)=(\S+)", file.read()):
            os.environ[name] = value
    # The launcher makes a private folder below, and sockets in it.
    os.environ["TMPDIR"] = folder
    return folder


def submit(*arguments, shape=(2, 2), time_limit="10", code=0, cancel=True, script=False):
    """Submits with bcop-slurm; the numbers of the jobs (`script`: what it prints). What a failed check has left is cancelled."""
    if cancel:
        run("scancel", "--user", str(os.getuid()), code=None)
    done = run(BCOP_SLURM, "--nodes", shape[0], "--ranks-per-node", shape[1], "--time", time_limit,
               *arguments, code=code)
    if script:
        return done.stdout
    return [int(x) for x in done.stdout.split()] if code == 0 else done


def job(number):
    """What scontrol says of a job (of an array: of each task), as a list of dictionaries."""
    tasks = re.split(r"^JobId=", run("scontrol", "show", "job", "-o", number).stdout, flags=re.M)
    return [dict(re.findall(r"(\w+)=(\S+)", "JobId=" + task)) for task in tasks[1:]]


def until(question, seconds=120, every=0.2):
    """Waits until the question's answer is true, and returns it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = question()
        if answer:
            return answer
        time.sleep(every)
    raise AssertionError(f"after {seconds} s still not: {question.__doc__ or question}")


def wait_for(number, state="COMPLETED", seconds=120):
    """Waits until all tasks of a job have ended, all in `state`."""
    done = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")
    tasks = until(lambda: (t := job(number)) and all(x["JobState"] in done for x in t) and t, seconds)
    assert all(t["JobState"] == state for t in tasks), (tasks, logs())
    return tasks


def logs():
    """What the jobs below the current folder said."""
    texts = []
    for folder, _, names in os.walk("."):
        for name in names:
            if name.startswith("slurm-"):
                with open(os.path.join(folder, name), encoding="utf-8") as file:
                    texts.append(f"--- {name}\n{file.read()[-3000:]}")
    return "\n".join(texts)


def wait_for_step(folder, step, seconds=120):
    def there():
        done = bcop("status", folder, "--json", code=None)
        return done.code == 0 and done.json["step"] >= step
    try:
        until(there, seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}: step {step} of {folder}\n{logs()}") from None


PER_EPOCH = 13  # steps of program.config's data


def long_config(name):
    """A run that does not end before shorten() makes it."""
    return config(name, train="{batch: 32, lanes: 8, epochs: 100000}", evaluate="{every: 0}",
                  schedule="{kind: constant}", checkpoint="{every_epochs: 0, every_minutes: 0, min_seconds: 0}")


def shorten(path, folder):
    """Lets the run end soon after its newest checkpoint: the next start reads the file again."""
    step = int(os.readlink(os.path.join(folder, "latest"))[5:])
    with open(path, encoding="utf-8") as file:
        text = file.read()
    steps = (step // PER_EPOCH + 2) * PER_EPOCH
    with open(path + ".new", "w", encoding="utf-8") as out:
        out.write(text.replace("epochs: 100000", f"epochs: {steps // PER_EPOCH}"))
    os.replace(path + ".new", path)
    return steps


def every_step_once(folder, steps, first=1):
    trained = [x["step"] for x in metrics(folder) if x["kind"] == "train"]
    assert trained == list(range(first, steps + 1)), (len(trained), steps)
    assert bcop("status", folder, "--json").json["state"] == "finished"


def interrupted(name, stop, *options, **more):
    """A job that `stop(its number)` interrupts once it is under way (None: something else does), then
    one that is short enough to finish. Numbers of the jobs, the run's folder, its steps."""
    path, folder = long_config(name), f"checkpoints/{name}"
    numbers = submit(*options, "--", "train", path, **more)
    wait_for_step(folder, 20)
    if stop:
        stop(numbers[0])
    until(lambda: os.path.exists(f"{folder}/latest"), 90)
    return numbers, folder, shorten(path, folder)
