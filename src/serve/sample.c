/* Drawing a token: docs/numerics.md, section 10. Ids are thrown into buckets by how far their logits lie below the
 * greatest, and a bucket is ordered (value descending, id ascending) when the draw comes to it. */
#include "lockstep/serve/generate.h"

#include "lockstep/base/random.h"
#include "lockstep/math/scalar.h"
#include <math.h>
#include <string.h>

#define BUCKETS_MOST ((uint32_t)1 << 15)
#define SMALL        24 /* words that are sorted by insertion */

/* A 64-bit word that orders like (value descending, id ascending) when compared descending: the value's bits made
 * monotonic, then the id's complement. */
static uint64_t pack(float x, uint32_t id) {
    uint32_t bits;
    x += 0.0f; /* -0 and +0 are equal: the id decides */
    memcpy(&bits, &x, 4);
    bits ^= -(bits >> 31) | 0x80000000u; /* all bits of a negative one, the sign of a positive one */
    return (uint64_t)bits << 32 | (uint32_t)~id;
}
static uint32_t packed_id(uint64_t w) {
    return ~(uint32_t)w;
}

static void sift_down(uint64_t *heap, uint32_t n, uint32_t i) {
    uint64_t v = heap[i];
    for (uint32_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && heap[child + 1] < heap[child]) child++;
        if (heap[child] >= v) break;
        heap[i] = heap[child];
    }
    heap[i] = v;
}
/* Descending: insertion for a few words, a heap for many (equal logits). */
static void order(uint64_t *words, uint32_t n) {
    if (n <= SMALL) {
        for (uint32_t i = 1; i < n; i++) {
            uint64_t w = words[i];
            uint32_t j = i;
            for (; j > 0 && words[j - 1] < w; j--) words[j] = words[j - 1];
            words[j] = w;
        }
        return;
    }
    for (uint32_t i = n / 2; i-- > 0;) sift_down(words, n, i); /* the least first */
    while (n-- > 1) {
        uint64_t least = words[0];
        words[0] = words[n];
        words[n] = least;
        sift_down(words, n, 0);
    }
}

static uint32_t greatest(const float *logits, uint32_t tokens) {
    uint32_t best = 0;
    for (uint32_t i = 1; i < tokens; i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

static double uniform(const struct lk_sampling *s, uint32_t position) {
    uint32_t w[4];
    lk_random(s->seed, LK_PURPOSE_SAMPLE, position, s->choice, 0, 0, w);
    return (double)(((uint64_t)w[0] << 21) + (w[1] >> 11)) * 0x1p-53;
}

/* --- Ranks ------------------------------------------------------------------------------------------------ */

struct ranks {
    uint64_t *words;  /* (tokens) by bucket, those below `ordered` by rank */
    float *x, *e;     /* (tokens) by id: scaled logits, their exponentials */
    float *ranked;    /* (tokens) exponentials by rank: x's place, which is not needed any more */
    uint32_t *ids;    /* (tokens) those that may be drawn */
    uint32_t *bucket; /* (tokens) theirs */
    uint32_t *ends;   /* (buckets) where a bucket ends in words */
    uint32_t tokens, listed, ordered, next_bucket;
};

static uint32_t buckets_for(uint32_t tokens) {
    uint32_t n = 1;
    while (n < tokens && n < BUCKETS_MOST) n *= 2;
    return n;
}

size_t lk_sample_bytes(uint32_t tokens) {
    return (size_t)tokens * (sizeof(uint64_t) + 2 * sizeof(float) + 2 * sizeof(uint32_t)) +
           ((size_t)buckets_for(tokens) + 1) * sizeof(uint32_t);
}

static struct ranks cut_workspace(void *workspace, uint32_t tokens) {
    struct ranks r = {.words = workspace, .tokens = tokens};
    r.x = r.ranked = (float *)(r.words + tokens);
    r.e = r.x + tokens;
    r.ids = (uint32_t *)(r.e + tokens);
    r.bucket = r.ids + tokens;
    r.ends = r.bucket + tokens;
    return r;
}

/* The greatest and the least of x = logits / t; false if one is NaN or the greatest is infinite. */
static bool scale_logits(const float *logits, float t, struct ranks *r, float *first, float *last) {
    bool numbers = true;
    float most = logits[0] / t, least = most;
    for (uint32_t i = 0; i < r->tokens; i++) {
        float x = logits[i] / t;
        most = x > most ? x : most;
        least = x < least ? x : least;
        numbers &= x == x;
        r->x[i] = x;
    }
    *first = most;
    *last = least;
    return numbers && most - most == 0;
}

/* With top-p of all ids those that have together less than half of what top-p leaves out are never asked for, and with
 * min-p those that are less likely than it asks for: how far down the others begin. The margins are larger than the
 * roundings of exp, log and the sums. top-k asks for so many ranks, wherever they lie. */
static float deepest(const struct lk_sampling *s, uint32_t tokens, double all) {
    float by_top_p = INFINITY, by_min_p = INFINITY;
    if (s->top_k && s->top_k < tokens) return INFINITY;
    if (s->top_p <= 1 - 1e-6) by_top_p = 0.1f - lk_log((float)(all * (1 - s->top_p) / (2.0 * tokens)));
    if (s->min_p >= 1e-30) by_min_p = 0.1f - lk_log((float)s->min_p);
    return by_top_p < by_min_p ? by_top_p : by_min_p;
}

/* A counting sort of the ids that lie no further down than that. What lies further down than exp goes shares the last
 * bucket. first - x and its product with a constant never ascend with x, rounded or not, so no id is in a later bucket than
 * one of a lower rank. */
static void fill_buckets(struct ranks *r, float first, float last, float down_to) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < r->tokens; i++)
        if (first - r->x[i] <= down_to) r->ids[n++] = i;
    uint32_t buckets = buckets_for(n);
    float range = first - last;
    if (range > 64) range = 64;
    if (range > down_to) range = down_to;
    float scale = range > 1e-30f ? (float)(buckets - 1) / range : 0;
    memset(r->ends, 0, ((size_t)buckets + 1) * sizeof *r->ends);
    for (uint32_t i = 0; i < n; i++) {
        float down = first - r->x[r->ids[i]];
        r->bucket[i] = down < range ? (uint32_t)(down * scale) : buckets - 1;
        r->ends[r->bucket[i] + 1]++;
    }
    for (uint32_t b = 1; b <= buckets; b++) r->ends[b] += r->ends[b - 1];
    for (uint32_t i = 0; i < n; i++) r->words[r->ends[r->bucket[i]]++] = pack(r->x[r->ids[i]], r->ids[i]);
    r->listed = n;
}

