#include "base/option.h"

#include <errno.h>
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { CANDIDATES_MAX = 128, NAMES_BYTES = 512 };

static void *place_of(const bcop_option *option, void *target) {
    return (char *)target + option->offset;
}

static const void *value_of(const bcop_option *option, const void *target) {
    return (const char *)target + option->offset;
}

static bool is_empty(const bcop_node *node) {
    return node->type == BCOP_NODE_SCALAR && !*node->text && !node->quoted;
}

/* ---- numbers ---- */

static const char *skip_digits(const char *p) {
    return p + strspn(p, "0123456789");
}

/* The end of the unsigned decimal at p (`1`, `1.`, `.5`, `1.5e-3`), or NULL. */
static const char *skip_decimal(const char *p) {
    const char *end = skip_digits(p);
    bool any = end > p;
    if (*end == '.') {
        p = end + 1;
        end = skip_digits(p);
        any = any || end > p;
    }
    if (any && (*end == 'e' || *end == 'E')) {
        p = end + 1;
        p += *p == '+' || *p == '-';
        end = skip_digits(p);
        any = end > p;
    }
    return any ? end : NULL;
}

/* Whether a decimal lies where double holds fewer of its digits, or none: a quotient of it would be
   off by more than roundings. */
static bool loses_digits(const char *decimal, double value) {
    const char *digits = decimal + (*decimal == '+' || *decimal == '-');
    digits += strspn(digits, "0.");
    return fabs(value) < DBL_MIN && *digits >= '1' && *digits <= '9';
}

bool bcop_option_parse_real(const char *text, double *value) {
    const char *end = skip_decimal(text + (*text == '+' || *text == '-'));
    if (!end)
        return false;
    double v = strtod(text, NULL);
    if (*end == '/') {
        const char *below = end + 1;
        end = skip_decimal(below);
        const double divisor = end ? strtod(below, NULL) : 0;
        if (divisor < DBL_MIN || !isfinite(divisor) || loses_digits(text, v))
            return false;
        v /= divisor;
    }
    if (*end || !isfinite(v))
        return false;
    *value = v;
    return true;
}

static bool parse_integer(const char *text) {
    const char *digits = text + (*text == '+' || *text == '-');
    return *digits && !*skip_digits(digits);
}

/* ---- ranges ---- */

static bool in_range(const bcop_option *o, double v) {
    if (o->min == 0 && o->max == 0)
        return !o->open_min || v > 0;
    return (o->open_min ? v > o->min : v >= o->min) && v <= o->max;
}

/* "in 1..7 pixels", "above 0 and at most 1", "" when every number will do. */
static void range_text(const bcop_option *o, char *text, size_t size) {
    const double top = o->type == BCOP_OPTION_INT    ? INT_MAX
                       : o->type == BCOP_OPTION_LONG ? 0x1p63
                                                     : DBL_MAX;
    const bool any = o->min == 0 && o->max == 0;
    const bool low = any ? o->open_min : o->min > -top;
    const bool high = !any && o->max < top;
    const char *gap = o->unit ? " " : "", *unit = o->unit ? o->unit : "";
    const char *from = o->open_min ? "above" : "at least";
    if (low && high && !o->open_min)
        snprintf(text, size, "in %.15g..%.15g%s%s", o->min, o->max, gap, unit);
    else if (low && high)
        snprintf(text, size, "above %.15g and at most %.15g%s%s", o->min, o->max, gap, unit);
    else if (low)
        snprintf(text, size, "%s %.15g%s%s", from, o->min, gap, unit);
    else if (high)
        snprintf(text, size, "at most %.15g%s%s", o->max, gap, unit);
    else
        *text = 0;
}

/* ---- choices and names ---- */

/* Splits `choices` into `names` (room for CANDIDATES_MAX + 1), stored in `bytes`; how many. */
static int split(const char *choices, char bytes[static NAMES_BYTES], const char *names[]) {
    int n = 0;
    snprintf(bytes, NAMES_BYTES, "%s", choices);
    for (char *p = bytes; p && n < CANDIDATES_MAX;) {
        names[n++] = p;
        p = strchr(p, '|');
        if (p)
            *p++ = 0;
    }
    names[n] = NULL;
    return n;
}

