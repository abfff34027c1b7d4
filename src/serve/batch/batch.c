/* Continuous batching: requests come in from any thread, one thread goes from pass to pass. */
#include "inside.h"

#include "lockstep/base/progress.h"
#include "lockstep/base/thread.h"
#include <errno.h>
#include <string.h>
#include <time.h>

#define PAGE_POSITIONS 32
#define ROWS           512

static uint32_t larger(uint32_t a, uint32_t b) {
    return a > b ? a : b;
}

uint32_t lk_batch_pages(const struct lk_layout *layout, enum lk_dtype cache, uint32_t page_positions, uint64_t bytes) {
    size_t one = lk_attention_cache_bytes(layout, cache, page_positions ? page_positions : PAGE_POSITIONS, 1);
    uint64_t pages = one ? bytes / one : 1; /* none: lk_batch_open says why */
    return pages < INT32_MAX ? (uint32_t)pages : INT32_MAX;
}

static struct lk_batch_options with_defaults(const struct lk_batch_options *options) {
    struct lk_batch_options o = *options;
    if (!o.page_positions) o.page_positions = PAGE_POSITIONS;
    if (!o.rows) o.rows = larger(ROWS, o.slots);
    return o;
}
static uint32_t logits_rows(const struct lk_batch_options *o) {
    return larger(o->slots * (1 + o->draft), LK__ECHO_ROWS);
}

uint64_t lk_batch_bytes(const struct lk_layout *layout, const struct lk_batch_options *options) {
    struct lk_batch_options o = with_defaults(options);
    return lk_decoder_bytes(layout, logits_rows(&o), o.rows, LK_EXTEND) +
           (o.panels || layout->narrow ? layout->panel_bytes : 0);
}

/* --- Weights -------------------------------------------------------------------------------------------------- */

static int add_version(struct lk_batch *b, const struct lk_batch_weights *w, struct lk_err *err) {
    struct lk__batch_version *v = lk_calloc(1, sizeof *v);
    if (!v) return lk_fail(err, LK_ENOMEM, "no memory for a model");
    size_t size = w->layout->panel_bytes;
    bool must = w->layout->narrow; /* of floats: without them it is slower, no more */
    if (must || (b->o.panels && lk_panels_usable(b->math) && size <= lk_memory_available_bytes() / 10 * 8))
        v->panels = lk_alloc(size);
    if (must && !v->panels) {
        lk_free(v);
        return lk_fail(err, LK_ENOMEM, "no memory for the weights' panels (%zu MB)", size / 1000000);
    }
    v->w = *w;
    v->current = true;
    pthread_mutex_lock(&b->mutex);
    if (b->versions) b->versions->current = false;
    v->number = b->version_count++;
    v->next = b->versions;
    b->versions = v;
    pthread_mutex_unlock(&b->mutex);
    return LK_OK;
}

static void free_version(struct lk__batch_version *v) {
    if (v->w.release) v->w.release(v->w.arg);
    lk_free(v->panels);
    lk_free(v);
}

/* Those that no request needs any more. */
static void drop_versions(struct lk_batch *b, bool all) {
    struct lk__batch_version *gone = NULL, *v;
    pthread_mutex_lock(&b->mutex);
    for (struct lk__batch_version **at = &b->versions; (v = *at);) {
        if (!all && (v->current || v->requests)) {
            at = &v->next;
            continue;
        }
        *at = v->next;
        v->next = gone, gone = v;
    }
    pthread_mutex_unlock(&b->mutex);
    for (; (v = gone);) {
        gone = v->next;
        free_version(v);
    }
}

static bool same_model(const struct lk_layout *a, const struct lk_layout *b) {
    const struct lk_model_config *x = &a->config, *y = &b->config;
    bool same = a->floats == b->floats && a->tensor_count == b->tensor_count && x->family == y->family &&
                x->heads == y->heads && x->kv_heads == y->kv_heads && x->head_dim == y->head_dim &&
                x->context == y->context && x->vocab == y->vocab && x->norm_epsilon == y->norm_epsilon &&
                x->rope_theta == y->rope_theta && x->window == y->window && x->rope_factor == y->rope_factor &&
                x->rope_low == y->rope_low && x->rope_high == y->rope_high && x->rope_original == y->rope_original;
    for (size_t i = 0; same && i < a->tensor_count; i++)
        same = a->tensors[i].offset == b->tensors[i].offset && !strcmp(a->tensors[i].name, b->tensors[i].name);
    return same;
}

