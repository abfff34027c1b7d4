/* Times masks of grammars over texts as tools and extraction have them:
 *   grammar_bench TOKENIZER.json
 * For each case: compiling, then the first text with nothing known, then again with what was kept. A mask is
 * lk_matcher_mask at one token; microseconds. */
#include "bench_machine.h"
#include "bench_median.h"
#include "lockstep/base/file.h"
#include "lockstep/base/progress.h"
#include "lockstep/serve/grammar.h"
#include <stdio.h>
#include <string.h>

static struct lk_err err;
static void check(int code) {
    if (!code) return;
    fprintf(stderr, "grammar_bench: %s\n", err.message);
    exit(1);
}

enum kind { SCHEMA, GBNF, OBJECT };
static const struct {
    const char *name;
    enum kind kind;
    const char *grammar, *text;
} cases[] = {
    {"a tool's arguments", SCHEMA,
     "{\"type\": \"object\", \"properties\": {\"location\": {\"type\": \"string\", \"description\": \"City and country\"}, "
     "\"unit\": {\"type\": \"string\", \"enum\": [\"celsius\", \"fahrenheit\"]}, \"days\": {\"type\": \"integer\", "
     "\"minimum\": 1, \"maximum\": 16}, \"hourly\": {\"type\": \"boolean\"}}, \"required\": [\"location\", \"unit\", "
     "\"days\", \"hourly\"], \"additionalProperties\": false}",
     "{\"location\": \"San Francisco, the United States of America\", \"unit\": \"celsius\", \"days\": 12, \"hourly\": "
     "false}"},
    {"extraction", SCHEMA,
     "{\"type\": \"object\", \"properties\": {\"title\": {\"type\": \"string\"}, \"authors\": {\"type\": \"array\", "
     "\"items\": {\"$ref\": \"#/$defs/person\"}, \"minItems\": 1}, \"published\": {\"type\": \"string\", \"format\": "
     "\"date\"}, \"pages\": {\"anyOf\": [{\"type\": \"integer\", \"minimum\": 1}, {\"type\": \"null\"}]}, \"score\": "
     "{\"type\": \"number\", \"minimum\": 0, \"maximum\": 1}, \"keywords\": {\"type\": \"array\", \"items\": {\"type\": "
     "\"string\"}, \"maxItems\": 10}, \"summary\": {\"type\": \"string\"}}, \"required\": [\"title\", \"authors\", "
     "\"published\", \"pages\", \"score\", \"keywords\", \"summary\"], \"additionalProperties\": false, \"$defs\": "
     "{\"person\": {\"type\": \"object\", \"properties\": {\"name\": {\"type\": \"string\"}, \"email\": {\"type\": "
     "[\"string\", \"null\"], \"format\": \"email\"}}, \"required\": [\"name\", \"email\"], \"additionalProperties\": "
     "false}}}",
     "{\"title\": \"Finite-state machines and what they are good for\", \"authors\": [{\"name\": \"Grace Example\", "
     "\"email\": \"grace@example.com\"}, {\"name\": \"Jos\xc3\xa9 M\xc3\xbcller\", \"email\": null}], \"published\": "
     "\"2024-02-29\", \"pages\": 312, \"score\": 0.875, \"keywords\": [\"automata\", \"parsing\", \"languages\"], "
     "\"summary\": \"The book begins with \\\"regular\\\" languages and goes on to those with a stack. Each chapter has "
     "exercises, and most of them have an answer at the end of the book.\"}"},
    {"a recursive tree", SCHEMA,
     "{\"$ref\": \"#/$defs/node\", \"$defs\": {\"node\": {\"type\": \"object\", \"properties\": {\"type\": {\"enum\": "
     "[\"div\", \"button\", \"header\", \"section\", \"field\", \"form\"]}, \"label\": {\"type\": \"string\"}, "
     "\"children\": {\"type\": \"array\", \"items\": {\"$ref\": \"#/$defs/node\"}}}, \"required\": [\"type\", \"label\", "
     "\"children\"], \"additionalProperties\": false}}}",
     "{\"type\": \"form\", \"label\": \"Sign in\", \"children\": [{\"type\": \"section\", \"label\": \"Who you are\", "
     "\"children\": [{\"type\": \"field\", \"label\": \"Name\", \"children\": []}, {\"type\": \"field\", \"label\": "
     "\"Password\", \"children\": []}]}, {\"type\": \"button\", \"label\": \"Go on\", \"children\": []}]}"},
    {"strings of bounded length", SCHEMA,
     "{\"type\": \"object\", \"properties\": {\"name\": {\"type\": \"string\", \"maxLength\": 64}, \"text\": {\"type\": "
     "\"string\", \"minLength\": 20, \"maxLength\": 400}}, \"required\": [\"name\", \"text\"], "
     "\"additionalProperties\": false}",
     "{\"name\": \"A short notice\", \"text\": \"All of the windows on the north side will be cleaned in the first week of "
     "the month, so please leave nothing on the sills.\"}"},
    {"any JSON object", OBJECT, NULL,
     "{\"id\": 17, \"name\": \"A green door\", \"price\": 12.5, \"tags\": [\"home\", \"green\"], \"size\": {\"width\": "
     "80, \"height\": 200, \"unit\": \"cm\"}, \"sold\": false, \"notes\": null, \"history\": [{\"date\": \"2024-01-01\", "
     "\"price\": 13.25}, {\"date\": \"2024-03-01\", \"price\": 12.5}]}"},
    {"GBNF: JSON, as llama.cpp has it", GBNF,
     "root   ::= object\n"
     "value  ::= object | array | string | number | (\"true\" | \"false\" | \"null\") ws\n"
     "object ::= \"{\" ws ( string \":\" ws value (\",\" ws string \":\" ws value)* )? \"}\" ws\n"
     "array  ::= \"[\" ws ( value (\",\" ws value)* )? \"]\" ws\n"
     "string ::= \"\\\"\" ( [^\"\\\\\\x7F\\x00-\\x1F] | \"\\\\\" ([\"\\\\bfnrt] | \"u\" [0-9a-fA-F]{4}) )* \"\\\"\" ws\n"
     "number ::= (\"-\"? ([0-9] | [1-9] [0-9]{0,15})) (\".\" [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws\n"
     "ws ::= | \" \" | \"\\n\" [ \\t]{0,20}\n",
     "{\n  \"id\": 17,\n  \"name\": \"A green door\",\n  \"tags\": [\n    \"home\",\n    \"green\"\n  ],\n  \"size\": {\n  "
     "  \"width\": 80.5,\n    \"unit\": \"cm\"\n  },\n  \"sold\": false\n}"},
    {"GBNF: sentences of words", GBNF,
     "root ::= sentence+\nsentence ::= word (sep word)* [.?!] \" \"?\nsep ::= \",\"? \" \"\nword ::= [A-Z]? [a-z']+ | num\n"
     "num ::= [0-9]+ (\".\" [0-9]+)?\n",
     "The book begins with languages of words, and goes on to those with a stack. Each of its 12 chapters has exercises."},
};

