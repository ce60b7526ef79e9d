#include "train/sections.h"

#include "nn/model.h"
#include "ortho/stage.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>

#define AT(member) offsetof(bcop_experiment, member)

/* ---- the tables of the sections that live here ---- */

static const bcop_option root_table[] = {
    {.key = "name",
     .type = BCOP_OPTION_TEXT,
     .offset = AT(root.name),
     .help = "name of the run; its directory is checkpoints/<name> unless --run says otherwise"},
    {.key = "seed",
     .type = BCOP_OPTION_LONG,
     .offset = AT(root.seed),
     .min = 0,
     .max = INFINITY,
     .fallback = "0",
     .help = "of initial blocks, order and augmentation"},
    {.key = "task",
     .type = BCOP_OPTION_CHOICE,
     .offset = AT(root.task),
     .choices = "classify",
     .fallback = "classify",
     .help = "what is learned"},
    {0},
};

static const bcop_option input_table[] = {
    {.key = "mean",
     .type = BCOP_OPTION_REALS,
     .offset = AT(input.mean),
     .fallback = "[0.0]",
     .help = "subtracted from the pixels (in [0, 1]); one number or one per channel"},
    {.key = "std",
     .type = BCOP_OPTION_REALS,
     .offset = AT(input.std),
     .min = 1e-6,
     .max = 1e6,
     .fallback = "[1.0]",
     .help = "divides the pixels; the Lipschitz constant grows by 1/min std"},
    {0},
};

static const bcop_option ortho_table[] = {
    {.key = "tolerance",
     .type = BCOP_OPTION_REAL,
     .offset = AT(ortho.tolerance),
     .min = 1e-6,
     .max = 1e-2,
     .fallback = "2.0e-6",
     .help = "of ||U^T U - I||_F / sqrt(cols) after each update"},
    {.key = "max_iterations",
     .type = BCOP_OPTION_INT,
     .offset = AT(ortho.max_iterations),
     .min = 1,
     .max = 1000,
     .fallback = "30",
     .help = "Bjorck iterations a block may take in one update; more ends the run with 80"},
    {.key = "placement",
     .type = BCOP_OPTION_CHOICE,
     .offset = AT(ortho.placement),
     .choices = "auto|replicated|owned|shared|grid",
     .fallback = "auto",
     .help = "which ranks update a block: all, one, each some rows of it, or all on a process grid "
             "(ScaLAPACK); auto by a cost model"},
    {.key = "share_above",
     .type = BCOP_OPTION_REAL,
     .offset = AT(ortho.share_above),
     .max = 1e18,
     .fallback = "0.0",
     .unit = "flops",
     .help =
         "auto: an update that costs more is shared; 0: so many that the busiest rank has least to do"},
    {.key = "grid_above",
     .type = BCOP_OPTION_REAL,
     .offset = AT(ortho.grid_above),
     .max = 1e18,
     .fallback = "0.0",
     .unit = "flops",
     .help = "auto: an update that costs more goes on the process grid; 0: none. On the grid the "
             "number of ranks shows in the last bits"},
    {.key = "grid_rows",
     .type = BCOP_OPTION_INT,
     .offset = AT(ortho.grid_rows),
     .min = 0,
     .max = BCOP_PLACEMENT_RANKS_MAX,
     .fallback = "0",
     .help =
         "process rows of the grid, a divisor of the number of ranks; 0: the most nearly square"},
    {0},
};

static const bcop_option train_table[] = {
    {.key = "batch",
     .type = BCOP_OPTION_INT,
     .offset = AT(train.batch),
     .min = 1,
     .max = 1 << 20,
     .fallback = "128",
     .unit = "images",
     .help = "global batch, over all ranks; a multiple of lanes"},
    {.key = "lanes",
     .type = BCOP_OPTION_INT,
     .offset = AT(train.lanes),
     .min = 1,
     .max = BCOP_PLACEMENT_RANKS_MAX,
     .fallback = "16",
     .help =
         "parts into which the batch is cut whatever the number of ranks; a power of two; at most so many ranks"},
    {.key = "epochs",
     .type = BCOP_OPTION_INT,
     .offset = AT(train.epochs),
     .min = 1,
     .max = 1000000,
     .fallback = "20",
     .help = "passes over the training data"},
    {.key = "watchdog",
     .type = BCOP_OPTION_REAL,
     .offset = AT(train.watchdog),
     .max = 86400,
     .fallback = "60.0",
     .unit = "seconds",
     .help =
         "end the run with 81 when a step makes no progress for so long (or 20 median steps, if more); 0 never"},
    {0},
};

static const bcop_option evaluate_table[] = {
    {.key = "every",
     .type = BCOP_OPTION_INT,
     .offset = AT(evaluate.every),
     .min = 0,
     .max = 1000000,
     .fallback = "1",
     .unit = "epochs",
     .help =
         "between evaluations of the hold-out (of the test set if there is none); 0: only at the end"},
    {.key = "eps",
     .type = BCOP_OPTION_REALS,
     .offset = AT(evaluate.eps),
     .max = 1000,
     .fallback = "[36/255]",
     .unit = "pixel units (L2)",
     .help = "radii at which accuracy is certified; `best` is chosen by the last"},
    {0},
};

