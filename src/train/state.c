/* The state of a run: weights, two moments, how many updates and samples. */
#include "state.h"

int lk_state_init(struct lk_state *s, const struct lk_layout *layout, bool moments, struct lk_err *err) {
    *s = (struct lk_state){.layout = layout};
    s->weights = lk_calloc(layout->floats, sizeof(float));
    if (moments) {
        s->moments1 = lk_calloc(layout->floats, sizeof(float));
        s->moments2 = lk_calloc(layout->floats, sizeof(float));
    }
    if (s->weights && (!moments || (s->moments1 && s->moments2))) return LK_OK;
    lk_state_release(s);
    return lk_fail(err, LK_ENOMEM, "no memory for %zu parameters", layout->parameters);
}

int lk__train_state_init_shard(struct lk_state *s, const struct lk__train_shards *shards, float *weights, bool shared,
                               struct lk_err *err) {
    *s = (struct lk_state){.layout = shards->layout, .weights = weights, .shards = shards, .weights_shared = shared};
    s->moments1 = lk_calloc(shards->floats, sizeof(float));
    s->moments2 = lk_calloc(shards->floats, sizeof(float));
    if (s->moments1 && s->moments2) return LK_OK;
    lk_state_release(s);
    return lk_fail(err, LK_ENOMEM, "no memory for the moments of %zu parameters", shards->floats);
}

void lk_state_release(struct lk_state *s) {
    if (!s->shards) lk_free(s->weights);
    lk_free(s->moments1);
    lk_free(s->moments2);
    *s = (struct lk_state){0};
}
