"""bcop for Spack. Not run where it was written: there is no Spack in Debian 12.

    spack repo add cluster/spack
    spack env create bcop && spack env activate bcop
    spack add bcop@main && spack develop --path "$PWD" bcop@main && spack install
"""
from spack.package import *


class Bcop(CMakePackage):
    """Training of provably 1-Lipschitz convolutional networks under MPI."""

    license("Apache-2.0")

    version("main")  # from the checkout that `spack develop` names

    depends_on("c", type="build")
    depends_on("cmake@3.25:", type="build")
    depends_on("pkgconfig", type="build")
    depends_on("mpi@3.1:")
    depends_on("hdf5@1.10.8: +mpi")
    # pkg-config names OpenBLAS: another BLAS would need another product.c.
    depends_on("openblas@0.3.20: threads=none")
    depends_on("netlib-scalapack@2.2:")
    depends_on("libyaml")
    depends_on("jansson")
    depends_on("xxhash")
    depends_on("random123")
    depends_on("zlib-api")
    depends_on("gnuplot +cairo", type="run", when="+plot")

    variant("plot", default=False, description="gnuplot for `bcop plot`")

    def cmake_args(self):
        # Spack's compiler wrappers choose the CPU.
        return ["-DBCOP_NATIVE=OFF", "-DBCOP_TESTS=OFF"]
