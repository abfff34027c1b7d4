/* The gradient of GPT-2 124M summed over ranks: MPI_Allreduce beside our reduce-scatter and gather, in turns.
 * mpirun -n N reduce_bench [rounds]; LOCKSTEP_SHARED_MEMORY=no: our messages instead of shared memory. One thread a rank.
 */
#include "lockstep/base/mem.h"
#include "lockstep/math/kernels.h"
#include "train/reduce.h"
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RANKS_MOST  64
#define ROUNDS_MOST 1000
#define WARM_UP     2 /* rounds: memory is touched, connections are made */

enum what { MPI, OURS, SUM, WEIGHTS, FLOOR, WHATS };
static const char *const names[WHATS] = {"MPI_Allreduce", "ours", "  sums and squares", "  weights", "adds alone"};

struct bench {
    struct lk_comm *comm;
    struct lk_math *math;
    struct lk_layout layout;
    struct lk__train_shards shards;
    struct lk__train_reduce *reduce;
    struct lk_arena arena;
    float *array; /* MPI's */
    double *squares;
    double seconds[WHATS][ROUNDS_MOST]; /* of the slowest rank */
};

static void check(int code, const struct lk_err *err) {
    if (!code) return;
    fprintf(stderr, "reduce_bench: %s\n", err->message);
    exit(1); /* mpirun ends the others */
}

/* The whole model in one grain a rank, no row of the table touched beyond what is dense. */
static void open_all(struct bench *b) {
    struct lk_model_config gpt2 = {.family = LK_GPT2,
                                   .layers = 12,
                                   .width = 768,
                                   .heads = 12,
                                   .kv_heads = 12,
                                   .head_dim = 64,
                                   .ffn = 3072,
                                   .context = 256,
                                   .vocab = 50304,
                                   .tied = true,
                                   .norm_epsilon = 1e-5,
                                   .init_std = 0.02};
    struct lk_err err = {0};
    struct lk_pool *pool;
    uint32_t bounds[RANKS_MOST + 1];
    int there = 0;
    check(lk_comm_open(&b->comm, &err), &err);
    int ranks = lk_comm_ranks(b->comm);
    MPI_Initialized(&there);
    if (!there || ranks > RANKS_MOST)
        check(lk_fail(&err, LK_EINVAL, "start this with mpirun -n 2 to %d", RANKS_MOST), &err);
    for (int k = 0; k <= ranks; k++) bounds[k] = (uint32_t)k;
    check(lk_pool_open(1, &pool, &err), &err);
    check(lk_math_open(pool, NULL, &b->math, &err), &err);
    check(lk_layout_init(&b->layout, &gpt2, &err), &err);
    check(lk__train_shards_init(&b->shards, &b->layout, lk_comm_rank(b->comm), ranks, &err), &err);
    check(lk__train_reduce_open(b->comm, b->math, &b->shards, (uint32_t)ranks, bounds, 1, 1, &b->reduce, &err), &err);
    size_t array = b->layout.floats * sizeof(float), squares = b->shards.blocks * sizeof(double);
    check(lk_arena_init(&b->arena, array + squares + 4096), &(struct lk_err){.message = "not enough memory"});
    b->array = lk_arena_take(&b->arena, array);
    b->squares = lk_arena_take(&b->arena, squares);
}

/* Small whole numbers, so that every order of adding gives the same sum. */
static void fill(const struct bench *b, float *array, int round) {
    size_t shift = (size_t)(b->shards.rank * 3 + round);
    for (size_t i = 0; i < b->layout.floats; i++) array[i] = (float)((i + shift) & 255);
}

