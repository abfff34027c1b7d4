/* Pages of keys and values: see pages.h. A tree's node is its page, so nothing is allocated after the start. */
#include "pages.h"

#include "lockstep/base/mem.h"
#include <string.h>

enum state { FREE, OWN, TREE };
struct page {
    uint32_t before;       /* the page in front of it in the tree, or FIRST | version */
    uint32_t references;   /* of sequences; those behind it in the tree have their own */
    uint32_t behind;       /* pages in the tree that stand directly behind it */
    uint32_t hash, chain;  /* the next one in its bucket */
    uint32_t older, newer; /* in the list of those that nobody reads; of a free page newer is the next free one */
    uint8_t state;
};
#define FIRST 0x80000000u

struct lk__batch_pages {
    uint32_t count, positions, free, free_count;
    struct page *pages;
    uint32_t *tokens;  /* (count, positions) */
    uint32_t *buckets; /* bucket_mask + 1 */
    uint32_t bucket_mask;
    uint32_t oldest, newest, cached; /* nobody reads them */
};

int lk__batch_pages_create(uint32_t count, uint32_t positions, struct lk__batch_pages **out, struct lk_err *err) {
    struct lk__batch_pages *p = lk_calloc(1, sizeof *p);
    uint32_t buckets = 16;
    LK_ASSERT(count > 0 && count < FIRST && positions > 0);
    while (buckets < count) buckets *= 2;
    if (p) {
        *p = (struct lk__batch_pages){.count = count, .positions = positions, .bucket_mask = buckets - 1};
        p->oldest = p->newest = PAGE_NONE, p->free_count = count;
        p->pages = lk_calloc(count, sizeof *p->pages);
        p->tokens = lk_calloc(count, positions * sizeof *p->tokens);
        p->buckets = lk_alloc(buckets * sizeof *p->buckets);
    }
    if (!p || !p->pages || !p->tokens || !p->buckets) {
        lk__batch_pages_free(p);
        return lk_fail(err, LK_ENOMEM, "no memory for a list of %u pages", count);
    }
    memset(p->buckets, 0xff, buckets * sizeof *p->buckets);
    for (uint32_t i = 0; i < count; i++) p->pages[i].newer = i + 1 < count ? i + 1 : PAGE_NONE;
    *out = p;
    return LK_OK;
}

void lk__batch_pages_free(struct lk__batch_pages *p) {
    if (!p) return;
    lk_free(p->pages);
    lk_free(p->tokens);
    lk_free(p->buckets);
    lk_free(p);
}

/* --- Those that nobody reads, by their last use --------------------------------------------------------------- */

static void list_add(struct lk__batch_pages *p, uint32_t i) {
    p->pages[i].older = p->newest, p->pages[i].newer = PAGE_NONE;
    *(p->newest == PAGE_NONE ? &p->oldest : &p->pages[p->newest].newer) = i;
    p->newest = i;
    p->cached++;
}
static void list_remove(struct lk__batch_pages *p, uint32_t i) {
    struct page *g = &p->pages[i];
    *(g->older == PAGE_NONE ? &p->oldest : &p->pages[g->older].newer) = g->newer;
    *(g->newer == PAGE_NONE ? &p->newest : &p->pages[g->newer].older) = g->older;
    p->cached--;
}

/* --- The tree ------------------------------------------------------------------------------------------------- */

static uint32_t hash_of(uint32_t before, const uint32_t *tokens, uint32_t n) {
    uint64_t h = before * UINT64_C(0x9e3779b97f4a7c15) + n;
    for (uint32_t i = 0; i < n; i++) h = (h ^ tokens[i]) * UINT64_C(0xff51afd7ed558ccd), h ^= h >> 32;
    return (uint32_t)h;
}

static uint32_t find(const struct lk__batch_pages *p, uint32_t before, const uint32_t *tokens, uint32_t hash) {
    uint32_t i = p->buckets[hash & p->bucket_mask];
    for (; i != PAGE_NONE; i = p->pages[i].chain)
        if (p->pages[i].hash == hash && p->pages[i].before == before &&
            !memcmp(p->tokens + (size_t)i * p->positions, tokens, p->positions * sizeof *tokens))
            break;
    return i;
}

