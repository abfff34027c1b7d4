/* The step: batch -> loss and gradient -> norm, clipping, AdamW. Everything here is a function of (state, dataset,
 * identity). */
#include "engine.h"

#include "lockstep/base/random.h"
#include "lockstep/math/scalar.h"

#include <stdio.h>
#include <string.h>

/* A core's rate in computing grains, and in moving and adding partial sums: only their ratio matters, and only for which
 * rank gets which grains, so that figures of an ordinary machine will do. */
#define GRAIN_FLOPS 50e9
#define SUM_BYTES   5e9

int lk__train_engine_bounds(const struct lk_run_config *c, const struct lk_layout *l, int ranks, uint32_t *bounds,
                            struct lk_err *err) {
    if ((uint32_t)ranks > c->grains)
        return lk_fail(
            err, LK_EINVAL,
            "%d ranks cannot share %u grain%s: each needs at least one; start at most %u (batch.grains is part of "
            "the run's identity)",
            ranks, c->grains, c->grains == 1 ? "" : "s", c->grains);
    if (ranks > LK_RANKS_MAX)
        return lk_fail(err, LK_EUNSUPPORTED, "%d ranks: at most %d are supported", ranks, LK_RANKS_MAX);
    double grain = 3 * lk_model_flops(&l->config, c->sequences / c->grains, lk_run_config_context(c)) / GRAIN_FLOPS;
    return lk__train_share_grains(c->grains, (uint32_t)ranks, grain, (double)l->floats * sizeof(float) / SUM_BYTES, bounds,
                                  err);
}

/* What this rank has to do: its grains, its slices, its passes. */
static int open_share(struct lk__train_engine *e, uint32_t micro_batch, struct lk_err *err) {
    const struct lk_run_config *c = e->config;
    int rank = lk_comm_rank(e->comm), ranks = lk_comm_ranks(e->comm);
    e->bounds = lk_alloc(((size_t)ranks + 1) * sizeof *e->bounds);
    if (!e->bounds) return lk_fail(err, LK_ENOMEM, "no memory to share grains");
    int code = lk__train_engine_bounds(c, e->layout, ranks, e->bounds, err);
    if (code) return code;
    e->grains = (struct lk__train_range){e->bounds[rank], e->bounds[rank + 1]};
    if ((code = lk__train_shards_init(&e->shards, e->layout, rank, ranks, err))) return code;
    code = lk__train_units_make(c->sequences, c->grains, e->grains, micro_batch, &e->units, &e->unit_count, err);
    if (!code) e->buffer_count = lk__train_units_buffers(e->units, e->unit_count, c->grains);
    return code;
}

static int open_batch(struct lk__train_engine *e, struct lk_err *err) {
    const struct lk_run_config *c = e->config;
    size_t positions = (size_t)c->sequences * lk_run_config_context(c);
    uint32_t most = 0;
    for (uint32_t i = 0; i < e->unit_count; i++) most = e->units[i].sequences > most ? e->units[i].sequences : most;
    e->inputs = lk_alloc(positions * 4);
    e->targets = lk_alloc(positions * 4);
    e->document_start = lk_alloc(positions * 4);
    e->losses = lk_alloc(positions * 4);
    e->sample_index = lk_alloc(c->sequences * sizeof(uint64_t));
    e->grain_loss = lk_alloc(c->grains * sizeof(double));
    e->loss_offsets = lk_alloc(((size_t)e->shards.ranks + 1) * sizeof *e->loss_offsets);
    e->block_sums = lk_alloc(e->shards.blocks * sizeof(double));
    e->parts = lk_alloc(most * sizeof *e->parts);
    if (!e->inputs || !e->targets || !e->document_start || !e->losses || !e->sample_index || !e->grain_loss ||
        !e->loss_offsets || !e->block_sums || !e->parts)
        return lk_fail(err, LK_ENOMEM, "no memory for a batch of %zu tokens", positions);
    for (int k = 0; k <= e->shards.ranks; k++) e->loss_offsets[k] = e->bounds[k] * sizeof(double);
    return lk_decoder_create(e->layout, e->math, most, lk_run_config_context(c), c->recompute ? LK_RECOMPUTE : LK_TRAINING,
                             &e->decoder, err);
}

