/* Sections 4, 5 and 7: norms, rotary positions, softmax and loss, one row at a time. */
#include "math/ref/ref.h"

/* Row sum of x(i)·y(i), and of x(i) when y is NULL. */
static real row_sum(size_t n, const real *x, const real *y) {
    real lanes[LK__LANES] = {0};
    for (size_t i = 0; i < n; i++) {
        real *lane = &lanes[i % LK__LANES];
        *lane = y ? REF(fma)(x[i], y[i], *lane) : *lane + x[i];
    }
    return REF(lanes_sum)(lanes);
}

static void rms_forward(size_t n, const real *x, const real *gain, real eps, real *y, real *rstd) {
    real r = 1 / REF(sqrt)(row_sum(n, x, x) / (real)n + eps);
    for (size_t i = 0; i < n; i++) y[i] = (x[i] * r) * gain[i];
    *rstd = r;
}

static void layer_forward(size_t n, const real *x, const real *gain, const real *bias, real eps, real *y, real *mean,
                          real *rstd) {
    real m = row_sum(n, x, NULL) / (real)n;
    real lanes[LK__LANES] = {0};
    for (size_t i = 0; i < n; i++) {
        real d = x[i] - m;
        lanes[i % LK__LANES] = REF(fma)(d, d, lanes[i % LK__LANES]);
    }
    real r = 1 / REF(sqrt)(REF(lanes_sum)(lanes) / (real)n + eps);
    for (size_t i = 0; i < n; i++) y[i] = REF(fma)((x[i] - m) * r, gain[i], bias[i]);
    *mean = m;
    *rstd = r;
}

void REF(norm_forward)(size_t rows, size_t n, size_t batch, const real *x, const real *gain, const real *bias, real eps,
                       real *y, real *mean, real *rstd) {
    (void)batch; /* one row after another */
    for (size_t row = 0; row < rows; row++) {
        const real *from = x + row * n;
        if (bias)
            layer_forward(n, from, gain, bias, eps, y + row * n, mean + row, rstd + row);
        else
            rms_forward(n, from, gain, eps, y + row * n, rstd + row);
    }
}

void REF(norm_backward)(size_t rows, size_t n, size_t batch, const real *x, const real *gain, const real *mean,
                        const real *rstd, bool layer, const real *dy, const real *dx_add, real *dx, real *normalised) {
    (void)batch; /* one row after another */
    for (size_t row = 0; row < rows; row++) {
        size_t at = row * n;
        real r = rstd[row], plain[LK__LANES] = {0}, product[LK__LANES] = {0};
        for (size_t i = 0; i < n; i++) {
            real xhat = layer ? (x[at + i] - mean[row]) * r : x[at + i] * r;
            real a = dy[at + i] * gain[i];
            plain[i % LK__LANES] = plain[i % LK__LANES] + a;
            product[i % LK__LANES] = REF(fma)(a, xhat, product[i % LK__LANES]);
        }
        real c1 = REF(lanes_sum)(plain) / (real)n, c2 = REF(lanes_sum)(product) / (real)n;
        for (size_t i = 0; i < n; i++) {
            real xhat = layer ? (x[at + i] - mean[row]) * r : x[at + i] * r;
            real a = dy[at + i] * gain[i];
            real d = REF(fma)(-xhat, c2, layer ? a - c1 : a) * r;
            if (normalised) normalised[at + i] = xhat;
            dx[at + i] = dx_add ? dx_add[at + i] + d : d;
        }
    }
}

void REF(rope)(size_t rows, size_t row0, uint32_t heads, uint32_t head_dim, uint32_t positions, uint32_t first,
               const real *cos_table, const real *sin_table, real scale, bool inverse, real *x, size_t ldx) {
    size_t half = head_dim / 2;
    for (size_t row = 0; row < rows; row++) {
        size_t position = first + (row0 + row) % positions;
        const real *c = cos_table + position * half, *s = sin_table + position * half;
        for (uint32_t h = 0; h < heads; h++) {
            real *x1 = x + row * ldx + (size_t)h * head_dim, *x2 = x1 + half;
            for (size_t i = 0; i < half; i++) {
                real a = x1[i], b = x2[i];
                if (inverse) {
                    a = a * scale;
                    b = b * scale;
                    x1[i] = REF(fma)(a, c[i], b * s[i]);
                    x2[i] = REF(fma)(b, c[i], -(a * s[i]));
                } else {
                    x1[i] = REF(fma)(a, c[i], -(b * s[i])) * scale;
                    x2[i] = REF(fma)(b, c[i], a * s[i]) * scale;
                }
            }
        }
    }
}

static real loss_of_row(size_t n, real *x, uint32_t target, real scale, bool gradient) {
    LK_ASSERT(target < n);
    real m = x[0], lanes[LK__LANES] = {0};
    for (size_t j = 1; j < n; j++) m = REF(max)(m, x[j]);
    for (size_t j = 0; j < n; j++) lanes[j % LK__LANES] = lanes[j % LK__LANES] + REF(softmax_exp)(x[j] - m);
    real l = REF(lanes_sum)(lanes), loss = REF(log)(l) - (x[target] - m);
    if (!gradient) return loss;
    real r = 1 / l;
    for (size_t j = 0; j < n; j++) {
        real p = REF(softmax_exp)(x[j] - m) * r;
        x[j] = (j == target ? p - 1 : p) * scale;
    }
    return loss;
}

void REF(cross_entropy)(size_t rows, size_t vocab, real *logits, size_t ld, const uint32_t *targets, real scale,
                        bool gradient, real *loss) {
    for (size_t row = 0; row < rows; row++) {
        real *x = logits + row * ld;
        if (targets[row] != UINT32_MAX) {
            loss[row] = loss_of_row(vocab, x, targets[row], scale, gradient);
            continue;
        }
        loss[row] = 0;
        for (size_t j = 0; gradient && j < vocab; j++) x[j] = 0;
    }
}
