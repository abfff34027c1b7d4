/* Attention: every ISA, thread count and geometry of caches gives the bits of `ref`, for any cut of the queries; and the
 * test can see. */
#include "base/testing.h"
#include "lockstep/math/kernels.h"
#include "math/kernel_table.h"
#include "math/simd/attention_scratch.h"

static uint64_t state = 88172645463325252u;
static uint32_t next(void) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (uint32_t)(state >> 16);
}
static uint32_t between(uint32_t low, uint32_t high) {
    return low + next() % (high - low + 1);
}

static float plain(void) {
    return (float)(next() & 0xffff) / 32768.0f - 1.0f;
}
static float *filled(size_t n, float size, bool hostile) {
    float *x = malloc(n * sizeof *x + 1);
    for (size_t i = 0; i < n; i++) {
        x[i] = plain() * size;
        uint32_t what = hostile ? next() % 40 : 99;
        if (what == 0) x[i] = 0.0f;
        if (what == 1) x[i] = -0.0f;
        if (what == 2) x[i] *= 0x1p-140f;
        if (what == 3) x[i] *= 0x1p-70f;
        if (what == 4) x[i] *= 20;
    }
    return x;
}

static uint32_t bits_of(float x) {
    uint32_t b;
    memcpy(&b, &x, 4);
    return x != x ? 0x7fc00000u : b;
}
static size_t differing(const float *x, const float *y, size_t n) {
    size_t d = 0;
    for (size_t i = 0; i < n; i++) d += bits_of(x[i]) != bits_of(y[i]);
    return d;
}

/* All tensors of one case. q, k and v lie in one fused row, as the model has them. */
struct attention_case {
    struct lk_attention a;
    size_t q_size, o_size, state_size;
    float *qkv, *dout, *o, *m, *r, *dqkv;
    uint32_t *start;
};

static void make(struct attention_case *c, uint32_t sequences, uint32_t positions, uint32_t heads, uint32_t kv_heads,
                 uint32_t d, bool documents, float size, bool hostile) {
    size_t row = (size_t)(heads + 2 * kv_heads) * d + next() % 3;
    memset(c, 0, sizeof *c);
    c->q_size = sequences * positions * row, c->o_size = (size_t)sequences * positions * heads * d;
    c->state_size = (size_t)sequences * heads * positions;
    c->qkv = filled(c->q_size, size, hostile), c->dout = filled(c->o_size, 1, hostile);
    c->o = calloc(c->o_size, 4), c->m = calloc(c->state_size, 4), c->r = calloc(c->state_size, 4),
    c->dqkv = calloc(c->q_size, 4);
    c->start = documents ? malloc((size_t)sequences * positions * 4) : NULL;
    for (uint32_t s = 0; documents && s < sequences; s++)
        for (uint32_t i = 0; i < positions; i++)
            c->start[s * positions + i] = i && next() % 40 ? c->start[s * positions + i - 1] : i;
    c->a = (struct lk_attention){.sequences = sequences,
                                 .queries = positions,
                                 .heads = heads,
                                 .kv_heads = kv_heads,
                                 .head_dim = d,
                                 .q = c->qkv,
                                 .k = c->qkv + (size_t)heads * d,
                                 .v = c->qkv + (size_t)(heads + kv_heads) * d,
                                 .ldq = row,
                                 .ldk = row,
                                 .ldv = row,
                                 .kv_rows = positions,
                                 .document_start = c->start,
                                 .o = c->o,
                                 .ldo = (size_t)heads * d,
                                 .m = c->m,
                                 .r = c->r};
}

static void drop(struct attention_case *c) {
    free(c->qkv), free(c->dout), free(c->o), free(c->m), free(c->r), free(c->dqkv), free(c->start);
}

#define MOST 64
static struct lk_pool *pools[9];
static struct {
    const char *isa, *caches;
    int threads;
    struct lk_math *math;
} maths[MOST];
static int math_count;
static struct lk_math *ref;

