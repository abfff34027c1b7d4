/* The truth of the reference. Compiled with real = double its gradients agree with finite differences; and the float build
 * agrees with the double one as closely as float roundings allow. */
#include "base/testing.h"
#include "math/ref/ref.h"
#include <math.h>

static uint64_t state = 0x2545f4914f6cdd1du;
static double uniform(void) { /* [-1, 1) */
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (double)(state >> 11) * 0x1p-52 - 1;
}

/* One layer: inputs x[0..inputs), one output y, its gradient dy. All are lists of `n` doubles at most. */
#define MOST 4096
struct layer {
    int inputs;
    size_t n[4], n_out;
    double x[4][MOST], y[MOST], dy[MOST], dx[4][MOST];
    void (*forward)(struct layer *);
    void (*backward)(struct layer *);
};

/* d/dh sum(dy y(x + h u)) at 0 by central differences against sum(dx u), for random directions u, one input at a time. */
static void check_gradient(const char *name, struct layer *l) {
    for (int in = 0; in < l->inputs; in++)
        for (size_t i = 0; i < l->n[in]; i++) l->x[in][i] = uniform();
    for (size_t i = 0; i < l->n_out; i++) l->dy[i] = uniform();
    l->forward(l);
    l->backward(l);
    static double u[MOST], kept[MOST];
    for (int in = 0; in < l->inputs; in++)
        for (int turn = 0; turn < 4; turn++) {
            double side[2], h = 1e-5, analytic = 0, size = 0;
            memcpy(kept, l->x[in], sizeof kept);
            for (size_t i = 0; i < l->n[in]; i++)
                u[i] = uniform(), analytic += l->dx[in][i] * u[i], size += fabs(l->dx[in][i] * u[i]);
            for (int s = 0; s < 2; s++) {
                for (size_t i = 0; i < l->n[in]; i++) l->x[in][i] = kept[i] + (s ? h : -h) * u[i];
                l->forward(l);
                side[s] = 0;
                for (size_t i = 0; i < l->n_out; i++) side[s] += l->dy[i] * l->y[i];
            }
            memcpy(l->x[in], kept, sizeof kept);
            double numeric = (side[1] - side[0]) / (2 * h);
            if (!(fabs(numeric - analytic) <= 1e-7 * (size + 1)))
                fail_msg("%s, input %d: %.12g, by differences %.12g", name, in, analytic, numeric);
        }
}

/* --- The layers ------------------------------------------------------------------------------------------ */
enum { R = 5, N = 70 };
static const struct lk_row_part all_rows[1] = {{0, R, true}};
static double mean[R], rstd[R], xhat[R * N];

static void rms_forward(struct layer *l) {
    lk__math_ref64_norm_forward(R, N, 1, l->x[0], l->x[1], NULL, 1e-5, l->y, mean, rstd);
}
static void rms_backward(struct layer *l) {
    lk__math_ref64_norm_backward(R, N, 1, l->x[0], l->x[1], mean, rstd, false, l->dy, NULL, l->dx[0], xhat);
    lk__math_ref64_column_sum(N, l->dy, N, xhat, N, all_rows, 1, false, l->dx[1]);
}
static void layer_forward(struct layer *l) {
    lk__math_ref64_norm_forward(R, N, 1, l->x[0], l->x[1], l->x[2], 1e-5, l->y, mean, rstd);
}
static void layer_backward(struct layer *l) {
    lk__math_ref64_norm_backward(R, N, 1, l->x[0], l->x[1], mean, rstd, true, l->dy, NULL, l->dx[0], xhat);
    lk__math_ref64_column_sum(N, l->dy, N, xhat, N, all_rows, 1, false, l->dx[1]);
    lk__math_ref64_column_sum(N, l->dy, N, NULL, 0, all_rows, 1, false, l->dx[2]);
}
static void swiglu_forward(struct layer *l) {
    lk__math_ref64_swiglu_forward(l->n_out, l->x[0], l->x[1], l->y);
}
static void swiglu_backward(struct layer *l) {
    lk__math_ref64_swiglu_backward(l->n_out, l->x[0], l->x[1], l->dy, l->dx[0], l->dx[1]);
}
static void gelu_forward(struct layer *l) {
    lk__math_ref64_gelu_forward(l->n_out, l->x[0], l->y);
}
static void gelu_backward(struct layer *l) {
    lk__math_ref64_gelu_backward(l->n_out, l->x[0], l->dy, l->dx[0]);
}

