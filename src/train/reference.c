#include "train/reference.h"

#include "train/sections.h"

#include <stdlib.h>
#include <string.h>

/* The keys of a kind as comments, since a file has the keys of one kind only. */
static void reference_kind(FILE *out, const char *opening, bcop_section_kind k) {
    fprintf(out, "  # %s%s: %s\n", opening, k.name, k.help);
    char *text = NULL;
    size_t size = 0;
    FILE *lines = open_memstream(&text, &size);
    if (!lines)
        return;
    bcop_option_reference(lines, 0, k.options);
    fclose(lines);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
        fprintf(out, "  #   %s\n", line);
    free(text);
}

static void reference_section(FILE *out, const bcop_section *s) {
    fprintf(out, "\n%s:\n", s->name);
    if (s->kinds) {
        const bcop_experiment none = {0};
        bcop_section_view view;
        bcop_sections_kind(s, &none, &view);
        bcop_option_reference(out, 2, view.kind_table);
    }
    bcop_option_reference(out, 2, s->table);
    for (int i = 0; s->kinds && s->kinds(i).name; i++)
        reference_kind(out, "kind: ", s->kinds(i));
}

void bcop_reference_write(FILE *out) {
    fputs("# Every key of a configuration with its default, type, range and meaning, as\n"
          "# `bcop reference` prints it. Keys marked REQUIRED have no default.\n\n",
          out);
    bcop_option_reference(out, 0, bcop_sections[0].table);
    for (int i = 1; i < bcop_sections_count; i++) {
        reference_section(out, &bcop_sections[i]);
        if (strcmp(bcop_sections[i].name, "input") == 0) {
            fputs("\nmodel: REQUIRED   # a list of layers, from input to logits, each one of\n",
                  out);
            for (int l = 0; bcop_sections_layer(l).name; l++)
                reference_kind(out, "- ", bcop_sections_layer(l));
        }
    }
}
