/* run: serial */
#include "base/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

static bcop_config *parse(const char *yaml) {
    bcop_config *config = NULL;
    if (bcop_config_parse(yaml, strlen(yaml), "a.yaml", &config) != BCOP_OK)
        fail_msg("%s", bcop_status_message());
    return config;
}

static void refuse(const char *yaml, size_t length, const char *message) {
    bcop_config *config = (bcop_config *)1;
    assert_int_equal(bcop_config_parse(yaml, length, "a.yaml", &config), BCOP_CONFIG);
    assert_null(config);
    assert_string_equal(bcop_status_message(), message);
}

static const char EXAMPLE[] = "name: mnist-small\n"
                              "data:   {kind: mnist, dir: \"data/mnist\"}\n"
                              "model:\n"
                              "  - conv:   {channels: 16, kernel: 4}\n"
                              "  - maxmin: {}\n"
                              "  - dense:\n"
                              "      units: 10\n"
                              "  - maxmin:\n"
                              "evaluate: {eps: [0.3, 36/255]}\n";

static void check_node(const bcop_node *node, bcop_node_type type, int line, int column,
                       const char *path, const char *key, const char *text) {
    assert_non_null(node);
    assert_int_equal(node->type, type);
    assert_string_equal(node->origin, "a.yaml");
    assert_int_equal(node->line, line);
    assert_int_equal(node->column, column);
    assert_string_equal(node->path, path);
    if (key)
        assert_string_equal(node->key, key);
    else
        assert_null(node->key);
    if (text)
        assert_string_equal(node->text, text);
    else
        assert_null(node->text);
}

static void nodes_know_their_place(void **state) {
    (void)state;
    bcop_config *config = parse(EXAMPLE);
    const bcop_node *root = bcop_config_root(config);
    check_node(root, BCOP_NODE_MAP, 1, 1, "", NULL, NULL);
    assert_int_equal(root->count, 4);
    check_node(root->child[0], BCOP_NODE_SCALAR, 1, 1, "name", "name", "mnist-small");
    const bcop_node *data = bcop_config_find(root, "data");
    check_node(data, BCOP_NODE_MAP, 2, 1, "data", "data", NULL);
    check_node(bcop_config_find(data, "kind"), BCOP_NODE_SCALAR, 2, 10, "data.kind", "kind",
               "mnist");
    check_node(bcop_config_find(data, "dir"), BCOP_NODE_SCALAR, 2, 23, "data.dir", "dir",
               "data/mnist");
    assert_false(bcop_config_find(data, "kind")->quoted);
    assert_true(bcop_config_find(data, "dir")->quoted);
    const bcop_node *model = bcop_config_find(root, "model");
    assert_int_equal(model->count, 4);
    check_node(model->child[0], BCOP_NODE_MAP, 4, 5, "model[0]", NULL, NULL);
    const bcop_node *conv = bcop_config_find(model->child[0], "conv");
    check_node(bcop_config_find(conv, "kernel"), BCOP_NODE_SCALAR, 4, 28, "model[0].conv.kernel",
               "kernel", "4");
    check_node(bcop_config_find(model->child[1], "maxmin"), BCOP_NODE_MAP, 5, 5, "model[1].maxmin",
               "maxmin", NULL);
    check_node(bcop_config_find(bcop_config_find(model->child[2], "dense"), "units"),
               BCOP_NODE_SCALAR, 7, 7, "model[2].dense.units", "units", "10");
    check_node(bcop_config_find(model->child[3], "maxmin"), BCOP_NODE_SCALAR, 8, 5,
               "model[3].maxmin", "maxmin", "");
    const bcop_node *eps = bcop_config_find(bcop_config_find(root, "evaluate"), "eps");
    assert_int_equal(eps->count, 2);
    check_node(eps->child[1], BCOP_NODE_SCALAR, 9, 23, "evaluate.eps[1]", NULL, "36/255");
    bcop_config_free(config);
}

static void finding_in_no_map_gives_nothing(void **state) {
    (void)state;
    bcop_config *config = parse("a: [1]\nb: x\n");
    const bcop_node *root = bcop_config_root(config);
    assert_null(bcop_config_find(NULL, "a"));
    assert_null(bcop_config_find(root, "c"));
    assert_null(bcop_config_find(bcop_config_find(root, "a"), "0"));
    assert_null(bcop_config_find(bcop_config_find(root, "b"), "x"));
    bcop_config_free(config);
    bcop_config_free(NULL);
}

