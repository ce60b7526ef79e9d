/* run: serial */
#include "ckpt/manifest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>
#include <dirent.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "test_manifest.XXXXXX";
static char name[64];

/* The text of the format's description, from which the malformed ones are made. */
static const char good[] =
    "{\"format\": \"bcop-checkpoint\", \"version\": 1, \"step\": 1234, \"epoch\": 3,\n"
    " \"created\": \"2026-11-23T09:26:19Z\", \"software\": \"bcop 0.1.0\",\n"
    " \"config\": \"0123456789abcdef\", \"data_fingerprint\": \"00000000deadbeef\",\n"
    " \"provenance\": {\"host\": \"node1\", \"job\": null, \"ranks\": 4, \"threads\": 1,\n"
    " \"cpu\": \"A CPU\", \"blas\": \"OpenBLAS\", \"mpi\": \"Open MPI\", \"hdf5\": \"1.10.8\"},\n"
    " \"files\": {\"state.h5\": {\"bytes\": 4505602048, \"structure\": \"00000000000000aa\"}},\n"
    " \"block_bytes\": 1048576,\n"
    " \"hashes\": {\"/layers/00-conv/kernel\": [\"2d06800538d394c2\"], \"/sampler/x\": "
    "[\"ffffffffffffffff\", \"0000000000000001\"]},\n"
    " \"places\": {\"/layers/00-conv/kernel\": [2048, 96], \"/sampler/x\": [4096, 1048577]}}\n";

static bcop_status parse(const char *text, bcop_manifest *manifest) {
    return bcop_manifest_parse("M.json", text, (long)strlen(text), manifest);
}

static void put_file(const char *text, size_t bytes) {
    FILE *f = fopen(name, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, bytes, f), bytes);
    assert_int_equal(fclose(f), 0);
}

static int files_in_folder(void) {
    DIR *d = opendir(folder);
    int count = 0;
    assert_non_null(d);
    for (const struct dirent *e; (e = readdir(d));)
        count += e->d_name[0] != '.';
    closedir(d);
    return count;
}

static void test_parses_the_described_form(void **state) {
    (void)state;
    bcop_manifest m;
    assert_int_equal(parse(good, &m), BCOP_OK);
    assert_int_equal(m.step, 1234);
    assert_int_equal(m.epoch, 3);
    assert_string_equal(m.created, "2026-11-23T09:26:19Z");
    assert_string_equal(m.software, "bcop 0.1.0");
    assert_true(m.data_fingerprint == 0xdeadbeef);
    assert_true(m.config == 0x0123456789abcdef);
    assert_string_equal(m.origin.host, "node1");
    assert_string_equal(m.origin.job, "");
    assert_string_equal(m.origin.cpu, "A CPU");
    assert_string_equal(m.origin.hdf5, "1.10.8");
    assert_int_equal(m.origin.ranks, 4);
    assert_true(m.seal.bytes == 4505602048 && m.seal.structure == 0xaa);
    assert_int_equal(m.seal.count, 2);
    assert_string_equal(m.seal.array[0].path, "/layers/00-conv/kernel");
    assert_true(m.seal.array[0].offset == 2048 && m.seal.array[0].bytes == 96);
    assert_string_equal(m.seal.array[1].path, "/sampler/x");
    assert_true(m.seal.array[1].first == 1 && m.seal.blocks == 3);
    assert_true(m.seal.hash[0] == 0x2d06800538d394c2);
    assert_true(m.seal.hash[1] == UINT64_MAX && m.seal.hash[2] == 1);
    bcop_manifest_free(&m);
    assert_null(m.seal.array);
}

