/* Drawing a token: docs/numerics.md, section 10, and README.md, "Sampling". Ids are thrown into buckets by how far their
 * logits lie below the greatest; sums of whole buckets find the few buckets in which something is decided, and only those
 * are ordered (value descending, id ascending). Such sums round otherwise than the page's, so where a decision lies within
 * their error, all ids are ordered and added up as written. */
#include "lockstep/serve/generate.h"

#include "lockstep/base/random.h"
#include "lockstep/math/scalar.h"
#include <math.h>
#include <string.h>

#define BUCKETS_MOST ((uint32_t)1 << 12)
#define LANES        4

typedef float vf __attribute__((vector_size(LANES * 4)));
typedef int32_t vi __attribute__((vector_size(LANES * 4)));

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
        if (child + 1 < n && heap[child + 1] > heap[child]) child++;
        if (heap[child] <= v) break;
        heap[i] = heap[child];
    }
    heap[i] = v;
}

static double uniform(const struct lk_sampling *s, uint32_t position) {
    uint32_t w[4];
    lk_random(s->seed, LK_PURPOSE_SAMPLE, position, s->choice, 0, 0, w);
    return (double)(((uint64_t)w[0] << 21) + (w[1] >> 11)) * 0x1p-53;
}

/* --- Passes over all ids, LANES at once ------------------------------------------------------------------- */

static inline vf load(const float *x) {
    vf v;
    memcpy(&v, x, sizeof v);
    return v;
}
static inline vf choose(vi mask, vf yes, vf no) {
    return (vf)((mask & (vi)yes) | (~mask & (vi)no));
}

/* x = logits / t, the greatest and the least; false if one is NaN or the greatest is infinite. */
static bool scale_logits(const float *logits, uint32_t n, float t, float *x, float *first, float *last) {
    float most = logits[0] / t, least = most;
    vf high = most - (vf){0}, low = high;
    vi nan = {0};
    uint32_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        vf v = load(logits + i) / t;
        memcpy(x + i, &v, sizeof v);
        high = choose(v > high, v, high);
        low = choose(v < low, v, low);
        nan |= v != v;
    }
    for (int j = 0; j < LANES; j++) {
        most = high[j] > most ? high[j] : most;
        least = low[j] < least ? low[j] : least;
        nan[0] |= nan[j];
    }
    for (; i < n; i++) {
        x[i] = logits[i] / t;
        most = x[i] > most ? x[i] : most;
        least = x[i] < least ? x[i] : least;
        nan[0] |= x[i] != x[i];
    }
    *first = most;
    *last = least;
    return !nan[0] && most - most == 0;
}

/* The lowest id of the greatest logit. What is not a number is passed over, and is the greatest where it comes first. */
static uint32_t greatest(const float *logits, uint32_t n) {
    float most = logits[0];
    vf high = most - (vf){0};
    uint32_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        vf v = load(logits + i);
        high = choose(v > high, v, high);
    }
    for (int j = 0; j < LANES; j++) most = high[j] > most ? high[j] : most;
    for (; i < n; i++) most = logits[i] > most ? logits[i] : most;
    for (i = 0; i < n && logits[i] != most; i++) continue;
    return i < n ? i : 0;
}

/* --- Ranks ------------------------------------------------------------------------------------------------ */

struct ranks {
    uint64_t *words;  /* (tokens) a heap of the ids that are listed; behind it those taken from it, the first one last */
    double *sums;     /* (buckets) of exponentials */
    float *x, *e;     /* (tokens) scaled logits, their exponentials */
    uint32_t *counts; /* (buckets) */
    uint16_t *bucket; /* (tokens) an id's; none is in a later one than an id of a lower rank */
    uint32_t tokens, buckets, listed, heaped, loaded;
    uint32_t unlikely; /* the first bucket with an id that min-p cuts off */
    double error;      /* of sums, as a share; 0: they are the page's own, all ids are listed */
    bool sure;
};

