/* A fingerprint of the numerics: every kernel on fixed inputs and odd shapes, all results hashed. A machine that prints
 * another one than the rest computes something else: a broken core, a broken compiler, or a control word that someone
 * changed. */
#include "lockstep/math/fingerprint.h"
#include "lockstep/base/hash.h"
#include "lockstep/base/random.h"
#include "math/exact.h"
#include "math/kernel_table.h"

/* Arrays are taken one after another from one arena, and all of it is hashed, inputs and results. Their order matters:
 * never two in one argument list, which C evaluates in any order. */
struct work {
    struct lk_math *math;
    struct lk_arena memory;
    uint32_t arrays;
};

/* n floats: mostly in [-2, 2), some tiny, denormal or zero. Element i of array a: words of random(3, verify, 0, 0, a, i).
 */
static float *fill(struct work *w, size_t n) {
    float *x = lk_arena_take(&w->memory, n * sizeof *x);
    LK_ASSERT(x);
    for (size_t i = 0; i < n; i++) {
        uint32_t r[4];
        lk_random(3, LK_PURPOSE_VERIFY, 0, 0, w->arrays, (uint32_t)i, r);
        float v = (float)(int32_t)r[0] * 0x1p-30f;
        if (r[1] % 16 == 0) v = v * (r[2] % 3 == 0 ? 0x1p-140f : r[2] % 3 == 1 ? 0x1p-60f : 0.0f);
        x[i] = v;
    }
    w->arrays++;
    return x;
}
static float *zeros(struct work *w, size_t n) {
    float *x = lk_arena_take(&w->memory, n * sizeof *x);
    LK_ASSERT(x);
    return x;
}

static void products(struct work *w) {
    enum { M = 37, N = 83, K = 1037 };
    float *a = fill(w, M * K), *b = fill(w, N * K), *at = fill(w, M * K), *bt = fill(w, N * K);
    const struct lk_mm_part parts[] = {{a, bt, K, 1, 1, K, K, false},
                                       {at, b, 1, M, N, 1, 700, true},
                                       {a + 5, b, K, 1, N, 1, 300, true},
                                       {at, bt, 1, M, 1, K, 77, true}};
    float *c = fill(w, M * N), *bias = fill(w, N), *residual = fill(w, M * N);
    struct lk_mm mm = {.m = M,
                       .n = N,
                       .parts = parts,
                       .part_count = 4,
                       .c = c,
                       .ldc = N,
                       .bias = bias,
                       .residual = residual,
                       .ld_residual = N};
    lk_matmul(w->math, &mm);
    mm.part_count = 1, mm.accumulate = true, mm.bias = mm.residual = NULL;
    lk_matmul(w->math, &mm);
}

static void attention(struct work *w) {
    enum { S = 2, T = 71, H = 4, KV = 2, D = 18 };
    uint32_t start[S * T];
    for (uint32_t i = 0; i < S * T; i++) start[i] = i % T < 29 ? 0 : 29;
    float *q = fill(w, S * T * H * D), *k = fill(w, S * T * KV * D), *v = fill(w, S * T * KV * D),
          *dout = fill(w, S * T * H * D);
    struct lk_attention a = {.sequences = S,
                             .queries = T,
                             .heads = H,
                             .kv_heads = KV,
                             .head_dim = D,
                             .q = q,
                             .k = k,
                             .v = v,
                             .ldq = H * D,
                             .ldk = KV * D,
                             .ldv = KV * D,
                             .kv_rows = T,
                             .ldo = H * D};
    for (int masked = 0; masked < 2; masked++) {
        a.document_start = masked ? start : NULL;
        a.o = zeros(w, S * T * H * D);
        a.m = zeros(w, S * H * T);
        a.r = zeros(w, S * H * T);
        float *dq = zeros(w, S * T * H * D), *dk = zeros(w, S * T * KV * D), *dv = zeros(w, S * T * KV * D);
        lk_attention_forward(w->math, &a);
        lk_attention_backward(w->math, &a, &(struct lk_attention_gradient){dout, H * D, 0.25f, dq, dk, dv});
    }
}

