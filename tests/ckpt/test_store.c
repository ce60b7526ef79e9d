/* run: ranks 1 2 3 4 */
/* state.h5 is written by all ranks and read back through bcop_store_* on every rank, and through
 * the serial HDF5 interface on rank 0, which knows nothing of the code under test. */
#include "ckpt/store.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <hdf5.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static bcop_comm comm;
static char folder[64];
static char file[96]; /* a name that no other test of this program uses */

/* Every rank must see the same status and the same message; rank 0's are compared with all. */
static void assert_everywhere(bcop_status got, bcop_status expected, const char *in_message) {
    char theirs[1024] = "", mine[1024] = "";
    snprintf(mine, sizeof mine, "%s", bcop_status_message());
    memcpy(theirs, mine, sizeof mine);
    bcop_comm_broadcast(&comm, theirs, sizeof theirs, 0);
    int worst = (int)got, best = (int)got;
    MPI_Allreduce(MPI_IN_PLACE, &worst, 1, MPI_INT, MPI_MAX, comm.handle);
    MPI_Allreduce(MPI_IN_PLACE, &best, 1, MPI_INT, MPI_MIN, comm.handle);
    if (got != expected)
        print_message("rank %d: %s\n", comm.rank, mine);
    assert_int_equal(worst, expected);
    assert_int_equal(best, expected);
    if (expected != BCOP_OK) {
        assert_string_equal(mine, theirs);
        assert_non_null(strstr(mine, in_message));
    }
}

static int new_file(void **state) {
    static int count;
    (void)state;
    snprintf(file, sizeof file, "%s/%d.h5", folder, count++);
    return 0;
}

/* The value of element i of an array with this seed: exact in float, different everywhere. */
static double value_at(int seed, long i) {
    return (double)(seed * 100000 + i) * (i % 2 ? -0.5 : 0.5);
}

static void fill(bcop_field *field, int seed) {
    long count = 1;
    for (int d = 0; d < field->dimensions; d++)
        count *= field->size[d];
    field->data = malloc((size_t)count * 8 + 1);
    assert_non_null(field->data);
    for (long i = 0; i < count; i++)
        if (field->type == BCOP_FIELD_FLOAT)
            ((float *)field->data)[i] = (float)value_at(seed, i);
        else if (field->type == BCOP_FIELD_DOUBLE)
            ((double *)field->data)[i] = value_at(seed, i);
        else
            ((long *)field->data)[i] = (long)(2 * value_at(seed, i));
}

enum { FIELDS = 6, ATTRIBUTES = 5 };
static bcop_field table[FIELDS] = {
    {.path = "/layers/00-conv/kernel",
     .type = BCOP_FIELD_FLOAT,
     .dimensions = 4,
     .size = {16, 4, 2, 2},
     .unit = "1",
     .help = "cross-correlation kernel"},
    {.path = "/layers/00-conv/blocks/H", .dimensions = 2, .size = {3, 2}},
    {.path = "/layers/00-conv/blocks/P1", .dimensions = 2, .size = {2, 0}},
    {.path = "/history/loss", .type = BCOP_FIELD_DOUBLE, .dimensions = 1, .size = {1001}},
    {.path = "/history/step", .type = BCOP_FIELD_LONG, .dimensions = 1, .size = {7}},
    {.path = "/history/none", .type = BCOP_FIELD_LONG, .dimensions = 1, .size = {0}},
};
static const bcop_attribute attribute_table[ATTRIBUTES] = {
    {.group = "/", .name = "step", .type = BCOP_ATTRIBUTE_LONG, .integer = 1234567890123},
    {.group = "/",
     .name = "config",
     .type = BCOP_ATTRIBUTE_TEXT,
     .text = "name: \"d\xc3\xa9j\xc3\xa0\"\n"},
    {.group = "/", .name = "software", .type = BCOP_ATTRIBUTE_TEXT, .text = ""},
    {.group = "/layers/00-conv", .name = "stride", .type = BCOP_ATTRIBUTE_LONG, .integer = 2},
    {.group = "/sampler/a", .name = "rate", .type = BCOP_ATTRIBUTE_REAL, .real = 0.1},
};

