/* run: serial */
#include "base/option.h"

#include <float.h>
#include <limits.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

typedef struct everything {
    int kernel, choice;
    long steps;
    double lr, share, free;
    bool bias;
    char dir[BCOP_TEXT_MAX], note[BCOP_TEXT_MAX];
    bcop_reals eps;
    bcop_texts files;
} everything;

#define AT(field) .offset = offsetof(everything, field)

static const bcop_option table[] = {
    {.key = "kernel",
     .type = BCOP_OPTION_INT,
     AT(kernel),
     .min = 1,
     .max = 7,
     .unit = "pixels",
     .help = "Side of the kernel"},
    {.key = "choice",
     .type = BCOP_OPTION_CHOICE,
     AT(choice),
     .choices = "none|flip|crop",
     .fallback = "flip",
     .help = "Augmentation"},
    {.key = "steps", .type = BCOP_OPTION_LONG, AT(steps), .fallback = "0", .help = "Any number"},
    {.key = "lr",
     .type = BCOP_OPTION_REAL,
     AT(lr),
     .open_min = true,
     .fallback = "1.0e-3",
     .help = "Step size"},
    {.key = "share",
     .type = BCOP_OPTION_REAL,
     AT(share),
     .max = 1,
     .open_min = true,
     .fallback = "1/2",
     .help = "A share"},
    {.key = "free",
     .type = BCOP_OPTION_REAL,
     AT(free),
     .fallback = "0.0",
     .unit = "minutes",
     .help = "Any real"},
    {.key = "bias", .type = BCOP_OPTION_BOOL, AT(bias), .fallback = "true", .help = "Add a bias"},
    {.key = "dir", .type = BCOP_OPTION_TEXT, AT(dir), .fallback = "data/mnist", .help = "Folder"},
    {.key = "note",
     .type = BCOP_OPTION_TEXT,
     AT(note),
     .empty = true,
     .fallback = "",
     .help = "Anything"},
    {.key = "eps",
     .type = BCOP_OPTION_REALS,
     AT(eps),
     .min = 0,
     .max = 10,
     .fallback = "[0.3, 36/255]",
     .help = "Radii"},
    {.key = "files",
     .type = BCOP_OPTION_TEXTS,
     AT(files),
     .empty = true,
     .fallback = "[]",
     .help = "Files"},
    {0},
};

static const bcop_option none[] = {{0}};

/* Reads the section `s` of the YAML text. */
static bcop_status read(const char *yaml, everything *e) {
    bcop_config *config = NULL;
    if (bcop_config_parse(yaml, strlen(yaml), "a.yaml", &config) != BCOP_OK)
        fail_msg("%s", bcop_status_message());
    const bcop_node *root = bcop_config_root(config);
    const bcop_options part[] = {{table, e}};
    memset(e, 0xA5, sizeof *e); /* what is not written shows */
    const bcop_status status = bcop_option_read(bcop_config_find(root, "s"), root, "s", 1, part);
    bcop_config_free(config);
    return status;
}

static void fallbacks_fill_what_is_missing(void **state) {
    (void)state;
    everything e;
    assert_int_equal(read("s: {kernel: 3}\n", &e), BCOP_OK);
    assert_int_equal(e.kernel, 3);
    assert_int_equal(e.choice, 1);
    assert_int_equal(e.steps, 0);
    assert_true(e.lr == 1e-3 && e.share == 0.5 && e.free == 0);
    assert_true(e.bias);
    assert_string_equal(e.dir, "data/mnist");
    assert_string_equal(e.note, "");
    assert_int_equal(e.eps.count, 2);
    assert_true(e.eps.value[0] == 0.3 && e.eps.value[1] == 36.0 / 255.0);
    assert_string_equal(e.eps.text[1], "36/255");
    assert_int_equal(e.files.count, 0);

    everything d = {.kernel = 42};
    bcop_option_default((bcop_options){table, &d});
    assert_int_equal(d.kernel, 42);
    d.kernel = 3;
    assert_null(bcop_option_differs(table, &d, &e));
}

