/* JSON Schema as a grammar: the part that docs/structured-output.md names. */
#include "serve/grammar/schema.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t visit(struct lk__grammar_schema *, const json_t *schema);

void lk__grammar_schema_fail(struct lk__grammar_schema *s, int code, const char *key, const char *format, ...) {
    char what[400];
    va_list ap;
    va_start(ap, format);
    vsnprintf(what, sizeof what, format, ap);
    va_end(ap);
    lk__grammar_fail(s->b, code, "%.200s%s%.60s: %s", s->path.data, key ? "." : "", key ? key : "", what);
}
static void no_memory(struct lk__grammar_schema *s) {
    lk__grammar_fail(s->b, LK_ENOMEM, "no memory for a grammar");
}
__attribute__((format(printf, 2, 3))) static size_t enter(struct lk__grammar_schema *s, const char *format, ...) {
    size_t before = s->path.size;
    char part[200];
    va_list ap;
    va_start(ap, format);
    vsnprintf(part, sizeof part, format, ap);
    va_end(ap);
    if (lk_buf_append(&s->path, part, strlen(part))) no_memory(s);
    return before;
}
static void leave(struct lk__grammar_schema *s, size_t before) {
    s->path.size = before;
    if (s->path.data) s->path.data[before] = 0;
}
static size_t enter_name(struct lk__grammar_schema *s, const char *key, const char *name) {
    size_t plain = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_$-");
    return enter(s, !name[plain] && *name ? ".%s.%.100s" : ".%s[\"%.100s\"]", key, name);
}

uint32_t lk__grammar_schema_count(struct lk__grammar_schema *s, const json_t *schema, const char *key, uint32_t otherwise) {
    const json_t *value = json_object_get(schema, key);
    double x = json_number_value(value);
    if (!value || s->b->code) return otherwise;
    if (!json_is_number(value) || x < 0 || x > 9e15 || x != (double)(int64_t)x)
        lk__grammar_schema_fail(s, LK_EINVAL, key, "must be a whole number, 0 or more");
    else if (x > LK__GRAMMAR_REPEAT_MOST)
        lk__grammar_schema_fail(s, LK_EUNSUPPORTED, key, "more than %d is not supported", LK__GRAMMAR_REPEAT_MOST);
    return s->b->code ? otherwise : (uint32_t)x;
}

/* A JSON text as it is. */
static uint32_t text_of(struct lk__grammar_schema *s, const json_t *value, const char *behind) {
    struct lk_buf text = LK_BUF_INIT;
    uint32_t id = 0;
    if (lk_json_python(value, 0, &text) || lk_buf_append(&text, "", 1))
        no_memory(s);
    else
        id = LK__GRAMMAR_SEQ(s->b, lk__grammar_string(s->b, text.data), lk__grammar_string(s->b, behind));
    lk_buf_release(&text);
    return id;
}

/* --- keywords ---------------------------------------------------------------------------------------------- */

enum { ANY_FORM = 1, REF = 2, ANYOF = 4, FIXED = 8, TYPED = 16 }; /* forms of a schema that may have a keyword */
static const struct {
    const char *name;
    unsigned forms;
} keywords[] = {
    {"title", ANY_FORM},
    {"description", ANY_FORM},
    {"default", ANY_FORM},
    {"examples", ANY_FORM},
    {"$schema", ANY_FORM},
    {"$id", ANY_FORM},
    {"$comment", ANY_FORM},
    {"deprecated", ANY_FORM},
    {"readOnly", ANY_FORM},
    {"writeOnly", ANY_FORM},
    {"$defs", ANY_FORM},
    {"definitions", ANY_FORM},
    {"$ref", REF},
    {"anyOf", ANYOF},
    {"enum", FIXED},
    {"const", FIXED},
    {"type", FIXED | TYPED},
    {"minLength", TYPED},
    {"maxLength", TYPED},
    {"pattern", TYPED},
    {"format", TYPED},
    {"minimum", TYPED},
    {"maximum", TYPED},
    {"exclusiveMinimum", TYPED},
    {"multipleOf", TYPED},
    {"exclusiveMaximum", TYPED},
    {"properties", TYPED},
    {"required", TYPED},
    {"additionalProperties", TYPED},
    {"items", TYPED},
    {"minItems", TYPED},
    {"maxItems", TYPED},
};

