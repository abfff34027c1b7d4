/* The grains' tree (docs/numerics.md, section 8) over arrays and over doubles. */
#include "math/kernel_table.h"

#include <string.h>

#define PIECE 512 /* floats: partial results of a piece stay in the nearest cache */
#define DEPTH 33  /* results that wait for their right neighbour: at most one a level */

struct job {
    const struct lk__math_kernels *k;
    size_t n;
    const float *const *sources;
    size_t source_count;
    const struct lk_tree_step *steps;
    float *out;
    double *squares;
};

static void add_piece(const struct job *j, size_t from, size_t n, float scratch[][PIECE]) {
    const float *value[DEPTH + 1]; /* of each place: a source, or a result that waits in the scratch of that place */
    size_t depth = 0, next = 0, last = j->source_count - 2;
    for (size_t i = 0; i < j->source_count; i++) {
        LK_ASSERT(depth <= DEPTH);
        value[depth++] = j->sources[i] + from;
        for (; next <= last && j->steps[next].right == depth - 1; next++) {
            size_t left = --depth - 1;
            float *to = next == last ? j->out + from : scratch[left];
            j->k->add(n, value[left], value[left + 1], to);
            value[left] = to;
        }
    }
    LK_ASSERT(next == last + 1);
}

static void tree_tile(void *arg, size_t tile, int thread) {
    (void)thread;
    const struct job *j = arg;
    float scratch[DEPTH][PIECE] __attribute__((aligned(64)));
    size_t from = tile * LK_BLOCK, n = j->n - from < LK_BLOCK ? j->n - from : LK_BLOCK;
    if (j->source_count > 1)
        for (size_t i = 0; i < n; i += PIECE) add_piece(j, from + i, n - i < PIECE ? n - i : PIECE, scratch);
    else if (j->sources[0] != j->out)
        memcpy(j->out + from, j->sources[0] + from, n * sizeof(float));
    if (j->squares) j->squares[tile] = j->k->block_squares(n, j->out + from);
}

void lk_tree_add(struct lk_math *m, size_t n, const float *const *sources, size_t source_count,
                 const struct lk_tree_step *steps, float *out, double *squares) {
    /* One source that is the result already is only read, for its squares. */
    LK_TIMED(m, SUMS, 0, ((double)source_count + (source_count > 1 || sources[0] != out)) * (double)n * sizeof(float));
    LK_ASSERT(source_count >= 1 && source_count <= LK_TREE_SOURCES);
    struct job j = {&m->k, n, sources, source_count, steps, out, squares};
    lk_pool_run(m->pool, n / LK_BLOCK + (n % LK_BLOCK != 0), tree_tile, &j);
}

double lk_tree_sum(size_t n, double *values) {
    LK_ASSERT(n >= 1);
    unsigned long long old = lk_fpenv_set();
    for (; n > 1; n = n / 2 + n % 2)
        for (size_t i = 0; i < n / 2 + n % 2; i++)
            values[i] = 2 * i + 1 < n ? values[2 * i] + values[2 * i + 1] : values[2 * i];
    lk_fpenv_restore(old);
    return values[0];
}
