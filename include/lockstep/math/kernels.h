/* The kernels: matrix products, attention, and all that works on rows and elements; bits as docs/numerics.md defines them.
 *
 * All arrays are float32, row-major, owned by the caller, and need no alignment unless stated (64 bytes is fastest). A
 * struct describes a call with many arguments; the function reads it only while it runs. Functions return nothing: their
 * only failure is a wrong argument, which is an assertion. One caller at a time per lk_math. */
#ifndef LOCKSTEP_MATH_KERNELS_H
#define LOCKSTEP_MATH_KERNELS_H
#include "lockstep/math/math.h"
#include "lockstep/math/quant.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* --- Matrix product -------------------------------------------------------------------------------------------------
 * C (m, n) = tree over groups of (sum over the group's parts of A_p (m, k_p) B_p (k_p, n)).
 * Element (i, k) of A is a[i * a_row + k * a_col], element (k, j) of B is b[k * b_row + j * b_col]; one of each pair of
 * strides is 1. Each part restarts the segments of 512; parts of a group ascend into one total; groups are combined by the
 * grains' tree rule. */
struct lk_mm_part {
    const float *a, *b;
    size_t a_row, a_col, b_row, b_col, k;
    bool ends_group; /* the last part always ends the last group */
};
struct lk_mm {
    size_t m, n;
    const struct lk_mm_part *parts;
    size_t part_count;
    float *c;
    size_t ldc;
    /* Totals go on from C instead of +0; only with one group. C holds unfinished totals, and those are never -0: from +0 on
     * no sum is. Where C holds -0 all the same, the sign of a zero result is not defined. */
    bool accumulate;
    const float *bias;     /* (n) or NULL: C = total + bias */
    const float *residual; /* (m, ld_residual) or NULL: C = residual + C, after the bias; may be C itself */
    size_t ld_residual;
};
void lk_matmul(struct lk_math *, const struct lk_mm *);

/* --- Products of a few rows ---------------------------------------------------------------------------------------------
 * As in generation, where each weight is used once a token and the time is that of reading memory. W (n, k) lies in panels:
 * panel p holds rows [16 p, 16 p + 16) of W transposed, (k, 16), at 16 p * k floats; the last one has fewer columns where n
 * is no multiple of 16. So panels take as much memory as W. Bits are lk_matmul's. */
#define LK_PANEL      16
#define LK_PANEL_ROWS 8
/* False where no kernel is there for them (ref): use lk_matmul. */
bool lk_panels_usable(const struct lk_math *);
/* Fills panels (n * k numbers) from w (n, k); both are the caller's, LK_F32 or LK_BF16. Asserts lk_panels_usable. */
void lk_panels_fill(struct lk_math *, enum lk_dtype, size_t n, size_t k, const void *w, void *panels);
/* Scratch of a thread that products of more than LK_PANEL_ROWS rows need: for lk_math_reserve. */
size_t lk_panels_scratch_bytes(const struct lk_math *, size_t k);
/* For each product, which share x: y (rows, n) = x (rows, k) W' + bias (n, or NULL), then residual (rows, n, or NULL) +
 * that; y is none of what is read. Up to LK_PANEL_ROWS rows go at the memory's speed. One call for several products keeps
 * threads busy across them. */
struct lk_panel_product {
    const void *panels;
    size_t n;
    const float *bias, *residual;
    float *y;
    enum lk_dtype
        dtype; /* of the panels: LK_F32, or LK_BF16, which is widened as it is read: bits as of the widened numbers */
};
void lk_panels_multiply(struct lk_math *, size_t rows, size_t k, const float *x, const struct lk_panel_product *,
                        size_t count);

/* --- Sums over tokens -------------------------------------------------------------------------------------------------
 * Rows of y are cut into parts (sequences) and groups (grains) as above; out (n) = tree over groups of sums over parts of
 * chains over rows, a chain for each segment. factor: NULL for ones (bias gradients), else (rows, n) at stride ld_factor
 * (gain gradients, see lk_norm_gradient). y: (rows, n) at stride ldy. accumulate: totals go on from out; one group only. */
struct lk_row_part {
    size_t first, rows;
    bool ends_group;
};
struct lk_column_sum {
    size_t n;
    const float *y, *factor;
    size_t ldy, ld_factor;
    const struct lk_row_part *parts;
    size_t part_count;
    bool accumulate;
    float *out;
};
void lk_column_sum(struct lk_math *, const struct lk_column_sum *);

/* Embedding gradients: list i of `lists` goes from row first[i] of x (rows, n) to row next[that] and so on, ascending, to
 * UINT32_MAX; its chains, one for each sequence (of `positions` rows) and segment, are added to row target[i] of sums
 * (.., n), or to +0 where begins[i]. No target occurs twice, no list is empty. next has an entry for each row of x; first,
 * target and begins have `lists`. */
struct lk_row_chains {
    size_t n, lists;
    const float *x;
    uint32_t positions;
    const uint32_t *first, *next, *target;
    const bool *begins;
    float *sums;
};
void lk_row_chains(struct lk_math *, const struct lk_row_chains *);

/* --- Norms: rows (rows, n) ------------------------------------------------------------------------------- */
/* RMSNorm when bias is NULL, LayerNorm otherwise. Writes y (may be x) and the two row statistics that the gradient needs:
 * rstd (rows) and, LayerNorm only, mean (rows). gain, bias: (n). */
struct lk_norm {
    size_t rows, n;
    const float *x, *gain, *bias;
    float epsilon;
    float *y, *mean, *rstd;
};
void lk_norm_forward(struct lk_math *, const struct lk_norm *);
/* dx (rows, n) = dx_add + the norm's backward of dy (dx_add may be NULL: nothing is added; it may be dx). normalised (rows,
 * n): the normalised input, written for lk_column_sum's factor; may be NULL or x. mean: as forward; NULL for RMSNorm. */
struct lk_norm_gradient {
    size_t rows, n;
    bool layer; /* LayerNorm */
    const float *x, *gain, *mean, *rstd, *dy, *dx_add;
    float *dx, *normalised;
};
void lk_norm_backward(struct lk_math *, const struct lk_norm_gradient *);

/* --- Activations: n elements ----------------------------------------------------------------------------------------- */
void lk_swiglu_forward(struct lk_math *, size_t n, const float *gate, const float *up, float *out);
/* dgate and dup may be gate and up. */
void lk_swiglu_backward(struct lk_math *, size_t n, const float *gate, const float *up, const float *dout, float *dgate,
                        float *dup);
void lk_gelu_forward(struct lk_math *, size_t n, const float *x, float *out);
void lk_gelu_backward(struct lk_math *, size_t n, const float *x, const float *dout, float *dx); /* dx may be dout */
void lk_add(struct lk_math *, size_t n, const float *a, const float *b, float *out); /* out = a + b; may alias */
void lk_zero(struct lk_math *, size_t n, float *x);

/* --- Rotary positions ------------------------------------------------------------------------------------ */
/* Llama 3.1's scaling of the frequencies, Hugging Face's rope_type "llama3"; factor 0: none. low < high. */
struct lk_rope_scaling {
    double factor, low, high; /* factor, low_freq_factor, high_freq_factor */
    uint32_t original;        /* original_max_position_embeddings */
};
/* frequencies (head_dim / 2): the angle that each pair turns from one position to the next. */
void lk_rope_frequencies(uint32_t head_dim, double theta, const struct lk_rope_scaling *, float *frequencies);
/* Rows [first, end) of tables cos, sin (end or more, half), Hugging Face's formats; frequencies (half). */
void lk_rope_tables(uint32_t half, const float *frequencies, uint32_t first, uint32_t end, float *cos_out, float *sin_out);
/* In place on x: rows of `heads` heads of head_dim at stride ldx; row r is at position first + r mod positions. After the
 * rotation each element is multiplied by scale unless scale == 1. inverse: the transposed rotation (backward); then the
 * scale comes first. cos_table, sin_table: of lk_rope_tables from position 0. */
struct lk_rope {
    size_t rows;
    uint32_t heads, head_dim, positions, first;
    const float *cos_table, *sin_table;
    float scale;
    bool inverse;
    float *x;
    size_t ldx;
    const uint32_t *at; /* (rows) each row's position; or NULL: first + row % positions */
};
void lk_rope(struct lk_math *, const struct lk_rope *);
/* x = x * scale on (rows, n) at stride ldx. */
void lk_scale_rows(struct lk_math *, size_t rows, size_t n, float scale, float *x, size_t ldx);

/* --- Attention -------------------------------------------------------------------------------------------------------
 * Causal. Queries are positions first .. first + queries - 1 of each sequence, keys and values positions 0 .. first +
 * queries - 1. Query head h reads kv head h / (heads / kv_heads). q is already rotated and scaled.
 * q, o: row (s * queries + i) at stride ldq, ldo, head h at column h * head_dim.
 * k, v: row (s * kv_rows + j) at stride ldk, ldv.  m, r: (sequences, heads, queries).
 * document_start: (sequences, queries), the first visible key of each query, or NULL for 0; never less than that of the
 * query before.
 * pages: NULL, or the keys and values of one sequence lie in pages of page_positions: those of position j are row j %
 * page_positions of the page that begins pages[j / page_positions] * page_stride floats behind k and v; forward only, and
 * kv_rows means nothing.
 * kv_dtype: LK_F32, or LK_Q8, with pages only: then a row of k and v is the blocks of its heads, one behind the other, the
 * strides are in words of 32 bits, and head_dim is a multiple of LK_QUANT_BLOCK. It is the attention of the numbers that
 * the blocks stand for. */
struct lk_attention {
    uint32_t sequences, queries, first, heads, kv_heads, head_dim;
    const float *q, *k, *v;
    size_t ldq, ldk, ldv, kv_rows;
    const uint32_t *document_start;
    float *o;
    size_t ldo;
    float *m, *r; /* may be NULL in inference */
    const uint32_t *pages;
    uint32_t page_positions;
    size_t page_stride;
    enum lk_dtype kv_dtype;
};
size_t lk_attention_scratch_bytes(uint32_t positions, uint32_t head_dim, bool backward);
/* So much more, where keys and values are blocks. */
size_t lk_attention_widened_bytes(uint32_t positions, uint32_t head_dim);
void lk_attention_forward(struct lk_math *, const struct lk_attention *);
/* Several at once, of any shapes, so that threads share all of their work. */
void lk_attention_forward_many(struct lk_math *, const struct lk_attention *, size_t count);
/* dout: (rows of q, heads * head_dim) at stride ld_dout. Writes dq, dk, dv (strides of q, k, v), dq including the final
 * multiplication by q_scale. */
struct lk_attention_gradient {
    const float *dout;
    size_t ld_dout;
    float q_scale;
    float *dq, *dk, *dv;
};
/* The attention is the one of the forward call, o, m and r included; first must be 0. */
void lk_attention_backward(struct lk_math *, const struct lk_attention *, const struct lk_attention_gradient *);

/* --- Loss ------------------------------------------------------------------------------------------------------------
 * For each row of logits (rows, vocab) at stride ld: loss[row] of targets[row] (UINT32_MAX: masked, loss +0). gradient:
 * overwrite the row by its gradient times scale (masked: +0). */
struct lk_cross_entropy {
    size_t rows, vocab;
    float *logits;
    size_t ld;
    const uint32_t *targets;
    float scale;
    bool gradient;
    float *loss;
};
void lk_cross_entropy(struct lk_math *, const struct lk_cross_entropy *);

/* --- Embedding ------------------------------------------------------------------------------------------- */
/* out (rows, n) = table[ids[row]] + positions_table[first + row mod positions] (positions_table NULL: no add). */
struct lk_embed {
    size_t rows, n;
    const uint32_t *ids;
    const float *table, *positions_table;
    uint32_t positions, first;
    float *out;
    const uint32_t *at;  /* as in lk_rope */
    enum lk_dtype dtype; /* of the table: rows as lk_dequantize says */
};
void lk_embed(struct lk_math *, const struct lk_embed *);
/* Row r of x (rows, n) is copied to to + place[r]. */
void lk_scatter_rows(struct lk_math *, size_t rows, size_t n, const float *x, const size_t *place, float *to);

/* --- Optimizer ------------------------------------------------------------------------------------------- */
#define LK_BLOCK 4096
/* sums[b] = sum of squares of block b of x, 64 lanes in double; (n + LK_BLOCK - 1) / LK_BLOCK blocks. */
void lk_block_squares(struct lk_math *, size_t n, const float *x, double *sums);
/* The grains' tree over n doubles (n >= 1); destroys them; returns the sum. */
double lk_tree_sum(size_t n, double *values);
/* One add of a tree whose values go onto a stack in order: the value at place `right`, the topmost, is added to the one at
 * `left` below it and taken off. */
struct lk_tree_step {
    uint32_t left, right;
};
/* out (n) = what is left when the sources (source_count arrays of n, which stay as they are; out may be one of them) have
 * gone onto the stack and each of the source_count - 1 steps was made as soon as its place was on top. squares:
 * lk_block_squares of out, or NULL. At most LK_TREE_SOURCES sources. */
#define LK_TREE_SOURCES 4096
void lk_tree_add(struct lk_math *, size_t n, const float *const *sources, size_t source_count,
                 const struct lk_tree_step *steps, float *out, double *squares);
struct lk_adamw {
    float beta1, one_minus_beta1, beta2, one_minus_beta2;
    float step;    /* -lr / (1 - beta1^t) */
    float v_scale; /* 1 / sqrt(1 - beta2^t) */
    float epsilon;
    float keep; /* 1 - lr * decay, or 1 */
    float clip; /* c of clipping; 1: not applied */
};
void lk_adamw_step(struct lk_math *, const struct lk_adamw *, size_t n, float *w, const float *g, float *m, float *v);
/* True if every value is finite. */
bool lk_all_finite(struct lk_math *, size_t n, const float *x);

/* --- Functions of scalar.h on n elements, for tests and sampling ------------------------------------------ */
void lk_exp_n(struct lk_math *, size_t n, const float *x, float *y);
void lk_tanh_n(struct lk_math *, size_t n, const float *x, float *y);
void lk_softmax_exp_n(struct lk_math *, size_t n, const float *x, float subtract, float *y); /* softmax_exp(x - subtract) */

/* --- Initialisation -------------------------------------------------------------------------------------- */
/* Element i of a tensor filled with normal random numbers: (float)(z * deviation). tensor: its index in canonical order. */
void lk_init_normal(struct lk_math *, uint64_t seed, uint32_t tensor, double deviation, size_t n, float *x);

/* --- The machine ----------------------------------------------------------------------------------------- */
#ifdef __cplusplus
}
#endif
#endif
