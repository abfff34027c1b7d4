/* The trie of a tokenizer's tokens in preorder: a walk that finds a byte impossible jumps over all that begins so. */
#include "lockstep/base/mem.h"
#include "serve/grammar/automaton.h"
#include <stdlib.h>
#include <string.h>

struct sorted {
    const struct lk_vocabulary *v;
    uint32_t id;
};
static int by_bytes(const void *a, const void *b) {
    const struct sorted *x = a, *y = b;
    const uint32_t *o = x->v->offsets;
    uint32_t m = o[x->id + 1] - o[x->id], n = o[y->id + 1] - o[y->id];
    int order = memcmp(x->v->bytes + o[x->id], x->v->bytes + o[y->id], m < n ? m : n);
    if (order) return order;
    return m != n ? (m < n ? -1 : 1) : x->id < y->id ? -1 : 1;
}

static bool is_mark(struct lk_bytes b, const char *const *marks) {
    for (; marks && *marks; marks++)
        if (strlen(*marks) == b.size && !memcmp(*marks, b.data, b.size)) return true;
    return false;
}
/* Tokens of which a text is made: all with bytes but for special and added ones that are no marks. */
static bool is_text(const struct lk_tokenizer *t, uint32_t id, const uint64_t *ends, const char *const *marks) {
    struct lk_bytes b = lk_tokenizer_bytes(t, id);
    return b.size && b.size < UINT16_MAX && !(ends[id / 64] >> id % 64 & 1) &&
           (!lk_tokenizer_is_added(t, id) || is_mark(b, marks));
}

static int copy_bytes(struct lk_vocabulary *v, const struct lk_tokenizer *t, const char *const *marks) {
    size_t all = 0;
    if (!(v->offsets = lk_alloc(((size_t)v->tokens + 1) * sizeof *v->offsets))) return LK_ENOMEM;
    for (uint32_t id = 0; id < v->tokens; id++) {
        v->offsets[id] = (uint32_t)all;
        if (is_text(t, id, v->ends, marks)) all += lk_tokenizer_bytes(t, id).size;
        if (all > UINT32_MAX / 2) return LK_ENOMEM;
    }
    v->offsets[v->tokens] = (uint32_t)all;
    if (!(v->bytes = lk_alloc(all + 1))) return LK_ENOMEM;
    for (uint32_t id = 0; id < v->tokens; id++)
        if (v->offsets[id] != v->offsets[id + 1])
            memcpy(v->bytes + v->offsets[id], lk_tokenizer_bytes(t, id).data, v->offsets[id + 1] - v->offsets[id]);
    return LK_OK;
}

/* Bytes that a token has in common with the one before it. */
static uint32_t shared(const uint8_t *a, uint32_t m, const uint8_t *b, uint32_t n) {
    uint32_t i = 0;
    while (i < m && i < n && a[i] == b[i]) i++;
    return i;
}

/* path[d]: the node after d bytes of the last token; they end where another branch begins. */
static void fill(struct lk_vocabulary *v, const struct sorted *sorted, uint32_t count, uint32_t *path) {
    const uint8_t *before = NULL;
    uint32_t depth = 0;
    v->nodes[0] = (struct lk__grammar_trie_node){.token = LK__GRAMMAR_NONE};
    v->node_count = 1;
    path[0] = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t id = sorted[i].id, size = v->offsets[id + 1] - v->offsets[id];
        const uint8_t *bytes = v->bytes + v->offsets[id];
        uint32_t same = shared(before, depth, bytes, size);
        if (same == size && depth == size) { /* the same bytes again */
            v->same[sorted[i - 1].id] = id;
            continue;
        }
        for (; depth > same; depth--) v->nodes[path[depth]].size = v->node_count - path[depth];
        for (; depth < size; depth++) {
            path[depth + 1] = v->node_count;
            v->nodes[v->node_count++] = (struct lk__grammar_trie_node){
                .token = LK__GRAMMAR_NONE, .depth = (uint16_t)(depth + 1), .byte = bytes[depth]};
        }
        v->nodes[v->node_count - 1].token = id;
        before = bytes;
        if (size > v->depth_most) v->depth_most = size;
    }
    for (; depth > 0; depth--) v->nodes[path[depth]].size = v->node_count - path[depth];
    v->nodes[0].size = v->node_count;
}

