/* Norms, loss, rotary positions: sections 4, 5 and 7 of docs/numerics.md. A row sum keeps its 64 lanes in LANE_VECTORS
 * vectors; what is missing from the last 64 elements is loaded as zeros, which change no sum. */
#include "math/kernel_table.h"
#include "math/simd/each.h"
#include "math/simd/exp.h"

void LK_ISA_NAME(lk__math_fill_rows)(struct lk__math_kernels *);

LK_INLINE void lanes_clear(vf lanes[LANE_VECTORS]) {
    for (size_t e = 0; e < LANE_VECTORS; e++) lanes[e] = v_zero();
}
/* --- Norms -----------------------------------------------------------------------------------------------
 * A row is read three times (RMS norm: twice). The first time it comes from beyond the nearest cache, and its sum ends in a
 * chain of dependent operations before the next pass over it can begin. So rows go in batches, as few as hide the chains
 * and stay in a part of the nearest cache, and the first pass over a row of the next batch runs beside the last pass over
 * one of this batch: one waits for memory while the other computes and stores. */
LK_INLINE vf normalise(vf x, const bool layer, vf mean, vf rstd) {
    return v_mul(layer ? v_sub(x, mean) : x, rstd);
}

struct norm {
    const float *x, *gain, *bias;
    float eps, *y, *mean, *rstd;
};

LK_INLINE float rstd_of(float squares, size_t n, float eps) {
    return 1 / __builtin_sqrtf(squares / (float)n + eps);
}

/* The first pass over row `next`, if `sum`, beside the last over `row`, if `write`. */
LK_INLINE void norm_pass(size_t n, const struct norm *t, const bool layer, const bool write, size_t row, const bool sum,
                         size_t next) {
    const float *x = t->x + row * n, *ahead = t->x + next * n, *gain = t->gain, *bias = t->bias;
    float *y = t->y + row * n;
    vf m = v_set1(write && layer ? t->mean[row] : 0), r = v_set1(write ? t->rstd[row] : 0), lanes[LANE_VECTORS];
    lanes_clear(lanes);
    EACH_LANE_VECTOR(n, {
        if (sum && layer) lanes[e] = v_add(lanes[e], load(ahead + i, c));
        if (sum && !layer) {
            vf d = load(ahead + i, c);
            lanes[e] = v_fma(d, d, lanes[e]);
        }
        if (write) {
            vf xhat = normalise(load(x + i, c), layer, m, r), g = load(gain + i, c);
            store(y + i, layer ? v_fma(xhat, g, load(bias + i, c)) : v_mul(xhat, g), c);
        }
    });
    if (sum && layer) t->mean[next] = v_sum64(lanes) / (float)n;
    if (sum && !layer) t->rstd[next] = rstd_of(v_sum64(lanes), n, t->eps);
}

/* The second pass of a layer norm, which waits for nothing: it asks for row `ahead`, whose first pass is the next. */
static void deviation(size_t n, const struct norm *t, size_t row, size_t ahead) {
    const float *x = t->x + row * n, *next = t->x + ahead * n;
    vf lanes[LANE_VECTORS], m = v_set1(t->mean[row]);
    lanes_clear(lanes);
    EACH_LANE_VECTOR(n, {
        vf d = v_sub(load(x + i, c), m);
        if (c != VL) d = v_select(m_first(c), d, v_zero());
        lanes[e] = v_fma(d, d, lanes[e]);
        if (i % 16 == 0) __builtin_prefetch(next + i, 0, 3);
    });
    t->rstd[row] = rstd_of(v_sum64(lanes), n, t->eps);
}

