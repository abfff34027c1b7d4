/* For the tests of this floor: cmocka, an OK() that shows messages, random numbers with a printed seed. */
#ifndef LOCKSTEP_DATA_TEST_HELP_H
#define LOCKSTEP_DATA_TEST_HELP_H
#include "lockstep/base/file.h"
#include "lockstep/base/thread.h"
#include "lockstep/store/store.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOW_BUILD 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SLOW_BUILD 1
#endif
#endif
#ifndef SLOW_BUILD
#define SLOW_BUILD 0
#endif

static struct lk_err err;

#define OK(x)                                                                                                              \
    do {                                                                                                                   \
        int code_ = (x);                                                                                                   \
        if (code_) fail_msg("%s: %s", #x, err.message);                                                                    \
    } while (0)
/* x fails with `code` and a message that contains `part`. */
#define FAILS(x, want, part)                                                                                               \
    do {                                                                                                                   \
        err.message[0] = 0;                                                                                                \
        int code_ = (x);                                                                                                   \
        if (code_ != (want)) fail_msg("%s: code %d (%s), not %s", #x, code_, err.message, #want);                          \
        if (!strstr(err.message, part)) fail_msg("%s: \"%s\" does not say \"%s\"", #x, err.message, part);                 \
    } while (0)

/* Memory if the machine has a directory of it: these tests sync hundreds of files. */
static inline const char *temporary_root(void) {
    return access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm";
}

static uint64_t random_state;
static inline void random_begin(const char *what) {
    const char *fixed = getenv("SEED");
    random_state = fixed ? strtoull(fixed, NULL, 0) : (uint64_t)time(NULL) * 1000003u + (uint64_t)getpid();
    print_message("%s: SEED=%llu\n", what, (unsigned long long)random_state);
}
static inline uint64_t random_u64(void) { /* splitmix64 */
    uint64_t z = random_state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
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
    OK(lk_file_read(path, (size_t)64 << 20, &b, &err));
    *size = b.size;
    return b.data ? b.data : lk_strdup("");
}

#endif
