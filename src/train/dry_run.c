/* A dry run: the plan by arithmetic, the seconds of a step by measuring one, or, where a step is long, a smaller one.
 * README.md, "The dry run". */
#include "trainer.h"

#include "lockstep/base/progress.h"
#include <string.h>

/* What is measured twice, by each rank. A step of more operations is measured on fewer positions: the gradient's time grows
 * with the operations, the update's not at all. The reference kernels are a hundred times slower. */
#define OPERATIONS           1e10
#define REFERENCE_OPERATIONS 1e8
/* A table of learned positions is measured with its first rows, down to this many parameters: made and updated twice they
 * take a tenth of a second, and with gradient and moments they still overflow most caches, as all of them would. */
#define POSITION_PARAMETERS ((uint32_t)1 << 22)

/* Of the rank that has most to do. */
static int operations(const struct lk_trainer *t, const struct lk_run_config *c, double *out, struct lk_err *err) {
    uint32_t bounds[LK_RANKS_MAX + 1], most = 0;
    int ranks = lk_comm_ranks(t->comm), code = lk__train_engine_bounds(c, &t->run.layout, ranks, bounds, err);
    for (int k = 0; k < ranks && !code; k++) most = bounds[k + 1] - bounds[k] > most ? bounds[k + 1] - bounds[k] : most;
    uint64_t sequences = (uint64_t)most * (c->sequences / c->grains);
    *out = 3 * lk_model_flops(&t->run.layout.config, sequences, lk_run_config_context(c));
    return code;
}

/* The same model, a grain of one sequence a rank, as many positions as `limit` operations allow. */
static void shrink(const struct lk_trainer *t, double limit, struct lk_run_config *c) {
    uint32_t low = 1, high = lk_run_config_context(c) + 1; /* the answer lies in [low, high) */
    c->sequences = c->grains = (uint32_t)lk_comm_ranks(t->comm);
    c->micro_batch = 1;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (3 * lk_model_flops(&t->run.layout.config, 1, middle) <= limit)
            low = middle;
        else
            high = middle;
    }
    c->batch_context = low;
}

/* The same model with fewer learned positions, but all that sequences have. A checkpoint's weights would not fit it; the
 * time does not depend on weights, so that it begins from its seed. */
static int cut_positions(struct lk_trainer *t, struct lk_err *err) {
    struct lk_run *run = &t->run;
    struct lk_run_config *c = &run->config;
    uint32_t rows = POSITION_PARAMETERS / c->width + 1, used = lk_run_config_context(c);
    if (rows < used) rows = used;
    if (c->family != LK_GPT2 || rows >= c->context) return LK_OK;
    c->batch_context = used;
    c->context = rows;
    run->from = LK_FROM_SEED;
    run->samples_before = 0;
    lk_layout_release(&run->layout);
    struct lk_model_config m = lk_run_config_model(c);
    return lk_layout_init(&run->layout, &m, err);
}

/* A batch of prompts only would be no work: the next one then. */
static int measure(struct lk_trainer *t, double *gradient, double *update, struct lk_err *err) {
    int code = lk__trainer_from_the_beginning(t, err);
    for (int steps = 0, tries = 0; steps < 2 && tries < 10000 && !code; tries++) { /* the first touches the memory */
        struct lk_ledger_row row;
        uint64_t began = lk_clock_ns();
        code = lk__train_engine_gradient(&t->engine, &t->state, &row, err);
        uint64_t middle = lk_clock_ns();
        if (!code) code = lk__train_engine_update(&t->engine, &t->state, &row, err);
        *gradient = (double)(middle - began) * 1e-9;
        *update = (double)(lk_clock_ns() - middle) * 1e-9;
        steps += row.tokens > 0;
    }
    return code;
}

/* The part of the gradient's time that the number of parameters decides, by the memory that it moves, in parts of what the
 * update moves (it reads weight, gradient and two moments and writes three of them): the first pass writes zeros that the
 * norm reads, each further pass adds to what is there (two reads, a write) after its zeros. */
static double passes_share(uint32_t passes) {
    return (4.0 * passes - 2) / 7;
}

static int time_step(struct lk_trainer *t, const struct lk_plan *plan, double *seconds, struct lk_err *err) {
    struct lk_run_config *c = &t->run.config;
    double limit = strcmp(lk_math_isa(t->math), "ref") ? OPERATIONS : REFERENCE_OPERATIONS;
    double parameters = (double)t->run.layout.floats, whole, measured, gradient = 0, update = 0;
    uint32_t micro_batch = plan->micro_batch;
    int code = operations(t, c, &whole, err);
    if (code) return code;
    if (whole > limit) {
        shrink(t, limit, c);
        micro_batch = 1;
    }
    code = lk_comm_agree(t->comm, "model to measure", cut_positions(t, err), err);
    if (code || (code = operations(t, c, &measured, err))) return code;
    code = lk__train_engine_open(&t->engine, c, &t->run.layout, t->math, t->comm, t->dataset, micro_batch, err);
    if (code) return code;
    code = lk_comm_agree(t->comm, "moments", lk__train_engine_state(&t->engine, &t->state, err), err);
    if (!code) code = measure(t, &gradient, &update, err);
    double moved = update * passes_share(t->engine.unit_count), computed = gradient > moved ? gradient - moved : 0;
    *seconds = computed * (whole / measured) +
               update * (1 + passes_share(plan->units)) * (parameters / (double)t->run.layout.floats);
    return code;
}

int lk_train_dry_run(struct lk_store *store, struct lk_math *math, struct lk_comm *comm, const struct lk_run_config *config,
                     const struct lk_train_hooks *hooks, struct lk_plan *plan, double *seconds, struct lk_err *err) {
    struct lk_err own; /* the ranks agree on a message: there must be one */
    if (!err) err = &own;
    struct lk_trainer *t = lk__trainer_new(store, math, comm, hooks, err);
    if (!t) return LK_ENOMEM;
    int code = t->rank == 0 ? lk__trainer_resolve(t, config, true, err) : LK_OK;
    if (!code && t->rank == 0 && !(t->record = lk__trainer_new_record(&t->run)))
        code = lk_fail(err, LK_ENOMEM, "no memory for the run's record");
    code = lk__trainer_share(t, code, err);
    if (!code) code = lk_plan_make(&t->run.config, &t->run.layout, t->math, t->comm, plan, err);
    code = lk_comm_agree(t->comm, "memory plan", code, err);
    if (!code) code = time_step(t, plan, seconds, err);
    lk_trainer_free(t);
    return code;
}
