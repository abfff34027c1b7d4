/* Activations, the optimizer and other kernels on elements: sections 5 and 8 of docs/numerics.md. */
#include "math/kernel_table.h"
#include "math/simd/each.h"
#include "math/simd/exp.h"
#include "math/simd/vec_double.h"

void LK_ISA_NAME(lk__math_fill_elements)(struct lk__math_kernels *);

LK_INLINE void sigmoids(vf *x, const int count) {
    LK__ALL x[j] = v_neg(x[j]);
    lk__math_vexps(x, count);
    LK__ALL x[j] = v_div(v_set1(1), v_add(v_set1(1), x[j]));
}

static void swiglu_forward(size_t n, const float *gate, const float *up, float *out) {
    EACH_GROUP(n, LK__EXPS, {
        vf s[LK__EXPS];
        LK__ALL s[j] = load(gate + AT(j), c);
        sigmoids(s, count);
        LK__ALL store(out + AT(j), v_mul(v_mul(load(gate + AT(j), c), s[j]), load(up + AT(j), c)), c);
    });
}

static void swiglu_backward(size_t n, const float *gate, const float *up, const float *dout, float *dgate, float *dup) {
    EACH_GROUP(n, LK__EXPS, {
        vf s[LK__EXPS];
        LK__ALL s[j] = load(gate + AT(j), c);
        sigmoids(s, count);
        LK__ALL {
            vf g = load(gate + AT(j), c), d = load(dout + AT(j), c), dh = v_mul(d, load(up + AT(j), c));
            store(dup + AT(j), v_mul(d, v_mul(g, s[j])), c);
            store(dgate + AT(j), v_mul(dh, v_mul(s[j], v_fma(g, v_sub(v_set1(1), s[j]), v_set1(1)))), c);
        }
    });
}

#define GELU_K0 ((float)0.7978845608028654)
#define GELU_K1 ((float)0.03567740813636141)
#define GELU_K2 ((float)0.10703222440908423)

LK_INLINE void gelu_tanhs(vf *x, const int count) {
    LK__ALL x[j] = v_mul(x[j], v_fma(v_mul(x[j], x[j]), v_set1(GELU_K1), v_set1(GELU_K0)));
    lk__math_vtanhs(x, count);
}

static void gelu_forward(size_t n, const float *x, float *out) {
    EACH_GROUP(n, LK__GROUP, {
        vf th[LK__GROUP];
        LK__ALL th[j] = load(x + AT(j), c);
        gelu_tanhs(th, count);
        LK__ALL {
            vf h = v_mul(v_set1(0.5f), load(x + AT(j), c));
            store(out + AT(j), v_fma(h, th[j], h), c);
        }
    });
}

static void gelu_backward(size_t n, const float *x, const float *dout, float *dx) {
    EACH_GROUP(n, LK__GROUP, {
        vf th[LK__GROUP];
        LK__ALL th[j] = load(x + AT(j), c);
        gelu_tanhs(th, count);
        LK__ALL {
            vf a = load(x + AT(j), c);
            vf p = v_fma(v_set1(0.5f), th[j], v_set1(0.5f));
            vf q = v_fma(v_mul(a, a), v_set1(GELU_K2), v_set1(GELU_K0));
            vf w = v_mul(v_mul(v_mul(v_set1(0.5f), a), v_fnma(th[j], th[j], v_set1(1))), q);
            store(dx + AT(j), v_mul(load(dout + AT(j), c), v_add(p, w)), c);
        }
    });
}

static void add(size_t n, const float *a, const float *b, float *out) {
    EACH_VECTOR(n, { store(out + i, v_add(load(a + i, c), load(b + i, c)), c); });
}
static void scale(size_t n, float by, float *x) {
    EACH_VECTOR(n, { store(x + i, v_mul(load(x + i, c), v_set1(by)), c); });
}
static void exp_n(size_t n, const float *x, float *y) {
    EACH_GROUP(n, LK__EXPS, {
        vf a[LK__EXPS];
        LK__ALL a[j] = load(x + AT(j), c);
        lk__math_vexps(a, count);
        LK__ALL store(y + AT(j), a[j], c);
    });
}
static void tanh_n(size_t n, const float *x, float *y) {
    EACH_GROUP(n, LK__GROUP, {
        vf a[LK__GROUP];
        LK__ALL a[j] = load(x + AT(j), c);
        lk__math_vtanhs(a, count);
        LK__ALL store(y + AT(j), a[j], c);
    });
}
static void softmax_exp_n(size_t n, const float *x, float subtract, float *y) {
    EACH_GROUP(n, LK__EXPS, {
        vf e[LK__EXPS];
        mask small[LK__EXPS];
        LK__ALL e[j] = v_sub(load(x + AT(j), c), v_set1(subtract));
        LK__ALL small[j] = v_lt(e[j], v_set1(-64));
        lk__math_vexps(e, count);
        LK__ALL store(y + AT(j), v_select(small[j], v_zero(), e[j]), c);
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

/* The 64 double lanes need 64 / DL registers. Where the machine has fewer, each of PARTS passes keeps a part of the lanes
 * and reads the block again, from L1. */
#define PARTS (LANE_VECTORS > 4 ? 64 / DL / 8 : 1)
#define SUMS  (64 / DL / PARTS)
#define TURN  (PARTS > 1 ? 512 : LK_BLOCK)

static double block_squares(size_t n, const float *x) {
    double lanes[64] = {0};
    for (size_t base = 0; base < n; base += TURN) {
        size_t end = n - base < TURN ? n : base + TURN;
        for (size_t part = 0; part < PARTS; part++) {
            size_t lane = part * 64 / PARTS, i = base + lane;
            vd sum[SUMS];
            for (int e = 0; e < SUMS; e++) sum[e] = vd_load(lanes + lane + (size_t)e * DL);
            for (; i + 64 / PARTS <= end; i += 64) {
                UNROLL for (int e = 0; e < SUMS; e++) {
                    vd a = vd_load_floats(x + i + (size_t)e * DL);
                    sum[e] = vd_fma(a, a, sum[e]);
                }
            }
            for (int e = 0; e < SUMS; e++) vd_store(lanes + lane + (size_t)e * DL, sum[e]);
            for (; i < end && i % 64 < lane + 64 / PARTS; i++) lanes[i % 64] += (double)x[i] * (double)x[i];
        }
    }
    for (size_t h = 32; h >= DL; h /= 2)
        for (size_t j = 0; j < h; j += DL) vd_store(lanes + j, vd_add(vd_load(lanes + j), vd_load(lanes + j + h)));
    for (size_t h = DL / 2; h; h /= 2)
        for (size_t j = 0; j < h; j++) lanes[j] += lanes[j + h];
    return lanes[0] + 0.0;
}

static bool all_finite(size_t n, const float *x) {
    vi exponent = vi_set1(0x7f800000);
    mask bad = vi_lt(exponent, exponent);
    EACH_VECTOR(n, { bad = m_or(bad, vi_eq(vi_and(v_as_int(load(x + i, c)), exponent), exponent)); });
    return !m_any(bad);
}

void LK_ISA_NAME(lk__math_fill_elements)(struct lk__math_kernels *k) {
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
