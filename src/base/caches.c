#include "lockstep/base/caches.h"
#include "base/limits.h"
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#define WAYS_MOST  64
#define BYTES_MOST ((size_t)1 << 30)

/* What a small core has; blocks for it are good for larger ones too. */
static const struct lk_caches assumed = {{32 << 10, 8}, {512 << 10, 8}, LK_CACHES_ASSUMED};

static struct lk_cache *at_level(struct lk_caches *c, unsigned level) {
    return level == 1 ? &c->l1 : level == 2 ? &c->l2 : NULL;
}

/* Neither its sets nor its share of a core is nothing, so that who chooses blocks may divide by them. */
static bool is_sane(const struct lk_cache *c) {
    return c->ways >= 1 && c->ways <= WAYS_MOST && c->bytes >= c->ways * LK_CACHE_LINE && c->bytes <= BYTES_MOST;
}
static bool are_sane(const struct lk_caches *c) {
    return is_sane(&c->l1) && is_sane(&c->l2);
}

/* "0-1,4": how many numbers. */
static size_t listed(const char *list) {
    size_t n = 0;
    for (char *p = (char *)list; *p >= '0' && *p <= '9';) {
        long from = strtol(p, &p, 10), to = *p == '-' ? strtol(p + 1, &p, 10) : from;
        n += to >= from ? (size_t)(to - from + 1) : 0;
        if (*p == ',') p++;
    }
    return n;
}

/* --- The system's word ---------------------------------------------------------------------------------- */
bool lk__caches_of_system(const char *root, int cpu, struct lk_caches *out) {
    char text[1024], name[32], file[48];
    snprintf(name, sizeof name, "%d", cpu);
    size_t siblings = 1;
    if (lk__read_small(text, sizeof text, "%s/sys/devices/system/cpu/cpu%s/%s", root, name,
                       "topology/thread_siblings_list"))
        siblings = listed(text);
    *out = (struct lk_caches){.from = LK_CACHES_SYSTEM};
    for (int i = 0; i < 8; i++) {
#define READ(what)                                                                                                         \
    (snprintf(file, sizeof file, "cache/index%d/%s", i, what),                                                             \
     lk__read_small(text, sizeof text, "%s/sys/devices/system/cpu/cpu%s/%s", root, name, file))
        if (!READ("type") || *text == 'I' || !READ("level")) continue;
        struct lk_cache *c = at_level(out, (unsigned)atoi(text));
        if (!c || !READ("size")) continue;
        char *unit;
        unsigned long size = strtoul(text, &unit, 10);
        c->bytes = size << (*unit == 'K' ? 10 : *unit == 'M' ? 20 : 0);
        if (READ("ways_of_associativity")) c->ways = strtoul(text, NULL, 10);
        if (READ("shared_cpu_list") && siblings && listed(text) > siblings) c->bytes /= listed(text) / siblings;
#undef READ
    }
    return are_sane(out);
}

/* --- The processor's word -------------------------------------------------------------------------------- */
/* Leaf 4 (Intel) and 0x8000001D (AMD) have the same form. */
static bool of_processor(struct lk_caches *out) {
    *out = (struct lk_caches){.from = LK_CACHES_CPUID};
#if defined(__x86_64__)
    static const unsigned leaves[] = {4, 0x8000001d};
    size_t siblings = 1;
    for (size_t l = 0; l < 2 && !out->l2.bytes; l++)
        for (unsigned i = 0, a, b, c, d; i < 8 && __get_cpuid_count(leaves[l], i, &a, &b, &c, &d) && a & 31; i++) {
            struct lk_cache *cache = (a & 31) == 2 ? NULL : at_level(out, a >> 5 & 7); /* type 2: instructions */
            size_t ways = (b >> 22) + 1, partitions = (b >> 12 & 1023) + 1, line = (b & 4095) + 1, sets = (size_t)c + 1;
            if (!cache) continue;
            size_t sharing = (a >> 14 & 4095) + 1; /* hardware threads; those of an L1 are one core's */
            if (cache == &out->l1) siblings = sharing;
            *cache =
                (struct lk_cache){ways * partitions * line * sets / (sharing > siblings ? sharing / siblings : 1), ways};
        }
#endif
    return are_sane(out);
}

/* --- The user's word -------------------------------------------------------------------------------------- */
static const char *read_cache(const char *p, struct lk_cache *c) {
    char *end;
    unsigned long size = strtoul(p, &end, 10);
    if (*p < '0' || *p > '9' || (*end != 'K' && *end != 'M') || size > 1 << 20) return NULL;
    c->bytes = size << (*end == 'K' ? 10 : 20);
    if (*++end != '/' || end[1] < '1' || end[1] > '9') return NULL;
    c->ways = strtoul(end + 1, &end, 10);
    return is_sane(c) ? end : NULL;
}
static bool given(const char *text, struct lk_caches *out) {
    *out = (struct lk_caches){.from = LK_CACHES_GIVEN};
    const char *p = read_cache(text, &out->l1);
    if (p) p = *p == ',' ? read_cache(p + 1, &out->l2) : NULL;
    return p && !*p;
}

int lk_caches_here(struct lk_caches *out, struct lk_err *err) {
    const char *text = getenv("LOCKSTEP_CACHES");
    if (text && *text)
        return given(text, out) ? 0
                                : lk_fail(err, LK_EINVAL,
                                          "LOCKSTEP_CACHES is \"%.60s\": give size and ways of L1 and L2, as in "
                                          "32K/8,512K/8",
                                          text);
    int cpu = sched_getcpu();
    if (!lk__caches_of_system("", cpu < 0 ? 0 : cpu, out) && !of_processor(out)) *out = assumed;
    return 0;
}
