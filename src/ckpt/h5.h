/* What writing and reading state.h5 share: small rules around the HDF5 library. For ckpt/ alone. */
#ifndef BCOP_CKPT_H5_H
#define BCOP_CKPT_H5_H

#include "ckpt/store.h"

#include <hdf5.h>

#define BCOP_H5_FORMAT "bcop-checkpoint" /* root attribute `format` */
enum { BCOP_H5_PATH = 160 };             /* a path with its end, as in bcop_field */

/* HDF5 prints nothing by itself and loads no code named by the environment. Local. */
void bcop_h5_tame(void);

/* Fails with the innermost reason of the last HDF5 failure: "<path>: cannot <verb> <object>:
 * <reason>". Local. */
bcop_status bcop_h5_fail(bcop_status code, const char *path, const char *verb, const char *object);

/* File access properties, V110 format only and without file locks (a store is written and read by
 * one program, and some cluster file systems have none). The caller closes them. Local. */
hid_t bcop_h5_access(void);

/* The type in the file (little-endian) and in memory. Local. */
hid_t bcop_h5_file_type(bcop_field_type type);
hid_t bcop_h5_memory_type(bcop_field_type type);

/* Bytes of the field's array, -1 when its sizes make no sense. Local. */
long bcop_h5_bytes(const bcop_field *field);

/* Absolute, no empty components, none that begins with a dot; "/" only where a group is meant.
 * Local. */
bool bcop_h5_valid_path(const char *path, bool group);

/* Steps through "/a", "/a/b", "/a/b/c" of a valid path "/a/b/c" other than "/"; *at starts at 0.
 * False after the last. Local. */
bool bcop_h5_prefix(const char *path, size_t *at, char prefix[static BCOP_H5_PATH]);

#endif
