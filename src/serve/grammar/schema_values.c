/* Strings and numbers of a schema. */
#include "serve/grammar/schema.h"
#include <stdlib.h>
#include <string.h>

/* --- strings ----------------------------------------------------------------------------------------------- */

#define YEAR "([1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
#define LEAP "([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)"
#define DATE                                                                                                               \
    "(" YEAR                                                                                                               \
    "-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))|" LEAP       \
    "-02-29)"
#define TIME   "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
#define N      "[0-9]{1,9}"
#define DAYS   "(" N "D|" N "M(" N "D)?|" N "Y(" N "M(" N "D)?)?)"
#define HOURS  "T(" N "S|" N "M(" N "S)?|" N "H(" N "M(" N "S)?)?)"
#define LABEL  "[a-zA-Z0-9]([a-zA-Z0-9-]{0,60}[a-zA-Z0-9])?"
#define HOST   LABEL "(\\." LABEL "){0,3}" /* four of 62 are less than the 253 that a name may have */
#define ATOM   "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]{1,20}"
#define OCTET  "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
#define H16    "[0-9a-fA-F]{1,4}"
#define HEX(n) "[0-9a-fA-F]{" #n "}"

/* Regular expressions of RFC 3339, 5321, 1123, 2673, 4291, 4122, within what all validators take. */
static const struct {
    const char *name, *pattern;
} formats[] = {
    {"date-time", "^" DATE "T" TIME "$"},
    {"date", "^" DATE "$"},
    {"time", "^" TIME "$"},
    {"duration", "^P(" N "W|" DAYS "(" HOURS ")?|" HOURS ")$"},
    {"email", "^" ATOM "(\\." ATOM "){0,2}@" HOST "$"},
    {"hostname", "^" HOST "$"},
    {"ipv4", "^" OCTET "(\\." OCTET "){3}$"},
    {"ipv6", "^((" H16 ":){7}" H16 "|(" H16 ":){1,7}:|(" H16 ":){1,6}:" H16 "|(" H16 ":){1,5}(:" H16 "){1,2}|"
             "(" H16 ":){1,4}(:" H16 "){1,3}|(" H16 ":){1,3}(:" H16 "){1,4}|(" H16 ":){1,2}(:" H16 "){1,5}|" H16 ":(:" H16
             "){1,6}|:(:" H16 "){1,7}|::)$"},
    {"uuid", "^" HEX(8) "-" HEX(4) "-" HEX(4) "-" HEX(4) "-" HEX(12) "$"},
};

static const char *keyword_text(struct lk__grammar_schema *s, const json_t *schema, const char *key) {
    const json_t *value = json_object_get(schema, key);
    if (value && !json_is_string(value)) lk__grammar_schema_fail(s, LK_EINVAL, key, "must be a string");
    return json_string_value(value);
}

uint32_t lk__grammar_schema_string(struct lk__grammar_schema *s, const json_t *schema) {
    struct lk__grammar_build *b = s->b;
    const char *pattern = keyword_text(s, schema, "pattern"), *format = keyword_text(s, schema, "format");
    uint32_t least = lk__grammar_schema_count(s, schema, "minLength", 0);
    uint32_t most = lk__grammar_schema_count(s, schema, "maxLength", LK__GRAMMAR_UNLIMITED), inside;
    size_t size = pattern ? json_string_length(json_object_get(schema, "pattern")) : 0;
    const char *key = "pattern";
    if (least > most) lk__grammar_schema_fail(s, LK_EINVAL, "minLength", "%u is more than maxLength, %u", least, most);
    if (pattern && format)
        lk__grammar_schema_fail(s, LK_EUNSUPPORTED, "pattern", "not supported together with format: leave one out");
    if ((pattern || format) && (least || most != LK__GRAMMAR_UNLIMITED))
        lk__grammar_schema_fail(
            s, LK_EUNSUPPORTED, least ? "minLength" : "maxLength",
            "not supported together with pattern or format: write the length into the pattern, as {2,9}");
    if (!pattern && !format && !least && most == LK__GRAMMAR_UNLIMITED) return lk__grammar_json_string(s);
    for (size_t i = 0; format && i < sizeof formats / sizeof *formats; i++)
        if (!strcmp(format, formats[i].name)) pattern = formats[i].pattern, size = strlen(pattern), key = "format";
    if (format && !pattern)
        lk__grammar_schema_fail(s, LK_EUNSUPPORTED, "format",
                                "%.40s is not supported; there are date-time, date, time, duration, email, hostname, ipv4, "
                                "ipv6 and uuid",
                                format);
    if (b->code) return 0;
    char *path = lk_asprintf("%s.%s", s->path.data, key);
    if (!path) return lk__grammar_fail(b, LK_ENOMEM, "no memory for a grammar"), 0;
    if (pattern)
        inside = lk__grammar_regex(b, pattern, size, path, lk__grammar_json_character(s));
    else
        inside = lk__grammar_repeat(b, lk__grammar_json_character(s), least, most);
    lk_free(path);
    uint32_t quote = lk__grammar_string(b, "\""), rule = lk__grammar_rule(b, "string", 6, true);
    lk__grammar_body(b, rule, LK__GRAMMAR_SEQ(b, quote, inside, quote));
    return lk__grammar_call(b, rule);
}

/* --- numbers ----------------------------------------------------------------------------------------------- */