int lk_batch_swap(struct lk_batch *b, const struct lk_batch_weights *w, struct lk_err *err) {
    if (!same_model(w->layout, b->layout))
        return lk_fail(err, LK_EINVAL, "the new weights are of another model: other sizes than those that are served");
    return add_version(b, w, err);
}

/* --- Opening and closing -------------------------------------------------------------------------------------- */

static int check_options(const struct lk_batch_options *o, const struct lk_tokenizer *t, const struct lk_layout *layout,
                         struct lk_err *err) {
    if (!o->slots || o->slots > LK_BATCH_SLOTS_MOST)
        return lk_fail(err, LK_EINVAL, "%u slots are not from 1 to %d", o->slots, LK_BATCH_SLOTS_MOST);
    if (o->rows < o->slots)
        return lk_fail(err, LK_EINVAL, "a pass of %u tokens is too small for %u slots", o->rows, o->slots);
    if (o->draft > LK__DRAFT_MOST)
        return lk_fail(err, LK_EINVAL, "%u tokens guessed ahead are more than %d", o->draft, LK__DRAFT_MOST);
    if (lk_tokenizer_vocab(t) > layout->config.vocab)
        return lk_fail(err, LK_EINVAL, "the tokenizer has %u tokens, the model only %u", lk_tokenizer_vocab(t),
                       layout->config.vocab);
    if (!o->pages || (uint64_t)o->pages * o->page_positions < 2)
        return lk_fail(err, LK_EINVAL, "%u pages of %u positions are too few for any text", o->pages, o->page_positions);
    return LK_OK;
}

static int open_drawers(struct lk_batch *b, struct lk_err *err) {
    int threads = lk_pool_threads(lk_math_pool(b->math)), code = LK_OK;
    uint32_t vocab = b->layout->config.vocab;
    b->drawers = lk_calloc((size_t)threads, sizeof *b->drawers);
    for (int i = 0; i < threads && b->drawers && !code; i++) {
        struct lk__batch_drawer *d = &b->drawers[i];
        d->workspace = lk_alloc(lk_sample_allowed_bytes(vocab));
        d->allowed = lk_calloc(vocab / 64 + 1, sizeof *d->allowed);
        d->raw = lk_alloc(vocab * sizeof *d->raw);
        if (!d->workspace || !d->raw || !d->allowed) return lk_fail(err, LK_ENOMEM, "no memory to draw tokens");
        code = lk_pool_open(1, &d->pool, err);
        if (!code) code = lk_math_open(d->pool, lk_math_isa(b->math), &d->math, err);
    }
    return b->drawers ? code : lk_fail(err, LK_ENOMEM, "no memory to draw tokens");
}

int lk_batch_open(struct lk_math *math, const struct lk_tokenizer *tokenizer, const struct lk_batch_weights *w,
                  const struct lk_batch_options *options, struct lk_batch **out, struct lk_err *err) {
    struct lk_batch_options o = with_defaults(options);
    int code = check_options(&o, tokenizer, w->layout, err);
    if (code) return code;
    struct lk_batch *b = lk_calloc(1, sizeof *b);
    if (!b) return lk_fail(err, LK_ENOMEM, "no memory to serve");
    b->math = math, b->tokenizer = tokenizer, b->o = o, b->layout = w->layout;
    b->logits_rows = logits_rows(&o);
    pthread_mutex_init(&b->mutex, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&b->something, &attr);
    pthread_condattr_destroy(&attr);
    b->extensions = lk_alloc(o.slots * sizeof *b->extensions);
    b->members = lk_alloc(o.slots * sizeof *b->members);
    if (!b->extensions || !b->members) code = lk_fail(err, LK_ENOMEM, "no memory to serve");
    if (!code) code = open_drawers(b, err);
    if (!code) code = lk__batch_pages_create(o.pages, o.page_positions, &b->pages, err);
    if (!code) code = lk_attention_cache_init(&b->cache, w->layout, o.cache, o.page_positions, o.pages, err);
    if (!code) code = lk_decoder_create(w->layout, math, b->logits_rows, o.rows, LK_EXTEND, &b->decoder, err);
    if (!code) code = lk_decoder_use_cache(b->decoder, o.cache, err);
    if (!code) code = add_version(b, w, err);
    if (code) {
        lk_batch_close(b);
        return code;
    }
    *out = b;
    return LK_OK;
}

