#include "lockstep/base/hash.h"
#include "base/sha256.h"
#include "lockstep/base/mem.h"
#include <openssl/evp.h>
#include <string.h>

/* One running SHA-256: ours where it is fast or libcrypto gets no memory, else libcrypto's. */
struct sha {
    EVP_MD_CTX *evp; /* kept over hashes: after the first one a restart takes no memory */
    bool ours;
    struct lk__sha256 own;
};

static void sha_open(struct sha *s) {
    s->evp = lk__sha256_fast() ? NULL : EVP_MD_CTX_new();
}

static void sha_begin(struct sha *s) {
    s->ours = !s->evp || EVP_DigestInit_ex(s->evp, EVP_sha256(), NULL) != 1;
    if (s->ours) lk__sha256_init(&s->own);
}

static void sha_add(struct sha *s, const void *data, size_t size) {
    if (s->ours)
        lk__sha256_update(&s->own, data, size);
    else
        LK_ASSERT(EVP_DigestUpdate(s->evp, data, size) == 1);
}

static void sha_end(struct sha *s, uint8_t out[32]) {
    if (s->ours)
        lk__sha256_final(&s->own, out);
    else
        LK_ASSERT(EVP_DigestFinal_ex(s->evp, out, NULL) == 1);
}

void lk_sha256(const void *data, size_t size, struct lk_root *out) {
    struct sha s;
    sha_open(&s);
    sha_begin(&s);
    sha_add(&s, data, size);
    sha_end(&s, out->bytes);
    EVP_MD_CTX_free(s.evp);
}

struct lk_digest {
    struct sha sha;
};

struct lk_digest *lk_digest_create(void) {
    struct lk_digest *d = lk_calloc(1, sizeof *d);
    if (!d) return NULL;
    sha_open(&d->sha);
    sha_begin(&d->sha);
    return d;
}

void lk_digest_update(struct lk_digest *d, const void *data, size_t size) {
    sha_add(&d->sha, data, size);
}

void lk_digest_final(struct lk_digest *d, struct lk_root *out) {
    sha_end(&d->sha, out->bytes);
    sha_begin(&d->sha);
}

void lk_digest_free(struct lk_digest *d) {
    if (!d) return;
    EVP_MD_CTX_free(d->sha.evp);
    lk_free(d);
}

/* `peaks` holds the roots of complete subtrees, largest first, as the one bits of `leaves` have them. */
struct tree {
    struct sha sha;
    uint64_t size, leaves;
    size_t leaf_bytes; /* in the open leaf */
    int peak_count;
    struct lk_root peaks[64];
};
struct lk_hasher {
    struct tree tree;
};

static void node(struct tree *t, struct lk_root *left, const struct lk_root *right) {
    static const uint8_t tag = 1;
    sha_begin(&t->sha);
    sha_add(&t->sha, &tag, 1);
    sha_add(&t->sha, left->bytes, 32);
    sha_add(&t->sha, right->bytes, 32);
    sha_end(&t->sha, left->bytes);
}

static void begin_leaf(struct sha *s) {
    static const uint8_t tag = 0;
    sha_begin(s);
    sha_add(s, &tag, 1);
}

/* The leaf has been put on top of the peaks; equal neighbours become one. */
static void add_leaf(struct tree *t) {
    t->peak_count++;
    for (uint64_t n = t->leaves++; n & 1; n >>= 1, t->peak_count--)
        node(t, &t->peaks[t->peak_count - 2], &t->peaks[t->peak_count - 1]);
}

static void end_leaf(struct tree *t) {
    sha_end(&t->sha, t->peaks[t->peak_count].bytes);
    add_leaf(t);
    t->leaf_bytes = 0;
}

static void tree_init(struct tree *t) {
    sha_open(&t->sha);
    t->size = t->leaves = t->leaf_bytes = 0;
    t->peak_count = 0;
}

/* The rest of the open leaf, and beside it as many bytes of the next, which is then the open one: so two are hashed at once
 * wherever the caller's pieces begin. Returns how many bytes that was, `size` being more than the rest. */
static size_t two_leaves(struct tree *t, const uint8_t *p, size_t size) {
    size_t rest = LK_LEAF_BYTES - t->leaf_bytes, n = size - rest < rest ? size - rest : rest;
    struct sha next = {.evp = NULL};
    begin_leaf(&next);
    lk__sha256_update_pair(&t->sha.own, p, &next.own, p + rest, n);
    lk__sha256_update(&t->sha.own, p + n, rest - n);
    end_leaf(t);
    t->sha.ours = true;
    t->sha.own = next.own;
    t->leaf_bytes = n;
    return rest + n;
}

