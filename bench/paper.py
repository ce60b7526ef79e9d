#!/usr/bin/python3
"""What a training step costs as the paper describes it (BCOP: Li et al., NeurIPS 2019), in PyTorch.

Written from the paper, to compare bcop with. Every orthonormal matrix is the result of 20 Bjorck
iterations W <- 3/2 W - 1/2 W W^T W from an ambient parameter, scaled by one warm power iteration,
and autograd goes back through all of it. Each convolution has one such matrix H and 2 (k - 1) bases
of projectors of half rank, whose 2 x 2 kernels are block-convolved into one k x k kernel. Where the
paper leaves a choice the cheaper one is taken: bases of c/2 columns rather than c, equal shapes in
one batched call, one product per block convolution.

--what orthogonalization  Bjorck and kernel construction of all layers, forward and backward
       step               all of a training step on one batch: that, the net, hinge loss and Adam
       plain              the same net, unconstrained: kernels and weights are the parameters
--check compares kernels with what must hold of them and measures nothing.

Needs Debian's python3-torch and libopenblas0-openmp: with another flavour of OpenBLAS torch's
threads and the library's disturb each other, so this script puts the openmp one first by itself.
Exits with 77 where they are missing.
"""
import argparse
import json
import os
import resource
import statistics
import sys
import sysconfig
import time

PACKAGES = "python3-torch libopenblas0-openmp"

# image (channels, height, width), radius to train for, layers as in configs/
SMALL = [("conv", 16, 4, 2), ("conv", 32, 4, 2), ("dense", 100), ("dense", 10)]
LARGE = [("conv", 32, 3, 1), ("conv", 32, 4, 2), ("conv", 64, 3, 1), ("conv", 64, 4, 2),
         ("dense", 512), ("dense", 512), ("dense", 10)]
NETWORKS = {
    "mnist-small": ((1, 28, 28), 1.5, SMALL),
    "mnist-large": ((1, 28, 28), 1.5, LARGE),
    "cifar-small": ((3, 32, 32), 0.5, SMALL),
    "cifar-large": ((3, 32, 32), 0.5, LARGE),
    "layer-256": ((256, 8, 8), 0.5, [("conv", 256, 3, 1), ("dense", 10)]),
}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="mnist-small")
    parser.add_argument("--what", choices=["orthogonalization", "step", "plain"],
                        default="orthogonalization")
    parser.add_argument("--batch", type=int, help="images per step (default 128; of a single layer 64)")
    parser.add_argument("--rounds", type=int, default=7, help="steps measured (default 7)")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them (default 2)")
    parser.add_argument("--threads", type=int, default=2, help="of torch and BLAS (default 2)")
    parser.add_argument("--json", action="store_true", help="one object on stdout")
    parser.add_argument("--check", action="store_true", help="test the construction, then leave")
    arguments = parser.parse_args()
    if arguments.batch is None:
        arguments.batch = 64 if arguments.network.startswith("layer") else 128
    for name in ("batch", "rounds", "threads"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} must be at least 1")
    return arguments


def missing(reason):
    print(f"SKIP: {reason}; on Debian: apt-get install --no-install-recommends {PACKAGES}",
          file=sys.stderr)
    sys.exit(77)


def load_torch(threads):
    """Imports torch over the right BLAS. The library path is read when a program starts, so where
    it is another this starts the script again."""
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    folder = os.path.join("/usr/lib", multiarch, "openblas-openmp")
    if not os.path.isdir(folder):
        missing("there is no openmp flavour of OpenBLAS")
    path = os.environ.get("LD_LIBRARY_PATH", "")
    wanted = {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    if path.split(":")[0] != folder:
        wanted["LD_LIBRARY_PATH"] = folder + (":" + path if path else "")
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable] + sys.argv, {**os.environ, **wanted})
    try:
        import torch
    except ImportError:
        missing(f"{sys.executable} has no torch")
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    return torch


def measure(paper_net, arguments):
    """Milliseconds of each measured step, and the MiB that the net and its steps added at most to
    this process."""
    image, radius, layers = NETWORKS[arguments.network]
    with open("/proc/self/status", encoding="ascii") as file:
        before = next(int(line.split()[1]) for line in file if line.startswith("VmRSS:"))
    net = paper_net.build(image, layers)
    if arguments.what == "plain":
        paper_net.free(net)
    if arguments.what == "orthogonalization":
        step = paper_net.orthogonalization_step(net)
    else:
        step = paper_net.training_step(net, image, radius, arguments.batch)
    times = []
    for _ in range(arguments.warmup + arguments.rounds):
        start = time.perf_counter()
        step()
        times.append(round(1e3 * (time.perf_counter() - start), 3))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return times[arguments.warmup:], (most - before) / 1024


def check_kernel(torch, paper_net, c_in, c_out, k):
    """The largest of: a singular value's distance from 1 at the frequencies of an 8 x 8 map; the
    layer's result less that of its factors one after the other. And how many parameters get no
    gradient."""
    layer = paper_net.Conv(c_in, c_out, k, 1)
    made, x = layer.weight, torch.randn(2, c_in, 8, 8)
    with torch.no_grad():
        values = torch.linalg.svdvals(torch.fft.fft2(made(), s=(8, 8)).permute(2, 3, 0, 1))
        h, y = made.head()[0], x
        y = torch.einsum("ji,nihw->njhw", h, y) if made.lifts else y
        for pair in reversed(made.pairs()):  # the first of a product is the last to act
            wrapped = torch.nn.functional.pad(y, (0, 1, 0, 1), mode="circular")
            y = torch.nn.functional.conv2d(wrapped, pair.permute(2, 3, 0, 1))
        y = y if made.lifts else torch.einsum("ij,nihw->njhw", h, y)
        composed = (layer(x) - torch.roll(y, (k // 2, k // 2), dims=(2, 3))).abs().max()
    (layer(x) * torch.randn(2, c_out, 8, 8)).sum().backward()
    idle = [p for p in layer.parameters() if p.numel() and not p.grad.abs().max() > 0]
    return max((values - 1).abs().max().item(), composed.item()), len(idle)


def check(torch, paper_net):
    failed = False
    for shape in [(6, 10, 3), (10, 6, 3), (5, 7, 4), (1, 8, 5), (8, 1, 2), (9, 9, 5), (3, 4, 1),
                  (16, 32, 2), (128, 32, 2)]:
        error, idle = check_kernel(torch, paper_net, *shape)
        failed |= not error < 1e-4 or idle > 0
        print(f"c_in, c_out, k = {shape}: error {error:.1e}, {idle} parameters without gradient")
    return 1 if failed else 0


def main():
    arguments = parse_arguments()
    torch = load_torch(arguments.threads)
    import paper_net
    if arguments.check:
        return check(torch, paper_net)
    times, memory = measure(paper_net, arguments)
    result = {"network": arguments.network, "what": arguments.what, "batch": arguments.batch,
              "threads": arguments.threads, "torch": torch.__version__, "times_ms": times,
              "memory_mib": memory,
              "median_ms": statistics.median(times), "min_ms": min(times), "max_ms": max(times)}
    print(json.dumps(result) if arguments.json else
          "{network} {what}: {median_ms} ms (min {min_ms}, max {max_ms})".format(**result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