/* --- A request ------------------------------------------------------------------------------------------------ */

static void free_sequence(struct lk__batch_sequence *s) {
    if (!s) return;
    lk__serve_counts_release(&s->counts);
    lk_free(s->sums);
    lk__serve_text_release(&s->text);
    lk_free(s->copies);
    lk_free(s->tokens);
    lk_free(s->pages);
    lk_free(s);
}

static int check_request(const struct lk_batch *b, const struct lk_request *r, struct lk_err *err) {
    uint32_t vocab = b->layout->config.vocab, context = b->layout->config.context;
    uint64_t positions = (uint64_t)b->o.pages * b->o.page_positions;
    int code = lk_sampling_check(&r->sampling, err);
    if (!code) code = lk_penalties_check(&r->penalties, lk_tokenizer_vocab(b->tokenizer), err);
    if (code) return code;
    if (r->embedding && r->max_tokens) return lk_fail(err, LK_EINVAL, "an embedding draws no tokens");
    if (!r->prompt_count) return lk_fail(err, LK_EINVAL, "the prompt has no tokens");
    if (r->prompt_count + (r->max_tokens > 0) > context)
        return lk_fail(err, LK_EINVAL,
                       "the prompt has %zu tokens; with one to come that is more than the model's context of %u",
                       r->prompt_count, context);
    uint64_t most = r->prompt_count + r->max_tokens;
    if (most > context) most = context;
    if (most > positions)
        return lk_fail(err, LK_EINVAL,
                       "%zu tokens of prompt and up to %u more never fit into memory for %llu positions: ask for fewer, or "
                       "serve with more memory",
                       r->prompt_count, r->max_tokens, (unsigned long long)positions);
    for (size_t i = 0; i < r->prompt_count; i++)
        if (r->prompt[i] >= vocab)
            return lk_fail(err, LK_EINVAL, "token %zu of the prompt, %u, is none of the model's %u", i, r->prompt[i],
                           vocab);
    for (size_t i = 0; i < r->stop_count; i++)
        if (!*r->stops[i]) return lk_fail(err, LK_EINVAL, "a stop text is empty");
    if (r->top_logprobs > LK_TOP_LOGPROBS_MOST)
        return lk_fail(err, LK_EINVAL, "log-probabilities of %u tokens are more than %d", r->top_logprobs,
                       LK_TOP_LOGPROBS_MOST);
    return LK_OK;
}

uint32_t lk_batch_most(const struct lk_batch *b) {
    uint64_t positions = (uint64_t)b->o.pages * b->o.page_positions;
    return positions < b->layout->config.context ? (uint32_t)positions : b->layout->config.context;
}

enum lk_dtype lk_batch_cache(const struct lk_batch *b) {
    return b->o.cache;
}
uint32_t lk_batch_places(const struct lk_batch *b) {
    return b->o.slots + b->o.queue;
}

