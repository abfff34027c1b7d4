/* Generation: prefill, then one token at a time; text leaves as whole characters, held back while a stop text may begin. */
#include "lockstep/serve/generate.h"

#include "lockstep/base/mem.h"
#include "lockstep/base/progress.h"
#include "penalties.h"
#include "text_out.h"
#include <string.h>

#define CHUNK 128 /* positions read at once in prefill */

struct generator {
    struct lk_math *math;
    const struct lk_layout *layout;
    const float *weights;
    const struct lk_tokenizer *tokenizer;
    const struct lk_generate_options *options;
    struct lk_decoder *decoder;
    struct lk_attention_cache cache; /* one page */
    uint32_t read;                   /* positions that are in it */
    struct lk_tokens tokens;         /* all so far, prompt included */
    void *panels;                    /* the weights again, in the order that single tokens read them in; or NULL */
    void *workspace;                 /* of sampling */
    struct lk__serve_counts counts;  /* with penalties */
    bool penalised;
    uint64_t *allowed; /* a bit for each token; NULL: all */
    struct lk__serve_text text;
};

/* Reads tokens[from ..) into the cache; returns the logits of the last. */
static float *read_tokens(struct generator *g, size_t from) {
    float *logits = NULL;
    while (from < g->tokens.count) {
        size_t n = g->tokens.count - from < CHUNK ? g->tokens.count - from : CHUNK;
        struct lk_extension e = {g->tokens.ids + from, (const uint32_t[]){0}, g->read, (uint32_t)n,
                                 from + n == g->tokens.count};
        logits = lk_decoder_extend(g->decoder, g->weights, &g->cache, &e, 1);
        g->read += e.count, from += n;
    }
    return logits;
}

/* The newest token's logits; a full context is emptied and its newer half read again. */
static float *advance(struct generator *g, size_t unread) {
    size_t context = g->cache.page_positions;
    if (g->read + unread > context) {
        size_t keep = context > 1 ? context / 2 : 1;
        g->read = 0;
        unread = g->tokens.count < keep ? g->tokens.count : keep;
    }
    return read_tokens(g, g->tokens.count - unread);
}

static int push_token(struct generator *g, uint32_t id, struct lk_err *err) {
    if (g->tokens.count == g->tokens.capacity) {
        size_t more = g->tokens.capacity ? 2 * g->tokens.capacity : 64;
        uint32_t *ids = lk_realloc(g->tokens.ids, more * sizeof *ids);
        if (!ids) return lk_fail(err, LK_ENOMEM, "no memory for tokens");
        g->tokens.ids = ids;
        g->tokens.capacity = more;
    }
    g->tokens.ids[g->tokens.count++] = id;
    return LK_OK;
}

/* --- The loop -------------------------------------------------------------------------------------------- */

/* As much memory again as the weights. The allocator would promise it in any case, and the system kill us when it is
 * filled: so only if it is there, with a fifth of what is free left for others and for what we have taken but not touched
 * yet. */
static int make_panels(struct generator *g, struct lk_err *err) {
    size_t size = g->layout->panel_bytes;
    bool must = g->layout->narrow;
    if (!must && (!lk_panels_usable(g->math) || size > lk_memory_available_bytes() / 10 * 8)) return LK_OK;
    if ((g->panels = lk_alloc(size)) && lk_decoder_fill_panels(g->decoder, g->weights, g->panels))
        lk_decoder_use_panels(g->decoder, g->weights, g->panels);
    return g->panels || !must ? LK_OK
                              : lk_fail(err, LK_ENOMEM, "no memory for the weights' panels (%zu MB)", size / 1000000);
}

static int start(struct generator *g, const char *prompt, size_t prompt_size, struct lk_err *err) {
    uint32_t begin = lk_tokenizer_begin(g->tokenizer), context = g->layout->config.context, vocab = g->layout->config.vocab;
    int code = lk_sampling_check(&g->options->sampling, err);
    if (!code) code = lk_penalties_check(&g->options->penalties, lk_tokenizer_vocab(g->tokenizer), err);
    if (code) return code;
    if (lk_tokenizer_vocab(g->tokenizer) > vocab)
        return lk_fail(err, LK_EINVAL, "the tokenizer has %u tokens, the model only %u", lk_tokenizer_vocab(g->tokenizer),
                       vocab);
    code = lk_decoder_create(g->layout, g->math, 1, context < CHUNK ? context : CHUNK, LK_EXTEND, &g->decoder, err);
    if (!code) code = lk_decoder_use_cache(g->decoder, g->options->cache, err);
    if (!code && !(g->workspace = lk_alloc(lk_sample_allowed_bytes(vocab))))
        code = lk_fail(err, LK_ENOMEM, "no memory to sample");
    g->penalised = !lk_penalties_none(&g->options->penalties);
    if (!code && g->penalised) code = lk__serve_counts_init(&g->counts, lk_tokenizer_vocab(g->tokenizer), err);
    if (!code && g->options->matcher && !(g->allowed = lk_calloc(vocab / 64 + 1, sizeof *g->allowed)))
        code = lk_fail(err, LK_ENOMEM, "no memory for a grammar's tokens");
    if (!code && (g->options->panels || g->layout->narrow)) code = make_panels(g, err);
    if (begin == UINT32_MAX) begin = lk_tokenizer_end(g->tokenizer);
    for (size_t i = 0; i < g->options->id_count && !code; i++)
        code = g->options->ids[i] < vocab
                   ? push_token(g, g->options->ids[i], err)
                   : lk_fail(err, LK_EINVAL, "token %zu of the prompt, %u, is none of the model's %u", i,
                             g->options->ids[i], vocab);
    if (!code && !g->options->ids && begin != UINT32_MAX) code = push_token(g, begin, err);
    if (!code && !g->options->ids) code = lk_tokenizer_encode(g->tokenizer, prompt, prompt_size, NULL, &g->tokens, err);
    if (!code && g->tokens.count == 0)
        code = lk_fail(err, LK_EINVAL, "the prompt is empty and the tokenizer has no end token to begin with");
    for (size_t i = 0; g->penalised && !code && i < g->tokens.count; i++)
        lk__serve_counts_add(&g->counts, g->tokens.ids[i], false);
    /* no more than can be needed: models of others have contexts of 131,072 */
    size_t most = g->tokens.count + g->options->max_tokens;
    if (!code)
        code = lk_attention_cache_init(&g->cache, g->layout, g->options->cache, most < context ? (uint32_t)most : context,
                                       1, err);
    return code;
}

