#!/usr/bin/python3
"""Predicts the time of a training step on a cluster that is not there: replays its messages in
SimGrid (Debian's libsimgrid-dev), where links are shared and ranks wait for each other.

    bench/simulate.py PATTERN --cores 8 --bandwidth 12.5e9 --latency 1.5e-6

The cluster is one switch without a limit of its own; rank r runs on host r / cores, one core each.
A link has --bandwidth bytes per second each way and half of --latency seconds; ranks of one host
talk at --host-bandwidth and --host-latency. No corrections for protocols are applied, so give what
a ping-pong between two ranks gives. Collectives take the algorithms that Open MPI would choose.

PATTERN is a text of one JSON object per line. The first describes the run; "tables" are lists of
bytes per rank which the actions call by number, so that long ones stand there once:

    {"ranks": 4, "tables": [[1024, 1024, 1024, 0]]}

Then come all ranks in order, each with what it does in one step, in its own order:

    {"rank": 0, "actions": [["compute", 0.25], ["isend", 1, 4096], ["irecv", 1, 4096], ["waitall"],
                            ["allreduce", 1048576], ["allgatherv", 0], ["bcast", 64, 0]]}

    ["compute", seconds]               work of this rank alone
    ["isend", to, bytes], ["irecv", from, bytes]
                                       started; the n-th from a to b meets b's n-th from a
    ["waitall"]                        for all that this rank started
    ["allreduce", bytes]               bytes of the whole vector; its additions count as no time
    ["allgatherv", table]              rank r gives tables[table][r] bytes; also the list itself
    ["alltoall", bytes]                from each rank to each
    ["bcast", bytes, root], ["barrier"]

The last five are of all ranks, and every rank must name them in the same order. With one more
number, members, allreduce and allgatherv are of ranks 0 .. members - 1 alone, by exchange of the
whole vector with distances 1, 2, 4, ... (allreduce, members a power of two) or around a ring.

A replay takes as long as there are messages: seconds for 1,024 ranks. But messages that are all
under way at once share links at a cost that grows much faster: for isends from each rank to each,
use alltoall (each with the next, then the one after it, ...) from some 128 ranks on.

--example RANKS prints a pattern made up from a round step; --check replays patterns whose times
are known in closed form.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

FLOPS = 1e9  # of a simulated core per second: a second of compute is written as so many flops
MISSING = 77
PLATFORM = """<?xml version='1.0'?>
<!DOCTYPE platform SYSTEM "https://simgrid.org/simgrid.dtd">
<platform version="4.1">
  <cluster id="hosts" prefix="host" suffix="" radical="0-{last}" speed="{flops}f" core="{cores}"
           bw="{bandwidth}Bps" lat="{latency}s" sharing_policy="SPLITDUPLEX"
           loopback_bw="{host_bandwidth}Bps" loopback_lat="{host_latency}s"/>