/* Refuses what is unknown, and what stands beside a keyword that leaves no room for it. */
static void check_keywords(struct lk__grammar_schema *s, const json_t *schema, unsigned form) {
    static const char *const owners[] = {[REF] = "$ref", [ANYOF] = "anyOf", [FIXED] = "enum or const"};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)schema, key, value) {
        size_t i = 0, n = sizeof keywords / sizeof *keywords;
        while (i < n && strcmp(keywords[i].name, key) != 0) i++;
        if (i == n) {
            lk__grammar_schema_fail(s, LK_EUNSUPPORTED, key, "not supported; docs/structured-output.md lists what is");
            return;
        }
        if (keywords[i].forms & (ANY_FORM | form)) continue;
        if (form == TYPED)
            lk__grammar_schema_fail(s, LK_EUNSUPPORTED, key, "not supported here");
        else
            lk__grammar_schema_fail(s, LK_EUNSUPPORTED, key, "not supported beside %s: leave one out", owners[form]);
        return;
    }
}

/* --- $ref -------------------------------------------------------------------------------------------------- */

struct target {
    const json_t *schema;
    uint32_t rule;
};

/* One step of a JSON pointer, decoded, from *at to the next / or the end. */
static void pointer_step(const char **at, char *out, size_t room) {
    size_t n = 0;
    for (; **at && **at != '/'; ++*at) {
        char c = **at;
        if (c == '~' && ((*at)[1] == '0' || (*at)[1] == '1'))
            c = *++*at == '0' ? '~' : '/';
        else if (c == '%' && strspn(*at + 1, "0123456789abcdefABCDEF") >= 2) {
            char code[3] = {(*at)[1], (*at)[2], 0};
            c = (char)strtol(code, NULL, 16);
            *at += 2;
        }
        if (n + 1 < room) out[n++] = c;
    }
    out[n] = 0;
}

/* The schema that a pointer leads to, and its path in s->path. */
static const json_t *resolve(struct lk__grammar_schema *s, const char *ref) {
    const json_t *at = s->root;
    const char *p = ref + 1;
    struct lk_buf path = LK_BUF_INIT;
    char step[512];
    bool kept = !lk_buf_append(&path, "$", 1);
    while (at && *p == '/') {
        p++;
        pointer_step(&p, step, sizeof step);
        char *end;
        if (json_is_array(at)) {
            unsigned long i = strtoul(step, &end, 10);
            at = *end || end == step ? NULL : json_array_get(at, i);
            kept &= !lk_buf_printf(&path, "[%lu]", i);
        } else {
            at = json_object_get(at, step);
            kept &= !lk_buf_printf(&path, ".%.200s", step);
        }
    }
    if (!kept) no_memory(s);
    if (!at || *p) {
        lk__grammar_schema_fail(s, LK_EINVAL, "$ref", "%.100s leads nowhere in this schema", ref);
        at = NULL;
    }
    lk_buf_release(&s->path);
    s->path = path;
    return at;
}

static uint32_t visit_ref(struct lk__grammar_schema *s, const json_t *schema) {
    const json_t *value = json_object_get(schema, "$ref");
    const char *ref = json_string_value(value);
    if (!ref || *ref != '#' || (ref[1] && ref[1] != '/')) {
        lk__grammar_schema_fail(s, LK_EUNSUPPORTED, "$ref", "only # and pointers as #/$defs/name are supported");
        return 0;
    }
    struct lk_buf here = s->path;
    s->path = (struct lk_buf)LK_BUF_INIT;
    if (lk_buf_append(&s->path, here.data, here.size)) no_memory(s);
    const json_t *to = s->b->code ? NULL : resolve(s, ref);
    uint32_t rule = UINT32_MAX;
    for (size_t i = 0; to && i < s->targets.count; i++) {
        const struct target *t = (const struct target *)s->targets.data + i;
        if (t->schema == to) rule = t->rule;
    }
    if (to && rule == UINT32_MAX && !s->b->code) {
        struct target *room = lk__grammar_room(&s->targets, 1, sizeof *room);
        rule = lk__grammar_rule(s->b, ref, strlen(ref), false);
        if (!room) no_memory(s);
        if (!s->b->code) {
            *room = (struct target){to, rule};
            s->targets.count++;
            lk__grammar_body(s->b, rule, visit(s, to));
        }
    }
    lk_buf_release(&s->path);
    s->path = here;
    return s->b->code ? 0 : lk__grammar_call(s->b, rule);
}

/* --- fixed values and alternatives ------------------------------------------------------------------------- */

