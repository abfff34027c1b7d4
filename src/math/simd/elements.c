/* Activations, the optimizer and other kernels on elements: sections 5 and 8 of docs/numerics.md. */
#include "math/kernel_table.h"
#include "math/simd/each.h"
#include "math/simd/exp.h"
#include "math/simd/vec_double.h"

void LK_ISA_NAME(lk__fill_elements)(struct lk__kernels *);

LK_INLINE vf sigmoid(vf x) {
    return v_div(v_set1(1), v_add(v_set1(1), lk__vexp(v_neg(x))));
}

static void swiglu_forward(size_t n, const float *gate, const float *up, float *out) {
    EACH_VECTOR(n, {
        vf g = load(gate + i, c);
        store(out + i, v_mul(v_mul(g, sigmoid(g)), load(up + i, c)), c);
    });
}

static void swiglu_backward(size_t n, const float *gate, const float *up, const float *dout, float *dgate, float *dup) {
    EACH_VECTOR(n, {
        vf g = load(gate + i, c), d = load(dout + i, c), s = sigmoid(g), h = v_mul(g, s);
        vf dh = v_mul(d, load(up + i, c));
        store(dup + i, v_mul(d, h), c);
        store(dgate + i, v_mul(dh, v_mul(s, v_fma(g, v_sub(v_set1(1), s), v_set1(1)))), c);
    });
}

#define GELU_K0 ((float)0.7978845608028654)
#define GELU_K1 ((float)0.03567740813636141)
#define GELU_K2 ((float)0.10703222440908423)

static void gelu_forward(size_t n, const float *x, float *out) {
    EACH_VECTOR(n, {
        vf a = load(x + i, c), x2 = v_mul(a, a);
        vf u = v_mul(a, v_fma(x2, v_set1(GELU_K1), v_set1(GELU_K0))), h = v_mul(v_set1(0.5f), a);
        store(out + i, v_fma(h, lk__vtanh(u), h), c);
    });
}

static void gelu_backward(size_t n, const float *x, const float *dout, float *dx) {
    EACH_VECTOR(n, {
        vf a = load(x + i, c), x2 = v_mul(a, a), half = v_set1(0.5f);
        vf th = lk__vtanh(v_mul(a, v_fma(x2, v_set1(GELU_K1), v_set1(GELU_K0)))), h = v_mul(half, a);
        vf p = v_fma(half, th, half), q = v_fma(x2, v_set1(GELU_K2), v_set1(GELU_K0));
        vf w = v_mul(v_mul(h, v_fma(v_neg(th), th, v_set1(1))), q);
        store(dx + i, v_mul(load(dout + i, c), v_add(p, w)), c);
    });
}

static void add(size_t n, const float *a, const float *b, float *out) {
    EACH_VECTOR(n, { store(out + i, v_add(load(a + i, c), load(b + i, c)), c); });
}
static void scale(size_t n, float by, float *x) {
    EACH_VECTOR(n, { store(x + i, v_mul(load(x + i, c), v_set1(by)), c); });
}
static void exp_n(size_t n, const float *x, float *y) {
    EACH_VECTOR(n, { store(y + i, lk__vexp(load(x + i, c)), c); });
}
static void tanh_n(size_t n, const float *x, float *y) {
    EACH_VECTOR(n, { store(y + i, lk__vtanh(load(x + i, c)), c); });
}
static void softmax_exp_n(size_t n, const float *x, float subtract, float *y) {
    EACH_VECTOR(n, {
        vf a = v_sub(load(x + i, c), v_set1(subtract));
        store(y + i, v_select(v_lt(a, v_set1(-64)), v_zero(), lk__vexp(a)), c);
    });
}

static void adamw(const struct lk_adamw *a, size_t n, float *w, const float *g, float *m, float *v) {
    vf b1 = v_set1(a->beta1), b2 = v_set1(a->beta2), c1 = v_set1(a->one_minus_beta1), c2 = v_set1(a->one_minus_beta2);
    vf step = v_set1(a->step), v_scale = v_set1(a->v_scale), epsilon = v_set1(a->epsilon), keep = v_set1(a->keep);
    vf clip = v_set1(a->clip);
    EACH_VECTOR(n, {
        vf d = v_mul(load(g + i, c), clip);
        vf m1 = v_fma(b1, load(m + i, c), v_mul(c1, d));
        vf v1 = v_fma(b2, load(v + i, c), v_mul(v_mul(c2, d), d));
        vf s = v_div(m1, v_fma(v_sqrt(v1), v_scale, epsilon));
        store(m + i, m1, c);
        store(v + i, v1, c);
        store(w + i, v_fma(step, s, v_mul(load(w + i, c), keep)), c);
    });
}

/* 64 double lanes are kept in registers, or half of them at a time where there are too few of these. */
#define DL             (VL / 2) /* doubles a vector */
#define HALVES         (LANE_VECTORS > 8 ? 2 : 1)
#define DOUBLE_VECTORS (64 / DL / HALVES)

static double block_squares(size_t n, const float *x) {
    double lanes[64];
    for (size_t half = 0; half < HALVES; half++) {
        size_t lane = half * 64 / HALVES, i = lane;
        vd sum[DOUBLE_VECTORS];
        for (int e = 0; e < DOUBLE_VECTORS; e++) sum[e] = vd_zero();
        for (; i + 64 / HALVES <= n; i += 64)
            for (int e = 0; e < DOUBLE_VECTORS; e++) {
                vd a = vd_load_floats(x + i + (size_t)e * DL);
                sum[e] = vd_fma(a, a, sum[e]);
            }
        for (int e = 0; e < DOUBLE_VECTORS; e++) vd_store(lanes + lane + (size_t)e * DL, sum[e]);
        for (; i < n && i % 64 < lane + 64 / HALVES; i++) lanes[i % 64] += (double)x[i] * (double)x[i];
    }
    for (size_t h = 32; h; h /= 2)
        for (size_t j = 0; j < h; j++) lanes[j] += lanes[j + h];
    return lanes[0] + 0.0;
}

static bool all_finite(size_t n, const float *x) {
    vi exponent = vi_set1(0x7f800000);
    mask bad = vi_lt(exponent, exponent);
    EACH_VECTOR(n, { bad = m_or(bad, vi_eq(vi_and(v_as_int(load(x + i, c)), exponent), exponent)); });
    return !m_any(bad);
}

void LK_ISA_NAME(lk__fill_elements)(struct lk__kernels *k) {
    k->swiglu_forward = swiglu_forward;
    k->swiglu_backward = swiglu_backward;
    k->gelu_forward = gelu_forward;
    k->gelu_backward = gelu_backward;
    k->add = add;
    k->scale = scale;
    k->exp_n = exp_n;
    k->tanh_n = tanh_n;
    k->softmax_exp_n = softmax_exp_n;
    k->block_squares = block_squares;
    k->adamw = adamw;
    k->all_finite = all_finite;
}
