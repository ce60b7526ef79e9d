/* The sections of a configuration: which option tables describe each, and where in the experiment
 * their values are. Reading, writing, comparing and the reference all walk this list. */
#ifndef BCOP_TRAIN_SECTIONS_H
#define BCOP_TRAIN_SECTIONS_H

#include "train/experiment.h"

enum { BCOP_SECTION_PARTS_MAX = 3, BCOP_SECTION_CHOICES_MAX = 256 };

/* A dataset, layer, loss or optimizer, as a section sees it. name NULL: there is none. */
typedef struct bcop_section_kind {
    const char *name, *help;
    const bcop_option *options;
    size_t size;
} bcop_section_kind;

typedef struct bcop_section {
    const char *name; /* NULL: the root */
    const bcop_option *table;
    size_t offset;                         /* of what the table describes in the experiment */
    bcop_section_kind (*kinds)(int index); /* NULL: no kinds */
    const char *default_kind;              /* NULL: `kind` is required */
    size_t kind_at, options_at;            /* offsets in the experiment */
} bcop_section;

/* The root first, then the sections in the order of a file; `model`, a list, is not among them. */
extern const bcop_section bcop_sections[];
extern const int bcop_sections_count;

/* A section's tables with their targets in `experiment`. */
typedef struct bcop_section_view {
    int parts;
    bcop_options part[BCOP_SECTION_PARTS_MAX];
    bcop_option kind_table[2]; /* the key `kind`, when there are kinds */
    char choices[BCOP_SECTION_CHOICES_MAX];
} bcop_section_view;

/* The key `kind` alone (in a section that has kinds), then all parts: those of the kind that the
 * experiment names. The view points into itself and must not be copied. Local. */
void bcop_sections_kind(const bcop_section *section, const bcop_experiment *experiment,
                        bcop_section_view *view);
void bcop_sections_all(const bcop_section *section, const bcop_experiment *experiment,
                       bcop_section_view *view);

/* The index of the kind that the experiment names, and where its options are. */
int bcop_sections_index(const bcop_section *section, const bcop_experiment *experiment);
void **bcop_sections_options(const bcop_section *section, bcop_experiment *experiment);

/* Layer number `index` of the registry. */
bcop_section_kind bcop_sections_layer(int index);

/* The options of one entry of the model list; the caller frees *options, on failure too. Local. */
bcop_status bcop_sections_read_layer(const bcop_node *entry, const bcop_layer_kind **kind,
                                     void **options);

#endif