/* Each case replaces one piece of the good text; the message names the file and the field. */
static void test_refuses_malformed(void **state) {
    (void)state;
    static const struct {
        const char *piece, *instead, *in_message;
    } bad[] = {
        {"bcop-checkpoint", "bcop-checkpoin", "format"},
        {"bcop-checkpoint", "bcop-checkpoints", "format"},
        {"\"bcop-checkpoint\"", "1", "format"},
        {"\"format\"", "\"Format\"", "format"},
        {"\"version\": 1", "\"version\": 2", "version"},
        {"\"version\": 1", "\"version\": \"1\"", "version"},
        {"\"version\": 1", "\"version\": 1.0", "version"},
        {"1234", "-1", "step"},
        {"1234", "12.5", "step"},
        {"1234", "9223372036854775808", "integer"},
        {"1234", "null", "step"},
        {"\"epoch\": 3", "\"step\": 3", "duplicate"},
        {"\"epoch\": 3,", "", "epoch"},
        {"19Z", "19", "created"},
        {"19Z", "19ZZ", "created"},
        {"2026-11", "2026/11", "created"},
        {"09:26", "09:2x", "created"},
        {"\"bcop 0.1.0\"", "[\"bcop\"]", "software"},
        {"00000000deadbeef", "0000000deadbeef", "data_fingerprint"},
        {"00000000deadbeef", "00000000DEADBEEF", "data_fingerprint"},
        {"00000000deadbeef", "-0000000deadbeef", "data_fingerprint"},
        {"\"00000000deadbeef\"", "3735928559", "data_fingerprint"},
        {"4505602048", "-4505602048", "state.h5"},
        {"\"bytes\"", "\"Bytes\"", "state.h5"},
        {"\"bytes\": 4505602048, \"str", "\"str", "state.h5"},
        {"00000000000000aa", "00000000000000a", "structure"},
        {"1048576,", "1048577,", "block_bytes"},
        {"0123456789abcdef", "0123456789abcdeF", "config"},
        {"\"job\": null", "\"job\": 4711", "job"},
        {"\"ranks\": 4", "\"ranks\": \"4\"", "ranks"},
        {"\"cpu\": \"A CPU\",", "", "cpu"},
        {"[2048, 96]", "[2048]", "/layers/00-conv/kernel"},
        {"[2048, 96]", "[-1, 96]", "/layers/00-conv/kernel"},
        {"[2048, 96]", "[4505602048, 96]", "/layers/00-conv/kernel"},
        {"[4096, 1048577]", "[4096, 1048576]", "/sampler/x"},
        {"[4096, 1048577]", "[4096, 9223372036854775807]", "/sampler/x"},
        {", \"/sampler/x\": [4096, 1048577]", "", "places"},
        {"\"/sampler/x\": [4096", "\"/sampler/y\": [4096", "/sampler/x"},
        {"state.h5", "state.h6", "state.h5"},
        {"{\"state.h5\": {\"bytes\": 4505602048, \"structure\": \"00000000000000aa\"}}", "[]",
         "state.h5"},
        {"\"hashes\": {", "\"hushes\": {", "hashes"},
        {"2d06800538d394c2", "2d06800538d394c", "/layers/00-conv/kernel"},
        {"2d06800538d394c2", " 2d06800538d394c", "/layers/00-conv/kernel"},
        {"\"2d06800538d394c2\"", "2", "/layers/00-conv/kernel"},
        {"[\"2d06800538d394c2\"]", "\"2d06800538d394c2\"", "/layers/00-conv/kernel"},
        {"/sampler/x", "sampler/x", "sampler/x"},
        {"/sampler/x", "", "hashes"},
        {"/sampler/x", "/layers/00-conv/kernel", "duplicate"},
        {"/sampler/x", "/\\u0000", "\\u0000"},
        {"bcop 0.1.0", "\xff", "decode"},
        {"}}\n", "}", "expected"},
        {"}}\n", "}}}", "end of file"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[2048];
        const char *at = strstr(good, bad[i].piece);
        assert_non_null(at);
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - good), good, bad[i].instead,
                 at + strlen(bad[i].piece));
        bcop_manifest m;
        if (parse(text, &m) != BCOP_BAD_DATA)
            fail_msg("accepted: %s", text);
        assert_null(m.seal.array);
        if (strncmp(bcop_status_message(), "M.json:", 7) != 0 ||
            !strstr(bcop_status_message(), bad[i].in_message))
            fail_msg("case %zu: message: %s", i, bcop_status_message());
    }
}

static void test_refuses_other_documents(void **state) {
    (void)state;
    static const char *const text[] = {"",   " ",    "[]",          "1",
                                       "{}", "null", "{\"format\"", "\x89HDF\r\n"};
    for (size_t i = 0; i < sizeof text / sizeof *text; i++) {
        bcop_manifest m;
        assert_int_equal(parse(text[i], &m), BCOP_BAD_DATA);
        assert_null(m.seal.array);
    }
    /* Deep nesting must not exhaust the stack. */
    char *deep = malloc(1000001);
    assert_non_null(deep);
    memset(deep, '[', 1000000);
    deep[1000000] = '\0';
    bcop_manifest m;
    assert_int_equal(parse(deep, &m), BCOP_BAD_DATA);
    free(deep);
}

/* `good` with every `piece` replaced. */
static void replace_all(char text[4096], const char *piece, const char *instead) {
    size_t used = 0;
    for (const char *at = good; *at;) {
        const bool here = strncmp(at, piece, strlen(piece)) == 0;
        used +=
            (size_t)snprintf(text + used, 4096 - used, here ? "%s" : "%.1s", here ? instead : at);
        at += here ? strlen(piece) : 1;
    }
}

