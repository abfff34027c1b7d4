/* Evaluation: the held-out sequences in order (docs/numerics.md, section 7). How many are done at once, and by which rank,
 * changes no bit. */
#include "evaluate.h"

/* The bytes of text that the first `targets` targets of the held-out tokens stand for; 0: a document does not tell. */
static uint64_t covered_bytes(const struct lk_dataset *dataset, uint64_t targets) {
    uint64_t bytes = 0, documents = lk_dataset_documents(dataset, LK_HELD_OUT);
    if (targets + 1 >= lk_dataset_tokens(dataset, LK_HELD_OUT)) return lk_dataset_bytes(dataset, LK_HELD_OUT);
    for (uint64_t i = 0; i < documents; i++) {
        struct lk_document doc;
        uint64_t from, to;
        if (lk_dataset_document(dataset, LK_HELD_OUT, i, &doc, NULL)) return 0;
        if (doc.token_begin > targets) break;
        if (doc.token_end <= targets + 1)
            bytes += doc.size_bytes;
        else if (lk_dataset_byte_range(dataset, LK_HELD_OUT, i, doc.token_begin, targets + 1, &from, &to, NULL))
            return 0;
        else
            bytes += to - from;
    }
    return bytes;
}

/* Of one rank's sequences. Ranks gather it as bytes, so it has no padding. */
struct counts {
    uint64_t targets, positions;
};
struct buffers {
    uint32_t *inputs, *targets, *start;
    float *losses;
    double *sums;
    struct counts *counts; /* (ranks) */
    size_t *offsets;       /* (ranks + 1) */
};

static uint64_t add_losses(const struct buffers *b, uint32_t sequences, uint32_t positions, double *sums) {
    uint64_t targets = 0;
    for (uint32_t s = 0; s < sequences; s++) {
        double sum = 0;
        for (size_t i = (size_t)s * positions; i < (size_t)(s + 1) * positions; i++) {
            sum += b->losses[i];
            targets += b->targets[i] != UINT32_MAX;
        }
        sums[s] = sum;
    }
    return targets;
}

static uint64_t sequences_to_do(const struct lk_dataset *dataset, uint32_t context, uint32_t sequences) {
    uint64_t all = lk_dataset_sequences(dataset, LK_HELD_OUT, context);
    return sequences && sequences < all ? sequences : all;
}

static int all_masked(struct lk_err *err) {
    return lk_fail(
        err, LK_EINVAL,
        "all targets of the held-out sequences to evaluate are masked (prompts only); evaluate more of them, hold "
        "more out, or train with eval.every = 0");
}

int lk__train_evaluate_check(const struct lk_dataset *dataset, uint32_t context, uint32_t sequences, struct lk_err *err) {
    uint64_t n = sequences_to_do(dataset, context, sequences);
    uint32_t *tokens = lk_alloc((size_t)context * 3 * 4);
    if (!tokens) return lk_fail(err, LK_ENOMEM, "no memory to evaluate");
    uint32_t *targets = tokens + context, *start = targets + context;
    bool found = false;
    for (uint64_t i = 0; i < n && !found; i++) {
        uint32_t got = lk_dataset_sequence(dataset, LK_HELD_OUT, i, context, tokens, targets, start);
        for (uint32_t k = 0; k < got && !found; k++) found = targets[k] != UINT32_MAX;
    }
    lk_free(tokens);
    return found ? LK_OK : all_masked(err);
}

static int add_likeliest(const struct lk__train_evaluation *e, const struct buffers *b, const float *logits, size_t rows) {
    size_t vocab = e->layout->config.vocab;
    int code = LK_OK;
    for (size_t i = 0; i < rows && !code; i++) {
        const float *row = logits + i * vocab;
        uint32_t best = 0;
        if (b->targets[i] == UINT32_MAX) continue;
        for (uint32_t id = 1; id < vocab; id++) best = row[id] > row[best] ? id : best;
        code = lk_buf_append(e->likeliest, &best, sizeof best);
    }
    return code;
}

/* Sums of the sequences [from, to), as many at a time as the decoder holds; a short one alone. */
static int evaluate_range(const struct lk__train_evaluation *e, const struct buffers *b, uint64_t from, uint64_t to,
                          uint64_t *targets, uint64_t *covered) {
    size_t vocab = e->layout->config.vocab;
    for (uint64_t i = from; i < to;) {
        uint32_t count = 0, positions = e->context;
        while (count < e->at_once && i + count < to) {
            size_t at = (size_t)count * e->context;
            uint32_t got = lk_dataset_sequence(e->dataset, LK_HELD_OUT, i + count, e->context, b->inputs + at,
                                               b->targets + at, b->start + at);
            if (got < e->context && count > 0) break;
            count++;
            if (got < e->context) {
                positions = got;
                break;
            }
        }
        float *logits =
            lk_decoder_forward(e->decoder, e->weights, count, positions, b->inputs, e->cross_documents ? NULL : b->start);
        if (e->likeliest && add_likeliest(e, b, logits, (size_t)count * positions)) return LK_ENOMEM;
        lk_cross_entropy(e->math, &(struct lk_cross_entropy){.rows = (size_t)count * positions,
                                                             .vocab = vocab,
                                                             .logits = logits,
                                                             .ld = vocab,
                                                             .targets = b->targets,
                                                             .scale = 1,
                                                             .loss = b->losses});
        *targets += add_losses(b, count, positions, b->sums + i);
        *covered += (uint64_t)count * positions;
        i += count;
    }
    return LK_OK;
}