static bool is_type(const json_t *value, const char *type) {
    if (!strcmp(type, "number")) return json_is_number(value);
    if (!strcmp(type, "integer"))
        return json_is_integer(value) ||
               (json_is_real(value) && json_real_value(value) == (double)(int64_t)json_real_value(value));
    return (!strcmp(type, "string") && json_is_string(value)) || (!strcmp(type, "boolean") && json_is_boolean(value)) ||
           (!strcmp(type, "null") && json_is_null(value)) || (!strcmp(type, "array") && json_is_array(value)) ||
           (!strcmp(type, "object") && json_is_object(value));
}
static bool has_type(const json_t *types, const json_t *value) {
    if (!types) return true;
    if (json_is_string(types)) return is_type(value, json_string_value(types));
    for (size_t i = 0; i < json_array_size(types); i++)
        if (json_is_string(json_array_get(types, i)) && is_type(value, json_string_value(json_array_get(types, i))))
            return true;
    return false;
}

static uint32_t choice_of(struct lk__grammar_schema *s, struct lk__grammar_array *kids) {
    uint32_t id = lk__grammar_choice(s->b, kids->data, kids->count);
    lk_free(kids->data);
    return id;
}
static void add_kid(struct lk__grammar_schema *s, struct lk__grammar_array *kids, uint32_t id) {
    uint32_t *room = s->b->code ? NULL : lk__grammar_room(kids, 1, sizeof *room);
    if (!room)
        no_memory(s);
    else
        *room = id, kids->count++;
}

static uint32_t visit_fixed(struct lk__grammar_schema *s, const json_t *schema) {
    const json_t *fixed = json_object_get(schema, "const"), *list = json_object_get(schema, "enum");
    const json_t *types = json_object_get(schema, "type");
    struct lk__grammar_array kids = {0};
    if (list && (!json_is_array(list) || !json_array_size(list)))
        lk__grammar_schema_fail(s, LK_EINVAL, "enum", "must be a list of one value or more");
    for (size_t i = 0; i < (list ? json_array_size(list) : 1) && !s->b->code; i++) {
        const json_t *value = list ? json_array_get(list, i) : fixed;
        if (fixed && list && !json_equal(fixed, value)) continue;
        if (has_type(types, value)) add_kid(s, &kids, text_of(s, value, ""));
    }
    if (!kids.count)
        lk__grammar_schema_fail(s, LK_EINVAL, list ? "enum" : "const", "no value is of the type that is wanted");
    return choice_of(s, &kids);
}

static uint32_t visit_any_of(struct lk__grammar_schema *s, const json_t *schema) {
    const json_t *list = json_object_get(schema, "anyOf");
    struct lk__grammar_array kids = {0};
    if (!json_is_array(list) || !json_array_size(list))
        lk__grammar_schema_fail(s, LK_EINVAL, "anyOf", "must be a list of one schema or more");
    for (size_t i = 0; i < json_array_size(list) && !s->b->code; i++) {
        size_t before = enter(s, ".anyOf[%zu]", i);
        add_kid(s, &kids, visit(s, json_array_get(list, i)));
        leave(s, before);
    }
    return choice_of(s, &kids);
}

/* --- objects and arrays ------------------------------------------------------------------------------------ */

static bool is_required(const json_t *required, const char *name) {
    for (size_t i = 0; i < json_array_size(required); i++)
        if (!strcmp(json_string_value(json_array_get(required, i)), name)) return true;
    return false;
}
static void check_object(struct lk__grammar_schema *s, const json_t *schema) {
    const json_t *properties = json_object_get(schema, "properties"), *required = json_object_get(schema, "required");
    const json_t *others = json_object_get(schema, "additionalProperties");
    if (properties && !json_is_object(properties)) lk__grammar_schema_fail(s, LK_EINVAL, "properties", "must be an object");
    if (others && !json_is_false(others))
        lk__grammar_schema_fail(s, LK_EUNSUPPORTED, "additionalProperties", "must be false: name all properties");
    if (required && !json_is_array(required)) lk__grammar_schema_fail(s, LK_EINVAL, "required", "must be a list of names");
    for (size_t i = 0; i < json_array_size(required) && !s->b->code; i++) {
        const char *name = json_string_value(json_array_get(required, i));
        size_t before = enter(s, ".required[%zu]", i);
        if (!name)
            lk__grammar_schema_fail(s, LK_EINVAL, NULL, "must be a name");
        else if (!json_object_get(properties, name))
            lk__grammar_schema_fail(s, LK_EINVAL, NULL, "%.60s is none of the properties", name);
        leave(s, before);
    }
}

