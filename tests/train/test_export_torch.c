/* run: serial */
/* Every kind of layer has a form in PyTorch; one without is refused by name. */
#include "nn_fixture.h"
#include "train/export_torch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const nn_setting setting = {
    .list = "[maxmin, dense: {units: 3}]", .in = {1, 1, 4}, .classes = 3, .evaluating = true};

static void every_kind_has_a_form(void **state) {
    (void)state;
    for (int i = 0; bcop_layer_kinds[i]; i++) {
        const char *torch = bcop_layer_kinds[i]->torch;
        if (!torch)
            fail_msg("%s", bcop_layer_kinds[i]->name);
        assert_true(strlen(torch) > 0 && torch[strlen(torch) - 1] == '\n');
        assert_non_null(strstr(torch, "return "));
    }
}

static void a_kind_without_a_form_is_refused(void **state) {
    (void)state;
    nn_fixture f = nn_fixture_open(&setting, 1);
    assert_int_equal(bcop_export_torch_check(f.model), BCOP_OK);
    bcop_layer_kind other = *f.model->layer[1].kind;
    other.torch = NULL;
    f.model->layer[1].kind = &other;
    assert_int_equal(bcop_export_torch_check(f.model), BCOP_BAD_DATA);
    assert_non_null(strstr(bcop_status_message(), "01-dense"));
    nn_fixture_close(&f);
}

/* Names are quoted, and only the reader that is needed is there. */
static void texts_are_quoted(void **state) {
    (void)state;
    nn_fixture f = nn_fixture_open(&setting, 1);
    for (int hdf5 = 0; hdf5 < 2; hdf5++) {
        char *text = NULL;
        size_t size;
        FILE *out = open_memstream(&text, &size);
        assert_non_null(out);
        bcop_export_torch_write(&(bcop_export_torch){.model = f.model,
                                                     .name = "net",
                                                     .origin = "Here.",
                                                     .file = "a\"\\b.h5",
                                                     .hdf5 = hdf5},
                                out);
        assert_int_equal(fclose(out), 0);
        assert_non_null(strstr(text, "FILE = \"a\\\"\\\\b.h5\"\n"));
        assert_true((strstr(text, "import h5py") != NULL) == hdf5);
        assert_true((strstr(text, "import json") == NULL) == hdf5);
        assert_non_null(strstr(text, "Dense(tensors, \"layers.01-dense\", {\"units\": 3, "));
        free(text);
    }
    nn_fixture_close(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_has_a_form),
        cmocka_unit_test(a_kind_without_a_form_is_refused),
        cmocka_unit_test(texts_are_quoted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