static void every_type_is_read(void **state) {
    (void)state;
    everything e;
    assert_int_equal(read("s:\n"
                          "  kernel: +7\n"
                          "  choice: 'crop'\n"
                          "  steps: -9223372036854775808\n"
                          "  lr: 2.5e-1\n"
                          "  share: 3/4\n"
                          "  free: -1e3\n"
                          "  bias: false\n"
                          "  dir: \"a b\"\n"
                          "  note: |\n"
                          "    two\n"
                          "    lines\n"
                          "  eps: [0, 10, 1.0]\n"
                          "  files: [x.h5, '']\n",
                          &e),
                     BCOP_CONFIG);
    assert_string_equal(bcop_status_message(), "a.yaml:14:17: s.files[1]: must not be empty");
    assert_int_equal(
        read("s: {kernel: +7, choice: 'crop', steps: -9223372036854775808, lr: 2.5e-1, "
             "share: 3/4, free: -1e3, bias: false, dir: \"a b\", note: ' ', "
             "eps: [0, 10, 1.0], files: [x.h5, 3]}\n",
             &e),
        BCOP_OK);
    assert_int_equal(e.kernel, 7);
    assert_int_equal(e.choice, 2);
    assert_true(e.steps == LONG_MIN);
    assert_true(e.lr == 0.25 && e.share == 0.75 && e.free == -1000);
    assert_false(e.bias);
    assert_string_equal(e.dir, "a b");
    assert_string_equal(e.note, " ");
    assert_int_equal(e.eps.count, 3);
    assert_true(e.eps.value[0] == 0 && e.eps.value[1] == 10 && e.eps.value[2] == 1);
    assert_string_equal(e.eps.text[2], "1.0");
    assert_int_equal(e.files.count, 2);
    assert_string_equal(e.files.text[0], "x.h5");
    assert_string_equal(e.files.text[1], "3");
}