static struct lk_grammar *compile(size_t i) {
    struct lk_grammar *g;
    if (cases[i].kind == OBJECT)
        check(lk_grammar_json_object(&g, &err));
    else if (cases[i].kind == GBNF)
        check(lk_grammar_from_gbnf(cases[i].grammar, strlen(cases[i].grammar), &g, &err));
    else {
        json_t *schema = lk_json_parse(cases[i].grammar, strlen(cases[i].grammar), cases[i].name, &err);
        if (!schema) check(err.code);
        check(lk_grammar_from_schema(schema, &g, &err));
        json_decref(schema);
    }
    return g;
}

/* Microseconds of each mask, the one behind the last token included; returns how many. */
static size_t follow(struct lk_grammar *g, const struct lk_vocabulary *v, const struct lk_tokens *ids, double *mask,
                     double *accept, uint64_t *bits) {
    struct lk_matcher *m;
    check(lk_matcher_create(g, v, &m, &err));
    for (size_t i = 0; i <= ids->count; i++) {
        uint64_t begin = lk_clock_ns(), middle;
        check(lk_matcher_mask(m, bits, &err));
        middle = lk_clock_ns();
        if (i < ids->count) check(lk_matcher_accept(m, ids->ids[i], &err));
        mask[i] = (double)(middle - begin) * 1e-3;
        accept[i] = (double)(lk_clock_ns() - middle) * 1e-3;
    }
    lk_matcher_free(m);
    return ids->count + 1;
}

int main(int argc, char **argv) {
    struct machine began = machine_now();
    struct lk_map json;
    struct lk_tokenizer *t;
    struct lk_vocabulary *v;
    static double mask[4096], accept[4096], all[1 << 16], times[15];
    size_t count = 0;
    if (argc != 2) {
        fprintf(stderr, "usage: grammar_bench TOKENIZER.json\n");
        return 2;
    }
    check(lk_map_open(argv[1], &json, &err));
    check(lk_tokenizer_import(json.data, json.size, argv[1], &t, &err));
    uint64_t begin = lk_clock_ns();
    check(lk_vocabulary_create(t, NULL, 0, NULL, &v, &err));
    printf("%u tokens, trie in %.1f ms\n", lk_tokenizer_vocab(t), (double)(lk_clock_ns() - begin) * 1e-6);
    uint64_t *bits = lk_alloc(lk_vocabulary_words(v) * sizeof *bits);
    printf("%-34s %7s %8s | %8s %8s %8s | %8s %8s %8s\n", "case (microseconds)", "tokens", "compile", "first", "p99", "max",
           "again", "p99", "accept");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lk_tokens ids = {0};
        struct lk_grammar *g;
        for (int k = 0; k < 15; k++) {
            begin = lk_clock_ns();
            lk_grammar_free(compile(i));
            times[k] = (double)(lk_clock_ns() - begin) * 1e-3;
        }
        g = compile(i);
        check(lk_tokenizer_encode(t, cases[i].text, strlen(cases[i].text), NULL, &ids, &err));
        size_t n = follow(g, v, &ids, mask, accept, bits);
        double first = median(mask, n), p99 = mask[n * 99 / 100], most = mask[n - 1];
        for (int k = 0; k < 20; k++) {
            n = follow(g, v, &ids, mask, accept, bits);
            memcpy(all + count, mask, n * sizeof *mask);
            count += n;
        }
        double again = median(mask, n);
        printf("%-34s %7zu %8.0f | %8.1f %8.1f %8.1f | %8.1f %8.1f %8.1f\n", cases[i].name, ids.count, median(times, 15),
               first, p99, most, again, mask[n * 99 / 100], median(accept, n));
        lk_tokens_release(&ids);
        lk_grammar_free(g);
    }
    double middle = median(all, count);
    printf("%-34s %7zu %8s | %8s %8s %8s | %8.1f %8.1f\n", "all", count, "", "", "", "", middle, all[count * 99 / 100]);
    lk_free(bits);
    lk_vocabulary_free(v);
    lk_tokenizer_free(t);
    lk_map_close(&json);
    return machine_verdict(&began);
}
