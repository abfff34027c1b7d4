/* Text from a model of the store, or a run's newest checkpoint.
 *   cc generate.c -o generate $(pkg-config --cflags --libs lockstep) && ./generate STORE tiny "Once upon a time" */
#include <lockstep/serve/generate.h>
#include <lockstep/train/train.h>
#include <stdio.h>
#include <string.h>

static int print_text(void *arg, const char *data, size_t size) {
    (void)arg;
    return fwrite(data, 1, size, stdout) != size;
}

int main(int argc, char **argv) {
    struct lk_err err = {0};
    struct lk_store *store = NULL;
    struct lk_pool *pool = NULL;
    struct lk_math *math = NULL;
    struct lk_model_ref ref;
    struct lk_model model = {0};
    struct lk_tokenizer *tokenizer = NULL;
    struct lk_generate_options options = {
        .sampling = {.temperature = 0.8, .top_p = 0.95, .seed = 1}, .max_tokens = 100, .text = print_text};
    struct lk_generation result;
    if (argc != 4) return fprintf(stderr, "usage: generate STORE MODEL|RUN PROMPT\n"), 2;
    int failed =
        lk_store_open(argv[1], LK_READ, &store, &err) || lk_pool_open(lk_threads_default(), &pool, &err) ||
        lk_math_open(pool, NULL, &math, &err) || lk_model_find(store, argv[2], LK_CREATE, NULL, NULL, &ref, &model, &err) ||
        lk_tokenizer_load(store, &model.tokenizer_root, &tokenizer, &err) ||
        lk_generate(math, &model.layout, model.weights, tokenizer, argv[3], strlen(argv[3]), &options, &result, &err);
    if (failed)
        fprintf(stderr, "generate: %s\n", err.message);
    else
        printf("\n%u tokens\n", result.tokens);
    lk_tokenizer_free(tokenizer);
    lk_model_close(&model);
    lk_math_close(math);
    lk_pool_close(pool);
    lk_store_close(store);
    return failed;
}