static int make_table(void **state) {
    (void)state;
    for (int i = 0; i < FIELDS; i++)
        fill(&table[i], i + 1);
    return 0;
}

static int free_table(void **state) {
    (void)state;
    for (int i = 0; i < FIELDS; i++)
        free(table[i].data);
    return 0;
}

static void write_good(void) {
    assert_everywhere(
        bcop_store_write(&comm, file, ATTRIBUTES, attribute_table, FIELDS, table, NULL), BCOP_OK,
        "");
}

static bcop_store *open_good(void) {
    bcop_store *store = NULL;
    assert_everywhere(bcop_store_open(&comm, file, &store), BCOP_OK, "");
    assert_non_null(store);
    return store;
}

static void open_fails(bcop_status expected, const char *in_message) {
    bcop_store *store = (bcop_store *)&comm;
    assert_everywhere(bcop_store_open(&comm, file, &store), expected, in_message);
    assert_null(store);
}

static void read_fails(const bcop_field *field, const char *in_message) {
    bcop_store *store = open_good();
    char room[4096];
    bcop_field copy = *field;
    copy.data = room;
    assert_everywhere(bcop_store_read(store, &copy), BCOP_BAD_DATA, in_message);
    bcop_store_close(store);
}

static void test_reads_back_what_was_written(void **state) {
    (void)state;
    write_good();
    bcop_store *store = open_good();
    for (int i = 0; i < FIELDS; i++) {
        bcop_field copy = table[i];
        fill(&copy, 99);
        assert_everywhere(bcop_store_read(store, &copy), BCOP_OK, "");
        const size_t bytes = i == 0   ? 16 * 4 * 2 * 2 * 4
                             : i == 1 ? 24
                             : i == 3 ? 8008
                             : i == 4 ? 56
                                      : 0;
        assert_memory_equal(copy.data, table[i].data, bytes);
        free(copy.data);
    }
    bcop_store_close(store);
}

static void test_reads_attributes_back(void **state) {
    (void)state;
    write_good();
    bcop_store *store = open_good();
    char text[64];
    long length = -1, integer = 0;
    double real = 0;
    assert_everywhere(bcop_store_text(store, "/", "config", text, sizeof text), BCOP_OK, "");
    assert_string_equal(text, attribute_table[1].text);
    assert_everywhere(bcop_store_text_length(store, "/", "config", &length), BCOP_OK, "");
    assert_int_equal(length, (long)strlen(attribute_table[1].text));
    assert_everywhere(bcop_store_text(store, "/", "config", text, length + 1), BCOP_OK, "");
    assert_everywhere(bcop_store_text(store, "/", "config", text, length), BCOP_BAD_DATA, "config");
    assert_everywhere(bcop_store_text(store, "/", "software", text, 1), BCOP_OK, "");
    assert_string_equal(text, "");
    assert_everywhere(bcop_store_text(store, "/layers/00-conv/kernel", "unit", text, 2), BCOP_OK,
                      "");
    assert_string_equal(text, "1");
    assert_everywhere(bcop_store_long(store, "/", "step", &integer), BCOP_OK, "");
    assert_true(integer == 1234567890123);
    assert_everywhere(bcop_store_real(store, "/sampler/a", "rate", &real), BCOP_OK, "");
    assert_true(real == 0.1);
    assert_everywhere(bcop_store_real(store, "/", "step", &real), BCOP_BAD_DATA, "step");
    assert_everywhere(bcop_store_text(store, "/", "step", text, 64), BCOP_BAD_DATA, "step");
    assert_everywhere(bcop_store_long(store, "/", "config", &integer), BCOP_BAD_DATA, "config");
    assert_everywhere(bcop_store_long(store, "/", "nothing", &integer), BCOP_BAD_DATA, "nothing");
    assert_everywhere(bcop_store_long(store, "/none", "step", &integer), BCOP_BAD_DATA, "/none");
    bcop_store_close(store);
}

