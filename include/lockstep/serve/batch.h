/* Many texts at once from one model: continuous batching over keys and values in pages. A request's tokens and
 * log-probabilities are those of lk_generate alone, by bits, whatever else is in the batch, however prompts are cut into
 * chunks, whatever is cached, evicted, guessed ahead, or computed again. */
#ifndef LOCKSTEP_BATCH_H
#define LOCKSTEP_BATCH_H
#include "lockstep/base/hash.h"
#include "lockstep/serve/generate.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LK_TOP_LOGPROBS_MOST 20
#define LK_BATCH_SLOTS_MOST  256

/* Weights that requests run on, borrowed until `release` is called. That is when no request runs on them any more and
 * others have taken their place, or the batch is closed; from the thread that does the last of it. */
struct lk_batch_weights {
    const struct lk_layout *layout;
    const float *weights;
    void (*release)(void *arg); /* may be NULL */
    void *arg;
};

struct lk_batch_options {
    uint32_t slots;          /* texts that are computed together, 1 to LK_BATCH_SLOTS_MOST */
    uint32_t page_positions; /* of a page of keys and values; 0: 32 */
    uint32_t pages;          /* in all; lk_batch_pages */
    uint32_t rows;           /* tokens of one pass at most, slots at least; 0: 512 */
    uint32_t queue;          /* requests that wait at most, beside those in slots */
    uint32_t draft;          /* tokens guessed ahead at most, 0: none, up to 15 */
    enum lk_dtype cache;     /* keys and values: LK_F32, or LK_Q8, whose answers are other ones */
    bool panels;             /* weights once more in the order that few tokens are faster with; see lk_generate_options */
};
/* Pages that `bytes` of memory are enough for; cache and page_positions as in the options. */
uint32_t lk_batch_pages(const struct lk_layout *, enum lk_dtype cache, uint32_t page_positions, uint64_t bytes);
/* What a batch takes beside pages: panels and work space. */
uint64_t lk_batch_bytes(const struct lk_layout *, const struct lk_batch_options *);

/* What a log-probability is of: -loss of docs/numerics.md, section 7, from the model's own logits, before biases, penalties
 * and temperature. */
struct lk_logprob {
    uint32_t id;
    float logprob;
};
struct lk_drawn_token {
    struct lk_logprob token;
    struct lk_root logits; /* with receipt: SHA-256 of the model's own logits, (vocab) floats, little-endian */
    uint32_t top_count;    /* the likeliest of all, equal ones by their ids */
    struct lk_logprob top[LK_TOP_LOGPROBS_MOST];
};

enum lk_request_end {
    LK_REQUEST_LENGTH,    /* max_tokens, or the context is full */
    LK_REQUEST_END,       /* an end token, which is no text */
    LK_REQUEST_STOP,      /* a stop text, or a grammar whose text is complete */
    LK_REQUEST_CANCELLED, /* lk_batch_cancel, a callback returned non-zero, or the batch was closed */
    LK_REQUEST_LATE,      /* the deadline */
    LK_REQUEST_FAILED     /* no memory for its text, or a grammar that no token of this vocabulary goes on with */
};
struct lk_request_result {
    enum lk_request_end end;
    uint32_t prompt_tokens, cached_tokens,
        tokens;                             /* read (0: never ran); of those not computed again; drawn, the end token too */
    uint32_t guessed, accepted;             /* tokens guessed ahead, and those that were drawn */
    uint64_t waited_ns, first_ns, total_ns; /* from submission to the first pass, the first token, the end */
};

/* Everything is copied but `arg` and what functions need. */
struct lk_request {
    const uint32_t *prompt; /* 1 to context - 1 ids */
    size_t prompt_count;
    uint32_t max_tokens; /* 0: only reads the prompt */
    struct lk_sampling sampling;
    struct lk_penalties penalties;
    const uint32_t *ends; /* ids that end the text, besides the tokenizer's end token unless `ignore_end` */
    size_t end_count;
    bool ignore_end;
    const char *const *stops;
    size_t stop_count;
    bool logprobs;        /* of drawn tokens, with top_logprobs others */
    bool prompt_logprobs; /* of the prompt's tokens but the first, too: then nothing of it is taken from others */
    uint32_t top_logprobs;
    /* With max_tokens 0: the mean over the prompt of what the last norm makes of each token, (width) floats: sums in
     * double, ascending, divided by the tokens. Nothing of it is taken from others. NULL: not wanted. */
    void (*embedding)(void *arg, const float *mean);
    /* At the begin of a text, with this tokenizer and these ends, until `done`; NULL: any text. As in lk_generate_options.
     */
    struct lk_matcher *matcher;
    bool receipt;         /* tokens come with the hash of their logits */
    uint32_t owner;       /* who asks: slots go round owners, first come first served within one */
    uint64_t deadline_ns; /* lk_clock_ns at which it ends; 0: none */

    /* From the thread of lk_batch_step, in order; done comes last, once, for each request that was taken. */
    int (*text)(void *arg, const char *data, size_t size); /* whole characters, nothing of a stop text; may be NULL */
    int (*token)(void *arg, const struct lk_drawn_token *, bool prompt); /* may be NULL; ends and stops too */
    void (*done)(void *arg, const struct lk_request_result *);
    void *arg;
};

struct lk_batch;
struct lk_batch_state {
    uint32_t running, waiting, pages, free_pages, cached_pages;
    uint64_t passes, prompt_tokens, cached_tokens, tokens, guessed, accepted, preempted, requests;
};

/* math and tokenizer are borrowed; math is used by lk_batch_step alone. LK_EINVAL: a size out of its range, pages for less
 * than one text of two pages; LK_ENOMEM. */
int lk_batch_open(struct lk_math *, const struct lk_tokenizer *, const struct lk_batch_weights *,
                  const struct lk_batch_options *, struct lk_batch **out, struct lk_err *);
void lk_batch_close(struct lk_batch *); /* ends all requests; no other call may run */
/* Takes a request, from any thread. *id: for lk_batch_cancel. LK_EINVAL: a value that can't be, or one that would never fit
 * into the context or the pages, with the numbers; LK_EBUSY: the queue is full; LK_ENOMEM. */
int lk_batch_submit(struct lk_batch *, const struct lk_request *, uint64_t *id, struct lk_err *);
/* The most tokens of prompt and answer together that a request may have: the context, or what pages are enough for. */
uint32_t lk_batch_most(const struct lk_batch *);
enum lk_dtype lk_batch_cache(const struct lk_batch *); /* of the options */
/* The most requests that there may be at the same time: in slots and waiting. */
uint32_t lk_batch_places(const struct lk_batch *);
/* Ends a request at the next step, from any thread; one that has ended is no error. */
void lk_batch_cancel(struct lk_batch *, uint64_t id);
/* Requests that are submitted from now on run on these weights, of the same sizes; those before end on theirs. From any
 * thread. LK_EINVAL (and nothing is borrowed): other sizes; LK_ENOMEM. */
int lk_batch_swap(struct lk_batch *, const struct lk_batch_weights *, struct lk_err *);
/* One pass over what there is to do. False: nothing was. From one thread. */
bool lk_batch_step(struct lk_batch *);
/* Waits until there may be something to do, or until lk_batch_wake, or timeout_ms. */
void lk_batch_wait(struct lk_batch *, int timeout_ms);
void lk_batch_wake(struct lk_batch *);
void lk_batch_state(struct lk_batch *, struct lk_batch_state *); /* from any thread */

#ifdef __cplusplus
}
#endif
#endif
