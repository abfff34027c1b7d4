/* Drawing a token: docs/numerics.md, section 10. Ids are taken from a heap in the order (value descending, id ascending),
 * so that only as many are ordered as the draw needs. */
#include "lockstep/generate.h"

#include "lockstep/random.h"
#include <string.h>

/* A 64-bit word that orders like (value descending, id ascending) when compared descending: the value's bits made
 * monotonic, then the id's complement. */
static uint64_t pack(float x, uint32_t id) {
    uint32_t bits;
    if (x == 0) x = 0; /* -0 and +0 are equal: the id decides */
    memcpy(&bits, &x, 4);
    bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return (uint64_t)bits << 32 | (uint32_t)~id;
}
static uint32_t packed_id(uint64_t w) {
    return ~(uint32_t)w;
}
static float packed_value(uint64_t w) {
    uint32_t bits = (uint32_t)(w >> 32);
    float x;
    bits = bits & 0x80000000u ? bits & 0x7fffffffu : ~bits;
    memcpy(&x, &bits, 4);
    return x;
}

static void sift_down(uint64_t *heap, uint32_t n, uint32_t i) {
    uint64_t v = heap[i];
    for (uint32_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && heap[child + 1] > heap[child]) child++;
        if (heap[child] <= v) break;
        heap[i] = heap[child];
    }
    heap[i] = v;
}
static uint64_t pop(uint64_t *heap, uint32_t *n) {
    uint64_t top = heap[0];
    heap[0] = heap[--*n];
    if (*n) sift_down(heap, *n, 0);
    return top;
}

static uint32_t greatest(const float *logits, uint32_t tokens) {
    uint32_t best = 0;
    for (uint32_t i = 1; i < tokens; i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

static double uniform(uint64_t seed, uint32_t position) {
    uint32_t w[4];
    lk_random(seed, LK_PURPOSE_SAMPLE, position, 0, 0, 0, w);
    return (double)(((uint64_t)w[0] << 21) + (w[1] >> 11)) * 0x1p-53;
}

uint32_t lk_sample_token(const float *logits, uint32_t tokens, const struct lk_sampling *s, uint32_t position,
                         uint64_t *heap) {
    LK_NUMERIC_SCOPE();
    float t = (float)s->temperature;
    if (t == 0 || tokens == 1) return greatest(logits, tokens);
    uint32_t n = tokens;
    for (uint32_t i = 0; i < n; i++) heap[i] = pack(logits[i] / t, i);
    for (uint32_t i = n / 2; i-- > 0;) sift_down(heap, n, i);
    float first = packed_value(heap[0]);
    if (first - first != 0) return greatest(logits, tokens); /* divided by so little that they are infinite */
    double total = 0, u = uniform(s->seed, position);
    uint32_t kept = s->top_k && s->top_k < n ? s->top_k : n;
    /* The total, in order of ids when everything is kept, in order of rank when only a few are. */
    uint64_t *ranked = heap + n; /* popped words pile up behind the shrinking heap, the first at the end */
    if (kept == n && s->top_p >= 1)
        for (uint32_t i = 0; i < n; i++) total += lk_softmax_exp(logits[i] / t - first);
    else if (kept == n) {
        double all = 0;
        for (uint32_t i = 0; i < n; i++) all += lk_softmax_exp(logits[i] / t - first);
        for (kept = 0; kept == 0 || (total < s->top_p * all && n > 0);) {
            uint64_t w = pop(heap, &n);
            *--ranked = w;
            kept++;
            total += lk_softmax_exp(packed_value(w) - first);
        }
    } else {
        double all = 0;
        for (uint32_t i = 0; i < kept; i++) {
            uint64_t w = pop(heap, &n);
            *--ranked = w;
            all += lk_softmax_exp(packed_value(w) - first);
        }
        total = all;
        if (s->top_p < 1) {
            uint32_t i = 0;
            for (total = 0; i == 0 || (total < s->top_p * all && i < kept); i++)
                total += lk_softmax_exp(packed_value(heap[tokens - 1 - i]) - first);
            kept = i;
        }
    }
    double running = 0;
    uint64_t word = 0;
    for (uint32_t i = 0; i < kept; i++) {
        word = heap + tokens - 1 - i >= ranked ? heap[tokens - 1 - i] : pop(heap, &n);
        running += lk_softmax_exp(packed_value(word) - first);
        if (running > u * total) break;
    }
    return packed_id(word);
}