/* What a stranger with plain HDF5 sees: the types, the order of the elements, the attributes. */
static void look_at_file(void) {
    const hid_t h = H5Fopen(file, H5F_ACC_RDONLY, H5P_DEFAULT);
    const hid_t kernel = H5Dopen2(h, "/layers/00-conv/kernel", H5P_DEFAULT);
    const hid_t type = H5Dget_type(kernel), space = H5Dget_space(kernel);
    const hid_t plan = H5Dget_create_plist(kernel);
    hsize_t size[4] = {0};
    float element[16][4][2][2];
    assert_true(H5Tequal(type, H5T_IEEE_F32LE) > 0);
    assert_int_equal(H5Sget_simple_extent_dims(space, size, NULL), 4);
    assert_true(size[0] == 16 && size[1] == 4 && size[2] == 2 && size[3] == 2);
    assert_int_equal(H5Pget_layout(plan), H5D_CONTIGUOUS);
    assert_true(H5Dread(kernel, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, element) >= 0);
    for (int o = 0; o < 16; o++)
        for (int i = 0; i < 4; i++)
            for (int y = 0; y < 2; y++)
                for (int x = 0; x < 2; x++)
                    assert_true(element[o][i][y][x] ==
                                (float)value_at(1, ((o * 4L + i) * 2 + y) * 2 + x));
    const hid_t attribute = H5Aopen_by_name(h, "/", "config", H5P_DEFAULT, H5P_DEFAULT);
    const hid_t text_type = H5Aget_type(attribute);
    char text[64] = "";
    assert_int_equal(H5Tget_cset(text_type), H5T_CSET_UTF8);
    assert_int_equal(H5Tis_variable_str(text_type), 0);
    assert_true(H5Aread(attribute, text_type, text) >= 0);
    assert_string_equal(text, attribute_table[1].text);
    H5Tclose(text_type);
    H5Aclose(attribute);
    const hid_t long_attribute = H5Aopen_by_name(h, "/", "version", H5P_DEFAULT, H5P_DEFAULT);
    long version = 0;
    assert_true(H5Aread(long_attribute, H5T_NATIVE_LONG, &version) >= 0);
    assert_int_equal(version, 1);
    H5Aclose(long_attribute);
    H5Pclose(plan);
    H5Sclose(space);
    H5Tclose(type);
    H5Dclose(kernel);
    H5Fclose(h);
}

static void test_file_is_plain_hdf5(void **state) {
    (void)state;
    write_good();
    if (comm.rank == 0)
        look_at_file();
    bcop_comm_agree(&comm, BCOP_OK); /* waits for everyone */
}

/* Where two files differ first, -1 if nowhere. */
static long first_difference(const char *left_name, const char *right_name) {
    FILE *a = fopen(left_name, "rb"), *b = fopen(right_name, "rb");
    long at = 0;
    int left = 0;
    if (!a || !b)
        return 0;
    while ((left = getc(a)) == getc(b) && left != EOF)
        at++;
    const bool same = left == EOF && feof(b) && at > 10000;
    fclose(a);
    fclose(b);
    return same ? -1 : at;
}

/* Neither on the number of ranks nor on the time. */
static void test_bytes_depend_on_content_alone(void **state) {
    (void)state;
    write_good();
    bcop_comm alone = {.handle = MPI_COMM_SELF, .rank = 0, .size = 1};
    long difference = 0;
    if (comm.rank == 0) {
        char other[128];
        snprintf(other, sizeof other, "%s.one", file);
        sleep(1);
        if (bcop_store_write(&alone, other, ATTRIBUTES, attribute_table, FIELDS, table, NULL) ==
            BCOP_OK)
            difference = first_difference(file, other);
    }
    bcop_comm_broadcast(&comm, &difference, sizeof difference, 0);
    assert_int_equal(difference, -1);
}

static void text_round_trip(long bytes) {
    new_file(NULL);
    char *text = malloc((size_t)bytes + 1), *back = malloc((size_t)bytes + 1);
    assert_non_null(text);
    assert_non_null(back);
    for (long i = 0; i < bytes; i++)
        text[i] = (char)('a' + (i * 7 + i / 1000) % 26);
    text[bytes] = '\0';
    const bcop_attribute attribute[2] = {
        {.group = "/", .name = "config", .type = BCOP_ATTRIBUTE_TEXT, .text = text},
        {.group = "/group", .name = "config", .type = BCOP_ATTRIBUTE_TEXT, .text = text}};
    assert_everywhere(bcop_store_write(&comm, file, 2, attribute, FIELDS, table, NULL), BCOP_OK,
                      "");
    bcop_store *store = open_good();
    for (int i = 0; i < 2; i++) {
        memset(back, 0, (size_t)bytes + 1);
        assert_everywhere(bcop_store_text(store, attribute[i].group, "config", back, bytes + 1),
                          BCOP_OK, "");
        assert_string_equal(back, text);
    }
    bcop_store_close(store);
    free(text);
    free(back);
}

