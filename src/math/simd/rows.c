/* Norms, loss, rotary positions: sections 4, 5 and 7 of docs/numerics.md. A row sum keeps its 64 lanes in LANE_VECTORS
 * vectors; what is missing from the last 64 elements is loaded as zeros, which change no sum. */
#include "math/kernel_table.h"
#include "math/simd/each.h"
#include "math/simd/exp.h"

void LK_ISA_NAME(lk__fill_rows)(struct lk__kernels *);

LK_INLINE void lanes_clear(vf lanes[LANE_VECTORS]) {
    for (size_t e = 0; e < LANE_VECTORS; e++) lanes[e] = v_zero();
}
/* --- Norms ----------------------------------------------------------------------------------------------- */
static void rms_forward(size_t n, const float *x, const float *gain, float eps, float *y, float *rstd) {
    vf lanes[LANE_VECTORS];
    lanes_clear(lanes);
    EACH_LANE_VECTOR(n, {
        vf a = load(x + i, c);
        lanes[e] = v_fma(a, a, lanes[e]);
    });
    float r = 1 / __builtin_sqrtf(v_sum64(lanes) / (float)n + eps);
    vf rv = v_set1(r);
    EACH_VECTOR(n, { store(y + i, v_mul(v_mul(load(x + i, c), rv), load(gain + i, c)), c); });
    *rstd = r;
}

static void layer_forward(size_t n, const float *x, const float *gain, const float *bias, float eps, float *y, float *mean,
                          float *rstd) {
    vf lanes[LANE_VECTORS];
    lanes_clear(lanes);
    EACH_LANE_VECTOR(n, { lanes[e] = v_add(lanes[e], load(x + i, c)); });
    float m = v_sum64(lanes) / (float)n;
    vf mv = v_set1(m);
    lanes_clear(lanes);
    EACH_LANE_VECTOR(n, {
        vf d = v_sub(load(x + i, c), mv);
        if (c != VL) d = v_select(m_first(c), d, v_zero());
        lanes[e] = v_fma(d, d, lanes[e]);
    });
    float r = 1 / __builtin_sqrtf(v_sum64(lanes) / (float)n + eps);
    vf rv = v_set1(r);
    EACH_VECTOR(n, {
        vf xhat = v_mul(v_sub(load(x + i, c), mv), rv);
        store(y + i, v_fma(xhat, load(gain + i, c), load(bias + i, c)), c);
    });
    *mean = m;
    *rstd = r;
}

static void norm_forward(size_t rows, size_t n, const float *x, const float *gain, const float *bias, float eps, float *y,
                         float *mean, float *rstd) {
    for (size_t row = 0; row < rows; row++) {
        if (bias)
            layer_forward(n, x + row * n, gain, bias, eps, y + row * n, mean + row, rstd + row);
        else
            rms_forward(n, x + row * n, gain, eps, y + row * n, rstd + row);
    }
}

LK_INLINE vf normalise(vf x, bool layer, vf mean, vf rstd) {
    return v_mul(layer ? v_sub(x, mean) : x, rstd);
}

LK_INLINE void norm_row_backward(size_t n, const float *x, const float *gain, float mean, float rstd, const bool layer,
                                 const float *dy, const float *dx_add, float *dx, float *normalised) {
    vf m = v_set1(mean), r = v_set1(rstd), lanes[LANE_VECTORS], c1 = v_zero();
    if (layer) { /* a pass of its own: both sums at once do not fit the registers of all instruction sets */
        lanes_clear(lanes);
        EACH_LANE_VECTOR(n, { lanes[e] = v_add(lanes[e], v_mul(load(dy + i, c), load(gain + i, c))); });
        c1 = v_set1(v_sum64(lanes) / (float)n);
    }
    lanes_clear(lanes);
    EACH_LANE_VECTOR(n, {
        vf xhat = normalise(load(x + i, c), layer, m, r), a = v_mul(load(dy + i, c), load(gain + i, c));
        if (layer && c != VL) xhat = v_select(m_first(c), xhat, v_zero());
        lanes[e] = v_fma(a, xhat, lanes[e]);
    });
    vf c2 = v_set1(v_sum64(lanes) / (float)n);
    EACH_VECTOR(n, {
        vf xhat = normalise(load(x + i, c), layer, m, r), a = v_mul(load(dy + i, c), load(gain + i, c));
        vf d = v_mul(v_fma(v_neg(xhat), c2, layer ? v_sub(a, c1) : a), r);
        if (normalised) store(normalised + i, xhat, c);
        if (dx_add) d = v_add(load(dx_add + i, c), d);
        store(dx + i, d, c);
    });
}

