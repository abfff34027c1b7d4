/* Sections 5 and 8: activations and the optimizer, one element at a time. */
#include "math/ref/ref.h"

static real sigmoid(real x) {
    return 1 / (1 + REF(exp)(-x));
}

void REF(swiglu_forward)(size_t n, const real *gate, const real *up, real *out) {
    for (size_t i = 0; i < n; i++) {
        real h = gate[i] * sigmoid(gate[i]);
        out[i] = h * up[i];
    }
}

void REF(swiglu_backward)(size_t n, const real *gate, const real *up, const real *dout, real *dgate, real *dup) {
    for (size_t i = 0; i < n; i++) {
        real g = gate[i], s = sigmoid(g), h = g * s, dh = dout[i] * up[i];
        dup[i] = dout[i] * h;
        dgate[i] = dh * (s * REF(fma)(g, 1 - s, 1));
    }
}

static const real k0 = RC(0.7978845608028654), k1 = RC(0.03567740813636141), k2 = RC(0.10703222440908423);

void REF(gelu_forward)(size_t n, const real *x, real *out) {
    for (size_t i = 0; i < n; i++) {
        real x2 = x[i] * x[i], u = x[i] * REF(fma)(x2, k1, k0), h = RC(0.5) * x[i];
        out[i] = REF(fma)(h, REF(tanh)(u), h);
    }
}

void REF(gelu_backward)(size_t n, const real *x, const real *dout, real *dx) {
    for (size_t i = 0; i < n; i++) {
        real x2 = x[i] * x[i], u = x[i] * REF(fma)(x2, k1, k0), h = RC(0.5) * x[i], th = REF(tanh)(u);
        real p = REF(fma)(RC(0.5), th, RC(0.5)), q = REF(fma)(x2, k2, k0), w = (h * REF(fma)(-th, th, 1)) * q;
        dx[i] = dout[i] * (p + w);
    }
}

void REF(add)(size_t n, const real *a, const real *b, real *out) {
    for (size_t i = 0; i < n; i++) out[i] = a[i] + b[i];
}

void REF(scale)(size_t n, real scale, real *x) {
    for (size_t i = 0; i < n; i++) x[i] = x[i] * scale;
}

void REF(exp_n)(size_t n, const real *x, real *y) {
    for (size_t i = 0; i < n; i++) y[i] = REF(exp)(x[i]);
}

void REF(tanh_n)(size_t n, const real *x, real *y) {
    for (size_t i = 0; i < n; i++) y[i] = REF(tanh)(x[i]);
}

void REF(softmax_exp_n)(size_t n, const real *x, real subtract, real *y) {
    for (size_t i = 0; i < n; i++) y[i] = REF(softmax_exp)(x[i] - subtract);
}

double REF(block_squares)(size_t n, const real *x) {
    double lanes[LK__LANES] = {0};
    for (size_t i = 0; i < n; i++) lanes[i % LK__LANES] += (double)x[i] * (double)x[i];
    for (int h = LK__LANES / 2; h > 0; h /= 2)
        for (int j = 0; j < h; j++) lanes[j] += lanes[j + h];
    return lanes[0] + 0;
}

void REF(adamw)(const struct lk_adamw *a, size_t n, real *w, const real *g, real *m, real *v) {
    for (size_t i = 0; i < n; i++) {
        real gradient = g[i] * a->clip; /* times 1, where nothing is clipped, is the same */
        m[i] = REF(fma)(a->beta1, m[i], a->one_minus_beta1 * gradient);
        v[i] = REF(fma)(a->beta2, v[i], (a->one_minus_beta2 * gradient) * gradient);
        real step = m[i] / REF(fma)(REF(sqrt)(v[i]), a->v_scale, a->epsilon);
        w[i] = REF(fma)(a->step, step, w[i] * a->keep);
    }
}

bool REF(all_finite)(size_t n, const real *x) {
    for (size_t i = 0; i < n; i++)
        if (!(x[i] - x[i] == 0)) return false;
    return true;
}
