/* Biases and penalties of logits: docs/numerics.md, section 10. */
#include "penalties.h"

#include "lockstep/base/mem.h"
#include "lockstep/base/thread.h"
#include <math.h>

bool lk_penalties_none(const struct lk_penalties *p) {
    return !p->bias_count && (p->repetition == 0 || p->repetition == 1) && p->presence == 0 && p->frequency == 0;
}

static int check_biases(const struct lk_penalties *p, uint32_t tokens, struct lk_err *err) {
    if (p->bias_count > LK_LOGIT_BIASES_MOST)
        return lk_fail(err, LK_EINVAL, "%zu biases of tokens are more than %d", p->bias_count, LK_LOGIT_BIASES_MOST);
    for (size_t i = 0; i < p->bias_count; i++) {
        const struct lk_logit_bias *b = &p->bias[i];
        if (b->id >= tokens)
            return lk_fail(err, LK_EINVAL, "the bias of token %u: the tokenizer has %u tokens", b->id, tokens);
        if (!(fabsf(b->bias) <= LK_LOGIT_BIAS_MOST))
            return lk_fail(err, LK_EINVAL, "the bias of token %u, %g, is not from -%d to %d", b->id, (double)b->bias,
                           LK_LOGIT_BIAS_MOST, LK_LOGIT_BIAS_MOST);
        for (size_t j = 0; j < i; j++)
            if (p->bias[j].id == b->id) return lk_fail(err, LK_EINVAL, "token %u has two biases", b->id);
    }
    return LK_OK;
}

int lk_penalties_check(const struct lk_penalties *p, uint32_t tokens, struct lk_err *err) {
    if (!(p->repetition >= 0 && p->repetition <= LK_REPETITION_MOST && (p->repetition == 0 || (float)p->repetition > 0)))
        return lk_fail(err, LK_EINVAL, "repetition penalty %g is not above 0 and at most %d", p->repetition,
                       LK_REPETITION_MOST);
    if (!(fabs(p->presence) <= 2)) return lk_fail(err, LK_EINVAL, "presence penalty %g is not from -2 to 2", p->presence);
    if (!(fabs(p->frequency) <= 2))
        return lk_fail(err, LK_EINVAL, "frequency penalty %g is not from -2 to 2", p->frequency);
    return check_biases(p, tokens, err);
}

#define SEEN ((uint32_t)1 << 31) /* in counts: the text has it; below, how often it was drawn */

int lk__serve_counts_init(struct lk__serve_counts *c, uint32_t tokens, struct lk_err *err) {
    *c = (struct lk__serve_counts){.tokens = tokens};
    c->counts = lk_calloc(tokens, sizeof *c->counts);
    c->seen = lk_alloc(tokens * sizeof *c->seen);
    if (c->counts && c->seen) return LK_OK;
    lk__serve_counts_release(c);
    return lk_fail(err, LK_ENOMEM, "no memory for penalties");
}
void lk__serve_counts_release(struct lk__serve_counts *c) {
    lk_free(c->counts);
    lk_free(c->seen);
    *c = (struct lk__serve_counts){0};
}

void lk__serve_counts_add(struct lk__serve_counts *c, uint32_t id, bool drawn) {
    if (id >= c->tokens) return;
    if (!(c->counts[id] & SEEN)) c->seen[c->seen_count++] = id;
    c->counts[id] = (c->counts[id] | SEEN) + drawn;
}

void lk__serve_penalise(const struct lk_penalties *p, const struct lk__serve_counts *c, float *logits) {
    LK_NUMERIC_SCOPE();
    float repetition = p->repetition == 0 ? 1 : (float)p->repetition;
    for (size_t i = 0; i < p->bias_count; i++) logits[p->bias[i].id] += p->bias[i].bias;
    for (uint32_t i = 0; i < c->seen_count; i++) {
        uint32_t id = c->seen[i], drawn = c->counts[id] & ~SEEN;
        float z = logits[id];
        if (repetition != 1) z = z < 0 ? z * repetition : z / repetition;
        if (drawn) z = (float)((double)z - (drawn * p->frequency + p->presence));
        logits[id] = z;
    }
}
