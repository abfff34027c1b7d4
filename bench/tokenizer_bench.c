/* Times the tokenizer:
 *   tokenizer_bench train VOCAB FILE THREADS OUT.json [PATTERN] | encode TOKENIZER.json FILE THREADS CALLS
 * Prints one JSON line; bench/tokenizer.sh puts it beside other libraries. Every call of a process is told apart: the first
 * one has cold caches. crc32 is that of the ids as 32-bit little-endian numbers. BENCH_CLOCK=cpu: seconds of all threads on
 * a core instead of the wall's. */
#include "bench_machine.h"
#include "lockstep/base/file.h"
#include "lockstep/data/tokenizer.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zlib.h>

static struct lk_err err;

static double now(void) {
    struct timespec t;
    const char *clock = getenv("BENCH_CLOCK");
    clock_gettime(clock && !strcmp(clock, "cpu") ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void check(int code) {
    if (!code) return;
    fprintf(stderr, "tokenizer_bench: %s\n", err.message);
    exit(1);
}

static void bench_train(uint32_t vocab, const struct lk_map *text, struct lk_pool *pool, const char *out,
                        const char *pattern) {
    struct lk_bytes whole = lk_bytes(text->data, text->size);
    struct lk_buf json = LK_BUF_INIT;
    struct lk_tokenizer *t = NULL;
    double begin = now();
    check(lk_tokenizer_train_pattern(&whole, 1, vocab, pattern, pool, NULL, NULL, &t, &err));
    double seconds = now() - begin;
    check(lk_tokenizer_export(t, &json, &err));
    check(lk_file_write_atomic(out, json.data, json.size, &err));
    printf("{\"seconds\": %.4f, \"peak_bytes\": %llu}\n", seconds, (unsigned long long)lk_memory_peak_bytes());
    lk_buf_release(&json);
    lk_tokenizer_free(t);
}

static void bench_encode(const char *path, const struct lk_map *text, struct lk_pool *pool, int calls) {
    struct lk_tokenizer *t;
    struct lk_map json;
    struct lk_tokens ids = {0};
    double begin = now();
    check(lk_map_open(path, &json, &err));
    check(lk_tokenizer_import(json.data, json.size, path, &t, &err));
    printf("{\"load\": %.4f, \"calls\": [", now() - begin);
    for (int call = 0; call < calls; call++) {
        lk_tokens_release(&ids); /* every call makes its own answer */
        double from = now();
        check(lk_tokenizer_encode(t, text->data, text->size, pool, &ids, &err));
        printf("%s%.5f", call ? ", " : "", now() - from);
    }
    unsigned long crc = crc32_z(0, (const unsigned char *)ids.ids, ids.count * sizeof *ids.ids);
    printf("], \"tokens\": %zu, \"crc32\": %lu, \"peak_bytes\": %llu}\n", ids.count, crc,
           (unsigned long long)lk_memory_peak_bytes());
    lk_tokens_release(&ids);
    lk_tokenizer_free(t);
    lk_map_close(&json);
}

int main(int argc, char **argv) {
    struct machine began = machine_now();
    bool train = argc >= 6 && argc <= 7 && !strcmp(argv[1], "train");
    if (!train && (argc != 6 || strcmp(argv[1], "encode") != 0)) {
        fprintf(stderr, "usage: tokenizer_bench train VOCAB FILE THREADS OUT.json [PATTERN]\n"
                        "     | tokenizer_bench encode TOKENIZER.json FILE THREADS CALLS\n");
        return 2;
    }
    struct lk_map text;
    struct lk_pool *pool;
    check(lk_map_open(argv[3], &text, &err));
    check(lk_pool_open(atoi(argv[4]), &pool, &err));
    if (train)
        bench_train((uint32_t)atoi(argv[2]), &text, pool, argv[5], argc == 7 ? argv[6] : "gpt2");
    else
        bench_encode(argv[2], &text, pool, atoi(argv[5]));
    lk_pool_close(pool);
    lk_map_close(&text);
    return machine_verdict(&began);
}
