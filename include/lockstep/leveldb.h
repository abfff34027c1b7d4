/* The names of LevelDB's C interface (1.23) over lockstep/store/kv.h: a program that was written for LevelDB includes this
 * header in place of <leveldb/c.h> and links with this library. What it may rely on and what differs: docs/kv.md, "From
 * LevelDB". lockstep.h leaves this header out, as its names are LevelDB's; the library's own symbols begin with
 * lk_leveldb_, so that it can be linked beside LevelDB.
 *
 * Pointers are opaque and not NULL where nothing else is said; a uint8_t is a truth value. Errors: on failure the text that
 * *errptr points to is freed, if there is one, and replaced by another, of malloc; on success *errptr stays as it is. Texts
 * begin with a kind: "Invalid argument: ", "IO error: ", "Corruption: ", "Not implemented: ". Where nothing else is said a
 * function may be called by several threads at once, for one iterator, batch or options object by one at a time. */
#ifndef LOCKSTEP_LEVELDB_H
#define LOCKSTEP_LEVELDB_H
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LK__LEVELDB(name) __asm__("lk_" #name) /* the symbol of a function */

typedef struct leveldb_t leveldb_t;
typedef struct leveldb_cache_t leveldb_cache_t;
typedef struct leveldb_comparator_t leveldb_comparator_t;
typedef struct leveldb_env_t leveldb_env_t;
typedef struct leveldb_filelock_t leveldb_filelock_t;
typedef struct leveldb_filterpolicy_t leveldb_filterpolicy_t;
typedef struct leveldb_iterator_t leveldb_iterator_t;
typedef struct leveldb_logger_t leveldb_logger_t;
typedef struct leveldb_options_t leveldb_options_t;
typedef struct leveldb_randomfile_t leveldb_randomfile_t;
typedef struct leveldb_readoptions_t leveldb_readoptions_t;
typedef struct leveldb_seqfile_t leveldb_seqfile_t;
typedef struct leveldb_snapshot_t leveldb_snapshot_t;
typedef struct leveldb_writablefile_t leveldb_writablefile_t;
typedef struct leveldb_writebatch_t leveldb_writebatch_t;
typedef struct leveldb_writeoptions_t leveldb_writeoptions_t;

/* --- a database ------------------------------------------------------------------------------------------ */

/* name: a folder, whose kv/ holds the rows (docs/formats.md). It is open once, in all processes together; who opens it
 * again gets an error. NULL on failure: absent without create_if_missing, present with error_if_exists, written with a
 * comparator of another name, a folder of other things (LevelDB's own files too). */
leveldb_t *leveldb_open(const leveldb_options_t *, const char *name, char **errptr) LK__LEVELDB(leveldb_open);
/* Iterators and snapshots that are left keep it open until the last of them has gone. */
void leveldb_close(leveldb_t *) LK__LEVELDB(leveldb_close);

/* Keys of 0 to 8,191 bytes, values of up to 100 MiB, of any content. The three return when the write is committed; with
 * sync it survives power loss, without it a killed process (and power loss may undo the last ones, never half of one). */
void leveldb_put(leveldb_t *, const leveldb_writeoptions_t *, const char *key, size_t keylen, const char *val,
                 size_t vallen, char **errptr) LK__LEVELDB(leveldb_put);
void leveldb_delete(leveldb_t *, const leveldb_writeoptions_t *, const char *key, size_t keylen, char **errptr)
    LK__LEVELDB(leveldb_delete); /* absent is fine */
/* All of the batch, in its order, or nothing. */
void leveldb_write(leveldb_t *, const leveldb_writeoptions_t *, leveldb_writebatch_t *, char **errptr)
    LK__LEVELDB(leveldb_write);

/* A copy of malloc, also of an empty value. NULL: absent, or an error. */
char *leveldb_get(leveldb_t *, const leveldb_readoptions_t *, const char *key, size_t keylen, size_t *vallen, char **errptr)
    LK__LEVELDB(leveldb_get);

/* The state at this moment, whatever is written later; for leveldb_readoptions_set_snapshot. Where it cannot be had (1,023
 * iterators and snapshots are there already), reading from it says so. It keeps old pages: the file grows by what others
 * write meanwhile. */
const leveldb_snapshot_t *leveldb_create_snapshot(leveldb_t *) LK__LEVELDB(leveldb_create_snapshot);
void leveldb_release_snapshot(leveldb_t *, const leveldb_snapshot_t *) LK__LEVELDB(leveldb_release_snapshot);

/* A text of malloc: of leveldb.stats, leveldb.sstables (the file), leveldb.approximate-memory-usage (bytes of this handle;
 * the map is the page cache's) and leveldb.num-files-at-level0 to 6 (one file, at level 0). NULL: no such property. */
char *leveldb_property_value(leveldb_t *, const char *propname) LK__LEVELDB(leveldb_property_value);
/* sizes[i]: bytes of keys and values with start <= key < limit, counted by walking over them; 0 on failure. */
void leveldb_approximate_sizes(leveldb_t *, int num_ranges, const char *const *range_start_key,
                               const size_t *range_start_key_len, const char *const *range_limit_key,
                               const size_t *range_limit_key_len, uint64_t *sizes) LK__LEVELDB(leveldb_approximate_sizes);
/* Both keys NULL, and nothing reads: gives free pages back to the disk. Else nothing is to be done, as writes use them. */
void leveldb_compact_range(leveldb_t *, const char *start_key, size_t start_key_len, const char *limit_key,
                           size_t limit_key_len) LK__LEVELDB(leveldb_compact_range);

/* Removes a database that nobody has open, and its folder if nothing else is there. Absent, or an empty folder, is fine. */
void leveldb_destroy_db(const leveldb_options_t *, const char *name, char **errptr) LK__LEVELDB(leveldb_destroy_db);
/* Reads all of it. Nothing needs repair after a crash; what is damaged is an error, and a copy helps then. */
void leveldb_repair_db(const leveldb_options_t *, const char *name, char **errptr) LK__LEVELDB(leveldb_repair_db);

/* --- iterators ------------------------------------------------------------------------------------------- */

/* Over the snapshot of the options, or else the state at this moment. Stands nowhere at first; never NULL, and where it
 * cannot be had leveldb_iter_get_error says why. */
leveldb_iterator_t *leveldb_create_iterator(leveldb_t *, const leveldb_readoptions_t *)
    LK__LEVELDB(leveldb_create_iterator);
void leveldb_iter_destroy(leveldb_iterator_t *) LK__LEVELDB(leveldb_iter_destroy);
uint8_t leveldb_iter_valid(const leveldb_iterator_t *) LK__LEVELDB(leveldb_iter_valid);
void leveldb_iter_seek_to_first(leveldb_iterator_t *) LK__LEVELDB(leveldb_iter_seek_to_first);
void leveldb_iter_seek_to_last(leveldb_iterator_t *) LK__LEVELDB(leveldb_iter_seek_to_last);
void leveldb_iter_seek(leveldb_iterator_t *, const char *k, size_t klen)
    LK__LEVELDB(leveldb_iter_seek);                                          /* the first >= k */
void leveldb_iter_next(leveldb_iterator_t *) LK__LEVELDB(leveldb_iter_next); /* of one that is not valid: nothing */
void leveldb_iter_prev(leveldb_iterator_t *) LK__LEVELDB(leveldb_iter_prev);
/* Until it moves or goes; of one that is not valid NULL and 0. */
const char *leveldb_iter_key(const leveldb_iterator_t *, size_t *klen) LK__LEVELDB(leveldb_iter_key);
const char *leveldb_iter_value(const leveldb_iterator_t *, size_t *vlen) LK__LEVELDB(leveldb_iter_value);
/* Of the last move, if it failed. */
void leveldb_iter_get_error(const leveldb_iterator_t *, char **errptr) LK__LEVELDB(leveldb_iter_get_error);

/* --- batches --------------------------------------------------------------------------------------------- */

/* NULL: no memory. Where memory ends in put, delete or append, leveldb_write of that batch fails and writes nothing. */
leveldb_writebatch_t *leveldb_writebatch_create(void) LK__LEVELDB(leveldb_writebatch_create);
void leveldb_writebatch_destroy(leveldb_writebatch_t *) LK__LEVELDB(leveldb_writebatch_destroy);
void leveldb_writebatch_clear(leveldb_writebatch_t *) LK__LEVELDB(leveldb_writebatch_clear);
void leveldb_writebatch_put(leveldb_writebatch_t *, const char *key, size_t klen, const char *val, size_t vlen)
    LK__LEVELDB(leveldb_writebatch_put);
void leveldb_writebatch_delete(leveldb_writebatch_t *, const char *key, size_t klen) LK__LEVELDB(leveldb_writebatch_delete);
void leveldb_writebatch_iterate(const leveldb_writebatch_t *, void *state,
                                void (*put)(void *, const char *k, size_t klen, const char *v, size_t vlen),
                                void (*deleted)(void *, const char *k, size_t klen))
    LK__LEVELDB(leveldb_writebatch_iterate);
void leveldb_writebatch_append(leveldb_writebatch_t *destination, const leveldb_writebatch_t *source)
    LK__LEVELDB(leveldb_writebatch_append);

/* --- options --------------------------------------------------------------------------------------------- */

leveldb_options_t *leveldb_options_create(void) LK__LEVELDB(leveldb_options_create);
void leveldb_options_destroy(leveldb_options_t *) LK__LEVELDB(leveldb_options_destroy);
void leveldb_options_set_create_if_missing(leveldb_options_t *, uint8_t) LK__LEVELDB(leveldb_options_set_create_if_missing);
void leveldb_options_set_error_if_exists(leveldb_options_t *, uint8_t) LK__LEVELDB(leveldb_options_set_error_if_exists);
/* NULL: bytewise. It must outlive the database. */
void leveldb_options_set_comparator(leveldb_options_t *, leveldb_comparator_t *)
    LK__LEVELDB(leveldb_options_set_comparator);
/* These are accepted and change nothing: the tree has no filters, no cache or buffer of its own, no blocks to choose the
 * size of, no levels of files and no compression; pages are shared with the kernel's cache, and nothing is logged. */
void leveldb_options_set_filter_policy(leveldb_options_t *, leveldb_filterpolicy_t *)
    LK__LEVELDB(leveldb_options_set_filter_policy);
void leveldb_options_set_paranoid_checks(leveldb_options_t *, uint8_t) LK__LEVELDB(leveldb_options_set_paranoid_checks);
void leveldb_options_set_env(leveldb_options_t *, leveldb_env_t *) LK__LEVELDB(leveldb_options_set_env);
void leveldb_options_set_info_log(leveldb_options_t *, leveldb_logger_t *) LK__LEVELDB(leveldb_options_set_info_log);
void leveldb_options_set_write_buffer_size(leveldb_options_t *, size_t) LK__LEVELDB(leveldb_options_set_write_buffer_size);
void leveldb_options_set_max_open_files(leveldb_options_t *, int) LK__LEVELDB(leveldb_options_set_max_open_files);
void leveldb_options_set_cache(leveldb_options_t *, leveldb_cache_t *) LK__LEVELDB(leveldb_options_set_cache);
void leveldb_options_set_block_size(leveldb_options_t *, size_t) LK__LEVELDB(leveldb_options_set_block_size);
void leveldb_options_set_block_restart_interval(leveldb_options_t *, int)
    LK__LEVELDB(leveldb_options_set_block_restart_interval);
void leveldb_options_set_max_file_size(leveldb_options_t *, size_t) LK__LEVELDB(leveldb_options_set_max_file_size);
enum { leveldb_no_compression = 0, leveldb_snappy_compression = 1 };
void leveldb_options_set_compression(leveldb_options_t *, int) LK__LEVELDB(leveldb_options_set_compression);

leveldb_readoptions_t *leveldb_readoptions_create(void) LK__LEVELDB(leveldb_readoptions_create);
void leveldb_readoptions_destroy(leveldb_readoptions_t *) LK__LEVELDB(leveldb_readoptions_destroy);
void leveldb_readoptions_set_snapshot(leveldb_readoptions_t *, const leveldb_snapshot_t *)
    LK__LEVELDB(leveldb_readoptions_set_snapshot); /* NULL: none */
/* Change nothing: rows have no checksums, there is no cache. */
void leveldb_readoptions_set_verify_checksums(leveldb_readoptions_t *, uint8_t)
    LK__LEVELDB(leveldb_readoptions_set_verify_checksums);
void leveldb_readoptions_set_fill_cache(leveldb_readoptions_t *, uint8_t) LK__LEVELDB(leveldb_readoptions_set_fill_cache);

leveldb_writeoptions_t *leveldb_writeoptions_create(void) LK__LEVELDB(leveldb_writeoptions_create);
void leveldb_writeoptions_destroy(leveldb_writeoptions_t *) LK__LEVELDB(leveldb_writeoptions_destroy);
void leveldb_writeoptions_set_sync(leveldb_writeoptions_t *, uint8_t) LK__LEVELDB(leveldb_writeoptions_set_sync);

/* --- what options name ----------------------------------------------------------------------------------- */

/* An order of one's own is taken as long as it is the bytewise one: each write, seek and get of a key that is absent asks
 * it about the neighbours, and where it differs is "Not implemented: ", with the two keys. The name is kept in the
 * database. compare may be called on another thread. destructor(state) is called by destroy. */
leveldb_comparator_t *leveldb_comparator_create(void *state, void (*destructor)(void *),
                                                int (*compare)(void *, const char *a, size_t alen, const char *b,
                                                               size_t blen),
                                                const char *(*name)(void *)) LK__LEVELDB(leveldb_comparator_create);
void leveldb_comparator_destroy(leveldb_comparator_t *) LK__LEVELDB(leveldb_comparator_destroy);

/* Never asked. */
leveldb_filterpolicy_t *leveldb_filterpolicy_create(void *state, void (*destructor)(void *),
                                                    char *(*create_filter)(void *, const char *const *key_array,
                                                                           const size_t *key_length_array, int num_keys,
                                                                           size_t *filter_length),
                                                    uint8_t (*key_may_match)(void *, const char *key, size_t length,
                                                                             const char *filter, size_t filter_length),
                                                    const char *(*name)(void *)) LK__LEVELDB(leveldb_filterpolicy_create);
void leveldb_filterpolicy_destroy(leveldb_filterpolicy_t *) LK__LEVELDB(leveldb_filterpolicy_destroy);
leveldb_filterpolicy_t *leveldb_filterpolicy_create_bloom(int bits_per_key) LK__LEVELDB(leveldb_filterpolicy_create_bloom);

leveldb_cache_t *leveldb_cache_create_lru(size_t capacity) LK__LEVELDB(leveldb_cache_create_lru);
void leveldb_cache_destroy(leveldb_cache_t *) LK__LEVELDB(leveldb_cache_destroy);

/* The only one: this interface has no way to make another. */
leveldb_env_t *leveldb_create_default_env(void) LK__LEVELDB(leveldb_create_default_env);
void leveldb_env_destroy(leveldb_env_t *) LK__LEVELDB(leveldb_env_destroy);
/* A folder for tests, made if need be: $TEST_TMPDIR, else one below /tmp with the user's number. Of malloc; NULL on
 * failure.
 */
char *leveldb_env_get_test_directory(leveldb_env_t *) LK__LEVELDB(leveldb_env_get_test_directory);

void leveldb_free(void *) LK__LEVELDB(leveldb_free); /* what these functions gave: errors, values, texts */
/* 1 and 23: the interface that this is. */
int leveldb_major_version(void) LK__LEVELDB(leveldb_major_version);
int leveldb_minor_version(void) LK__LEVELDB(leveldb_minor_version);

#ifdef __cplusplus
}
#endif
#endif
