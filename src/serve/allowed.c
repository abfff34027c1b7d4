/* A token of those that a mask allows: docs/numerics.md, section 10. */
#include "lockstep/serve/generate.h"

#include <string.h>

size_t lk_sample_allowed_bytes(uint32_t tokens) {
    return lk_sample_bytes(tokens) + (size_t)tokens * (sizeof(float) + sizeof(uint32_t));
}

/* The allowed ids close ranks, in their order, and are drawn from as if there were no others: so sums, ranks and ties are
 * what the rule says of the allowed ones alone, whatever the logits of the others are. */
uint32_t lk_sample_allowed(struct lk_math *math, const float *logits, uint32_t tokens, const uint64_t *allowed,
                           const struct lk_sampling *s, uint32_t position, void *workspace) {
    float *theirs = (float *)((char *)workspace + lk_sample_bytes(tokens));
    uint32_t *ids = (uint32_t *)(theirs + tokens), count = 0;
    for (uint32_t word = 0; word < (tokens + 63) / 64; word++)
        for (uint64_t bits = allowed[word]; bits; bits &= bits - 1) {
            uint32_t id = word * 64 + (uint32_t)__builtin_ctzll(bits);
            if (id >= tokens) break;
            ids[count] = id;
            theirs[count++] = logits[id];
        }
    if (!count) return UINT32_MAX;
    return ids[lk_sample_token(math, theirs, count, s, position, workspace)];
}
