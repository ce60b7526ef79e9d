"""What the tests that drive the real program share.

Each test script is a list of functions named check_*; main() runs them in order in a private folder,
prints one line per check, and exits non-zero when one failed."""
import functools
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import traceback

BCOP = os.environ["BCOP"]
SOURCE = os.environ["BCOP_SOURCE_DIR"]
CONFIGS = os.path.join(SOURCE, "configs")


class Result:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    @property
    def errors(self):
        return [line for line in self.err.splitlines() if line.startswith("bcop: error: ")]

    @property
    def json(self):
        return json.loads(self.out)


def command(ranks, *arguments):
    """The command line of the program alone (ranks None) or under mpirun."""
    start = (["env", f"OMPI_MCA_orte_tmpdir_base={session_folder()}"] if ranks is None else
             ["mpirun", "-q", "--mca", "orte_tmpdir_base", session_folder(), "-n", str(ranks)])
    return start + [BCOP, *map(str, arguments)]


SESSIONS = itertools.count()


def session_folder():
    """A folder for one start's session: of two that share one, the first to end takes it from under
    the other that begins."""
    folder = os.path.join(private_folder(), str(next(SESSIONS)))
    os.mkdir(folder)
    return folder


@functools.cache
def private_folder():
    """A folder of this process, with a short name for sockets, that goes with it."""
    folder = tempfile.mkdtemp(prefix="bcop-mpi-", dir="/tmp")
    at_any_end("rm", "-rf", folder)
    return folder


def at_any_end(*line):
    """Runs the command when this process ends, also when it is killed: a process that is none of our
    children waits for the end of a pipe, whose other end, returned, no child inherits."""
    reader, writer = os.pipe()
    subprocess.run(["setsid", "-f", "bash", "-c", 'cat >/dev/null; exec "$@" >/dev/null 2>&1', "bash",
                    *line], stdin=reader, stdout=subprocess.DEVNULL, cwd="/", check=True)
    os.close(reader)
    return writer


def bcop(*arguments, ranks=None, code=0, timeout=120, cwd=None, fault=None):
    """Runs the program, checks its exit code, returns what it said. A hang fails the check. `fault`: a
    fault point, as base/fault.h says."""
    environment = {**os.environ, **({"BCOP_FAULT": fault} if fault else {})}
    done = subprocess.run(command(ranks, *arguments), capture_output=True, text=True,
                          timeout=timeout, cwd=cwd, env=environment, check=False)
    result = Result(done.returncode, done.stdout, done.stderr)
    assert code is None or result.code == code, (
        f"exit code {result.code}, expected {code}: {' '.join(map(str, arguments))}\n{result.err}")
    return result


def fails(code, *arguments, message, ranks=(None, 4), **more):
    """The program must end with `code` and exactly one error line that holds every text of `message`,
    alone and on four ranks."""
    for n in ranks:
        result = bcop(*arguments, ranks=n, code=code, **more)
        assert len(result.errors) == 1, f"{len(result.errors)} error lines:\n{result.err}"
        for text in [message] if isinstance(message, str) else message:
            assert text in result.errors[0], f"{text!r} is not in {result.errors[0]!r}"


def config(name, **sections):
    """Writes a small configuration on synthetic data into the current folder; a section replaces the
    default one as a whole."""
    default = {
        "data": "{kind: synthetic, height: 8, width: 8, channels: 3, classes: 4, count: 480, "
                "test_count: 70, holdout: 64, augment: crop_flip, crop_padding: 2}",
        "model": "\n  - conv: {channels: 8, kernel: 3}\n  - maxmin: {}\n"
                 "  - conv: {channels: 12, kernel: 4, stride: 2}\n  - maxmin\n"
                 "  - dense: {units: 24}\n  - groupsort: {size: 3}\n  - dense: {units: 4}",
        "loss": "{kind: hinge, eps: 0.5}",
        "optimizer": "{kind: muon, lr: 0.03}",
        "train": "{batch: 32, lanes: 8, epochs: 5}",
        "evaluate": "{eps: [36/255, 0.5]}",
        "checkpoint": "{min_seconds: 0, max_failures: 0}",
    }
    default.update(sections)
    path = f"{name}.yaml"
    with open(path, "w", encoding="utf-8") as out:
        out.write(f"name: {name}\nseed: 3\n")
        for key, text in default.items():
            out.write(f"{key}: {text}\n")
    return path


def manifest(run, step):
    with open(os.path.join(run, f"step-{step:08d}", "MANIFEST.json"), encoding="utf-8") as file:
        return json.load(file)


def hashes(run, step):
    return manifest(run, step)["hashes"]


def metrics(run):
    """The lines of metrics.jsonl without what depends on the clock."""
    with open(os.path.join(run, "metrics.jsonl"), encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    for line in lines:
        line.pop("images_per_second", None)
    return lines


def main(namespace):
    checks = [(name, f) for name, f in namespace.items() if name.startswith("check_")]
    folder, failed = tempfile.mkdtemp(prefix="bcop-test-"), 0
    at_any_end("rm", "-rf", folder)
    try:
        for name, check in checks:
            place = os.path.join(folder, name)
            os.mkdir(place)
            os.chdir(place)
            try:
                check()
                print(f"ok      {name}", flush=True)
            except Exception:  # pylint: disable=broad-except
                failed += 1
                print(f"FAILED  {name}\n{traceback.format_exc()}", flush=True)
    finally:
        os.chdir("/")
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(1 if failed or not checks else 0)