/* The names with ", " between them, cut at the size. */
static void list_names(const char *const names[], char *text, size_t size) {
    size_t used = 0;
    *text = 0;
    for (int i = 0; names[i] && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%s", i ? ", " : "", names[i]);
}

/* ---- complaints ---- */

static bcop_status wrong_type(const bcop_node *node, const char *wanted) {
    if (node->type != BCOP_NODE_SCALAR)
        return bcop_config_fail(node, "must be %s (got a %s)", wanted,
                                node->type == BCOP_NODE_LIST ? "list" : "map");
    if (is_empty(node))
        return bcop_config_fail(node, "must be %s (got nothing)", wanted);
    return bcop_config_fail(node, "must be %s (got '%.80s'%s)", wanted, node->text,
                            node->quoted ? " in quotes" : "");
}

static bcop_status out_of_range(const bcop_node *node, const bcop_option *o) {
    char range[160];
    range_text(o, range, sizeof range);
    if (!*range)
        return bcop_config_fail(node, "does not fit (got %.80s)", node->text);
    return bcop_config_fail(node, "must be %s (got %.80s)", range, node->text);
}

static bcop_status unknown_key(const bcop_node *node, int parts, const bcop_options part[]) {
    const char *known[CANDIDATES_MAX + 1];
    int n = 0;
    for (int p = 0; p < parts; p++)
        for (const bcop_option *o = part[p].table; o->key && n < CANDIDATES_MAX; o++)
            known[n++] = o->key;
    known[n] = NULL;
    if (n == 0)
        return bcop_config_fail(node, "unknown key; no keys are known here");
    const char *near = bcop_config_suggest(node->key, known);
    if (near)
        return bcop_config_fail(node, "unknown key; did you mean '%s'?", near);
    char names[NAMES_BYTES];
    list_names(known, names, sizeof names);
    return bcop_config_fail(node, "unknown key; known are %s", names);
}

/* ---- reading values ---- */

static bcop_status read_integer(const bcop_node *node, const bcop_option *o, long min, long max,
                                long *value) {
    if (node->type != BCOP_NODE_SCALAR || node->quoted || !parse_integer(node->text))
        return wrong_type(node, "an integer");
    errno = 0;
    *value = strtol(node->text, NULL, 10);
    if (errno || *value < min || *value > max || !in_range(o, (double)*value))
        return out_of_range(node, o);
    return BCOP_OK;
}

static bcop_status read_real(const bcop_node *node, const bcop_option *o, double *value) {
    if (node->type != BCOP_NODE_SCALAR || node->quoted ||
        !bcop_option_parse_real(node->text, value))
        return wrong_type(node, "a number");
    return in_range(o, *value) ? BCOP_OK : out_of_range(node, o);
}

static bcop_status read_bool(const bcop_node *node, bool *value) {
    const bool yes = node->type == BCOP_NODE_SCALAR && strcmp(node->text, "true") == 0;
    const bool no = node->type == BCOP_NODE_SCALAR && strcmp(node->text, "false") == 0;
    if (node->quoted || (!yes && !no))
        return wrong_type(node, "true or false");
    *value = yes;
    return BCOP_OK;
}

static bcop_status read_text(const bcop_node *node, bool empty, char text[static BCOP_TEXT_MAX]) {
    if (node->type != BCOP_NODE_SCALAR)
        return wrong_type(node, "a text");
    const size_t length = strlen(node->text);
    if (length >= BCOP_TEXT_MAX)
        return bcop_config_fail(node, "must be at most %d bytes long (got %zu)", BCOP_TEXT_MAX - 1,
                                length);
    if (length == 0 && !empty)
        return bcop_config_fail(node, "must not be empty");
    memset(text, 0, BCOP_TEXT_MAX);
    memcpy(text, node->text, length);
    return BCOP_OK;
}

static bcop_status read_choice(const bcop_node *node, const bcop_option *o, int *value) {
    char bytes[NAMES_BYTES], names[NAMES_BYTES];
    const char *choice[CANDIDATES_MAX + 1];
    const int n = split(o->choices, bytes, choice);
    list_names(choice, names, sizeof names);
    if (node->type == BCOP_NODE_SCALAR) {
        for (*value = 0; *value < n; ++*value)
            if (strcmp(node->text, choice[*value]) == 0)
                return BCOP_OK;
        const char *near = bcop_config_suggest(node->text, choice);
        if (near)
            return bcop_config_fail(node, "must be one of %s (got '%s'); did you mean '%s'?", names,
                                    node->text, near);
    }
    char wanted[NAMES_BYTES + 8];
    snprintf(wanted, sizeof wanted, "one of %s", names);
    return wrong_type(node, wanted);
}

static bcop_status check_count(const bcop_node *node, const bcop_option *o, int max,
                               const char *wanted) {
    if (node->type != BCOP_NODE_LIST)
        return wrong_type(node, wanted);
    if (node->count > max || (node->count == 0 && !o->empty))
        return bcop_config_fail(node, "must have %d to %d elements (got %d)", o->empty ? 0 : 1, max,
                                node->count);
    return BCOP_OK;
}

static bcop_status read_reals(const bcop_node *node, const bcop_option *o, bcop_reals *reals) {
    BCOP_TRY(check_count(node, o, BCOP_REALS_MAX, "a list of numbers"));
    memset(reals, 0, sizeof *reals);
    for (int i = 0; i < node->count; i++) {
        const bcop_node *element = node->child[i];
        BCOP_TRY(read_real(element, o, &reals->value[i]));
        const size_t length = strlen(element->text);
        if (length >= sizeof reals->text[i])
            return bcop_config_fail(element, "must be at most %zu characters long (got %zu)",
                                    sizeof reals->text[i] - 1, length);
        memcpy(reals->text[i], element->text, length);
    }
    reals->count = node->count;
    return BCOP_OK;
}

static bcop_status read_texts(const bcop_node *node, const bcop_option *o, bcop_texts *texts) {
    BCOP_TRY(check_count(node, o, BCOP_TEXTS_MAX, "a list of texts"));
    memset(texts, 0, sizeof *texts);
    for (int i = 0; i < node->count; i++)
        BCOP_TRY(read_text(node->child[i], false, texts->text[i]));
    texts->count = node->count;
    return BCOP_OK;
}

static bcop_status read_value(const bcop_node *node, const bcop_option *o, void *target) {
    void *place = place_of(o, target);
    long whole = 0;
    switch (o->type) {
    case BCOP_OPTION_INT:
        BCOP_TRY(read_integer(node, o, INT_MIN, INT_MAX, &whole));
        *(int *)place = (int)whole;
        return BCOP_OK;
    case BCOP_OPTION_LONG:
        return read_integer(node, o, LONG_MIN, LONG_MAX, place);
    case BCOP_OPTION_REAL:
        return read_real(node, o, place);
    case BCOP_OPTION_BOOL:
        return read_bool(node, place);
    case BCOP_OPTION_TEXT:
        return read_text(node, o->empty, place);
    case BCOP_OPTION_CHOICE:
        return read_choice(node, o, place);
    case BCOP_OPTION_REALS:
        return read_reals(node, o, place);
    case BCOP_OPTION_TEXTS:
        return read_texts(node, o, place);
    }
    return bcop_status_fail(BCOP_INTERNAL, "option %s has no type", o->key);
}

/* ---- reading sections ---- */

/* A fallback that does not read is a mistake in the table. */
static bcop_status fall_back(const bcop_option *o, void *target) {
    char yaml[BCOP_TEXT_MAX + 64];
    bcop_config *config;
    snprintf(yaml, sizeof yaml, "default: %s\n", o->fallback);
    bcop_status status = bcop_config_parse(yaml, strlen(yaml), o->key, &config);
    if (status == BCOP_OK)
        status = read_value(bcop_config_find(bcop_config_root(config), "default"), o, target);
    bcop_config_free(config);
    if (status != BCOP_OK)
        return bcop_status_fail(BCOP_INTERNAL, "option table: %s", bcop_status_message());
    return BCOP_OK;
}

static const bcop_option *lookup(const bcop_option *table, const char *key) {
    for (; table->key; table++)
        if (strcmp(table->key, key) == 0)
            return table;
    return NULL;
}

static bcop_status read_section(const bcop_node *section, int parts, const bcop_options part[]) {
    if (section->type != BCOP_NODE_MAP && !is_empty(section))
        return wrong_type(section, "a map");
    for (int i = 0; i < section->count; i++) {
        const bcop_node *node = section->child[i];
        bool known = false;
        for (int p = 0; p < parts; p++) {
            const bcop_option *o = lookup(part[p].table, node->key);
            if (o)
                BCOP_TRY(read_value(node, o, part[p].target));
            known = known || o;
        }
        if (!known)
            return unknown_key(node, parts, part);
    }
    for (int p = 0; p < parts; p++)
        for (const bcop_option *o = part[p].table; o->key; o++) {
            if (bcop_config_find(section, o->key))
                continue;
            if (!o->fallback)
                return bcop_config_fail(section, "'%s' is required", o->key);
            BCOP_TRY(fall_back(o, part[p].target));
        }
    return BCOP_OK;
}

bcop_status bcop_option_read(const bcop_node *section, const bcop_node *parent, const char *name,
                             int parts, const bcop_options part[]) {
    if (section)
        return read_section(section, parts, part);
    char path[1024];
    snprintf(path, sizeof path, "%s%s%s", parent->path, *parent->path ? "." : "", name);
    const bcop_node missing = {.type = BCOP_NODE_MAP,
                               .origin = parent->origin,
                               .line = parent->line,
                               .column = parent->column,
                               .path = path};
    return read_section(&missing, parts, part);
}

void bcop_option_default(bcop_options part) {
    for (const bcop_option *o = part.table; o->key; o++)
        if (o->fallback && fall_back(o, part.target) != BCOP_OK) {
            fprintf(stderr, "bcop: internal: %s\n", bcop_status_message());
            abort();
        }
}

/* ---- writing ---- */

/* The shortest text that reads back equal, with a point, so that every YAML reader sees a real. */
static void write_real(FILE *out, double value) {
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    const int mantissa = (int)strcspn(text, "e");
    fprintf(out, "%.*s%s%s", mantissa, text, strchr(text, '.') ? "" : ".0", text + mantissa);
}

/* True for texts that mean themselves without quotes for any YAML reader. */
static bool is_plain(const char *text) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    static const char *const words[] = {"true", "false", "yes", "no", "on",
                                        "off",  "null",  "y",   "n",  NULL};
    if (*text != '/' && strspn(text, letters) == 0)
        return false;
    for (const char *p = text; *p; p++)
        if (!strchr(letters, *p) && !strchr("0123456789_-./+", *p))
            return false;
    for (int i = 0; words[i]; i++)
        if (strcasecmp(text, words[i]) == 0)
            return false;
    return true;
}

