/* How a batch is cut changes no bit: random batches, grains and micro-batches against the tree written naively. */
#include "model/testing.h"
#include "train/units.h"

#define FLOATS 5

struct batch {
    uint32_t sequences, grains;
    float x[64][FLOATS]; /* each sequence's contribution */
};

static void grain_sum(const struct batch *b, uint32_t grain, float *out) {
    uint32_t per = b->sequences / b->grains;
    memset(out, 0, FLOATS * sizeof *out);
    for (uint32_t s = grain * per; s < (grain + 1) * per; s++)
        for (int i = 0; i < FLOATS; i++) out[i] = out[i] + b->x[s][i];
}
/* Node (level, index) of the tree over grains from .. from + count - 1. */
static bool node(const struct batch *b, uint32_t from, uint32_t count, uint32_t level, uint32_t index, float *out) {
    float right[FLOATS];
    if ((uint64_t)index << level >= count) return false;
    if (level == 0) {
        grain_sum(b, from + index, out);
        return true;
    }
    node(b, from, count, level - 1, 2 * index, out);
    if (node(b, from, count, level - 1, 2 * index + 1, right))
        for (int i = 0; i < FLOATS; i++) out[i] = out[i] + right[i];
    return true;
}

/* What the engine does with a unit: whole grains come out as their tree, a part of a grain is added to what is there. */
static void run_unit(const struct batch *b, const struct lk__train_unit *u, float *top) {
    uint32_t per = b->sequences / b->grains;
    if (u->begins && u->ends) {
        assert_int_equal(u->first % per, 0);
        assert_int_equal(u->sequences % per, 0);
        node(b, u->first / per, u->sequences / per, 6, 0, top);
        return;
    }
    assert_int_equal(u->node.level, 0);
    if (u->begins) memset(top, 0, FLOATS * sizeof *top);
    for (uint32_t s = u->first; s < u->first + u->sequences; s++)
        for (int i = 0; i < FLOATS; i++) top[i] = top[i] + b->x[s][i];
}

static void check(const struct batch *b, uint32_t micro_batch, struct lk_math *math) {
    struct lk__train_unit *units;
    uint32_t count, next = 0, most = 0;
    float buffers[16][FLOATS], *pointers[16] = {0}, expected[FLOATS];
    OK(lk__train_units_make(b->sequences, b->grains, (struct lk__train_range){0, b->grains}, micro_batch, &units, &count,
                            &test_err));
    uint32_t needed = lk__train_units_buffers(units, count, b->grains), limit = micro_batch ? micro_batch : b->sequences;
    assert_in_range(needed, 1, 16);
    for (uint32_t i = 0; i < needed; i++) pointers[i] = buffers[i]; /* one more would be a NULL pointer */
    struct lk__train_tree tree;
    struct lk_tree_step steps[LK__TRAIN_TREE_DEPTH];
    lk__train_tree_begin(&tree, b->grains);
    for (uint32_t i = 0; i < count; i++) {
        const struct lk__train_unit *u = &units[i];
        assert_int_equal(u->first, next);
        assert_in_range(u->sequences, 1, limit);
        next += u->sequences;
        if (tree.depth + 1 > most) most = tree.depth + 1;
        run_unit(b, u, pointers[tree.depth]);
        uint32_t adds = u->ends ? lk__train_tree_push(&tree, u->node, steps) : 0;
        for (uint32_t k = 0; k < adds; k++)
            lk_add(math, FLOATS, pointers[steps[k].left], pointers[steps[k].right], pointers[steps[k].left]);
    }
    assert_int_equal(next, b->sequences);
    assert_int_equal(most, needed); /* not one buffer too many */
    assert_int_equal(tree.depth, 1);
    node(b, 0, b->grains, 6, 0, expected);
    if (memcmp(buffers[0], expected, sizeof expected))
        fail_msg("%u sequences, %u grains, micro-batches of %u: other bits", b->sequences, b->grains, micro_batch);
    lk_free(units);
}

static void cutting_changes_no_bit(void **state) {
    (void)state;
    struct test_random r = test_random_open("units");
    struct test_math m = test_math_open(NULL, 1);
    for (int n = 0; n < 1500; n++) {
        uint32_t grains = 1 + test_random_below(&r, n % 3 ? 13 : 40), per = 1 + test_random_below(&r, 64 / grains);
        struct batch b = {.sequences = grains * per, .grains = grains};
        for (uint32_t s = 0; s < b.sequences; s++)
            for (int i = 0; i < FLOATS; i++) b.x[s][i] = (float)(test_uniform(&r) - 0.5);
        check(&b, test_random_below(&r, b.sequences + 3), m.math);
    }
    for (uint32_t grains = 1; grains <= 12; grains++) /* and all small ones */
        for (uint32_t per = 1; per <= 4; per++) {
            struct batch b = {.sequences = grains * per, .grains = grains};
            for (uint32_t s = 0; s < b.sequences; s++)
                for (int i = 0; i < FLOATS; i++) b.x[s][i] = (float)(test_uniform(&r) - 0.5);
            for (uint32_t micro_batch = 0; micro_batch <= b.sequences; micro_batch++) check(&b, micro_batch, m.math);
        }
    test_math_close(&m);
}

/* At most log2(grains) + 1 buffers for grains taken singly, one for the whole batch. */
static void buffers_are_as_many_as_the_stack_is_deep(void **state) {
    (void)state;
    static const uint32_t grains[] = {1, 2, 3, 4, 7, 8, 16}, wanted[] = {1, 2, 2, 3, 3, 4, 5};
    for (int i = 0; i < 7; i++) {
        struct lk__train_unit *units;
        uint32_t count;
        OK(lk__train_units_make(grains[i] * 2, grains[i], (struct lk__train_range){0, grains[i]}, 2, &units, &count,
                                &test_err));
        assert_int_equal(count, grains[i]);
        assert_int_equal(lk__train_units_buffers(units, count, grains[i]), wanted[i]);
        lk_free(units);
        OK(lk__train_units_make(grains[i] * 2, grains[i], (struct lk__train_range){0, grains[i]}, 0, &units, &count,
                                &test_err));
        assert_int_equal(count, 1);
        assert_int_equal(lk__train_units_buffers(units, count, grains[i]), 1);
        lk_free(units);
    }
}

/* Negative control: the sum depends on the order, or the tests above would see nothing. */
static void the_order_matters(void **state) {
    (void)state;
    struct test_random r = {1, 0};
    struct batch b = {.sequences = 24, .grains = 3};
    float tree[FLOATS], flat[FLOATS];
    for (uint32_t s = 0; s < 24; s++)
        for (int i = 0; i < FLOATS; i++) b.x[s][i] = (float)(test_uniform(&r) - 0.5);
    node(&b, 0, 3, 6, 0, tree);
    b.grains = 1;
    grain_sum(&b, 0, flat);
    assert_memory_not_equal(tree, flat, sizeof flat);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cutting_changes_no_bit),
        cmocka_unit_test(buffers_are_as_many_as_the_stack_is_deep),
        cmocka_unit_test(the_order_matters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
