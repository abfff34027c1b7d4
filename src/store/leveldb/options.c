/* Options and what they name. Most change nothing here: the header says why. */
#include "store/leveldb/db.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

leveldb_options_t *leveldb_options_create(void) {
    return lk_calloc(1, sizeof(leveldb_options_t));
}
void leveldb_options_destroy(leveldb_options_t *o) {
    lk_free(o);
}
void leveldb_options_set_create_if_missing(leveldb_options_t *o, uint8_t yes) {
    o->create_if_missing = yes;
}
void leveldb_options_set_error_if_exists(leveldb_options_t *o, uint8_t yes) {
    o->error_if_exists = yes;
}
void leveldb_options_set_comparator(leveldb_options_t *o, leveldb_comparator_t *comparator) {
    o->comparator = comparator;
}

#define CHANGES_NOTHING(name, type)                                                                                        \
    void leveldb_options_set_##name(leveldb_options_t *o, type value) {                                                    \
        (void)o, (void)value;                                                                                              \
    }
CHANGES_NOTHING(filter_policy, leveldb_filterpolicy_t *)
CHANGES_NOTHING(paranoid_checks, uint8_t)
CHANGES_NOTHING(env, leveldb_env_t *)
CHANGES_NOTHING(info_log, leveldb_logger_t *)
CHANGES_NOTHING(write_buffer_size, size_t)
CHANGES_NOTHING(max_open_files, int)
CHANGES_NOTHING(cache, leveldb_cache_t *)
CHANGES_NOTHING(block_size, size_t)
CHANGES_NOTHING(block_restart_interval, int)
CHANGES_NOTHING(max_file_size, size_t)
CHANGES_NOTHING(compression, int)

leveldb_readoptions_t *leveldb_readoptions_create(void) {
    return lk_calloc(1, sizeof(leveldb_readoptions_t));
}
void leveldb_readoptions_destroy(leveldb_readoptions_t *o) {
    lk_free(o);
}
void leveldb_readoptions_set_snapshot(leveldb_readoptions_t *o, const leveldb_snapshot_t *snapshot) {
    o->snapshot = snapshot;
}
void leveldb_readoptions_set_verify_checksums(leveldb_readoptions_t *o, uint8_t yes) {
    (void)o, (void)yes;
}
void leveldb_readoptions_set_fill_cache(leveldb_readoptions_t *o, uint8_t yes) {
    (void)o, (void)yes;
}

leveldb_writeoptions_t *leveldb_writeoptions_create(void) {
    return lk_calloc(1, sizeof(leveldb_writeoptions_t));
}
void leveldb_writeoptions_destroy(leveldb_writeoptions_t *o) {
    lk_free(o);
}
void leveldb_writeoptions_set_sync(leveldb_writeoptions_t *o, uint8_t yes) {
    o->sync = yes;
}

/* --- comparators, filters, caches, environments ------------------------------------------------------------ */

leveldb_comparator_t *leveldb_comparator_create(void *state, void (*destructor)(void *),
                                                int (*compare)(void *, const char *, size_t, const char *, size_t),
                                                const char *(*name)(void *)) {
    leveldb_comparator_t *c = lk_calloc(1, sizeof *c);
    if (c) *c = (leveldb_comparator_t){state, destructor, compare, name};
    return c;
}
void leveldb_comparator_destroy(leveldb_comparator_t *c) {
    if (!c) return;
    c->destructor(c->state);
    lk_free(c);
}

struct leveldb_filterpolicy_t {
    void *state;
    void (*destructor)(void *); /* NULL: of a bloom filter */
};
leveldb_filterpolicy_t *
leveldb_filterpolicy_create(void *state, void (*destructor)(void *),
                            char *(*create_filter)(void *, const char *const *, const size_t *, int, size_t *),
                            uint8_t (*key_may_match)(void *, const char *, size_t, const char *, size_t),
                            const char *(*name)(void *)) {
    (void)create_filter, (void)key_may_match, (void)name;
    leveldb_filterpolicy_t *p = lk_calloc(1, sizeof *p);
    if (p) *p = (leveldb_filterpolicy_t){state, destructor};
    return p;
}
leveldb_filterpolicy_t *leveldb_filterpolicy_create_bloom(int bits_per_key) {
    (void)bits_per_key;
    return lk_calloc(1, sizeof(leveldb_filterpolicy_t));
}
void leveldb_filterpolicy_destroy(leveldb_filterpolicy_t *p) {
    if (p && p->destructor) p->destructor(p->state);
    lk_free(p);
}

struct leveldb_cache_t {
    size_t capacity;
};
leveldb_cache_t *leveldb_cache_create_lru(size_t capacity) {
    leveldb_cache_t *c = lk_calloc(1, sizeof *c);
    if (c) c->capacity = capacity;
    return c;
}
void leveldb_cache_destroy(leveldb_cache_t *c) {
    lk_free(c);
}

struct leveldb_env_t {
    int none;
};
leveldb_env_t *leveldb_create_default_env(void) {
    return lk_calloc(1, sizeof(leveldb_env_t));
}
void leveldb_env_destroy(leveldb_env_t *env) {
    lk_free(env);
}
char *leveldb_env_get_test_directory(leveldb_env_t *env) {
    char own[64];
    const char *given = getenv("TEST_TMPDIR");
    (void)env;
    snprintf(own, sizeof own, "/tmp/lockstep-leveldb-%u", (unsigned)geteuid());
    if (!given || !*given) given = own;
    return mkdir(given, 0755) == 0 || errno == EEXIST ? strdup(given) : NULL;
}

void leveldb_free(void *p) {
    free(p);
}
int leveldb_major_version(void) {
    return 1;
}
int leveldb_minor_version(void) {
    return 23;
}