/* Decodes the character at *p and steps over it; bytes that are no UTF-8 count for themselves. */
static unsigned decode(const unsigned char **p) {
    const unsigned char *s = *p;
    const int more = s[0] >= 0xF0 ? 3 : s[0] >= 0xE0 ? 2 : s[0] >= 0xC0 ? 1 : 0;
    unsigned code = more ? s[0] & (0x3Fu >> more) : s[0];
    for (int i = 1; i <= more; i++) {
        if ((s[i] & 0xC0) != 0x80) {
            *p = s + 1;
            return s[0];
        }
        code = code << 6 | (s[i] & 0x3Fu);
    }
    *p = s + 1 + more;
    return code;
}

static void write_text(FILE *out, const char *text) {
    if (is_plain(text)) {
        fputs(text, out);
        return;
    }
    fputc('"', out);
    for (const unsigned char *p = (const unsigned char *)text; *p;) {
        const unsigned char *start = p;
        const unsigned c = decode(&p);
        const int length = (int)(p - start);
        /* The rest are line ends, byte order marks and what YAML does not take unescaped. */
        const bool raw = (c >= ' ' && c < 0x7F) || (length > 1 && c >= 0xA0 && c < 0x2028) ||
                         (c > 0x2029 && c < 0xFE00) || c > 0xFFFF;
        if (c == '"' || c == '\\')
            fprintf(out, "\\%c", (int)c);
        else if (raw)
            fprintf(out, "%.*s", length, (const char *)start);
        else
            fprintf(out, "\\u%04X", c);
    }
    fputc('"', out);
}