static void norm_backward(size_t rows, size_t n, const float *x, const float *gain, const float *mean, const float *rstd,
                          bool layer, const float *dy, const float *dx_add, float *dx, float *normalised) {
    for (size_t row = 0; row < rows; row++) {
        size_t at = row * n;
        const float *add = dx_add ? dx_add + at : NULL;
        float *keep = normalised ? normalised + at : NULL;
        if (layer)
            norm_row_backward(n, x + at, gain, mean[row], rstd[row], true, dy + at, add, dx + at, keep);
        else
            norm_row_backward(n, x + at, gain, 0, rstd[row], false, dy + at, add, dx + at, keep);
    }
}

/* --- Loss ------------------------------------------------------------------------------------------------ */
/* A maximum good enough for softmax: of two zeros either, and anything when there is a NaN. Neither can be seen in the end:
 * exp(+-0) = 1 and log(l) - (+-0) is the same number; a NaN makes l and with it everything NaN. */
static float row_max(size_t n, const float *x) {
    vf top[4];
    for (int e = 0; e < 4; e++) top[e] = v_set1(x[0]);
    size_t i = 0;
    for (; i + 4 * VL <= n; i += 4 * VL)
        for (size_t e = 0; e < 4; e++) top[e] = v_max_any(top[e], v_load(x + i + e * VL));
    for (; i + VL <= n; i += VL) top[0] = v_max_any(top[0], v_load(x + i));
    if (i < n) top[1] = v_max_any(top[1], v_select(m_first(n - i), v_load_n(x + i, n - i), top[1]));
    return v_max_lanes(v_max_any(v_max_any(top[0], top[1]), v_max_any(top[2], top[3])));
}

LK_INLINE float row_exp_sum(size_t n, float *x, float max, const bool keep) {
    vf m = v_set1(max), lanes[LANE_VECTORS];
    lanes_clear(lanes);
    EACH_LANE_VECTOR(n, {
        vf a = lk__vsexp(v_sub(load(x + i, c), m));
        if (c != VL) a = v_select(m_first(c), a, v_zero());
        lanes[e] = v_add(lanes[e], a);
        if (keep) store(x + i, a, c);
    });
    return v_sum64(lanes);
}

static float row_loss(size_t n, float *x, uint32_t target, float scale, bool gradient) {
    LK_ASSERT(target < n);
    float m = row_max(n, x), at_target = x[target];
    float l = gradient ? row_exp_sum(n, x, m, true) : row_exp_sum(n, x, m, false);
    if (gradient) {
        float r = 1 / l, p = x[target] * r;
        vf rv = v_set1(r), sv = v_set1(scale);
        EACH_VECTOR(n, { store(x + i, v_mul(v_mul(load(x + i, c), rv), sv), c); });
        x[target] = (p - 1) * scale;
    }
    return lk_log(l) - (at_target - m);
}

static void cross_entropy(size_t rows, size_t vocab, float *logits, size_t ld, const uint32_t *targets, float scale,
                          bool gradient, float *loss) {
    for (size_t row = 0; row < rows; row++) {
        float *x = logits + row * ld;
        bool masked = targets[row] == UINT32_MAX;
        loss[row] = masked ? 0 : row_loss(vocab, x, targets[row], scale, gradient);
        if (masked && gradient) memset(x, 0, vocab * sizeof *x);
    }
}

/* --- Rotary positions ------------------------------------------------------------------------------------ */
static void rope(size_t rows, size_t row0, uint32_t heads, uint32_t head_dim, uint32_t positions, uint32_t first,
                 const float *cos_table, const float *sin_table, float scale, bool inverse, float *x, size_t ldx) {
    size_t half = head_dim / 2;
    vf by = v_set1(scale);
    for (size_t row = 0; row < rows; row++) {
        size_t position = first + (row0 + row) % positions;
        const float *cs = cos_table + position * half, *sn = sin_table + position * half;
        for (uint32_t h = 0; h < heads; h++) {
            float *x1 = x + row * ldx + (size_t)h * head_dim, *x2 = x1 + half;
            /* Times 1, where there is no scale, is the same. */
            EACH_VECTOR(half, {
                vf a = load(x1 + i, c), b = load(x2 + i, c), co = load(cs + i, c), si = load(sn + i, c);
                if (inverse) {
                    a = v_mul(a, by);
                    b = v_mul(b, by);
                    store(x1 + i, v_fma(a, co, v_mul(b, si)), c);
                    store(x2 + i, v_fma(b, co, v_neg(v_mul(a, si))), c);
                } else {
                    store(x1 + i, v_mul(v_fma(a, co, v_neg(v_mul(b, si))), by), c);
                    store(x2 + i, v_mul(v_fma(b, co, v_mul(a, si)), by), c);
                }
            });
        }
    }
}

void LK_ISA_NAME(lk__fill_rows)(struct lk__kernels *k) {
    k->norm_forward = norm_forward;
    k->norm_backward = norm_backward;
    k->cross_entropy = cross_entropy;
    k->rope = rope;
}
