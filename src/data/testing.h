/* For the tests of this floor: texts that are likely to be trouble, golden files. */
#ifndef LOCKSTEP_DATA_TESTING_H
#define LOCKSTEP_DATA_TESTING_H
#include "base/testing.h"
#include "lockstep/base/thread.h"
#include "lockstep/store/store.h"

/* Memory if the machine has a directory of it: these tests sync hundreds of files. */
static inline const char *temporary_root(void) {
    return access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm";
}

/* One source of random numbers for the functions below. */
static struct test_random random_source;
static inline void random_begin(const char *what) {
    random_source = test_random_open(what);
}
static inline uint64_t random_u64(void) {
    return test_random_u64(&random_source);
}
static inline size_t random_below(size_t n) {
    return (size_t)(random_u64() % n);
}

static inline size_t put_utf8(uint32_t c, uint8_t *out) {
    if (c < 0x80) return out[0] = (uint8_t)c, 1;
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, c >>= 6) out[i] = (uint8_t)(0x80 | (c & 0x3F));
    out[0] = (uint8_t)(c | (n == 2 ? 0xC0u : n == 3 ? 0xE0u : 0xF0u));
    return n;
}

/* One unit of text that is likely to be trouble: letters of several lengths, digits, signs, spaces, apostrophes, damage. */
static inline size_t put_random_unit(uint8_t *out) {
    static const uint32_t some[] = {
        'a',   's',    't',    'l',    'e',   'v',  'r',    'd',     'm',     'S',     ' ',      ' ',    ' ',   '\n', '\t',
        '\r',  '\'',   '\'',   '1',    '9',   '.',  ',',    '!',     0,       0x7F,    0x85,     0xA0,   0xAD,  0xE9, 0x301,
        0x3B1, 0x2028, 0x3000, 0x4E2D, 0x661, 0xBD, 0x2167, 0x1F600, 0x1D7D8, 0x20000, 0x10FFFF, 0xFFFD, 0xFEFF};
    size_t kind = random_below(12);
    if (kind == 0) return out[0] = (uint8_t)random_u64(), 1;
    if (kind == 1) {
        uint32_t c = (uint32_t)random_below(0x110000);
        return put_utf8(c >= 0xD800 && c < 0xE000 ? 'x' : c, out);
    }
    return put_utf8(some[random_below(sizeof some / sizeof *some)], out);
}
/* Up to 4 * units bytes. */
static inline size_t random_text(uint8_t *out, size_t units) {
    size_t n = 0;
    while (units--) n += put_random_unit(out + n);
    return n;
}

static inline char *read_golden(const char *name, size_t *size) {
    struct lk_buf b = LK_BUF_INIT;
    char path[256];
    snprintf(path, sizeof path, "tests/golden/%s", name);
    OK(lk_file_read(path, (size_t)64 << 20, &b, &test_err));
    *size = b.size;
    return b.data ? b.data : lk_strdup("");
}

#endif