static void write_reals(FILE *out, const bcop_reals *reals) {
    fputc('[', out);
    for (int i = 0; i < reals->count; i++) {
        if (i)
            fputs(", ", out);
        if (*reals->text[i])
            fputs(reals->text[i], out);
        else
            write_real(out, reals->value[i]);
    }
    fputc(']', out);
}

static void write_texts(FILE *out, const bcop_texts *texts) {
    fputc('[', out);
    for (int i = 0; i < texts->count; i++) {
        if (i)
            fputs(", ", out);
        write_text(out, texts->text[i]);
    }
    fputc(']', out);
}

void bcop_option_write_value(FILE *out, const bcop_option *option, const void *target) {
    const void *value = value_of(option, target);
    char bytes[NAMES_BYTES];
    const char *choice[CANDIDATES_MAX + 1];
    int n;
    switch (option->type) {
    case BCOP_OPTION_INT:
        fprintf(out, "%d", *(const int *)value);
        break;
    case BCOP_OPTION_LONG:
        fprintf(out, "%ld", *(const long *)value);
        break;
    case BCOP_OPTION_REAL:
        write_real(out, *(const double *)value);
        break;
    case BCOP_OPTION_BOOL:
        fputs(*(const bool *)value ? "true" : "false", out);
        break;
    case BCOP_OPTION_TEXT:
        write_text(out, value);
        break;
    case BCOP_OPTION_CHOICE:
        n = *(const int *)value;
        write_text(out, n >= 0 && n < split(option->choices, bytes, choice) ? choice[n] : "");
        break;
    case BCOP_OPTION_REALS:
        write_reals(out, value);
        break;
    case BCOP_OPTION_TEXTS:
        write_texts(out, value);
        break;
    }
}