static void test_long_texts_and_paths(void **state) {
    (void)state;
    static const struct {
        const char *piece;
        size_t most;
    } limit[] = {{"bcop 0.1.0", 79}, {"/sampler/x", 159}};
    for (int i = 0; i < 2; i++)
        for (size_t over = 0; over < 2; over++) {
            char text[4096], filling[200] = "/";
            memset(filling + 1, 'x', limit[i].most + over - 1);
            replace_all(text, limit[i].piece, filling);
            bcop_manifest m;
            assert_int_equal(parse(text, &m), over ? BCOP_BAD_DATA : BCOP_OK);
            bcop_manifest_free(&m);
        }
}

/* Its seal belongs to the caller's memory. */
static bcop_manifest sample(bcop_seal_array array[2], uint64_t hash[2]) {
    array[0] = (bcop_seal_array){.path = "/z", .offset = 8, .bytes = 4};
    array[1] = (bcop_seal_array){.path = "/a/\xc3\xa9\"\\", .offset = 16, .bytes = 8, .first = 1};
    hash[0] = 1;
    hash[1] = 0xfedcba9876543210;
    return (bcop_manifest){
        .step = 7,
        .epoch = 0,
        .created = "2026-01-02T03:04:05Z",
        .software = "bcop \"x\"",
        .config = 5,
        .data_fingerprint = 0xabc,
        .origin = {.host = "h", .job = "12", .cpu = "\"c\"", .ranks = 3, .threads = 2},
        .seal = {
            .bytes = 99, .structure = 77, .count = 2, .array = array, .blocks = 2, .hash = hash}};
}

static void test_file_round_trip(void **state) {
    (void)state;
    bcop_seal_array entry[2];
    uint64_t hash[2];
    const bcop_manifest m = sample(entry, hash);
    assert_int_equal(bcop_manifest_write(folder, &m), BCOP_OK);
    assert_int_equal(files_in_folder(), 1);

    /* What another JSON reader sees. */
    json_t *root = json_load_file(name, 0, NULL);
    const char *format, *fingerprint, *first;
    int version, step, epoch, bytes;
    assert_non_null(root);
    assert_int_equal(json_unpack(root, "{ss si si si s{s{si}} ss s{s[s]}}", "format", &format,
                                 "version", &version, "step", &step, "epoch", &epoch, "files",
                                 "state.h5", "bytes", &bytes, "data_fingerprint", &fingerprint,
                                 "hashes", "/z", &first),
                     0);
    assert_string_equal(format, "bcop-checkpoint");
    assert_true(version == 1 && step == 7 && epoch == 0 && bytes == 99);
    assert_string_equal(fingerprint, "0000000000000abc");
    assert_string_equal(first, "0000000000000001");
    json_decref(root);

    bcop_manifest back;
    assert_int_equal(bcop_manifest_read(folder, &back), BCOP_OK);
    assert_int_equal(back.step, 7);
    assert_string_equal(back.software, m.software);
    assert_string_equal(back.created, m.created);
    assert_string_equal(back.origin.job, "12");
    assert_int_equal(back.origin.threads, 2);
    assert_true(back.seal.structure == 77);
    assert_int_equal(back.seal.count, 2);
    for (int i = 0; i < 2; i++) {
        assert_string_equal(back.seal.array[i].path, entry[i].path);
        assert_true(back.seal.array[i].offset == entry[i].offset);
        assert_true(back.seal.hash[i] == hash[i]);
    }
    bcop_manifest_free(&back);
}

static void test_writing_replaces(void **state) {
    (void)state;
    bcop_seal_array entry[2];
    uint64_t hash[2];
    bcop_manifest m = sample(entry, hash), back;
    put_file("old", 3);
    m.step = 8;
    m.seal.count = 0;
    assert_int_equal(bcop_manifest_write(folder, &m), BCOP_OK);
    assert_int_equal(files_in_folder(), 1);
    assert_int_equal(bcop_manifest_read(folder, &back), BCOP_OK);
    assert_int_equal(back.step, 8);
    assert_int_equal(back.seal.count, 0);
    bcop_manifest_free(&back);
}

static void test_refuses_to_write_nonsense(void **state) {
    (void)state;
    bcop_seal_array entry[2];
    uint64_t hash[2];
    bcop_manifest m = sample(entry, hash);
    put_file("old", 3);
    m.step = -1;
    assert_int_equal(bcop_manifest_write(folder, &m), BCOP_INTERNAL);
    m = sample(entry, hash);
    memcpy(m.software, "\xff", 2);
    assert_int_equal(bcop_manifest_write(folder, &m), BCOP_INTERNAL);
    m = sample(entry, hash);
    entry[1] = entry[0];
    assert_int_equal(bcop_manifest_write(folder, &m), BCOP_INTERNAL);
    m = sample(entry, hash);
    m.created[0] = '\0';
    assert_int_equal(bcop_manifest_write(folder, &m), BCOP_INTERNAL);
    assert_int_equal(files_in_folder(), 1);
    struct stat about;
    assert_int_equal(stat(name, &about), 0);
    assert_int_equal(about.st_size, 3);
}