/* A rule of "name": value. */
static uint32_t property(struct lk__grammar_schema *s, const char *name, const json_t *schema) {
    size_t before = enter_name(s, "properties", name);
    json_t *key = json_string(name);
    uint32_t rule = lk__grammar_rule(s->b, name, strlen(name), false), id = 0;
    if (!key)
        no_memory(s);
    else
        id = text_of(s, key, ": ");
    json_decref(key);
    lk__grammar_body(s->b, rule, LK__GRAMMAR_SEQ(s->b, id, visit(s, schema)));
    leave(s, before);
    return lk__grammar_call(s->b, rule);
}

/* In the schema's order. more: what may come behind the first one that is there, from property i on; begin: the same where
 * none is there yet. Each is a rule, so that their size is a sum. */
static uint32_t visit_object(struct lk__grammar_schema *s, const json_t *schema) {
    struct lk__grammar_build *b = s->b;
    const json_t *properties = json_object_get(schema, "properties"), *required = json_object_get(schema, "required");
    struct lk__grammar_array all = {0};
    const char *name;
    json_t *value;
    check_object(s, schema);
    json_object_foreach((json_t *)(uintptr_t)properties, name, value) {
        if (b->code) break;
        add_kid(s, &all, property(s, name, value));
    }
    uint32_t begin = lk__grammar_string(b, ""), more = begin, comma = lk__grammar_string(b, ", ");
    size_t i = all.count;
    /* from the last to the first */
    const char **names = lk_calloc(all.count + 1, sizeof *names);
    size_t n = 0;
    if (!names)
        no_memory(s);
    else
        json_object_foreach((json_t *)(uintptr_t)properties, name, value) {
            if (n < all.count) names[n++] = name;
        }
    while (i-- > 0 && !b->code) {
        uint32_t kid = ((uint32_t *)all.data)[i], another = LK__GRAMMAR_SEQ(b, comma, kid);
        bool needed = is_required(required, names[i]);
        uint32_t first = LK__GRAMMAR_SEQ(b, kid, more);
        uint32_t rules[] = {lk__grammar_rule(b, NULL, 0, false), lk__grammar_rule(b, NULL, 0, false)};
        lk__grammar_body(b, rules[0], needed ? first : LK__GRAMMAR_ANY(b, first, begin));
        lk__grammar_body(b, rules[1], LK__GRAMMAR_SEQ(b, needed ? another : lk__grammar_repeat(b, another, 0, 1), more));
        begin = lk__grammar_call(b, rules[0]);
        more = lk__grammar_call(b, rules[1]);
    }
    lk_free(names);
    lk_free(all.data);
    return LK__GRAMMAR_SEQ(b, lk__grammar_string(b, "{"), begin, lk__grammar_string(b, "}"));
}

static uint32_t visit_array(struct lk__grammar_schema *s, const json_t *schema) {
    struct lk__grammar_build *b = s->b;
    const json_t *items = json_object_get(schema, "items");
    uint32_t least = lk__grammar_schema_count(s, schema, "minItems", 0);
    uint32_t most = lk__grammar_schema_count(s, schema, "maxItems", LK__GRAMMAR_UNLIMITED);
    if (least > most) lk__grammar_schema_fail(s, LK_EINVAL, "minItems", "%u is more than maxItems, %u", least, most);
    uint32_t rule = lk__grammar_rule(b, "item", 4, false), item = lk__grammar_call(b, rule);
    size_t before = enter(s, ".items");
    lk__grammar_body(b, rule, items ? visit(s, items) : lk__grammar_json_value(s));
    leave(s, before);
    if (b->code) return 0;
    uint32_t open = lk__grammar_string(b, "["), close = lk__grammar_string(b, "]");
    if (!most) return LK__GRAMMAR_SEQ(b, open, close);
    uint32_t rest = lk__grammar_repeat(b, LK__GRAMMAR_SEQ(b, lk__grammar_string(b, ", "), item), least ? least - 1 : 0,
                                       most == LK__GRAMMAR_UNLIMITED ? most : most - 1);
    uint32_t list = LK__GRAMMAR_SEQ(b, item, rest);
    return LK__GRAMMAR_SEQ(b, open, least ? list : lk__grammar_repeat(b, list, 0, 1), close);
}

