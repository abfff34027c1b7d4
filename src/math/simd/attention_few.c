/* Attention forward for few queries, as in decoding. A task is some rows, the pairs of a query and a query head, that share
 * one kv head; it reads each key and each value once:
 *
 *   S (rows x keys) = q K'              K in blocks of NR keys, transposed: keys are lanes; micro-kernels
 *   m, E = sexp(S - m), l, r = 1 / l    row by row, keys are lanes; the 64 virtual lanes are LANE_VECTORS vectors
 *   O (rows x d) = E V                  V where it lies, a few keys at a time, whose rows go through L1 once
 *
 * Scores lie from a multiple of 64 positions on, so that a vector's lanes are virtual lanes. */
#include "math/simd/attention_common.h"

#define KEYS  NR /* transposed together */
#define FETCH 32 /* values that are asked for together */

struct few {
    const struct lk_attention *a;
    size_t d, padded, rows, low, end, base, ld; /* keys [low, end); scores: column 0 is position base, ld a row */
    const float *k, *v;                         /* of position 0, or where pages are counted from */
    size_t from[ATTENTION_FEW_ROWS], to[ATTENTION_FEW_ROWS]; /* keys that a row sees */
    bool blocks; /* keys and values are such: their rows are pointers to bytes */
    size_t span; /* floats that a row takes where it lies */
    float *q, *s, *block, *wide, *chain, *o, r[ATTENTION_FEW_ROWS];
};

/* Pointers to the rows of keys j .. j + n; behind the last key there are more of it. Returns how many lie together. */
static size_t rows_of(const struct few *f, const float *x, size_t ld, size_t j, size_t n, const float **rows) {
    const struct lk_attention *a = f->a;
    size_t i = 0, here, together = 0;
    for (; i < n && j < f->end; i += here, j += here) {
        uint32_t row = a->pages ? (uint32_t)j % a->page_positions : (uint32_t)j;
        const float *p = (a->pages ? x + a->pages[(uint32_t)j / a->page_positions] * a->page_stride : x) + row * ld;
        here = smaller(smaller(n - i, f->end - j), a->pages ? a->page_positions - row : SIZE_MAX);
        for (size_t e = 0; e < here; e++) rows[i + e] = p + e * ld;
        if (i == 0) together = here;
    }
    for (; i < n; i++) rows[i] = rows[i - 1];
    return together;
}

static void ask_for(const float *const *rows, size_t n, size_t span) {
    for (size_t i = 0; i < n; i++)
        for (size_t e = 0; e < span; e += 16) __builtin_prefetch(rows[i] + e, 0, 3);
}

static void widen(const struct few *f, const float *row, float *to) {
    lk__math_widen_q8(f->d, (const uint8_t *)(const void *)row, to);
}

/* block[e * KEYS + i] = rows[i][e], and asks for `span` floats of each of `next`. */
static void transpose(size_t d, const float *const *rows, const float *const *next, size_t span, float *block) {
    for (size_t g = 0; g < KEYS; g += VL)
        for (size_t e = 0; e < d; e += VL) {
            size_t n = smaller(VL, d - e);
            vf r[VL];
            if (e % 16 == 0 && e < span)
                for (size_t i = 0; i < VL; i++) __builtin_prefetch(next[g + i] + e, 0, 3);
            UNROLL
            for (size_t i = 0; i < VL; i++) r[i] = n == VL ? v_load(rows[g + i] + e) : v_load_n(rows[g + i] + e, n);
            v_transpose(r);
            UNROLL
            for (size_t i = 0; i < VL; i++)
                if (i < n) v_store(block + (e + i) * KEYS + g, r[i]);
        }
}

/* Rows go through the micro-kernels in groups of about the same height. */
static size_t height_of(const struct few *f) {
    size_t groups = (f->rows + MR - 1) / MR;
    return (f->rows + groups - 1) / groups;
}

static void scores(const struct few *f) {
    const float *rows[2][KEYS];
    size_t height = height_of(f), turn = 0;
    rows_of(f, f->k, f->a->ldk, f->low, KEYS, rows[0]);
    for (size_t j = f->low; j < f->end; j += KEYS, turn ^= 1) {
        if (j + KEYS < f->end) rows_of(f, f->k, f->a->ldk, j + KEYS, KEYS, rows[!turn]);
        for (size_t i = 0; f->blocks && i < KEYS; i++) {
            widen(f, rows[turn][i], f->wide + i * f->padded);
            rows[turn][i] = f->wide + i * f->padded;
        }
        transpose(f->d, rows[turn], rows[j + KEYS < f->end ? !turn : turn], f->span, f->block);
        for (size_t r = 0; r < f->rows; r += height)
            dot_product(smaller(height, f->rows - r), KEYS, f->d, f->q + r * f->d, f->d, 1, f->block, KEYS,
                        f->s + r * f->ld + (j - f->base), f->ld);
    }
}

