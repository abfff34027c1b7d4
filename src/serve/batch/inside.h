/* What the files of the batch share. Private to src/serve/batch.
 *
 * The thread of lk_batch_step alone changes sequences, pages and the list of those that run. The mutex guards the list of
 * those that wait, both lists' shape, versions and totals; no callback is called with it. */
#ifndef LOCKSTEP_SERVE_BATCH_INSIDE_H
#define LOCKSTEP_SERVE_BATCH_INSIDE_H
#include "lockstep/serve/batch.h"
#include "pages.h"
#include "serve/penalties.h"
#include "serve/text_out.h"
#include <pthread.h>
#include <stdatomic.h>

#define LK__DRAFT_MOST 15
#define LK__ECHO_ROWS  64 /* of logits that a pass has at least: those of a prompt are wanted by so many */

struct lk__batch_version {
    struct lk_batch_weights w;
    struct lk__batch_version *next;
    void *panels; /* or NULL */
    bool filled, current;
    uint32_t number, requests;
};

struct lk__batch_sequence {
    struct lk__batch_sequence *next;
    uint64_t id;
    struct lk_request r; /* its arrays are in `copies` */
    void *copies;
    struct lk__batch_version *version;
    uint32_t *tokens;            /* (most) the prompt, what was drawn, and behind it what is guessed */
    uint32_t count, most, read;  /* tokens; tokens at the end of all; those whose keys and values are in pages */
    uint32_t *pages;             /* those of positions before read, and more */
    uint32_t page_count, shared; /* pages, and how many of them are in the tree */
    uint32_t echoed;             /* tokens of the prompt whose log-probabilities were told */
    struct lk__serve_counts counts;
    struct lk__serve_text text;
    atomic_bool cancelled;
    bool charged, penalised, ended;
    double accepting; /* a mean of how many of the guessed tokens were drawn, newer ones weigh more */
    uint32_t since;   /* tokens since it was last tried */
    struct lk_request_result result;
    uint64_t submitted_ns;
    double *sums; /* (width) of an embedding, and behind it room for the mean */
    /* of a pass */
    uint32_t rows, drafts, wanted;
    size_t first_row; /* of its wanted logits */
    struct lk_drawn_token drawn;
};

/* What a thread draws with. */
struct lk__batch_drawer {
    struct lk_pool *pool; /* of that thread alone */
    struct lk_math *math;
    void *workspace;
    float *raw;        /* (vocab) logits before penalties */
    uint64_t *allowed; /* a bit for each token */
};

struct lk__batch_owner {
    uint32_t owner;
    double turn; /* the lower, the sooner */
};

struct lk_batch {
    struct lk_math *math;
    const struct lk_tokenizer *tokenizer;
    struct lk_batch_options o;
    const struct lk_layout *layout;
    struct lk_decoder *decoder;
    uint32_t logits_rows;
    struct lk_attention_cache cache;
    struct lk__batch_pages *pages;
    struct lk_extension *extensions;     /* (slots) */
    struct lk__batch_sequence **members; /* (slots) of the pass */
    float *hidden;                       /* (rows, width) of embeddings; NULL until one is wanted */
    struct lk__batch_drawer *drawers;    /* one a thread */
    struct lk__batch_version *last;      /* of the last pass; only compared */

    pthread_mutex_t mutex;
    pthread_cond_t something;
    bool woken;
    struct lk__batch_version *versions; /* newest first */
    uint32_t version_count;
    struct lk__batch_sequence *running, *waiting; /* by their id; waiting: as they came, those that were put back before */
    struct lk__batch_owner *owners;
    uint32_t owner_count, owner_capacity;
    double turn; /* of the owner who was served last */
    uint64_t ids;
    struct lk_batch_state state;

    double row_ns, pass_ns; /* means: of a prompt's row in a pass, of a pass without prompts */
    double panel_ns[16];    /* of passes without prompts by their rows; 0: not seen */
    /* For tests: how many of `most` rows of a prompt go into this pass, 0 to most; NULL: by what was measured. */
    uint32_t (*chunk)(void *arg, uint32_t most);
    void *chunk_arg;
    bool (*force_draft)(void *arg); /* for tests: guess in any case */
    bool no_sharing;                /* for tests: no request reads what another has computed */
};

/* plan.c: takes waiting ones in, and gives those that run their rows, guesses and pages; returns members, and the
 * version whose they are. With b->mutex free. */
uint32_t lk__batch_plan(struct lk_batch *, struct lk__batch_version **);
/* Its pages are free again, or stay in the tree. */
void lk__batch_release_pages(struct lk_batch *, struct lk__batch_sequence *);
/* draw.c: after a pass of `count` members, whose wanted logits lie one behind the other: tokens, text, what has ended. */
void lk__batch_draw(struct lk_batch *, uint32_t count, float *logits);
/* guess.c: up to `most` tokens that may follow, from what followed the same last tokens before; 0: none. */
uint32_t lk__batch_guess(const uint32_t *tokens, uint32_t count, uint32_t *out, uint32_t most);

#endif
