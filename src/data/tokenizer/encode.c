/* Text to ids: a small text at once, a large one in pieces on a pool, a round of pieces at a time. */
#include "data/tokenizer/internal.h"
#include "data/tokenizer/pretoken.h"
#include <string.h>

#define PIECE_BYTES  ((size_t)256 << 10)
#define PARALLEL_MIN ((size_t)512 << 10)
/* Pieces of one thread in one round: few enough that a round's ids stay in the caches, enough that threads seldom wait for
 * the last. */
#define PIECES_EACH ((size_t)16)

/* --- on one thread ---------------------------------------------------------------------------------------- */

static int plain_words(void *arg, const uint8_t *text, size_t size, struct lk_tokens *out, struct lk_err *err) {
    return lk__tokenizer_encoder_words(arg, text, size, out, err);
}

int lk__tokenizer_encoder_run(struct lk__tokenizer_encoder *e, const void *text, size_t size, bool later,
                              struct lk_tokens *out, struct lk_err *err) {
    const struct lk_tokenizer *t = lk__tokenizer_encoder_tokenizer(e);
    if (!lk__tokenizer_walk_needed(t, false)) return lk__tokenizer_encoder_words(e, text, size, out, err);
    struct lk__tokenizer_walk w = {
        .t = t, .later = later, .normal = lk__tokenizer_encoder_normal(e), .plain = plain_words, .arg = e, .out = out};
    return lk__tokenizer_walk_text(&w, text, size, err);
}

/* --- in pieces -------------------------------------------------------------------------------------------- */

struct piece {
    const uint8_t *text;
    size_t size;
    bool later; /* behind a cut */
    int thread, code;
    size_t begin, count; /* its ids among those of its thread */
    uint32_t *to;        /* where they go */
};
struct worker {
    struct lk__tokenizer_encoder *encoder; /* NULL until the thread has a piece */
    struct lk_tokens *tokens;              /* of this round; the encoder's */
    size_t failed;                         /* 1 + the first of its pieces that failed; 0: none did */
    struct lk_err err;                     /* that piece's */
};
struct round {
    const struct lk_tokenizer *t;
    bool plain; /* the text is a plain stretch already */
    struct worker *workers;
    struct piece *pieces;
    size_t count;
};

static void piece_failed(struct worker *w, size_t tile, const struct lk_err *err) {
    if (w->failed && w->failed <= tile) return;
    w->failed = tile + 1;
    w->err = *err;
}

static void encode_piece(void *arg, size_t tile, int thread) {
    struct round *r = arg;
    struct piece *p = &r->pieces[tile];
    struct worker *w = &r->workers[thread];
    struct lk_err err;
    p->thread = thread;
    if (!w->encoder) {
        w->encoder = lk__tokenizer_encoder_take(r->t);
        if (!w->encoder) {
            p->code = lk_fail(&err, LK_ENOMEM, "encoding %zu bytes: out of memory", p->size);
            piece_failed(w, tile, &err);
            return;
        }
        w->tokens = lk__tokenizer_encoder_tokens(w->encoder);
    }
    p->begin = w->tokens->count;
    p->code = r->plain ? lk__tokenizer_encoder_words(w->encoder, p->text, p->size, w->tokens, &err)
                       : lk__tokenizer_encoder_run(w->encoder, p->text, p->size, p->later, w->tokens, &err);
    if (p->code) piece_failed(w, tile, &err);
    p->count = w->tokens->count - p->begin;
}

static void copy_piece(void *arg, size_t tile, int thread) {
    const struct round *r = arg;
    const struct piece *p = &r->pieces[tile];
    (void)thread;
    if (p->count) memcpy(p->to, r->workers[p->thread].tokens->ids + p->begin, p->count * sizeof *p->to);
}

/* Cuts pieces off text[at..size); returns where the rest begins. */
static size_t cut_pieces(struct round *r, size_t most, const uint8_t *text, size_t at, size_t size) {
    for (r->count = 0; r->count < most && at < size; r->count++) {
        size_t end = size, from = at + PIECE_BYTES - 1;
        if (size - at > PIECE_BYTES)
            end = r->plain ? lk__tokenizer_plain_cut(r->t, text, from, size) : lk__tokenizer_cut(r->t, text, from, size);
        r->pieces[r->count] = (struct piece){.text = text + at, .size = end - at, .later = at > 0};
        at = end;
    }
    return at;
}

/* Appends what the pieces of a round made. The memory that it takes will do for the rest of the text if that is like what
 * came before: `done` of `size` bytes. */
static int join_round(struct round *r, struct lk_pool *pool, size_t done, size_t size, size_t before, struct lk_tokens *out,
                      struct lk_err *err) {
    size_t total = 0;
    for (size_t i = 0; i < r->count; i++) {
        const struct piece *p = &r->pieces[i];
        if (p->code) return lk_fail(err, p->code, "%s", r->workers[p->thread].err.message);
        total += p->count;
    }
    if (out->capacity - out->count < total) {
        double each = (double)(out->count - before + total) / (double)done;
        if (lk__tokenizer_tokens_reserve(out, total + (size_t)((double)(size - done) * each * 1.05)))
            return lk_fail(err, LK_ENOMEM, "encoding %zu bytes: out of memory", size);
    }
    for (size_t i = 0; i < r->count; i++) {
        r->pieces[i].to = out->ids + out->count;
        out->count += r->pieces[i].count;
    }
    lk_pool_run(pool, r->count, copy_piece, r);
    return 0;
}

