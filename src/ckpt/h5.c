#include "ckpt/h5.h"

#include <stdio.h>
#include <string.h>

_Static_assert(sizeof(long) == 8, "files hold 64-bit integers");
_Static_assert(sizeof((bcop_field *)0)->path == BCOP_H5_PATH, "one size of paths");

/* When a file cannot be closed (a full disk), HDF5 1.10 keeps a dangling handle of it and follows
 * it at its own end, inside MPI_Finalize. So its end must not come: the library is started before
 * MPI, which it then does not hook into, and without an exit handler. Files are closed by us. */
__attribute__((constructor)) static void before_mpi(void) {
    H5dont_atexit();
    H5open();
}

static char reason[200]; /* of the last call into HDF5 that failed: ": <innermost message>" */

static herr_t take_innermost(unsigned depth, const H5E_error2_t *error, void *unused) {
    (void)unused;
    if (depth > 0)
        return 0;
    /* Of a system call's failure the system's own words are enough. */
    const char key[] = "error message = '", *words = strstr(error->desc, key);
    words = words ? words + sizeof key - 1 : error->desc;
    snprintf(reason, sizeof reason, ": %.*s", (int)strcspn(words, "'"), words);
    return 0;
}

/* HDF5 calls this instead of printing, before any later call can clear its error stack. */
static herr_t take_reason(hid_t stack, void *unused) {
    return H5Ewalk2(stack, H5E_WALK_UPWARD, take_innermost, unused);
}

void bcop_h5_tame(void) {
    H5Eset_auto2(H5E_DEFAULT, take_reason, NULL);
    H5PLset_loading_state(0);
}

bcop_status bcop_h5_fail(bcop_status code, const char *path, const char *verb, const char *object) {
    bcop_status_fail(code, "%s: cannot %s %s%s", path, verb, object, reason);
    reason[0] = '\0';
    return code;
}

hid_t bcop_h5_access(void) {
    const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110);
    H5Pset_file_locking(access, false, true);
    return access;
}

hid_t bcop_h5_file_type(bcop_field_type type) {
    return type == BCOP_FIELD_FLOAT    ? H5T_IEEE_F32LE
           : type == BCOP_FIELD_DOUBLE ? H5T_IEEE_F64LE
                                       : H5T_STD_I64LE;
}

hid_t bcop_h5_memory_type(bcop_field_type type) {
    return type == BCOP_FIELD_FLOAT    ? H5T_NATIVE_FLOAT
           : type == BCOP_FIELD_DOUBLE ? H5T_NATIVE_DOUBLE
                                       : H5T_NATIVE_LONG;
}

long bcop_h5_bytes(const bcop_field *field) {
    long bytes = field->type == BCOP_FIELD_FLOAT ? 4 : 8;
    if (field->dimensions < 1 || field->dimensions > 4)
        return -1;
    for (int d = 0; d < field->dimensions; d++)
        if (field->size[d] < 0 || __builtin_mul_overflow(bytes, field->size[d], &bytes))
            return -1;
    return bytes;
}

bool bcop_h5_valid_path(const char *path, bool group) {
    const size_t length = strnlen(path, BCOP_H5_PATH);
    if (path[0] != '/' || length == BCOP_H5_PATH)
        return false;
    if (length == 1)
        return group;
    for (const char *slash = path; slash; slash = strchr(slash + 1, '/'))
        if (slash[1] == '\0' || slash[1] == '/' || slash[1] == '.')
            return false;
    return true;
}

bool bcop_h5_prefix(const char *path, size_t *at, char prefix[static BCOP_H5_PATH]) {
    if (!path[*at])
        return false;
    const char *slash = strchr(path + *at + 1, '/');
    *at = slash ? (size_t)(slash - path) : strlen(path);
    memcpy(prefix, path, *at);
    prefix[*at] = '\0';
    return true;
}
