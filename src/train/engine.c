/* The step: batch -> loss and gradient -> norm, clipping, AdamW. Everything here is a function of (state, dataset,
 * identity). */
#include "engine.h"

#include "lockstep/random.h"

#include <stdio.h>
#include <string.h>

int lk__engine_open(struct lk__engine *e, const struct lk_run_config *c, const struct lk_layout *layout,
                    struct lk_math *math, const struct lk_dataset *dataset, uint32_t micro_batch, struct lk_err *err) {
    LK_NUMERIC_SCOPE();
    *e = (struct lk__engine){.config = c, .layout = layout, .math = math, .dataset = dataset, .tensors = layout->tensors};
    e->sequences_in_dataset = lk_dataset_sequences(dataset, LK_TRAIN, c->context);
    int code = lk__units_make(c->sequences, c->grains, micro_batch, &e->units, &e->unit_count, err);
    if (code) return code;
    uint32_t most = 0;
    for (uint32_t i = 0; i < e->unit_count; i++) most = e->units[i].sequences > most ? e->units[i].sequences : most;
    e->buffer_count = lk__units_buffers(e->units, e->unit_count);
    for (size_t i = 0; i < layout->tensor_count; i++)
        e->block_count += (layout->tensors[i].count + LK_BLOCK - 1) / LK_BLOCK;
    size_t positions = (size_t)c->sequences * c->context;
    e->inputs = lk_alloc(positions * 4);
    e->targets = lk_alloc(positions * 4);
    e->document_start = lk_alloc(positions * 4);
    e->losses = lk_alloc(positions * 4);
    e->sample_index = lk_alloc(c->sequences * sizeof(uint64_t));
    e->grain_loss = lk_alloc(c->grains * sizeof(double));
    e->block_sums = lk_alloc(e->block_count * sizeof(double));
    e->parts = lk_alloc(most * sizeof *e->parts);
    e->tree.buffers = lk_calloc(e->buffer_count, sizeof *e->tree.buffers);
    bool ok = e->inputs && e->targets && e->document_start && e->losses && e->sample_index && e->grain_loss &&
              e->block_sums && e->parts && e->tree.buffers;
    for (uint32_t i = 0; ok && i < e->buffer_count; i++)
        if ((ok = (e->tree.buffers[i] = lk_alloc(layout->floats * sizeof(float))) != NULL))
            memset(e->tree.buffers[i], 0, layout->floats * sizeof(float));
    if (!ok)
        code = lk_fail(err, LK_ENOMEM, "no memory for gradients (%u buffers of %zu MB)", e->buffer_count,
                       layout->floats * 4 / 1000000);
    if (!code) code = lk_embedding_gradient_create(c->vocab, c->width, positions, &e->embedding, err);
    if (!code)
        code =
            lk_decoder_create(layout, math, most, c->context, c->recompute ? LK_RECOMPUTE : LK_TRAINING, &e->decoder, err);
    if (code) lk__engine_close(e);
    return code;
}

void lk__engine_close(struct lk__engine *e) {
    lk_decoder_free(e->decoder);
    lk_embedding_gradient_free(e->embedding);
    for (uint32_t i = 0; e->tree.buffers && i < e->buffer_count; i++) lk_free(e->tree.buffers[i]);
    lk_free(e->tree.buffers);
    lk_free(e->units);
    lk_free(e->inputs);
    lk_free(e->targets);
    lk_free(e->document_start);
    lk_free(e->losses);
    lk_free(e->sample_index);
    lk_free(e->grain_loss);
    lk_free(e->block_sums);
    lk_free(e->parts);
    *e = (struct lk__engine){0};
}

/* Fetches the batch's sequences; returns the number of unmasked targets. */
static uint64_t load_batch(struct lk__engine *e, uint64_t samples) {
    const struct lk_run_config *c = e->config;
    uint64_t n = e->sequences_in_dataset, targets = 0;
    for (uint32_t j = 0; j < c->sequences; j++) {
        uint64_t sample = samples + j;
        size_t at = (size_t)j * c->context;
        e->sample_index[j] = lk_permute(c->seed, (uint32_t)(sample / n), n, sample % n);
        lk_dataset_sequence(e->dataset, LK_TRAIN, e->sample_index[j], c->context, e->inputs + at, e->targets + at,
                            e->document_start + at);
    }
    for (size_t i = 0; i < (size_t)c->sequences * c->context; i++) targets += e->targets[i] != UINT32_MAX;
    return targets;
}

