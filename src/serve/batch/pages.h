/* Who has which page of keys and values: counted references, and a tree of full pages that are found by their tokens.
 * Private to src/serve/batch. */
#ifndef LOCKSTEP_SERVE_PAGES_H
#define LOCKSTEP_SERVE_PAGES_H
#include "lockstep/base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE_NONE UINT32_MAX
/* A page is free; or one sequence's own, which that sequence writes; or in the tree: full, never written again, named by
 * the version of the weights, its tokens and those of the pages before it. A page of the tree that no sequence reads stays
 * until its memory is needed: the least recently used goes first, and always one behind which nothing is. */
struct lk__batch_pages;
/* All memory is taken here: 4 bytes a position and some 50 a page. LK_ENOMEM. */
int lk__batch_pages_create(uint32_t pages, uint32_t page_positions, struct lk__batch_pages **out, struct lk_err *);
void lk__batch_pages_free(struct lk__batch_pages *);

/* A page of one's own, free or taken out of the tree; PAGE_NONE: all are in use. */
uint32_t lk__batch_pages_take(struct lk__batch_pages *);
void lk__batch_pages_give_back(struct lk__batch_pages *, uint32_t page);
/* How many take could give one after another. */
uint32_t lk__batch_pages_available(const struct lk__batch_pages *);

/* The longest prefix of tokens that is in the tree, whole pages only: their number, and which (out has place for count /
 * page_positions). Each is referred to once more. */
uint32_t lk__batch_pages_match(struct lk__batch_pages *, uint32_t version, const uint32_t *tokens, size_t count,
                               uint32_t *out);
/* The same number without taking references. */
uint32_t lk__batch_pages_matching(const struct lk__batch_pages *, uint32_t version, const uint32_t *tokens, size_t count);
/* One's own page, full of these tokens (page_positions), becomes one of the tree behind `before` (PAGE_NONE: the first).
 * Returns it, or the page that is there already with the same tokens, and so the same bits: then the own one is free. One
 * reference in any case. */
uint32_t lk__batch_pages_share(struct lk__batch_pages *, uint32_t version, uint32_t before, const uint32_t *tokens,
                               uint32_t page);
/* Drops the references to pages of the tree, of one sequence: its first `count` ones. */
void lk__batch_pages_drop(struct lk__batch_pages *, const uint32_t *pages, uint32_t count);
/* Pages that are in the tree and nobody reads. */
uint32_t lk__batch_pages_cached(const struct lk__batch_pages *);

#endif