/* Biases, ends and stops in one piece of memory. */
static int copy_arrays(struct lk_request *r, void **copies) {
    size_t biases = r->penalties.bias_count * sizeof *r->penalties.bias, ends = r->end_count * sizeof *r->ends;
    size_t pointers = r->stop_count * sizeof *r->stops, size = pointers + biases + ends;
    for (size_t i = 0; i < r->stop_count; i++) size += strlen(r->stops[i]) + 1;
    char *p = *copies = lk_alloc(size);
    if (!p) return LK_ENOMEM;
    const char **stops = (const char **)(void *)p;
    p += pointers;
    if (biases) r->penalties.bias = memcpy(p, r->penalties.bias, biases);
    p += biases;
    if (ends) r->ends = memcpy(p, r->ends, ends);
    p += ends;
    for (size_t i = 0; i < r->stop_count; i++) {
        size_t n = strlen(r->stops[i]) + 1;
        stops[i] = memcpy(p, r->stops[i], n);
        p += n;
    }
    r->stops = stops;
    return LK_OK;
}

static struct lk__batch_sequence *make_sequence(const struct lk_batch *b, const struct lk_request *r, struct lk_err *err) {
    uint32_t context = b->layout->config.context;
    uint64_t most = r->prompt_count + r->max_tokens;
    struct lk__batch_sequence *s = lk_calloc(1, sizeof *s);
    if (!s) goto no_memory;
    s->r = *r;
    s->most = most < context ? (uint32_t)most : context;
    s->count = (uint32_t)r->prompt_count;
    s->tokens = lk_alloc((s->most + LK__DRAFT_MOST) * sizeof *s->tokens);
    s->pages = lk_alloc(((size_t)s->most / b->o.page_positions + 2) * sizeof *s->pages);
    if (r->embedding && !(s->sums = lk_calloc(b->layout->config.width, sizeof *s->sums + sizeof(float)))) goto no_memory;
    if (!s->tokens || !s->pages || copy_arrays(&s->r, &s->copies)) goto no_memory;
    memcpy(s->tokens, r->prompt, r->prompt_count * sizeof *s->tokens);
    s->r.prompt = s->tokens;
    s->penalised = !lk_penalties_none(&r->penalties);
    if (s->penalised && lk__serve_counts_init(&s->counts, lk_tokenizer_vocab(b->tokenizer), NULL)) goto no_memory;
    for (uint32_t i = 0; s->penalised && i < s->count; i++) lk__serve_counts_add(&s->counts, s->tokens[i], false);
    s->text = (struct lk__serve_text){s->r.stops, s->r.stop_count, s->r.text, s->r.arg, LK_BUF_INIT};
    s->accepting = 1;
    s->result.prompt_tokens = s->count;
    s->submitted_ns = lk_clock_ns();
    return s;
no_memory:
    free_sequence(s);
    lk_fail(err, LK_ENOMEM, "no memory for a request");
    return NULL;
}

/* Under the mutex, before the first that wants it is taken. */
static int make_hidden(struct lk_batch *b, struct lk_err *err) {
    if (!b->hidden) b->hidden = lk_alloc((size_t)b->o.rows * b->layout->config.width * sizeof *b->hidden);
    return b->hidden ? LK_OK : lk_fail(err, LK_ENOMEM, "no memory for embeddings");
}

static int know_owner(struct lk_batch *b, uint32_t owner, struct lk_err *err) {
    for (uint32_t i = 0; i < b->owner_count; i++)
        if (b->owners[i].owner == owner) return LK_OK;
    if (b->owner_count == b->owner_capacity) {
        uint32_t more = b->owner_capacity ? 2 * b->owner_capacity : 16;
        struct lk__batch_owner *owners = lk_realloc(b->owners, more * sizeof *owners);
        if (!owners) return lk_fail(err, LK_ENOMEM, "no memory for a request");
        b->owners = owners, b->owner_capacity = more;
    }
    b->owners[b->owner_count++] = (struct lk__batch_owner){owner, b->turn};
    return LK_OK;
}

