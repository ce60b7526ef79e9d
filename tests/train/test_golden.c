/* run: ranks 1 2 */
/* The checkpoint of every format version that the project ever fixed still loads, and the network
 * in it says what numpy said (checkpoints/FORMAT.md has the script that wrote logits.txt). */
#include "app/network.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static bcop_comm comm;

static void compare_logits(const char *folder) {
    char path[1024];
    bcop_network n;
    snprintf(path, sizeof path, "%s/images.h5", folder);
    if (bcop_network_open(&comm, folder, "test", path, &n) != BCOP_OK)
        fail_msg("%s", bcop_status_message());
    assert_true(n.snapshot.has_manifest);
    snprintf(path, sizeof path, "%s/logits.txt", folder);
    FILE *expected = fopen(path, "r");
    assert_non_null(expected);
    const long count = bcop_dataset_count(n.dataset);
    assert_true(count > 10);
    for (long i = 0; i < count; i++) {
        bcop_dataset_read(n.dataset, i, n.evaluator.x);
        const float *z = bcop_model_forward(n.model, 1, 0, n.evaluator.x);
        for (int k = 0; k < n.model->classes; k++) {
            double value;
            assert_int_equal(fscanf(expected, "%lf", &value), 1);
            if (!(fabs(value - (double)z[k]) < 1e-5))
                fail_msg("%s: image %ld, logit %d: %.9g, not %.9g", folder, i, k, (double)z[k],
                         value);
        }
    }
    fclose(expected);
    bcop_network_close(&n);
}

static void every_golden_checkpoint_loads(void **state) {
    (void)state;
    const char *source = getenv("BCOP_SOURCE_DIR");
    assert_non_null(source);
    for (int version = 1; version <= BCOP_STORE_VERSION; version++) {
        char folder[512];
        snprintf(folder, sizeof folder, "%s/checkpoints/golden/%d", source, version);
        compare_logits(folder);
    }
}

int main(void) {
    if (bcop_comm_open(&comm) != BCOP_OK)
        return 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_golden_checkpoint_loads)};
    const int failed = cmocka_run_group_tests_name("golden", tests, NULL, NULL);
    bcop_comm_close(&comm);
    return failed != 0;
}
