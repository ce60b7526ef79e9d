/* bcop_store_write, in three parts. First rank 0 alone makes the file with everything but the
 * arrays' values, and takes the disk space: what can fail there (a full disk above all) fails
 * outside of any collective call, and the bytes do not depend on the number of ranks. Then all
 * ranks write the values where they belong, through MPI, and hash them. At last all read each
 * other's blocks back.
 */
#include "base/fault.h"
#include "base/file.h"
#include "ckpt/h5.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Attributes stay in the checksummed object header up to this many per object, except texts too
 * large for it (64 KiB), which HDF5 then moves to a heap by itself. */
enum { COMPACT_ATTRIBUTES = 64 };

enum { WORK_SIZE = 4096 }; /* a file name with its end */

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "arrays are written as they are");

static bcop_status check_tables(const char *path, int attributes, const bcop_attribute attribute[],
                                int fields, const bcop_field field[]) {
    if (strlen(path) > WORK_SIZE - 40)
        return bcop_status_fail(BCOP_CANNOT_CREATE, "%s: name too long", path);
    for (int i = 0; i < attributes; i++) {
        const bcop_attribute *a = &attribute[i];
        if (!bcop_h5_valid_path(a->group, true) || !a->name[0])
            return bcop_status_fail(BCOP_INTERNAL, "%s: attribute %s of %s: not a valid name", path,
                                    a->name, a->group);
        if (a->type == BCOP_ATTRIBUTE_TEXT &&
            (!a->text || strnlen(a->text, BCOP_STORE_TEXT_LIMIT) == BCOP_STORE_TEXT_LIMIT))
            return bcop_status_fail(
                BCOP_BAD_DATA, "%s: attribute %s of %s: text is missing or longer than %d bytes",
                path, a->name, a->group, BCOP_STORE_TEXT_LIMIT - 1);
    }
    for (int i = 0; i < fields; i++)
        if (!bcop_h5_valid_path(field[i].path, false) || bcop_h5_bytes(&field[i]) < 0)
            return bcop_status_fail(BCOP_INTERNAL, "%s: dataset %s: not a valid name or size", path,
                                    field[i].path);
    return BCOP_OK;
}

/* Claims the name. */
static bcop_status create_empty(const char *path) {
    const int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file < 0)
        return bcop_status_create(path);
    close(file);
    return BCOP_OK;
}

static hid_t create_file(const char *path) {
    const hid_t access = bcop_h5_access(), creation = H5Pcreate(H5P_FILE_CREATE);
    H5Pset_obj_track_times(creation, false);
    H5Pset_attr_phase_change(creation, COMPACT_ATTRIBUTES, 0);
    const hid_t file = H5Fcreate(path, H5F_ACC_EXCL, creation, access);
    H5Pclose(creation);
    H5Pclose(access);
    return file;
}

/* Makes the groups on the way to `path`, and `path` itself when it is a group. */
static bool make_groups(hid_t file, const char *path, bool group) {
    char prefix[BCOP_H5_PATH];
    size_t at = 0;
    while (strcmp(path, "/") && bcop_h5_prefix(path, &at, prefix) && (group || path[at])) {
        const htri_t there = H5Lexists(file, prefix, H5P_DEFAULT);
        if (there > 0)
            continue;
        const hid_t creation = H5Pcreate(H5P_GROUP_CREATE);
        H5Pset_attr_phase_change(creation, COMPACT_ATTRIBUTES, 0);
        H5Pset_obj_track_times(creation, false);
        const hid_t made = there < 0 ? H5I_INVALID_HID
                                     : H5Gcreate2(file, prefix, H5P_DEFAULT, creation, H5P_DEFAULT);
        H5Pclose(creation);
        if (made < 0)
            return false;
        H5Gclose(made);
    }
    return true;
}

