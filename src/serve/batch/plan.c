/* Who runs, and how many tokens of each are in the next pass. None of it changes a bit. */
#include "inside.h"

#include "lockstep/base/progress.h"
#include <string.h>

#define ROWS_LEAST 16    /* of prompts in a pass beside texts that are being drawn */
#define SHARE      2     /* so many times as long as a pass without prompts may those beside it take */
#define SHARE_NS   150e6 /* or so long, */
#define MANY       8.0   /* and twice that where so many prompts wait */

static uint32_t smaller(uint32_t a, uint32_t b) {
    return a < b ? a : b;
}
static uint32_t pages_for(const struct lk_batch *b, uint32_t positions) {
    return (positions + b->o.page_positions - 1) / b->o.page_positions;
}
static bool reads_prompt(const struct lk__batch_sequence *s) {
    return s->count - s->read > 1 || s->count == s->r.prompt_count;
}

void lk__batch_release_pages(struct lk_batch *b, struct lk__batch_sequence *s) {
    for (uint32_t i = s->shared; i < s->page_count; i++) lk__batch_pages_give_back(b->pages, s->pages[i]);
    lk__batch_pages_drop(b->pages, s->pages, s->shared);
    s->page_count = s->shared = s->read = 0;
    if (s->sums) memset(s->sums, 0, b->layout->config.width * sizeof *s->sums); /* they begin anew */
}

/* --- Taking in ------------------------------------------------------------------------------------------------ */

static struct lk__batch_owner *owner_of(struct lk_batch *b, uint32_t owner) {
    uint32_t i = 0;
    while (b->owners[i].owner != owner) i++; /* submit has put it there */
    return &b->owners[i];
}

/* A sequence that runs is about to have more pages in the tree that this one could read than there are. */
static bool soon_shared(const struct lk_batch *b, const struct lk__batch_sequence *s, uint32_t there) {
    uint32_t page = b->o.page_positions;
    for (const struct lk__batch_sequence *r = b->running; r && !b->no_sharing; r = r->next) {
        if (r->version != s->version || !reads_prompt(r) || r->r.prompt_logprobs || r->r.embedding) continue;
        uint32_t same = 0, most = smaller(r->count, s->count - 1);
        while (same < most && r->tokens[same] == s->tokens[same]) same++;
        if (same / page > there) return true;
    }
    return false;
}

/* Takes what the tree has of its tokens. At least one is computed: its logits are wanted. */
static bool takes_in(struct lk_batch *b, struct lk__batch_sequence *s, bool *memory) {
    bool shares = !b->no_sharing && !s->r.embedding && !(s->r.prompt_logprobs && s->echoed + 1 < s->r.prompt_count);
    uint32_t known = shares ? s->count - 1 : 0;
    if (shares && soon_shared(b, s, lk__batch_pages_matching(b->pages, s->version->number, s->tokens, known))) return false;
    s->shared = s->page_count = lk__batch_pages_match(b->pages, s->version->number, s->tokens, known, s->pages);
    uint32_t need = pages_for(b, s->count) - s->shared + b->state.running;
    if (b->running && lk__batch_pages_available(b->pages) < need) {
        lk__batch_release_pages(b, s);
        return *memory = false;
    }
    s->read = s->shared * b->o.page_positions;
    return true;
}

/* The next to run: of the owner whose turn it is, the first that came. */
static struct lk__batch_sequence **next_waiting(struct lk_batch *b, bool *memory) {
    for (double after = -1;;) {
        struct lk__batch_sequence **best = NULL;
        double turn = 0;
        for (struct lk__batch_sequence **at = &b->waiting; *at; at = &(*at)->next) {
            double t = (*at)->charged ? 0 : owner_of(b, (*at)->r.owner)->turn + 1;
            if (t > after && (!best || t < turn)) best = at, turn = t;
        }
        if (!best) return NULL;
        /* those of one turn, in their order */
        for (struct lk__batch_sequence **at = best; *at && *memory; at = &(*at)->next)
            if (((*at)->charged ? 0 : owner_of(b, (*at)->r.owner)->turn + 1) == turn && takes_in(b, *at, memory)) return at;
        if (!*memory) return NULL;
        after = turn;
    }
}

static void admit(struct lk_batch *b) {
    bool memory = true;
    struct lk__batch_sequence **at;
    while (b->waiting && b->state.running < b->o.slots && (at = next_waiting(b, &memory))) {
        struct lk__batch_sequence *s = *at, **to = &b->running;
        *at = s->next;
        while (*to && (*to)->id < s->id) to = &(*to)->next;
        s->next = *to, *to = s;
        b->state.running++, b->state.waiting--;
        if (s->charged) continue;
        struct lk__batch_owner *o = owner_of(b, s->r.owner);
        b->turn = o->turn > b->turn ? o->turn : b->turn;
        o->turn = b->turn + (s->most - s->read);
        s->charged = true;
        s->result.cached_tokens = s->read;
        s->result.waited_ns = lk_clock_ns() - s->submitted_ns;
        b->state.cached_tokens += s->read;
    }
}

/* --- Rows ----------------------------------------------------------------------------------------------------- */

