/* The learning rate of a step: docs/numerics.md, section 8. */
#include "lockstep/math/scalar.h"
#include "lockstep/train/train.h"

double lk_learning_rate(const struct lk_run_config *c, uint32_t step) {
    LK_NUMERIC_SCOPE();
    double rate = c->learning_rate;
    if (step < c->warmup) return rate * ((step + 1.0) / c->warmup);
    uint32_t peak = c->schedule == LK_WSD ? c->decay - c->cooldown : c->warmup; /* the last step of the whole rate */
    if (c->schedule == LK_CONSTANT || step < peak) return rate;
    double length = c->decay > peak ? (double)(c->decay - peak) : 1;
    double p = (step - peak) / length;
    if (p > 1) p = 1;
    double q = c->min_ratio;
    if (c->schedule == LK_COSINE) return rate * (q + (1 - q) * (0.5 * (1 + lk_cos_turns64(p / 2))));
    return rate * (q + (1 - q) * (1 - p));
}