static void wrong_values_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *yaml, *message;
    } cases[] = {
        {"s: {kernl: 3}\n", "a.yaml:1:5: s.kernl: unknown key; did you mean 'kernel'?"},
        {"s: {kernel: 3,\n    zzzzzz: 3}\n",
         "a.yaml:2:5: s.zzzzzz: unknown key; known are kernel, choice, steps, lr, share, free, "
         "bias, dir, note, eps, files"},
        {"t: 1\n", "a.yaml:1:1: s: 'kernel' is required"},
        {"t: 1\ns:\n", "a.yaml:2:1: s: 'kernel' is required"},
        {"s: {lr: 1}\n", "a.yaml:1:1: s: 'kernel' is required"},
        {"s: 3\n", "a.yaml:1:1: s: must be a map (got '3')"},
        {"s: ''\n", "a.yaml:1:1: s: must be a map (got '' in quotes)"},
        {"s: [kernel]\n", "a.yaml:1:1: s: must be a map (got a list)"},
        {"s: {kernel: three}\n", "a.yaml:1:5: s.kernel: must be an integer (got 'three')"},
        {"s: {kernel: }\n", "a.yaml:1:5: s.kernel: must be an integer (got nothing)"},
        {"s: {kernel: '3'}\n", "a.yaml:1:5: s.kernel: must be an integer (got '3' in quotes)"},
        {"s: {kernel: [3]}\n", "a.yaml:1:5: s.kernel: must be an integer (got a list)"},
        {"s: {kernel: {}}\n", "a.yaml:1:5: s.kernel: must be an integer (got a map)"},
        {"s: {kernel: 1.0}\n", "a.yaml:1:5: s.kernel: must be an integer (got '1.0')"},
        {"s: {kernel: 0x3}\n", "a.yaml:1:5: s.kernel: must be an integer (got '0x3')"},
        {"s: {kernel: 3 4}\n", "a.yaml:1:5: s.kernel: must be an integer (got '3 4')"},
        {"s: {kernel: -}\n", "a.yaml:1:5: s.kernel: must be an integer (got '-')"},
        {"s: {kernel: 9}\n", "a.yaml:1:5: s.kernel: must be in 1..7 pixels (got 9)"},
        {"s: {kernel: 0}\n", "a.yaml:1:5: s.kernel: must be in 1..7 pixels (got 0)"},
        {"s: {kernel: 4294967299}\n",
         "a.yaml:1:5: s.kernel: must be in 1..7 pixels (got 4294967299)"},
        {"s: {steps: 9223372036854775808}\n",
         "a.yaml:1:5: s.steps: does not fit (got 9223372036854775808)"},
        {"s: {steps: 1e3}\n", "a.yaml:1:5: s.steps: must be an integer (got '1e3')"},
        {"s: {lr: 0}\n", "a.yaml:1:5: s.lr: must be above 0 (got 0)"},
        {"s: {lr: nan}\n", "a.yaml:1:5: s.lr: must be a number (got 'nan')"},
        {"s: {lr: .inf}\n", "a.yaml:1:5: s.lr: must be a number (got '.inf')"},
        {"s: {lr: 1e999}\n", "a.yaml:1:5: s.lr: must be a number (got '1e999')"},
        {"s: {lr: \"1\"}\n", "a.yaml:1:5: s.lr: must be a number (got '1' in quotes)"},
        {"s: {share: 0}\n", "a.yaml:1:5: s.share: must be above 0 and at most 1 (got 0)"},
        {"s: {share: 4/3}\n", "a.yaml:1:5: s.share: must be above 0 and at most 1 (got 4/3)"},
        {"s: {bias: yes}\n", "a.yaml:1:5: s.bias: must be true or false (got 'yes')"},
        {"s: {bias: True}\n", "a.yaml:1:5: s.bias: must be true or false (got 'True')"},
        {"s: {bias: 1}\n", "a.yaml:1:5: s.bias: must be true or false (got '1')"},
        {"s: {bias: 'true'}\n", "a.yaml:1:5: s.bias: must be true or false (got 'true' in quotes)"},
        {"s: {choice: flp}\n", "a.yaml:1:5: s.choice: must be one of none, flip, crop (got 'flp'); "
                               "did you mean 'flip'?"},
        {"s: {choice: rotate}\n",
         "a.yaml:1:5: s.choice: must be one of none, flip, crop (got 'rotate')"},
        {"s: {choice: 1}\n", "a.yaml:1:5: s.choice: must be one of none, flip, crop (got '1')"},
        {"s: {choice: [flip]}\n",
         "a.yaml:1:5: s.choice: must be one of none, flip, crop (got a list)"},
        {"s: {dir: }\n", "a.yaml:1:5: s.dir: must not be empty"},
        {"s: {dir: [a]}\n", "a.yaml:1:5: s.dir: must be a text (got a list)"},
        {"s: {eps: 0.3}\n", "a.yaml:1:5: s.eps: must be a list of numbers (got '0.3')"},
        {"s: {eps: []}\n", "a.yaml:1:5: s.eps: must have 1 to 32 elements (got 0)"},
        {"s: {eps: [1, x]}\n", "a.yaml:1:14: s.eps[1]: must be a number (got 'x')"},
        {"s: {eps: [1, 11]}\n", "a.yaml:1:14: s.eps[1]: must be in 0..10 (got 11)"},
        {"s: {eps: [1.00000000000000000000000000000000]}\n",
         "a.yaml:1:11: s.eps[0]: must be at most 31 characters long (got 34)"},
        {"s: {eps: [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]}\n",
         "a.yaml:1:5: s.eps: must have 1 to 32 elements (got 33)"},
        {"s: {files: [a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q]}\n",
         "a.yaml:1:5: s.files: must have 0 to 16 elements (got 17)"},
        {"s: {files: a.h5}\n", "a.yaml:1:5: s.files: must be a list of texts (got 'a.h5')"},
    };
    for (int i = 0; i < COUNT(cases); i++) {
        everything e;
        assert_int_equal(read(cases[i].yaml, &e), BCOP_CONFIG);
        assert_string_equal(bcop_status_message(), cases[i].message);
    }
}

static void texts_have_a_longest_length(void **state) {
    (void)state;
    char yaml[600] = "s: {kernel: 1, dir: ";
    const size_t start = strlen(yaml);
    everything e;
    memset(yaml + start, 'x', BCOP_TEXT_MAX);
    strcpy(yaml + start + BCOP_TEXT_MAX - 1, "}\n");
    assert_int_equal(read(yaml, &e), BCOP_OK);
    assert_int_equal(strlen(e.dir), BCOP_TEXT_MAX - 1);
    strcpy(yaml + start + BCOP_TEXT_MAX - 1, "x}\n");
    assert_int_equal(read(yaml, &e), BCOP_CONFIG);
    assert_string_equal(bcop_status_message(),
                        "a.yaml:1:16: s.dir: must be at most 511 bytes long (got 512)");
}

typedef struct half {
    int a;
} half;

