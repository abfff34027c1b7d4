/* Matrix products: cuts C into tiles by its shape and gives them to the pool. A tile does all of k, so threads never share
 * a sum and their number changes no bit. */
#include "lockstep/base/err.h"
#include "math/kernel_table.h"

struct job {
    struct lk_math *math;
    const struct lk_mm *mm;
    size_t tile_rows, tile_columns, down;
    lk__math_mm_tile_fn *tile;
};

static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}

static void run_tile(void *arg, size_t tile, int thread) {
    const struct job *job = arg;
    const struct lk_mm *mm = job->mm;
    /* Down first: threads that run side by side read the same columns of B, which are weights, the larger operand. */
    size_t i = tile % job->down * job->tile_rows, j = tile / job->down * job->tile_columns;
    job->tile(mm, i, smaller(mm->m, i + job->tile_rows), j, smaller(mm->n, j + job->tile_columns), &job->math->k.caches,
              lk__math_scratch(job->math, thread));
}

/* x W' reads W along its rows, dy W across them, dy' x reads dy across. */
static struct lk__math_timing begin_timing(struct lk_math *math, const struct lk_mm *mm) {
    const struct lk_mm_part *first = mm->parts;
    double m = (double)mm->m, n = (double)mm->n, k = 0;
    for (size_t p = 0; p < mm->part_count; p++) k += (double)mm->parts[p].k;
    enum lk_kernel kernel = first->a_col != 1   ? LK_KERNEL_MATMUL_WEIGHT
                            : first->b_col != 1 ? LK_KERNEL_MATMUL_FORWARD
                                                : LK_KERNEL_MATMUL_INPUT;
    return lk__math_timing_begin(math, kernel, 2 * m * n * k, (m * k + k * n + m * n) * sizeof(float));
}

void lk_matmul(struct lk_math *math, const struct lk_mm *mm) {
    struct lk__math_timing timing __attribute__((cleanup(lk__math_timing_end))) = {0};
    if (math->profile) timing = begin_timing(math, mm);
    LK_ASSERT(mm->part_count > 0 && "lk_matmul: no parts");
    for (size_t p = 0; p < mm->part_count; p++) {
        const struct lk_mm_part *part = &mm->parts[p];
        LK_ASSERT((part->a_row == 1 || part->a_col == 1) && (part->b_row == 1 || part->b_col == 1) && "lk_matmul: strides");
        LK_ASSERT((!mm->accumulate || p + 1 == mm->part_count || !part->ends_group) &&
                  "lk_matmul: accumulate needs one group");
    }
    if (!mm->m || !mm->n) return;
    struct job job = {.math = math, .mm = mm};
    bool transposed;
    math->k.mm_blocking(mm, (size_t)lk_pool_threads(math->pool), &math->k.caches, &job.tile_rows, &job.tile_columns,
                        &transposed);
    job.tile = transposed ? math->k.mm_tile_transposed : math->k.mm_tile;
    LK_ASSERT(math->scratch_bytes >= math->k.mm_scratch_bytes);
    job.down = (mm->m + job.tile_rows - 1) / job.tile_rows;
    size_t across = (mm->n + job.tile_columns - 1) / job.tile_columns;
    lk_pool_run(math->pool, job.down * across, run_tile, &job);
}