/* Every rank's sums and counts to every rank. This rank has filled its own counts. */
static int gather(const struct lk__train_evaluation *e, struct buffers *b, uint64_t n, struct lk_err *err) {
    size_t ranks = (size_t)lk_comm_ranks(e->comm);
    for (size_t k = 0; k <= ranks; k++) b->offsets[k] = n * k / ranks * sizeof(double);
    int code = lk_comm_gather_all(e->comm, "held-out losses", b->sums, b->offsets, err);
    for (size_t k = 0; k <= ranks; k++) b->offsets[k] = k * sizeof *b->counts;
    return code ? code : lk_comm_gather_all(e->comm, "held-out targets", b->counts, b->offsets, err);
}

int lk__train_evaluate(const struct lk__train_evaluation *e, uint32_t sequences, struct lk_eval_row *out,
                       struct lk_err *err) {
    LK_NUMERIC_SCOPE();
    uint64_t n = sequences_to_do(e->dataset, e->context, sequences), targets = 0, covered = 0;
    size_t rows = (size_t)e->at_once * e->context, ranks = (size_t)lk_comm_ranks(e->comm),
           rank = (size_t)lk_comm_rank(e->comm);
    if (n == 0) return lk_fail(err, LK_EINVAL, "the dataset holds nothing out: build it with --holdout");
    struct buffers b = {.inputs = lk_alloc(rows * 4),
                        .targets = lk_alloc(rows * 4),
                        .start = lk_alloc(rows * 4),
                        .losses = lk_alloc(rows * 4),
                        .sums = lk_alloc(n * sizeof(double)),
                        .counts = lk_calloc(ranks, sizeof *b.counts),
                        .offsets = lk_alloc((ranks + 1) * sizeof *b.offsets)};
    int code = b.inputs && b.targets && b.start && b.losses && b.sums && b.counts && b.offsets
                   ? LK_OK
                   : lk_fail(err, LK_ENOMEM, "no memory to evaluate");
    code = lk_comm_agree(e->comm, "evaluation", code, err);
    if (!code) {
        code = evaluate_range(e, &b, n * rank / ranks, n * (rank + 1) / ranks, &b.counts[rank].targets,
                              &b.counts[rank].positions);
        if (code) lk_fail(err, code, "no memory to evaluate");
        if (!code) code = gather(e, &b, n, err);
    }
    for (size_t k = 0; k < ranks && !code; k++) {
        targets += b.counts[k].targets;
        covered += b.counts[k].positions;
    }
    if (!code && targets == 0) code = all_masked(err);
    if (!code) {
        out->loss = lk_tree_sum(n, b.sums) / (double)targets;
        out->targets = targets;
        out->bytes = targets == covered ? covered_bytes(e->dataset, covered) : 0;
    }
    lk_free(b.inputs);
    lk_free(b.targets);
    lk_free(b.start);
    lk_free(b.losses);
    lk_free(b.sums);
    lk_free(b.counts);
    lk_free(b.offsets);
    return code;
}

int lk_evaluate(struct lk_math *math, const struct lk_layout *layout, const float *weights,
                const struct lk_dataset *dataset, uint32_t context, bool cross_documents, uint32_t sequences,
                enum lk_dtype cache, struct lk_eval_row *out, struct lk_buf *likeliest, struct lk_err *err) {
    struct lk_err own; /* the ranks agree on a message: there must be one */
    if (!err) err = &own;
    struct lk__train_evaluation e = {.layout = layout,
                                     .math = math,
                                     .at_once = context >= 2048 ? 1 : 2048 / context,
                                     .weights = weights,
                                     .dataset = dataset,
                                     .context = context,
                                     .cross_documents = cross_documents,
                                     .likeliest = likeliest};
    if (lk_dataset_vocab(dataset) > layout->config.vocab)
        return lk_fail(err, LK_EINVAL, "the dataset has tokens up to %u, the model only %u rows",
                       lk_dataset_vocab(dataset) - 1, layout->config.vocab);
    int code = lk_comm_open_self(&e.comm, err);
    if (!code) code = lk_decoder_create(layout, math, e.at_once, context, LK_INFER, &e.decoder, err);
    if (!code) code = lk_decoder_use_cache(e.decoder, cache, err);
    void *panels = !code && layout->narrow ? lk_alloc(layout->panel_bytes) : NULL;
    if (!code && layout->narrow && !panels) code = lk_fail(err, LK_ENOMEM, "no memory for the weights' panels");
    if (panels && lk_decoder_fill_panels(e.decoder, weights, panels)) lk_decoder_use_panels(e.decoder, weights, panels);
    if (!code) code = lk__train_evaluate(&e, sequences, out, err);
    lk_free(panels);
    lk_decoder_free(e.decoder);
    lk_comm_close(e.comm);
    return code;
}