static uint32_t buckets_for(uint32_t tokens) {
    uint32_t n = 1;
    while (n < tokens && n < BUCKETS_MOST) n *= 2;
    return n;
}

size_t lk_sample_bytes(uint32_t tokens) {
    size_t bytes = (size_t)tokens * (sizeof(uint64_t) + 2 * sizeof(float) + sizeof(uint16_t)) +
                   (size_t)buckets_for(tokens) * (sizeof(double) + sizeof(uint32_t));
    return (bytes + sizeof(uint64_t) - 1) / sizeof(uint64_t) * sizeof(uint64_t); /* others lie behind it */
}

static struct ranks cut_workspace(void *workspace, uint32_t tokens) {
    struct ranks r = {.words = workspace, .tokens = tokens, .buckets = buckets_for(tokens), .sure = true};
    r.sums = (double *)(r.words + tokens);
    r.x = (float *)(r.sums + r.buckets);
    r.e = r.x + tokens;
    r.counts = (uint32_t *)(r.e + tokens);
    r.bucket = (uint16_t *)(r.counts + r.buckets);
    r.loaded = r.unlikely = r.buckets;
    return r;
}

static void put(struct ranks *r, uint32_t id, int32_t bucket) {
    r->bucket[id] = (uint16_t)bucket;
    r->counts[bucket]++;
    r->sums[bucket] += r->e[id];
}
/* The least float that is not below x, a double from 0 to 1. */
static float float_from(double x) {
    float f = (float)x;
    uint32_t bits;
    memcpy(&bits, &f, 4);
    bits += f < x;
    memcpy(&f, &bits, 4);
    return f;
}
/* What lies further down than exp goes shares the last bucket. first - x and its product with a constant never ascend with
 * x, rounded or not. */
static void fill_buckets(struct ranks *r, float first, float last, double min_p) {
    float range = first - last < 64 ? first - last : 64, end = (float)(r->buckets - 1);
    float scale = range > 1e-30f ? end / range : 0;
    memset(r->counts, 0, r->buckets * sizeof *r->counts);
    memset(r->sums, 0, r->buckets * sizeof *r->sums);
    float likely = float_from(min_p);
    vi none = (int32_t)r->buckets - (vi){0}, unlikely = none;
    uint32_t i = 0;
    for (; i + LANES <= r->tokens; i += LANES) {
        vf down = first - load(r->x + i);
        vi b = __builtin_convertvector(choose(down < range, down * scale, end - (vf){0}), vi);
        vi cut = load(r->e + i) < likely, found = (cut & b) | (~cut & none), less = found < unlikely;
        unlikely = (less & found) | (~less & unlikely);
        for (uint32_t j = 0; j < LANES; j++) put(r, i + j, b[j]);
    }
    for (; i < r->tokens; i++) {
        float down = first - r->x[i];
        put(r, i, (int32_t)(down < range ? down * scale : end));
        if (r->e[i] < likely && r->bucket[i] < unlikely[0]) unlikely[0] = r->bucket[i];
    }
    for (int j = 0; j < LANES; j++)
        if ((uint32_t)unlikely[j] < r->unlikely) r->unlikely = (uint32_t)unlikely[j];
}

/* Whether one of four ids may be in a bucket: a difference of 0 borrows from the bit above those of any bucket. */
static bool any_of_four(const uint16_t *buckets, uint32_t bucket) {
    const uint64_t ones = 0x0001000100010001;
    uint64_t four;
    memcpy(&four, buckets, sizeof four);
    return ((four ^ bucket * ones) - ones) & ones << 15;
}
/* Lists the ids of a bucket, or all with `buckets`. */
static void list(struct ranks *r, uint32_t bucket) {
    if (r->loaded == bucket && r->listed) return;
    uint32_t n = 0;
    for (uint32_t i = 0; i < r->tokens; i++) {
        while (bucket < r->buckets && i + 4 <= r->tokens && !any_of_four(r->bucket + i, bucket)) i += 4;
        if (i < r->tokens && (r->bucket[i] == bucket || bucket == r->buckets)) r->words[n++] = pack(r->x[i], i);
    }
    for (uint32_t i = n / 2; i-- > 0;) sift_down(r->words, n, i);
    r->listed = r->heaped = n;
    r->loaded = bucket;
}