static double cosines[8 * 5], sines[8 * 5];
static void rope(double *x, bool inverse) {
    lk__math_ref64_rope(R, 0, 2, 10, 8, 1, cosines, sines, 0.7, inverse, x, 21);
}
static void rope_forward(struct layer *l) {
    memcpy(l->y, l->x[0], l->n_out * sizeof *l->y);
    rope(l->y, false);
}
static void rope_backward(struct layer *l) {
    memcpy(l->dx[0], l->dy, l->n_out * sizeof *l->y);
    rope(l->dx[0], true);
}

enum { M = 6, K = 530 / 5, C = 9 };
static void product_forward(struct layer *l) { /* y (M, C) = x (M, K) W' (K, C) + bias */
    struct lk__math_ref64_mm_part p = {l->x[0], l->x[1], K, 1, 1, K, K, true};
    struct lk__math_ref64_mm mm = {.m = M, .n = C, .parts = &p, .part_count = 1, .c = l->y, .ldc = C, .bias = l->x[2]};
    lk__math_ref64_mm_tile(&mm, 0, M, 0, C, NULL, NULL);
}
static void product_backward(struct layer *l) {
    struct lk__math_ref64_mm_part p = {l->dy, l->x[1], C, 1, K, 1, C, true};
    struct lk__math_ref64_mm mm = {.m = M, .n = K, .parts = &p, .part_count = 1, .c = l->dx[0], .ldc = K};
    lk__math_ref64_mm_tile(&mm, 0, M, 0, K, NULL, NULL);
    p = (struct lk__math_ref64_mm_part){l->dy, l->x[0], 1, C, K, 1, M, true};
    mm = (struct lk__math_ref64_mm){.m = C, .n = K, .parts = &p, .part_count = 1, .c = l->dx[1], .ldc = K};
    lk__math_ref64_mm_tile(&mm, 0, C, 0, K, NULL, NULL);
    struct lk_row_part rows = {0, M, true};
    lk__math_ref64_column_sum(C, l->dy, C, NULL, 0, &rows, 1, false, l->dx[2]);
}

enum { T = 13, D = 6, HEADS = 4, KV = 2 };
static uint32_t start[2 * T];
static bool documents;
static double row_max[2 * HEADS * T], row_r[2 * HEADS * T], q_scaled[2 * T * HEADS * D];
static struct lk__math_ref64_attention attention_of(struct layer *l) {
    for (size_t i = 0; i < l->n[0]; i++) q_scaled[i] = l->x[0][i] * 0.4;
    return (struct lk__math_ref64_attention){.sequences = 2,
                                             .queries = T,
                                             .heads = HEADS,
                                             .kv_heads = KV,
                                             .head_dim = D,
                                             .q = q_scaled,
                                             .k = l->x[1],
                                             .v = l->x[2],
                                             .ldq = HEADS * D,
                                             .ldk = KV * D,
                                             .ldv = KV * D,
                                             .kv_rows = T,
                                             .document_start = documents ? start : NULL,
                                             .o = l->y,
                                             .ldo = HEADS * D,
                                             .m = row_max,
                                             .r = row_r};
}
static void attention_forward(struct layer *l) {
    struct lk__math_ref64_attention a = attention_of(l);
    for (uint32_t s = 0; s < 2; s++)
        for (uint32_t h = 0; h < HEADS; h++) lk__math_ref64_attention_forward(&a, s, h, 0, T, NULL, NULL);
}
static void attention_backward(struct layer *l) {
    struct lk__math_ref64_attention a = attention_of(l);
    for (uint32_t s = 0; s < 2; s++)
        for (uint32_t h = 0; h < KV; h++)
            lk__math_ref64_attention_backward(&a, l->dy, HEADS * D, 0.4, l->dx[0], l->dx[1], l->dx[2], s, h, NULL, NULL);
}

