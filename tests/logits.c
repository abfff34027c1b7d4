/* logits STORE MODEL IDS OUT: the logits of all positions of a text of ids (uint32, a file), as generation computes them,
 * into OUT (positions, vocab) in float. tests/peers/gguf_peers.py compares them with llama.cpp's. */
#include "lockstep/base/file.h"
#include "lockstep/model/models.h"
#include "lockstep/store/store.h"
#include "model/testing.h"

static void write_logits(const struct lk_model *m, struct lk_math *math, const uint32_t *ids, uint32_t count, FILE *to) {
    const struct lk_layout *l = &m->layout;
    struct lk_decoder *d;
    struct lk_attention_cache cache;
    void *panels = lk_alloc(l->panel_bytes);
    assert_non_null(panels);
    OK(lk_decoder_create(l, math, count, count, LK_EXTEND, &d, &test_err));
    if (lk_decoder_fill_panels(d, m->weights, panels)) lk_decoder_use_panels(d, m->weights, panels);
    OK(lk_attention_cache_init(&cache, l, LK_F32, count, 1, &test_err));
    struct lk_extension e = {ids, (uint32_t[]){0}, 0, count, count};
    const float *logits = lk_decoder_extend(d, m->weights, &cache, &e, 1);
    assert_int_equal(fwrite(logits, sizeof *logits, (size_t)count * l->config.vocab, to), (size_t)count * l->config.vocab);
    lk_attention_cache_release(&cache);
    lk_decoder_free(d);
    lk_free(panels);
}

static const char *const *arguments;
static void work(void **state) {
    struct lk_store *store;
    struct lk_root root;
    struct lk_model m;
    struct lk_buf ids = LK_BUF_INIT;
    (void)state;
    OK(lk_store_open(arguments[1], LK_READ, &store, &test_err));
    OK(lk_store_name_get(store, "model", arguments[2], &root, &test_err));
    OK(lk_model_open_root(store, &root, true, &m, &test_err));
    OK(lk_file_read(arguments[3], (size_t)1 << 24, &ids, &test_err));
    struct test_math math = test_math_open(NULL, 2);
    FILE *to = fopen(arguments[4], "wb");
    assert_non_null(to);
    write_logits(&m, math.math, (const uint32_t *)(void *)ids.data, (uint32_t)(ids.size / 4), to);
    assert_int_equal(fclose(to), 0);
    test_math_close(&math);
    lk_buf_release(&ids);
    lk_model_close(&m);
    lk_store_close(store);
}
int main(int argc, char **argv) {
    if (argc != 5) return 2;
    arguments = (const char *const *)argv;
    const struct CMUnitTest tests[] = {cmocka_unit_test(work)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