static void tree_update(struct tree *t, const void *data, size_t size) {
    const uint8_t *p = data;
    while (size) {
        if (t->leaf_bytes == 0) begin_leaf(&t->sha);
        size_t n = LK_LEAF_BYTES - t->leaf_bytes;
        if (n < size && t->sha.ours && lk__sha256_fast()) {
            n = two_leaves(t, p, size);
        } else {
            if (n > size) n = size;
            sha_add(&t->sha, p, n);
            t->leaf_bytes += n;
        }
        p += n, size -= n;
        t->size += n;
        if (t->leaf_bytes == LK_LEAF_BYTES) end_leaf(t);
    }
}

static void tree_final(struct tree *t, struct lk_root *out) {
    if (t->leaf_bytes) end_leaf(t);
    if (t->leaves == 0) {
        sha_begin(&t->sha);
        sha_end(&t->sha, t->peaks[t->peak_count++].bytes);
    }
    for (; t->peak_count > 1; t->peak_count--) node(t, &t->peaks[t->peak_count - 2], &t->peaks[t->peak_count - 1]);
    uint8_t head[9] = {2};
    for (int i = 0; i < 8; i++) head[1 + i] = (uint8_t)(t->size >> 8 * i);
    sha_begin(&t->sha);
    sha_add(&t->sha, head, sizeof head);
    sha_add(&t->sha, t->peaks[0].bytes, 32);
    sha_end(&t->sha, out->bytes);
    t->size = t->leaves = 0;
    t->peak_count = 0;
}

void lk_root_of(const void *data, size_t size, struct lk_root *out) {
    struct tree t;
    tree_init(&t);
    tree_update(&t, data, size);
    tree_final(&t, out);
    EVP_MD_CTX_free(t.sha.evp);
}

void lk_leaf_hash(const void *data, size_t size, struct lk_root *out) {
    LK_ASSERT(size <= LK_LEAF_BYTES);
    struct sha s;
    sha_open(&s);
    begin_leaf(&s);
    sha_add(&s, data, size);
    sha_end(&s, out->bytes);
    EVP_MD_CTX_free(s.evp);
}

void lk_leaf_hashes(const void *data, size_t size, struct lk_root *leaves) {
    const uint8_t *p = data;
    for (; size >= 2 * LK_LEAF_BYTES && lk__sha256_fast(); p += 2 * LK_LEAF_BYTES, size -= 2 * LK_LEAF_BYTES) {
        struct sha s[2] = {{.evp = NULL}, {.evp = NULL}};
        for (int i = 0; i < 2; i++) begin_leaf(&s[i]);
        lk__sha256_update_pair(&s[0].own, p, &s[1].own, p + LK_LEAF_BYTES, LK_LEAF_BYTES);
        for (int i = 0; i < 2; i++) sha_end(&s[i], leaves++->bytes);
    }
    for (size_t n; size; p += n, size -= n) {
        n = size < LK_LEAF_BYTES ? size : LK_LEAF_BYTES;
        lk_leaf_hash(p, n, leaves++);
    }
}

void lk_root_of_leaves(const struct lk_root *leaves, size_t count, uint64_t size, struct lk_root *out) {
    LK_ASSERT(count == lk_leaf_count(size));
    struct tree t;
    tree_init(&t);
    for (size_t i = 0; i < count; i++) {
        t.peaks[t.peak_count] = leaves[i];
        add_leaf(&t);
    }
    t.size = size;
    tree_final(&t, out);
    EVP_MD_CTX_free(t.sha.evp);
}

struct lk_hasher *lk_hasher_create(void) {
    struct lk_hasher *h = lk_calloc(1, sizeof *h);
    if (h) sha_open(&h->tree.sha);
    return h;
}

void lk_hasher_update(struct lk_hasher *h, const void *data, size_t size) {
    tree_update(&h->tree, data, size);
}
void lk_hasher_final(struct lk_hasher *h, struct lk_root *out) {
    tree_final(&h->tree, out);
}

void lk_hasher_free(struct lk_hasher *h) {
    if (!h) return;
    EVP_MD_CTX_free(h->tree.sha.evp);
    lk_free(h);
}

bool lk_root_equal(const struct lk_root *a, const struct lk_root *b) {
    return memcmp(a->bytes, b->bytes, 32) == 0;
}

char *lk_root_hex(const struct lk_root *root, char *out) {
    for (int i = 0; i < 64; i++) out[i] = "0123456789abcdef"[root->bytes[i / 2] >> (i % 2 ? 0 : 4) & 15];
    out[64] = 0;
    return out;
}

static int digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool lk_root_parse(const char *hex, struct lk_root *out) {
    struct lk_root root = {{0}};
    for (int i = 0; i < 64; i++) {
        int d = digit(hex[i]);
        if (d < 0) return false;
        root.bytes[i / 2] = (uint8_t)(root.bytes[i / 2] << 4 | d);
    }
    if (hex[64]) return false;
    *out = root;
    return true;
}
