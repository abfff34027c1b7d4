#include "lockstep/base/mem.h"
#include "base/faults.h"
#include "lockstep/base/err.h"
#include <malloc.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define ALIGNMENT  ((size_t)64)
#define HUGE_PAGE  ((size_t)2 << 20)
#define HUGE_LEAST ((size_t)4 << 20)

static atomic_uint_fast64_t calls, failing_call;

void lk__alloc_fail_at(uint64_t nth) {
    atomic_store(&failing_call, 0);
    atomic_store(&calls, 0);
    atomic_store(&failing_call, nth);
}

uint64_t lk__alloc_count(void) {
    return atomic_load(&calls);
}

static int must_fail(void) {
    uint64_t call = atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed) + 1;
    return call == atomic_load_explicit(&failing_call, memory_order_relaxed);
}

static void *take(size_t size) {
    if (size > (size_t)PTRDIFF_MAX - 2 * HUGE_PAGE) return NULL;
    size_t alignment = size >= HUGE_LEAST ? HUGE_PAGE : ALIGNMENT;
    size_t rounded = size ? (size + ALIGNMENT - 1) & ~(ALIGNMENT - 1) : ALIGNMENT;
    void *p = NULL;
    if (posix_memalign(&p, alignment, rounded) != 0) return NULL;
    /* Advice only: without huge pages everything works, more slowly. */
    if (size >= HUGE_LEAST) (void)madvise(p, rounded & ~(HUGE_PAGE - 1), MADV_HUGEPAGE);
    return p;
}

void *lk_alloc(size_t size_bytes) {
    return must_fail() ? NULL : take(size_bytes);
}

void *lk_calloc(size_t count, size_t size_bytes) {
    size_t total;
    if (must_fail() || __builtin_mul_overflow(count, size_bytes, &total)) return NULL;
    void *p = take(total);
    if (p) memset(p, 0, total);
    return p;
}

/* realloc() keeps only 16 byte alignment, so growing is a new block and a copy. */
void *lk_realloc(void *p, size_t size_bytes) {
    if (must_fail()) return NULL;
    if (!p) return take(size_bytes);
    size_t old = malloc_usable_size(p);
    if (size_bytes <= old && size_bytes >= old / 2) return p;
    void *q = take(size_bytes);
    if (!q) return NULL;
    memcpy(q, p, old < size_bytes ? old : size_bytes);
    free(p);
    return q;
}

void lk_free(void *p) {
    free(p);
}

char *lk_strdup(const char *s) {
    return lk_strndup(s, strlen(s));
}

char *lk_strndup(const char *s, size_t n) {
    size_t size = strnlen(s, n);
    char *copy = lk_alloc(size + 1);
    if (!copy) return NULL;
    memcpy(copy, s, size);
    copy[size] = 0;
    return copy;
}

char *lk_asprintf(const char *format, ...) {
    va_list args;
    va_start(args, format);
    int size = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *s = size < 0 ? NULL : lk_alloc((size_t)size + 1);
    if (!s) return NULL;
    va_start(args, format);
    vsnprintf(s, (size_t)size + 1, format, args);
    va_end(args);
    return s;
}

/* --- arena ----------------------------------------------------------------------------------------------- */

/* Mapped one huge page larger than asked for, then trimmed so that base lies on a huge page. */
int lk_arena_init(struct lk_arena *a, size_t size_bytes) {
    *a = (struct lk_arena){0};
    if (must_fail() || size_bytes > (size_t)PTRDIFF_MAX - 2 * HUGE_PAGE) return LK_ENOMEM;
    size_t page = 4096, size = (size_bytes + page - 1) & ~(page - 1);
    if (size == 0) size = page;
    size_t slack = size >= HUGE_LEAST ? HUGE_PAGE : 0;
    char *p = mmap(NULL, size + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return LK_ENOMEM;
    if (slack) {
        size_t head = (HUGE_PAGE - ((uintptr_t)p & (HUGE_PAGE - 1))) & (HUGE_PAGE - 1);
        if (head) munmap(p, head);
        if (slack - head) munmap(p + head + size, slack - head);
        p += head;
        (void)madvise(p, size, MADV_HUGEPAGE);
    }
    *a = (struct lk_arena){.base = p, .size_bytes = size};
    return 0;
}

void lk_arena_release(struct lk_arena *a) {
    if (a->base) munmap(a->base, a->size_bytes);
    *a = (struct lk_arena){0};
}

void *lk_arena_take(struct lk_arena *a, size_t size_bytes) {
    size_t left = a->size_bytes - a->used_bytes;
    if (size_bytes > left) return NULL;
    size_t rounded = (size_bytes + ALIGNMENT - 1) & ~(ALIGNMENT - 1);
    if (rounded > left) return NULL;
    void *p = a->base + a->used_bytes;
    a->used_bytes += rounded;
    return p;
}

/* --- buffer ---------------------------------------------------------------------------------------------- */

void lk_buf_release(struct lk_buf *b) {
    lk_free(b->data);
    *b = (struct lk_buf)LK_BUF_INIT;
}

int lk_buf_reserve(struct lk_buf *b, size_t extra) {
    if (extra > (size_t)PTRDIFF_MAX - b->size - 1) return LK_ENOMEM;
    size_t need = b->size + extra + 1;
    if (need <= b->capacity) return 0;
    size_t capacity = b->capacity + b->capacity / 2;
    if (capacity < 64) capacity = 64;
    if (capacity < need) capacity = need;
    char *p = lk_realloc(b->data, capacity);
    if (!p) return LK_ENOMEM;
    b->data = p;
    b->capacity = capacity;
    return 0;
}

int lk_buf_append(struct lk_buf *b, const void *data, size_t size) {
    if (lk_buf_reserve(b, size) != 0) return LK_ENOMEM;
    if (size) memcpy(b->data + b->size, data, size);
    b->size += size;
    b->data[b->size] = 0;
    return 0;
}

int lk_buf_printf(struct lk_buf *b, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int size = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (size < 0 || lk_buf_reserve(b, (size_t)size) != 0) return LK_ENOMEM;
    va_start(args, format);
    vsnprintf(b->data + b->size, (size_t)size + 1, format, args);
    va_end(args);
    b->size += (size_t)size;
    return 0;
}
