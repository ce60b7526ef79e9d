/* run: ranks 1 2 3 4 */
/* The seal that writing gives, against hashes of slices that this test cuts itself, and against a
 * file in which single bytes are changed. */
#include "ckpt/store.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

static bcop_comm comm;
static char path[96];

enum { FIELDS = 4 };
static bcop_field table[FIELDS] = {
    {.path = "/a/large", .type = BCOP_FIELD_DOUBLE, .dimensions = 2, .size = {3001, 97}},
    {.path = "/a/none", .type = BCOP_FIELD_LONG, .dimensions = 1, .size = {0}},
    {.path = "/one", .type = BCOP_FIELD_FLOAT, .dimensions = 1, .size = {1}},
    {.path = "/few", .type = BCOP_FIELD_LONG, .dimensions = 2, .size = {2, 131072}},
};
static const long bytes_of[FIELDS] = {3001L * 97 * 8, 0, 4, 2L * 131072 * 8};

static void fill_table(void) {
    for (int i = 0; i < FIELDS; i++) {
        unsigned char *data = malloc((size_t)bytes_of[i] + 1);
        assert_non_null(data);
        for (long b = 0; b < bytes_of[i]; b++)
            data[b] = (unsigned char)(b * (i + 3) + b / 251);
        table[i].data = data;
    }
}

static void write_sealed(const bcop_comm *who, const char *name, bcop_seal *seal) {
    const bcop_attribute attribute = {
        .group = "/a", .name = "text", .type = BCOP_ATTRIBUTE_TEXT, .text = "hello"};
    const bcop_status status = bcop_store_write(who, name, 1, &attribute, FIELDS, table, seal);
    if (status != BCOP_OK)
        fail_msg("%s", bcop_status_message());
}

static void test_hashes_are_of_slices(void **state) {
    (void)state;
    bcop_seal seal;
    write_sealed(&comm, path, &seal);
    assert_int_equal(seal.count, FIELDS);
    long block = 0;
    for (int i = 0; i < FIELDS; i++) {
        assert_string_equal(seal.array[i].path, table[i].path);
        assert_int_equal(seal.array[i].bytes, bytes_of[i]);
        for (long at = 0; at < bytes_of[i]; at += 1 << 20, block++) {
            const long left = bytes_of[i] - at;
            const uint64_t expected = XXH3_64bits((const char *)table[i].data + at,
                                                  (size_t)(left < 1 << 20 ? left : 1 << 20));
            assert_true(seal.hash[block] == expected);
        }
        assert_true(bcop_seal_agrees(&seal, i, table[i].data));
    }
    assert_int_equal(block, seal.blocks);
    assert_int_equal(bcop_seal_find(&seal, "/one"), 2);
    assert_int_equal(bcop_seal_find(&seal, "/two"), -1);
    bcop_seal_free(&seal);
}

/* Offsets, size and the hash of the rest, from the bytes of the file. */
static void test_structure_is_the_rest(void **state) {
    (void)state;
    bcop_seal seal;
    write_sealed(&comm, path, &seal);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    char *all = malloc((size_t)seal.bytes + 1);
    assert_non_null(all);
    assert_int_equal(fread(all, 1, (size_t)seal.bytes + 1, file), seal.bytes);
    fclose(file);
    for (int i = 0; i < FIELDS; i++)
        assert_memory_equal(all + seal.array[i].offset, table[i].data, (size_t)bytes_of[i]);
    long rest = 0;
    for (long at = 0; at < seal.bytes; at++) {
        bool within = false;
        for (int i = 0; i < FIELDS; i++)
            within |= at >= seal.array[i].offset && at < seal.array[i].offset + bytes_of[i];
        if (!within)
            all[rest++] = all[at];
    }
    assert_true(rest > 100);
    assert_true(seal.structure == XXH3_64bits(all, (size_t)rest));
    free(all);
    bcop_seal_free(&seal);
}

