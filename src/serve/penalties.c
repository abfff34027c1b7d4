/* Biases and penalties of logits: docs/numerics.md, section 10. */
#include "lockstep/serve/generate.h"

#include "lockstep/base/thread.h"
#include <math.h>
#include <string.h>

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

void lk_penalise(const float *logits, uint32_t tokens, const struct lk_penalties *p, const uint32_t *ids, size_t read,
                 size_t drawn, float *out, uint32_t *counts) {
    LK_NUMERIC_SCOPE();
    if (out != logits) memcpy(out, logits, tokens * sizeof *out);
    for (size_t i = 0; i < p->bias_count; i++) out[p->bias[i].id] += p->bias[i].bias;
    float repetition = p->repetition == 0 ? 1 : (float)p->repetition;
    memset(counts, 0, tokens * sizeof *counts);
    for (size_t i = 0; i < drawn; i++)
        if (ids[read + i] < tokens) counts[ids[read + i]]++;
    const uint32_t seen = (uint32_t)1 << 31; /* a token's first place in the text changes its logit, the others nothing */
    for (size_t i = 0; i < read + drawn; i++) {
        uint32_t id = ids[i];
        if (id >= tokens || counts[id] & seen) continue;
        float z = out[id];
        if (repetition != 1) z = z < 0 ? z * repetition : z / repetition;
        if (counts[id]) z = (float)((double)z - (counts[id] * p->frequency + p->presence));
        out[id] = z;
        counts[id] |= seen;
    }
}
