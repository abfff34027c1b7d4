#include "base/sha256.h"
#include <stdatomic.h>
#include <string.h>

#define K lk__sha256_constants
const uint32_t lk__sha256_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01,
    0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc,
    0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
    0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08,
    0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
    0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t turn(uint32_t x, int n) {
    return x >> n | x << (32 - n);
}

static void block(uint32_t s[8], const uint8_t *p) {
    uint32_t w[64], v[8];
    for (int i = 0; i < 16; i++, p += 4) w[i] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
    for (int i = 16; i < 64; i++) {
        uint32_t a = turn(w[i - 15], 7) ^ turn(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t b = turn(w[i - 2], 17) ^ turn(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + a + w[i - 7] + b;
    }
    memcpy(v, s, sizeof v);
    for (int i = 0; i < 64; i++) {
        uint32_t e = turn(v[4], 6) ^ turn(v[4], 11) ^ turn(v[4], 25);
        uint32_t t1 = v[7] + e + ((v[4] & v[5]) ^ (~v[4] & v[6])) + K[i] + w[i];
        uint32_t a = turn(v[0], 2) ^ turn(v[0], 13) ^ turn(v[0], 22);
        uint32_t t2 = a + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof *v);
        v[4] += t1;
        v[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++) s[i] += v[i];
}

/* --- which ----------------------------------------------------------------------------------------------- */
enum { UNKNOWN, PLAIN, FAST };
static atomic_int chosen;

void lk__sha256_allow_fast(bool allow) {
#if defined(__x86_64__)
    allow = allow && lk__sha256_x86_here();
#else
    allow = false;
#endif
    atomic_store_explicit(&chosen, allow ? FAST : PLAIN, memory_order_relaxed);
}

bool lk__sha256_fast(void) {
    int now = atomic_load_explicit(&chosen, memory_order_relaxed);
    if (now == UNKNOWN) { /* every thread finds the same */
        lk__sha256_allow_fast(true);
        now = atomic_load_explicit(&chosen, memory_order_relaxed);
    }
    return now == FAST;
}

static void blocks(uint32_t s[8], const uint8_t *p, size_t count) {
#if defined(__x86_64__)
    if (lk__sha256_fast()) {
        lk__sha256_x86(s, p, count);
        return;
    }
#endif
    for (; count; count--, p += 64) block(s, p);
}

/* --- texts ----------------------------------------------------------------------------------------------- */
void lk__sha256_init(struct lk__sha256 *c) {
    static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(c->state, start, sizeof start);
    c->size = 0;
}

/* Fills up a block that has been begun; returns how many bytes that takes. */
static size_t fill(struct lk__sha256 *c, const uint8_t *p, size_t size) {
    size_t used = c->size % 64, n = 64 - used < size ? 64 - used : size;
    if (!used || !n) return 0;
    memcpy(c->block + used, p, n);
    c->size += n;
    if (used + n == 64) blocks(c->state, c->block, 1);
    return n;
}

void lk__sha256_update(struct lk__sha256 *c, const void *data, size_t size) {
    const uint8_t *p = data;
    size_t n = fill(c, p, size), whole = (size - n) / 64;
    if (n == size) return;
    p += n, size -= n;
    blocks(c->state, p, whole);
    memcpy(c->block, p + 64 * whole, size % 64);
    c->size += size;
}

void lk__sha256_update_pair(struct lk__sha256 *a, const void *data_a, struct lk__sha256 *b, const void *data_b,
                            size_t size) {
    const uint8_t *p = data_a, *q = data_b;
    size_t m = 0, n = 0;
#if defined(__x86_64__)
    if (lk__sha256_fast()) {
        m = fill(a, p, size), n = fill(b, q, size);
        size_t whole = (size - (m > n ? m : n)) / 64;
        lk__sha256_x86_pair(a->state, p + m, b->state, q + n, whole);
        a->size += 64 * whole, b->size += 64 * whole;
        m += 64 * whole, n += 64 * whole;
    }
#endif
    lk__sha256_update(a, p + m, size - m);
    lk__sha256_update(b, q + n, size - n);
}

void lk__sha256_final(struct lk__sha256 *c, uint8_t out[32]) {
    static const uint8_t padding[64] = {0x80};
    uint64_t bits = c->size * 8;
    lk__sha256_update(c, padding, 1 + (119 - c->size % 64) % 64);
    uint8_t length[8];
    for (int i = 0; i < 8; i++) length[i] = (uint8_t)(bits >> (56 - 8 * i));
    lk__sha256_update(c, length, 8);
    for (int i = 0; i < 32; i++) out[i] = (uint8_t)(c->state[i / 4] >> (24 - 8 * (i % 4)));
}
