/* Reading: rank 0 reads and checks, the others get the bytes. A damaged file can then not make the
 * ranks' views of it, and so their collective calls, differ. */
#include "base/fault.h"
#include "ckpt/h5.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct bcop_store {
    const bcop_comm *comm;
    char *path;
    hid_t file; /* on rank 0 */
};

/* Superblock version 3 is what HDF5 1.10 writes with bounds V110: checksummed metadata throughout.
 * Older ones can crash or hang the library when damaged. */
static bcop_status check_head(const char *path) {
    static const unsigned char expected[9] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n', 3};
    unsigned char head[9] = {0};
    struct stat about;
    const int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0)
        return bcop_status_errno(BCOP_IO, "%s: cannot open", path);
    bcop_status status = BCOP_OK;
    ssize_t got = 0;
    if (fstat(file, &about) || !S_ISREG(about.st_mode))
        status = bcop_status_fail(BCOP_BAD_DATA, "%s: not a file", path);
    else if ((got = read(file, head, sizeof head)) < 0)
        status = bcop_status_errno(BCOP_IO, "%s: cannot read", path);
    else if (got < (ssize_t)sizeof head || memcmp(head, expected, 8) != 0)
        status = bcop_status_fail(BCOP_BAD_DATA, "%s: not an HDF5 file", path);
    else if (head[8] != expected[8])
        status = bcop_status_fail(BCOP_BAD_DATA,
                                  "%s: superblock version %d: only version %d is accepted", path,
                                  head[8], expected[8]);
    close(file);
    return status;
}

/* True when every link on the way is a hard one and `path` leads to an object of type `type`, or of
 * any type for H5O_TYPE_UNKNOWN. Soft and external links could lead out of the file. */
static bool reached(hid_t file, const char *path, H5O_type_t type) {
    char prefix[BCOP_H5_PATH];
    size_t at = 0;
    if (!bcop_h5_valid_path(path, true))
        return false;
    while (strcmp(path, "/") && bcop_h5_prefix(path, &at, prefix)) {
        H5L_info_t link;
        if (H5Lexists(file, prefix, H5P_DEFAULT) <= 0 ||
            H5Lget_info(file, prefix, &link, H5P_DEFAULT) < 0 || link.type != H5L_TYPE_HARD)
            return false;
    }
    H5O_info_t object;
    return H5Oget_info_by_name2(file, path, &object, H5O_INFO_BASIC, H5P_DEFAULT) >= 0 &&
           (type == H5O_TYPE_UNKNOWN || object.type == type);
}

/* Why the dataset is not the plain array that `field` asks for; NULL when it is. */
static const char *dataset_fault(hid_t set, const bcop_field *field) {
    const hid_t creation = H5Dget_create_plist(set), type = H5Dget_type(set);
    const hid_t space = H5Dget_space(set);
    hsize_t size[H5S_MAX_RANK];
    const char *fault = NULL;
    if (creation < 0 || type < 0 || space < 0)
        fault = "its description cannot be read";
    else if (H5Pget_layout(creation) != H5D_CONTIGUOUS || H5Pget_external_count(creation) != 0 ||
             H5Pget_nfilters(creation) != 0)
        fault = "is not stored as one plain array in this file";
    else if (H5Tequal(type, bcop_h5_file_type(field->type)) <= 0)
        fault = "has another type";
    else if (H5Sget_simple_extent_ndims(space) != field->dimensions ||
             H5Sget_simple_extent_dims(space, size, NULL) < 0)
        fault = "has another number of dimensions";
    for (int d = 0; !fault && d < field->dimensions; d++)
        if (size[d] != (hsize_t)field->size[d])
            fault = "has another size";
    if (!fault && bcop_h5_bytes(field) > 0 && H5Dget_offset(set) == HADDR_UNDEF)
        fault = "was never written";
    if (space >= 0)
        H5Sclose(space);
    if (type >= 0)
        H5Tclose(type);
    if (creation >= 0)
        H5Pclose(creation);
    return fault;
}

static bcop_status read_field(const bcop_store *store, const bcop_field *field) {
    BCOP_TRY(bcop_fault_at(BCOP_FAULT_LOAD_READ, NULL));
    if (!reached(store->file, field->path, H5O_TYPE_DATASET))
        return bcop_status_fail(BCOP_BAD_DATA, "%s: %s: no such dataset", store->path, field->path);
    const hid_t set = H5Dopen2(store->file, field->path, H5P_DEFAULT);
    if (set < 0)
        return bcop_h5_fail(BCOP_BAD_DATA, store->path, "open", field->path);
    bcop_status status = BCOP_OK;
    const char *fault = dataset_fault(set, field);
    if (fault)
        status = bcop_status_fail(BCOP_BAD_DATA, "%s: %s: %s", store->path, field->path, fault);
    else if (bcop_h5_bytes(field) > 0 && H5Dread(set, bcop_h5_memory_type(field->type), H5S_ALL,
                                                 H5S_ALL, H5P_DEFAULT, field->data) < 0)
        status = bcop_h5_fail(BCOP_BAD_DATA, store->path, "read", field->path);
    H5Dclose(set);
    return status;
}