int lk_batch_submit(struct lk_batch *b, const struct lk_request *r, uint64_t *id, struct lk_err *err) {
    int code = check_request(b, r, err);
    if (code) return code;
    struct lk__batch_sequence *s = make_sequence(b, r, err), **to;
    if (!s) return LK_ENOMEM;
    pthread_mutex_lock(&b->mutex);
    if (b->state.waiting >= b->o.queue + (b->o.slots - b->state.running))
        code = lk_fail(err, LK_EBUSY, "%u requests are waiting already", b->state.waiting);
    if (!code) code = know_owner(b, r->owner, err);
    if (!code && r->embedding) code = make_hidden(b, err);
    if (!code) {
        s->id = ++b->ids;
        if (id) *id = s->id;
        s->version = b->versions;
        s->version->requests++;
        for (to = &b->waiting; *to;) to = &(*to)->next;
        *to = s;
        b->state.waiting++, b->state.requests++;
        pthread_cond_broadcast(&b->something);
    }
    pthread_mutex_unlock(&b->mutex);
    if (code) free_sequence(s);
    return code;
}

void lk_batch_cancel(struct lk_batch *b, uint64_t id) {
    pthread_mutex_lock(&b->mutex);
    struct lk__batch_sequence *lists[] = {b->running, b->waiting};
    for (int i = 0; i < 2; i++)
        for (struct lk__batch_sequence *s = lists[i]; s; s = s->next)
            if (s->id == id) atomic_store(&s->cancelled, true);
    b->woken = true;
    pthread_cond_broadcast(&b->something);
    pthread_mutex_unlock(&b->mutex);
}

/* --- From pass to pass ---------------------------------------------------------------------------------------- */

static void finish(struct lk_batch *b, struct lk__batch_sequence *s) {
    lk__batch_release_pages(b, s);
    if (s->result.end != LK_REQUEST_CANCELLED) lk__serve_text_finish(&s->text); /* nothing is held behind a stop text */
    s->result.total_ns = lk_clock_ns() - s->submitted_ns;
    if (!s->charged) s->result.prompt_tokens = 0; /* it never ran */
    pthread_mutex_lock(&b->mutex);
    b->state.prompt_tokens += s->result.prompt_tokens;
    b->state.tokens += s->result.tokens;
    b->state.guessed += s->result.guessed, b->state.accepted += s->result.accepted;
    s->version->requests--;
    pthread_mutex_unlock(&b->mutex);
    if (s->r.done) s->r.done(s->r.arg, &s->result);
    free_sequence(s);
}

/* Takes out those that have ended, or were told to, or are late; *list is `running` or `waiting`. */
static bool sweep(struct lk_batch *b, struct lk__batch_sequence **list, uint32_t *count, bool all) {
    struct lk__batch_sequence *gone = NULL, *s;
    uint64_t now = lk_clock_ns();
    pthread_mutex_lock(&b->mutex);
    for (struct lk__batch_sequence **at = list; (s = *at);) {
        bool cancelled = all || atomic_load(&s->cancelled), late = s->r.deadline_ns && now >= s->r.deadline_ns;
        if (!s->ended && (cancelled || late))
            s->ended = true, s->result.end = cancelled ? LK_REQUEST_CANCELLED : LK_REQUEST_LATE;
        if (!s->ended) {
            at = &s->next;
            continue;
        }
        *at = s->next;
        s->next = gone, gone = s;
        --*count;
    }
    pthread_mutex_unlock(&b->mutex);
    bool any = gone != NULL;
    for (; (s = gone);) {
        gone = s->next;
        finish(b, s);
    }
    return any;
}

static void pass(struct lk_batch *b, struct lk__batch_version *v, uint32_t count) {
    uint32_t rows = 0, prompt_rows = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct lk__batch_sequence *s = b->members[i];
        b->extensions[i] = (struct lk_extension){
            s->tokens + s->read, s->pages,  s->read,
            s->rows + s->drafts, s->wanted, s->sums ? b->hidden + (size_t)rows * b->layout->config.width : NULL};
        rows += s->rows + s->drafts;
        if (s->rows > 1) prompt_rows += s->rows;
    }
    if (v->panels && !v->filled) v->filled = lk_decoder_fill_panels(b->decoder, v->w.weights, v->panels);
    lk_decoder_use_panels(b->decoder, v->w.weights, v->filled ? v->panels : NULL);
    uint64_t began = lk_clock_ns();
    float *logits = lk_decoder_extend(b->decoder, v->w.weights, &b->cache, b->extensions, count);
    double ns = (double)(lk_clock_ns() - began);
    if (!prompt_rows) {
        b->pass_ns += (ns - b->pass_ns) / (b->pass_ns ? 8 : 1);
        double *mean = &b->panel_ns[rows < 16 ? rows : 15];
        *mean += (ns - *mean) / (*mean ? 8 : 1);
    } else if (prompt_rows >= 16)
        b->row_ns += (ns / rows - b->row_ns) / (b->row_ns ? 4 : 1);
    lk__batch_draw(b, count, logits);
}