static const uint32_t targets[R] = {3, 69, UINT32_MAX, 0, 17};
static void loss_forward(struct layer *l) {
    static double x[R * N];
    memcpy(x, l->x[0], sizeof x);
    lk__math_ref64_cross_entropy(R, N, x, N, targets, 1, false, l->y);
}
static void loss_backward(struct layer *l) {
    memcpy(l->dx[0], l->x[0], R * N * sizeof(double));
    double unused[R];
    lk__math_ref64_cross_entropy(R, N, l->dx[0], N, targets, 1, true, unused);
    for (size_t i = 0; i < R * N; i++) l->dx[0][i] *= l->dy[i / N];
}

static void gradients_agree_with_differences(void **unused) {
    (void)unused;
    static struct layer l;
#define CHECK(name, forward_, backward_, inputs_, out, ...)                                                                \
    (l = (struct layer){.inputs = inputs_, .n = __VA_ARGS__, .n_out = out, .forward = forward_, .backward = backward_},    \
     check_gradient(name, &l))
    CHECK("RMSNorm", rms_forward, rms_backward, 2, R * N, {R * N, N});
    CHECK("LayerNorm", layer_forward, layer_backward, 3, R * N, {R * N, N, N});
    CHECK("SwiGLU", swiglu_forward, swiglu_backward, 2, 200, {200, 200});
    CHECK("GELU", gelu_forward, gelu_backward, 1, 200, {200});
    for (size_t i = 0; i < 40; i++) cosines[i] = cos((double)i), sines[i] = sin((double)i);
    CHECK("RoPE", rope_forward, rope_backward, 1, R * 21, {R * 21});
    CHECK("product", product_forward, product_backward, 3, M * C, {M * K, C * K, C});
    for (uint32_t i = 0; i < 2 * T; i++) start[i] = i % T < 5 ? 0 : 5;
    for (int d = 0; d < 2; d++) {
        documents = d;
        CHECK("attention", attention_forward, attention_backward, 3, 2 * T * HEADS * D,
              {2 * T * HEADS * D, 2 * T * KV * D, 2 * T * KV * D});
    }
    CHECK("loss", loss_forward, loss_backward, 1, R, {R * N});
#undef CHECK
}

/* --- Float against double -------------------------------------------------------------------------------- */
static struct lk__math_kernels f;

/* Largest difference relative to the largest value. */
static void close_to(const char *name, size_t n, const float *y, const double *t, double bound) {
    double worst = 0, size = 0;
    for (size_t i = 0; i < n; i++) worst = fmax(worst, fabs((double)y[i] - t[i])), size = fmax(size, fabs(t[i]));
    if (!(worst <= bound * size)) fail_msg("%s: off by %.3g of %.3g", name, worst, size);
}
static void both(size_t n, float *x, double *d) {
    for (size_t i = 0; i < n; i++) x[i] = (float)uniform(), d[i] = (double)x[i];
}

