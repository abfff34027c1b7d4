/* Evaluation: the held-out sequences in order (docs/numerics.md, section 7). How many are done at once changes no bit. */
#include "engine.h"

/* Text bytes behind the targets of the first `tokens` targets of the stream; 0 when it can't be told. */
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

struct buffers {
    uint32_t *inputs, *targets, *start;
    float *losses;
    double *sums;
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

int lk__evaluate_check(const struct lk_dataset *dataset, uint32_t context, uint32_t sequences, struct lk_err *err) {
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

int lk__evaluate(struct lk_decoder *decoder, uint32_t max_sequences, const struct lk_layout *layout, struct lk_math *math,
                 const float *weights, const struct lk_dataset *dataset, uint32_t context, bool cross_documents,
                 uint32_t sequences, struct lk_eval_row *out, struct lk_err *err) {
    LK_NUMERIC_SCOPE();
    uint64_t n = sequences_to_do(dataset, context, sequences);
    size_t rows = (size_t)max_sequences * context, vocab = layout->config.vocab;
    if (n == 0) return lk_fail(err, LK_EINVAL, "the dataset holds nothing out: build it with --holdout");
    struct buffers b = {.inputs = lk_alloc(rows * 4),
                        .targets = lk_alloc(rows * 4),
                        .start = lk_alloc(rows * 4),
                        .losses = lk_alloc(rows * 4),
                        .sums = lk_alloc(n * sizeof(double))};
    int code =
        b.inputs && b.targets && b.start && b.losses && b.sums ? LK_OK : lk_fail(err, LK_ENOMEM, "no memory to evaluate");
    uint64_t targets = 0, covered = 0;
    for (uint64_t i = 0; i < n && !code;) {
        uint32_t count = 0, positions = context;
        while (count < max_sequences && i + count < n) { /* as many whole sequences as fit; a short one alone */
            size_t at = (size_t)count * context;
            uint32_t got =
                lk_dataset_sequence(dataset, LK_HELD_OUT, i + count, context, b.inputs + at, b.targets + at, b.start + at);
            if (got < context && count > 0) break;
            count++;
            if (got < context) {
                positions = got;
                break;
            }
        }
        float *logits = lk_decoder_forward(decoder, weights, count, positions, b.inputs, cross_documents ? NULL : b.start);
        lk_cross_entropy(math, (size_t)count * positions, vocab, logits, vocab, b.targets, 1, false, b.losses);
        targets += add_losses(&b, count, positions, b.sums + i);
        covered += (uint64_t)count * positions;
        i += count;
    }
    if (!code && targets == 0) code = all_masked(err);
    if (!code) {
        out->loss = lk_tree_sum(n, b.sums) / (double)targets;
        out->targets = targets;
        out->bytes = targets == covered ? covered_bytes(dataset, covered) : 0;
    }
    lk_free(b.inputs);
    lk_free(b.targets);
    lk_free(b.start);
    lk_free(b.losses);
    lk_free(b.sums);
    return code;
}

int lk_evaluate(struct lk_math *math, const struct lk_layout *layout, const float *weights,
                const struct lk_dataset *dataset, uint32_t context, bool cross_documents, uint32_t sequences,
                struct lk_eval_row *out, struct lk_err *err) {
    struct lk_decoder *decoder;
    uint32_t at_once = context >= 2048 ? 1 : 2048 / context;
    int code = lk_decoder_create(layout, math, at_once, context, LK_INFER, &decoder, err);
    if (code) return code;
    code = lk__evaluate(decoder, at_once, layout, math, weights, dataset, context, cross_documents, sequences, out, err);
    lk_decoder_free(decoder);
    return code;
}