static void columns_count_characters(void **state) {
    (void)state;
    bcop_config *config = parse("a: {\xC3\xBC: 1, b: 2}\r\nc: 3\r\n");
    const bcop_node *root = bcop_config_root(config);
    assert_int_equal(bcop_config_find(bcop_config_find(root, "a"), "b")->column, 11);
    assert_int_equal(bcop_config_find(root, "c")->line, 2);
    bcop_config_free(config);
}

static void hostile_documents_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *yaml, *message;
    } cases[] = {
        {"", "a.yaml:1:1: the configuration is empty"},
        {"# nothing\n", "a.yaml:1:1: the configuration is empty"},
        {"---\n", "a.yaml:2:1: the configuration is empty"},
        {"- a\n", "a.yaml:1:1: the top level must be a map of keys to values"},
        {"just text\n", "a.yaml:1:1: the top level must be a map of keys to values"},
        {"''\n", "a.yaml:1:1: the top level must be a map of keys to values"},
        {"a: 1\n---\nb: 2\n", "a.yaml:2:1: more than one document"},
        {"a: 1\nb: {c: 2, d: 3}\nb: 4\n", "a.yaml:3:1: b: given twice (first in line 2)"},
        {"b: {c: 2,\n  c: 3}\n", "a.yaml:2:3: b.c: given twice (first in line 1)"},
        {"b: {c: 2,\n  \"c\": 3}\n", "a.yaml:2:3: b.c: given twice (first in line 1)"},
        {"a: &x 1\n",
         "a.yaml:1:4: a: an anchor (&) is not allowed; a text that begins with & needs quotes"},
        {"a: &x {b: 1}\n",
         "a.yaml:1:4: a: an anchor (&) is not allowed; a text that begins with & needs quotes"},
        {"a: &x [1]\n",
         "a.yaml:1:4: a: an anchor (&) is not allowed; a text that begins with & needs quotes"},
        {"&x a: 1\n",
         "a.yaml:1:1: an anchor (&) is not allowed; a text that begins with & needs quotes"},
        {"a: 1\nb: *a\n",
         "a.yaml:2:4: b: an alias (*) is not allowed; a text that begins with * needs quotes"},
        {"a: !!str 1\n",
         "a.yaml:1:4: a: a tag (!) is not allowed; a text that begins with ! needs quotes"},
        {"a: [x, !!int 1]\n",
         "a.yaml:1:8: a: a tag (!) is not allowed; a text that begins with ! needs quotes"},
        {"\xC3\xBC: \xC3\xBC\r\na: ! 1\n",
         "a.yaml:2:4: a: a tag (!) is not allowed; a text that begins with ! needs quotes"},
        {"a: ! \"1\"\n",
         "a.yaml:1:4: a: a tag (!) is not allowed; a text that begins with ! needs quotes"},
        {"a: !map {b: 1}\n",
         "a.yaml:1:4: a: a tag (!) is not allowed; a text that begins with ! needs quotes"},
        {"a: ! [1]\n",
         "a.yaml:1:4: a: a tag (!) is not allowed; a text that begins with ! needs quotes"},
        {"!!map {b: 1}\n",
         "a.yaml:1:1: a tag (!) is not allowed; a text that begins with ! needs quotes"},
        {"%YAML 1.1\n---\na: 1\n", "a.yaml:1:1: a line must not begin with %"},
        {"%TAG ! tag:x,2000:\n---\na: 1\n", "a.yaml:1:1: a line must not begin with %"},
        {"a: 5%\nb: \xC3\xA8%\n%x\n", "a.yaml:3:1: a line must not begin with %"},
        {"a: \"\xE2\x80\xA8%\"\n", "a.yaml:1:6: a line must not begin with %"},
        {"a: 5%\nb: \xC3\xA8%\nc: x%\n", NULL},
        {"a:\n  ? [1, 2]\n  : 3\n", "a.yaml:2:5: a: a key must not be a list or a map"},
        {"{{a: 1}: 2}\n", "a.yaml:1:2: a key must not be a list or a map"},
        {"a: \"x\\0y\"\n", "a.yaml:1:4: a: a NUL character is not allowed"},
        {"\"\\0\": 1\n", "a.yaml:1:1: a NUL character is not allowed"},
        {"a: {b: {c: {d: {e: {f: {g: {h: 1}}}}}}}\n", NULL}, /* depth 8 is fine */
        {"a: {b: {c: {d: {e: {f: {g: {h: []}}}}}}}\n",
         "a.yaml:1:32: a.b.c.d.e.f.g.h: nested deeper than 8"},
        {"a: [[[[[[[[[[[[[[1]]]]]]]]]]]]]]\n",
         "a.yaml:1:11: a[0][0][0][0][0][0][0]: nested deeper than 8"},
        {"\"a\\e[31m\": 1\n\"a\\e[31m\": 2\n", "a.yaml:2:1: a?[31m: given twice (first in line 1)"},
    };
    for (int i = 0; i < COUNT(cases); i++)
        if (cases[i].message)
            refuse(cases[i].yaml, strlen(cases[i].yaml), cases[i].message);
        else
            bcop_config_free(parse(cases[i].yaml));
}

