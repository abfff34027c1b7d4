/* The memory plan: what a run will take, known before its first step; too little memory is refused here. */
#include "engine.h"

#include "lockstep/base/progress.h"
#include <stdio.h>
#include <unistd.h>

static uint64_t resident_bytes(void) {
    unsigned long pages = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f) return 0;
    if (fscanf(f, "%lu %lu", &pages, &resident) != 2) resident = 0;
    fclose(f);
    return (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* comm: NULL: alone. */
static int fill(const struct lk_run_config *c, const struct lk_layout *layout, struct lk_math *math,
                const struct lk_comm *comm, uint32_t micro_batch, struct lk_plan *p, struct lk_err *err) {
    struct lk__train_unit *units;
    struct lk__train_shards shards;
    uint32_t bounds[LK_RANKS_MAX + 1], count, most = 0;
    int rank = comm ? lk_comm_rank(comm) : 0, ranks = comm ? lk_comm_ranks(comm) : 1;
    int code = lk__train_engine_bounds(c, layout, ranks, bounds, err);
    if (code) return code;
    struct lk__train_range mine = {bounds[rank], bounds[rank + 1]};
    if ((code = lk__train_units_make(c->sequences, c->grains, mine, micro_batch, &units, &count, err))) return code;
    for (uint32_t i = 0; i < count; i++) most = units[i].sequences > most ? units[i].sequences : most;
    uint64_t positions = (uint64_t)c->sequences * lk_run_config_context(c);
    p->micro_batch = most;
    p->units = count;
    p->gradient_buffers = lk__train_units_buffers(units, count, c->grains);
    lk_free(units);
    if ((code = lk__train_shards_init(&shards, layout, rank, ranks, err))) return code;
    size_t tokens = (size_t)(c->sequences / c->grains) * (mine.end - mine.first) * lk_run_config_context(c);
    lk__train_reduce_bytes(&shards, !comm || lk_comm_shares(comm), c->grains, bounds, p->gradient_buffers, tokens,
                           &p->weights_bytes, &p->gradients_bytes);
    p->moments_bytes = 2 * shards.floats * sizeof(float);
    lk__train_shards_release(&shards);
    p->activations_bytes =
        lk_decoder_bytes(layout, most, lk_run_config_context(c), c->recompute ? LK_RECOMPUTE : LK_TRAINING);
    p->embedding_bytes = lk_embedding_gradient_bytes(c->vocab, c->width, tokens);
    p->batch_bytes = positions * 16 + layout->parameters / LK_BLOCK * 8;
    size_t threads = (size_t)lk_pool_threads(lk_math_pool(math));
    size_t attention = lk_decoder_scratch_bytes(layout, lk_run_config_context(c), LK_TRAINING) * threads,
           now = lk_math_scratch_bytes(math);
    p->scratch_bytes = attention > now ? attention - now : 0; /* what is there already counts as the process */
    p->process_bytes = resident_bytes() + ((uint64_t)4 << 20);
    p->total_bytes = p->weights_bytes + p->moments_bytes + p->gradients_bytes + p->activations_bytes + p->embedding_bytes +
                     p->batch_bytes + p->scratch_bytes + p->process_bytes;
    return LK_OK;
}

static int refuse(const struct lk_run_config *c, const struct lk_plan *p, struct lk_err *err) {
    char need[32], have[32], fixed[32], activations[32], gradients[32];
    bool smaller = p->micro_batch > 1;
    return lk_fail(err, LK_ENOMEM,
                   "this run needs %s of memory and %s are free: %s for weights and moments, %s for %u gradient buffer%s, "
                   "%s for activations of %u sequence%s; %s%s%sor a smaller model (model.layers, model.width, model.vocab, "
                   "model.context)",
                   lk_format_bytes(p->total_bytes, need), lk_format_bytes(p->available_bytes, have),
                   lk_format_bytes(p->weights_bytes + p->moments_bytes, fixed),
                   lk_format_bytes(p->gradients_bytes, gradients), p->gradient_buffers, p->gradient_buffers > 1 ? "s" : "",
                   lk_format_bytes(p->activations_bytes, activations), p->micro_batch, smaller ? "s" : "",
                   smaller ? "set a smaller memory.micro_batch, " : "", c->recompute ? "" : "set memory.recompute = true, ",
                   p->gradient_buffers > 1 ? "fewer batch.grains, " : "");
}

/* Without a wish the whole batch at once is best: no stack of gradients, the largest products. It is given up only for
 * memory: then the largest piece that leaves a fifth of it free. */
int lk_plan_make(const struct lk_run_config *c, const struct lk_layout *layout, struct lk_math *math,
                 const struct lk_comm *comm, struct lk_plan *p, struct lk_err *err) {
    uint64_t available = lk_memory_available_bytes() / (comm ? (uint64_t)lk_comm_ranks_here(comm) : 1);
    uint32_t micro_batch = c->micro_batch ? c->micro_batch : c->sequences;
    for (;;) {
        int code = fill(c, layout, math, comm, micro_batch, p, err);
        if (code) return code;
        p->available_bytes = available + resident_bytes();
        if (c->micro_batch || micro_batch == 1 || p->total_bytes <= p->available_bytes / 10 * 8) break;
        micro_batch = p->micro_batch > 1 ? (p->micro_batch < micro_batch ? p->micro_batch : micro_batch) / 2 : 1;
    }
    return p->total_bytes > p->available_bytes ? refuse(c, p, err) : LK_OK;
}