/* A bound as a decimal: the shortest one that is this double; digits * 10^-places. False: it has more than 18 digits. */
struct decimal {
    int64_t digits;
    int places;
    double value;
};
static bool decimal(const json_t *value, struct decimal *out) {
    char text[40], *power;
    if (json_is_integer(value)) {
        *out = (struct decimal){json_integer_value(value), 0, (double)json_integer_value(value)};
        return out->digits >= -LK__GRAMMAR_NUMBER_MOST && out->digits <= LK__GRAMMAR_NUMBER_MOST;
    }
    double x = json_real_value(value);
    for (int digits = 14;; digits++) {
        snprintf(text, sizeof text, "%.*e", digits, x);
        if (strtod(text, NULL) == x || digits == 16) break;
    }
    power = strchr(text, 'e');
    int exponent = atoi(power + 1);
    *out = (struct decimal){0, -exponent, x};
    for (char *c = text; c < power; c++) {
        if (*c < '0' || *c > '9') continue;
        out->digits = 10 * out->digits + (*c - '0');
        out->places += c > text + (*text == '-'); /* one digit stands before the point */
    }
    while (out->digits && out->digits % 10 == 0) out->digits /= 10, out->places--;
    if (!out->digits) out->places = 0;
    if (*text == '-') out->digits = -out->digits;
    for (; out->places < 0; out->places++) {
        if (llabs(out->digits) > LK__GRAMMAR_NUMBER_MOST / 10) return false;
        out->digits *= 10;
    }
    return true;
}

/* In units of 10^-places, rounded up (or down, where `down`); the bound itself is left out where `open`. */
static int64_t units(struct decimal d, int places, bool down, bool open) {
    int64_t value = d.digits;
    bool exact = true, negative = value < 0;
    for (; d.places < places; places--) value *= 10; /* the caller has seen to it that this fits */
    for (; d.places > places; d.places--) {
        exact &= value % 10 == 0;
        value /= 10; /* towards 0 */
    }
    if (!exact) return down ? value - negative : value + !negative;
    return open ? (down ? value - 1 : value + 1) : value;
}

struct bounds {
    struct decimal least, most;
    bool has_least, has_most, least_open, most_open;
};
static bool below(struct decimal a, struct decimal b) {
    return a.places || b.places ? a.value < b.value : a.digits < b.digits;
}
static void bound(struct lk__grammar_schema *s, const json_t *schema, const char *key, bool most, bool open,
                  struct bounds *out) {
    const json_t *value = json_object_get(schema, key);
    struct decimal d;
    if (!value || s->b->code) return;
    if (!json_is_number(value))
        lk__grammar_schema_fail(s, LK_EINVAL, key, "must be a number");
    else if (!decimal(value, &d))
        lk__grammar_schema_fail(s, LK_EUNSUPPORTED, key, "bounds of more than 18 digits are not supported");
    else if (most && (!out->has_most || below(d, out->most) || (open && !below(out->most, d))))
        out->most = d, out->has_most = true, out->most_open = open;
    else if (!most && (!out->has_least || below(out->least, d) || (open && !below(d, out->least))))
        out->least = d, out->has_least = true, out->least_open = open;
}

static int whole_digits(struct decimal d) {
    int n = -d.places;
    for (int64_t v = llabs(d.digits); v; v /= 10) n++;
    return n > 1 ? n : 1;
}

static uint32_t multiple_of(struct lk__grammar_schema *s, const json_t *schema) {
    const json_t *value = json_object_get(schema, "multipleOf");
    double x = json_number_value(value);
    if (!value) return 1;
    if (!json_is_number(value) || x <= 0)
        lk__grammar_schema_fail(s, LK_EINVAL, "multipleOf", "must be a number above 0");
    else if (x > 1000 || x != (uint32_t)x)
        lk__grammar_schema_fail(s, LK_EUNSUPPORTED, "multipleOf", "only whole numbers from 1 to 1000 are supported");
    return s->b->code ? 1 : (uint32_t)x;
}

uint32_t lk__grammar_schema_numeric(struct lk__grammar_schema *s, const json_t *schema, bool integer) {
    struct bounds bounds = {.has_least = false};
    uint32_t multiple = multiple_of(s, schema);
    bool whole = integer || json_object_get(schema, "multipleOf");
    bound(s, schema, "minimum", false, false, &bounds);
    bound(s, schema, "exclusiveMinimum", false, true, &bounds);
    bound(s, schema, "maximum", true, false, &bounds);
    bound(s, schema, "exclusiveMaximum", true, true, &bounds);
    if (s->b->code) return 0;
    if (!bounds.has_least && !bounds.has_most && !whole) return lk__grammar_json_number(s);
    if (!bounds.has_least && !bounds.has_most && multiple == 1) return lk__grammar_json_integer(s);
    int before = whole ? 18 : 9; /* digits before the point; all together 15, so that each is a double of its own */
    if (bounds.has_least && whole_digits(bounds.least) > before) before = whole_digits(bounds.least);
    if (bounds.has_most && whole_digits(bounds.most) > before) before = whole_digits(bounds.most);
    if (before > (whole ? 18 : 15)) {
        lk__grammar_schema_fail(s, LK_EUNSUPPORTED, bounds.has_least ? "minimum" : "maximum",
                                "bounds of more than %d digits before the point are not supported", whole ? 18 : 15);
        return 0;
    }
    int places = whole ? 0 : 15 - before;
    int64_t end = 1;
    for (int i = 0; i < before + places; i++) end *= 10;
    struct lk__grammar_span span = {-(end - 1), end - 1, (uint32_t)places, multiple};
    if (bounds.has_least) span.least = units(bounds.least, places, false, bounds.least_open);
    if (bounds.has_most) span.most = units(bounds.most, places, true, bounds.most_open);
    if (span.least > span.most) lk__grammar_schema_fail(s, LK_EINVAL, NULL, "no number lies between these bounds");
    uint32_t rule = lk__grammar_rule(s->b, "number", 6, true);
    lk__grammar_body(s->b, rule, lk__grammar_numbers(s->b, &span));
    return lk__grammar_call(s->b, rule);
}
