#!/usr/bin/python3
# run: label fault timeout 300
"""Two runs in one folder at once, a run that never gets further, ranks in other surroundings."""
import os
import sys

sys.path.insert(0, os.path.join(os.environ["BCOP_SOURCE_DIR"], "tests", "support"))
import faults  # noqa: E402
from program import BCOP, bcop, main  # noqa: E402


def check_two_starts_at_once():
    path = faults.tiny("two", epochs=40)
    faults.whole(path, 240)
    for trial in range(4):
        run = f"run{trial}"
        pair = [faults.start(2, "train", path, "--run", run, name=f"said{i}") for i in range(2)]
        codes = [x.end(60) for x in pair]
        # when one was done before the other looked, both are right
        assert 0 in codes and set(codes) <= {0, 73}, (codes, pair[0].said, pair[1].said)
        for code, each in zip(codes, pair):
            if code == 73:
                assert len(each.errors) == 1 and "process" in each.errors[0], each.said
        faults.same_end(run, "whole", 240)
        assert not os.path.exists(f"{run}/lock")


def check_a_run_that_always_dies():
    path = faults.tiny("loop", epochs=3, checkpoint="{min_seconds: 0.0, max_failures: 3}")
    faults.whole(path, 18)
    codes = []
    while len(codes) < 8 and codes[-1:] != [78]:
        # dies in step 9, with the last checkpoint at 6, however often it is started
        at = (faults.steps("run") or [0])[-1]
        started = faults.start(2, "train", path, "--run", "run",
                               env=faults.with_fault(f"step.forward:rank=1:hit={9 - at}:kill"))
        codes.append(started.end())
    assert codes == [137] * 4 + [78], codes  # the first got to 6, three more got no further
    assert len(started.errors) == 1 and "step 6" in started.errors[0], started.said
    assert "max_failures=0" in started.errors[0], started.said
    assert faults.steps("run") == [6], "nothing is lost"
    bcop("train", path, "--run", "run", "--set", "checkpoint.max_failures=0", ranks=2)
    faults.same_end("run", "whole", 18)


def check_a_killed_run_that_gets_on_is_no_loop():
    path = faults.tiny("on", epochs=12)
    faults.whole(path, 72)
    for _ in range(11):
        started = faults.start(2, "train", path, "--run", "run",
                               env=faults.with_fault("step.forward:rank=1:hit=9:kill"))
        assert started.end() in (137, 0), started.said
    bcop("train", path, "--run", "run", ranks=2)
    faults.same_end("run", "whole", 72)


def check_ranks_in_other_surroundings():
    path = faults.tiny("else")
    faults.whole(path, 12)
    os.mkdir("home")
    path, run = os.path.abspath(path), "run"
    with open("home/else.yaml", "w", encoding="utf-8") as out:
        out.write("name: quite another\n")  # rank 1 stands beside another file of that name
    inner = [BCOP, "train", "else.yaml", "--run", run]
    odd = ["env", "-C", "home", "-u", "HOME", "LC_ALL=de_DE.UTF-8", "TZ=Asia/Tokyo", "LANG=tr_TR",
           "OMP_NUM_THREADS=2", "BCOP_STOP_FILE=/nowhere", "HDF5_PLUGIN_PATH=/nowhere"]
    started = faults.Started(["mpirun", "-q", "-n", "1", *inner, ":", "-n", "1", *odd, *inner])
    assert started.end() == 0, started.said
    assert sorted(os.listdir("home")) == ["else.yaml"]
    faults.same_end(run, "whole", 12)


main(globals())