static void test_file_faults(void **state) {
    (void)state;
    bcop_seal_array entry[2];
    uint64_t hash[2];
    bcop_manifest m = sample(entry, hash), back;
    unlink(name);
    assert_int_equal(bcop_manifest_read(folder, &back), BCOP_NO_INPUT);
    assert_non_null(strstr(bcop_status_message(), name));
    assert_int_equal(bcop_manifest_write("test_manifest.none", &m), BCOP_CANNOT_CREATE);
    assert_int_equal(mkdir(name, 0700), 0);
    assert_int_equal(bcop_manifest_read(folder, &back), BCOP_BAD_DATA);
    assert_int_equal(bcop_manifest_write(folder, &m), BCOP_IO); /* rename onto a folder */
    assert_int_equal(files_in_folder(), 1);
    assert_int_equal(rmdir(name), 0);
    assert_int_equal(mkfifo(name, 0600), 0);
    assert_int_equal(bcop_manifest_read(folder, &back), BCOP_BAD_DATA);
    assert_int_equal(unlink(name), 0);
}

static char *read_manifest(long *bytes) {
    char *text = calloc(1, 1 << 16);
    FILE *f = fopen(name, "rb");
    assert_non_null(text);
    assert_non_null(f);
    *bytes = (long)fread(text, 1, 1 << 16, f);
    fclose(f);
    return text;
}

/* Every flipped bit and every lost end of the file is seen. */
static void test_checksum(void **state) {
    (void)state;
    bcop_seal_array entry[2];
    uint64_t hash[2];
    bcop_manifest m = sample(entry, hash), back;
    long bytes;
    assert_int_equal(bcop_manifest_write(folder, &m), BCOP_OK);
    char *text = read_manifest(&bytes);
    for (long bit = 0; bit < 8 * bytes; bit++) {
        text[bit / 8] = (char)(text[bit / 8] ^ 1 << bit % 8);
        if (bcop_manifest_checksum("M.json", text, bytes) != BCOP_BAD_DATA)
            fail_msg("bit %ld was not missed", bit);
        text[bit / 8] = (char)(text[bit / 8] ^ 1 << bit % 8);
    }
    for (long cut = 0; cut < bytes; cut++)
        assert_int_equal(bcop_manifest_checksum("M.json", text, cut), BCOP_BAD_DATA);
    assert_int_equal(bcop_manifest_checksum("M.json", text, bytes), BCOP_OK);
    text[10] ^= 1;
    put_file(text, (size_t)bytes);
    assert_int_equal(bcop_manifest_read(folder, &back), BCOP_BAD_DATA);
    assert_non_null(strstr(bcop_status_message(), "checksum"));
    free(text);
}

static void test_size_limit(void **state) {
    (void)state;
    const size_t limit = 4 << 20;
    char *text = malloc(limit + 1);
    assert_non_null(text);
    memset(text, ' ', limit + 1);
    memcpy(text, good, sizeof good - 1);
    bcop_manifest m;
    assert_int_equal(bcop_manifest_parse("M.json", text, (long)limit, &m), BCOP_OK);
    bcop_manifest_free(&m);
    put_file(text, limit + 1);
    assert_int_equal(bcop_manifest_read(folder, &m), BCOP_BAD_DATA);
    assert_non_null(strstr(bcop_status_message(), name));
    assert_non_null(strstr(bcop_status_message(), "larger"));
    free(text);
}

/* Whatever the length at which a file was cut, it is refused (white space at the end aside). */
static void test_truncated(void **state) {
    (void)state;
    for (long bytes = 0; bytes < (long)sizeof good - 2; bytes++) {
        bcop_manifest m;
        assert_int_equal(bcop_manifest_parse("M.json", good, bytes, &m), BCOP_BAD_DATA);
    }
}

int main(void) {
    if (!mkdtemp(folder))
        return 1;
    snprintf(name, sizeof name, "%s/MANIFEST.json", folder);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parses_the_described_form),
        cmocka_unit_test(test_refuses_malformed),
        cmocka_unit_test(test_refuses_other_documents),
        cmocka_unit_test(test_long_texts_and_paths),
        cmocka_unit_test(test_file_round_trip),
        cmocka_unit_test(test_writing_replaces),
        cmocka_unit_test(test_refuses_to_write_nonsense),
        cmocka_unit_test(test_file_faults),
        cmocka_unit_test(test_checksum),
        cmocka_unit_test(test_size_limit),
        cmocka_unit_test(test_truncated),
    };
    const int failed = cmocka_run_group_tests_name("manifest", tests, NULL, NULL);
    unlink(name);
    rmdir(folder);
    return failed != 0;
}