/* Lanes of the vector from position j on that the row sees. */
LK_INLINE mask seen(const struct few *f, size_t row, size_t j) {
    vi at = vi_add(vi_set1((int32_t)j), lane_numbers());
    return m_and(m_not(vi_lt(at, vi_set1((int32_t)f->from[row]))), vi_lt(at, vi_set1((int32_t)f->to[row])));
}
static bool sees_all(const struct few *f, size_t row, size_t j, size_t n) {
    return f->from[row] <= j && j + n <= f->to[row];
}

static float most_of(const struct few *f, size_t row) {
    const vf least = v_set1(-__builtin_inff());
    const float *s = f->s + row * f->ld;
    vf m = least;
    for (size_t j = f->from[row] / VL * VL; j < f->to[row]; j += VL) {
        vf x = v_load(s + (j - f->base));
        m = v_max(m, sees_all(f, row, j, VL) ? x : v_select(seen(f, row, j), x, least));
    }
    return v_max_lanes(m);
}

/* E in place of S for 64 keys, added to the lanes. */
LK_INLINE void weigh(const struct few *f, size_t row, size_t j, vf m, vf lanes[LANE_VECTORS], const bool all) {
    const int count = LK__GROUP < LANE_VECTORS ? LK__GROUP : LANE_VECTORS;
    float *s = f->s + row * f->ld + (j - f->base);
    UNROLL
    for (int g = 0; g < LANE_VECTORS; g += count) {
        vf e[LK__GROUP];
        UNROLL
        for (int v = 0; v < count; v++) e[v] = v_sub(v_load(s + (g + v) * VL), m);
        lk__math_vsexps(e, count);
        UNROLL
        for (int v = 0; v < count; v++) {
            if (!all) e[v] = v_select(seen(f, row, j + (size_t)((g + v) * VL)), e[v], v_zero());
            v_store(s + (g + v) * VL, e[v]);
            lanes[g + v] = v_add(lanes[g + v], e[v]);
        }
    }
}

static float weights(const struct few *f, size_t row, float most) {
    vf lanes[LANE_VECTORS], m = v_set1(most);
    for (int e = 0; e < LANE_VECTORS; e++) lanes[e] = v_zero();
    for (size_t j = f->base; j < f->end; j += 64) {
        if (sees_all(f, row, j, 64))
            weigh(f, row, j, m, lanes, true);
        else
            weigh(f, row, j, m, lanes, false);
    }
    return 1 / v_sum64(lanes);
}

/* Keys j .. j + n go on with the chains. */
static void go_on(const struct few *f, size_t j, size_t n, const float *v, size_t ldv) {
    size_t height = height_of(f);
    for (size_t c = 0; c < f->d; c += NR)
        for (size_t r = 0; r < f->rows; r += height) {
            const float *s = f->s + r * f->ld + (j - f->base);
            size_t width = smaller(NR, f->padded - c);
            lk__math_micro[smaller(height, f->rows - r) - 1][width / VL - 1](
                n, s, f->ld, 1, v + c, ldv, f->chain + r * f->padded + c, f->padded, MICRO_RESUME,
                &(struct lk__math_prefetch){s, v, 0});
        }
}

static void end_of_segment(const struct few *f) {
    for (size_t e = 0; e < f->rows * f->padded; e += VL) {
        v_store(f->o + e, v_add(v_load(f->o + e), v_load(f->chain + e)));
        v_store(f->chain + e, v_zero());
    }
}