static void rows(struct work *w) {
    enum { R = 41, N = 157, HEADS = 3, DIM = 26, POSITIONS = 20 };
    struct lk_math *m = w->math;
    const float *x = fill(w, R * N), *gain = fill(w, N), *bias = fill(w, N), *dy = fill(w, R * N);
    const struct lk_row_part parts[] = {{0, 13, true}, {13, 8, false}, {21, 11, true}, {32, 9, true}};
    for (int layer = 0; layer < 2; layer++) {
        float *y = zeros(w, R * N), *mean = zeros(w, R), *rstd = zeros(w, R), *dx = zeros(w, R * N),
              *xhat = zeros(w, R * N);
        lk_norm_forward(m, &(struct lk_norm){R, N, x, gain, layer ? bias : NULL, 1e-5f, y, mean, rstd});
        lk_norm_backward(m, &(struct lk_norm_gradient){R, N, layer, x, gain, mean, rstd, dy, layer ? y : NULL, dx, xhat});
        lk_column_sum(m, &(struct lk_column_sum){N, dy, layer ? xhat : NULL, N, N, parts, 4, false, zeros(w, N)});
    }
    float *logits = fill(w, R * N);
    uint32_t targets[R];
    for (uint32_t i = 0; i < R; i++) targets[i] = i % 7 == 3 ? UINT32_MAX : i * 3;
    lk_cross_entropy(m, &(struct lk_cross_entropy){R, N, logits, N, targets, 0.01f, false, zeros(w, R)});
    lk_cross_entropy(m, &(struct lk_cross_entropy){R, N, logits, N, targets, 0.01f, true, zeros(w, R)});
    float *c = zeros(w, POSITIONS * DIM / 2), *s = zeros(w, POSITIONS * DIM / 2), *q = fill(w, R * HEADS * DIM);
    float frequencies[DIM / 2];
    lk_rope_frequencies(DIM, 10000, &(struct lk_rope_scaling){0}, frequencies);
    lk_rope_tables(DIM / 2, frequencies, 0, POSITIONS, c, s);
    struct lk_rope rope = {R, HEADS, DIM, POSITIONS / 2, 3, c, s, 0.2f, false, q, HEADS * DIM};
    lk_rope(m, &rope);
    rope.inverse = true, rope.x = fill(w, R * HEADS * DIM);
    lk_rope(m, &rope);
    lk_scale_rows(m, R, DIM, 0.3f, q, HEADS * DIM);
    const uint32_t ids[] = {3, 0, 5, 1, 5, 2};
    lk_embed(m, &(struct lk_embed){6, N, ids, x, dy, 4, 2, zeros(w, 6 * N)});
}

static void elements(struct work *w) {
    enum { N = 20011 };
    struct lk_math *m = w->math;
    const float *a = fill(w, N), *b = fill(w, N), *d = fill(w, N);
    lk_swiglu_forward(m, N, a, b, zeros(w, N));
    float *dgate = zeros(w, N), *dup = zeros(w, N);
    lk_swiglu_backward(m, N, a, b, d, dgate, dup);
    lk_gelu_forward(m, N, a, zeros(w, N));
    lk_gelu_backward(m, N, a, d, zeros(w, N));
    lk_add(m, N, a, b, zeros(w, N));
    lk_exp_n(m, N, a, zeros(w, N));
    lk_tanh_n(m, N, a, zeros(w, N));
    lk_softmax_exp_n(m, N, a, 2.0f, zeros(w, N));
    float *p = fill(w, N), *m1 = fill(w, N), *v = zeros(w, N);
    const struct lk_adamw step = {0.9f, 0.1f, 0.95f, 0.05f, -1e-3f, 1.25f, 1e-8f, 0.999f, 0.5f};
    lk_adamw_step(m, &step, N, p, d, m1, v);
    lk_adamw_step(m, &step, N, p, a, m1, v);
    double *sums = lk_arena_take(&w->memory, 8 * sizeof *sums);
    LK_ASSERT(sums);
    lk_block_squares(m, N, a, sums);
    sums[7] = sums[0];
    sums[6] = lk_tree_sum(5, sums);
    lk_init_normal(m, 42, 7, 0.02, 1000, zeros(w, 1000));
    float *y = zeros(w, 6 * 1000);
    for (size_t i = 0; i < 1000; i++) {
        float positive = lk__math_float(lk__math_bits32(a[i]) & 0x7fffffffu);
        y[6 * i] = lk_exp(a[i] * 40), y[6 * i + 1] = lk_tanh(a[i]), y[6 * i + 2] = lk_log(positive);
        y[6 * i + 3] = lk_sin(a[i] * 1000), y[6 * i + 4] = lk_cos(a[i] * 1000);
        y[6 * i + 5] = (float)lk_pow64(10000, (double)positive);
    }
}

/* --- Fewer bits ------------------------------------------------------------------------------------------------ */