int lk__train_engine_open(struct lk__train_engine *e, const struct lk_run_config *c, const struct lk_layout *layout,
                          struct lk_math *math, struct lk_comm *comm, const struct lk_dataset *dataset,
                          uint32_t micro_batch, struct lk_err *err) {
    LK_NUMERIC_SCOPE();
    *e = (struct lk__train_engine){
        .config = c, .layout = layout, .math = math, .dataset = dataset, .tensors = layout->tensors};
    e->sequences_in_dataset = lk_dataset_sequences(dataset, LK_TRAIN, lk_run_config_context(c));
    int code = comm ? LK_OK : lk_comm_open_self(&e->own_comm, err);
    if (code) return code;
    e->comm = comm ? comm : e->own_comm;
    code = open_share(e, micro_batch, err);
    if (!code) code = open_batch(e, err);
    code = lk_comm_agree(e->comm, "opening the engine", code, err);
    size_t tokens = (size_t)(e->grains.end - e->grains.first) * (c->sequences / c->grains) * lk_run_config_context(c);
    if (!code)
        code = lk__train_reduce_open(e->comm, math, &e->shards, c->grains, e->bounds, e->buffer_count, tokens, &e->reduce,
                                     err);
    if (!code) {
        e->buffers = lk__train_reduce_buffers(e->reduce);
        code = lk_embedding_gradient_create(c->vocab, c->width, tokens, lk__train_reduce_embedding_rows(e->reduce),
                                            &e->embedding, err);
        code = lk_comm_agree(e->comm, "opening the engine", code, err);
    }
    if (!code) return LK_OK;
    lk__train_engine_close(e);
    return code;
}

void lk__train_engine_close(struct lk__train_engine *e) {
    lk_decoder_free(e->decoder);
    lk_embedding_gradient_free(e->embedding);
    lk__train_reduce_close(e->reduce);
    lk__train_shards_release(&e->shards);
    lk_comm_close(e->own_comm);
    lk_free(e->bounds);
    lk_free(e->units);
    lk_free(e->inputs);
    lk_free(e->targets);
    lk_free(e->document_start);
    lk_free(e->losses);
    lk_free(e->sample_index);
    lk_free(e->grain_loss);
    lk_free(e->loss_offsets);
    lk_free(e->block_sums);
    lk_free(e->parts);
    *e = (struct lk__train_engine){0};
}

int lk__train_engine_state(struct lk__train_engine *e, struct lk_state *state, struct lk_err *err) {
    return lk__train_state_init_shard(state, &e->shards, lk__train_reduce_weights(e->reduce),
                                      lk__train_reduce_shared(e->reduce), err);
}

/* Fetches the batch's sequences; returns the number of unmasked targets. */
static uint64_t load_batch(struct lk__train_engine *e, uint64_t samples) {
    const struct lk_run_config *c = e->config;
    uint64_t n = e->sequences_in_dataset, targets = 0;
    for (uint32_t j = 0; j < c->sequences; j++) {
        uint64_t sample = samples + j;
        size_t at = (size_t)j * lk_run_config_context(c);
        e->sample_index[j] = lk_permute(c->seed, (uint32_t)(sample / n), n, sample % n);
        lk_dataset_sequence(e->dataset, LK_TRAIN, e->sample_index[j], lk_run_config_context(c), e->inputs + at,
                            e->targets + at, e->document_start + at);
    }
    for (size_t i = 0; i < (size_t)c->sequences * lk_run_config_context(c); i++) targets += e->targets[i] != UINT32_MAX;
    return targets;
}