static int open_all(void **unused) {
    (void)unused;
    /* Those of this machine with several numbers of threads; a usual small core; the smallest parts and the widest tiles.
     */
    static const struct {
        const char *caches;
        int threads;
    } ways[] = {{"", 1}, {"", 2}, {"", 8}, {"32K/8,1024K/8", 1}, {"32K/8,512K/8", 1}, {"4K/2,32K/4", 2}, {"1K/1,1K/1", 1}};
    const char *isas[8];
    int count = lk_math_isas(isas);
    size_t scratch = lk_attention_scratch_bytes(2100, 1024, true);
    for (int threads = 1; threads <= 8; threads++)
        if (lk_pool_open(threads, &pools[threads], NULL)) return 1;
    if (lk_math_open(pools[2], "ref", &ref, NULL) || lk_math_reserve(ref, scratch, NULL)) return 1;
    for (int i = 0; i < count - 1; i++) /* ref is the last */
        for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
            if (*ways[w].caches && i == count - 2) continue; /* blocked has ref's attention, which looks at no caches */
            setenv("LOCKSTEP_CACHES", ways[w].caches, 1);
            maths[math_count].isa = isas[i], maths[math_count].caches = ways[w].caches;
            maths[math_count].threads = ways[w].threads;
            if (lk_math_open(pools[ways[w].threads], isas[i], &maths[math_count].math, NULL)) return 1;
            if (lk_math_reserve(maths[math_count].math, scratch, NULL)) return 1;
            math_count++;
        }
    unsetenv("LOCKSTEP_CACHES");
    return 0;
}

static int close_all(void **unused) {
    (void)unused;
    for (int i = 0; i < math_count; i++) lk_math_close(maths[i].math);
    lk_math_close(ref);
    for (int threads = 1; threads <= 8; threads++) lk_pool_close(pools[threads]);
    return 0;
}

static void backward(struct lk_math *math, const struct attention_case *c, float *dqkv) {
    lk_attention_backward(
        math, &c->a,
        &(struct lk_attention_gradient){.dout = c->dout,
                                        .ld_dout = c->a.ldo,
                                        .q_scale = 0.37f,
                                        .dq = dqkv,
                                        .dk = dqkv + (size_t)c->a.heads * c->a.head_dim,
                                        .dv = dqkv + (size_t)(c->a.heads + c->a.kv_heads) * c->a.head_dim});
}

static void same(const struct attention_case *c, int i, const char *what, const float *want, const float *got, size_t n) {
    size_t d = differing(want, got, n);
    if (d)
        fail_msg(
            "%s, caches %s, %d threads, %s: %zu of %zu differ: sequences %u positions %u heads %u/%u d %u documents %d",
            maths[i].isa, maths[i].caches, maths[i].threads, what, d, n, c->a.sequences, c->a.queries, c->a.heads,
            c->a.kv_heads, c->a.head_dim, c->start != NULL);
}

/* Forward and backward by every ISA and some thread counts against ref. */
static void check(struct attention_case *c, bool with_backward, int most) {
    lk_attention_forward(ref, &c->a);
    if (with_backward) backward(ref, c, c->dqkv);
    float *o = calloc(c->o_size, 4), *m = calloc(c->state_size, 4), *r = calloc(c->state_size, 4),
          *dqkv = calloc(c->q_size, 4);
    struct lk_attention a = c->a;
    a.o = o, a.m = m, a.r = r;
    for (int i = 0; i < math_count && i < most; i++) {
        lk_attention_forward(maths[i].math, &a);
        same(c, i, "m", c->m, m, c->state_size);
        same(c, i, "r", c->r, r, c->state_size);
        same(c, i, "o", c->o, o, c->o_size);
        if (!with_backward) continue;
        backward(maths[i].math, c, dqkv);
        same(c, i, "dq, dk, dv", c->dqkv, dqkv, c->q_size);
        memset(o, 0, c->o_size * 4), memset(dqkv, 0, c->q_size * 4);
    }
    free(o), free(m), free(r), free(dqkv);
}

/* No kernel writes past what lk_attention_scratch_bytes says, neither where there is a backward pass nor where there is
 * none. */