static void test_long_texts(void **state) {
    (void)state;
    text_round_trip(60000);
    text_round_trip(65535);
    text_round_trip(200000);
    text_round_trip(BCOP_STORE_TEXT_LIMIT - 1);
}

static void test_text_too_long(void **state) {
    (void)state;
    char *text = malloc(BCOP_STORE_TEXT_LIMIT + 1);
    assert_non_null(text);
    memset(text, 'x', BCOP_STORE_TEXT_LIMIT);
    text[BCOP_STORE_TEXT_LIMIT] = '\0';
    const bcop_attribute attribute = {
        .group = "/", .name = "config", .type = BCOP_ATTRIBUTE_TEXT, .text = text};
    assert_everywhere(bcop_store_write(&comm, file, 1, &attribute, 0, NULL, NULL), BCOP_BAD_DATA,
                      "config");
    assert_int_equal(access(file, F_OK), -1);
    free(text);
}

static void test_many_attributes(void **state) {
    (void)state;
    bcop_attribute attribute[100] = {0};
    for (int i = 0; i < 100; i++) {
        attribute[i] =
            (bcop_attribute){.group = "/layers", .type = BCOP_ATTRIBUTE_LONG, .integer = i * i};
        snprintf(attribute[i].name, sizeof attribute[i].name, "option-%d", i);
    }
    assert_everywhere(bcop_store_write(&comm, file, 100, attribute, FIELDS, table, NULL), BCOP_OK,
                      "");
    bcop_store *store = open_good();
    for (int i = 0; i < 100; i++) {
        long value = -1;
        assert_everywhere(bcop_store_long(store, "/layers", attribute[i].name, &value), BCOP_OK,
                          "");
        assert_int_equal(value, i * i);
    }
    bcop_store_close(store);
}

static void test_existing_file_is_kept(void **state) {
    (void)state;
    if (comm.rank == 0) {
        FILE *f = fopen(file, "w");
        assert_non_null(f);
        fputs("mine", f);
        fclose(f);
    }
    bcop_comm_agree(&comm, BCOP_OK); /* waits for everyone */
    assert_everywhere(
        bcop_store_write(&comm, file, ATTRIBUTES, attribute_table, FIELDS, table, NULL),
        BCOP_CANNOT_CREATE, file);
    struct stat about;
    assert_int_equal(stat(file, &about), 0);
    assert_int_equal(about.st_size, 4);
}

static void test_missing_folder(void **state) {
    (void)state;
    char path[128];
    snprintf(path, sizeof path, "%s/none/state.h5", folder);
    assert_everywhere(
        bcop_store_write(&comm, path, ATTRIBUTES, attribute_table, FIELDS, table, NULL),
        BCOP_CANNOT_CREATE, path);
    bcop_store *store;
    assert_everywhere(bcop_store_open(&comm, path, &store), BCOP_NO_INPUT, path);
}

static void test_bad_tables(void **state) {
    (void)state;
    static const char *const bad[] = {"layers/x", "/", "//x", "/x/", "/x//y", "/./x", "/x/.."};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        bcop_field field = table[1];
        snprintf(field.path, sizeof field.path, "%s", bad[i]);
        assert_everywhere(bcop_store_write(&comm, file, 0, NULL, 1, &field, NULL), BCOP_INTERNAL,
                          file);
    }
    bcop_field field = table[1];
    field.size[0] = field.size[1] = 1L << 32;
    assert_everywhere(bcop_store_write(&comm, file, 0, NULL, 1, &field, NULL), BCOP_INTERNAL, file);
    field = table[1];
    field.dimensions = 5;
    assert_everywhere(bcop_store_write(&comm, file, 0, NULL, 1, &field, NULL), BCOP_INTERNAL, file);
    const bcop_field twice[2] = {table[1], table[1]};
    assert_everywhere(bcop_store_write(&comm, file, 0, NULL, 2, twice, NULL), BCOP_IO,
                      table[1].path);
}