static int encode_parallel(const struct lk_tokenizer *t, bool plain, const uint8_t *text, size_t size, struct lk_pool *pool,
                           struct lk_tokens *out, struct lk_err *err) {
    size_t threads = (size_t)lk_pool_threads(pool), most = threads * PIECES_EACH, before = out->count;
    struct round r = {.t = t,
                      .plain = plain,
                      .workers = lk_calloc(threads, sizeof *r.workers),
                      .pieces = lk_calloc(most, sizeof *r.pieces)};
    int code = r.workers && r.pieces ? 0 : lk_fail(err, LK_ENOMEM, "encoding %zu bytes: out of memory", size);
    for (size_t at = 0; !code && at < size;) {
        at = cut_pieces(&r, most, text, at, size);
        for (size_t i = 0; i < threads; i++)
            if (r.workers[i].tokens) r.workers[i].tokens->count = 0;
        lk_pool_run(pool, r.count, encode_piece, &r);
        code = join_round(&r, pool, at, size, before, out, err);
    }
    if (code) out->count = before;
    for (size_t i = 0; r.workers && i < threads; i++) lk__tokenizer_encoder_give(r.workers[i].encoder);
    lk_free(r.workers);
    lk_free(r.pieces);
    return code;
}

/* --- a whole text ----------------------------------------------------------------------------------------- */

struct encoding {
    struct lk__tokenizer_encoder *encoder;
    struct lk_pool *pool;
};

static int encode_stretch(void *arg, const uint8_t *text, size_t size, struct lk_tokens *out, struct lk_err *err) {
    const struct encoding *e = arg;
    if (lk_pool_threads(e->pool) > 1 && size > PARALLEL_MIN)
        return encode_parallel(lk__tokenizer_encoder_tokenizer(e->encoder), true, text, size, e->pool, out, err);
    return lk__tokenizer_encoder_words(e->encoder, text, size, out, err);
}

static int encode_walked(const struct lk_tokenizer *t, const uint8_t *text, size_t size, bool special, struct lk_pool *pool,
                         struct lk__tokenizer_trace *trace, struct lk_tokens *out, struct lk_err *err) {
    struct encoding e = {lk__tokenizer_encoder_take(t), pool};
    if (!e.encoder) return lk_fail(err, LK_ENOMEM, "encoding %zu bytes: out of memory", size);
    struct lk__tokenizer_walk w = {.t = t,
                                   .special = special,
                                   .normal = lk__tokenizer_encoder_normal(e.encoder),
                                   .trace = trace,
                                   .plain = encode_stretch,
                                   .arg = &e,
                                   .out = out};
    int code = lk__tokenizer_walk_text(&w, text, size, err);
    lk__tokenizer_encoder_give(e.encoder);
    return code;
}

int lk_tokenizer_encode(const struct lk_tokenizer *t, const void *text, size_t size, struct lk_pool *pool,
                        struct lk_tokens *out, struct lk_err *err) {
    bool cut = !lk__tokenizer_walk_needed(t, false) || t->cuttable;
    size_t before = out->count;
    int code;
    if (cut && lk_pool_threads(pool) > 1 && size > PARALLEL_MIN)
        code = encode_parallel(t, false, text, size, pool, out, err);
    else
        code = encode_walked(t, text, size, false, pool, NULL, out, err);
    if (code) out->count = before;
    return code;
}

/* Where the bytes of each token come from; inside a span that is not the text's own bytes, its begin. */
static int make_offsets(const struct lk_tokenizer *t, const struct lk__tokenizer_trace *trace, const uint32_t *ids,
                        size_t count, uint64_t **out) {
    uint64_t *offsets = *out = lk_alloc((count + 1) * sizeof *offsets);
    if (!offsets) return LK_ENOMEM;
    uint64_t normal = 0, span_normal = 0, text = 0;
    for (size_t i = 0, k = 0; i <= count; i++) {
        while (k < trace->count && normal >= span_normal + trace->spans[k].normal_size) {
            span_normal += trace->spans[k].normal_size;
            text += trace->spans[k++].text_size;
        }
        offsets[i] = text + (k < trace->count && trace->spans[k].same ? normal - span_normal : 0);
        if (i < count) normal += lk__tokenizer_normal_size(t, ids[i]);
    }
    offsets[0] = 0; /* also where the first tokens stand for no text */
    return 0;
}

static int put_one(const struct lk_tokenizer *t, uint32_t id, struct lk_tokens *out, struct lk__tokenizer_trace *trace) {
    if (lk__tokenizer_tokens_reserve(out, 1) || lk__tokenizer_trace_add(trace, lk__tokenizer_normal_size(t, id), 0, false))
        return LK_ENOMEM;
    out->ids[out->count++] = id;
    return 0;
}

int lk_tokenizer_encode_with(const struct lk_tokenizer *t, const void *text, size_t size,
                             const struct lk_encode_options *options, struct lk_pool *pool, struct lk_tokens *out,
                             struct lk_err *err) {
    struct lk__tokenizer_trace spans = {0}, *trace = options->offsets ? &spans : NULL;
    size_t before = out->count;
    int code = 0;
    if (trace) *options->offsets = NULL;
    if (options->around && t->traits.before != LK__NO_ID) code = put_one(t, t->traits.before, out, trace);
    if (!code)
        code = encode_walked(t, text, size, options->special, pool, trace, out, err);
    else
        code = lk_fail(err, LK_ENOMEM, "encoding %zu bytes: out of memory", size);
    if (!code && options->around && t->traits.after != LK__NO_ID && put_one(t, t->traits.after, out, trace))
        code = lk_fail(err, LK_ENOMEM, "encoding %zu bytes: out of memory", size);
    if (!code && trace && make_offsets(t, trace, out->ids + before, out->count - before, options->offsets))
        code = lk_fail(err, LK_ENOMEM, "encoding %zu bytes: out of memory", size);
    lk_free(spans.spans);
    if (code) out->count = before;
    return code;
}
