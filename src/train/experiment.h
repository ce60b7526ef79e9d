/* An experiment: the whole configuration file, checked and typed.
 *
 * Sections bring their own option tables (datasets, layers, losses, optimizers); this is where they
 * meet. Reading, printing the resolved configuration, comparing two and the reference all walk the
 * same tables. */
#ifndef BCOP_TRAIN_EXPERIMENT_H
#define BCOP_TRAIN_EXPERIMENT_H

#include "data/dataset.h"
#include "nn/layer.h"
#include "nn/loss.h"
#include "ortho/optimizer.h"
#include "train/schedule.h"

#include <stdio.h>

typedef struct bcop_experiment {
    bcop_config *config; /* owned: the nodes live in it */
    struct {
        char name[BCOP_TEXT_MAX];
        long seed;
        int task;
    } root;
    bcop_dataset_options data;
    struct {
        bcop_reals mean, std;
    } input;
    struct {
        int kind;
    } loss;
    struct {
        double tolerance;
        int max_iterations;
        int placement;
        double share_above, grid_above;
        int grid_rows;
    } ortho;
    bcop_optimizer_options optimizer;
    bcop_schedule schedule;
    struct {
        int batch, lanes, epochs;
        double watchdog;
    } train;
    struct {
        int every;
        bcop_reals eps;
    } evaluate;
    struct {
        int every_epochs;
        double every_minutes, min_seconds;
        int keep, keep_every_epochs;
        int max_failures;
    } checkpoint;
    void *data_options, *loss_options, *optimizer_options; /* of the kinds; owned */
    const bcop_node *model_node, *input_node;              /* input_node: the root when absent */
} bcop_experiment;

/* Takes ownership of `config` (on failure too) and reads it whole, layers' options included.
 * BCOP_CONFIG naming the place. Local. */
bcop_status bcop_experiment_read(bcop_config *config, bcop_experiment *experiment);
void bcop_experiment_free(bcop_experiment *experiment);

/* The resolved configuration, every key with its value: YAML that reads back to the same. Local. */
void bcop_experiment_write(const bcop_experiment *experiment, FILE *out);

/* The same as a string; the caller frees it. NULL without memory. Local. */
char *bcop_experiment_text(const bcop_experiment *experiment);

/* The node of `section`.`key`, or the nearest there is of it, for messages about its value. */
const bcop_node *bcop_experiment_place(const bcop_experiment *experiment, const char *section,
                                       const char *key);

/* The kinds that the experiment names. */
const bcop_loss_kind *bcop_experiment_loss(const bcop_experiment *experiment);
const bcop_optimizer_kind *bcop_experiment_optimizer(const bcop_experiment *experiment);

#endif