/* Forward, loss and backward of one unit into `gradient`. stage: as lk_decoder_backward tells it, or NULL. */
static void run_unit(struct lk__train_engine *e, const float *weights, const struct lk__train_unit *u, float scale,
                     float *gradient, lk_stage_fn *stage) {
    const struct lk_run_config *c = e->config;
    uint32_t T = lk_run_config_context(c), grain_sequences = c->sequences / c->grains;
    size_t at = (size_t)u->first * T, rows = (size_t)u->sequences * T;
    float *logits = lk_decoder_forward(e->decoder, weights, u->sequences, T, e->inputs + at,
                                       c->cross_documents ? NULL : e->document_start + at);
    lk_cross_entropy(e->math, &(struct lk_cross_entropy){.rows = rows,
                                                         .vocab = c->vocab,
                                                         .logits = logits,
                                                         .ld = c->vocab,
                                                         .targets = e->targets + at,
                                                         .scale = scale,
                                                         .gradient = true,
                                                         .loss = e->losses + at});
    for (uint32_t s = 0; s < u->sequences; s++)
        e->parts[s] = (struct lk_row_part){
            .first = (size_t)s * T, .rows = T, .ends_group = (u->first + s + 1) % grain_sequences == 0};
    e->parts[u->sequences - 1].ends_group = true;
    const float *dx = lk_decoder_backward(e->decoder, weights, e->parts, u->sequences, !u->begins, gradient, stage, e);
    for (uint32_t s = 0; s < u->sequences;) { /* the embedding's rows, grain by grain */
        uint32_t grain = (u->first + s) / grain_sequences, end = (grain + 1) * grain_sequences - u->first;
        if (end > u->sequences) end = u->sequences;
        lk_embedding_gradient_add(e->embedding, e->math, grain, end - s, T, e->inputs + at + (size_t)s * T,
                                  dx + (size_t)s * T * c->width);
        s = end;
    }
}

/* Adds of the tree over whole passes, in one region. */
static void merge_region(struct lk__train_engine *e, const struct lk__train_region *r) {
    for (uint32_t i = 0; i < e->merge_count && r->dense; i++) {
        float *left = e->buffers[e->merges[i].left] + r->begin;
        lk_add(e->math, r->end - r->begin, left, e->buffers[e->merges[i].right] + r->begin, left);
    }
}

/* The last pass of a step has finished a stage, so this rank's partial sums of it are complete. */
static void stage_done(void *arg, uint32_t stage) {
    struct lk__train_engine *e = arg;
    for (uint32_t i = 0; i < e->shards.region_count; i++)
        if (e->shards.regions[i].stage == stage) merge_region(e, &e->shards.regions[i]);
    if (!e->stage_code) e->stage_code = lk__train_reduce_stage_done(e->reduce, stage, e->stage_err);
}

/* All passes of this rank; its partial sums are handed over while the last one runs. */
static int run_units(struct lk__train_engine *e, const float *weights, float scale, struct lk_err *err) {
    e->stage_code = LK_OK;
    e->stage_err = err;
    e->merge_count = 0;
    lk__train_tree_begin(&e->tree, e->config->grains);
    lk__train_reduce_begin(e->reduce, e->block_sums);
    lk_embedding_gradient_begin(e->embedding);
    for (uint32_t i = 0; i < e->unit_count; i++) {
        const struct lk__train_unit *u = &e->units[i];
        float *gradient = e->buffers[e->tree.depth];
        bool last = i + 1 == e->unit_count;
        if (u->ends) e->merge_count = lk__train_tree_push(&e->tree, u->node, e->merges);
        run_unit(e, weights, u, scale, gradient, last ? stage_done : NULL);
        for (uint32_t k = 0; k < e->shards.region_count && u->ends && !last; k++) merge_region(e, &e->shards.regions[k]);
    }
    if (e->stage_code) return e->stage_code;
    struct lk_embedding_rows rows =
        lk_embedding_gradient_list(e->embedding, e->math, e->grains.first, e->grains.end, e->config->grains);
    return lk__train_reduce_finish(e->reduce, &rows, err);
}

static int batch_loss(struct lk__train_engine *e, uint64_t targets, double *loss, struct lk_err *err) {
    const struct lk_run_config *c = e->config;
    size_t rows = (size_t)(c->sequences / c->grains) * lk_run_config_context(c);
    for (uint32_t g = e->grains.first; g < e->grains.end; g++) {
        double sum = 0;
        for (size_t i = g * rows; i < (g + 1) * rows; i++) sum += e->losses[i];
        e->grain_loss[g] = sum;
    }
    int code = lk_comm_gather_all(e->comm, "losses", e->grain_loss, e->loss_offsets, err);
    if (!code) *loss = lk_tree_sum(c->grains, e->grain_loss) / (double)targets;
    return code;
}