LK_INLINE void norm_rows(size_t rows, size_t n, size_t batch, const struct norm *t, const bool layer) {
    for (size_t row = 0; row < rows && row < batch; row++) norm_pass(n, t, layer, false, row, true, row);
    for (size_t first = 0; first < rows; first += batch) {
        size_t end = rows - first < batch ? rows : first + batch;
        for (size_t row = first; layer && row < end; row++) deviation(n, t, row, row + batch < rows ? row + batch : row);
        for (size_t row = first; row < end; row++) {
            if (row + batch < rows)
                norm_pass(n, t, layer, true, row, true, row + batch);
            else
                norm_pass(n, t, layer, true, row, false, row);
        }
    }
}

static void norm_forward(size_t rows, size_t n, size_t batch, const float *x, const float *gain, const float *bias,
                         float eps, float *y, float *mean, float *rstd) {
    const struct norm t = {x, gain, bias, eps, y, mean, rstd};
    if (bias)
        norm_rows(rows, n, batch, &t, true);
    else
        norm_rows(rows, n, batch, &t, false);
}

/* One row's two means: of a = dy gain, and of a xhat. */
LK_INLINE void gradient_means(size_t n, const float *x, const float *gain, float mean, float rstd, const bool layer,
                              const float *dy, float *c1, float *c2) {
    vf m = v_set1(mean), r = v_set1(rstd), lanes[LANE_VECTORS], sums[LANE_VECTORS];
    const bool at_once = layer && LANE_VECTORS == 4; /* where both sums fit the registers */
    lanes_clear(sums);
    if (layer && !at_once) EACH_LANE_VECTOR(n, { sums[e] = v_add(sums[e], v_mul(load(dy + i, c), load(gain + i, c))); });
    lanes_clear(lanes);
    EACH_LANE_VECTOR(n, {
        vf xhat = normalise(load(x + i, c), layer, m, r), a = v_mul(load(dy + i, c), load(gain + i, c));
        if (layer && c != VL) xhat = v_select(m_first(c), xhat, v_zero());
        lanes[e] = v_fma(a, xhat, lanes[e]);
        if (at_once) sums[e] = v_add(sums[e], a);
    });
    *c1 = layer ? v_sum64(sums) / (float)n : 0;
    *c2 = v_sum64(lanes) / (float)n;
}

struct norm_gradient {
    const float *x, *gain, *mean, *rstd, *dy, *dx_add;
    float *dx, *normalised;
};

LK_INLINE void norm_row_gradient(size_t n, const struct norm_gradient *g, size_t row, const bool layer, const bool add,
                                 const bool keep, float c1, float c2) {
    const size_t at = row * n;
    const float *x = g->x + at, *dy = g->dy + at, *gain = g->gain, *dx_add = add ? g->dx_add + at : NULL;
    float *dx = g->dx + at, *normalised = keep ? g->normalised + at : NULL;
    vf m = v_set1(layer ? g->mean[row] : 0), r = v_set1(g->rstd[row]), v1 = v_set1(c1), v2 = v_set1(c2);
    EACH_GROUP(
        n, 4, LK__ALL {
            vf xhat = normalise(load(x + AT(j), c), layer, m, r), a = v_mul(load(dy + AT(j), c), load(gain + AT(j), c));
            vf d = v_mul(v_fnma(xhat, v2, layer ? v_sub(a, v1) : a), r);
            if (keep) store(normalised + AT(j), xhat, c);
            if (add) d = v_add(load(dx_add + AT(j), c), d);
            store(dx + AT(j), d, c);
        });
}

LK_INLINE void norm_rows_gradient(size_t rows, size_t n, size_t batch, const struct norm_gradient *g, const bool layer) {
    float c1[LK__NORM_BATCH], c2[LK__NORM_BATCH];
    for (size_t row = 0, count; row < rows; row += count) {
        count = rows - row < batch ? rows - row : batch;
        for (size_t k = 0; k < count; k++)
            gradient_means(n, g->x + (row + k) * n, g->gain, layer ? g->mean[row + k] : 0, g->rstd[row + k], layer,
                           g->dy + (row + k) * n, &c1[k], &c2[k]);
        for (size_t k = 0; k < count; k++) {
            if (g->dx_add && g->normalised) /* as all of training but its last norm */
                norm_row_gradient(n, g, row + k, layer, true, true, c1[k], c2[k]);
            else
                norm_row_gradient(n, g, row + k, layer, g->dx_add != NULL, g->normalised != NULL, c1[k], c2[k]);
        }
    }
}

