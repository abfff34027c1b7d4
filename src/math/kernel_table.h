/* The kernel table: serial kernels on a range of rows, elements or a tile. `ref` fills every slot; an instruction set
 * overrides those it is faster at. The drivers (matmul.c, attention.c, rows.c) cut work into tiles by shape and call these
 * from the pool's threads with the numeric environment set. Private to src/math. */
#ifndef LOCKSTEP_MATH_KERNEL_TABLE_H
#define LOCKSTEP_MATH_KERNEL_TABLE_H
#include "lockstep/base/caches.h"
#include "lockstep/base/mem.h"
#include "lockstep/math/kernels.h"
#include "lockstep/math/measure.h"
#include "lockstep/math/scalar.h"
#include "math/quant.h"

typedef void lk__math_mm_tile_fn(const struct lk_mm *, size_t i0, size_t i1, size_t j0, size_t j1, const struct lk_caches *,
                                 void *scratch);

struct lk__math_kernels {
    const char *isa;
    size_t vector;           /* floats a vector */
    struct lk_caches caches; /* given: what blocks are chosen by; no bit depends on them */

    /* Matrix product. mm_blocking chooses the tile of C by the shape and the number of threads (both results >= 1; the
     * driver cuts edges short). A tile does all of k, so its size changes no bit. mm_tile makes one tile, rows [i0, i1),
     * columns [j0, j1), all parts and groups, bias and residual included. transposed: mm_tile_transposed, which works on C'
     * = B' A', is faster. scratch: at least mm_scratch_bytes, 64-byte aligned; a kernel set may need none. */
    size_t mm_scratch_bytes;
    void (*mm_blocking)(const struct lk_mm *, size_t threads, const struct lk_caches *, size_t *tile_rows,
                        size_t *tile_columns, bool *transposed);
    lk__math_mm_tile_fn *mm_tile, *mm_tile_transposed;
    void (*mm_scheme)(const struct lk_caches *, char *out, size_t size); /* says how blocks are chosen; or NULL */

    /* Products of a few rows with weights in panels; NULL in ref. n (<= LK_PANEL) rows of W, k long, into one panel (k, n);
     * columns [j0, j1) of a product, j0 a panel's first column. */
    void (*panels_fill)(enum lk_dtype, size_t n, size_t k, const void *w, void *panel);
    void (*panels_multiply)(size_t rows, size_t k, const float *x, const struct lk_panel_product *, size_t j0, size_t j1);

    /* The same of more rows than LK_PANEL_ROWS: x is packed first, into panels_packed_floats. Only whole panels of [j0,
     * j1); columns that are left go through panels_multiply, LK_PANEL_ROWS rows at a time. */
    size_t (*panels_packed_floats)(size_t rows, size_t k);
    void (*panels_pack)(size_t rows, size_t k, const float *x, float *packed);
    void (*panels_multiply_many)(size_t rows, size_t k, const float *packed, const struct lk_panel_product *, size_t j0,
                                 size_t j1);

    /* Weights in fewer bits (quant.h). A row into a format; false: not to be said in it. Rows of activations, one group,
     * into records. n (<= LK_QUANT_PANEL) rows of W into one panel. Columns [j0, j1) of a group's rows, j0 a panel's
     * first column; p's y and residual begin at the group's first row. */
    size_t quant_rows, quant_columns; /* of a group; at once, where there are several groups: whole panels */
    bool (*quant_round)(enum lk_dtype, size_t k, const float *x, uint8_t *out);
    void (*quant_activations)(size_t rows, size_t k, const float *x, uint8_t *records);
    void (*quant_fill)(enum lk_dtype, size_t n, size_t k, const void *w, void *panel);
    void (*quant_multiply)(const struct lk__math_quant_group *, size_t k, const struct lk_quant_product *p, size_t j0,
                           size_t j1);

    /* Attention: queries [i0, i1) of one sequence and query head; backward: one sequence and kv head. */
    uint32_t attention_query_tile;
    void (*attention_forward)(const struct lk_attention *, uint32_t sequence, uint32_t head, uint32_t i0, uint32_t i1,
                              const struct lk_caches *, void *scratch);
    /* Up to so many queries (0: none) go by kv head instead: rows [row0, row1), ATTENTION_FEW_ROWS at most, of those that
     * share its keys; row h * queries + i is query i of its h-th query head. */
    uint32_t attention_few_queries;
    void (*attention_few)(const struct lk_attention *, uint32_t sequence, uint32_t kv_head, uint32_t row0, uint32_t row1,
                          void *scratch);
    void (*attention_backward)(const struct lk_attention *, const float *dout, size_t ld_dout, float q_scale, float *dq,
                               float *dk, float *dv, uint32_t sequence, uint32_t kv_head, const struct lk_caches *,
                               void *scratch);
    void (*attention_scheme)(const struct lk_caches *, char *out, size_t size); /* as mm_scheme */