static void test_ranks_do_not_show(void **state) {
    (void)state;
    bcop_seal all, one;
    write_sealed(&comm, path, &all);
    const bcop_comm alone = {.handle = MPI_COMM_SELF, .rank = 0, .size = 1};
    char other[128];
    snprintf(other, sizeof other, "%s.%d", path, comm.rank);
    write_sealed(&alone, other, &one);
    assert_true(all.bytes == one.bytes && all.structure == one.structure);
    assert_memory_equal(all.hash, one.hash, (size_t)all.blocks * sizeof *all.hash);
    unlink(other);
    bcop_seal_free(&all);
    bcop_seal_free(&one);
}

static void flip(long at) {
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    fseek(file, at, SEEK_SET);
    const int byte = getc(file);
    fseek(file, at, SEEK_SET);
    putc(byte ^ 0x10, file);
    fclose(file);
}

static void check_flip(const bcop_seal *seal, long at) {
    flip(at);
    assert_int_equal(bcop_seal_check(path, seal, true, NULL, NULL), BCOP_BAD_DATA);
    flip(at);
}

static bool only_first(const void *context, long block) {
    (void)context;
    return block == 0;
}

/* Rank 0 alone. */
static void damage(const bcop_seal *seal) {
    assert_int_equal(bcop_seal_check(path, seal, true, NULL, NULL), BCOP_OK);
    for (long at = 0; at < seal->bytes; at += 9973)
        check_flip(seal, at);
    for (int i = 0; i < FIELDS; i++) {
        if (bytes_of[i] == 0)
            continue;
        const long first = seal->array[i].offset, last = first + bytes_of[i] - 1;
        check_flip(seal, first - 1);
        check_flip(seal, first);
        check_flip(seal, last);
        if (last + 1 < seal->bytes)
            check_flip(seal, last + 1);
    }
    flip(seal->array[0].offset + (1 << 20));
    assert_int_equal(bcop_seal_check(path, seal, true, NULL, NULL), BCOP_BAD_DATA);
    assert_non_null(
        strstr(bcop_status_message(), "/a/large differs from its hash in bytes 1048576"));
    assert_int_equal(bcop_seal_check(path, seal, true, only_first, NULL), BCOP_OK);
    flip(seal->array[0].offset + (1 << 20));
    assert_int_equal(truncate(path, seal->bytes - 1), 0);
    assert_int_equal(bcop_seal_check(path, seal, true, NULL, NULL), BCOP_BAD_DATA);
    assert_int_equal(truncate(path, seal->bytes + 1), 0);
    assert_int_equal(bcop_seal_check(path, seal, true, NULL, NULL), BCOP_BAD_DATA);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(bcop_seal_check(path, seal, true, NULL, NULL), BCOP_NO_INPUT);
}

static void test_every_change_is_seen(void **state) {
    (void)state;
    bcop_seal seal;
    write_sealed(&comm, path, &seal);
    if (comm.rank == 0)
        damage(&seal);
    bcop_seal_free(&seal);
}

static int next_file(void **state) {
    static int count;
    (void)state;
    MPI_Barrier(comm.handle);
    snprintf(path + strcspn(path, "/"), 24, "/%d.h5", count++);
    return 0;
}

int main(void) {
    if (bcop_comm_open(&comm) != BCOP_OK)
        return 1;
    strcpy(path, "test_seal.XXXXXX");
    if (comm.rank == 0 && !mkdtemp(path))
        return 1;
    bcop_comm_broadcast(&comm, path, sizeof path, 0);
    fill_table();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_hashes_are_of_slices, next_file),
        cmocka_unit_test_setup(test_structure_is_the_rest, next_file),
        cmocka_unit_test_setup(test_ranks_do_not_show, next_file),
        cmocka_unit_test_setup(test_every_change_is_seen, next_file),
    };
    int failed = cmocka_run_group_tests_name("seal", tests, NULL, NULL);
    MPI_Allreduce(MPI_IN_PLACE, &failed, 1, MPI_INT, MPI_MAX, comm.handle);
    for (int i = 0; i < 4 && comm.rank == 0; i++) {
        snprintf(path + strcspn(path, "/"), 24, "/%d.h5", i);
        unlink(path);
    }
    path[strcspn(path, "/")] = '\0';
    if (comm.rank == 0)
        rmdir(path);
    for (int i = 0; i < FIELDS; i++)
        free(table[i].data);
    bcop_comm_close(&comm);
    return failed != 0;
}
