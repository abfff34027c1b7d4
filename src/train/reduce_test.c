/* Ranks, boundaries, ways and orders of arrival change no bit: random cases against the tree written naively, each rank a
 * thread on a network that delivers as it likes. */
#include "model/testing.h"
#include "train/engine.h"
#include "train/fake_comm.h"

#define MOST_GRAINS 24
#define STEPS       3

struct job {
    struct lk_layout layout;
    uint32_t grains, ranks, tokens; /* tokens of a grain */
    uint32_t bounds[FAKE_RANKS + 1];
    float *gradients; /* (STEPS, grains, floats): what each grain's backward pass would give */
    uint32_t *ids;    /* (STEPS, grains, tokens) */
    float *dx;        /* (STEPS, grains, tokens, width) */
    float *expected;  /* (STEPS, floats) */
    double *squares;  /* (STEPS, blocks) */
    struct fake_net net;
    struct test_random random;
};

static const float *gradient_of(const struct job *j, int step, uint32_t grain) {
    return j->gradients + ((size_t)step * j->grains + grain) * j->layout.floats;
}

/* Node (level, index) of the grains' tree, written as the contract says it. */
static bool node(const struct job *j, int step, uint32_t level, uint32_t index, float *out) {
    if ((uint64_t)index << level >= j->grains) return false;
    if (level == 0) {
        memcpy(out, gradient_of(j, step, index), j->layout.floats * sizeof *out);
        return true;
    }
    float *right = lk_alloc(j->layout.floats * sizeof *right);
    node(j, step, level - 1, 2 * index, out);
    if (node(j, step, level - 1, 2 * index + 1, right))
        for (size_t i = 0; i < j->layout.floats; i++) out[i] = out[i] + right[i];
    lk_free(right);
    return true;
}

static void add_rows(const struct job *j, struct lk_embedding_gradient *e, struct lk_math *math, int step, uint32_t grain) {
    size_t at = ((size_t)step * j->grains + grain) * j->tokens;
    lk_embedding_gradient_add(e, math, grain, 1, j->tokens, j->ids + at, j->dx + at * j->layout.config.width);
}

static void expect(struct job *j, struct lk_math *math) {
    struct lk_embedding_gradient *e;
    const struct lk_layout *l = &j->layout;
    struct lk__train_shards one;
    OK(lk__train_shards_init(&one, l, 0, 1, &test_err));
    j->expected = lk_calloc(STEPS * l->floats, sizeof(float));
    j->squares = lk_calloc(STEPS * one.blocks, sizeof(double));
    OK(lk_embedding_gradient_create(l->config.vocab, l->config.width, (size_t)j->grains * j->tokens, NULL, &e, &test_err));
    for (int s = 0; s < STEPS; s++) {
        float *out = j->expected + (size_t)s * l->floats;
        assert_true(node(j, s, 6, 0, out));
        lk_embedding_gradient_begin(e);
        for (uint32_t g = 0; g < j->grains; g++) add_rows(j, e, math, s, g);
        struct lk_embedding_rows rows = lk_embedding_gradient_list(e, math, 0, j->grains, j->grains);
        const struct lk_tensor *table = &l->tensors[l->embedding];
        lk_embedding_rows_finish(math, l->config.width, &rows, 1, 0, table->count, l->head < 0, out + table->offset);
        size_t block = 0;
        for (size_t i = 0; i < l->tensor_count; i++) {
            lk_block_squares(math, l->tensors[i].count, out + l->tensors[i].offset,
                             j->squares + (size_t)s * one.blocks + block);
            block += (l->tensors[i].count + LK_BLOCK - 1) / LK_BLOCK;
        }
        assert_int_equal(block, one.blocks);
    }
    lk_embedding_gradient_free(e);
    lk__train_shards_release(&one);
}

struct worker {
    struct job *job;
    int rank;
    pthread_t thread;
};