int lk__train_engine_gradient(struct lk__train_engine *e, const struct lk_state *state, struct lk_ledger_row *row,
                              struct lk_err *err) {
    LK_NUMERIC_SCOPE();
    uint32_t step = lk__train_state_step(state, e->config);
    *row = (struct lk_ledger_row){.step = step + 1, .learning_rate = lk_learning_rate(e->config, step)};
    row->tokens = load_batch(e, state->samples);
    if (row->tokens == 0) return LK_OK; /* every rank has counted the whole batch: all skip the step */
    int code = run_units(e, state->weights, (float)(1.0 / (double)row->tokens), err);
    if (!code) code = batch_loss(e, row->tokens, &row->loss, err);
    if (code) return code;
    row->gradient_norm = lk_sqrt64(lk_tree_sum(e->shards.blocks, e->block_sums));
    /* x - x is not 0 for infinities and NaN */
    if (row->loss - row->loss != 0 || row->gradient_norm - row->gradient_norm != 0)
        return lk__train_engine_blame(e, state, row->step, err);
    return LK_OK;
}

struct update {
    const struct lk__train_engine *e;
    const struct lk_state *state;
    struct lk_adamw adamw;
    float decayed;
    const struct lk__train_region *region;
};

static void update_piece(void *arg, const struct lk_tensor *tensor, size_t offset, size_t count, size_t block) {
    struct update *u = arg;
    const struct lk__train_engine *e = u->e;
    size_t local = u->region->local + (offset - u->region->cuts[e->shards.rank]);
    (void)block;
    u->adamw.keep = tensor->decay ? u->decayed : 1;
    lk_adamw_step(e->math, &u->adamw, count, u->state->weights + offset, e->buffers[0] + offset, u->state->moments1 + local,
                  u->state->moments2 + local);
}

int lk__train_engine_update(struct lk__train_engine *e, struct lk_state *state, struct lk_ledger_row *row,
                            struct lk_err *err) {
    LK_NUMERIC_SCOPE();
    const struct lk_run_config *c = e->config;
    state->samples += c->sequences;
    if (row->tokens == 0) return LK_OK;
    double t = (double)(state->updates + 1), correction = 1 - lk_pow64(c->beta2, t);
    struct lk_adamw a = {.beta1 = (float)c->beta1,
                         .one_minus_beta1 = (float)(1 - c->beta1),
                         .beta2 = (float)c->beta2,
                         .one_minus_beta2 = (float)(1 - c->beta2),
                         .step = (float)(-row->learning_rate / (1 - lk_pow64(c->beta1, t))),
                         .v_scale = (float)(1 / lk_sqrt64(correction)),
                         .epsilon = (float)c->epsilon,
                         .keep = 1,
                         .clip = 1};
    if (c->clip > 0 && row->gradient_norm > c->clip) a.clip = (float)(c->clip / row->gradient_norm);
    struct update u = {.e = e, .state = state, .adamw = a, .decayed = (float)(1 - row->learning_rate * c->weight_decay)};
    for (uint32_t i = 0; i < e->shards.region_count; i++) {
        u.region = &e->shards.regions[i];
        lk__train_shards_pieces(e->layout, u.region->cuts[e->shards.rank], u.region->cuts[e->shards.rank + 1], update_piece,
                                &u);
    }
    state->updates++;
    return lk__train_reduce_weights_ready(e->reduce, err);
}

/* --- Blame: which tensor, which document ----------------------------------------------------------------- */

void lk__train_document_text(const struct lk_dataset *dataset, uint64_t token, char *out, size_t size) {
    struct lk_document doc;
    uint64_t index = lk_dataset_document_at(dataset, LK_TRAIN, token);
    if (lk_dataset_document(dataset, LK_TRAIN, index, &doc, NULL))
        snprintf(out, size, "document %llu", (unsigned long long)index);
    else if (doc.line)
        snprintf(out, size, "document %llu (%s line %llu)", (unsigned long long)index, doc.source_path,
                 (unsigned long long)doc.line);
    else
        snprintf(out, size, "document %llu (%s at byte %llu)", (unsigned long long)index, doc.source_path,
                 (unsigned long long)doc.source_offset);
}