static void norm_backward(size_t rows, size_t n, size_t batch, const float *x, const float *gain, const float *mean,
                          const float *rstd, bool layer, const float *dy, const float *dx_add, float *dx,
                          float *normalised) {
    const struct norm_gradient g = {x, gain, mean, rstd, dy, dx_add, dx, normalised};
    if (layer)
        norm_rows_gradient(rows, n, batch, &g, true);
    else
        norm_rows_gradient(rows, n, batch, &g, false);
}

/* --- Loss ------------------------------------------------------------------------------------------------ */
/* A fast maximum, enough for softmax: it may return either of two zeros, and anything when there is a NaN. No result shows
 * that: exp(+-0) = 1, log(l) - (+-0) is the same number, and a NaN makes l and so every result NaN. */
#define TOPS 8
static float row_max(size_t n, const float *x) {
    vf top[TOPS];
    for (int e = 0; e < TOPS; e++) top[e] = v_set1(x[0]);
    size_t i = 0;
    for (; i + TOPS * VL <= n; i += TOPS * VL)
        for (size_t e = 0; e < TOPS; e++) top[e] = v_max_any(top[e], v_load(x + i + e * VL));
    for (; i + VL <= n; i += VL) top[0] = v_max_any(top[0], v_load(x + i));
    if (i < n) top[1] = v_max_any(top[1], v_select(m_first(n - i), v_load_n(x + i, n - i), top[1]));
    for (int h = TOPS / 2; h; h /= 2)
        for (int e = 0; e < h; e++) top[e] = v_max_any(top[e], top[e + h]);
    return v_max_lanes(top[0]);
}

/* The row becomes its exponentials (keep). Prefetches the row at next: of all passes only this one has time for it, since
 * it computes longer than it waits for memory. */
LK_INLINE float row_exp_sum(size_t n, float *x, float max, const bool keep, const float *next) {
    vf m = v_set1(max), lanes[LANE_VECTORS];
    size_t i0 = 0;
    lanes_clear(lanes);
    for (; i0 + 64 <= n; i0 += 64) {
        UNROLL for (size_t g = 0; g < LANE_VECTORS; g += LK__EXPS) {
            const int count = LK__EXPS;
            float *at = x + i0 + g * VL;
            vf a[LK__EXPS];
            LK__ALL a[j] = v_sub(v_load(at + j * VL), m);
            LK__ALL v_prefetch(next, i0 + (g + (size_t)j) * VL);
            lk__math_vsexps(a, count);
            LK__ALL lanes[g + (size_t)j] = v_add(lanes[g + (size_t)j], a[j]);
            if (keep) LK__ALL v_store(at + j * VL, a[j]);
        }
    }
    for (size_t e = 0; i0 < n; i0 += VL, e++) {
        size_t c = n - i0 < VL ? n - i0 : VL;
        vf a = lk__math_vsexp(v_sub(load(x + i0, c), m));
        if (c != VL) a = v_select(m_first(c), a, v_zero());
        lanes[e] = v_add(lanes[e], a);
        if (keep) store(x + i0, a, c);
    }
    return v_sum64(lanes);
}

static float row_loss(size_t n, float *x, uint32_t target, float scale, bool gradient, const float *next) {
    LK_ASSERT(target < n);
    float m = row_max(n, x), at_target = x[target];
    float l = gradient ? row_exp_sum(n, x, m, true, next) : row_exp_sum(n, x, m, false, next);
    if (gradient) {
        float r = 1 / l, p = x[target] * r;
        vf rv = v_set1(r), sv = v_set1(scale);
        EACH_GROUP(n, 4, { LK__ALL store(x + AT(j), v_mul(v_mul(load(x + AT(j), c), rv), sv), c); });
        x[target] = (p - 1) * scale;
    }
    return lk_log(l) - (at_target - m);
}