</platform>
"""
# Bandwidth and latency as they are given, not scaled as on the clusters SimGrid was calibrated on.
SETTINGS = ["smpi/bw-factor:0:1", "smpi/lat-factor:0:1", "network/crosstraffic:0",
            "smpi/coll-selector:ompi", "smpi/alltoall:ring", f"smpi/host-speed:{FLOPS:g}",
            # those that Open MPI would choose crash SimGrid 3.32 on blocks of which one rank has all
            "smpi/allgatherv:ring", "smpi/allreduce:rdb"]


class BadPattern(Exception):
    pass


class Trace:
    """Writes one rank's actions in SimGrid's words."""

    def __init__(self, rank, header, open_messages, file):
        self.rank, self.ranks, self.tables = rank, header["ranks"], header.get("tables", [])
        self.open_messages, self.file = open_messages, file
        self.tags = {}

    def write(self, *words):
        print(self.rank, *words, file=self.file)

    def message(self, word, other, size, sign):
        """A message has as its tag which one it is between the two."""
        if not 0 <= other < self.ranks or other == self.rank:
            raise BadPattern(f"rank {self.rank}: {word} with rank {other}")
        tag = self.tags[sign, other] = self.tags.get((sign, other), -1) + 1
        key = (self.rank, other) if sign > 0 else (other, self.rank)
        balance = self.open_messages.get(key, 0) + sign * (2 ** 40 + size)
        if balance:
            self.open_messages[key] = balance
        else:
            del self.open_messages[key]
        self.write(word, other, tag, max(1, size))
        return tag

    def compute(self, seconds):
        self.write("compute", seconds * FLOPS)

    def isend(self, to, size):
        self.message("isend", to, size, 1)

    def irecv(self, source, size):
        self.message("irecv", source, size, -1)

    def waitall(self):
        self.write("waitall")

    def barrier(self):
        self.write("barrier")

    def bcast(self, size, root):
        self.write("bcast", size, root)

    def alltoall(self, size):
        self.write("alltoall", size, size)

    def exchange(self, to, sent, source, received):
        tag = self.message("irecv", source, received, -1)
        self.message("send", to, sent, 1)
        self.write("wait", source, self.rank, tag)

    def allreduce(self, size, members=None):
        if members in (None, self.ranks):
            self.write("allreduce", size, 0)
            return
        if members & (members - 1) or not self.rank < members:
            raise BadPattern(f"rank {self.rank}: allreduce of {members} ranks")
        distance = 1
        while distance < members:
            self.exchange(self.rank ^ distance, size, self.rank ^ distance, size)
            distance *= 2

    def allgatherv(self, table, members=None):
        sizes = self.tables[table] if isinstance(table, int) else table
        if len(sizes) != (members or self.ranks) or not self.rank < len(sizes):
            raise BadPattern(f"rank {self.rank}: allgatherv with {len(sizes)} sizes")
        if members in (None, self.ranks):
            self.write("allgatherv", sizes[self.rank], *sizes)
            return
        after, before = (self.rank + 1) % members, (self.rank - 1) % members
        for step in range(members - 1):
            self.exchange(after, sizes[(self.rank - step) % members],
                          before, sizes[(before - step) % members])


ACTIONS = {"compute", "isend", "irecv", "waitall", "barrier", "bcast", "allreduce", "allgatherv",
           "alltoall"}


def write_traces(pattern, folder):
    """One file per rank, and `traces`, their list; the number of ranks."""
    lines = iter(pattern)
    header, open_messages, names = json.loads(next(lines)), {}, []
    for rank in range(header["ranks"]):
        line = json.loads(next(lines, "{}"))
        if line.get("rank") != rank:
            raise BadPattern(f"line {rank + 2} is not of rank {rank}")
        names.append(os.path.join(folder, f"rank{rank}"))
        with open(names[-1], "w", encoding="ascii") as file:
            trace = Trace(rank, header, open_messages, file)
            trace.write("init")
            for name, *values in line["actions"]:
                if name not in ACTIONS:
                    raise BadPattern(f"rank {rank}: unknown action {name}")
                getattr(trace, name)(*values)
            trace.write("finalize")
    for source, to in open_messages:
        raise BadPattern(f"messages from rank {source} to {to}: sent and received differ")
    with open(os.path.join(folder, "traces"), "w", encoding="ascii") as file:
        file.write("\n".join(names) + "\n")
    return header["ranks"]


def write_platform(folder, ranks, cluster):
    cores = cluster["cores"]
    values = {**cluster, "latency": cluster["latency"] / 2, "flops": FLOPS,
              "last": (ranks - 1) // cores}
    with open(os.path.join(folder, "platform.xml"), "w", encoding="ascii") as file:
        file.write(PLATFORM.format(**values))
    with open(os.path.join(folder, "hosts"), "w", encoding="ascii") as file:
        file.writelines(f"host{rank // cores}\n" for rank in range(ranks))


def simulate(pattern, folder, cluster):
    """(ranks, seconds of the simulated step) of the lines of a pattern."""
    ranks = write_traces(pattern, folder)
    write_platform(folder, ranks, cluster)
    paths = {name: os.path.join(folder, name) for name in ("platform.xml", "hosts", "traces")}
    command = ["smpirun", "-no-privatize", "-np", str(ranks), "-platform", paths["platform.xml"],
               "-hostfile", paths["hosts"], "-replay", paths["traces"]]
    command += [f"--cfg={setting}" for setting in SETTINGS]
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False)
    found = re.search(r"Simulation time ([0-9.e+-]+)", done.stdout)
    if done.returncode or not found:
        raise BadPattern(f"the replay ended with {done.returncode}:\n" + done.stdout[-2000:])
    return ranks, float(found.group(1))


def example(ranks):
    """A step of 0.1 s of layers, the sum of a 4 MB gradient, an update and a gather of 4 MB."""
    share = (4 << 20) // ranks
    yield json.dumps({"ranks": ranks, "tables": [[share] * ranks]})
    for rank in range(ranks):
        yield json.dumps({"rank": rank, "actions": [
            ["compute", 0.1], ["allreduce", 4 << 20], ["compute", 0.01], ["allgatherv", 0],
            ["isend", (rank + 1) % ranks, 1024], ["irecv", (rank - 1) % ranks, 1024],
            ["waitall"]]})


def check(cluster):
    """Replays what has a known time. A link takes 1 ms per MB, a message 10 us besides."""
    cluster = {**cluster, "cores": 1, "bandwidth": 1e9, "latency": 1e-5}
    mega, pair = 1000000, {"ranks": 2}
    send, receive = [["isend", 1, mega], ["waitall"]], [["irecv", 0, mega], ["waitall"]]
    cases = [
        ("compute", pair, [[["compute", 0.25]], [["compute", 0.5]]], 0.5),
        ("one message after work", pair, [[["compute", 0.1]] + send, receive], 0.1 + 1e-3 + 1e-5),
        ("two senders share a link", {"ranks": 3},
         [[["isend", 2, mega], ["waitall"]], [["isend", 2, mega], ["waitall"]],
          [["irecv", 0, mega], ["irecv", 1, mega], ["waitall"]]], 2e-3 + 1e-5),
        ("allreduce of 4 of 5", {"ranks": 5}, [[["allreduce", mega, 4]]] * 4 + [[]],
         2 * (1e-3 + 1e-5)),
        ("allgatherv of 4 of 5", {"ranks": 5, "tables": [[mega] * 4]},
         [[["allgatherv", 0, 4]]] * 4 + [[]], 3 * (1e-3 + 1e-5)),
    ]
    failed = False
    for name, header, actions, wanted in cases:
        lines = [json.dumps(header)] + [json.dumps({"rank": rank, "actions": list_})
                                        for rank, list_ in enumerate(actions)]
        with tempfile.TemporaryDirectory() as folder:
            seconds = simulate(lines, folder, cluster)[1]
        wrong = abs(seconds - wanted) > 5e-6
        failed |= wrong
        print(f"{name}: {seconds:.6f} s, expected {wanted:.6f}{' WRONG' if wrong else ''}")
    return 1 if failed else 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pattern", nargs="?", help="a file, or - for stdin")
    parser.add_argument("--cores", type=int, default=1, help="ranks per host (default 1)")
    parser.add_argument("--bandwidth", type=float, default=12.5e9, help="bytes/s (12.5e9)")
    parser.add_argument("--latency", type=float, default=1.5e-6, help="seconds (1.5e-6)")
    parser.add_argument("--host-bandwidth", type=float, default=6e9, help="bytes/s (6e9)")
    parser.add_argument("--host-latency", type=float, default=5e-7, help="seconds (5e-7)")
    parser.add_argument("--keep", metavar="DIR", help="leave traces and platform in this folder")
    parser.add_argument("--json", action="store_true", help="one object on stdout")
    parser.add_argument("--example", type=int, metavar="RANKS", help="print a pattern and leave")
    parser.add_argument("--check", action="store_true", help="test with known times and leave")
    arguments = parser.parse_args()
    if arguments.pattern is None and not arguments.example and not arguments.check:
        parser.error("PATTERN is needed")
    return arguments


def main():
    arguments = parse_arguments()
    if arguments.example:
        print("\n".join(example(arguments.example)))
        return 0
    if shutil.which("smpirun") is None:
        print("SKIP: there is no SimGrid; on Debian: apt-get install --no-install-recommends "
              "libsimgrid-dev", file=sys.stderr)
        return MISSING
    cluster = {name: getattr(arguments, name) for name in
               ("cores", "bandwidth", "latency", "host_bandwidth", "host_latency")}
    if arguments.check:
        return check(cluster)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = os.path.abspath(arguments.keep or temporary)
        os.makedirs(folder, exist_ok=True)
        pattern = sys.stdin if arguments.pattern == "-" else open(arguments.pattern,
                                                                  encoding="utf-8")
        ranks, seconds = simulate(pattern, folder, cluster)
    result = {"ranks": ranks, **cluster, "step_seconds": seconds,
              "replay_seconds": round(time.monotonic() - start, 2)}
    print(json.dumps(result) if arguments.json else
          "{ranks} ranks, {cores} per host: {step_seconds:.6f} s per step "
          "(replayed in {replay_seconds} s)".format(**result))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BadPattern, OSError, ValueError) as error:
        print(f"simulate: error: {error}", file=sys.stderr)
        sys.exit(1)