/* Forward, loss and backward of one unit into the tree's top buffer. */
static void run_unit(struct lk__engine *e, const float *weights, const struct lk__unit *u, float scale) {
    const struct lk_run_config *c = e->config;
    uint32_t T = c->context, grain_sequences = c->sequences / c->grains;
    size_t at = (size_t)u->first * T, rows = (size_t)u->sequences * T;
    float *logits = lk_decoder_forward(e->decoder, weights, u->sequences, T, e->inputs + at,
                                       c->cross_documents ? NULL : e->document_start + at);
    lk_cross_entropy(e->math, rows, c->vocab, logits, c->vocab, e->targets + at, scale, true, e->losses + at);
    for (uint32_t s = 0; s < u->sequences; s++)
        e->parts[s] = (struct lk_row_part){
            .first = (size_t)s * T, .rows = T, .ends_group = (u->first + s + 1) % grain_sequences == 0};
    e->parts[u->sequences - 1].ends_group = true;
    const float *dx = lk_decoder_backward(e->decoder, weights, e->parts, u->sequences, !u->begins, lk__tree_top(&e->tree));
    for (uint32_t s = 0; s < u->sequences;) { /* the embedding's rows, grain by grain */
        uint32_t grain = (u->first + s) / grain_sequences, end = (grain + 1) * grain_sequences - u->first;
        if (end > u->sequences) end = u->sequences;
        lk_embedding_gradient_add(e->embedding, e->math, grain, end - s, T, e->inputs + at + (size_t)s * T,
                                  dx + (size_t)s * T * c->width);
        s = end;
    }
}

static double batch_loss(struct lk__engine *e, uint64_t targets) {
    const struct lk_run_config *c = e->config;
    size_t rows = (size_t)(c->sequences / c->grains) * c->context;
    for (uint32_t g = 0; g < c->grains; g++) {
        double sum = 0;
        for (size_t i = g * rows; i < (g + 1) * rows; i++) sum += e->losses[i];
        e->grain_loss[g] = sum;
    }
    return lk_tree_sum(c->grains, e->grain_loss) / (double)targets;
}

static double gradient_norm(struct lk__engine *e) {
    const float *gradient = e->tree.buffers[0];
    size_t block = 0;
    for (size_t i = 0; i < e->layout->tensor_count; i++) {
        const struct lk_tensor *t = &e->tensors[i];
        lk_block_squares(e->math, t->count, gradient + t->offset, e->block_sums + block);
        block += (t->count + LK_BLOCK - 1) / LK_BLOCK;
    }
    return lk_sqrt64(lk_tree_sum(block, e->block_sums));
}

int lk__engine_gradient(struct lk__engine *e, const struct lk_state *state, struct lk_ledger_row *row, struct lk_err *err) {
    LK_NUMERIC_SCOPE();
    const struct lk_layout *l = e->layout;
    row->step = (uint32_t)state->updates + 1;
    row->learning_rate = lk_learning_rate(e->config, (uint32_t)state->updates);
    row->tokens = load_batch(e, state->samples);
    if (row->tokens == 0)
        return lk_fail(err, LK_EINVAL,
                       "step %u: all targets of its batch are masked (prompts only); use more sequences in a batch or "
                       "longer responses",
                       row->step);
    float scale = (float)(1.0 / (double)row->tokens);
    lk__tree_begin(&e->tree);
    lk_embedding_gradient_begin(e->embedding);
    for (uint32_t i = 0; i < e->unit_count; i++) {
        run_unit(e, state->weights, &e->units[i], scale);
        if (e->units[i].ends) lk__tree_push(&e->tree, e->math, l->floats, e->units[i].grain, e->units[i].grains);
    }
    lk__tree_finish(&e->tree, e->math, l->floats);
    lk_embedding_gradient_finish(e->embedding, e->math, l->head < 0, e->tree.buffers[0] + l->tensors[l->embedding].offset);
    row->loss = batch_loss(e, row->tokens);
    row->gradient_norm = gradient_norm(e);
    /* x - x is not 0 for infinities and NaN */
    if (row->loss - row->loss != 0 || row->gradient_norm - row->gradient_norm != 0)
        return lk__engine_blame(e, state, row->step, err);
    return LK_OK;
}

