/* constrain TOKENIZER.json SEED TOKENS: for each line of standard input, a JSON Schema, one line: a text that the
 * masks led to, drawn from a model of random numbers, as a JSON string; or "" where TOKENS did not suffice; or, for a
 * schema that is refused, {"refused": MESSAGE}. */
#include "lockstep/base/file.h"
#include "lockstep/base/random.h"
#include "lockstep/serve/grammar.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct lk_err err;
static void check(int code) {
    if (!code) return;
    fprintf(stderr, "constrain: %s\n", err.message);
    exit(1);
}

static uint64_t seed;
static uint32_t below(uint32_t n) {
    static uint32_t step;
    uint32_t w[4];
    lk_random(seed, LK_PURPOSE_VERIFY, step++, 1, 0, 0, w);
    return (uint32_t)((uint64_t)w[0] * n >> 32);
}

/* Any allowed token; one time in three, if there is one, one that begins with what closes something. */
static uint32_t choose(const struct lk_tokenizer *t, const uint64_t *bits) {
    uint32_t count[2] = {0}, chosen[2] = {0};
    for (uint32_t id = 0; id < lk_tokenizer_vocab(t); id++) {
        if (!(bits[id / 64] >> id % 64 & 1)) continue;
        struct lk_bytes b = lk_tokenizer_bytes(t, id);
        bool closes = id == lk_tokenizer_end(t) || (b.size && strchr("\"]},", *(const char *)b.data));
        if (below(++count[0]) == 0) chosen[0] = id;
        if (closes && below(++count[1]) == 0) chosen[1] = id;
    }
    if (!count[0]) return UINT32_MAX;
    return chosen[count[1] && below(3) == 0];
}

static void print(const char *data, size_t size) {
    json_t *text = json_stringn(data, size);
    if (!text) {
        fprintf(stderr, "constrain: a text is not UTF-8\n");
        exit(1);
    }
    json_dumpf(text, stdout, JSON_ENCODE_ANY);
    putchar('\n');
    json_decref(text);
}

static void generate(const struct lk_tokenizer *t, const struct lk_vocabulary *v, struct lk_grammar *g, uint32_t most) {
    struct lk_matcher *m;
    struct lk_buf text = LK_BUF_INIT;
    uint64_t *bits = lk_alloc(lk_vocabulary_words(v) * sizeof *bits);
    uint32_t id = 0;
    check(lk_matcher_create(g, v, &m, &err));
    for (uint32_t n = 0; n < most && id != lk_tokenizer_end(t); n++) {
        check(lk_matcher_mask(m, bits, &err));
        id = choose(t, bits);
        if (id == UINT32_MAX) {
            fprintf(stderr, "constrain: nothing may come after %.*s\n", (int)text.size, text.data);
            exit(1);
        }
        check(lk_matcher_accept(m, id, &err));
        struct lk_bytes b = lk_tokenizer_bytes(t, id);
        if (id != lk_tokenizer_end(t)) check(lk_buf_append(&text, b.data, b.size));
    }
    if (id == lk_tokenizer_end(t))
        print(text.data, text.size);
    else
        print("", 0);
    lk_matcher_free(m);
    lk_buf_release(&text);
    lk_free(bits);
}

int main(int argc, char **argv) {
    struct lk_map json;
    struct lk_tokenizer *t;
    struct lk_vocabulary *v;
    char *line = NULL;
    size_t room = 0;
    if (argc != 4) {
        fprintf(stderr, "usage: constrain TOKENIZER.json SEED TOKENS <SCHEMAS\n");
        return 2;
    }
    check(lk_map_open(argv[1], &json, &err));
    check(lk_tokenizer_import(json.data, json.size, argv[1], &t, &err));
    check(lk_vocabulary_create(t, NULL, 0, NULL, &v, &err));
    seed = strtoull(argv[2], NULL, 10);
    for (ssize_t size; (size = getline(&line, &room, stdin)) > 0;) {
        struct lk_grammar *g;
        json_t *schema = lk_json_parse(line, (size_t)size, "schema", &err);
        if (!schema) check(err.code);
        if (lk_grammar_from_schema(schema, &g, &err)) {
            json_t *refused = json_pack("{s:s}", "refused", err.message);
            json_dumpf(refused, stdout, 0);
            putchar('\n');
            json_decref(refused);
        } else
            generate(t, v, g, (uint32_t)strtoul(argv[3], NULL, 10));
        lk_grammar_free(g);
        json_decref(schema);
    }
    free(line);
    lk_vocabulary_free(v);
    lk_tokenizer_free(t);
    lk_map_close(&json);
    return 0;
}