static double begin(void) {
    MPI_Barrier(MPI_COMM_WORLD);
    return MPI_Wtime();
}
/* As long as the slowest rank takes: who is done early still waits for the others in a step. */
static void end(struct bench *b, enum what what, int round, double began) {
    double mine = MPI_Wtime() - began, most;
    MPI_Allreduce(&mine, &most, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    b->seconds[what][round] = most;
}

static void round_mpi(struct bench *b, int round) {
    fill(b, b->array, round);
    double t = begin();
    MPI_Allreduce(MPI_IN_PLACE, b->array, (int)b->layout.floats, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    end(b, MPI, round, t);
}

/* Sums; the update is left out; weights. Both parts begin on all ranks at once, and what counts is their sum. */
static void round_ours(struct bench *b, int round) {
    struct lk_err err = {0};
    struct lk_embedding_rows none = {0};
    fill(b, lk__train_reduce_buffers(b->reduce)[0], round);
    double t = begin();
    lk__train_reduce_begin(b->reduce, b->squares);
    for (uint32_t stage = 0; stage < b->shards.stages; stage++)
        check(lk__train_reduce_stage_done(b->reduce, stage, &err), &err);
    check(lk__train_reduce_finish(b->reduce, &none, &err), &err);
    end(b, SUM, round, t);
    t = begin();
    check(lk__train_reduce_weights_ready(b->reduce, &err), &err);
    end(b, WEIGHTS, round, t);
    b->seconds[OURS][round] = b->seconds[SUM][round] + b->seconds[WEIGHTS][round];
}

/* What no reduction can avoid: a rank's slice read twice and written once, all ranks at the same time, each in its own
 * memory. */
static void round_floor(struct bench *b, int round) {
    size_t slice = b->layout.floats / (size_t)b->shards.ranks;
    double t = begin();
    lk_add(b->math, slice, b->array, b->array + (b->shards.ranks > 1 ? slice : 0), b->array);
    end(b, FLOOR, round, t);
}

static void compare(const struct bench *b) {
    const float *ours = lk__train_reduce_buffers(b->reduce)[0];
    for (uint32_t i = 0; i < b->shards.region_count; i++) {
        const struct lk__train_region *r = &b->shards.regions[i];
        size_t from = r->cuts[b->shards.rank], to = r->cuts[b->shards.rank + 1];
        if (memcmp(ours + from, b->array + from, (to - from) * sizeof *ours))
            check(LK_ECORRUPT, &(struct lk_err){.message = "the sums differ"});
    }
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    static struct bench b;
    int rounds = WARM_UP + (argc > 1 ? atoi(argv[1]) : 15);
    if (rounds <= WARM_UP || rounds > ROUNDS_MOST) return fprintf(stderr, "usage: mpirun -n N reduce_bench [rounds]\n"), 2;
    open_all(&b);
    for (int i = 0; i < rounds; i++) {
        round_mpi(&b, i);
        round_ours(&b, i);
        compare(&b);
        round_floor(&b, i);
    }
    double bytes = (double)b.layout.floats * sizeof(float), median[WHATS];
    for (int w = 0; w < WHATS; w++) {
        qsort(b.seconds[w] + WARM_UP, (size_t)(rounds - WARM_UP), sizeof(double), ascending);
        median[w] = b.seconds[w][WARM_UP + (rounds - WARM_UP) / 2];
    }
    if (b.shards.rank == 0) {
        printf("%d ranks x 1 thread, %.0f MB of gradient, over %s, %s, medians of %d rounds; GB/s: gradient over time\n",
               b.shards.ranks, bytes * 1e-6, lk_comm_engine(b.comm), lk_math_isa(b.math), rounds - WARM_UP);
        for (int w = 0; w < WHATS; w++) {
            printf("%-20s %8.1f ms", names[w], median[w] * 1e3);
            if (w == WEIGHTS)
                printf(" %13s", ""); /* nothing moves where memory is shared */
            else
                printf(" %8.2f GB/s", bytes / median[w] * 1e-9);
            printf("   min %.1f max %.1f\n", b.seconds[w][WARM_UP] * 1e3, b.seconds[w][rounds - 1] * 1e3);
        }
        printf("MPI_Allreduce / ours: %.2f, / our sums alone: %.2f\n", median[MPI] / median[OURS],
               median[MPI] / median[SUM]);
        fflush(stdout);
    }
    lk__train_reduce_close(b.reduce);
    lk_comm_close(b.comm);
}
