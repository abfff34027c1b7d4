/* Attention: gives (sequence, head, range of queries), where queries are few (sequence, kv head, range of its heads and
 * queries), or, backward, (sequence, kv head) to the pool. Every result is made by one task alone, so threads change no
 * bit. */
#include "lockstep/base/err.h"
#include "math/kernel_table.h"
#include "math/simd/attention_scratch.h"

struct job {
    struct lk_math *math;
    const struct lk_attention *a;
    const struct lk_attention_gradient *g;
    uint32_t few_rows; /* of a task */
};

size_t lk_attention_scratch_bytes(uint32_t positions, uint32_t head_dim, bool backward) {
    size_t forward = attention_forward_floats(positions, head_dim);
    size_t both = backward ? attention_backward_floats(positions, head_dim) : 0;
    return (forward > both ? forward : both) * sizeof(float);
}

static size_t widened_row(uint32_t head_dim) {
    return attention_padded(head_dim);
}
size_t lk_attention_widened_bytes(uint32_t positions, uint32_t head_dim) {
    return (2 * (size_t)positions * widened_row(head_dim) + 16) * sizeof(float);
}

static void check(const struct lk_math *math, const struct lk_attention *a, bool backward) {
    LK_ASSERT(a->kv_heads > 0 && a->heads % a->kv_heads == 0 && a->head_dim > 0);
    LK_ASSERT(a->pages ? a->sequences == 1 && a->page_positions && !backward : a->kv_rows >= a->first + a->queries);
    LK_ASSERT(a->kv_dtype == LK_F32 || (a->kv_dtype == LK_Q8 && a->pages && a->head_dim % LK_QUANT_BLOCK == 0));
    size_t more = a->kv_dtype == LK_Q8 ? lk_attention_widened_bytes(a->first + a->queries, a->head_dim) : 0;
    LK_ASSERT(math->scratch_bytes >= lk_attention_scratch_bytes(a->first + a->queries, a->head_dim, backward) + more);
}

/* What the tasks of a sequence have in common: `heads` times `ranges` of up to `range` of `all`. */
struct cut {
    bool few;
    uint32_t heads, all, range, ranges;
};
static struct cut cut_of(const struct job *job, const struct lk_attention *a) {
    const struct lk__math_kernels *k = &job->math->k;
    struct cut c = {.few = a->queries <= k->attention_few_queries, .heads = a->heads, .all = a->queries};
    if (c.few) c.heads = a->kv_heads, c.all = a->heads / a->kv_heads * a->queries;
    uint32_t most = c.few ? job->few_rows : k->attention_query_tile;
    c.ranges = (c.all + most - 1) / most;
    /* Ranges of rows are of about the same size, so that they take the same time. */
    c.range = c.few && c.ranges ? (c.all + c.ranges - 1) / c.ranges : most;
    return c;
}
static size_t tasks(const struct job *job, const struct lk_attention *a) {
    struct cut c = cut_of(job, a);
    return (size_t)c.ranges * a->sequences * c.heads;
}
static size_t all_tasks(const struct job *job, size_t count) {
    size_t all = 0;
    for (size_t i = 0; i < count; i++) all += tasks(job, &job->a[i]);
    return all;
}

/* The keys and values that queries [i0, i1) of a kv head see, as floats in scratch, and the attention of its heads that
 * reads these. Much is done with each, so that costs next to nothing. */
static struct lk_attention widened(const struct lk_attention *a, uint32_t kv_head, uint32_t i0, uint32_t i1, float *k) {
    uint32_t group = a->heads / a->kv_heads, d = a->head_dim, low = a->document_start ? a->document_start[i0] : 0;
    size_t ld = widened_row(d), column = (size_t)kv_head * group * d, block = (size_t)kv_head * (d / LK_QUANT_BLOCK) * 34;
    float *v = k + (a->first + a->queries) * ld;
    for (uint32_t j = low; j < a->first + i1; j++) {
        size_t page = a->pages[j / a->page_positions] * a->page_stride, row = j % a->page_positions;
        lk__math_widen_q8(d, (const uint8_t *)(a->k + page + row * a->ldk) + block, k + j * ld);
        lk__math_widen_q8(d, (const uint8_t *)(a->v + page + row * a->ldv) + block, v + j * ld);
    }
    struct lk_attention one = *a;
    one.heads = group, one.kv_heads = 1, one.q += column, one.o += column, one.kv_dtype = LK_F32;
    one.pages = NULL, one.k = k, one.v = v, one.ldk = one.ldv = ld, one.kv_rows = a->first + a->queries;
    if (a->m) one.m += (size_t)kv_head * group * a->queries;
    if (a->r) one.r += (size_t)kv_head * group * a->queries;
    return one;
}