static void cross_entropy(size_t rows, size_t vocab, float *logits, size_t ld, const uint32_t *targets, float scale,
                          bool gradient, float *loss) {
    for (size_t row = 0; row < rows; row++) {
        float *x = logits + row * ld;
        const float *next = row + 1 < rows ? x + ld : x;
        bool masked = targets[row] == UINT32_MAX;
        loss[row] = masked ? 0 : row_loss(vocab, x, targets[row], scale, gradient, next);
        if (masked && gradient) memset(x, 0, vocab * sizeof *x);
    }
}

/* --- Rotary positions ------------------------------------------------------------------------------------ */
LK_INLINE void rope_pair(float *x1, float *x2, vf co, vf si, vf by, const bool inverse, const bool scaled, const size_t c) {
    vf a = load(x1, c), b = load(x2, c);
    if (scaled && inverse) {
        a = v_mul(a, by);
        b = v_mul(b, by);
    }
    vf y1 = inverse ? v_fma(a, co, v_mul(b, si)) : v_fms(a, co, v_mul(b, si));
    vf y2 = inverse ? v_fms(b, co, v_mul(a, si)) : v_fma(b, co, v_mul(a, si));
    store(x1, scaled && !inverse ? v_mul(y1, by) : y1, c);
    store(x2, scaled && !inverse ? v_mul(y2, by) : y2, c);
}

#define ROPE_HALF ((size_t)32) /* half a head of the usual size: the row of the tables stays in registers */

LK_INLINE void rope_row(uint32_t heads, uint32_t head_dim, const float *cs, const float *sn, float scale,
                        const bool inverse, const bool scaled, float *x) {
    size_t half = head_dim / 2;
    vf by = v_set1(scale);
    if (half == ROPE_HALF) {
        vf co[ROPE_HALF / VL], si[ROPE_HALF / VL];
        for (size_t v = 0; v < ROPE_HALF / VL; v++) {
            co[v] = v_load(cs + v * VL);
            si[v] = v_load(sn + v * VL);
        }
        for (uint32_t h = 0; h < heads; h++, x += 2 * ROPE_HALF) {
            UNROLL for (size_t v = 0; v < ROPE_HALF / VL; v++)
                rope_pair(x + v * VL, x + ROPE_HALF + v * VL, co[v], si[v], by, inverse, scaled, VL);
        }
        return;
    }
    for (uint32_t h = 0; h < heads; h++, x += head_dim)
        EACH_VECTOR(half, { rope_pair(x + i, x + half + i, load(cs + i, c), load(sn + i, c), by, inverse, scaled, c); });
}

static void rope(size_t rows, size_t row0, uint32_t heads, uint32_t head_dim, uint32_t positions, uint32_t first,
                 const float *cos_table, const float *sin_table, float scale, bool inverse, float *x, size_t ldx) {
    size_t half = head_dim / 2, position = row0 % positions;
    for (size_t row = 0; row < rows; row++, x += ldx) {
        const float *cs = cos_table + (first + position) * half, *sn = sin_table + (first + position) * half;
        if (++position == positions) position = 0;
        if (inverse && scale == 1)
            rope_row(heads, head_dim, cs, sn, 1, true, false, x);
        else if (inverse)
            rope_row(heads, head_dim, cs, sn, scale, true, true, x);
        else if (scale == 1)
            rope_row(heads, head_dim, cs, sn, 1, false, false, x);
        else
            rope_row(heads, head_dim, cs, sn, scale, false, true, x);
    }
}

void LK_ISA_NAME(lk__math_fill_rows)(struct lk__math_kernels *k) {
    k->norm_forward = norm_forward;
    k->norm_backward = norm_backward;
    k->cross_entropy = cross_entropy;
    k->rope = rope;
}