static void sections_may_have_parts(void **state) {
    (void)state;
    static const bcop_option first[] = {
        {.key = "a", .type = BCOP_OPTION_INT, .offset = offsetof(half, a), .fallback = "1"}, {0}};
    static const bcop_option second[] = {
        {.key = "bb", .type = BCOP_OPTION_INT, .offset = offsetof(half, a)}, {0}};
    static const char yaml[] = "m:\n  - x: {a: 5, bb: 6}\n  - x: {cc: 1}\n  - x:\n";
    bcop_config *config;
    half one, two;
    const bcop_options part[] = {{first, &one}, {second, &two}};
    assert_int_equal(bcop_config_parse(yaml, strlen(yaml), "a.yaml", &config), BCOP_OK);
    const bcop_node *list = bcop_config_find(bcop_config_root(config), "m");
    const bcop_node *x[3];
    for (int i = 0; i < 3; i++)
        x[i] = bcop_config_find(list->child[i], "x");
    assert_int_equal(bcop_option_read(x[0], list->child[0], "x", 2, part), BCOP_OK);
    assert_int_equal(one.a, 5);
    assert_int_equal(two.a, 6);
    assert_int_equal(bcop_option_read(x[1], list->child[1], "x", 2, part), BCOP_CONFIG);
    assert_string_equal(bcop_status_message(),
                        "a.yaml:3:9: m[1].x.cc: unknown key; known are a, bb");
    assert_int_equal(bcop_option_read(x[2], list->child[2], "x", 2, part), BCOP_CONFIG);
    assert_string_equal(bcop_status_message(), "a.yaml:4:5: m[2].x: 'bb' is required");
    assert_int_equal(bcop_option_read(NULL, list->child[2], "y", 2, part), BCOP_CONFIG);
    assert_string_equal(bcop_status_message(), "a.yaml:4:5: m[2].y: 'bb' is required");
    one.a = 0;
    assert_int_equal(bcop_option_read(x[2], list->child[2], "x", 1, part), BCOP_OK);
    assert_int_equal(one.a, 1);
    const bcop_options empty[] = {{none, NULL}};
    assert_int_equal(bcop_option_read(x[2], list->child[2], "x", 1, empty), BCOP_OK);
    assert_int_equal(bcop_option_read(x[1], list->child[1], "x", 1, empty), BCOP_CONFIG);
    assert_string_equal(bcop_status_message(),
                        "a.yaml:3:9: m[1].x.cc: unknown key; no keys are known here");
    assert_int_equal(bcop_config_set(config, "m[0].x.bb=x"), BCOP_OK);
    assert_int_equal(bcop_option_read(x[0], list->child[0], "x", 2, part), BCOP_CONFIG);
    assert_string_equal(bcop_status_message(), "--set m[0].x.bb: must be an integer (got 'x')");
    bcop_config_free(config);
}

static void a_wrong_fallback_is_our_mistake(void **state) {
    (void)state;
    static const bcop_option bad[] = {
        {.key = "a", .type = BCOP_OPTION_INT, .min = 1, .max = 2, .fallback = "3"}, {0}};
    bcop_config *config;
    int target;
    const bcop_options part[] = {{bad, &target}};
    assert_int_equal(bcop_config_parse("b: 1", 4, "a.yaml", &config), BCOP_OK);
    assert_int_equal(bcop_option_read(NULL, bcop_config_root(config), "s", 1, part), BCOP_INTERNAL);
    bcop_config_free(config);
}

static void reals_are_decimals_and_fractions(void **state) {
    (void)state;
    static const struct {
        const char *text;
        double value;
    } good[] = {
        {"0", 0},          {"1", 1},        {"+1.5", 1.5},
        {"-2.", -2},       {".5", 0.5},     {"1e3", 1000},
        {"1.5E-2", 0.015}, {"2.0e+6", 2e6}, {"36/255", 36.0 / 255.0},
        {"-1/4", -0.25},   {"1.5/0.5", 3},  {"1e2/1e-1", 1000},
        {"007", 7},        {"0/3", 0},      {"0.00e5/3", 0},
    };
    static const char *const bad[] = {
        "",
        " ",
        "x",
        "1x",
        " 1",
        "1 ",
        ".",
        "-",
        "+",
        "e3",
        "1e",
        "1e+",
        "1/",
        "/2",
        "1/0",
        "1/0.0",
        "1//2",
        "1/2/3",
        "1/-2",
        "1 / 2",
        "nan",
        "inf",
        "-inf",
        ".inf",
        "1e400",
        "1e308/1e-308",
        "1e400/1e400",
        "1/1e400",
        "0x10",
        "1_000",
        "1,5",
        "--1",
        "1.2.3",
        "infinity",
        /* a quotient of decimals that have lost their digits could be anything */
        "3e-323/1e-322",
        "1e-400/1e-300",
        "-0.0001e-330/2",
        "1/1e-310",
    };
    for (int i = 0; i < COUNT(good); i++) {
        double value = -99;
        assert_true(bcop_option_parse_real(good[i].text, &value));
        assert_true(value == good[i].value);
    }
    for (int i = 0; i < COUNT(bad); i++) {
        double value;
        if (bcop_option_parse_real(bad[i], &value))
            fail_msg("'%s' was read as %g", bad[i], value);
    }
}