static bool write_attribute(hid_t object, const char *name, hid_t type, hid_t in_memory,
                            const void *value) {
    const hid_t space = H5Screate(H5S_SCALAR);
    const hid_t made = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    const bool ok = made >= 0 && H5Awrite(made, in_memory, value) >= 0;
    if (made >= 0)
        H5Aclose(made);
    H5Sclose(space);
    return ok;
}

/* Fixed-length UTF-8 that ends with a zero byte. */
static bool write_text(hid_t object, const char *name, const char *text) {
    const hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, strlen(text) + 1);
    H5Tset_cset(type, H5T_CSET_UTF8);
    const bool ok = write_attribute(object, name, type, type, text);
    H5Tclose(type);
    return ok;
}

static bool put_attribute(hid_t file, const bcop_attribute *a) {
    if (!make_groups(file, a->group, true))
        return false;
    const hid_t group = H5Gopen2(file, a->group, H5P_DEFAULT);
    if (group < 0)
        return false;
    bool ok;
    if (a->type == BCOP_ATTRIBUTE_TEXT)
        ok = write_text(group, a->name, a->text);
    else if (a->type == BCOP_ATTRIBUTE_LONG)
        ok = write_attribute(group, a->name, H5T_STD_I64LE, H5T_NATIVE_LONG, &a->integer);
    else
        ok = write_attribute(group, a->name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, &a->real);
    H5Gclose(group);
    return ok;
}

/* Allocated at once and never filled: the caller writes every element. */
static bool put_dataset(hid_t file, const bcop_field *field) {
    if (!make_groups(file, field->path, false))
        return false;
    hsize_t size[4];
    for (int d = 0; d < field->dimensions; d++)
        size[d] = (hsize_t)field->size[d];
    const hid_t space = H5Screate_simple(field->dimensions, size, NULL);
    const hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_layout(creation, H5D_CONTIGUOUS);
    H5Pset_alloc_time(creation, H5D_ALLOC_TIME_EARLY);
    H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER);
    H5Pset_obj_track_times(creation, false);
    const hid_t set = H5Dcreate2(file, field->path, bcop_h5_file_type(field->type), space,
                                 H5P_DEFAULT, creation, H5P_DEFAULT);
    const bool ok = set >= 0 && (!field->unit || write_text(set, "unit", field->unit)) &&
                    (!field->help || write_text(set, "description", field->help));
    if (set >= 0)
        H5Dclose(set);
    H5Pclose(creation);
    H5Sclose(space);
    return ok;
}

static bcop_status put_structure(const char *path, hid_t file, int attributes,
                                 const bcop_attribute attribute[], int fields,
                                 const bcop_field field[]) {
    const bcop_attribute own[2] = {
        {.group = "/", .name = "format", .type = BCOP_ATTRIBUTE_TEXT, .text = BCOP_H5_FORMAT},
        {.group = "/",
         .name = "version",
         .type = BCOP_ATTRIBUTE_LONG,
         .integer = BCOP_STORE_VERSION}};
    const bool other = attributes > 0 && strcmp(attribute[0].name, "format") == 0;
    for (int i = other ? 2 : 0; i < 2 + attributes; i++) {
        const bcop_attribute *a = i < 2 ? &own[i] : &attribute[i - 2];
        if (!put_attribute(file, a))
            return bcop_h5_fail(BCOP_IO, path, "write attribute", a->name);
    }
    for (int i = 0; i < fields; i++)
        if (!put_dataset(file, &field[i]))
            return bcop_h5_fail(BCOP_IO, path, "create dataset", field[i].path);
    return BCOP_OK;
}

/* Where in the file the arrays are. */
static bcop_status take_places(const char *path, hid_t file, int fields, const bcop_field field[],
                               bcop_seal *seal) {
    for (int i = 0; i < fields; i++) {
        if (seal->array[i].bytes == 0)
            continue;
        const hid_t set = H5Dopen2(file, field[i].path, H5P_DEFAULT);
        const haddr_t offset = set < 0 ? HADDR_UNDEF : H5Dget_offset(set);
        if (set >= 0)
            H5Dclose(set);
        if (offset == HADDR_UNDEF)
            return bcop_h5_fail(BCOP_IO, path, "place dataset", field[i].path);
        seal->array[i].offset = (long)offset;
    }
    return BCOP_OK;
}

