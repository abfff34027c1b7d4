/* The whole of a database: what it says of itself, how large a range is, giving room back. */
#include "lockstep/base/progress.h"
#include "store/leveldb/db.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* --- properties ------------------------------------------------------------------------------------------ */

#define LEVELS    7 /* of LevelDB's; ours has one file, which counts as one of the first */
#define TEXT_SIZE 1024

typedef bool property_fn(leveldb_t *, const char *rest, char text[TEXT_SIZE]);

static bool stats(leveldb_t *db, const char *rest, char text[TEXT_SIZE]) {
    struct lk_kv_stats s;
    char size[32], unused[32];
    if (*rest || lk_kv_stats(db->kv, &s, NULL) != 0) return false;
    snprintf(text, TEXT_SIZE, "engine %s\nrows %" PRIu64 "\nsize %s\nunused %s\ndepth %" PRIu32 "\nreaders %" PRIu32 "\n",
             s.engine, s.rows, lk_format_bytes(s.size_bytes, size), lk_format_bytes(s.free_bytes, unused), s.depth,
             s.readers);
    return true;
}
static bool files(leveldb_t *db, const char *rest, char text[TEXT_SIZE]) {
    struct lk_kv_stats s;
    if (*rest || lk_kv_stats(db->kv, &s, NULL) != 0) return false;
    snprintf(text, TEXT_SIZE, "%.900s/kv/data.mdb: %" PRIu64 " bytes\n", db->dir, s.size_bytes);
    return true;
}
static bool memory(leveldb_t *db, const char *rest, char text[TEXT_SIZE]) {
    size_t states = (size_t)atomic_load(&db->references) - 1;
    if (*rest) return false;
    snprintf(text, TEXT_SIZE, "%zu", sizeof *db + strlen(db->dir) + 1 + states * sizeof(struct leveldb_snapshot_t));
    return true;
}
static bool files_at(leveldb_t *db, const char *rest, char text[TEXT_SIZE]) {
    (void)db;
    if (rest[0] < '0' || rest[0] >= '0' + LEVELS || rest[1]) return false;
    snprintf(text, TEXT_SIZE, "%d", rest[0] == '0');
    return true;
}

char *leveldb_property_value(leveldb_t *db, const char *propname) {
    static const struct {
        const char *name;
        property_fn *fn;
    } properties[] = {{"leveldb.stats", stats},
                      {"leveldb.sstables", files},
                      {"leveldb.approximate-memory-usage", memory},
                      {"leveldb.num-files-at-level", files_at}};
    char text[TEXT_SIZE];
    for (size_t i = 0; i < sizeof properties / sizeof *properties; i++) {
        size_t size = strlen(properties[i].name);
        if (strncmp(propname, properties[i].name, size) == 0 && properties[i].fn(db, propname + size, text))
            return strdup(text);
    }
    return NULL;
}

/* --- sizes and compaction ---------------------------------------------------------------------------------- */

static int add_sizes(void *arg, struct lk_bytes row, struct lk_bytes value) {
    *(uint64_t *)arg += row.size - 1 + value.size;
    return 0;
}
void leveldb_approximate_sizes(leveldb_t *db, int num_ranges, const char *const *start, const size_t *start_size,
                               const char *const *limit, const size_t *limit_size, uint64_t *sizes) {
    unsigned char from[LK_KV_KEY_MAX], to[LK_KV_KEY_MAX];
    struct lk_kv_txn *txn;
    for (int i = 0; i < num_ranges; i++) sizes[i] = 0;
    if (lk_kv_begin(db->kv, false, &txn, NULL) != 0) return;
    for (int i = 0; i < num_ranges; i++) {
        struct lk_bytes first = lk__leveldb_cut(lk__leveldb_row(from, start[i], start_size[i])),
                        end = lk__leveldb_cut(lk__leveldb_row(to, limit[i], limit_size[i]));
        if (lk_kv_scan(txn, first, end, add_sizes, &sizes[i], NULL) != 0) sizes[i] = 0;
    }
    lk_kv_abort(txn);
}

void leveldb_compact_range(leveldb_t *db, const char *start_key, size_t start_key_len, const char *limit_key,
                           size_t limit_key_len) {
    (void)start_key_len, (void)limit_key_len;
    if (!start_key && !limit_key) lk_kv_compact(db->kv, NULL);
}
