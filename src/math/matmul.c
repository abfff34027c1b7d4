/* Matrix products: cuts C into tiles by its shape and gives them to the pool. A tile does all of k, so threads never share
 * a sum and their number changes no bit. */
#include "lockstep/err.h"
#include "math/kernel_table.h"

struct job {
    struct lk_math *math;
    const struct lk_mm *mm;
    size_t tile_rows, tile_columns, down;
};

static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}

static void run_tile(void *arg, size_t tile, int thread) {
    const struct job *job = arg;
    const struct lk_mm *mm = job->mm;
    /* Down first: threads that run side by side read the same columns of B, which are weights, the larger operand. */
    size_t i = tile % job->down * job->tile_rows, j = tile / job->down * job->tile_columns;
    job->math->k.mm_tile(mm, i, smaller(mm->m, i + job->tile_rows), j, smaller(mm->n, j + job->tile_columns),
                         lk__scratch(job->math, thread));
}

void lk_matmul(struct lk_math *math, const struct lk_mm *mm) {
    LK_ASSERT(mm->part_count > 0 && "lk_matmul: no parts");
    for (size_t p = 0; p < mm->part_count; p++) {
        const struct lk_mm_part *part = &mm->parts[p];
        LK_ASSERT((part->a_row == 1 || part->a_col == 1) && (part->b_row == 1 || part->b_col == 1) && "lk_matmul: strides");
        LK_ASSERT((!mm->accumulate || p + 1 == mm->part_count || !part->ends_group) &&
                  "lk_matmul: accumulate needs one group");
    }
    if (!mm->m || !mm->n) return;
    struct job job = {.math = math, .mm = mm};
    math->k.mm_cut(mm, &job.tile_rows, &job.tile_columns);
    LK_ASSERT(math->scratch_bytes >= math->k.mm_scratch_bytes);
    job.down = (mm->m + job.tile_rows - 1) / job.tile_rows;
    size_t across = (mm->n + job.tile_columns - 1) / job.tile_columns;
    lk_pool_run(math->pool, job.down * across, run_tile, &job);
}