/* Takes the disk space of the whole file: a disk that fills up inside a collective write can stop
 * the ranks for ever, and a hole reads as zeros. */
static bcop_status reserve_space(const char *path) {
    BCOP_TRY(bcop_fault_at(BCOP_FAULT_CKPT_RESERVE, NULL));
    struct stat about;
    const int file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0)
        return bcop_status_errno(BCOP_IO, "%s: cannot reserve space", path);
    const int error = fstat(file, &about) ? errno : posix_fallocate(file, 0, about.st_size);
    close(file);
    if (error == 0 || error == EINVAL || error == EOPNOTSUPP)
        return BCOP_OK; /* some file systems cannot say */
    return bcop_status_fail(BCOP_IO, "%s: cannot reserve %ld bytes: %s", path, (long)about.st_size,
                            strerror(error));
}

/* Open MPI makes a semaphore that is named after the base name of the file it opens, for the whole
 * node: of two users who save a "state.h5" at once, one would fail. */
static void name_work(char work[WORK_SIZE], const char *path) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(work, WORK_SIZE, "%s.%lx.%lx", path, (unsigned long)getpid(),
             (unsigned long)now.tv_sec * 1000000000 + (unsigned long)now.tv_nsec);
}

/* The first half, into the file `work`; `path` is claimed. Rank 0. */
static bcop_status make_file(const char *path, const char *work, int attributes,
                             const bcop_attribute attribute[], int fields, const bcop_field field[],
                             bcop_seal *seal) {
    BCOP_TRY(create_empty(path));
    const hid_t file = create_file(work);
    if (file < 0)
        return bcop_h5_fail(BCOP_IO, path, "create", "the file");
    bcop_status status = put_structure(path, file, attributes, attribute, fields, field);
    if (status == BCOP_OK)
        status = bcop_fault_at(BCOP_FAULT_CKPT_CREATE, NULL);
    if (status == BCOP_OK)
        status = take_places(path, file, fields, field, seal);
    if (H5Fclose(file) < 0 && status == BCOP_OK)
        status = bcop_h5_fail(BCOP_IO, path, "write", "the structure");
    return status == BCOP_OK ? reserve_space(work) : status;
}

/* The first row of rank `rank`'s share of a field. */
static long first_row(const bcop_comm *comm, const bcop_field *field, int rank) {
    const long rows = field->size[0], each = rows / comm->size, more = rows % comm->size;
    return rank * each + (rank < more ? rank : more);
}

/* One collective write: this rank gives its share of the rows, a GiB at a time. */
static bcop_status write_field(const bcop_comm *comm, const char *path, MPI_File file,
                               const bcop_field *field, long offset) {
    const long piece = 1L << 30, row_bytes = bcop_h5_bytes(field) / field->size[0];
    const long begin = first_row(comm, field, comm->rank) * row_bytes;
    const long end = first_row(comm, field, comm->rank + 1) * row_bytes;
    const long longest = (field->size[0] + comm->size - 1) / comm->size * row_bytes;
    bcop_status status = bcop_comm_agree(comm, bcop_fault_at(BCOP_FAULT_CKPT_WRITE, NULL));
    for (long done = 0; done < longest && status == BCOP_OK; done += piece) {
        const long from = begin + done < end ? begin + done : end;
        const long bytes = end - from < piece ? end - from : piece;
        if (MPI_File_write_at_all(file, offset + from, (const char *)field->data + from, (int)bytes,
                                  MPI_BYTE, MPI_STATUS_IGNORE) != MPI_SUCCESS)
            status = bcop_status_fail(BCOP_IO, "%s: cannot write %s: %s", path, field->path,
                                      strerror(errno));
        status = bcop_comm_agree(comm, status);
    }
    return status;
}