static int make_trie(struct lk_vocabulary *v) {
    uint32_t count = 0, longest = 0;
    struct sorted *sorted = lk_alloc(((size_t)v->tokens + 1) * sizeof *sorted);
    for (uint32_t id = 0; id < v->tokens && sorted; id++) {
        uint32_t size = v->offsets[id + 1] - v->offsets[id];
        if (size) sorted[count++] = (struct sorted){v, id};
        if (size > longest) longest = size;
    }
    v->nodes = lk_alloc(((size_t)v->offsets[v->tokens] + 1) * sizeof *v->nodes);
    v->same = lk_alloc(((size_t)v->tokens + 1) * sizeof *v->same);
    uint32_t *path = lk_alloc(((size_t)longest + 1) * sizeof *path);
    int code = sorted && v->nodes && v->same && path ? LK_OK : LK_ENOMEM;
    if (!code) {
        memset(v->same, 0xFF, v->tokens * sizeof *v->same);
        if (count) qsort(sorted, count, sizeof *sorted, by_bytes);
        fill(v, sorted, count, path);
        struct lk__grammar_trie_node *smaller = lk_realloc(v->nodes, v->node_count * sizeof *v->nodes);
        if (smaller) v->nodes = smaller;
    }
    lk_free(sorted);
    lk_free(path);
    return code;
}

static int set_end(struct lk_vocabulary *v, uint32_t id, struct lk_err *err) {
    if (id >= v->tokens) return lk_fail(err, LK_EINVAL, "end token %u is none of the tokenizer's %u tokens", id, v->tokens);
    v->ends[id / 64] |= (uint64_t)1 << id % 64;
    return LK_OK;
}

int lk_vocabulary_create(const struct lk_tokenizer *t, const uint32_t *ends, size_t end_count, const char *const *marks,
                         struct lk_vocabulary **out, struct lk_err *err) {
    static atomic_ullong serials;
    struct lk_vocabulary *v = lk_calloc(1, sizeof *v);
    *out = NULL;
    if (!v) return lk_fail(err, LK_ENOMEM, "no memory for a vocabulary");
    v->tokens = lk_tokenizer_vocab(t);
    v->serial = atomic_fetch_add(&serials, 1);
    int code = LK_OK;
    if (!(v->ends = lk_calloc(lk_vocabulary_words(v), sizeof *v->ends)))
        code = lk_fail(err, LK_ENOMEM, "no memory for a vocabulary");
    if (!code && lk_tokenizer_end(t) != UINT32_MAX) code = set_end(v, lk_tokenizer_end(t), err);
    for (size_t i = 0; i < end_count && !code; i++) code = set_end(v, ends[i], err);
    if (!code && (copy_bytes(v, t, marks) || make_trie(v)))
        code = lk_fail(err, LK_ENOMEM, "no memory for a vocabulary of %u tokens", v->tokens);
    if (!code)
        *out = v;
    else
        lk_vocabulary_free(v);
    return code;
}
void lk_vocabulary_free(struct lk_vocabulary *v) {
    if (!v) return;
    lk_free(v->nodes);
    lk_free(v->same);
    lk_free(v->ends);
    lk_free(v->offsets);
    lk_free(v->bytes);
    lk_free(v);
}
uint32_t lk_vocabulary_tokens(const struct lk_vocabulary *v) {
    return v->tokens;
}
size_t lk_vocabulary_words(const struct lk_vocabulary *v) {
    return ((size_t)v->tokens + 63) / 64;
}