static void scratch_is_enough(void **unused) {
    (void)unused;
    static const uint32_t shapes[][2] = {{1, 1},     {40, 7},    {31, 64},  {513, 64}, {700, 128},
                                         {1200, 64}, {300, 200}, {530, 80}, {90, 96},  {70, 32}};
    enum { GUARD = 1 << 16, HEADS = 5 };
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int trained = 0; trained < 2; trained++) {
            uint32_t n = shapes[s][0], d = shapes[s][1];
            struct attention_case c;
            make(&c, 1, n, HEADS, 1, d, s & 1, 1, false);
            size_t bytes = lk_attention_scratch_bytes(n, d, trained);
            void *scratch;
            float *blocks = calloc((size_t)n * d / 2, sizeof *blocks);
            assert_int_equal(posix_memalign(&scratch, 64, bytes + GUARD), 0);
            for (int i = 0; i < math_count; i++) {
                const struct lk__math_kernels *k = &maths[i].math->k;
                if (maths[i].threads > 1 && !*maths[i].caches) continue;
                memset((char *)scratch + bytes, 0xa5, GUARD);
                for (uint32_t from = 0; from < n; from += k->attention_query_tile) {
                    uint32_t left = n - from, queries = left < k->attention_query_tile ? left : k->attention_query_tile;
                    k->attention_forward(&c.a, 0, 0, from, from + queries, &k->caches, scratch);
                }
                for (uint32_t few = 1; k->attention_few && few <= k->attention_few_queries && few <= n; few++) {
                    struct lk_attention a = c.a;
                    a.first = n - few, a.queries = few, a.q += a.first * a.ldq, a.m = a.r = NULL;
                    if (a.document_start) a.document_start += a.first;
                    uint32_t rows = HEADS * few < ATTENTION_FEW_ROWS ? HEADS * few : ATTENTION_FEW_ROWS;
                    k->attention_few(&a, 0, 0, 0, rows, scratch);
                    if (d % LK_QUANT_BLOCK) continue;
                    a.kv_dtype = LK_Q8, a.k = a.v = blocks, a.ldk = a.ldv = (lk_dtype_row_bytes(LK_Q8, d) + 3) / 4;
                    k->attention_few(&a, 0, 0, 0, rows, scratch);
                }
                if (trained)
                    k->attention_backward(&c.a, c.dout, c.a.ldo, 0.4f, c.dqkv, c.dqkv + HEADS * d, c.dqkv + (HEADS + 1) * d,
                                          0, 0, &k->caches, scratch);
                for (size_t g = 0; g < GUARD; g++)
                    if (((unsigned char *)scratch)[bytes + g] != 0xa5)
                        fail_msg("%s, caches %s: %u positions, d %u, trained %d: scratch is %zu bytes short", maths[i].isa,
                                 maths[i].caches, n, d, trained, g + 1);
            }
            free(scratch), free(blocks);
            drop(&c);
        }
}

static void random_shapes(void **unused) {
    (void)unused;
    static const uint32_t sizes[] = {1, 7, 12, 16, 20, 33, 40, 64, 80};
    struct attention_case c;
    for (int round = 0; round < 60; round++) {
        uint32_t kv_heads = between(1, 2), group = between(1, 3);
        make(&c, between(1, 2), between(1, round % 5 ? 40 : 140), kv_heads * group, kv_heads, sizes[next() % 9], round & 1,
             round % 3 ? 1.0f : 3.0f, round % 4 == 3);
        check(&c, true, MOST);
        drop(&c);
    }
}

static void long_contexts(void **unused) {
    (void)unused;
    struct attention_case c;
    make(&c, 1, 530, 2, 1, 12, false, 1, true);
    check(&c, true, MOST);
    drop(&c);
    make(&c, 1, 600, 1, 1, 7, true, 2, false);
    check(&c, true, MOST);
    drop(&c);
    make(&c, 1, 1025, 1, 1, 5, false, 1, false);
    check(&c, true, MOST);
    drop(&c);
}

/* Segments whose first keys no later query sees, and documents that begin within a part of the queries; two query heads of
 * one kv head, the second of which adds to what the first left. */
static void long_documents(void **unused) {
    (void)unused;
    static const uint32_t starts[][4] = {{0, 300, 301, 850}, {0, 100, 470, 1024}, {0, 512, 700, 1030}};
    struct attention_case c;
    for (size_t s = 0; s < sizeof starts / sizeof *starts; s++) {
        make(&c, 1, 1100, 2, 1, 9, true, 1, s == 1);
        for (uint32_t i = 0, of = 0; i < 1100; i++) {
            while (of < 3 && starts[s][of + 1] <= i) of++;
            c.start[i] = starts[s][of];
        }
        check(&c, true, MOST);
        drop(&c);
    }
}

static void wide_heads(void **unused) {
    (void)unused;
    struct attention_case c;
    make(&c, 1, 66, 1, 1, 128, false, 0.3f, false);
    check(&c, true, MOST);
    drop(&c);
    make(&c, 1, 20, 1, 1, 600, false, 0.1f, false); /* two segments over d */
    check(&c, true, MOST);
    drop(&c);
}