/* The second half, straight to where HDF5 has placed the arrays: a file that is open in HDF5 on all
   ranks is written to once more as it closes, and when that fails on one rank the others wait for
   ever. */
static bcop_status write_fields(const bcop_comm *comm, const char *path, const char *work,
                                int fields, const bcop_field field[], const bcop_seal *seal) {
    MPI_File file;
    bcop_status status = BCOP_OK;
    if (MPI_File_open(comm->handle, work, MPI_MODE_WRONLY, MPI_INFO_NULL, &file) != MPI_SUCCESS)
        status = bcop_status_fail(BCOP_IO, "%s: cannot be opened on every rank", path);
    BCOP_TRY(bcop_comm_agree(comm, status));
    for (int i = 0; i < fields && status == BCOP_OK; i++)
        if (bcop_h5_bytes(&field[i]) > 0)
            status = write_field(comm, path, file, &field[i], seal->array[i].offset);
    if (status == BCOP_OK) /* syncing is collective: all or none */
        status = bcop_comm_agree(comm, bcop_fault_at(BCOP_FAULT_CKPT_FLUSH, NULL));
    if (status == BCOP_OK && MPI_File_sync(file) != MPI_SUCCESS)
        status = bcop_status_fail(BCOP_IO, "%s: cannot be synced: %s", path, strerror(errno));
    if (MPI_File_close(&file) != MPI_SUCCESS && status == BCOP_OK)
        status = bcop_status_fail(BCOP_IO, "%s: cannot be closed: %s", path, strerror(errno));
    return bcop_comm_agree(comm, status);
}

/* Point 6. Rank 0. */
static bcop_status sync_file(const char *path, const char *work) {
    char folder[WORK_SIZE];
    BCOP_TRY(bcop_fault_at(BCOP_FAULT_CKPT_SYNC, NULL));
    BCOP_TRY(bcop_file_sync(work));
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (slash)
        slash[slash == folder] = '\0';
    return bcop_file_sync(slash ? folder : ".");
}

/* ---- the seal ---- */

static bcop_status start_seal(int fields, const bcop_field field[], bcop_seal *seal) {
    BCOP_TRY(bcop_seal_create(fields, seal));
    for (int i = 0; i < fields; i++) {
        memcpy(seal->array[i].path, field[i].path, sizeof seal->array[i].path);
        seal->array[i].bytes = bcop_h5_bytes(&field[i]);
    }
    return bcop_seal_number(seal);
}

/* The rank that writes the first byte of a block, and so hashes it. */
static int writer_of(const bcop_comm *comm, const bcop_field *field, long block) {
    const long row = block * BCOP_SEAL_BLOCK / (bcop_h5_bytes(field) / field->size[0]);
    int rank = (int)(row * comm->size / field->size[0]);
    while (rank > 0 && first_row(comm, field, rank) > row)
        rank--;
    while (rank + 1 < comm->size && first_row(comm, field, rank + 1) <= row)
        rank++;
    return rank;
}

/* Every block is hashed by its writer, and then known to all. Rank 0 adds the file's size. */
static void hash_blocks(const bcop_comm *comm, const bcop_field field[], bcop_seal *seal) {
    for (int i = 0; i < seal->count; i++) {
        const bcop_seal_array *a = &seal->array[i];
        for (long b = 0; b < bcop_seal_blocks(a->bytes); b++)
            if (writer_of(comm, &field[i], b) == comm->rank)
                seal->hash[a->first + b] = bcop_seal_hash(field[i].data, a->bytes, b);
    }
    for (long done = 0; done < seal->blocks && comm->size > 1; done += 1 << 20) {
        const long part = seal->blocks - done < 1 << 20 ? seal->blocks - done : 1 << 20;
        MPI_Allreduce(MPI_IN_PLACE, seal->hash + done, (int)part, MPI_UINT64_T, MPI_BOR,
                      comm->handle);
    }
}

