/* From logits to tokens: log-probabilities, penalties, a draw, text. */
#include "inside.h"

#include "lockstep/base/progress.h"
#include <string.h>

/* x[j]'s log-probability is -(log of the sum - (x[j] - most)): a loss, docs/numerics.md, section 7. */
struct scale {
    float most, log_sum;
};
static struct scale scale_of(const struct lk_batch *b, struct lk_math *math, float *logits) {
    uint32_t vocab = b->layout->config.vocab;
    uint32_t best =
        lk_sample_token(math, logits, vocab, &(struct lk_sampling){0}, 0, NULL); /* temperature 0: the greatest */
    struct scale s = {.most = logits[best]};
    lk_cross_entropy(
        math,
        &(struct lk_cross_entropy){
            .rows = 1, .vocab = vocab, .logits = logits, .ld = vocab, .targets = &best, .scale = 1, .loss = &s.log_sum});
    return s;
}
static float logprob(const struct scale *s, float x) {
    return -(s->log_sum - (x - s->most));
}

/* The likeliest, by insertion: few come far. */
static void likeliest(const struct scale *s, const float *logits, uint32_t tokens, uint32_t most,
                      struct lk_drawn_token *t) {
    float x[LK_TOP_LOGPROBS_MOST];
    uint32_t n = 0;
    for (uint32_t i = 0; i < tokens && most; i++) {
        if (n == most && !(logits[i] > x[n - 1])) continue;
        uint32_t at = n < most ? n++ : n - 1;
        for (; at > 0 && logits[i] > x[at - 1]; at--) x[at] = x[at - 1], t->top[at] = t->top[at - 1];
        x[at] = logits[i], t->top[at].id = i;
    }
    for (uint32_t i = 0; i < n; i++) t->top[i].logprob = logprob(s, x[i]);
    t->top_count = n;
}

static void describe(const struct lk_batch *b, const struct lk_request *r, float *logits, uint32_t id,
                     const struct scale *s, struct lk_drawn_token *t) {
    t->token = (struct lk_logprob){id, logprob(s, logits[id])};
    likeliest(s, logits, lk_tokenizer_vocab(b->tokenizer), r->top_logprobs, t);
}

static void end(struct lk__batch_sequence *s, enum lk_request_end how) {
    s->ended = true;
    s->result.end = how;
}

static bool is_end(const struct lk_batch *b, const struct lk_request *r, uint32_t id) {
    bool is = !r->ignore_end && id == lk_tokenizer_end(b->tokenizer);
    for (size_t i = 0; i < r->end_count; i++) is |= id == r->ends[i];
    return is;
}

/* The row of the token before position `at` of the prompt says what that one's probability was. */
static void echo(struct lk_batch *b, struct lk__batch_sequence *s, float *logits, uint32_t at) {
    struct lk_drawn_token t;
    if (at >= s->r.prompt_count || at <= s->echoed) return;
    s->echoed = at;
    struct scale scale = scale_of(b, b->math, logits);
    describe(b, &s->r, logits, s->tokens[at], &scale, &t);
    if (s->r.token && s->r.token(s->r.arg, &t, true)) end(s, LK_REQUEST_CANCELLED);
}

static void take_text(struct lk_batch *b, struct lk__batch_sequence *s, uint32_t id) {
    if (is_end(b, &s->r, id)) {
        end(s, LK_REQUEST_END);
        return;
    }
    switch (lk__serve_text_take(&s->text, lk_tokenizer_bytes(b->tokenizer, id))) {
    case LK__TEXT_STOPPED:
        end(s, LK_REQUEST_STOP);
        break;
    case LK__TEXT_CALLER:
        end(s, LK_REQUEST_CANCELLED);
        break;
    case LK__TEXT_NO_MEMORY:
        end(s, LK_REQUEST_FAILED);
        break;
    case LK__TEXT_GOES_ON:
        break;
    }
}

/* No token: UINT32_MAX, the text is complete and there is no end token; STUCK, the grammar can't go on. */
#define STUCK (UINT32_MAX - 1)
/* The next token of these logits: nothing but s->drawn is changed, so several sequences can do it at once. */
static void draw(const struct lk_batch *b, struct lk__batch_sequence *s, float *logits,
                 const struct lk__batch_drawer *with) {
    struct lk_drawn_token *t = &s->drawn;
    uint32_t tokens = lk_tokenizer_vocab(b->tokenizer), id;
    bool tells = s->r.logprobs && s->r.token;
    struct scale scale = {0};
    float raw = 0;
    t->top_count = 0;
    if (s->r.receipt) lk_sha256(logits, b->layout->config.vocab * sizeof *logits, &t->logits);
    if (tells) {
        scale = scale_of(b, with->math, logits);
        likeliest(&scale, logits, tokens, s->r.top_logprobs, t);
    }
    if (tells && s->penalised) memcpy(with->raw, logits, tokens * sizeof *logits);
    if (s->penalised) lk__serve_penalise(&s->r.penalties, &s->counts, logits);
    if (!s->r.matcher)
        id = lk_sample_token(with->math, logits, tokens, &s->r.sampling, s->count, with->workspace);
    else if (lk_matcher_mask(s->r.matcher, with->allowed, NULL))
        id = STUCK;
    else
        id = lk_sample_allowed(with->math, logits, tokens, with->allowed, &s->r.sampling, s->count, with->workspace);
    if (id >= STUCK) tells = false;
    if (tells) raw = s->penalised ? with->raw[id] : logits[id];
    t->token = (struct lk_logprob){id, tells ? logprob(&scale, raw) : 0};
}

