/* Memory: one allocator wrapper, arenas, growing byte buffers. */
#ifndef LOCKSTEP_MEM_H
#define LOCKSTEP_MEM_H
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Each returns NULL when memory is out (or a test says so); size 0 gives a pointer that lk_free takes. Every pointer
 * is 64-byte aligned, from 4 MiB on 2 MiB with huge pages advised. */
void *lk_alloc(size_t size_bytes);
void *lk_calloc(size_t count, size_t size_bytes); /* checked product, zeroed */
void *lk_realloc(void *p, size_t size_bytes);
char *lk_strdup(const char *s);
char *lk_strndup(const char *s, size_t n);
char *lk_asprintf(const char *format, ...) __attribute__((format(printf, 1, 2)));
void lk_free(void *p);

/* A fixed region cut from the front, 64-byte aligned pieces, zero-filled at creation. Not thread-safe.
 * Backed by anonymous mmap with huge pages advised; memory is touched only when used. */
struct lk_arena {
    char *base;
    size_t size_bytes, used_bytes;
};
int lk_arena_init(struct lk_arena *, size_t size_bytes); /* 0 or LK_ENOMEM */
void lk_arena_release(struct lk_arena *);
/* NULL when the arena is too small. Contents: zero. */
void *lk_arena_take(struct lk_arena *, size_t size_bytes);

/* Bytes of somebody else's. */
struct lk_bytes {
    const void *data;
    size_t size;
};
static inline struct lk_bytes lk_bytes(const void *data, size_t size) {
    return (struct lk_bytes){data, size};
}

/* A growing buffer of bytes; data is always followed by a zero byte once anything was appended. */
struct lk_buf {
    char *data;
    size_t size, capacity;
};
#define LK_BUF_INIT                                                                                                        \
    { 0 }
void lk_buf_release(struct lk_buf *);
int lk_buf_append(struct lk_buf *, const void *data, size_t size); /* 0 or LK_ENOMEM */
int lk_buf_printf(struct lk_buf *, const char *format, ...) __attribute__((format(printf, 2, 3)));
int lk_buf_reserve(struct lk_buf *, size_t extra);

/* Memory this process may still use, in bytes: the least of cgroup, rlimit, MemAvailable and LOCKSTEP_MEMORY_BYTES. */
uint64_t lk_memory_available_bytes(void);
/* Largest resident size so far (VmHWM), bytes; 0 where unknown. */
uint64_t lk_memory_peak_bytes(void);

#ifdef __cplusplus
}
#endif
#endif