/* This rank's partial sums of a step, made as the engine makes them: grain by grain, on the stack. */
static void fill_buffers(const struct job *j, struct lk_math *math, int step, struct lk__train_range range,
                         float **buffers) {
    struct lk__train_tree tree;
    struct lk_tree_step adds[LK__TRAIN_TREE_DEPTH];
    size_t floats = j->layout.floats;
    lk__train_tree_begin(&tree, j->grains);
    for (uint32_t g = range.first; g < range.end; g++) {
        memcpy(buffers[tree.depth], gradient_of(j, step, g), floats * sizeof(float));
        uint32_t n = lk__train_tree_push(&tree, (struct lk__train_node){0, g}, adds);
        for (uint32_t i = 0; i < n; i++)
            lk_add(math, floats, buffers[adds[i].left], buffers[adds[i].right], buffers[adds[i].left]);
    }
    struct lk__train_node nodes[LK__TRAIN_TREE_DEPTH]; /* what the others count on */
    assert_int_equal(lk__train_range_nodes(range, j->grains, nodes), tree.depth);
    for (uint32_t i = 0; i < tree.depth; i++) {
        uint64_t a = (uint64_t)nodes[i].index << nodes[i].level, b = (uint64_t)tree.nodes[i].index << tree.nodes[i].level;
        assert_int_equal(a, b);
    }
}

static void check_step(struct job *j, const struct lk__train_shards *s, int step, float **buffers, const double *squares) {
    const float *want = j->expected + (size_t)step * j->layout.floats;
    for (uint32_t i = 0; i < s->region_count; i++) {
        size_t from = s->regions[i].cuts[s->rank], to = s->regions[i].cuts[s->rank + 1];
        if (memcmp(buffers[0] + from, want + from, (to - from) * sizeof(float)))
            fail_msg("step %d, rank %d of %d, %u grains: region %u has other bits", step, s->rank, s->ranks, j->grains, i);
    }
    assert_memory_equal(squares, j->squares + (size_t)step * s->blocks, s->blocks * sizeof(double));
}

/* Weights as the update leaves them: each rank writes its slices, then all must have all. */
static void check_weights(struct job *j, const struct lk__train_shards *s, struct lk__train_reduce *r, int step) {
    float *w = lk__train_reduce_weights(r);
    for (uint32_t i = 0; i < s->region_count; i++)
        for (size_t k = s->regions[i].cuts[s->rank]; k < s->regions[i].cuts[s->rank + 1]; k++)
            w[k] = (float)(k * 4 + (size_t)step);
    OK(lk__train_reduce_weights_ready(r, &test_err));
    for (size_t k = 0; k < j->layout.floats; k++) assert_true(w[k] == (float)(k * 4 + (size_t)step));
}

static void *work(void *arg) {
    struct worker *w = arg;
    struct job *j = w->job;
    struct test_math m = test_math_open(NULL, 1);
    struct lk_comm *comm = fake_comm_open(&j->net, w->rank);
    struct lk__train_range range = {j->bounds[w->rank], j->bounds[w->rank + 1]};
    struct lk__train_unit *units;
    struct lk__train_shards shards;
    struct lk__train_reduce *r;
    struct lk_embedding_gradient *e;
    struct lk_err err = {0};
    uint32_t count;
    size_t tokens = (size_t)(range.end - range.first) * j->tokens;
    int code = lk__train_units_make(j->grains, j->grains, range, 1, &units, &count, &err);
    uint32_t buffers = lk__train_units_buffers(units, count, j->grains);
    if (!code) code = lk__train_shards_init(&shards, &j->layout, w->rank, (int)j->ranks, &err);
    if (!code) code = lk__train_reduce_open(comm, m.math, &shards, j->grains, j->bounds, buffers, tokens, &r, &err);
    if (!code)
        code = lk_embedding_gradient_create(j->layout.config.vocab, j->layout.config.width, tokens,
                                            lk__train_reduce_embedding_rows(r), &e, &err);
    if (code) fail_msg("%s", err.message);
    double *squares = lk_calloc(shards.blocks, sizeof *squares);
    for (int step = 0; step < STEPS; step++) {
        lk__train_reduce_begin(r, squares);
        fill_buffers(j, m.math, step, range, lk__train_reduce_buffers(r));
        for (uint32_t stage = 0; stage < shards.stages; stage++) {
            if ((w->rank + step + (int)stage) % 3 == 0) sched_yield();
            OK(lk__train_reduce_stage_done(r, stage, &err));
        }
        lk_embedding_gradient_begin(e);
        for (uint32_t g = range.first; g < range.end; g++) add_rows(j, e, m.math, step, g);
        struct lk_embedding_rows rows = lk_embedding_gradient_list(e, m.math, range.first, range.end, j->grains);
        OK(lk__train_reduce_finish(r, &rows, &err));
        check_step(j, &shards, step, lk__train_reduce_buffers(r), squares);
        check_weights(j, &shards, r, step);
    }
    lk_embedding_gradient_free(e);
    lk__train_reduce_close(r);
    lk__train_shards_release(&shards);
    lk_comm_close(comm);
    lk_free(units);
    lk_free(squares);
    test_math_close(&m);
    return NULL;
}