bcop_status bcop_store_read(bcop_store *store, const bcop_field *field) {
    const long bytes = bcop_h5_bytes(field);
    bcop_status status = BCOP_OK;
    if (bytes < 0)
        status = bcop_status_fail(BCOP_INTERNAL, "%s: not a valid size", field->path);
    else if (store->comm->rank == 0)
        status = read_field(store, field);
    BCOP_TRY(bcop_comm_agree(store->comm, status));
    bcop_comm_broadcast(store->comm, field->data, bytes, 0);
    return BCOP_OK;
}

/* Opens a scalar attribute. */
static bcop_status open_attribute(const bcop_store *store, const char *group, const char *name,
                                  hid_t *attribute) {
    if (!reached(store->file, group, H5O_TYPE_UNKNOWN) ||
        H5Aexists_by_name(store->file, group, name, H5P_DEFAULT) <= 0)
        return bcop_status_fail(BCOP_BAD_DATA, "%s: %s: no attribute `%s`", store->path, group,
                                name);
    *attribute = H5Aopen_by_name(store->file, group, name, H5P_DEFAULT, H5P_DEFAULT);
    if (*attribute < 0)
        return bcop_h5_fail(BCOP_BAD_DATA, store->path, "open attribute", name);
    const hid_t space = H5Aget_space(*attribute);
    const bool scalar = space >= 0 && H5Sget_simple_extent_type(space) == H5S_SCALAR;
    if (space >= 0)
        H5Sclose(space);
    if (scalar)
        return BCOP_OK;
    H5Aclose(*attribute);
    return bcop_status_fail(BCOP_BAD_DATA, "%s: %s: attribute `%s` is not one value", store->path,
                            group, name);
}

/* Rank 0: a number of exactly `expected` type. */
static bcop_status read_number(const bcop_store *store, const char *group, const char *name,
                               bcop_field_type expected, void *value) {
    hid_t attribute = H5I_INVALID_HID;
    BCOP_TRY(open_attribute(store, group, name, &attribute));
    const hid_t type = H5Aget_type(attribute);
    bcop_status status = BCOP_OK;
    if (type < 0 || H5Tequal(type, bcop_h5_file_type(expected)) <= 0)
        status = bcop_status_fail(BCOP_BAD_DATA, "%s: %s: attribute `%s` has another type",
                                  store->path, group, name);
    else if (H5Aread(attribute, bcop_h5_memory_type(expected), value) < 0)
        status = bcop_h5_fail(BCOP_BAD_DATA, store->path, "read attribute", name);
    if (type >= 0)
        H5Tclose(type);
    H5Aclose(attribute);
    return status;
}

/* Rank 0: the text in new memory that the caller frees, also after a failure. */
static bcop_status read_text(const bcop_store *store, const char *group, const char *name,
                             char **text) {
    hid_t attribute = H5I_INVALID_HID;
    BCOP_TRY(open_attribute(store, group, name, &attribute));
    const hid_t type = H5Aget_type(attribute);
    const size_t size = type < 0 ? 0 : H5Tget_size(type);
    bcop_status status = BCOP_OK;
    if (type < 0 || H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) != 0 || size == 0)
        status =
            bcop_status_fail(BCOP_BAD_DATA, "%s: %s: attribute `%s` is not a fixed-length text",
                             store->path, group, name);
    else if (size > BCOP_STORE_TEXT_LIMIT)
        status = bcop_status_fail(BCOP_BAD_DATA, "%s: %s: attribute `%s` is longer than %d bytes",
                                  store->path, group, name, BCOP_STORE_TEXT_LIMIT - 1);
    else if (!(*text = calloc(size + 1, 1)))
        status = bcop_status_fail(BCOP_INTERNAL, "no memory for %zu bytes", size);
    else if (H5Aread(attribute, type, *text) < 0)
        status = bcop_h5_fail(BCOP_BAD_DATA, store->path, "read attribute", name);
    if (type >= 0)
        H5Tclose(type);
    H5Aclose(attribute);
    return status;
}

