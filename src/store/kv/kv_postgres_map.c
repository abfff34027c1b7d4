/* Rows in memory, in the order of their keys (Pugh's skip list), and intervals of keys. */
#include "store/kv/kv_postgres.h"
#include <string.h>

/* --- rows -------------------------------------------------------------------------------------------------- */

/* Where `key` belongs: path[level] is the place that points at the first node >= key of that level. */
static struct lk__kv_pg_node *descend(const struct lk__kv_pg_map *map, struct lk_bytes key, struct lk__kv_pg_node ***path) {
    struct lk__kv_pg_node *const *at = map->first, *below = NULL;
    for (int level = LK__KV_PG_LEVELS - 1; level >= 0; level--) {
        while (at[level] && lk__kv_pg_compare(at[level]->key, key) < 0) below = at[level], at = below->after;
        if (path) path[level] = (struct lk__kv_pg_node **)&at[level];
    }
    return below;
}

struct lk__kv_pg_node *lk__kv_pg_map_from(const struct lk__kv_pg_map *map, struct lk_bytes key) {
    struct lk__kv_pg_node *below = descend(map, key, NULL);
    return below ? below->after[0] : map->first[0];
}

struct lk__kv_pg_node *lk__kv_pg_map_find(const struct lk__kv_pg_map *map, struct lk_bytes key) {
    if (!map->count) return NULL;
    struct lk__kv_pg_node *node = lk__kv_pg_map_from(map, key);
    return node && lk__kv_pg_compare(node->key, key) == 0 ? node : NULL;
}

struct lk__kv_pg_node *lk__kv_pg_map_below(const struct lk__kv_pg_map *map, struct lk_bytes key) {
    if (key.size) return descend(map, key, NULL);
    struct lk__kv_pg_node *const *at = map->first, *last = NULL;
    for (int level = LK__KV_PG_LEVELS - 1; level >= 0; level--)
        while (at[level]) last = at[level], at = last->after;
    return last;
}

/* 1 with probability 3/4, 2 with 3/16, ... */
static int levels_of(struct lk__kv_pg_map *map) {
    uint64_t x = map->random ? map->random : 0x9E3779B97F4A7C15u;
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    map->random = x;
    int levels = 1;
    for (x >>= 8; levels < LK__KV_PG_LEVELS && (x & 3) == 0; x >>= 2) levels++;
    return levels;
}

static struct lk__kv_pg_node *insert(struct lk__kv_pg_map *map, struct lk_bytes key) {
    struct lk__kv_pg_node **path[LK__KV_PG_LEVELS], *below = descend(map, key, path);
    int levels = levels_of(map);
    struct lk__kv_pg_node *node = lk_alloc(sizeof *node + (size_t)levels * sizeof node->after[0] + key.size);
    if (!node) return NULL;
    char *copy = (char *)&node->after[levels];
    memcpy(copy, key.data, key.size);
    node->key = lk_bytes(copy, key.size);
    node->value = lk_bytes(NULL, 0);
    node->before = below;
    if (*path[0]) (*path[0])->before = node;
    for (int level = 0; level < levels; level++) node->after[level] = *path[level], *path[level] = node;
    map->count++, map->bytes += key.size;
    return node;
}

int lk__kv_pg_map_set(struct lk__kv_pg_map *map, struct lk_bytes key, enum lk__kv_pg_kind kind, int64_t version,
                      struct lk_bytes value, struct lk_err *err) {
    char *copy = value.data ? lk_alloc(value.size) : NULL;
    struct lk__kv_pg_node *node = lk__kv_pg_map_find(map, key);
    if (!value.data || copy) node = node ? node : insert(map, key);
    if (!node || (value.data && !copy)) {
        lk_free(copy);
        return lk_fail(err, LK_ENOMEM, "out of memory for the rows of a transaction");
    }
    if (value.size) memcpy(copy, value.data, value.size);
    map->bytes += value.size;
    map->bytes -= node->value.size;
    lk_free((void *)(uintptr_t)node->value.data);
    node->value = lk_bytes(copy, value.size);
    node->kind = kind;
    node->version = version;
    return 0;
}

void lk__kv_pg_map_release(struct lk__kv_pg_map *map) {
    for (struct lk__kv_pg_node *node = map->first[0], *next; node; node = next) {
        next = node->after[0];
        lk_free((void *)(uintptr_t)node->value.data);
        lk_free(node);
    }
    memset(map, 0, sizeof *map);
}

/* --- intervals --------------------------------------------------------------------------------------------- */

int lk__kv_pg_ranges_add(struct lk__kv_pg_ranges *ranges, struct lk_bytes low, struct lk_bytes high, int64_t rows,
                         __int128 sum, struct lk_err *err) {
    char *copy = lk_alloc(low.size + high.size);
    if (copy && ranges->count == ranges->capacity) {
        size_t capacity = ranges->capacity ? 2 * ranges->capacity : 8;
        struct lk__kv_pg_range *more = lk_realloc(ranges->at, capacity * sizeof *more);
        if (more)
            ranges->at = more, ranges->capacity = capacity;
        else
            lk_free(copy), copy = NULL;
    }
    if (!copy) return lk_fail(err, LK_ENOMEM, "out of memory for the ranges of a transaction");
    if (low.size) memcpy(copy, low.data, low.size);
    if (high.size) memcpy(copy + low.size, high.data, high.size);
    ranges->at[ranges->count++] =
        (struct lk__kv_pg_range){lk_bytes(copy, low.size), lk_bytes(copy + low.size, high.size), rows, sum};
    return 0;
}

bool lk__kv_pg_ranges_hold(const struct lk__kv_pg_ranges *ranges, struct lk_bytes key) {
    for (size_t i = ranges->count; i-- > 0;) {
        const struct lk__kv_pg_range *r = &ranges->at[i];
        if (lk__kv_pg_compare(r->low, key) <= 0 && (!r->high.size || lk__kv_pg_compare(key, r->high) < 0)) return true;
    }
    return false;
}

void lk__kv_pg_ranges_release(struct lk__kv_pg_ranges *ranges) {
    for (size_t i = 0; i < ranges->count; i++) lk_free((void *)(uintptr_t)ranges->at[i].low.data);
    lk_free(ranges->at);
    memset(ranges, 0, sizeof *ranges);
}