static const bcop_option checkpoint_table[] = {
    {.key = "every_epochs",
     .type = BCOP_OPTION_INT,
     .offset = AT(checkpoint.every_epochs),
     .min = 0,
     .max = 1000000,
     .fallback = "1",
     .unit = "epochs",
     .help = "between checkpoints; 0: not by epochs"},
    {.key = "every_minutes",
     .type = BCOP_OPTION_REAL,
     .offset = AT(checkpoint.every_minutes),
     .max = 100000,
     .fallback = "15.0",
     .unit = "minutes",
     .help = "between checkpoints within an epoch; 0: not by time"},
    {.key = "min_seconds",
     .type = BCOP_OPTION_REAL,
     .offset = AT(checkpoint.min_seconds),
     .max = 1e6,
     .fallback = "60.0",
     .unit = "seconds",
     .help = "none by epochs so soon after the last, but for a new best and at the end; and how "
             "soon one that failed is tried again"},
    {.key = "keep",
     .type = BCOP_OPTION_INT,
     .offset = AT(checkpoint.keep),
     .min = 1,
     .max = 1000000,
     .fallback = "3",
     .help = "newest checkpoints kept, beside the best"},
    {.key = "keep_every_epochs",
     .type = BCOP_OPTION_INT,
     .offset = AT(checkpoint.keep_every_epochs),
     .min = 0,
     .max = 1000000,
     .fallback = "0",
     .unit = "epochs",
     .help = "checkpoints at the end of every so manieth epoch are kept for good; 0: none"},
    {.key = "max_failures",
     .type = BCOP_OPTION_INT,
     .offset = AT(checkpoint.max_failures),
     .min = 0,
     .max = 1000000,
     .fallback = "5",
     .help = "starts in a row that may fail without a new checkpoint; then the run is not started "
             "again (78); 0: no limit"},
    {0},
};

/* ---- kinds, as the sections see them ---- */

#define KIND_OF(list, index)                                                                       \
    ((list)[index] ? (bcop_section_kind){(list)[index]->name, (list)[index]->help,                 \
                                         (list)[index]->options, (list)[index]->options_size}      \
                   : (bcop_section_kind){0})

static bcop_section_kind set_kind(int i) {
    return KIND_OF(bcop_set_kinds, i);
}
static bcop_section_kind loss_kind(int i) {
    return KIND_OF(bcop_loss_kinds, i);
}
static bcop_section_kind optimizer_kind(int i) {
    return KIND_OF(bcop_optimizer_kinds, i);
}
bcop_section_kind bcop_sections_layer(int i) {
    return KIND_OF(bcop_layer_kinds, i);
}

static const bcop_option no_table[] = {{0}};

const bcop_section bcop_sections[] = {
    {.table = root_table},
    {"data", bcop_dataset_table, AT(data), set_kind, NULL, AT(data.kind), AT(data_options)},
    {.name = "input", .table = input_table},
    {"loss", no_table, 0, loss_kind, NULL, AT(loss.kind), AT(loss_options)},
    {.name = "ortho", .table = ortho_table},
    {"optimizer", bcop_optimizer_table, AT(optimizer), optimizer_kind, "adam", AT(optimizer.kind),
     AT(optimizer_options)},
    {.name = "schedule", .table = bcop_schedule_table, .offset = AT(schedule)},
    {.name = "train", .table = train_table},
    {.name = "evaluate", .table = evaluate_table},
    {.name = "checkpoint", .table = checkpoint_table},
};
const int bcop_sections_count = sizeof bcop_sections / sizeof *bcop_sections;

int bcop_sections_index(const bcop_section *s, const bcop_experiment *e) {
    return *(const int *)((const char *)e + s->kind_at);
}

void **bcop_sections_options(const bcop_section *s, bcop_experiment *e) {
    return (void **)((char *)e + s->options_at);
}

void bcop_sections_kind(const bcop_section *s, const bcop_experiment *e, bcop_section_view *view) {
    *view = (bcop_section_view){0};
    if (!s->kinds)
        return;
    size_t used = 0;
    for (int i = 0; s->kinds(i).name && used < sizeof view->choices; i++)
        used += (size_t)snprintf(view->choices + used, sizeof view->choices - used, "%s%s",
                                 i ? "|" : "", s->kinds(i).name);
    view->kind_table[0] = (bcop_option){.key = "kind",
                                        .type = BCOP_OPTION_CHOICE,
                                        .offset = s->kind_at,
                                        .choices = view->choices,
                                        .fallback = s->default_kind,
                                        .help = "which of the kinds below"};
    view->part[view->parts++] = (bcop_options){view->kind_table, (bcop_experiment *)e};
}

void bcop_sections_all(const bcop_section *s, const bcop_experiment *e, bcop_section_view *view) {
    bcop_experiment *target = (bcop_experiment *)e;
    bcop_sections_kind(s, e, view);
    view->part[view->parts++] = (bcop_options){s->table, (char *)target + s->offset};
    if (s->kinds)
        view->part[view->parts++] = (bcop_options){s->kinds(bcop_sections_index(s, e)).options,
                                                   *bcop_sections_options(s, target)};
}

bcop_status bcop_sections_read_layer(const bcop_node *entry, const bcop_layer_kind **kind,
                                     void **options) {
    const bcop_node *node;
    BCOP_TRY(bcop_model_entry(entry, kind, &node));
    *options = calloc(1, (*kind)->options_size + 1);
    if (!*options)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory for the configuration");
    return bcop_option_read(node, entry, (*kind)->name, 1,
                            &(bcop_options){(*kind)->options, *options});
}