/* The exponential at a rank; ranks are asked for in order. */
static float next_rank(struct ranks *r, uint32_t rank) {
    LK_ASSERT(rank < r->listed);
    while (rank >= r->ordered) {
        uint32_t end = r->ends[r->next_bucket++];
        order(r->words + r->ordered, end - r->ordered);
        r->ordered = end;
    }
    return r->ranked[rank] = r->e[packed_id(r->words[rank])];
}

/* How many ranks may be drawn, and their sum; `all` is that of all ids. *known: how many exponentials are in r->ranked.
 * Where top-p and min-p both cut, the shorter prefix is left: top-p's share is one of all that top-k keeps. */
static uint32_t keep(struct ranks *r, const struct lk_sampling *s, double all, double *sum, uint32_t *known) {
    uint32_t kept = s->top_k && s->top_k < r->tokens ? s->top_k : r->tokens, prefix = 0;
    double running = 0;
    *known = 0;
    if (kept < r->tokens)
        for (all = 0; *known < kept; ++*known) all += next_rank(r, *known);
    *sum = all;
    if (s->top_p >= 1 && s->min_p <= 0) return kept;
    double enough = s->top_p < 1 ? s->top_p * all : INFINITY;
    if (kept > r->listed) kept = r->listed; /* what is not listed is cut */
    do {
        float e = prefix < *known ? r->ranked[prefix] : next_rank(r, prefix);
        if (e < s->min_p) break;
        running += e;
        prefix++;
    } while (running < enough && prefix < kept);
    *known = *known > prefix ? *known : prefix;
    *sum = running;
    return prefix;
}

int lk_sampling_check(const struct lk_sampling *s, struct lk_err *err) {
    if (!(s->temperature >= 0)) return lk_fail(err, LK_EINVAL, "temperature %g is not 0 or more", s->temperature);
    if (!(s->top_p >= 0 && s->top_p <= 1)) return lk_fail(err, LK_EINVAL, "top_p %g is not from 0 to 1", s->top_p);
    if (!(s->min_p >= 0 && s->min_p <= 1)) return lk_fail(err, LK_EINVAL, "min_p %g is not from 0 to 1", s->min_p);
    return LK_OK;
}

uint32_t lk_sample_token(struct lk_math *math, const float *logits, uint32_t tokens, const struct lk_sampling *s,
                         uint32_t position, void *workspace) {
    LK_NUMERIC_SCOPE();
    float t = (float)s->temperature, first, last;
    if (t == 0 || tokens == 1) return greatest(logits, tokens);
    struct ranks r = cut_workspace(workspace, tokens);
    if (!scale_logits(logits, t, &r, &first, &last)) return greatest(logits, tokens);
    lk_softmax_exp_n(math, tokens, r.x, first, r.e);
    uint32_t known, rank = 0, kept;
    double all = 0, sum, running = 0, u = uniform(s, position);
    for (uint32_t i = 0; i < tokens; i++) all += r.e[i];
    fill_buckets(&r, first, last, deepest(s, tokens, all));
    kept = keep(&r, s, all, &sum, &known);
    do {
        running += rank < known ? r.ranked[rank] : next_rank(&r, rank);
        rank++;
    } while (!(running > u * sum) && rank < kept);
    return packed_id(r.words[rank - 1]);
}