/* A limit on file sizes stands in for a full disk: the space is refused before any array is
 * written, on rank 0 alone, and everyone leaves. */
static void test_no_space(void **state) {
    (void)state;
    struct rlimit before, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = (struct rlimit){.rlim_cur = 100000, .rlim_max = before.rlim_max};
    bcop_field field = {
        .path = "/x", .type = BCOP_FIELD_DOUBLE, .dimensions = 2, .size = {1000, 100}};
    fill(&field, 1);
    signal(SIGXFSZ, SIG_IGN);
    if (comm.rank == 0)
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    const bcop_status status = bcop_store_write(&comm, file, 0, NULL, 1, &field, NULL);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_everywhere(status, BCOP_IO, file);
    free(field.data);
}

/* ---- Damaged and strange files, made by rank 0 ---- */

static void patch_byte(long at, int value) {
    if (comm.rank == 0) {
        FILE *f = fopen(file, "r+b");
        assert_non_null(f);
        assert_int_equal(fseek(f, at, SEEK_SET), 0);
        assert_int_not_equal(putc(value, f), EOF);
        fclose(f);
    }
    bcop_comm_agree(&comm, BCOP_OK); /* waits for everyone */
}

static void test_refuses_what_is_no_hdf5(void **state) {
    (void)state;
    open_fails(BCOP_NO_INPUT, file);
    write_good();
    patch_byte(8, 2);
    open_fails(BCOP_BAD_DATA, "superblock version 2");
    patch_byte(8, 3);
    bcop_store_close(open_good());
    patch_byte(1, 'X');
    open_fails(BCOP_BAD_DATA, "not an HDF5 file");
    patch_byte(1, 'H');
    patch_byte(20, 77); /* superblock extension address: the checksum is wrong now */
    open_fails(BCOP_BAD_DATA, file);
}

static void test_refuses_truncated_files(void **state) {
    (void)state;
    write_good();
    struct stat about;
    assert_int_equal(stat(file, &about), 0);
    bcop_comm_agree(&comm, BCOP_OK); /* waits for everyone */
    for (long length = (long)about.st_size - 1; length >= 0; length = length * 3 / 4 - 1) {
        if (comm.rank == 0)
            assert_int_equal(truncate(file, length), 0);
        bcop_comm_agree(&comm, BCOP_OK); /* waits for everyone */
        open_fails(BCOP_BAD_DATA, file);
    }
}

/* Any byte may be wrong: all ranks then agree on some answer, and nothing crashes or hangs. */
static void test_survives_flipped_bytes(void **state) {
    (void)state;
    write_good();
    struct stat about;
    assert_int_equal(stat(file, &about), 0);
    bcop_comm_agree(&comm, BCOP_OK); /* waits for everyone */
    unsigned char *good = malloc((size_t)about.st_size);
    FILE *f = fopen(file, "rb");
    assert_non_null(good);
    assert_non_null(f);
    assert_int_equal(fread(good, 1, (size_t)about.st_size, f), about.st_size);
    fclose(f);
    int refused = 0;
    for (long at = 0; at < about.st_size; at += at < 200 ? 3 : 37) {
        patch_byte(at, good[at] ^ (1 << at % 8));
        bcop_store *store = NULL;
        bcop_status status = bcop_store_open(&comm, file, &store);
        for (int i = 0; status == BCOP_OK && i < FIELDS; i++) {
            bcop_field copy = table[i];
            fill(&copy, 9);
            status = bcop_store_read(store, &copy);
            free(copy.data);
        }
        bcop_store_close(store);
        if (status != BCOP_OK)
            assert_everywhere(status, BCOP_BAD_DATA, file);
        refused += status != BCOP_OK;
        patch_byte(at, good[at]);
    }
    assert_true(refused > 20);
    bcop_store_close(open_good());
    free(good);
}

static hid_t strange;

static void put_text(const char *name, const char *text) {
    const hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    H5Tset_size(type, strlen(text) + 1);
    const hid_t a = H5Acreate2(strange, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Awrite(a, type, text) >= 0);
    H5Aclose(a);
    H5Sclose(space);
    H5Tclose(type);
}