/* Infinities and NaN in key 0 and value 0, which all queries see, and in the last query, which sees all keys: elsewhere
 * they would meet the weight +0 of a hidden pair, and the contract lets such products be made or left out only against
 * finite factors. All-zero scores, whose maximum has a sign; scores far below the maximum. */
static void special_values(void **unused) {
    (void)unused;
    struct attention_case c;
    const float inf = __builtin_inff(), nan = __builtin_nanf("");
    enum { Q = 0, K = 16, V = 24 };
    const struct {
        int row, column;
        float value;
    } place[] = {{0, K, inf},     {0, K + 1, -inf}, {0, K + 7, nan},  {0, V, inf},
                 {0, V + 1, nan}, {49, Q, inf},     {49, Q + 9, nan}, {49, Q + 3, -inf}};
    for (int round = 0; round < 12; round++) {
        make(&c, 1, 50, 2, 1, 8, false, round == 8 ? 40.0f : 1.0f, true);
        if (round < 8) c.qkv[(size_t)place[round].row * c.a.ldq + (size_t)place[round].column] = place[round].value;
        if (round == 9) memset(c.qkv, 0, c.q_size * 4);
        for (size_t i = 0; round == 10 && i < c.q_size; i++) c.qkv[i] = next() & 1 ? 0.0f : -0.0f;
        for (size_t i = 0; round == 11 && i < c.q_size; i++) c.qkv[i] *= 0x1p-90f; /* products that vanish, of both signs */
        check(&c, true, MOST);
        drop(&c);
    }
}

/* Training's forward, cut into chunks of any size against a cache with spare rows: same bits at every position. */
static void chunks(void **unused) {
    (void)unused;
    struct attention_case c;
    for (int round = 0; round < 6; round++) {
        uint32_t positions = round == 5 ? 560 : between(20, 150), d = round & 1 ? 7 : 16, heads = 4, kv_heads = 2,
                 spare = 9;
        make(&c, 2, positions, heads, kv_heads, d, round % 3 == 2, 1, false);
        lk_attention_forward(ref, &c.a);
        size_t row = c.a.ldq, width = (size_t)heads * d;
        float *cache = calloc(2 * (positions + spare) * row, 4), *q = calloc(2 * positions * row, 4),
              *o = calloc(2 * positions * width, 4);
        uint32_t *start = calloc(2 * positions, 4);
        for (uint32_t s = 0; s < 2; s++)
            memcpy(cache + s * (positions + spare) * row, c.qkv + s * positions * row, positions * row * 4);
        for (int i = 0; i < math_count; i++)
            for (uint32_t first = 0, n; first < positions; first += n) {
                n = round < 2 ? 1 : between(1, 60);
                if (first + n > positions) n = positions - first;
                for (uint32_t s = 0; s < 2; s++) {
                    memcpy(q + s * n * row, c.qkv + (s * positions + first) * row, n * row * 4);
                    if (c.start) memcpy(start + s * n, c.start + s * positions + first, n * 4);
                }
                struct lk_attention a = c.a;
                a.first = first, a.queries = n, a.q = q, a.o = o, a.m = a.r = NULL, a.kv_rows = positions + spare;
                a.k = cache + width, a.v = cache + width + (size_t)kv_heads * d, a.document_start = c.start ? start : NULL;
                lk_attention_forward(maths[i].math, &a);
                for (uint32_t s = 0; s < 2; s++)
                    same(&c, i, "a chunk's o", c.o + (s * positions + first) * width, o + s * n * width, n * width);
            }
        free(cache), free(q), free(o), free(start);
        drop(&c);
    }
}