void bcop_option_write(FILE *out, int parts, const bcop_options part[]) {
    const char *gap = "";
    fputc('{', out);
    for (int p = 0; p < parts; p++)
        for (const bcop_option *o = part[p].table; o->key; o++) {
            fprintf(out, "%s%s: ", gap, o->key);
            bcop_option_write_value(out, o, part[p].target);
            gap = ", ";
        }
    fputc('}', out);
}

/* ---- comparing ---- */

static bool equal(const bcop_option *o, const void *a, const void *b) {
    const bcop_reals *ra = a, *rb = b;
    const bcop_texts *ta = a, *tb = b;
    switch (o->type) {
    case BCOP_OPTION_INT:
    case BCOP_OPTION_CHOICE:
        return *(const int *)a == *(const int *)b;
    case BCOP_OPTION_LONG:
        return *(const long *)a == *(const long *)b;
    case BCOP_OPTION_REAL:
        return *(const double *)a == *(const double *)b;
    case BCOP_OPTION_BOOL:
        return *(const bool *)a == *(const bool *)b;
    case BCOP_OPTION_TEXT:
        return strcmp(a, b) == 0;
    case BCOP_OPTION_REALS:
        for (int i = 0; i < ra->count && ra->count == rb->count; i++)
            if (ra->value[i] != rb->value[i])
                return false;
        return ra->count == rb->count;
    case BCOP_OPTION_TEXTS:
        for (int i = 0; i < ta->count && ta->count == tb->count; i++)
            if (strcmp(ta->text[i], tb->text[i]) != 0)
                return false;
        return ta->count == tb->count;
    }
    return false;
}

const bcop_option *bcop_option_differs(const bcop_option *table, const void *a, const void *b) {
    for (; table->key; table++)
        if (!equal(table, value_of(table, a), value_of(table, b)))
            return table;
    return NULL;
}

/* ---- reference ---- */

static const char *shown_default(const bcop_option *o) {
    if (!o->fallback)
        return "REQUIRED";
    return *o->fallback ? o->fallback : "\"\"";
}

/* "integer 1..7 pixels", "true or false", "one of none, flip, crop". */
static void type_text(const bcop_option *o, char *text, size_t size) {
    char bytes[NAMES_BYTES], names[NAMES_BYTES], range[160];
    const char *choice[CANDIDATES_MAX + 1];
    const char *what = "";
    range_text(o, range, sizeof range);
    const char *shown = strncmp(range, "in ", 3) == 0 ? range + 3 : range;
    switch (o->type) {
    case BCOP_OPTION_INT:
    case BCOP_OPTION_LONG:
        what = "integer";
        break;
    case BCOP_OPTION_REAL:
        what = "number";
        break;
    case BCOP_OPTION_REALS:
        what = "list of numbers";
        break;
    case BCOP_OPTION_CHOICE:
        split(o->choices, bytes, choice);
        list_names(choice, names, sizeof names);
        snprintf(text, size, "one of %s", names);
        return;
    case BCOP_OPTION_BOOL:
    case BCOP_OPTION_TEXT:
    case BCOP_OPTION_TEXTS:
        snprintf(text, size, "%s",
                 o->type == BCOP_OPTION_BOOL   ? "true or false"
                 : o->type == BCOP_OPTION_TEXT ? "text"
                                               : "list of texts");
        return;
    }
    if (*shown)
        snprintf(text, size, "%s %s", what, shown);
    else
        snprintf(text, size, "%s%s%s%s", what, o->unit ? " (" : "", o->unit ? o->unit : "",
                 o->unit ? ")" : "");
}

void bcop_option_reference(FILE *out, int indent, const bcop_option *table) {
    enum { WIDTH_MAX = 32 };
    int width = 0;
    for (const bcop_option *o = table; o->key; o++) {
        const int w = (int)(strlen(o->key) + 2 + strlen(shown_default(o)));
        if (w > width && w <= WIDTH_MAX)
            width = w;
    }
    for (const bcop_option *o = table; o->key; o++) {
        char type[NAMES_BYTES + 16];
        type_text(o, type, sizeof type);
        const int w = (int)(strlen(o->key) + 2);
        const int rest = width > w ? width - w : 0;
        fprintf(out, "%*s%s: %-*s   # %s. %s\n", indent, "", o->key, rest, shown_default(o), type,
                o->help ? o->help : "");
    }
}
