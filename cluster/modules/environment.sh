# For sites with environment modules: edit the names, then
#   source cluster/modules/environment.sh && cmake --preset release && cmake --build --preset release
#   launcher/bcop-slurm --environment cluster/modules/environment.sh ...
# The same modules for building and in jobs. Not run where it was written.
# shellcheck shell=bash

module purge
module load gcc cmake openmpi/4.1 hdf5-parallel openblas scalapack libyaml jansson xxhash random123

# Sites that have only static or differently named libraries: where their .pc files are.
# export PKG_CONFIG_PATH=$HOME/sw/lib/pkgconfig:$PKG_CONFIG_PATH