static void floats_agree_with_doubles(void **unused) {
    (void)unused;
    static float a[MOST], b[MOST], c[MOST], y[MOST], z[MOST], e[MOST];
    static double A[MOST], B[MOST], C_[MOST], Y[MOST], Z[MOST], E[MOST];
    enum { W = 700 };
    float fm[R], fr[R];
    double dm[R], dr[R];
    both(R * W, a, A), both(W, b, B), both(R * W, c, C_);
    for (int layer = 0; layer < 2; layer++) {
        f.norm_forward(R, W, 1, a, b, layer ? b : NULL, 1e-5f, y, fm, fr);
        lk__math_ref64_norm_forward(R, W, 1, A, B, layer ? B : NULL, (double)1e-5f, Y, dm, dr);
        close_to("norm", R * W, y, Y, 4e-7);
        f.norm_backward(R, W, 1, a, b, fm, fr, layer, c, NULL, z, NULL);
        lk__math_ref64_norm_backward(R, W, 1, A, B, dm, dr, layer, C_, NULL, Z, NULL);
        close_to("norm backward", R * W, z, Z, 6e-7);
    }
    f.swiglu_forward(W, a, b, y), lk__math_ref64_swiglu_forward(W, A, B, Y), close_to("SwiGLU", W, y, Y, 3e-7);
    f.swiglu_backward(W, a, b, c, y, z), lk__math_ref64_swiglu_backward(W, A, B, C_, Y, Z);
    close_to("SwiGLU backward", W, y, Y, 4e-7), close_to("SwiGLU backward, up", W, z, Z, 4e-7);
    f.gelu_forward(W, a, y), lk__math_ref64_gelu_forward(W, A, Y), close_to("GELU", W, y, Y, 3e-7);
    f.gelu_backward(W, a, c, y), lk__math_ref64_gelu_backward(W, A, C_, Y), close_to("GELU backward", W, y, Y, 4e-7);
    struct lk_mm_part p = {a, c, 1, 1, 1, 1, 3000, true};
    struct lk__math_ref64_mm_part P = {A, C_, 1, 1, 1, 1, 3000, true};
    struct lk_mm mm = {.m = 1, .n = 1, .parts = &p, .part_count = 1, .c = y, .ldc = 1};
    struct lk__math_ref64_mm MM = {.m = 1, .n = 1, .parts = &P, .part_count = 1, .c = Y, .ldc = 1};
    f.mm_tile(&mm, 0, 1, 0, 1, NULL, NULL), lk__math_ref64_mm_tile(&MM, 0, 1, 0, 1, NULL, NULL);
    assert_true(fabs((double)y[0] - Y[0]) < 2e-5);
    float s[R];
    double S[R];
    for (int gradient = 0; gradient < 2; gradient++) {
        memcpy(e, a, sizeof e), memcpy(E, A, sizeof E);
        f.cross_entropy(R, N, e, N, targets, 0.25f, gradient, s),
            lk__math_ref64_cross_entropy(R, N, E, N, targets, 0.25, gradient, S);
        close_to("loss", R, s, S, 3e-7);
    }
    close_to("loss gradient", R * N, e, E, 4e-7);
    struct lk_attention at = {1, 50, 0, 1, 1, 14, a, b, c, 14, 14, 14, 50, NULL, y, 14, z, z + 50};
    struct lk__math_ref64_attention AT = {1, 50, 0, 1, 1, 14, A, B, C_, 14, 14, 14, 50, NULL, Y, 14, Z, Z + 50};
    f.attention_forward(&at, 0, 0, 0, 50, NULL, NULL), lk__math_ref64_attention_forward(&AT, 0, 0, 0, 50, NULL, NULL);
    close_to("attention", 700, y, Y, 6e-7);
    f.attention_backward(&at, a + 700, 14, 0.5f, e, e + 700, e + 1400, 0, 0, NULL, NULL);
    lk__math_ref64_attention_backward(&AT, A + 700, 14, 0.5, E, E + 700, E + 1400, 0, 0, NULL, NULL);
    close_to("attention backward", 2100, e, E, 2e-6);
}

int main(void) {
    state += 0x9E3779B97F4A7C15u * test_seed("the reference");
    struct lk_math *m;
    if (lk_math_open(NULL, "ref", &m, NULL)) return 1;
    f = m->k;
    lk_math_close(m);
    const struct CMUnitTest tests[] = {cmocka_unit_test(gradients_agree_with_differences),
                                       cmocka_unit_test(floats_agree_with_doubles)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