/* Pages that are full are for all. */
static void share_pages(struct lk_batch *b, struct lk__batch_sequence *s) {
    uint32_t page = b->o.page_positions;
    for (; !b->no_sharing && (s->shared + 1) * page <= s->read; s->shared++)
        s->pages[s->shared] =
            lk__batch_pages_share(b->pages, s->version->number, s->shared ? s->pages[s->shared - 1] : PAGE_NONE,
                                  s->tokens + (size_t)s->shared * page, s->pages[s->shared]);
}

bool lk_batch_step(struct lk_batch *b) {
    LK_NUMERIC_SCOPE();
    bool ended = sweep(b, &b->waiting, &b->state.waiting, false);
    ended |= sweep(b, &b->running, &b->state.running, false);
    uint32_t count = lk__batch_plan(b, &b->last);
    if (count) pass(b, b->last, count);
    for (uint32_t i = 0; i < count; i++) share_pages(b, b->members[i]);
    pthread_mutex_lock(&b->mutex);
    b->woken = false;
    b->state.passes += count > 0;
    b->state.pages = b->o.pages;
    b->state.cached_pages = lk__batch_pages_cached(b->pages);
    b->state.free_pages = lk__batch_pages_available(b->pages) - b->state.cached_pages;
    pthread_mutex_unlock(&b->mutex);
    ended |= sweep(b, &b->running, &b->state.running, false);
    drop_versions(b, false);
    return count || ended || b->running;
}

void lk_batch_wait(struct lk_batch *b, int timeout_ms) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000, until.tv_nsec += timeout_ms % 1000 * 1000000L;
    if (until.tv_nsec >= 1000000000L) until.tv_sec++, until.tv_nsec -= 1000000000L;
    pthread_mutex_lock(&b->mutex);
    while (!b->running && !b->waiting && !b->woken)
        if (pthread_cond_timedwait(&b->something, &b->mutex, &until) == ETIMEDOUT) break;
    pthread_mutex_unlock(&b->mutex);
}

void lk_batch_wake(struct lk_batch *b) {
    pthread_mutex_lock(&b->mutex);
    b->woken = true;
    pthread_cond_broadcast(&b->something);
    pthread_mutex_unlock(&b->mutex);
}

void lk_batch_state(struct lk_batch *b, struct lk_batch_state *out) {
    pthread_mutex_lock(&b->mutex);
    *out = b->state;
    pthread_mutex_unlock(&b->mutex);
}

void lk_batch_close(struct lk_batch *b) {
    if (!b) return;
    sweep(b, &b->waiting, &b->state.waiting, true);
    sweep(b, &b->running, &b->state.running, true);
    drop_versions(b, true);
    lk_decoder_free(b->decoder);
    lk_attention_cache_release(&b->cache);
    lk__batch_pages_free(b->pages);
    lk_free(b->extensions);
    lk_free(b->members);
    for (int i = 0; b->drawers && i < lk_pool_threads(lk_math_pool(b->math)); i++) {
        lk_math_close(b->drawers[i].math);
        lk_pool_close(b->drawers[i].pool);
        lk_free(b->drawers[i].workspace);
        lk_free(b->drawers[i].raw);
        lk_free(b->drawers[i].allowed);
    }
    lk_free(b->drawers);
    lk_free(b->hidden);
    lk_free(b->owners);
    pthread_cond_destroy(&b->something);
    pthread_mutex_destroy(&b->mutex);
    lk_free(b);
}