static void forward_task(void *arg, size_t task, int thread) {
    const struct job *job = arg;
    const struct lk_attention *a = job->a;
    for (size_t here; task >= (here = tasks(job, a)); a++) task -= here;
    struct cut c = cut_of(job, a);
    const struct lk__math_kernels *k = &job->math->k;
    void *scratch = lk__math_scratch(job->math, thread);
    size_t heads = (size_t)a->sequences * c.heads;
    /* Late ranges see more keys: they go first, so that the last tasks, for which threads wait, are short. */
    uint32_t i0 = (uint32_t)(c.ranges - 1 - task / heads) * c.range, i1 = c.all - i0 < c.range ? c.all : i0 + c.range;
    uint32_t sequence = (uint32_t)(task % heads / c.heads), head = (uint32_t)(task % heads % c.heads);
    if (c.few) {
        k->attention_few(a, sequence, head, i0, i1, scratch);
    } else if (a->kv_dtype == LK_Q8) {
        uint32_t group = a->heads / a->kv_heads;
        size_t own = lk_attention_scratch_bytes(a->first + a->queries, a->head_dim, false);
        float *behind = (float *)scratch + (own / sizeof(float) + 15) / 16 * 16;
        struct lk_attention one = widened(a, head / group, i0, i1, behind);
        k->attention_forward(&one, 0, head % group, i0, i1, &k->caches, scratch);
    } else
        k->attention_forward(a, sequence, head, i0, i1, &k->caches, scratch);
}

/* Visible (query, key) pairs of all query heads. */
static double pairs(const struct lk_attention *a) {
    double sum = 0;
    for (size_t i = 0; i < (size_t)a->sequences * a->queries; i++)
        sum += a->first + i % a->queries + 1 - (a->document_start ? a->document_start[i] : 0);
    return sum * a->heads;
}
/* Queries and outputs (`query_arrays` of them), keys and values (`key_arrays`), once each. */
static double bytes(const struct lk_attention *a, int query_arrays, int key_arrays) {
    double queries = (double)a->sequences * a->queries * a->heads * a->head_dim,
           keys = (double)a->sequences * (a->first + a->queries) * a->kv_heads;
    return query_arrays * queries * sizeof(float) +
           key_arrays * keys * (double)lk_dtype_row_bytes(a->kv_dtype, a->head_dim);
}

void lk_attention_forward_many(struct lk_math *math, const struct lk_attention *a, size_t count) {
    struct lk__math_timing timing __attribute__((cleanup(lk__math_timing_end))) = {0};
    double operations = 0, moved = 0;
    for (size_t i = 0; math->profile && i < count; i++)
        operations += 4.0 * a[i].head_dim * pairs(&a[i]), moved += bytes(&a[i], 2, 2);
    if (math->profile) timing = lk__math_timing_begin(math, LK_KERNEL_ATTENTION, operations, moved);
    struct job job = {.math = math, .a = a, .few_rows = ATTENTION_FEW_ROWS};
    for (size_t i = 0; i < count; i++) check(math, &a[i], false);
    /* Threads without a task take some of the rows of others, though both then read the same keys. */
    while (job.few_rows > 1 && all_tasks(&job, count) < (size_t)lk_pool_threads(math->pool)) job.few_rows /= 2;
    lk_pool_run(math->pool, all_tasks(&job, count), forward_task, &job);
}
void lk_attention_forward(struct lk_math *math, const struct lk_attention *a) {
    lk_attention_forward_many(math, a, 1);
}

static void backward_task(void *arg, size_t task, int thread) {
    const struct job *j = arg;
    const struct lk_attention_gradient *g = j->g;
    j->math->k.attention_backward(j->a, g->dout, g->ld_dout, g->q_scale, g->dq, g->dk, g->dv,
                                  (uint32_t)(task / j->a->kv_heads), (uint32_t)(task % j->a->kv_heads), &j->math->k.caches,
                                  lk__math_scratch(j->math, thread));
}

void lk_attention_backward(struct lk_math *math, const struct lk_attention *a, const struct lk_attention_gradient *g) {
    LK_TIMED(math, ATTENTION_BACKWARD, 10.0 * a->head_dim * pairs(a), bytes(a, 4, 4));
    LK_ASSERT(a->first == 0 && "lk_attention_backward: the whole sequence at once");
    check(math, a, true);
    struct job job = {.math = math, .a = a, .g = g};
    lk_pool_run(math->pool, (size_t)a->sequences * a->kv_heads, backward_task, &job);
}