void lk__engine_update(struct lk__engine *e, struct lk_state *state, struct lk_ledger_row *row) {
    LK_NUMERIC_SCOPE();
    const struct lk_run_config *c = e->config;
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
    float decayed = (float)(1 - row->learning_rate * c->weight_decay);
    for (size_t i = 0; i < e->layout->tensor_count; i++) {
        const struct lk_tensor *tensor = &e->tensors[i];
        a.keep = tensor->decay ? decayed : 1;
        lk_adamw_step(e->math, &a, tensor->count, state->weights + tensor->offset, e->tree.buffers[0] + tensor->offset,
                      state->moments1 + tensor->offset, state->moments2 + tensor->offset);
    }
    state->updates++;
    state->samples += c->sequences;
}

/* --- Blame: which tensor, which document ----------------------------------------------------------------- */

static void describe_document(const struct lk__engine *e, uint32_t sequence, uint32_t position, char *out, size_t size) {
    struct lk_document doc;
    uint64_t token = e->sample_index[sequence] * e->config->context + position;
    uint64_t index = lk_dataset_document_at(e->dataset, LK_TRAIN, token);
    if (lk_dataset_document(e->dataset, LK_TRAIN, index, &doc, NULL))
        snprintf(out, size, "document %llu", (unsigned long long)index);
    else if (doc.line)
        snprintf(out, size, "document %llu (%s line %llu)", (unsigned long long)index, doc.source_path,
                 (unsigned long long)doc.line);
    else
        snprintf(out, size, "document %llu (%s at byte %llu)", (unsigned long long)index, doc.source_path,
                 (unsigned long long)doc.source_offset);
}

/* The first sequence whose own gradient is not finite: each alone through forward and backward. */
static uint32_t guilty_sequence(struct lk__engine *e, const struct lk_state *state) {
    for (uint32_t s = 0; s < e->config->sequences; s++) {
        struct lk__unit one = {.first = s, .sequences = 1, .grain = s, .grains = 1, .begins = true, .ends = true};
        lk__tree_begin(&e->tree);
        lk_embedding_gradient_begin(e->embedding);
        run_unit(e, state->weights, &one, 1);
        lk_embedding_gradient_finish(e->embedding, e->math, e->layout->head < 0,
                                     e->tree.buffers[0] + e->layout->tensors[e->layout->embedding].offset);
        if (!lk_all_finite(e->math, e->layout->floats, e->tree.buffers[0])) return s;
    }
    return UINT32_MAX;
}

int lk__engine_blame(struct lk__engine *e, const struct lk_state *state, uint32_t step, struct lk_err *err) {
    const char *tensor = NULL;
    char document[600] = "";
    size_t positions = (size_t)e->config->sequences * e->config->context, bad = positions;
    for (size_t i = 0; i < e->layout->tensor_count && !tensor; i++)
        if (!lk_all_finite(e->math, e->tensors[i].count, e->tree.buffers[0] + e->tensors[i].offset))
            tensor = e->tensors[i].name;
    for (size_t i = positions; i-- > 0;)
        if (e->losses[i] - e->losses[i] != 0) bad = i;
    bool loss = bad < positions;
    uint32_t sequence = loss ? (uint32_t)(bad / e->config->context) : guilty_sequence(e, state);
    if (sequence != UINT32_MAX)
        describe_document(e, sequence, loss ? (uint32_t)(bad % e->config->context) : 0, document, sizeof document);
    return lk_fail(err, LK_ENAN,
                   "step %u: the %s is not finite (first bad gradient: %s; in %s of the batch, %s); the state before the "
                   "step is kept: "
                   "lower optimizer.learning_rate, set optimizer.clip, or look at that text",
                   step, loss ? "loss" : "gradient", tensor ? tensor : "none",
                   sequence == UINT32_MAX ? "no single sequence" : "one sequence", *document ? document : "only together");
}