static struct lk_model_config random_model(struct test_random *r) {
    uint32_t heads = 1 + test_random_below(r, 3), dim = 2 * (1 + test_random_below(r, 12));
    return (struct lk_model_config){.family = test_random_below(r, 2) ? LK_GPT2 : LK_LLAMA,
                                    .layers = 1 + test_random_below(r, 3),
                                    .width = heads * dim,
                                    .heads = heads,
                                    .kv_heads = heads,
                                    .head_dim = dim,
                                    .ffn = 1 + test_random_below(r, 200),
                                    .context = 8,
                                    .vocab = 3 + test_random_below(r, 300),
                                    .tied = test_random_below(r, 2),
                                    .norm_epsilon = 1e-5,
                                    .rope_theta = 10000,
                                    .init_std = 0.02};
}

static struct job *make_job(struct test_random *r, struct lk_math *math) {
    struct job *j = lk_calloc(1, sizeof *j);
    struct lk_model_config m = random_model(r);
    OK(lk_layout_init(&j->layout, &m, &test_err));
    j->grains = 1 + test_random_below(r, MOST_GRAINS);
    j->ranks = 1 + test_random_below(r, j->grains < 9 ? j->grains : 9);
    j->tokens = 1 + test_random_below(r, 20);
    size_t floats = j->layout.floats, tokens = (size_t)STEPS * j->grains * j->tokens;
    uint32_t left = j->grains - j->ranks; /* boundaries anywhere, each rank with one grain at least */
    for (uint32_t k = 0; k < j->ranks; k++) {
        uint32_t more = k + 1 == j->ranks ? left : test_random_below(r, left + 1);
        j->bounds[k + 1] = j->bounds[k] + 1 + more;
        left -= more;
    }
    j->gradients = lk_calloc(STEPS * j->grains * floats, sizeof(float));
    for (size_t g = 0; g < (size_t)STEPS * j->grains; g++) /* padding is zero, as in a layout */
        for (size_t i = 0; i < j->layout.tensor_count; i++)
            for (size_t k = 0; k < j->layout.tensors[i].count; k++)
                j->gradients[g * floats + j->layout.tensors[i].offset + k] = (float)(test_uniform(r) - 0.5);
    j->ids = lk_alloc(tokens * sizeof *j->ids);
    j->dx = lk_alloc(tokens * m.width * sizeof *j->dx);
    for (size_t i = 0; i < tokens; i++) j->ids[i] = test_random_below(r, test_random_below(r, 2) ? 3 : m.vocab);
    for (size_t i = 0; i < tokens * m.width; i++) j->dx[i] = (float)(test_uniform(r) - 0.5);
    fake_net_init(&j->net, (int)j->ranks, test_random_below(r, 2), r);
    expect(j, math);
    return j;
}
static void free_job(struct job *j) {
    fake_net_release(&j->net);
    lk_layout_release(&j->layout);
    lk_free(j->gradients);
    lk_free(j->ids);
    lk_free(j->dx);
    lk_free(j->expected);
    lk_free(j->squares);
    lk_free(j);
}