static void remove_from_tree(struct lk__batch_pages *p, uint32_t i) {
    struct page *g = &p->pages[i];
    uint32_t *at = &p->buckets[g->hash & p->bucket_mask];
    LK_ASSERT(g->references == 0 && g->behind == 0);
    while (*at != i) at = &p->pages[*at].chain;
    *at = g->chain;
    if (!(g->before & FIRST)) p->pages[g->before].behind--;
    list_remove(p, i);
}

static void refer(struct lk__batch_pages *p, uint32_t i) {
    if (p->pages[i].references++ == 0) list_remove(p, i);
}

static uint32_t match(const struct lk__batch_pages *p, uint32_t version, const uint32_t *tokens, size_t count,
                      uint32_t *out) {
    uint32_t before = FIRST | version, n = 0;
    for (; (size_t)(n + 1) * p->positions <= count; n++) {
        const uint32_t *here = tokens + (size_t)n * p->positions;
        uint32_t i = find(p, before, here, hash_of(before, here, p->positions));
        if (i == PAGE_NONE) break;
        if (out) out[n] = i;
        before = i;
    }
    return n;
}
uint32_t lk__batch_pages_matching(const struct lk__batch_pages *p, uint32_t version, const uint32_t *tokens, size_t count) {
    return match(p, version, tokens, count, NULL);
}
uint32_t lk__batch_pages_match(struct lk__batch_pages *p, uint32_t version, const uint32_t *tokens, size_t count,
                               uint32_t *out) {
    uint32_t n = match(p, version, tokens, count, out);
    for (uint32_t i = 0; i < n; i++) refer(p, out[i]);
    return n;
}

uint32_t lk__batch_pages_share(struct lk__batch_pages *p, uint32_t version, uint32_t before, const uint32_t *tokens,
                               uint32_t page) {
    if (before == PAGE_NONE) before = FIRST | version;
    uint32_t hash = hash_of(before, tokens, p->positions), there = find(p, before, tokens, hash);
    LK_ASSERT(p->pages[page].state == OWN);
    if (there != PAGE_NONE) {
        refer(p, there);
        lk__batch_pages_give_back(p, page);
        return there;
    }
    uint32_t *bucket = &p->buckets[hash & p->bucket_mask];
    p->pages[page] = (struct page){.before = before, .references = 1, .hash = hash, .chain = *bucket, .state = TREE};
    *bucket = page;
    memcpy(p->tokens + (size_t)page * p->positions, tokens, p->positions * sizeof *tokens);
    if (!(before & FIRST)) p->pages[before].behind++;
    return page;
}

/* The last ones first: they are the first to go, so a page goes after those behind it. */
void lk__batch_pages_drop(struct lk__batch_pages *p, const uint32_t *pages, uint32_t count) {
    while (count--) {
        struct page *g = &p->pages[pages[count]];
        LK_ASSERT(g->state == TREE && g->references > 0);
        if (--g->references == 0) list_add(p, pages[count]);
    }
}

/* --- Pages of one's own --------------------------------------------------------------------------------------- */

void lk__batch_pages_give_back(struct lk__batch_pages *p, uint32_t page) {
    LK_ASSERT(p->pages[page].state == OWN);
    p->pages[page].state = FREE;
    p->pages[page].newer = p->free;
    p->free = page;
    p->free_count++;
}

/* A sequence that refers to a page refers to all before it, so nothing stands behind the oldest but what is older still:
 * and that went into the list before it. */
uint32_t lk__batch_pages_take(struct lk__batch_pages *p) {
    uint32_t page = p->free_count ? p->free : p->oldest;
    if (page == PAGE_NONE) return page;
    if (p->free_count) {
        p->free = p->pages[page].newer;
        p->free_count--;
    } else
        remove_from_tree(p, page);
    p->pages[page].state = OWN;
    return page;
}

uint32_t lk__batch_pages_available(const struct lk__batch_pages *p) {
    return p->free_count + p->cached;
}
uint32_t lk__batch_pages_cached(const struct lk__batch_pages *p) {
    return p->cached;
}