/* The id of a rank among those that are listed; ranks are asked for in order. */
static uint32_t id_of(struct ranks *r, uint32_t rank) {
    LK_ASSERT(rank < r->listed);
    while (r->listed - r->heaped <= rank) {
        uint64_t first = r->words[0];
        r->words[0] = r->words[--r->heaped];
        r->words[r->heaped] = first;
        sift_down(r->words, r->heaped, 0);
    }
    return packed_id(r->words[r->listed - 1 - rank]);
}

/* The first ranks: how many, the sum of their exponentials, the id of the last. */
struct prefix {
    uint32_t count, id;
    double sum;
};
/* Up to the first rank with which the sum is `enough` (or beyond that), but no more than `most` and none less likely than
 * min_p. With an error, a bucket that is surely part of it is skipped, and r->sure tells if the end was within the error.
 */
static struct prefix find(struct ranks *r, uint32_t most, double enough, bool beyond, double min_p) {
    struct prefix p = {0};
    double low = enough * (1 - r->error), high = enough * (1 + r->error);
    uint32_t b = 0, last = min_p > 0 ? r->unlikely : r->buckets, rank = 0;
    if (last == r->buckets) last--;
    if (r->error > 0) {
        for (; b < last && p.sum + r->sums[b] < low && p.count + r->counts[b] < most; b++) {
            p.sum += r->sums[b];
            p.count += r->counts[b];
        }
        list(r, b);
    }
    do {
        if (rank == r->listed) {
            r->sure = false;
            break;
        }
        uint32_t id = id_of(r, rank++);
        if (r->e[id] < min_p) break;
        p.sum += r->e[id];
        p.id = id;
        p.count++;
        if (p.sum >= low && p.sum <= high) r->sure = false;
    } while (p.count < most && !(beyond ? p.sum > enough : p.sum >= enough));
    return p;
}

/* Where top-p and min-p both cut, the shorter prefix is left: top-p's share is one of all that top-k keeps. */
static uint32_t draw(struct ranks *r, const struct lk_sampling *s, double u) {
    struct prefix kept = {.count = s->top_k && s->top_k < r->tokens ? s->top_k : r->tokens};
    if (kept.count < r->tokens)
        kept = find(r, kept.count, INFINITY, false, 0);
    else if (r->error > 0)
        for (uint32_t b = 0; b < r->buckets; b++) kept.sum += r->sums[b];
    else
        for (uint32_t i = 0; i < r->tokens; i++) kept.sum += r->e[i];
    if (s->top_p < 1 || s->min_p > 0)
        kept = find(r, kept.count, s->top_p < 1 ? s->top_p * kept.sum : INFINITY, false, s->min_p);
    return find(r, kept.count, u * kept.sum, true, 0).id;
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
    if (!scale_logits(logits, tokens, t, r.x, &first, &last)) return greatest(logits, tokens);
    lk_softmax_exp_n(math, tokens, r.x, first, r.e);
    fill_buckets(&r, first, last, s->min_p);
    /* A sum of n terms in any order is off by less than n halves of an ulp of what is added up, nothing of which is
     * negative. Both sides of a comparison are such sums, ours through buckets: four of them, and as much again. */
    r.error = ((double)tokens + r.buckets) * 0x1p-50;
    double u = uniform(s, position);
    uint32_t id = draw(&r, s, u);
    if (r.sure) return id;
    r.error = 0;
    list(&r, r.buckets);
    return draw(&r, s, u);
}