bcop_status bcop_store_text(bcop_store *store, const char *group, const char *name, char *text,
                            long capacity) {
    bcop_status status = BCOP_OK;
    long bytes = 0;
    if (store->comm->rank == 0) {
        char *own = NULL;
        status = read_text(store, group, name, &own);
        bytes = status == BCOP_OK ? (long)strlen(own) + 1 : 0;
        if (bytes > capacity)
            status =
                bcop_status_fail(BCOP_BAD_DATA, "%s: %s: attribute `%s` is longer than %ld bytes",
                                 store->path, group, name, capacity - 1);
        else if (status == BCOP_OK)
            memcpy(text, own, (size_t)bytes);
        free(own);
    }
    BCOP_TRY(bcop_comm_agree(store->comm, status));
    bcop_comm_broadcast(store->comm, &bytes, sizeof bytes, 0);
    bcop_comm_broadcast(store->comm, text, bytes, 0);
    return BCOP_OK;
}

bcop_status bcop_store_text_length(bcop_store *store, const char *group, const char *name,
                                   long *length) {
    bcop_status status = BCOP_OK;
    if (store->comm->rank == 0) {
        char *own = NULL;
        status = read_text(store, group, name, &own);
        if (status == BCOP_OK)
            *length = (long)strlen(own);
        free(own);
    }
    BCOP_TRY(bcop_comm_agree(store->comm, status));
    bcop_comm_broadcast(store->comm, length, sizeof *length, 0);
    return BCOP_OK;
}

static bcop_status share_number(const bcop_store *store, const char *group, const char *name,
                                bcop_field_type type, void *value) {
    bcop_status status = BCOP_OK;
    if (store->comm->rank == 0)
        status = read_number(store, group, name, type, value);
    BCOP_TRY(bcop_comm_agree(store->comm, status));
    bcop_comm_broadcast(store->comm, value, 8, 0);
    return BCOP_OK;
}

bcop_status bcop_store_long(bcop_store *store, const char *group, const char *name, long *value) {
    return share_number(store, group, name, BCOP_FIELD_LONG, value);
}

bcop_status bcop_store_real(bcop_store *store, const char *group, const char *name, double *value) {
    return share_number(store, group, name, BCOP_FIELD_DOUBLE, value);
}

/* Rank 0. */
static bcop_status open_file(bcop_store *store) {
    BCOP_TRY(check_head(store->path));
    const hid_t access = bcop_h5_access();
    store->file = H5Fopen(store->path, H5F_ACC_RDONLY, access);
    H5Pclose(access);
    if (store->file < 0)
        return bcop_h5_fail(BCOP_BAD_DATA, store->path, "open", "the file");
    char *format = NULL;
    bcop_status status = read_text(store, "/", "format", &format);
    if (status == BCOP_OK && strcmp(format, BCOP_H5_FORMAT) != 0)
        status = bcop_status_fail(
            BCOP_BAD_DATA, "%s: attribute `format` is not \"" BCOP_H5_FORMAT "\"", store->path);
    free(format);
    BCOP_TRY(status);
    long version = 0;
    BCOP_TRY(read_number(store, "/", "version", BCOP_FIELD_LONG, &version));
    if (version != BCOP_STORE_VERSION)
        return bcop_status_fail(BCOP_BAD_DATA, "%s: format version %ld: this program reads %d",
                                store->path, version, BCOP_STORE_VERSION);
    return BCOP_OK;
}

bcop_status bcop_store_open(const bcop_comm *comm, const char *path, bcop_store **store) {
    bcop_h5_tame();
    *store = NULL;
    bcop_store *opened = calloc(1, sizeof *opened);
    char *copy = strdup(path);
    bcop_status status = BCOP_OK;
    if (!opened || !copy) {
        status = bcop_status_fail(BCOP_INTERNAL, "no memory to open %s", path);
    } else {
        *opened = (bcop_store){.comm = comm, .path = copy, .file = H5I_INVALID_HID};
        if (comm->rank == 0)
            status = open_file(opened);
    }
    status = bcop_comm_agree(comm, status);
    if (status == BCOP_OK) {
        *store = opened;
        return BCOP_OK;
    }
    if (opened && opened->file > 0)
        H5Fclose(opened->file);
    free(opened);
    free(copy);
    return status;
}

void bcop_store_close(bcop_store *store) {
    if (!store)
        return;
    if (store->file >= 0)
        H5Fclose(store->file);
    free(store->path);
    free(store);
}

const char *bcop_store_library(void) {
    static char text[32];
    unsigned major = 0, minor = 0, release = 0;
    H5get_libversion(&major, &minor, &release);
    snprintf(text, sizeof text, "%u.%u.%u", major, minor, release);
    return text;
}