static void *bytes(struct work *w, size_t n) {
    void *p = lk_arena_take(&w->memory, n);
    LK_ASSERT(p);
    return p;
}
/* Panels are laid out as each instruction set likes them, and records of activations too: they are not hashed. */
static void block_products(struct work *w, enum lk_dtype dtype, const float *weights, const float *x) {
    enum { R = 11, N = 83, K = 1120 };
    struct lk_math *m = w->math;
    void *blocks = bytes(w, N * lk_dtype_row_bytes(dtype, K)), *panels, *records;
    LK_ASSERT(!lk_quantize(m, dtype, N, K, weights, blocks, NULL));
    lk_dequantize(m, dtype, N, K, blocks, zeros(w, N * K));
    float *bias = fill(w, N), *residual = fill(w, R * N), *y = zeros(w, R * N);
    panels = lk_alloc(lk_quant_panels_bytes(dtype, N, K)), records = lk_alloc(lk_quantized_bytes(R, K));
    LK_ASSERT(panels && records);
    lk_quant_panels_fill(m, dtype, N, K, blocks, panels);
    lk_quantize_activations(m, R, K, x, records);
    lk_quant_multiply(m, R, K, records, &(struct lk_quant_product){panels, N, bias, residual, y, dtype}, 1);
    lk_quantize_activations(m, 1, K, x + K, records);
    lk_quant_multiply(m, 1, K, records, &(struct lk_quant_product){panels, N, NULL, NULL, zeros(w, N), dtype}, 1);
    lk_free(panels), lk_free(records);
}
static void fewer_bits(struct work *w) {
    enum { R = 11, N = 83, K = 1120, POSITIONS = 70, HEADS = 3, DIM = 64, PAGE = 16, WORDS = DIM / 32 * 34 / 4 };
    struct lk_math *m = w->math;
    const float *weights = fill(w, N * K), *x = fill(w, R * K);
    block_products(w, LK_Q8, weights, x);
    block_products(w, LK_Q4, weights, x);
    void *halves = bytes(w, N * lk_dtype_row_bytes(LK_BF16, K));
    LK_ASSERT(!lk_quantize(m, LK_BF16, N, K, weights, halves, NULL));
    lk_dequantize(m, LK_BF16, N, K, halves, zeros(w, N * K));
    float *through = fill(w, 64 * DIM), *q = fill(w, POSITIONS * HEADS * DIM), *kv = fill(w, POSITIONS * DIM);
    lk_quantize_through(m, 64, DIM, through);
    static const uint32_t pages[] = {3, 0, 4, 1, 2};
    size_t place[POSITIONS];
    float *cache = zeros(w, 5 * PAGE * WORDS);
    for (uint32_t j = 0; j < POSITIONS; j++) place[j] = (pages[j / PAGE] * PAGE + j % PAGE) * WORDS;
    lk_quantize_scatter(m, POSITIONS, DIM, kv, place, cache);
    for (uint32_t queries = 1; queries <= POSITIONS; queries += POSITIONS - 1) {
        struct lk_attention a = {.sequences = 1, .queries = queries, .first = POSITIONS - queries, .heads = HEADS};
        a.kv_heads = 1, a.head_dim = DIM, a.q = q, a.k = a.v = cache, a.ldq = a.ldo = HEADS * DIM, a.ldk = a.ldv = WORDS;
        a.o = zeros(w, POSITIONS * HEADS * DIM), a.kv_dtype = LK_Q8;
        a.pages = pages, a.page_positions = PAGE, a.page_stride = PAGE * WORDS;
        lk_attention_forward(m, &a);
    }
}

static void all_floats(struct work *w) {
    products(w);
    attention(w);
    rows(w);
    elements(w);
}
static int fingerprint(struct lk_math *m, void (*compute)(struct work *), struct lk_root *out, struct lk_err *err) {
    struct work w = {.math = m};
    if (lk_arena_init(&w.memory, (size_t)8 << 20)) return lk_fail(err, LK_ENOMEM, "out of memory for the fingerprint");
    int code = lk_math_reserve(m, lk_attention_scratch_bytes(128, 64, true) + lk_attention_widened_bytes(128, 64), err);
    if (code == 0) {
        unsigned long long old = lk_fpenv_set();
        compute(&w);
        lk_fpenv_restore(old);
        /* Nothing here makes a NaN on purpose; if one appears its payload must not differ between machines. */
        float *all = (float *)(void *)w.memory.base;
        for (size_t i = 0; i < w.memory.used_bytes / sizeof *all; i++)
            if (all[i] != all[i]) all[i] = lk__math_float(0x7fc00000u);
        lk_sha256(w.memory.base, w.memory.used_bytes, out);
    }
    lk_arena_release(&w.memory);
    return code;
}
int lk_math_fingerprint(struct lk_math *m, struct lk_root *out, struct lk_err *err) {
    return fingerprint(m, all_floats, out, err);
}
int lk_math_fingerprint_blocks(struct lk_math *m, struct lk_root *out, struct lk_err *err) {
    return fingerprint(m, fewer_bits, out, err);
}