static void ranks_change_no_bit(void **state) {
    (void)state;
    struct test_random r = test_random_open("reduce");
    struct test_math m = test_math_open(NULL, 1);
    uint32_t odd = 0, several = 0;
    for (int n = 0; n < (LK_TSAN ? 20 : 150); n++) {
        struct job *j = make_job(&r, m.math);
        struct worker w[FAKE_RANKS];
        struct lk__train_node nodes[LK__TRAIN_TREE_DEPTH];
        odd += (j->ranks & (j->ranks - 1)) != 0;
        for (uint32_t k = 0; k < j->ranks; k++)
            several +=
                lk__train_range_nodes((struct lk__train_range){j->bounds[k], j->bounds[k + 1]}, j->grains, nodes) > 1;
        for (uint32_t k = 0; k < j->ranks; k++) {
            w[k] = (struct worker){.job = j, .rank = (int)k};
            assert_int_equal(pthread_create(&w[k].thread, NULL, work, &w[k]), 0);
        }
        for (uint32_t k = 0; k < j->ranks; k++) pthread_join(w[k].thread, NULL);
        free_job(j);
    }
    assert_true(odd > 5 && several > 10); /* the cases that a tree of whole subtrees would not see */
    test_math_close(&m);
}

/* --- Sharing grains -------------------------------------------------------------------------------------- */

static double slowest(uint32_t grains, uint32_t ranks, const uint32_t *bounds, double grain, double sum, uint32_t *sums) {
    struct lk__train_node nodes[LK__TRAIN_TREE_DEPTH];
    double worst = 0;
    *sums = 0;
    for (uint32_t k = 0; k < ranks; k++) {
        uint32_t n = lk__train_range_nodes((struct lk__train_range){bounds[k], bounds[k + 1]}, grains, nodes);
        double compute = (bounds[k + 1] - bounds[k]) * grain, traffic = n * sum,
               cost = compute > traffic ? compute : traffic;
        worst = cost > worst ? cost : worst;
        *sums += n;
    }
    return worst;
}
/* All ways of cutting, tried one after another. */
static void try_all(uint32_t grains, uint32_t ranks, uint32_t *bounds, uint32_t k, double grain, double sum, double *best,
                    uint32_t *fewest) {
    if (k == ranks) {
        uint32_t sums;
        bounds[ranks] = grains;
        double cost = slowest(grains, ranks, bounds, grain, sum, &sums);
        if (cost < *best || (cost == *best && sums < *fewest)) *best = cost, *fewest = sums;
        return;
    }
    for (bounds[k] = bounds[k - 1] + 1; bounds[k] + (ranks - k) <= grains; bounds[k]++)
        try_all(grains, ranks, bounds, k + 1, grain, sum, best, fewest);
}

static void boundaries_are_the_best_there_are(void **state) {
    (void)state;
    static const double sums[] = {0, 0.3, 1, 3};
    for (uint32_t grains = 1; grains <= 12; grains++)
        for (uint32_t ranks = 1; ranks <= grains && ranks <= 5; ranks++)
            for (int i = 0; i < 4; i++) {
                uint32_t bounds[8], trial[8] = {0}, count, fewest = UINT32_MAX;
                double best = 1e9;
                OK(lk__train_share_grains(grains, ranks, 1, sums[i], bounds, &test_err));
                assert_true(bounds[0] == 0 && bounds[ranks] == grains);
                for (uint32_t k = 0; k < ranks; k++) assert_true(bounds[k] < bounds[k + 1]);
                double cost = slowest(grains, ranks, bounds, 1, sums[i], &count);
                try_all(grains, ranks, trial, 1, 1, sums[i], &best, &fewest);
                if (cost != best || count != fewest)
                    fail_msg("%u grains, %u ranks, %g: %g with %u sums; there is %g with %u", grains, ranks, sums[i], cost,
                             count, best, fewest);
            }
    uint32_t bounds[65];
    OK(lk__train_share_grains(8, 4, 1, 0.1, bounds, &test_err)); /* whole subtrees where they can */
    for (uint32_t k = 0; k <= 4; k++) assert_int_equal(bounds[k], 2 * k);
    OK(lk__train_share_grains(8, 3, 1, 2, bounds,
                              &test_err)); /* sending is dear: 2, 2, 4 or the like rather than 3, 3, 2 */
    for (uint32_t k = 0; k < 3; k++) assert_int_equal(bounds[k] % 2, 0);
    OK(lk__train_share_grains(4096, 64, 1, 0.1, bounds, &test_err));
    for (uint32_t k = 0; k <= 64; k++) assert_int_equal(bounds[k], 64 * k);
}

