/* From a text to a model: learns a tokenizer, makes a dataset, trains a tiny model, prints its losses and its root.
 *   cc train.c -o train $(pkg-config --cflags --libs lockstep) && ./train TEXT STORE        (then: generate.c)
 * After `make install PREFIX=DIR`: export PKG_CONFIG_PATH=DIR/lib/pkgconfig LD_LIBRARY_PATH=DIR/lib. */
#include <lockstep/base/file.h>
#include <lockstep/train/train.h>
#include <stdio.h>

static const char configuration[] = "[run]\nname = tiny\nsteps = 20\n"
                                    "[data]\ndataset = text\n"
                                    "[model]\nlayers = 2\nwidth = 64\nheads = 4\ncontext = 64\n"
                                    "[batch]\nsequences = 8\n"
                                    "[optimizer]\nlearning_rate = 3e-3\nwarmup = 5\n";

static void print_step(void *arg, const struct lk_ledger_row *row, uint32_t steps) {
    (void)arg;
    printf("step %u of %u: loss %.4f\n", row->step, steps, row->loss);
}

int main(int argc, char **argv) {
    struct lk_err err = {0};
    struct lk_store *store = NULL;
    struct lk_pool *pool = NULL;
    struct lk_math *math = NULL;
    struct lk_map text = {0};
    struct lk_tokenizer *tokenizer = NULL;
    struct lk_ini ini = {0};
    struct lk_run_config config;
    struct lk_trainer *trainer = NULL;
    struct lk_train_hooks hooks = {.step = print_step};
    struct lk_dataset_source source = {.path = argv[1]};
    struct lk_dataset_options options = {.holdout = 0.05};
    struct lk_root tokenizer_root, dataset_root, weights_root;
    char hex[LK_ROOT_HEX];
    if (argc != 3) return fprintf(stderr, "usage: train TEXT STORE\n"), 2;
    int failed = lk_store_open(argv[2], LK_CREATE, &store, &err) || lk_pool_open(lk_threads_default(), &pool, &err) ||
                 lk_math_open(pool, NULL, &math, &err) || lk_map_open(argv[1], &text, &err);
    struct lk_bytes bytes = lk_bytes(text.data, text.size);
    failed = failed || lk_tokenizer_train(&bytes, 1, 512, pool, NULL, NULL, &tokenizer, &err) ||
             lk_tokenizer_save(store, tokenizer, &tokenizer_root, &err) ||
             lk_dataset_build(store, &source, 1, &tokenizer_root, &options, pool, &dataset_root, &err) ||
             lk_store_name_put(store, "dataset", "text", &dataset_root, &err) ||
             lk_ini_parse(configuration, sizeof configuration - 1, "train.c", &ini, &err) ||
             lk_run_config_read(&ini, &config, &err) ||
             lk_trainer_create(store, math, NULL, &config, &hooks, &trainer, &err) || lk_trainer_run(trainer, &err) ||
             lk_array_root(&lk_trainer_about(trainer)->layout, lk_trainer_state(trainer)->weights, &weights_root, &err);
    if (failed)
        fprintf(stderr, "train: %s\n", err.message);
    else
        printf("weights root %s\n", lk_root_hex(&weights_root, hex));
    lk_trainer_free(trainer);
    lk_ini_release(&ini);
    lk_tokenizer_free(tokenizer);
    lk_map_close(&text);
    lk_math_close(math);
    lk_pool_close(pool);
    lk_store_close(store);
    return failed;
}