/* One sequence of a case from position `first` on, its keys and values in pages of random places. */
struct paged {
    float *memory, *q, *o;
    uint32_t *ids, *start;
};
static void put_into_pages(const struct attention_case *c, uint32_t s, uint32_t first, uint32_t n, uint32_t page,
                           struct paged *p, struct lk_attention *a) {
    uint32_t count = (first + n + page - 1) / page, more = between(0, 3), rows = count * page;
    size_t kv = (size_t)c->a.kv_heads * c->a.head_dim, ld = kv + (size_t)next() % 3, row = c->a.ldq,
           stride = 2 * page * ld + next() % 40;
    p->memory = filled((count + more) * stride, 1, true), p->ids = calloc(count + more, 4), p->o = calloc(n * c->a.ldo, 4);
    p->q = calloc(n * row, 4), p->start = calloc(n, 4);
    for (uint32_t i = 0; i < count + more; i++) { /* shuffled */
        uint32_t j = (uint32_t)(next() % (i + 1));
        p->ids[i] = p->ids[j], p->ids[j] = i;
    }
    for (uint32_t j = 0; j < rows && j < first + n; j++) {
        float *k = p->memory + p->ids[j / page] * stride + j % page * ld;
        const float *from = c->qkv + ((size_t)s * c->a.queries + j) * row + (size_t)c->a.heads * c->a.head_dim;
        memcpy(k, from, kv * 4), memcpy(k + page * ld, from + kv, kv * 4);
    }
    memcpy(p->q, c->qkv + ((size_t)s * c->a.queries + first) * row, n * row * 4);
    if (c->start) memcpy(p->start, c->start + (size_t)s * c->a.queries + first, n * 4);
    *a = c->a;
    a->sequences = 1, a->first = first, a->queries = n, a->q = p->q, a->o = p->o, a->m = a->r = NULL;
    a->k = p->memory, a->v = p->memory + page * ld, a->ldk = a->ldv = ld, a->kv_rows = 0;
    a->pages = p->ids, a->page_positions = page, a->page_stride = stride, a->document_start = c->start ? p->start : NULL;
}

/* Sequences of different lengths at once, from pages of any size: the bits of the whole sequence's forward. */
static void pages_and_many(void **unused) {
    (void)unused;
    static const uint32_t sizes[] = {1, 2, 5, 13, 16, 64, 100, 512, 2000}, dims[] = {16, 7, 64, 32, 12};
    struct attention_case c;
    for (int round = 0; round < 14; round++) {
        uint32_t positions = round % 4 == 3 ? 1100 : between(20, 200);
        make(&c, 4, positions, 4, 2, dims[round % 5], round % 3 == 2, 1, round == 5);
        lk_attention_forward(ref, &c.a);
        struct paged p[4];
        struct lk_attention many[4];
        for (uint32_t s = 0; s < 4; s++) {
            uint32_t n = s % 2 ? 1 : between(1, positions < 90 ? positions : 90), first = between(0, positions - n);
            put_into_pages(&c, s, first, n, sizes[next() % 9], &p[s], &many[s]);
        }
        for (int i = -1; i < math_count; i++) {
            for (uint32_t s = 0; s < 4; s++) memset(p[s].o, 1, many[s].queries * c.a.ldo * 4);
            lk_attention_forward_many(i < 0 ? ref : maths[i].math, many, 4);
            for (uint32_t s = 0; s < 4; s++)
                same(&c, i < 0 ? 0 : i, i < 0 ? "ref's o from pages" : "o from pages",
                     c.o + (s * positions + many[s].first) * c.a.ldo, p[s].o, many[s].queries * c.a.ldo);
        }
        for (uint32_t s = 0; s < 4; s++) free(p[s].memory), free(p[s].q), free(p[s].o), free(p[s].ids), free(p[s].start);
        drop(&c);
    }
}

/* Few queries, as in decoding and with guesses: any number of heads for one kv head, so that rows make several tasks, any
 * d, windows of any width, keys in pages or not; the pages before all windows are no pages any more. What is worse than
 * ordinary numbers: mode 1 zeros of both signs, 2 products that vanish, 3 infinities and NaN in key and value 0, which all
 * queries then see, 4 NaN in one query. */