/* libyaml's own words may change with its version; the place may not. */
static void syntax_errors_name_their_place(void **state) {
    (void)state;
    static const struct {
        const char *yaml, *place;
        size_t length;
    } cases[] = {
        {"a: 'x\n", "a.yaml:2:1: ", 0},
        {"a: {b: 1\n", "a.yaml:2:1: ", 0},
        {"a: 1\nb: @x\n", "a.yaml:2:4: ", 0},
        {"a:\n\tb: 1\n", "a.yaml:2:1: ", 0},
        {"a: 1\n b: 2\n", "a.yaml:2:3: ", 0},
        {"a: \"\\q\"\n", "a.yaml:1:5: ", 0},
        {"a: 1\nb: \xFF\n", "a.yaml:2:4: ", 0},
        {"\xC3\xBC: \xC3(\n", "a.yaml:1:5: ", 0},
        {"a: \x01\n", "a.yaml:1:4: ", 0},
        {"a: x\0y\n", "a.yaml:1:5: ", 8},
        {"a: \xED\xA0\x80\n", "a.yaml:1:4: ", 0},
        {"\xFF\xFE"
         "a\0:\0",
         "a.yaml:1:1: ", 6}, /* UTF-16 */
    };
    for (int i = 0; i < COUNT(cases); i++) {
        bcop_config *config;
        const size_t length = cases[i].length ? cases[i].length : strlen(cases[i].yaml);
        const bcop_status status = bcop_config_parse(cases[i].yaml, length, "a.yaml", &config);
        assert_int_equal(status, BCOP_CONFIG);
        const size_t place = strlen(cases[i].place);
        if (strncmp(bcop_status_message(), cases[i].place, place) != 0)
            fail_msg("case %d: %s", i, bcop_status_message());
        assert_true(strlen(bcop_status_message()) > place + 10);
    }
}

static void sizes_are_limited(void **state) {
    (void)state;
    enum { MIB = 1 << 20 };
    char *text = malloc(MIB + 1);
    assert_non_null(text);
    memset(text, '#', MIB + 1);
    memcpy(text, "a: 1\n", 5);
    bcop_config *config;
    assert_int_equal(bcop_config_parse(text, MIB, "a.yaml", &config), BCOP_OK);
    bcop_config_free(config);
    refuse(text, MIB + 1, "a.yaml:1:1: larger than 1 MiB (1048577 bytes)");

    memset(text, 'k', 65);
    memcpy(text + 64, ": 1\n", 5);
    bcop_config_free(parse(text));
    memcpy(text + 65, ": 1\n", 5);
    text[64] = 'k';
    refuse(text, strlen(text), "a.yaml:1:1: a key is longer than 64 bytes");

    /* The root and the list are nodes too. */
    strcpy(text, "a: [");
    for (int i = 0; i < 9998; i++)
        strcat(text + 2 * i, "1,");
    strcat(text, "]\n");
    config = parse(text);
    assert_int_equal(bcop_config_root(config)->child[0]->count, 9998);
    bcop_config_free(config);
    strcpy(strchr(text, ']'), "1]\n");
    refuse(text, strlen(text), "a.yaml:1:20001: a[9998]: more than 10000 values");
    free(text);
}

static const bcop_node *get(const bcop_config *config, const char *section, const char *key) {
    return bcop_config_find(bcop_config_find(bcop_config_root(config), section), key);
}

static void assign(bcop_config *config, const char *assignment) {
    if (bcop_config_set(config, assignment) != BCOP_OK)
        fail_msg("%s", bcop_status_message());
}