static void put_number(const char *name, hid_t type, int values) {
    const long value[3] = {1, 2, 3};
    const hsize_t size = (hsize_t)values;
    const hid_t space = values == 1 ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, &size, NULL);
    const hid_t a = H5Acreate2(strange, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Awrite(a, H5T_NATIVE_LONG, value) >= 0);
    H5Aclose(a);
    H5Sclose(space);
}

/* On rank 0 opens the file to be made strange; the others go on. */
static bool strange_begin(const char *format, hid_t version_type) {
    new_file(NULL);
    if (comm.rank != 0)
        return false;
    const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110);
    strange = H5Fcreate(file, H5F_ACC_EXCL, H5P_DEFAULT, access);
    H5Pclose(access);
    assert_true(strange >= 0);
    if (format)
        put_text("format", format);
    if (version_type >= 0)
        put_number("version", version_type, 1);
    return true;
}

static void strange_end(void) {
    if (comm.rank == 0)
        assert_true(H5Fclose(strange) >= 0);
    bcop_comm_agree(&comm, BCOP_OK); /* waits for everyone */
}

static void put_array(const char *path, hid_t type, hid_t plan) {
    const hsize_t size[2] = {3, 2};
    const float value[6] = {1, 2, 3, 4, 5, 6};
    const hid_t space = H5Screate_simple(2, size, NULL);
    const hid_t set = H5Dcreate2(strange, path, type, space, H5P_DEFAULT, plan, H5P_DEFAULT);
    assert_true(set >= 0);
    assert_true(H5Dwrite(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, value) >= 0);
    H5Dclose(set);
    H5Sclose(space);
}

static const bcop_field wanted = {
    .path = "/x", .type = BCOP_FIELD_FLOAT, .dimensions = 2, .size = {3, 2}};

static void test_refuses_other_formats(void **state) {
    (void)state;
    strange_begin(NULL, H5T_STD_I64LE);
    strange_end();
    open_fails(BCOP_BAD_DATA, "format");
    strange_begin("bcop", H5T_STD_I64LE);
    strange_end();
    open_fails(BCOP_BAD_DATA, "format");
    strange_begin("bcop-checkpoint", H5I_INVALID_HID);
    strange_end();
    open_fails(BCOP_BAD_DATA, "version");
    strange_begin("bcop-checkpoint", H5T_STD_I32LE);
    strange_end();
    open_fails(BCOP_BAD_DATA, "version");
    strange_begin("bcop-checkpoint", H5T_STD_I64LE);
    strange_end();
    bcop_store_close(open_good());
    if (strange_begin("bcop-checkpoint", H5I_INVALID_HID)) {
        const long two = 2;
        put_number("version", H5T_STD_I64LE, 1);
        const hid_t a = H5Aopen(strange, "version", H5P_DEFAULT);
        assert_true(H5Awrite(a, H5T_NATIVE_LONG, &two) >= 0);
        H5Aclose(a);
    }
    strange_end();
    open_fails(BCOP_BAD_DATA, "version 2");
    if (comm.rank == 0)
        assert_int_equal(mkfifo(strcat(file, ".fifo"), 0600), 0);
    else
        strcat(file, ".fifo");
    bcop_comm_agree(&comm, BCOP_OK); /* waits for everyone */
    open_fails(BCOP_BAD_DATA, "not a file");
}