/* Writes e as a flow map, in a file like the ones the program writes. */
static char *written(everything *e) {
    char *yaml = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&yaml, &size);
    assert_non_null(out);
    const bcop_options part[] = {{table, e}};
    fputs("s: ", out);
    bcop_option_write(out, 1, part);
    fputs("\n", out);
    fclose(out);
    return yaml;
}

static void check_round_trip(everything *e) {
    everything back;
    char *yaml = written(e);
    if (read(yaml, &back) != BCOP_OK)
        fail_msg("%s\n%s", bcop_status_message(), yaml);
    const bcop_option *o = bcop_option_differs(table, e, &back);
    if (o)
        fail_msg("%s differs in %s", o->key, yaml);
    for (int i = 0; i < e->eps.count; i++)
        assert_string_equal(e->eps.text[i], back.eps.text[i]);
    free(yaml);
}

static void written_form_is_readable(void **state) {
    (void)state;
    everything e;
    assert_int_equal(read("s: {kernel: 3, lr: 1e-5, free: 2, note: 'yes', eps: [36/255, 1.580], "
                          "files: [a b, c.h5]}\n",
                          &e),
                     BCOP_OK);
    char *yaml = written(&e);
    assert_string_equal(yaml, "s: {kernel: 3, choice: flip, steps: 0, lr: 1.0e-05, share: 0.5, "
                              "free: 2.0, bias: true, dir: data/mnist, note: \"yes\", "
                              "eps: [36/255, 1.580], files: [\"a b\", c.h5]}\n");
    free(yaml);
}

static void numbers_survive_writing(void **state) {
    (void)state;
    static const double values[] = {0.1,     1.0 / 3, 2.0e-6,    1e22,        123456789012345678.0,
                                    DBL_MAX, DBL_MIN, 0x1p-1074, DBL_EPSILON, 1 + DBL_EPSILON,
                                    -0.3,    1e15,    1e16,      5e-324};
    everything e;
    assert_int_equal(read("s: {kernel: 3}\n", &e), BCOP_OK);
    for (int i = 0; i < COUNT(values); i++) {
        e.free = values[i];
        e.lr = fabs(values[i]);
        e.steps = i % 2 ? LONG_MAX - i : LONG_MIN + i;
        check_round_trip(&e);
    }
    uint64_t x = 1;
    for (int i = 0; i < 2000; i++) {
        /* A full-period generator over the bit patterns of finite doubles. */
        x = x * 6364136223846793005u + 1442695040888963407u;
        const uint64_t bits = x ^ x >> 31;
        double value;
        memcpy(&value, &bits, sizeof value);
        if (!isfinite(value))
            continue;
        e.free = value;
        check_round_trip(&e);
    }
}

static void texts_survive_writing(void **state) {
    (void)state;
    static const char *const texts[] = {
        "a",
        "a b",
        "",
        " ",
        " lead",
        "trail ",
        "true",
        "False",
        "null",
        "~",
        "no",
        "N",
        "3",
        "3.5",
        "-",
        "- a",
        "a: b",
        "a:",
        "a #b",
        "#",
        "[x]",
        "{x}",
        "a,b",
        "*x",
        "&x",
        "!x",
        "%x",
        "@x",
        "`x",
        "'",
        "\"",
        "a'b\"c",
        "\\",
        "\\n",
        "line\nbreak",
        "\n",
        "\t",
        "a\tb",
        "\r\n",
        "\x01",
        "\x1b[31m",
        "\x7f",
        "/abs/path",
        "./rel",
        "../up",
        "..",
        "---",
        "...",
        "m\xC3\xBC",
        "\xE2\x82\xAC",
        "\xF0\x9F\x98\x80",
        "\xC2\x85",
        "\xC2\x80",
        "\xC2\xA0",
        "\xE2\x80\xA8x",
        "\xE2\x80\xA9",
        "\xEF\xBB\xBF",
        "\xEF\xBF\xBF",
        "\xEF\xBF\xBE",
        "\xEE\x80\x80",
        "\xED\x9F\xBF",
        "\xF4\x8F\xBF\xBF",
        "?",
        "? a",
        "|",
        ">",
        "=",
        "<<",
    };
    everything e;
    assert_int_equal(read("s: {kernel: 3}\n", &e), BCOP_OK);
    for (int i = 0; i < COUNT(texts); i++) {
        strcpy(e.note, texts[i]);
        strcpy(e.dir, *texts[i] ? texts[i] : "d");
        e.files.count = 2;
        strcpy(e.files.text[0], e.dir);
        strcpy(e.files.text[1], "last");
        check_round_trip(&e);
    }
    /* Every byte below 128 and every code point of the two-byte range. */
    for (unsigned c = 1; c < 0x800; c++) {
        if (c < 0x80)
            snprintf(e.note, sizeof e.note, "x%c y", (int)c);
        else
            snprintf(e.note, sizeof e.note, "%c%c", (int)(0xC0 | c >> 6), (int)(0x80 | (c & 63)));
        check_round_trip(&e);
    }
    memset(e.note, '"', BCOP_TEXT_MAX - 1);
    e.note[BCOP_TEXT_MAX - 1] = 0;
    check_round_trip(&e);
}

