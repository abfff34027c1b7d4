/* JSON Schema while it is read. */
#ifndef LOCKSTEP_SERVE_GRAMMAR_SCHEMA_H
#define LOCKSTEP_SERVE_GRAMMAR_SCHEMA_H
#include "serve/grammar/build.h"

struct lk__grammar_schema {
    struct lk__grammar_build *b;
    const json_t *root;
    struct lk_buf path;                                         /* of what is read, as $.properties.a */
    struct lk__grammar_array targets;                           /* of $ref: (schema, rule) */
    uint32_t character, string, integer, number, value, object; /* rules + 1; 0: not made yet */
    uint32_t depth;
};

/* A schema within a grammar; path: what messages call it. Its pointers are its own. */
uint32_t lk__grammar_schema_part(struct lk__grammar_schema *, const json_t *schema, const char *path);
void lk__grammar_schema_release(struct lk__grammar_schema *);
/* Fails with "PATH.key: ..."; key may be NULL. */
void lk__grammar_schema_fail(struct lk__grammar_schema *, int code, const char *key, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* Calls of rules that many share. */
uint32_t lk__grammar_json_character(struct lk__grammar_schema *);
uint32_t lk__grammar_json_string(struct lk__grammar_schema *);
uint32_t lk__grammar_json_integer(struct lk__grammar_schema *);
uint32_t lk__grammar_json_number(struct lk__grammar_schema *);
uint32_t lk__grammar_json_value(struct lk__grammar_schema *);
uint32_t lk__grammar_json_object(struct lk__grammar_schema *);
/* A whole number of a keyword, 0 to LK__GRAMMAR_REPEAT_MOST; `otherwise` where it is not there. */
uint32_t lk__grammar_schema_count(struct lk__grammar_schema *, const json_t *schema, const char *key, uint32_t otherwise);
/* schema_values.c: what the keywords of a type allow. integer: only whole numbers. */
uint32_t lk__grammar_schema_string(struct lk__grammar_schema *, const json_t *schema);
uint32_t lk__grammar_schema_numeric(struct lk__grammar_schema *, const json_t *schema, bool integer);

#endif