static void assignments_replace_and_add(void **state) {
    (void)state;
    bcop_config *config = parse(EXAMPLE);
    const bcop_node *root = bcop_config_root(config);
    const bcop_node *model = bcop_config_find(root, "model");

    assign(config, "name=a=b");
    assert_string_equal(bcop_config_find(root, "name")->text, "a=b");
    assert_string_equal(bcop_config_find(root, "name")->key, "name");
    assign(config, "data.dir='1'");
    assert_string_equal(get(config, "data", "dir")->text, "1");
    assert_true(get(config, "data", "dir")->quoted);
    assert_int_equal(bcop_config_find(root, "data")->count, 2);
    assign(config, "data.holdout=5000");
    assert_int_equal(bcop_config_find(root, "data")->count, 3);
    assert_string_equal(get(config, "data", "holdout")->path, "data.holdout");
    assert_string_equal(get(config, "data", "holdout")->origin, "--set");
    assert_int_equal(get(config, "data", "holdout")->line, 0);

    assign(config, "model[0].conv.kernel=3");
    const bcop_node *conv = bcop_config_find(model->child[0], "conv");
    assert_string_equal(bcop_config_find(conv, "kernel")->text, "3");
    assert_string_equal(bcop_config_find(conv, "kernel")->path, "model[0].conv.kernel");
    assert_string_equal(bcop_config_find(conv, "channels")->text, "16");
    assign(config, "model[3].maxmin.groups=2"); /* `maxmin:` becomes a map */
    const bcop_node *maxmin = bcop_config_find(model->child[3], "maxmin");
    assert_int_equal(maxmin->type, BCOP_NODE_MAP);
    assert_string_equal(bcop_config_find(maxmin, "groups")->text, "2");

    assign(config, "evaluate.eps=[0.1,  0.2, 72/255]");
    const bcop_node *eps = get(config, "evaluate", "eps");
    assert_int_equal(eps->count, 3);
    assert_string_equal(eps->child[2]->text, "72/255");
    assert_string_equal(eps->child[2]->path, "evaluate.eps[2]");
    assert_string_equal(eps->child[2]->origin, "--set");
    assign(config, "evaluate.eps[1]=0.5");
    assert_string_equal(get(config, "evaluate", "eps")->child[1]->text, "0.5");
    assert_null(get(config, "evaluate", "eps")->child[1]->key);

    assign(config, "train.deep.er=x");
    assert_string_equal(bcop_config_find(get(config, "train", "deep"), "er")->path,
                        "train.deep.er");
    assign(config, "name=");
    assert_string_equal(bcop_config_find(root, "name")->text, "");
    bcop_config_free(config);
}

static void wrong_assignments_change_nothing(void **state) {
    (void)state;
    static const struct {
        const char *assignment, *message;
    } cases[] = {
        {"name", "--set name: must have the form key.path=value"},
        {"=3", "--set =3: the part before = must be a path such as train.batch or "
               "model[2].conv.kernel"},
        {"a..b=3", "--set a..b=3: the part before = must be a path such as train.batch or "
                   "model[2].conv.kernel"},
        {"model[x]=3", "--set model[x]=3: the part before = must be a path such as train.batch or "
                       "model[2].conv.kernel"},
        {"model[-1]=3", "--set model[-1]=3: the part before = must be a path such as train.batch "
                        "or model[2].conv.kernel"},
        {"model[1=3", "--set model[1=3: the part before = must be a path such as train.batch or "
                      "model[2].conv.kernel"},
        {"model[0]conv=3", "--set model[0]conv=3: the part before = must be a path such as "
                           "train.batch or model[2].conv.kernel"},
        {"[0]=3", "--set [0]=3: the part before = must be a path such as train.batch or "
                  "model[2].conv.kernel"},
        {"a.b.c.d.e.f.g.h.i=1", "--set a.b.c.d.e.f.g.h.i=1: the part before = must be a path such "
                                "as train.batch or model[2].conv.kernel"},
        {"a.b.c.d.e.f.g.h=[1]", "--set a.b.c.d.e.f.g.h: nested deeper than 8"},
        {"model[4].conv=3", "--set model[4].conv: model has 4 elements, counted from 0"},
        {"one[7]=3", "--set one[7]: one has 1 element, counted from 0"},
        {"data[0]=3", "--set data[0]: data is not a list"},
        {"name[0]=3", "--set name[0]: name is not a list"},
        {"model.conv=3", "--set model.conv: model is not a map"},
        {"name.first=3", "--set name.first: name is not a map"},
        {"new[0].x=3", "--set new[0].x: there is no list new"},
        {"data={kind: x}", "--set data: the value must be a scalar or a list, not a map"},
        {"name=a: b", "--set name: the value must be a scalar or a list, not a map"},
        {"one=[{a: 1, a: 2}]", "--set one[0].a: given twice"},
        {"name=*x",
         "--set name: an alias (*) is not allowed; a text that begins with * needs quotes"},
        {"name=!!str x",
         "--set name: a tag (!) is not allowed; a text that begins with ! needs quotes"},
        {"name=%x", "--set name: a line must not begin with %"},
        {"name=a\n---\nb", "--set name: more than one document"},
    };
    for (int i = 0; i < COUNT(cases); i++) {
        bcop_config *config =
            parse("name: n\ndata: {kind: mnist}\nmodel: [a, b, c, d]\none: [1]\n");
        const bcop_node *root = bcop_config_root(config);
        assert_int_equal(bcop_config_set(config, cases[i].assignment), BCOP_CONFIG);
        assert_string_equal(bcop_status_message(), cases[i].message);
        assert_int_equal(root->count, 4);
        assert_string_equal(bcop_config_find(root, "name")->text, "n");
        assert_int_equal(bcop_config_find(root, "data")->count, 1);
        assert_int_equal(bcop_config_find(root, "one")->child[0]->type, BCOP_NODE_SCALAR);
        bcop_config_free(config);
    }
    bcop_config *config = parse("a: 1\n");
    assert_int_equal(bcop_config_set(config, "a=[1"), BCOP_CONFIG);
    assert_int_equal(strncmp(bcop_status_message(), "--set a: ", 9), 0);
    bcop_config_free(config);
}

