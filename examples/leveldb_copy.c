/* Brings the rows of a LevelDB over: this program once with LevelDB, which writes them, and once with Lockstep, which reads.
 *   cc leveldb_copy.c -o theirs -lleveldb
 *   cc -DLOCKSTEP leveldb_copy.c -o ours $(pkg-config --cflags --libs lockstep)
 *   ./theirs out OLD | ./ours in NEW */
#ifdef LOCKSTEP
#include <lockstep/leveldb.h>
#else
#include <leveldb/c.h>
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void stop(const char *why) {
    fprintf(stderr, "leveldb_copy: %s\n", why);
    exit(1);
}

/* A row is two sizes and their bytes. */
static void write_rows(leveldb_t *db, char **error) {
    leveldb_iterator_t *it = leveldb_create_iterator(db, leveldb_readoptions_create());
    for (leveldb_iter_seek_to_first(it); leveldb_iter_valid(it) && !ferror(stdout); leveldb_iter_next(it)) {
        size_t sizes[2];
        const char *key = leveldb_iter_key(it, &sizes[0]), *value = leveldb_iter_value(it, &sizes[1]);
        fwrite(sizes, sizeof sizes, 1, stdout);
        fwrite(key, 1, sizes[0], stdout);
        fwrite(value, 1, sizes[1], stdout);
    }
    leveldb_iter_get_error(it, error);
    leveldb_iter_destroy(it);
    if (fflush(stdout) != 0) stop("cannot write the rows");
}

static void read_rows(leveldb_t *db, char **error) {
    leveldb_writeoptions_t *options = leveldb_writeoptions_create();
    leveldb_writebatch_t *batch = leveldb_writebatch_create();
    for (size_t sizes[2], rows = 1, got; !*error && (got = fread(sizes, 1, sizeof sizes, stdin)); rows++) {
        char *row = got == sizeof sizes ? malloc(sizes[0] + sizes[1] + 1) : NULL;
        if (!row || fread(row, 1, sizes[0] + sizes[1], stdin) != sizes[0] + sizes[1]) stop("the rows are cut short");
        leveldb_writebatch_put(batch, row, sizes[0], row + sizes[0], sizes[1]);
        if (rows % 1000 == 0) leveldb_write(db, options, batch, error), leveldb_writebatch_clear(batch);
        free(row);
    }
    leveldb_writeoptions_set_sync(options, 1);
    if (!*error) leveldb_write(db, options, batch, error);
}

int main(int argc, char **argv) {
    int in = argc == 3 && !strcmp(argv[1], "in");
    char *error = NULL;
    if (argc != 3 || (!in && strcmp(argv[1], "out"))) return fprintf(stderr, "usage: leveldb_copy in|out DIR\n"), 2;
    leveldb_options_t *options = leveldb_options_create();
    leveldb_options_set_create_if_missing(options, in);
    leveldb_t *db = leveldb_open(options, argv[2], &error);
    if (db) (in ? read_rows : write_rows)(db, &error);
    if (db) leveldb_close(db);
    if (error) stop(error);
    return 0;
}