/* The first of this rank's sequences whose own gradient is not finite: each alone through forward and backward. */
static uint32_t guilty_sequence(struct lk__train_engine *e, const struct lk_state *state) {
    const struct lk_layout *l = e->layout;
    uint32_t per = e->config->sequences / e->config->grains;
    float *gradient = e->buffers[0];
    for (uint32_t s = e->grains.first * per; s < e->grains.end * per; s++) {
        struct lk__train_unit one = {.first = s, .sequences = 1, .begins = true, .ends = true};
        lk_embedding_gradient_begin(e->embedding);
        run_unit(e, state->weights, &one, 1, gradient, NULL);
        struct lk_embedding_rows rows =
            lk_embedding_gradient_list(e->embedding, e->math, e->grains.first, e->grains.end, e->config->grains);
        const struct lk_tensor *table = &l->tensors[l->embedding];
        lk_embedding_rows_finish(e->math, e->config->width, &rows, 1, 0, table->count, l->head < 0,
                                 gradient + table->offset);
        if (!lk_all_finite(e->math, l->floats, gradient)) return s;
    }
    return UINT32_MAX;
}

struct finding {
    struct lk__train_engine *e;
    uint64_t tensor;
};
static void find_piece(void *arg, const struct lk_tensor *tensor, size_t offset, size_t count, size_t block) {
    struct finding *f = arg;
    uint64_t index = (uint64_t)(tensor - f->e->tensors);
    (void)block;
    if (index < f->tensor && !lk_all_finite(f->e->math, count, f->e->buffers[0] + offset)) f->tensor = index;
}

/* The least of what the ranks found. */
static int least(struct lk__train_engine *e, const char *name, uint64_t *value, struct lk_err *err) {
    uint64_t all[LK_RANKS_MAX];
    size_t offsets[LK_RANKS_MAX + 1];
    for (int k = 0; k <= e->shards.ranks; k++) offsets[k] = (size_t)k * sizeof *all;
    all[e->shards.rank] = *value;
    int code = lk_comm_gather_all(e->comm, name, all, offsets, err);
    for (int k = 0; k < e->shards.ranks && !code; k++) *value = all[k] < *value ? all[k] : *value;
    return code;
}

int lk__train_engine_blame(struct lk__train_engine *e, const struct lk_state *state, uint32_t step, struct lk_err *err) {
    char document[600] = "";
    const struct lk_run_config *c = e->config;
    size_t per = (size_t)(c->sequences / c->grains) * lk_run_config_context(c);
    uint64_t bad = UINT64_MAX, sequence = UINT64_MAX;
    struct finding f = {e, UINT64_MAX};
    for (uint32_t i = 0; i < e->shards.region_count; i++) {
        const size_t *cuts = e->shards.regions[i].cuts;
        lk__train_shards_pieces(e->layout, cuts[e->shards.rank], cuts[e->shards.rank + 1], find_piece, &f);
    }
    for (size_t i = e->grains.end * per; i-- > e->grains.first * per;)
        if (e->losses[i] - e->losses[i] != 0) bad = i;
    int code = least(e, "who is to blame", &f.tensor, err);
    if (!code) code = least(e, "who is to blame", &bad, err);
    if (code) return code;
    bool loss = bad != UINT64_MAX;
    if (loss)
        sequence = bad / lk_run_config_context(c);
    else {
        uint32_t mine = guilty_sequence(e, state);
        if (mine != UINT32_MAX) sequence = mine;
        if ((code = least(e, "who is to blame", &sequence, err))) return code;
    }
    uint64_t context = lk_run_config_context(c), position = loss ? bad % context : 0;
    if (sequence != UINT64_MAX)
        lk__train_document_text(e->dataset, e->sample_index[sequence] * context + position, document, sizeof document);
    char way[2 * sizeof c->name + sizeof c->from + 200];
    if (step > 1)
        snprintf(way, sizeof way,
                 "go on from a step before it as a new run, `lockstep train --from %s@STEP key=value` (or %s@best)",
                 c->name, c->name);
    else if (*c->from)
        snprintf(way, sizeof way, "begin with an earlier step or another model than %s, or", c->from);
    else
        snprintf(way, sizeof way, "begin a new run");
    return lk_fail(
        err, LK_ENAN,
        "step %u: the %s is not finite (first bad gradient: %s; in %s of the batch, %.300s); resuming repeats it: "
        "%s with a lower optimizer.learning_rate or optimizer.clip, or look at that text",
        step, loss ? "loss" : "gradient", f.tensor != UINT64_MAX ? e->tensors[f.tensor].name : "none",
        sequence == UINT64_MAX ? "no single sequence" : "one sequence", *document ? document : "only together", way);
}