/* Rows that do not lie together, or whose last vector reaches beyond them, are copied; blocks are widened. */
static void sum_values(const struct few *f) {
    const float *rows[2][FETCH];
    size_t turn = 0, n, together[2];
    for (size_t e = 0; e < f->rows * f->padded; e += VL) v_store(f->o + e, v_zero()), v_store(f->chain + e, v_zero());
    together[0] = rows_of(f, f->v, f->a->ldv, f->low, FETCH, rows[0]);
    for (size_t j = f->low; j < f->end; j += n, turn ^= 1) {
        size_t until = smaller(f->end, (j / SEGMENT + 1) * SEGMENT);
        n = smaller(FETCH, until - j);
        const float *const *row = rows[turn], *v = row[0];
        size_t ldv = f->a->ldv;
        if (j + n < f->end) {
            together[!turn] = rows_of(f, f->v, ldv, j + n, FETCH, rows[!turn]);
            ask_for(rows[!turn], FETCH, f->span);
        }
        if (f->blocks || f->d % VL || together[turn] < n) {
            for (size_t i = 0; i < n; i++)
                if (f->blocks)
                    widen(f, row[i], f->block + i * f->padded);
                else
                    copy_rows(1, f->d, row[i], ldv, f->block + i * f->padded, f->padded);
            v = f->block, ldv = f->padded;
        }
        go_on(f, j, n, v, ldv);
        if (j + n == until) end_of_segment(f);
    }
}

static void output(const struct few *f, size_t row, float *o) {
    vf r = v_set1(f->r[row]);
    const float *x = f->o + row * f->padded;
    size_t c = 0;
    for (; c + VL <= f->d; c += VL) v_store(o + c, v_mul(v_load(x + c), r));
    if (c < f->d) v_store_n(o + c, v_mul(v_load(x + c), r), f->d - c);
}

static void cut_scratch(struct few *f, float *from) {
    f->q = take(&from, f->rows * f->d), f->s = take(&from, f->rows * f->ld);
    f->block = take(&from, (KEYS > FETCH ? KEYS : FETCH) * f->padded), f->wide = take(&from, KEYS * f->padded);
    f->chain = take(&from, f->rows * f->padded), f->o = take(&from, f->rows * f->padded);
}

/* Rows [row0, row1) of those of the kv head: row h * queries + i is query i of its h-th head. */
void LK_ISA_NAME(lk__math_attention_few)(const struct lk_attention *, uint32_t sequence, uint32_t kv_head, uint32_t row0,
                                         uint32_t row1, void *scratch);
void LK_ISA_NAME(lk__math_attention_few)(const struct lk_attention *a, uint32_t sequence, uint32_t kv_head, uint32_t row0,
                                         uint32_t row1, void *scratch) {
    size_t n = a->queries, d = a->head_dim, keys = a->pages ? 0 : sequence * a->kv_rows, group = a->heads / a->kv_heads;
    struct few f = {.a = a, .d = d, .padded = round_up(d, VL), .rows = row1 - row0, .low = SIZE_MAX};
    size_t column = kv_head * lk_dtype_row_bytes(a->kv_dtype, d);
    f.k = (const void *)((const char *)(a->k + keys * a->ldk) + column);
    f.v = (const void *)((const char *)(a->v + keys * a->ldv) + column);
    f.blocks = a->kv_dtype == LK_Q8, f.span = (lk_dtype_row_bytes(a->kv_dtype, d) + 3) / 4;
    for (size_t r = 0; r < f.rows; r++) {
        size_t i = (row0 + r) % n;
        f.from[r] = a->document_start ? a->document_start[sequence * n + i] : 0, f.to[r] = a->first + i + 1;
        f.low = smaller(f.low, f.from[r]), f.end = larger(f.end, f.to[r]);
    }
    f.base = f.low / 64 * 64, f.ld = round_up(f.end - f.base, 64) + KEYS;
    cut_scratch(&f, scratch);
    for (size_t r = 0; r < f.rows; r++) {
        size_t i = (row0 + r) % n, head = kv_head * group + (row0 + r) / n;
        memcpy(f.q + r * d, a->q + (sequence * n + i) * a->ldq + head * d, d * sizeof *f.q);
    }
    scores(&f);
    for (size_t r = 0; r < f.rows; r++) {
        size_t i = (row0 + r) % n, head = kv_head * group + (row0 + r) / n, at = (sequence * a->heads + head) * n + i;
        float most = most_of(&f, r);
        f.r[r] = weights(&f, r, most);
        if (a->m) a->m[at] = most;
        if (a->r) a->r[at] = f.r[r];
    }
    sum_values(&f);
    for (size_t r = 0; r < f.rows; r++) {
        size_t i = (row0 + r) % n, head = kv_head * group + (row0 + r) / n;
        output(&f, r, a->o + (sequence * n + i) * a->ldo + head * d);
    }
}