/* --- Shards ---------------------------------------------------------------------------------------------- */

struct seen {
    size_t next, blocks;
    uint32_t *owners;
};
static void see(void *arg, const struct lk_tensor *t, size_t offset, size_t count, size_t block) {
    struct seen *s = arg;
    assert_true(offset >= t->offset && offset + count <= t->offset + t->count);
    assert_int_equal((offset - t->offset) % LK_BLOCK, 0); /* a slice begins and ends with a block */
    assert_true((offset + count - t->offset) % LK_BLOCK == 0 || offset + count == t->offset + t->count);
    for (size_t i = 0; i * LK_BLOCK < count; i++) s->owners[block + i]++;
}

static void shards_cover_everything_once(void **state) {
    (void)state;
    struct test_random r = test_random_open("shards");
    for (int n = 0; n < 200; n++) {
        struct lk_model_config m = random_model(&r);
        struct lk_layout l;
        int ranks = 1 + (int)test_random_below(&r, 9);
        OK(lk_layout_init(&l, &m, &test_err));
        struct seen s = {.owners = lk_calloc(l.floats, sizeof(uint32_t))};
        size_t floats = 0, blocks = 0;
        for (int k = 0; k < ranks; k++) {
            struct lk__train_shards shards;
            OK(lk__train_shards_init(&shards, &l, k, ranks, &test_err));
            for (uint32_t i = 0; i < shards.region_count; i++)
                lk__train_shards_pieces(&l, shards.regions[i].cuts[k], shards.regions[i].cuts[k + 1], see, &s);
            floats += shards.floats;
            blocks = shards.blocks;
            lk__train_shards_release(&shards);
        }
        assert_int_equal(floats, l.floats);
        for (size_t b = 0; b < l.floats; b++) assert_int_equal(s.owners[b], b < blocks);
        lk_free(s.owners);
        lk_layout_release(&l);
    }
}

/* Moments of a rank are moments / ranks, within 2%, for a model worth sharing. */
static void shards_are_even(void **state) {
    (void)state;
    struct lk_model_config m = {.family = LK_GPT2,
                                .layers = 12,
                                .width = 768,
                                .heads = 12,
                                .kv_heads = 12,
                                .head_dim = 64,
                                .ffn = 3072,
                                .context = 1024,
                                .vocab = 50304,
                                .tied = true,
                                .norm_epsilon = 1e-5,
                                .rope_theta = 10000,
                                .init_std = 0.02};
    struct lk_layout l;
    OK(lk_layout_init(&l, &m, &test_err));
    for (int ranks = 1; ranks <= 8; ranks++)
        for (int k = 0; k < ranks; k++) {
            struct lk__train_shards s;
            OK(lk__train_shards_init(&s, &l, k, ranks, &test_err));
            double share = (double)s.floats * ranks / (double)l.floats;
            if (share < 0.98 || share > 1.02) fail_msg("rank %d of %d has %.4f of its share", k, ranks, share);
            lk__train_shards_release(&s);
        }
    lk_layout_release(&l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_change_no_bit),
        cmocka_unit_test(boundaries_are_the_best_there_are),
        cmocka_unit_test(shards_cover_everything_once),
        cmocka_unit_test(shards_are_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
