/* Times the tokenizer:  tokenizer_bench train VOCAB FILE THREADS OUT.json | encode TOKENIZER.json FILE THREADS
 * Prints one JSON line; bench/tokenizer.sh puts it beside other libraries. Best of several runs, the text in memory. */
#include "lockstep/file.h"
#include "lockstep/tokenizer.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static struct lk_err err;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void check(int code) {
    if (!code) return;
    fprintf(stderr, "tokenizer_bench: %s\n", err.message);
    exit(1);
}

static void bench_train(uint32_t vocab, const struct lk_map *text, struct lk_pool *pool, const char *out) {
    struct lk_bytes whole = lk_bytes(text->data, text->size);
    struct lk_buf json = LK_BUF_INIT;
    struct lk_tokenizer *t = NULL;
    double best = 1e9;
    for (int run = 0; run < 3; run++) {
        lk_tokenizer_free(t);
        double begin = now();
        check(lk_tokenizer_train(&whole, 1, vocab, pool, NULL, NULL, &t, &err));
        if (now() - begin < best) best = now() - begin;
    }
    check(lk_tokenizer_export(t, &json, &err));
    check(lk_file_write_atomic(out, json.data, json.size, &err));
    printf("{\"what\": \"train\", \"seconds\": %.4f, \"peak_bytes\": %llu}\n", best,
           (unsigned long long)lk_memory_peak_bytes());
    lk_buf_release(&json);
    lk_tokenizer_free(t);
}

static void bench_encode(const char *path, const struct lk_map *text, struct lk_pool *pool) {
    struct lk_tokenizer *t;
    struct lk_map json;
    struct lk_tokens ids = {0};
    double best = 1e9, begin = now();
    check(lk_map_open(path, &json, &err));
    check(lk_tokenizer_import(json.data, json.size, path, &t, &err));
    for (int run = 0; run < 3 || (run < 20 && now() - begin < 3); run++) {
        ids.count = 0;
        double from = now();
        check(lk_tokenizer_encode(t, text->data, text->size, pool, &ids, &err));
        if (now() - from < best) best = now() - from;
    }
    printf("{\"what\": \"encode\", \"seconds\": %.4f, \"mb_per_second\": %.1f, \"tokens\": %zu}\n", best,
           (double)text->size / best / 1e6, ids.count);
    lk_tokens_release(&ids);
    lk_tokenizer_free(t);
    lk_map_close(&json);
}

int main(int argc, char **argv) {
    bool train = argc == 6 && !strcmp(argv[1], "train");
    if (!train && (argc != 5 || strcmp(argv[1], "encode") != 0)) {
        fprintf(stderr, "usage: tokenizer_bench train VOCAB FILE THREADS OUT.json | encode TOKENIZER.json FILE THREADS\n");
        return 2;
    }
    struct lk_map text;
    struct lk_pool *pool;
    check(lk_map_open(argv[3], &text, &err));
    check(lk_pool_open(atoi(argv[4]), &pool, &err));
    if (train)
        bench_train((uint32_t)atoi(argv[2]), &text, pool, argv[5]);
    else
        bench_encode(argv[2], &text, pool);
    lk_pool_close(pool);
    lk_map_close(&text);
    return 0;
}
