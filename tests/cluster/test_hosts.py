#!/usr/bin/python3
# run: label slurm timeout 300
"""Training over four hosts, network namespaces with limited bandwidth, and a link that is cut."""
import os
import re
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.environ["BCOP_SOURCE_DIR"], "tests", "support"))
from cluster import (clean_at_end, every_step_once, long_config, run, shorten, skip,  # noqa: E402
                     until, wait_for_step)
from program import SOURCE, bcop, config, hashes, main, metrics  # noqa: E402

HOSTS = os.path.join(SOURCE, "cluster", "one-machine-hosts")
LAUNCH = os.path.join(SOURCE, "launcher", "bcop-launch")
ADDRESSES = ",".join(f"10.77.0.{i}:1" for i in range(1, 5))


def start_hosts():
    folder = tempfile.mkdtemp(prefix="bh.", dir="/tmp")
    os.rmdir(folder)
    clean_at_end(HOSTS, "down", folder)
    done = run(HOSTS, "up", folder, "--rate", "100mbit", code=None)
    if done.returncode != 0:
        skip(done.stderr.strip()[-300:] or "namespaces do not come up")
    with open(os.path.join(folder, "env"), encoding="utf-8") as file:
        os.environ.update(re.findall(r"(\w+)=(\S+)", file.read()))
    os.environ["TMPDIR"] = folder
    return folder


def launch(*arguments):
    return [os.path.join(FOLDER, "on"), "1", LAUNCH, "--host", ADDRESSES, *arguments]


def sent(host):
    """Bytes that went through the host's bandwidth limit."""
    text = run(os.path.join(FOLDER, "on"), host, "tc", "-s", "qdisc", "show", "dev", "eth0").stdout
    assert "qdisc tbf" in text and "rate 100Mbit" in text, text
    return int(re.search(r"Sent (\d+) bytes", text).group(1))


def check_the_same_bits_over_the_network():
    path = config("plain")
    bcop("train", path, "--run", "alone", "--max-steps", 20)
    before = [sent(i) for i in range(1, 5)]
    run(*launch("--", "train", path, "--run", "hosts", "--max-steps", 20))
    assert hashes("hosts", 20) == hashes("alone", 20)
    assert metrics("hosts") == metrics("alone")
    for i in range(4):  # more than mpirun's own words: a step's gradients leave every host
        assert sent(i + 1) - before[i] > 20 * 1000, i


def check_a_cut_link():
    path, folder = long_config("cut"), "checkpoints/cut"
    with open("log", "w", encoding="utf-8") as out:
        launcher = subprocess.Popen(
            launch("--retries", "5", "--", "train", path, "--set", "checkpoint.every_epochs=1"),
            stderr=out)
    try:
        wait_for_step(folder, 40)
        run(HOSTS, "cut", FOLDER, 3)
        begin = time.monotonic()

        def said():
            with open("log", encoding="utf-8") as file:
                return "contact with a node was lost" in file.read()
        until(said, 60, 0.1)
        # Nothing of this waits for a processor: what counts are the kernel's keepalive probes.
        seconds = time.monotonic() - begin
        assert seconds < 15, seconds
        print(f"        a cut link was noticed after {seconds:.1f} s")
        steps = shorten(path, folder)
        run(HOSTS, "mend", FOLDER, 3)
        assert launcher.wait(timeout=90) == 0
    finally:
        launcher.kill()
    every_step_once(folder, steps)
    bcop("train", path, "--run", "unbroken")
    assert hashes(folder, steps) == hashes("unbroken", steps)


def check_nothing_is_left():
    assert not [x for x in os.listdir(FOLDER) if x.startswith("bl.")], os.listdir(FOLDER)


FOLDER = start_hosts()
main(globals())