static void complaints_name_the_place(void **state) {
    (void)state;
    bcop_config *config = parse("a: {b: 1}\n");
    assert_int_equal(bcop_config_fail(get(config, "a", "b"), "must be %d", 7), BCOP_CONFIG);
    assert_string_equal(bcop_status_message(), "a.yaml:1:5: a.b: must be 7");
    assert_int_equal(bcop_config_fail(bcop_config_root(config), "wrong"), BCOP_CONFIG);
    assert_string_equal(bcop_status_message(), "a.yaml:1:1: wrong");
    assign(config, "a.b=2");
    assert_int_equal(bcop_config_fail(get(config, "a", "b"), "wrong"), BCOP_CONFIG);
    assert_string_equal(bcop_status_message(), "--set a.b: wrong");
    bcop_config_free(config);
}

static void suggestions_are_slips_only(void **state) {
    (void)state;
    static const char *const keys[] = {"kernel", "channels", "stride", "lr", "test", "text", NULL};
    static const struct {
        const char *word, *expected;
    } cases[] = {
        {"kernl", "kernel"},
        {"kenrel", "kernel"},
        {"kernels", "kernel"},
        {"krenle", "kernel"},
        {"chanels", "channels"},
        {"rl", "lr"},
        {"tset", "test"},
        {"texx", "text"},
        {"tesx", "test"},
        {"dropout", NULL},
        {"strides", "stride"},
        {"kxrxxl", NULL},
        {"l", NULL},
        {"", NULL},
        {"rate", NULL},
        {"kernel", "kernel"},
    };
    for (int i = 0; i < COUNT(cases); i++) {
        const char *got = bcop_config_suggest(cases[i].word, keys);
        if (cases[i].expected) {
            assert_non_null(got);
            assert_string_equal(got, cases[i].expected);
        } else if (got) {
            fail_msg("%s suggested for %s", got, cases[i].word);
        }
    }
    char huge[1000];
    memset(huge, 'k', sizeof huge - 1);
    huge[sizeof huge - 1] = 0;
    const char *const long_keys[] = {huge, NULL};
    assert_null(bcop_config_suggest(huge, keys));
    assert_null(bcop_config_suggest("kernel", long_keys));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nodes_know_their_place),
        cmocka_unit_test(finding_in_no_map_gives_nothing),
        cmocka_unit_test(columns_count_characters),
        cmocka_unit_test(hostile_documents_are_refused),
        cmocka_unit_test(syntax_errors_name_their_place),
        cmocka_unit_test(sizes_are_limited),
        cmocka_unit_test(assignments_replace_and_add),
        cmocka_unit_test(wrong_assignments_change_nothing),
        cmocka_unit_test(complaints_name_the_place),
        cmocka_unit_test(suggestions_are_slips_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