/* Rows of prompts that a pass may have beside texts that are being drawn: the more when more of them wait. */
static uint32_t prompt_rows(const struct lk_batch *b, uint32_t drawing, uint32_t prompts, uint32_t most) {
    if (b->chunk) return b->chunk(b->chunk_arg, most);
    if (!drawing || b->row_ns == 0) return drawing ? smaller(most, 4 * ROWS_LEAST) : most;
    double ns = b->pass_ns * SHARE > SHARE_NS ? b->pass_ns * SHARE : SHARE_NS;
    double rows = ns * (1 + prompts / MANY) / b->row_ns;
    return rows < ROWS_LEAST ? smaller(ROWS_LEAST, most) : rows < most ? (uint32_t)rows : most;
}

/* Guesses for texts that are all being drawn. More rows of weights in panels cost little up to LK_PANEL_ROWS. */
static void guess(struct lk_batch *b, struct lk__batch_sequence *s, uint32_t running, uint32_t most) {
    most = smaller(smaller(most, b->o.draft), s->most - s->count - 1);
    bool forced = b->force_draft && b->force_draft(b->chunk_arg);
    if (!forced) {
        uint32_t free = LK_PANEL_ROWS > running ? (LK_PANEL_ROWS - running) / running : 0;
        if (!(most = smaller(most, free))) return;
        double one = b->panel_ns[running < 16 ? running : 0], all = b->panel_ns[smaller(running * (1 + most), 15)];
        bool pays = !one || !all || (1 + s->accepting) * one > 1.05 * all;
        if (!pays && s->since < 64) most = 0; /* now and then it is tried again */
        s->since = most ? 0 : s->since + 1;
    }
    if (most) s->drafts = lk__batch_guess(s->tokens, s->count, s->tokens + s->count, most);
}

static void give_rows(struct lk_batch *b, const struct lk__batch_version *v) {
    uint32_t drawing = 0, prompts = 0, logits = b->logits_rows;
    for (struct lk__batch_sequence *s = b->running; s; s = s->next) {
        s->rows = s->drafts = s->wanted = 0;
        if (s->version != v) continue;
        if (s->count - s->read == 1 && s->count > s->r.prompt_count)
            s->rows = s->wanted = 1, drawing++;
        else
            prompts++;
    }
    uint32_t left = prompts ? prompt_rows(b, drawing, prompts, b->o.rows - drawing) : b->o.rows - drawing;
    logits -= drawing;
    for (struct lk__batch_sequence *s = b->running; s; s = s->next) {
        if (s->version != v) continue;
        if (s->rows) {
            if (!prompts && b->o.draft) guess(b, s, drawing, smaller(logits, left));
            logits -= s->drafts, left -= s->drafts, s->wanted += s->drafts;
            continue;
        }
        s->rows = smaller(left, s->count - s->read);
        bool echo = s->r.prompt_logprobs && s->echoed + 1 < s->r.prompt_count && s->read < s->r.prompt_count;
        if (echo) s->rows = smaller(s->rows, logits); /* each row's logits */
        if (!echo && !logits && s->rows == s->count - s->read) s->rows--;
        bool last = s->read + s->rows == s->count;
        s->wanted = !s->rows ? 0 : echo ? s->rows : last && s->count < s->most;
        logits -= s->wanted, left -= s->rows;
    }
}

/* --- Pages ---------------------------------------------------------------------------------------------------- */

/* Puts the youngest that has pages and is younger than s, or s itself, back among those that wait. */
static void put_back(struct lk_batch *b, struct lk__batch_sequence *s) {
    struct lk__batch_sequence **youngest = NULL;
    for (struct lk__batch_sequence **at = &b->running; *at; at = &(*at)->next)
        if ((*at)->page_count || *at == s) youngest = at;
    struct lk__batch_sequence *y = *youngest, **to = &b->waiting;
    lk__batch_release_pages(b, y);
    y->rows = y->drafts = y->wanted = 0;
    pthread_mutex_lock(&b->mutex);
    *youngest = y->next;
    while (*to && (*to)->charged && (*to)->id < y->id) to = &(*to)->next; /* before all that never ran */
    y->next = *to, *to = y;
    b->state.running--, b->state.waiting++, b->state.preempted++;
    pthread_mutex_unlock(&b->mutex);
}

static void take_pages(struct lk_batch *b) {
    for (struct lk__batch_sequence *s = b->running, *next; s; s = next) {
        while (s->rows && s->page_count < pages_for(b, s->read + s->rows + s->drafts)) {
            uint32_t page = lk__batch_pages_take(b->pages);
            if (page != PAGE_NONE)
                s->pages[s->page_count++] = page;
            else if (s->drafts)
                s->wanted -= s->drafts, s->drafts = 0;
            else
                put_back(b, s);
        }
        next = s->rows ? s->next : NULL;
        if (!s->rows) /* it may be among those that wait now: go on behind its id */
            for (next = b->running; next && next->id <= s->id;) next = next->next;
    }
}

uint32_t lk__batch_plan(struct lk_batch *b, struct lk__batch_version **version) {
    pthread_mutex_lock(&b->mutex);
    admit(b);
    pthread_mutex_unlock(&b->mutex);
    if (!b->running) return 0;
    /* One version a pass; the oldest sequence of another than the last pass's first. */
    struct lk__batch_version *v = b->running->version;
    for (struct lk__batch_sequence *s = b->running; s; s = s->next)
        if (*version && s->version != *version && *version == v) {
            v = s->version;
            break;
        }
    *version = v;
    give_rows(b, v);
    take_pages(b);
    uint32_t count = 0;
    for (struct lk__batch_sequence *s = b->running; s; s = s->next)
        if (s->rows) b->members[count++] = s;
    return count;
}