static uint32_t visit_type(struct lk__grammar_schema *s, const json_t *schema, const char *type) {
    struct lk__grammar_build *b = s->b;
    if (!type)
        lk__grammar_schema_fail(s, LK_EINVAL, "type", "must be a name or a list of names");
    else if (!strcmp(type, "string"))
        return lk__grammar_schema_string(s, schema);
    else if (!strcmp(type, "number") || !strcmp(type, "integer"))
        return lk__grammar_schema_numeric(s, schema, *type == 'i');
    else if (!strcmp(type, "object"))
        return visit_object(s, schema);
    else if (!strcmp(type, "array"))
        return visit_array(s, schema);
    else if (!strcmp(type, "boolean"))
        return LK__GRAMMAR_ANY(b, lk__grammar_string(b, "true"), lk__grammar_string(b, "false"));
    else if (!strcmp(type, "null"))
        return lk__grammar_string(b, "null");
    else
        lk__grammar_schema_fail(s, LK_EINVAL, "type",
                                "%.40s is none of string, number, integer, boolean, null, object and array", type);
    return 0;
}

static uint32_t visit_typed(struct lk__grammar_schema *s, const json_t *schema) {
    const json_t *types = json_object_get(schema, "type");
    struct lk__grammar_array kids = {0};
    if (!json_is_array(types)) return visit_type(s, schema, json_string_value(types));
    if (!json_array_size(types)) lk__grammar_schema_fail(s, LK_EINVAL, "type", "the list is empty");
    for (size_t i = 0; i < json_array_size(types) && !s->b->code; i++)
        add_kid(s, &kids, visit_type(s, schema, json_string_value(json_array_get(types, i))));
    return choice_of(s, &kids);
}

/* Only annotations: any value. */
static bool says_nothing(const json_t *schema) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)schema, key, value) {
        for (size_t i = 0; i < sizeof keywords / sizeof *keywords; i++)
            if (!strcmp(keywords[i].name, key) && keywords[i].forms != ANY_FORM) return false;
    }
    return true;
}

static uint32_t visit(struct lk__grammar_schema *s, const json_t *schema) {
    uint32_t id = 0;
    if (s->b->code) return 0;
    if (json_is_true(schema)) return lk__grammar_json_value(s);
    if (!json_is_object(schema)) {
        lk__grammar_schema_fail(s, json_is_false(schema) ? LK_EUNSUPPORTED : LK_EINVAL, NULL,
                                json_is_false(schema) ? "false, which no value satisfies, is not supported"
                                                      : "a schema must be an object");
        return 0;
    }
    if (++s->depth > LK__GRAMMAR_DEPTH_MOST) {
        lk__grammar_schema_fail(s, LK_EUNSUPPORTED, NULL, "schemas nested deeper than %d are not supported",
                                LK__GRAMMAR_DEPTH_MOST);
        return 0;
    }
    bool fixed = json_object_get(schema, "enum") || json_object_get(schema, "const");
    unsigned form = json_object_get(schema, "$ref")    ? REF
                    : json_object_get(schema, "anyOf") ? ANYOF
                    : fixed                            ? FIXED
                                                       : TYPED;
    check_keywords(s, schema, form);
    if (s->b->code)
        id = 0;
    else if (form == REF)
        id = visit_ref(s, schema);
    else if (form == ANYOF)
        id = visit_any_of(s, schema);
    else if (form == FIXED)
        id = visit_fixed(s, schema);
    else if (json_object_get(schema, "type"))
        id = visit_typed(s, schema);
    else if (says_nothing(schema))
        id = lk__grammar_json_value(s);
    else
        lk__grammar_schema_fail(s, LK_EUNSUPPORTED, NULL,
                                "a schema without type, enum, const, anyOf or $ref must be empty: add its type");
    s->depth--;
    return id;
}

uint32_t lk__grammar_schema_part(struct lk__grammar_schema *s, const json_t *schema, const char *path) {
    s->root = schema;
    s->path.size = 0;
    if (lk_buf_append(&s->path, path, strlen(path))) return no_memory(s), 0;
    return visit(s, schema);
}
void lk__grammar_schema_release(struct lk__grammar_schema *s) {
    lk_buf_release(&s->path);
    lk_free(s->targets.data);
}

int lk_grammar_from_schema(const json_t *schema, struct lk_grammar **out, struct lk_err *err) {
    struct lk__grammar_build b;
    struct lk__grammar_schema s = {.b = &b};
    *out = NULL;
    lk__grammar_build_init(&b, err);
    uint32_t root = lk__grammar_rule(&b, "root", 4, false);
    lk__grammar_body(&b, root, lk__grammar_schema_part(&s, schema, "$"));
    int code = lk__grammar_compile(&b, root, out);
    lk__grammar_schema_release(&s);
    lk__grammar_build_release(&b);
    return code;
}