static void few_case(uint32_t queries, uint32_t positions, uint32_t heads, uint32_t kv_heads, uint32_t d, uint32_t page,
                     bool windows, int mode) {
    struct attention_case c;
    make(&c, 1, positions, heads, kv_heads, d, windows, d > 300 ? 0.2f : 1, next() % 2);
    uint32_t window = between(1, positions), first = positions - queries, low = windows ? positions : 0;
    for (uint32_t i = 0; windows && i < positions; i++) c.start[i] = i < window ? 0 : i - window + 1;
    for (uint32_t i = first; windows && i < positions; i++) low = c.start[i] < low ? c.start[i] : low;
    for (size_t i = 0; mode == 1 && i < c.q_size; i++) c.qkv[i] = next() & 1 ? 0.0f : -0.0f;
    for (size_t i = 0; mode == 2 && i < c.q_size; i++) c.qkv[i] *= 0x1p-90f;
    float *kv = c.qkv + (size_t)heads * d, bad[] = {__builtin_inff(), -__builtin_inff(), __builtin_nanf("")};
    for (int i = 0; mode == 3 && i < 3; i++) kv[next() % (2 * kv_heads * d)] = bad[next() % 3];
    if (mode == 4) c.qkv[first * c.a.ldq + next() % (heads * d)] = bad[next() % 3];
    struct paged p = {0};
    struct lk_attention a = c.a;
    a.first = first, a.queries = queries, a.q += first * a.ldq, a.document_start = windows ? c.start + first : NULL;
    if (page) put_into_pages(&c, 0, first, queries, page, &p, &a);
    for (uint32_t i = 0; page && i < low / page; i++) p.ids[i] = UINT32_MAX;
    size_t n = (size_t)queries * c.a.ldo, rows = (size_t)queries * heads;
    float *o = malloc(n * 4), *m = malloc(rows * 4), *r = malloc(rows * 4);
    a.o = c.o, a.m = c.m, a.r = c.r;
    lk_attention_forward(ref, &a);
    a.o = o, a.m = m, a.r = r;
    for (int i = 0; i < math_count; i++) {
        memset(o, 1, n * 4), memset(m, 1, rows * 4), memset(r, 1, rows * 4);
        lk_attention_forward(maths[i].math, &a);
        same(&c, i, "m of few queries", c.m, m, rows);
        same(&c, i, "r of few queries", c.r, r, rows);
        same(&c, i, "o of few queries", c.o, o, n);
    }
    free(o), free(m), free(r), free(p.memory), free(p.q), free(p.o), free(p.ids), free(p.start);
    drop(&c);
}
static void few_queries(void **unused) {
    (void)unused;
    static const uint32_t pages[] = {0, 0, 1, 3, 7, 16, 20, 64, 1000},
                          dims[] = {64, 64, 64, 128, 80, 96, 1, 7, 12, 33, 48, 200},
                          groups[][2] = {{1, 1}, {3, 1}, {9, 3}, {4, 4}, {8, 1}, {14, 2}, {17, 1}, {40, 1}};
    for (int round = 0; round < 120; round++) {
        uint32_t queries = round % 2 ? 1 : between(1, 12), group = next() % 8;
        uint32_t positions = queries + between(0, round % 8 == 7 ? 1200 : round % 3 ? 150 : 20);
        few_case(queries, positions, groups[group][0], groups[group][1], dims[next() % 12], pages[next() % 9],
                 round % 5 > 2, 0);
    }
    for (int round = 0; round < 24; round++)
        few_case(between(1, 8), between(8, 100), 6, 2, round % 3 ? 16 : 9, pages[next() % 9], false, 1 + round % 4);
    few_case(1, 40, 3, 1, 1024, 16, false, 0);
    few_case(3, 20, 2, 1, 513, 3, true, 0);
    few_case(2, 15, 2, 2, 1000, 0, false, 0);
}

/* The bits know the order: values and keys of two visible positions swapped give the same sum in another order. */
static void negative_control(void **unused) {
    (void)unused;
    struct attention_case c;
    make(&c, 1, 100, 1, 1, 16, false, 1, false);
    lk_attention_forward(maths[0].math, &c.a);
    float before[16], *last = c.o + 99 * 16;
    memcpy(before, last, sizeof before);
    for (int e = 16; e < 48; e++) {
        float x = c.qkv[3 * c.a.ldq + e];
        c.qkv[3 * c.a.ldq + e] = c.qkv[70 * c.a.ldq + e], c.qkv[70 * c.a.ldq + e] = x;
    }
    lk_attention_forward(maths[0].math, &c.a);
    assert_true(differing(before, last, 16) > 0);
    for (int e = 0; e < 16; e++) assert_true(before[e] - last[e] < 1e-5f && last[e] - before[e] < 1e-5f);
    drop(&c);
}

int main(void) {
    state += 0x9E3779B97F4A7C15u * test_seed("attention");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scratch_is_enough),
        cmocka_unit_test(random_shapes),
        cmocka_unit_test(long_contexts),
        cmocka_unit_test(long_documents),
        cmocka_unit_test(wide_heads),
        cmocka_unit_test(special_values),
        cmocka_unit_test(chunks),
        cmocka_unit_test(pages_and_many),
        cmocka_unit_test(few_queries),
        cmocka_unit_test(negative_control),
    };
    return cmocka_run_group_tests_name("attention", tests, open_all, close_all);
}