/* Rank 0: what it alone knows. */
static bcop_status measure_file(const char *work, bcop_seal *seal) {
    struct stat about;
    if (stat(work, &about) != 0)
        return bcop_status_errno(BCOP_IO, "%s: cannot be read back", work);
    seal->bytes = (long)about.st_size;
    return bcop_seal_structure(work, seal, &seal->structure);
}

/* Whose blocks this rank reads back: those of the rank before it. */
struct reading {
    const bcop_comm *comm;
    const bcop_field *field;
    const bcop_seal *seal;
};

static bool is_the_neighbours(const void *context, long block) {
    const struct reading *r = context;
    int array = 0;
    while (array + 1 < r->seal->count && r->seal->array[array + 1].first <= block)
        array++;
    const long within = block - r->seal->array[array].first;
    return (writer_of(r->comm, &r->field[array], within) + 1) % r->comm->size == r->comm->rank;
}

/* Point 7, after all know the whole seal. */
static bcop_status read_back(const bcop_comm *comm, const char *work, const bcop_field field[],
                             bcop_seal *seal) {
    bcop_status status = comm->rank == 0 ? measure_file(work, seal) : BCOP_OK;
    BCOP_TRY(bcop_comm_agree(comm, status));
    bcop_comm_broadcast(comm, &seal->bytes, sizeof seal->bytes, 0);
    bcop_comm_broadcast(comm, &seal->structure, sizeof seal->structure, 0);
    const struct reading reading = {comm, field, seal};
    status = bcop_fault_at(BCOP_FAULT_CKPT_VERIFY, NULL);
    if (status == BCOP_OK)
        status =
            bcop_seal_check(work, seal, comm->rank == 1 % comm->size, is_the_neighbours, &reading);
    if (status == BCOP_BAD_DATA || status == BCOP_NO_INPUT)
        status = bcop_status_fail(BCOP_IO, "the disk does not hold what was written: %s",
                                  bcop_status_message());
    return bcop_comm_agree(comm, status);
}

static bcop_status write_file(const bcop_comm *comm, const char *path, char work[WORK_SIZE],
                              int attributes, const bcop_attribute attribute[], int fields,
                              const bcop_field field[], bcop_seal *seal) {
    bcop_status status = check_tables(path, attributes, attribute, fields, field);
    if (status == BCOP_OK)
        status = start_seal(fields, field, seal);
    BCOP_TRY(bcop_comm_agree(comm, status));
    if (comm->rank == 0) {
        name_work(work, path);
        status = make_file(path, work, attributes, attribute, fields, field, seal);
    }
    BCOP_TRY(bcop_comm_agree(comm, status));
    bcop_comm_broadcast(comm, work, WORK_SIZE, 0);
    bcop_comm_broadcast(comm, seal->array, seal->count * (long)sizeof *seal->array, 0);
    BCOP_TRY(write_fields(comm, path, work, fields, field, seal));
    hash_blocks(comm, field, seal);
    BCOP_TRY(bcop_comm_agree(comm, comm->rank == 0 ? sync_file(path, work) : BCOP_OK));
    BCOP_TRY(read_back(comm, work, field, seal));
    if (comm->rank == 0 && rename(work, path) != 0)
        status = bcop_status_fail(BCOP_IO, "%s: cannot rename %s: %s", path, work, strerror(errno));
    return bcop_comm_agree(comm, status);
}

bcop_status bcop_store_write(const bcop_comm *comm, const char *path, int attributes,
                             const bcop_attribute attribute[], int fields, const bcop_field field[],
                             bcop_seal *seal) {
    bcop_h5_tame();
    bcop_seal own = {0};
    char work[WORK_SIZE] = "";
    const bcop_status status =
        write_file(comm, path, work, attributes, attribute, fields, field, &own);
    if (comm->rank == 0 && status != BCOP_OK && work[0])
        unlink(work);
    if (status == BCOP_OK && seal)
        *seal = own;
    else
        bcop_seal_free(&own);
    if (status != BCOP_OK && seal)
        *seal = (bcop_seal){0};
    return status;
}