/* The token that was drawn becomes the text's. */
static uint32_t push(struct lk_batch *b, struct lk__batch_sequence *s) {
    uint32_t id = s->drawn.token.id;
    if (id >= STUCK || (s->r.matcher && lk_matcher_accept(s->r.matcher, id, NULL))) {
        end(s, id == UINT32_MAX ? LK_REQUEST_STOP : LK_REQUEST_FAILED);
        return id;
    }
    if (!s->result.tokens++) s->result.first_ns = lk_clock_ns() - s->submitted_ns;
    s->tokens[s->count++] = id;
    if (s->penalised) lk__serve_counts_add(&s->counts, id, true);
    if (s->r.token && s->r.token(s->r.arg, &s->drawn, false)) end(s, LK_REQUEST_CANCELLED);
    if (!s->ended) take_text(b, s, id);
    return id;
}

/* --- After a pass ------------------------------------------------------------------------------------------------- */

static bool draws(const struct lk__batch_sequence *s) {
    return s->wanted && s->read + s->rows == s->count && s->count < s->most;
}

/* logits: the sequence's first wanted row. s->drawn is the token of the first row that is drawn from. */
static void take_logits(struct lk_batch *b, struct lk__batch_sequence *s, float *logits) {
    uint32_t vocab = b->layout->config.vocab, known = s->read + s->rows, last = s->wanted - s->drafts;
    uint32_t guesses[LK__DRAFT_MOST], accepted = 0;
    memcpy(guesses, s->tokens + known, s->drafts * sizeof *guesses);
    if (s->r.prompt_logprobs) /* rows known - last .. known - 1 */
        for (uint32_t i = 0; i < last && !s->ended; i++) echo(b, s, logits + (size_t)i * vocab, known - last + i + 1);
    bool drawn = draws(s) && !s->ended;
    s->read = known;
    if (drawn) {
        float *row = logits + (size_t)(last - 1) * vocab;
        for (;;) {
            uint32_t id = push(b, s);
            if (s->ended || s->count == s->most || accepted == s->drafts || id != guesses[accepted]) break;
            accepted++, s->read++, row += vocab;
            draw(b, s, row, &b->drawers[0]);
        }
        s->result.guessed += s->drafts, s->result.accepted += accepted;
        if (s->drafts) s->accepting += (accepted - s->accepting) / 8;
    }
    if (!s->ended && s->count == s->most && (s->read == s->count || s->result.tokens))
        end(s, s->r.matcher && lk_matcher_done(s->r.matcher) ? LK_REQUEST_STOP : LK_REQUEST_LENGTH);
}

struct drawing {
    struct lk_batch *b;
    float *logits;
};
static void draw_task(void *arg, size_t member, int thread) {
    const struct drawing *d = arg;
    struct lk__batch_sequence *s = d->b->members[member];
    size_t row = s->first_row + s->wanted - s->drafts - 1;
    if (draws(s)) draw(d->b, s, d->logits + row * d->b->layout->config.vocab, &d->b->drawers[thread]);
}
/* The rows of a prompt's embedding that this pass has made. */
static void add_hidden(const struct lk_batch *b, struct lk__batch_sequence *s, const float *x) {
    uint32_t width = b->layout->config.width;
    for (uint32_t i = 0; i < s->rows; i++)
        for (uint32_t c = 0; c < width; c++) s->sums[c] += (double)x[(size_t)i * width + c];
    if (s->read + s->rows < s->count) return;
    float *mean = (float *)(void *)(s->sums + width);
    for (uint32_t c = 0; c < width; c++) mean[c] = (float)(s->sums[c] / s->count);
    s->r.embedding(s->r.arg, mean);
}

void lk__batch_draw(struct lk_batch *b, uint32_t count, float *logits) {
    size_t row = 0;
    for (uint32_t i = 0; i < count; i++)
        if (b->members[i]->sums) add_hidden(b, b->members[i], b->extensions[i].hidden);
    for (uint32_t i = 0; i < count; i++) b->members[i]->first_row = row, row += b->members[i]->wanted;
    lk_pool_run(lk_math_pool(b->math), count, draw_task, &(struct drawing){b, logits});
    for (uint32_t i = 0; i < count; i++)
        take_logits(b, b->members[i], logits + b->members[i]->first_row * b->layout->config.vocab);
}