    /* Rows [0, rows), each pass over `batch` of them before the next pass, 1 to LK__NORM_BATCH: no bit depends on it. */
#define LK__NORM_BATCH 16
    void (*norm_forward)(size_t rows, size_t n, size_t batch, const float *x, const float *gain, const float *bias,
                         float eps, float *y, float *mean, float *rstd);
    void (*norm_backward)(size_t rows, size_t n, size_t batch, const float *x, const float *gain, const float *mean,
                          const float *rstd, bool layer, const float *dy, const float *dx_add, float *dx,
                          float *normalised);
    void (*cross_entropy)(size_t rows, size_t vocab, float *logits, size_t ld, const uint32_t *targets, float scale,
                          bool gradient, float *loss);
    void (*rope)(size_t rows, size_t row0, uint32_t heads, uint32_t head_dim, uint32_t positions, uint32_t first,
                 const float *cos_table, const float *sin_table, float scale, bool inverse, float *x, size_t ldx);
    /* Columns [0, n) of all parts. */
    void (*column_sum)(size_t n, const float *y, size_t ldy, const float *factor, size_t ld_factor,
                       const struct lk_row_part *parts, size_t part_count, bool accumulate, float *out);
    /* Columns [0, n) of rows `first`, next[first], .. (UINT32_MAX: the end), in chains: see lk_row_chains. */
    void (*row_chains)(size_t n, const float *x, size_t ldx, uint32_t first, const uint32_t *next, uint32_t positions,
                       bool begins, float *out);
    /* Elements [0, n). */
    void (*swiglu_forward)(size_t n, const float *gate, const float *up, float *out);
    void (*swiglu_backward)(size_t n, const float *gate, const float *up, const float *dout, float *dgate, float *dup);
    void (*gelu_forward)(size_t n, const float *x, float *out);
    void (*gelu_backward)(size_t n, const float *x, const float *dout, float *dx);
    void (*add)(size_t n, const float *a, const float *b, float *out);
    void (*scale)(size_t n, float scale, float *x);
    void (*exp_n)(size_t n, const float *x, float *y);
    void (*tanh_n)(size_t n, const float *x, float *y);
    void (*softmax_exp_n)(size_t n, const float *x, float subtract, float *y);
    double (*block_squares)(size_t n, const float *x); /* n <= LK_BLOCK */
    void (*adamw)(const struct lk_adamw *, size_t n, float *w, const float *g, float *m, float *v);
    bool (*all_finite)(size_t n, const float *x);
    /* Elements from, from + 1, .. of a tensor into x[0 .. n - 1]. */
    void (*init_normal)(uint64_t seed, uint32_t tensor, double deviation, size_t from, size_t n, float *x);

    /* For lk_math_measure: rounds of independent fma chains, returns their floating-point operations; lk_math_stream on
     * elements [from, from + n). */
    double (*peak_fma)(size_t rounds, float seed);
    void (*peak_stream)(size_t from, size_t n, const struct lk_stream *);
};

/* ref/ref_table.c and blocked/blocked_matmul.c (compiled twice: machine FMA, software FMA), simd/table.c (compiled once per
 * ISA). */
void lk__math_fill_ref_soft(struct lk__math_kernels *);
void lk__math_fill_ref_fma(struct lk__math_kernels *); /* x86: call only where the CPU has FMA */
void lk__math_fill_blocked_soft(struct lk__math_kernels *);
void lk__math_fill_blocked_fma(struct lk__math_kernels *);
void lk__math_fill_avx2(struct lk__math_kernels *);
void lk__math_fill_avx512(struct lk__math_kernels *);
void lk__math_fill_neon(struct lk__math_kernels *);
/* simd/quant_dot.c: what the tables above have of quant.h, for CPUs with VNNI or Arm's dot products. */
void lk__math_fill_quant_avx2_dot(struct lk__math_kernels *);
void lk__math_fill_quant_avx512_dot(struct lk__math_kernels *);
void lk__math_fill_quant_neon_dot(struct lk__math_kernels *);

struct lk_math {
    struct lk_pool *pool;
    struct lk__math_kernels k;
    struct lk_arena memory;
    char *scratch; /* threads x scratch_bytes, in memory */
    size_t scratch_bytes;
    struct lk_kernel_time *profile; /* (LK_KERNELS) while it is measured, else NULL */
    struct lk_kernel_time *times;   /* the same, or NULL where there is no profile */
};
/* Scratch of one thread; grows only between calls (lk_math_reserve); matmul's own share is reserved at open. */
static inline void *lk__math_scratch(struct lk_math *m, int thread) {
    return m->scratch + (size_t)thread * m->scratch_bytes;
}

/* First in a driver: the rest of it counts as that kernel. Operations and bytes are worked out only when somebody measures.
 */
struct lk__math_timing {
    struct lk_math *math; /* NULL: not measured */
    enum lk_kernel kernel;
    uint64_t ns, idle_ns;
};
struct lk__math_timing lk__math_timing_begin(struct lk_math *, enum lk_kernel, double operations, double bytes);
void lk__math_timing_end(struct lk__math_timing *);
#define LK_TIMED(math, kernel, operations, bytes)                                                                          \
    struct lk__math_timing lk__math_timed __attribute__((cleanup(lk__math_timing_end))) = {0};                             \
    if (__builtin_expect((math)->profile != NULL, 0))                                                                      \
    lk__math_timed = lk__math_timing_begin(math, LK_KERNEL_##kernel, operations, bytes)

#endif
