/* The learning rate of a step: docs/numerics.md, section 8. */
#include "lockstep/math/scalar.h"
#include "lockstep/train/train.h"

double lk_learning_rate(const struct lk_run_config *c, uint32_t step) {
    LK_NUMERIC_SCOPE();
    double rate = c->learning_rate;
    if (step < c->warmup) return rate * ((step + 1.0) / c->warmup);
    if (c->schedule == LK_CONSTANT) return rate;
    double length = c->decay > c->warmup ? (double)(c->decay - c->warmup) : 1;
    double p = (step - c->warmup) / length;
    if (p > 1) p = 1;
    double q = c->min_ratio;
    if (c->schedule == LK_LINEAR) return rate * (q + (1 - q) * (1 - p));
    return rate * (q + (1 - q) * (0.5 * (1 + lk_cos_turns64(p / 2))));
}
