#!/usr/bin/python3
# run: label nightly timeout 10800
"""Memcheck with the MPI wrappers over the tests of two ranks and a short training: no read or write out
of place, nothing decided by a value that was never set, no such value in a message. What concerns
MPI_IN_PLACE (an address to the wrappers) and what stays inside the MPI library does not count. Prints
a line for each program; arguments narrow the choice to programs with one of these names."""
import glob
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as tree

SOURCE, BUILD = os.environ["BCOP_SOURCE_DIR"], os.environ["BCOP_BUILD_DIR"]
SECONDS = 2400  # for one program, on a machine that does other things too
OWN = os.path.join(BUILD, "valgrind")
# Of MPI and what it is made of; their errors are not ours when the innermost frame lies there.
LIBRARIES = re.compile(r"/lib(mpi|open-pal|open-rte|pmix|hwloc|event|uc[pstm]|fabric|psm|ibverbs|rdmacm|"
                       r"mca_)[\w.-]*\.so|/(openmpi|pmix2?)/")
PASSED = re.compile(r"/libc\.so|/vgpreload|^$")  # looked through to who called

PLANTED = r"""
#include <mpi.h>
#include <stdlib.h>
int main(void) {
    int rank;
    MPI_Init(NULL, NULL);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    double *x = malloc(8 * sizeof *x); /* never set */
    if (rank == 0)
        MPI_Send(x, 8, MPI_DOUBLE, 1, 0, MPI_COMM_WORLD);
    else
        MPI_Recv(x, 8, MPI_DOUBLE, 0, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    free(x);
    MPI_Finalize();
}
"""

TRAINING = """
name: short
data: {kind: synthetic, height: 8, width: 8, channels: 3, classes: 4, count: 96, test_count: 9, holdout: 16,
       augment: crop_flip}
model: [conv: {channels: 8, kernel: 3}, householder, conv: {channels: 12, kernel: 4, stride: 2}, maxmin,
        dense: {units: 24}, groupsort: {size: 3}, dense: {units: 4, normalize: rows}]
loss: {kind: cross_entropy, offset: 0.5, gamma: 0.2}
optimizer: {kind: muon, lr: 0.03}
train: {batch: 16, lanes: 4, epochs: 1, watchdog: 0}
"""


def skip(reason):
    print(f"SKIP: {reason}")
    sys.exit(77)


def build():
    """The programs for a processor that valgrind knows (it has no AVX-512)."""
    with open(os.path.join(BUILD, "CMakeCache.txt"), encoding="utf-8") as file:
        if "BCOP_SANITIZE:BOOL=ON" in file.read():
            skip("valgrind does not go with the sanitizers")
    flags = "-Wno-maybe-uninitialized -Wno-psabi" + (" -mavx2 -mfma" if platform.machine() == "x86_64" else "")
    subprocess.run(["cmake", "-S", SOURCE, "-B", OWN, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=RelWithDebInfo",
                    "-DBCOP_NATIVE=OFF", "-DBCOP_TESTS=ON", f"-DCMAKE_C_FLAGS={flags}"], check=True,
                   stdout=subprocess.DEVNULL)
    subprocess.run(["cmake", "--build", OWN], check=True, stdout=subprocess.DEVNULL)


def is_ours(error):
    if "Address 0x1 is not" in "".join(error.itertext()):  # MPI_IN_PLACE
        return False
    if error.findtext("kind") == "ClientCheck":  # the wrappers looked at a message
        return True
    objects = [frame.findtext("obj", "") for frame in error.find("stack")]
    innermost = next((name for name in objects if not PASSED.search(name)), "")
    return not LIBRARIES.search(innermost)


def describe(error):
    lines = [error.findtext("what") or error.findtext("xwhat/text") or error.findtext("kind")]
    for frame in error.find("stack"):
        place = f"{frame.findtext('file')}:{frame.findtext('line')}" if frame.find("line") is not None \
            else os.path.basename(frame.findtext("obj", "?"))
        lines.append(f"    {frame.findtext('fn', '?')} ({place})")
    return "\n".join(lines)


def examine(name, wrapper, suppressions, *command):
    """(exit code, our errors, the libraries' errors) of a program on two ranks."""
    folder = tempfile.mkdtemp(prefix="bcop-vg-")
    tool = ["valgrind", "-q", "--xml=yes", f"--xml-file={folder}/%p.xml", "--keep-debuginfo=yes",
            "--child-silent-after-fork=yes"]
    start = time.monotonic()
    try:
        done = subprocess.run(
            ["mpirun", "-q", "-n", "2", "env", f"LD_PRELOAD=libmpi.so.40 {wrapper}",
             "MPIWRAP_DEBUG=quiet", *tool, *(f"--suppressions={s}" for s in suppressions), *command],
            capture_output=True, text=True, timeout=SECONDS, check=False, cwd=folder)
        errors = [error for path in glob.glob(f"{folder}/*.xml")
                  for error in tree.parse(path).getroot().iter("error")
                  if not error.findtext("kind").startswith("Leak_")]  # looked for by the sanitizers
        assert len(glob.glob(f"{folder}/*.xml")) >= 2, f"{name}: valgrind did not run:\n{done.stderr}"
    except subprocess.TimeoutExpired:
        print(f"{name:24} not done after {SECONDS} s", flush=True)
        return 1, 0
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    ours = [error for error in errors if is_ours(error)]
    print(f"{name:24} code {done.returncode}  errors {len(ours)}  (of MPI: {len(errors) - len(ours)})  "
          f"{time.monotonic() - start:.0f} s", flush=True)
    if done.returncode:
        print(done.stdout[-2000:], done.stderr[-2000:], sep="\n")
    for error in ours[:5]:
        print(describe(error), flush=True)
    return done.returncode, len(ours)


def main():
    wrapper = glob.glob("/usr/lib/*/valgrind/libmpiwrap-*-linux.so")
    if not shutil.which("valgrind") or not wrapper:
        skip("there is no valgrind with MPI wrappers (Debian: valgrind valgrind-mpi)")
    suppressions = glob.glob("/usr/share/openmpi/openmpi-valgrind.supp")
    build()
    work = tempfile.mkdtemp(prefix="bcop-vg-")
    failed, chosen = 0, sys.argv[1:]
    try:
        with open(f"{work}/planted.c", "w", encoding="utf-8") as file:
            file.write(PLANTED)
        with open(f"{work}/a.yaml", "w", encoding="utf-8") as file:
            file.write(TRAINING)
        subprocess.run(["mpicc", "-g", "-o", f"{work}/planted", f"{work}/planted.c"], check=True)
        if examine("planted", wrapper[0], suppressions, f"{work}/planted")[1] == 0:
            failed += 1
            print("the planted message of values never set was not found")
        programs = []
        for source in sorted(glob.glob(f"{SOURCE}/tests/*/test_*.c")):
            with open(source, encoding="utf-8") as file:
                if re.match(r"/\* run: ranks [\d ]*\b2\b", file.readline()):
                    name = os.path.basename(source)[:-2]
                    programs.append((name, f"{OWN}/tests/{name}"))
        programs.append(("bcop-train", f"{OWN}/bcop", "train", f"{work}/a.yaml", "--run", f"{work}/run"))
        assert len(programs) > 8
        for name, *command in programs:
            if chosen and name not in chosen:
                continue
            code, errors = examine(name, wrapper[0], suppressions, *command)
            failed += bool(code or errors)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    sys.exit(1 if failed else 0)


main()