/* Takes a token's text. Returns true when generation ends with it, and why. */
static bool take_text(struct generator *g, uint32_t id, enum lk_finish *finish, int *code, struct lk_err *err) {
    enum lk__serve_text_end end = lk__serve_text_take(&g->text, lk_tokenizer_bytes(g->tokenizer, id));
    if (end == LK__TEXT_NO_MEMORY) *code = lk_fail(err, LK_ENOMEM, "no memory for text");
    *finish = end == LK__TEXT_STOPPED ? LK_FINISH_STOP : LK_FINISH_CALLER;
    return end != LK__TEXT_GOES_ON;
}

static bool is_end(const struct generator *g, uint32_t id, uint32_t end) {
    bool is = id == end;
    for (size_t i = 0; i < g->options->end_count; i++) is |= id == g->options->ends[i];
    return is;
}

/* The next token; UINT32_MAX: a grammar is complete, allows no other, and there is no end token. */
static int draw(struct generator *g, float *logits, uint32_t *id, struct lk_err *err) {
    uint32_t tokens = lk_tokenizer_vocab(g->tokenizer), place = (uint32_t)g->tokens.count;
    struct lk_matcher *matcher = g->options->matcher;
    if (g->penalised) lk__serve_penalise(&g->options->penalties, &g->counts, logits);
    if (!matcher) {
        *id = lk_sample_token(g->math, logits, tokens, &g->options->sampling, place, g->workspace);
        return LK_OK;
    }
    int code = lk_matcher_mask(matcher, g->allowed, err);
    if (code) return code;
    *id = lk_sample_allowed(g->math, logits, tokens, g->allowed, &g->options->sampling, place, g->workspace);
    return *id == UINT32_MAX ? LK_OK : lk_matcher_accept(matcher, *id, err);
}

static int loop(struct generator *g, struct lk_generation *out, struct lk_err *err) {
    uint32_t end = lk_tokenizer_end(g->tokenizer);
    uint64_t began = lk_clock_ns(), read;
    size_t unread = g->tokens.count;
    int code = LK_OK;
    out->prompt_tokens = (uint32_t)g->tokens.count;
    float *logits = advance(g, unread);
    read = lk_clock_ns();
    out->prompt_seconds = (double)(read - began) * 1e-9;
    while (out->tokens < g->options->max_tokens) {
        uint32_t id;
        if ((code = draw(g, logits, &id, err))) break;
        if (id == UINT32_MAX) {
            out->finish = LK_FINISH_STOP;
            break;
        }
        out->tokens++;
        if (g->options->token) g->options->token(g->options->arg, id);
        if (is_end(g, id, end)) {
            out->finish = LK_FINISH_END;
            break;
        }
        if (take_text(g, id, &out->finish, &code, err) || (code = push_token(g, id, err))) break;
        if (g->penalised) lk__serve_counts_add(&g->counts, id, true);
        out->finish = g->options->matcher && lk_matcher_done(g->options->matcher) ? LK_FINISH_STOP : LK_FINISH_LENGTH;
        if (out->tokens < g->options->max_tokens) logits = advance(g, 1);
    }
    out->seconds = (double)(lk_clock_ns() - read) * 1e-9;
    if (!code && out->finish != LK_FINISH_CALLER) lk__serve_text_finish(&g->text);
    return code;
}

int lk_generate(struct lk_math *math, const struct lk_layout *layout, const float *weights,
                const struct lk_tokenizer *tokenizer, const char *prompt, size_t prompt_size,
                const struct lk_generate_options *options, struct lk_generation *out, struct lk_err *err) {
    LK_NUMERIC_SCOPE();
    struct generator g = {.math = math, .layout = layout, .weights = weights, .tokenizer = tokenizer, .options = options};
    g.text = (struct lk__serve_text){options->stops, options->stop_count, options->text, options->arg, LK_BUF_INIT};
    memset(out, 0, sizeof *out);
    int code = start(&g, prompt, prompt_size, err);
    if (!code) code = loop(&g, out, err);
    lk_decoder_free(g.decoder);
    lk_attention_cache_release(&g.cache);
    lk_tokens_release(&g.tokens);
    lk_free(g.panels);
    lk_free(g.workspace);
    lk_free(g.allowed);
    lk__serve_counts_release(&g.counts);
    lk__serve_text_release(&g.text);
    return code;
}
