/* Text from a run's newest checkpoint.
 *   cc generate.c -o generate $(pkg-config --cflags --libs lockstep) && ./generate STORE tiny "Once upon a time" */
#include <lockstep/generate.h>
#include <lockstep/train.h>
#include <stdio.h>
#include <string.h>

static int print_text(void *arg, const char *data, size_t size) {
    (void)arg;
    return fwrite(data, 1, size, stdout) != size;
}

static int load_newest(struct lk_store *store, const struct lk_run *run, struct lk_state *state, struct lk_err *err) {
    struct lk_checkpoint *list = NULL;
    size_t count = 0;
    int code = lk_run_checkpoints(store, run->name, &list, &count, err);
    while (!code && count && !list[count - 1].kept) count--;
    if (!code && !count) code = lk_fail(err, LK_ENOTFOUND, "run %s has no checkpoint yet", run->name);
    if (!code) code = lk_state_init(state, &run->layout, false, err);
    if (!code) code = lk_checkpoint_load(store, &list[count - 1].state, state, err);
    lk_free(list);
    return code;
}

int main(int argc, char **argv) {
    struct lk_err err = {0};
    struct lk_store *store = NULL;
    struct lk_pool *pool = NULL;
    struct lk_math *math = NULL;
    struct lk_run run = {0};
    struct lk_state state = {0};
    struct lk_tokenizer *tokenizer = NULL;
    struct lk_generate_options options = {
        .sampling = {.temperature = 0.8, .top_p = 0.95, .seed = 1}, .max_tokens = 100, .text = print_text};
    struct lk_generation result;
    if (argc != 4) return fprintf(stderr, "usage: generate STORE RUN PROMPT\n"), 2;
    int failed =
        lk_store_open(argv[1], false, &store, &err) || lk_pool_open(lk_threads_default(), &pool, &err) ||
        lk_math_open(pool, NULL, &math, &err) || lk_run_open(store, argv[2], &run, &err) ||
        load_newest(store, &run, &state, &err) || lk_tokenizer_load(store, &run.tokenizer, &tokenizer, &err) ||
        lk_generate(math, &run.layout, state.weights, tokenizer, argv[3], strlen(argv[3]), &options, &result, &err);
    if (failed)
        fprintf(stderr, "generate: %s\n", err.message);
    else
        printf("\n%u tokens\n", result.tokens);
    lk_tokenizer_free(tokenizer);
    lk_state_release(&state);
    lk_run_close(&run);
    lk_math_close(math);
    lk_pool_close(pool);
    lk_store_close(store);
    return failed;
}