static void test_refuses_other_types_and_sizes(void **state) {
    (void)state;
    if (strange_begin("bcop-checkpoint", H5T_STD_I64LE)) {
        put_array("/x", H5T_IEEE_F32LE, H5P_DEFAULT);
        put_array("/double", H5T_IEEE_F64LE, H5P_DEFAULT);
        put_array("/big", H5T_IEEE_F32BE, H5P_DEFAULT);
        put_array("/integer", H5T_STD_I32LE, H5P_DEFAULT);
        H5Gclose(H5Gcreate2(strange, "/group", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    }
    strange_end();
    static const char *const other[] = {"/double", "/big", "/integer", "/group", "/none", "/x/y"};
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
        bcop_field field = wanted;
        snprintf(field.path, sizeof field.path, "%s", other[i]);
        read_fails(&field, other[i]);
    }
    static const long size[][4] = {{2, 3}, {6, 1}, {3, 3}, {3, 1}};
    for (size_t i = 0; i < sizeof size / sizeof *size; i++) {
        bcop_field field = wanted;
        memcpy(field.size, size[i], sizeof field.size);
        read_fails(&field, "/x");
    }
    bcop_field field = wanted;
    field.dimensions = 1;
    field.size[0] = 6;
    read_fails(&field, "/x");
    field.dimensions = 3;
    field.size[0] = 3;
    field.size[2] = 1;
    read_fails(&field, "/x");

    float room[6] = {0};
    const float expected[6] = {1, 2, 3, 4, 5, 6};
    field = wanted;
    field.data = room;
    bcop_store *store = open_good();
    assert_everywhere(bcop_store_read(store, &field), BCOP_OK, "");
    bcop_store_close(store);
    assert_memory_equal(room, expected, sizeof room);
}

/* Ways in which a file could make the library read something else than the file's own plain array.
 */
static void test_refuses_links_and_storage(void **state) {
    (void)state;
    static const char *const path[] = {"/soft",    "/out",     "/dir/x",   "/chunked", "/filtered",
                                       "/compact", "/outside", "/virtual", "/late"};
    if (strange_begin("bcop-checkpoint", H5T_STD_I64LE)) {
        const hsize_t chunk[2] = {3, 2};
        put_array("/x", H5T_IEEE_F32LE, H5P_DEFAULT);
        assert_true(H5Lcreate_soft("/x", strange, "/soft", H5P_DEFAULT, H5P_DEFAULT) >= 0);
        assert_true(H5Lcreate_soft("/", strange, "/dir", H5P_DEFAULT, H5P_DEFAULT) >= 0);
        assert_true(H5Lcreate_external(file, "/x", strange, "/out", H5P_DEFAULT, H5P_DEFAULT) >= 0);
        hid_t plan = H5Pcreate(H5P_DATASET_CREATE);
        H5Pset_chunk(plan, 2, chunk);
        put_array("/chunked", H5T_IEEE_F32LE, plan);
        H5Pset_fletcher32(plan);
        put_array("/filtered", H5T_IEEE_F32LE, plan);
        H5Pclose(plan);
        plan = H5Pcreate(H5P_DATASET_CREATE);
        H5Pset_layout(plan, H5D_COMPACT);
        put_array("/compact", H5T_IEEE_F32LE, plan);
        H5Pclose(plan);
        plan = H5Pcreate(H5P_DATASET_CREATE);
        char outside[128];
        snprintf(outside, sizeof outside, "%s.raw", file);
        H5Pset_external(plan, outside, 0, 24);
        put_array("/outside", H5T_IEEE_F32LE, plan);
        H5Pclose(plan);
        plan = H5Pcreate(H5P_DATASET_CREATE);
        const hid_t space = H5Screate_simple(2, chunk, NULL);
        H5Pset_virtual(plan, space, file, "/x", space);
        H5Dclose(
            H5Dcreate2(strange, "/virtual", H5T_IEEE_F32LE, space, H5P_DEFAULT, plan, H5P_DEFAULT));
        H5Dclose(H5Dcreate2(strange, "/late", H5T_IEEE_F32LE, space, H5P_DEFAULT, H5P_DEFAULT,
                            H5P_DEFAULT));
        H5Sclose(space);
        H5Pclose(plan);
    }
    strange_end();
    for (size_t i = 0; i < sizeof path / sizeof *path; i++) {
        bcop_field field = wanted;
        snprintf(field.path, sizeof field.path, "%s", path[i]);
        read_fails(&field, path[i]);
    }
    bcop_store *store = open_good();
    bcop_store_close(store);
}

static void test_refuses_strange_attributes(void **state) {
    (void)state;
    if (strange_begin("bcop-checkpoint", H5T_STD_I64LE)) {
        put_number("many", H5T_STD_I64LE, 3);
        put_number("small", H5T_STD_I32LE, 1);
        const hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
        H5Tset_size(type, H5T_VARIABLE);
        const char *text = "text";
        const hid_t a = H5Acreate2(strange, "variable", type, space, H5P_DEFAULT, H5P_DEFAULT);
        assert_true(H5Awrite(a, type, &text) >= 0);
        H5Aclose(a);
        H5Sclose(space);
        H5Tclose(type);
        /* A text whose declared size is filled to the last byte. */
        const hid_t full = H5Tcopy(H5T_C_S1), scalar = H5Screate(H5S_SCALAR);
        H5Tset_size(full, 3);
        H5Tset_strpad(full, H5T_STR_NULLPAD);
        const hid_t b = H5Acreate2(strange, "full", full, scalar, H5P_DEFAULT, H5P_DEFAULT);
        assert_true(H5Awrite(b, full, "abc") >= 0);
        H5Aclose(b);
        H5Sclose(scalar);
        H5Tclose(full);
    }
    strange_end();
    bcop_store *store = open_good();
    long integer = 0, length = 0;
    char text[16];
    assert_everywhere(bcop_store_long(store, "/", "many", &integer), BCOP_BAD_DATA, "many");
    assert_everywhere(bcop_store_long(store, "/", "small", &integer), BCOP_BAD_DATA, "small");
    assert_everywhere(bcop_store_text(store, "/", "variable", text, 16), BCOP_BAD_DATA, "variable");
    assert_everywhere(bcop_store_text_length(store, "/", "variable", &length), BCOP_BAD_DATA,
                      "variable");
    assert_everywhere(bcop_store_text(store, "/", "full", text, 16), BCOP_OK, "");
    assert_string_equal(text, "abc");
    bcop_store_close(store);
}

static void test_nothing_stays_open(void **state) {
    (void)state;
    assert_int_equal(H5Fget_obj_count((hid_t)H5F_OBJ_ALL, H5F_OBJ_ALL), 0);
}

static int remove_folder(void) {
    for (int i = 0; i < 100; i++) {
        static const char *const suffix[] = {"", ".one", ".raw", ".fifo"};
        for (size_t j = 0; j < sizeof suffix / sizeof *suffix; j++) {
            char path[128];
            snprintf(path, sizeof path, "%s/%d.h5%s", folder, i, suffix[j]);
            unlink(path);
        }
    }
    return rmdir(folder);
}

int main(void) {
    if (bcop_comm_open(&comm) != BCOP_OK)
        return 1;
    snprintf(folder, sizeof folder, "test_store.XXXXXX");
    if (comm.rank == 0 && !mkdtemp(folder))
        exit(1);
    bcop_comm_broadcast(&comm, folder, sizeof folder, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_reads_back_what_was_written, new_file),
        cmocka_unit_test_setup(test_reads_attributes_back, new_file),
        cmocka_unit_test_setup(test_file_is_plain_hdf5, new_file),
        cmocka_unit_test_setup(test_bytes_depend_on_content_alone, new_file),
        cmocka_unit_test(test_long_texts),
        cmocka_unit_test_setup(test_text_too_long, new_file),
        cmocka_unit_test_setup(test_many_attributes, new_file),
        cmocka_unit_test_setup(test_existing_file_is_kept, new_file),
        cmocka_unit_test(test_missing_folder),
        cmocka_unit_test_setup(test_bad_tables, new_file),
        cmocka_unit_test_setup(test_refuses_what_is_no_hdf5, new_file),
        cmocka_unit_test_setup(test_refuses_truncated_files, new_file),
        cmocka_unit_test_setup(test_survives_flipped_bytes, new_file),
        cmocka_unit_test(test_refuses_other_formats),
        cmocka_unit_test(test_refuses_other_types_and_sizes),
        cmocka_unit_test(test_refuses_links_and_storage),
        cmocka_unit_test(test_refuses_strange_attributes),
        cmocka_unit_test(test_nothing_stays_open),
        cmocka_unit_test_setup(test_no_space, new_file), /* last: HDF5 keeps a broken handle */
    };
    int failed = cmocka_run_group_tests_name("store", tests, make_table, free_table);
    bcop_comm_agree(&comm, BCOP_OK); /* waits for everyone */
    if (comm.rank == 0 && failed == 0)
        failed = remove_folder();
    bcop_comm_close(&comm);
    return failed != 0;
}
