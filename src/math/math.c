/* Opens the math floor: chooses the instruction set, fills the kernel table, holds the scratch memory. */
#include "lockstep/base/mem.h"
#include "lockstep/math/measure.h"
#include "math/exact.h"
#include "math/kernel_table.h"
#include "math/ref/scalar.h"
#include <stdio.h>
#include <stdlib.h>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

/* --- What this CPU has ----------------------------------------------------------------------------------- */
#if defined(__x86_64__)
/* The builtins ask the operating system too (XGETBV): a CPU feature whose registers are not saved does not count. */
int lk__math_cpu_has_fma(void) {
    return __builtin_cpu_supports("fma") && __builtin_cpu_supports("avx");
}
static bool has_avx2(void) {
    return lk__math_cpu_has_fma() && __builtin_cpu_supports("avx2");
}
static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}
/* AVX-VNNI: leaf 7, subleaf 1, EAX bit 4. Compilers of today do not all know its name. */
static bool has_avx_vnni(void) {
    unsigned a, b, c, d;
    return has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && a >> 4 & 1;
}
#elif defined(__aarch64__)
int lk__math_cpu_has_fma(void) {
    return 1;
}
#else
int lk__math_cpu_has_fma(void) {
    return 0;
}
#endif
#if defined(__x86_64__)
static void fill_avx2(struct lk__math_kernels *k) {
    lk__math_fill_avx2(k);
    if (has_avx_vnni()) lk__math_fill_quant_avx2_dot(k);
}
static void fill_avx512(struct lk__math_kernels *k) {
    lk__math_fill_avx512(k);
    if (__builtin_cpu_supports("avx512vnni")) lk__math_fill_quant_avx512_dot(k);
}
#elif defined(__aarch64__)
static void fill_neon(struct lk__math_kernels *k) {
    lk__math_fill_neon(k);
    if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) lk__math_fill_quant_neon_dot(k);
}
#endif
static bool has_any(void) {
    return true;
}

/* Plain C, with the machine's fma or ours. */
#if defined(__x86_64__) || defined(__aarch64__)
#define WITH_FMA(fma, soft) (lk__math_cpu_has_fma() ? fma : soft)
#else
#define WITH_FMA(fma, soft) (soft)
#endif
static void fill_ref(struct lk__math_kernels *k) {
    WITH_FMA(lk__math_fill_ref_fma, lk__math_fill_ref_soft)(k);
}
static void fill_blocked(struct lk__math_kernels *k) {
    WITH_FMA(lk__math_fill_blocked_fma, lk__math_fill_blocked_soft)(k);
}

/* Best first. A vector set overrides what it is faster at, so what was filled before it is the reference. */
static const struct {
    const char *name;
    bool (*here)(void);
    void (*fill)(struct lk__math_kernels *);
} sets[] = {
#if defined(__x86_64__)
    {"avx512", has_avx512, fill_avx512},
    {"avx2", has_avx2, fill_avx2},
#elif defined(__aarch64__)
    {"neon", has_any, fill_neon},
#endif
    {"blocked", has_any, fill_blocked},
    {"ref", has_any, fill_ref},
};
#define SETS (sizeof sets / sizeof *sets)

int lk_math_isas(const char *out[8]) {
    int n = 0;
    for (size_t i = 0; i < SETS; i++)
        if (sets[i].here()) out[n++] = sets[i].name;
    return n;
}

static int choose(const char *isa, struct lk__math_kernels *k, struct lk_err *err) {
    struct lk_caches caches;
    int code = lk_caches_here(&caches, err);
    if (code) return code;
    k->caches = caches;
    fill_ref(k);
    for (size_t i = 0; i < SETS; i++) {
        if (!sets[i].here() || (isa && strcmp(isa, sets[i].name) != 0)) continue;
        sets[i].fill(k);
        return 0;
    }
    const char *names[8];
    char list[96] = "";
    int n = lk_math_isas(names);
    for (int i = 0; i < n; i++) {
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", names[i]);
    }
    return lk_fail(err, LK_EUNSUPPORTED, "instruction set \"%.40s\" is unknown or this CPU has it not; possible here: %s",
                   isa, list);
}

/* --- The handle ------------------------------------------------------------------------------------------ */
int lk_math_open(struct lk_pool *pool, const char *isa, struct lk_math **out, struct lk_err *err) {
    *out = NULL;
    if (!isa) isa = getenv("LOCKSTEP_ISA");
    if (isa && !*isa) isa = NULL;
    struct lk__math_kernels k;
    int code = choose(isa, &k, err);
    if (code) return code;
    struct lk_math *m = lk_calloc(1, sizeof *m);
    if (!m) return lk_fail(err, LK_ENOMEM, "out of memory for the math floor");
    m->pool = pool;
    m->k = k;
    code = lk_math_reserve(m, k.mm_scratch_bytes, err);
    if (code) {
        lk_math_close(m);
        return code;
    }
    *out = m;
    return 0;
}

void lk_math_close(struct lk_math *m) {
    if (!m) return;
    lk_arena_release(&m->memory);
    lk_free(m->times);
    lk_free(m);
}

const char *lk_math_isa(const struct lk_math *m) {
    return m->k.isa;
}
const struct lk_caches *lk_math_caches(const struct lk_math *m) {
    return &m->k.caches;
}
void lk_math_blocks_text(const struct lk_math *m, char *out, size_t size) {
    snprintf(out, size, "of fixed sizes");
    if (m->k.mm_scheme) m->k.mm_scheme(&m->k.caches, out, size);
}
void lk_math_attention_text(const struct lk_math *m, char *out, size_t size) {
    snprintf(out, size, "pair by pair");
    if (m->k.attention_scheme) m->k.attention_scheme(&m->k.caches, out, size);
}
struct lk_pool *lk_math_pool(const struct lk_math *m) {
    return m->pool;
}

int lk_math_reserve(struct lk_math *m, size_t bytes_per_thread, struct lk_err *err) {
    /* Whole pages and one line more: threads share no cache line, and their arrays do not meet in the same cache sets. */
    size_t bytes = (bytes_per_thread + 4095) / 4096 * 4096 + 64;
    if (bytes_per_thread <= m->scratch_bytes && m->scratch) return 0;
    size_t threads = (size_t)lk_pool_threads(m->pool);
    struct lk_arena memory;
    if (bytes < bytes_per_thread || bytes > SIZE_MAX / threads / 2 || lk_arena_init(&memory, bytes * threads + 64))
        return lk_fail(err, LK_ENOMEM, "out of memory for the kernels' scratch: %zu threads of %zu bytes", threads,
                       bytes_per_thread);
    lk_arena_release(&m->memory);
    m->memory = memory;
    m->scratch_bytes = bytes;
    m->scratch = lk_arena_take(&m->memory, bytes * threads);
    LK_ASSERT(m->scratch);
    return 0;
}

size_t lk_math_scratch_bytes(const struct lk_math *m) {
    return m->memory.size_bytes;
}

/* --- Float scalars --------------------------------------------------------------------------------------- */
#define SCALAR(name, x) WITH_FMA(lk__math_ref_fma_##name, lk__math_ref_soft_##name)(x)
float lk_exp(float x) {
    return SCALAR(exp, x);
}
float lk_tanh(float x) {
    return SCALAR(tanh, x);
}
float lk_softmax_exp(float x) {
    return SCALAR(softmax_exp, x);
}