static void differences_are_named(void **state) {
    (void)state;
    everything a, b;
    static const char *const changes[][2] = {
        {"kernel", "s: {kernel: 4}\n"},
        {"choice", "s: {kernel: 3, choice: none}\n"},
        {"steps", "s: {kernel: 3, steps: 1}\n"},
        {"lr", "s: {kernel: 3, lr: 1.0000000000000002e-3}\n"},
        {"bias", "s: {kernel: 3, bias: false}\n"},
        {"dir", "s: {kernel: 3, dir: data/mnis}\n"},
        {"eps", "s: {kernel: 3, eps: [0.3]}\n"},
        {"eps", "s: {kernel: 3, eps: [0.3, 37/255]}\n"},
        {"files", "s: {kernel: 3, files: [a]}\n"},
    };
    assert_int_equal(read("s: {kernel: 3}\n", &a), BCOP_OK);
    for (int i = 0; i < COUNT(changes); i++) {
        assert_int_equal(read(changes[i][1], &b), BCOP_OK);
        const bcop_option *o = bcop_option_differs(table, &a, &b);
        assert_non_null(o);
        assert_string_equal(o->key, changes[i][0]);
    }
    /* The same number typed in another way is no difference. */
    assert_int_equal(read("s: {kernel: 3, lr: 0.001, eps: [3e-1, 72/510]}\n", &b), BCOP_OK);
    assert_null(bcop_option_differs(table, &a, &b));
}

static void reference_is_yaml_with_comments(void **state) {
    (void)state;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    fputs("s:\n", out);
    bcop_option_reference(out, 2, table);
    fclose(out);
    assert_string_equal(text, "s:\n"
                              "  kernel: REQUIRED     # integer 1..7 pixels. Side of the kernel\n"
                              "  choice: flip         # one of none, flip, crop. Augmentation\n"
                              "  steps: 0             # integer. Any number\n"
                              "  lr: 1.0e-3           # number above 0. Step size\n"
                              "  share: 1/2           # number above 0 and at most 1. A share\n"
                              "  free: 0.0            # number (minutes). Any real\n"
                              "  bias: true           # true or false. Add a bias\n"
                              "  dir: data/mnist      # text. Folder\n"
                              "  note: \"\"             # text. Anything\n"
                              "  eps: [0.3, 36/255]   # list of numbers 0..10. Radii\n"
                              "  files: []            # list of texts. Files\n");
    char *required = strstr(text, "REQUIRED");
    memcpy(required, "3       ", 8);
    everything e, d = {.kernel = 3};
    assert_int_equal(read(text, &e), BCOP_OK);
    bcop_option_default((bcop_options){table, &d});
    assert_null(bcop_option_differs(table, &d, &e));
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fallbacks_fill_what_is_missing),
        cmocka_unit_test(every_type_is_read),
        cmocka_unit_test(wrong_values_are_refused),
        cmocka_unit_test(texts_have_a_longest_length),
        cmocka_unit_test(sections_may_have_parts),
        cmocka_unit_test(a_wrong_fallback_is_our_mistake),
        cmocka_unit_test(reals_are_decimals_and_fractions),
        cmocka_unit_test(written_form_is_readable),
        cmocka_unit_test(numbers_survive_writing),
        cmocka_unit_test(texts_survive_writing),
        cmocka_unit_test(differences_are_named),
        cmocka_unit_test(reference_is_yaml_with_comments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
