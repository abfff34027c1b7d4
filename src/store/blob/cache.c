#include "store/blob/cache.h"
#include "base/syscalls.h"
#include "lockstep/base/mem.h"
#include "lockstep/base/progress.h"
#include "store/blob/blob_dir.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define LIMIT_BYTES  ((uint64_t)32 << 30)
#define YOUNG_MS     60000 /* used so lately, a blob stays: somebody may be between two steps with it */
#define OLD_TMP_MS   3600000
#define PLACE_DIGITS 16 /* of a place's SHA-256: the name of its folder */

/* A file that this process has checked. */
struct seen {
    struct lk_root root;
    dev_t device;
    ino_t inode;
    off_t size;
};

struct lk__blob_cache {
    struct lk_blobs *dir;
    char *top, *path; /* top: of all places */
    uint64_t limit;
    pthread_mutex_t mutex; /* what follows; taken alone */
    struct lk_buf seen;
    uint64_t added; /* bytes since the last look at the limit */
    bool looked;
};

/* --- opening -------------------------------------------------------------------------------------------------- */

static int read_limit(uint64_t *out, struct lk_err *err) {
    const char *text = getenv("LOCKSTEP_CACHE_LIMIT");
    *out = LIMIT_BYTES;
    if (!text || !*text) return 0;
    static const char units[] = "KMGT";
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    const char *unit = *end ? strchr(units, *end) : NULL;
    int shift = unit ? 10 * (int)(unit - units + 1) : 0;
    if (*text < '0' || *text > '9' || errno || (*end && (!unit || end[1])) || n > UINT64_MAX >> shift)
        return lk_fail(err, LK_EINVAL, "LOCKSTEP_CACHE_LIMIT=%.40s is no number of bytes, as 500M or 32G", text);
    *out = (uint64_t)n << shift;
    return 0;
}

char *lk__blob_cache_place(void) {
    const char *given = getenv("LOCKSTEP_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (given && *given) return lk_strdup(given);
    if (xdg && *xdg == '/') return lk_asprintf("%s/lockstep/blobs", xdg);
    return home && *home == '/' ? lk_asprintf("%s/.cache/lockstep/blobs", home) : lk_strdup("");
}

static int make_ours(const char *path, struct lk_err *err) {
    struct stat st;
    int code = lk_dir_make(path, err);
    if (code != 0) return lk_fail_prefix(err, code, "the cache of blobs (LOCKSTEP_CACHE)");
    if (stat(path, &st) != 0) return lk_fail_errno(err, "cannot look at the cache of blobs %s", path);
    if (st.st_uid != geteuid())
        return lk_fail(err, LK_EIO,
                       "the cache of blobs %s belongs to user %ld, this is user %ld; name another in LOCKSTEP_CACHE", path,
                       (long)st.st_uid, (long)geteuid());
    if ((st.st_mode & 077) && chmod(path, 0700) != 0)
        return lk_fail_errno(err, "cannot take others' permissions from the cache of blobs %s", path);
    return 0;
}

int lk__blob_cache_open(const char *place, struct lk__blob_cache **out, struct lk_err *err) {
    struct lk__blob_cache *c = lk_calloc(1, sizeof *c);
    struct lk_root hash;
    char hex[LK_ROOT_HEX];
    *out = NULL;
    lk_sha256(place, strlen(place), &hash);
    if (c) c->top = lk__blob_cache_place();
    if (c && c->top) c->path = lk_asprintf("%s/%.*s", c->top, PLACE_DIGITS, lk_root_hex(&hash, hex));
    int code = c && c->path ? read_limit(&c->limit, err) : lk_fail(err, LK_ENOMEM, "out of memory for the cache of blobs");
    if (code == 0 && !*c->top)
        code = lk_fail(err, LK_EINVAL, "no place for a cache of blobs: set LOCKSTEP_CACHE to a folder, or HOME");
    if (code == 0) code = make_ours(c->top, err);
    if (code == 0) code = lk__blobs_dir_open(c->path, LK_CREATE, &c->dir, err);
    if (code != 0) {
        if (c) lk_free(c->top), lk_free(c->path);
        lk_free(c);
        return code;
    }
    ((struct lk__blob_dir *)c->dir)->unsynced = true;
    pthread_mutex_init(&c->mutex, NULL);
    *out = c;
    return 0;
}

void lk__blob_cache_close(struct lk__blob_cache *c) {
    if (!c) return;
    c->dir->ops->close(c->dir);
    pthread_mutex_destroy(&c->mutex);
    lk_buf_release(&c->seen);
    lk_free(c->top);
    lk_free(c->path);
    lk_free(c);
}

struct lk_blobs *lk__blob_cache_dir(struct lk__blob_cache *c) {
    return c->dir;
}

/* --- what this process has checked ------------------------------------------------------------------------------ */

static bool look_at(struct lk__blob_cache *c, const struct lk_root *root, struct seen *out) {
    char path[LK__BLOB_PATH_BYTES];
    struct stat st;
    if (stat(c->dir->ops->path(c->dir, root, path), &st) != 0) return false;
    memset(out, 0, sizeof *out);
    out->root = *root;
    out->device = st.st_dev;
    out->inode = st.st_ino;
    out->size = st.st_size;
    if (lk_clock_wall_ms() - (int64_t)st.st_mtim.tv_sec * 1000 > YOUNG_MS / 2) utimensat(AT_FDCWD, path, NULL, 0);
    return true;
}

/* The place of a root's entry, or the end. With the mutex held. */
static size_t find_seen(const struct lk__blob_cache *c, const struct lk_root *root) {
    const struct seen *s = (const void *)c->seen.data;
    size_t i = 0, n = c->seen.size / sizeof *s;
    while (i < n && !lk_root_equal(&s[i].root, root)) i++;
    return i;
}

static bool was_seen(struct lk__blob_cache *c, const struct seen *now) {
    pthread_mutex_lock(&c->mutex);
    size_t i = find_seen(c, &now->root);
    bool same = i < c->seen.size / sizeof *now && memcmp((struct seen *)(void *)c->seen.data + i, now, sizeof *now) == 0;
    pthread_mutex_unlock(&c->mutex);
    return same;
}

/* Without memory it is checked again the next time. */
static void mark_seen(struct lk__blob_cache *c, const struct seen *now) {
    pthread_mutex_lock(&c->mutex);
    size_t i = find_seen(c, &now->root);
    if (i < c->seen.size / sizeof *now)
        memcpy(c->seen.data + i * sizeof *now, now, sizeof *now);
    else
        (void)lk_buf_append(&c->seen, now, sizeof *now);
    pthread_mutex_unlock(&c->mutex);
}

void lk__blob_cache_added(struct lk__blob_cache *c, const struct lk_root *root, bool fits) {
    struct seen now;
    if (!look_at(c, root, &now)) return;
    if (fits) mark_seen(c, &now);
    pthread_mutex_lock(&c->mutex);
    c->added += (uint64_t)now.size;
    bool look = !c->looked || c->added > c->limit / 32;
    if (look) c->looked = true, c->added = 0;
    pthread_mutex_unlock(&c->mutex);
    if (look) lk__blob_cache_shrink(c, c->limit);
}

int lk__blob_cache_get(struct lk__blob_cache *c, const struct lk_root *root, bool verify, struct lk_blob *out,
                       struct lk_err *err) {
    struct seen now;
    char path[LK__BLOB_PATH_BYTES];
    if (!look_at(c, root, &now)) return lk_fail(err, LK_ENOTFOUND, "not in the cache of blobs %s", c->path);
    bool check = verify || !was_seen(c, &now);
    int code = c->dir->ops->open(c->dir, root, check, out, err);
    if (code == 0 && check) mark_seen(c, &now);
    if (code != LK_ECORRUPT) return code;
    c->dir->ops->path(c->dir, root, path);
    lk_log_warn("%s in the cache was damaged; it is fetched again", path);
    if (unlink(path) != 0 && errno != ENOENT) return lk_fail_errno(err, "cannot remove the damaged %s", path);
    return lk_fail(err, LK_ENOTFOUND, "damaged in the cache of blobs %s", c->path);
}

void lk__blob_cache_remove(struct lk__blob_cache *c, const struct lk_root *root) {
    char path[LK__BLOB_PATH_BYTES];
    unlink(c->dir->ops->path(c->dir, root, path));
}

/* --- fetching ----------------------------------------------------------------------------------------------------- */

/* Opens and locks tmp/ROOT. Whoever had the lock before has renamed or removed that file, or died. */
static int lock_file(struct lk__blob_fetch *f, struct lk_err *err) {
    for (;;) {
        struct stat mine, there;
        f->fd = lk__open(f->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (f->fd < 0) return lk_fail_errno(err, "cannot create %s in the cache of blobs", f->path);
        int locked;
        while ((locked = flock(f->fd, LOCK_EX)) != 0 && errno == EINTR) {}
        if (locked != 0) return lk_fail_errno(err, "cannot lock %s", f->path);
        if (fstat(f->fd, &mine) == 0 && stat(f->path, &there) == 0 && mine.st_ino == there.st_ino &&
            mine.st_dev == there.st_dev)
            return 0;
        close(f->fd);
        f->fd = -1;
    }
}

static void fetch_release(struct lk__blob_fetch *f) {
    if (f->fd >= 0) {
        unlink(f->path);
        close(f->fd);
    }
    lk_free(f->path);
    *f = (struct lk__blob_fetch){.fd = -1};
}

int lk__blob_cache_fetch(struct lk__blob_cache *c, const struct lk_root *root, struct lk__blob_fetch *out,
                         struct lk_err *err) {
    char hex[LK_ROOT_HEX];
    *out =
        (struct lk__blob_fetch){.root = *root, .fd = -1, .path = lk_asprintf("%s/tmp/%s", c->path, lk_root_hex(root, hex))};
    if (!out->path) return lk_fail(err, LK_ENOMEM, "out of memory for the cache of blobs");
    int code = lock_file(out, err);
    if (code == 0 && c->dir->ops->exists(c->dir, root)) {
        fetch_release(out);
        return 0;
    }
    if (code == 0 && lk__ftruncate(out->fd, 0) != 0) code = lk_fail_errno(err, "cannot write %s", out->path);
    if (code != 0) fetch_release(out);
    return code;
}

int lk__blob_cache_reserve(struct lk__blob_cache *c, struct lk__blob_fetch *f, uint64_t size, struct lk_err *err) {
    if (size == 0) return 0;
    int failed = lk__fallocate(f->fd, (off_t)size);
    if (failed && errno == ENOSPC) {
        lk__blob_cache_shrink(c, 0);
        failed = lk__fallocate(f->fd, (off_t)size);
    }
    if (failed && errno == EOPNOTSUPP) failed = lk__ftruncate(f->fd, (off_t)size);
    return failed
               ? lk_fail_errno(err, "no room for a blob of %llu bytes in the cache %s", (unsigned long long)size, c->path)
               : 0;
}

int lk__blob_cache_fetched(struct lk__blob_cache *c, struct lk__blob_fetch *f, bool whole, struct lk_err *err) {
    char path[LK__BLOB_PATH_BYTES];
    int code = 0;
    if (whole) {
        c->dir->ops->path(c->dir, &f->root, path);
        *strrchr(path, '/') = 0;
        code = lk_dir_make(path, err);
        c->dir->ops->path(c->dir, &f->root, path);
        if (code == 0 && (lk__fchmod(f->fd, 0444) != 0 || lk__rename(f->path, path) != 0))
            code = lk_fail_errno(err, "cannot put a blob into the cache as %s", path);
        if (code == 0) {
            close(f->fd);
            f->fd = -1;
            lk__blob_cache_added(c, &f->root, true);
        }
    }
    fetch_release(f);
    return code;
}

/* --- the limit ---------------------------------------------------------------------------------------------------- */

struct entry {
    struct lk_root root;
    int64_t used_ms;
    uint64_t size;
    char place[PLACE_DIGITS + 1];
};
struct entries {
    struct lk_buf list;
    uint64_t bytes;
    const char *place; /* that is being read */
};
static int note_entry(void *arg, const struct lk_root *root, uint64_t size, int64_t modified_ms) {
    struct entries *e = arg;
    struct entry one = {.root = *root, .used_ms = modified_ms, .size = size};
    snprintf(one.place, sizeof one.place, "%s", e->place);
    e->bytes += size;
    return lk_buf_append(&e->list, &one, sizeof one);
}
static int by_use(const void *a, const void *b) {
    const struct entry *x = a, *y = b;
    return (x->used_ms > y->used_ms) - (x->used_ms < y->used_ms);
}

/* Removing a file that somebody has mapped takes only its name. */
static void remove_oldest(struct lk__blob_cache *c, struct entries *e, uint64_t want) {
    struct entry *list = (struct entry *)(void *)e->list.data;
    size_t count = e->list.size / sizeof *list;
    int64_t young = lk_clock_wall_ms() - YOUNG_MS;
    qsort(list, count, sizeof *list, by_use);
    for (size_t i = 0; i < count && e->bytes > want && list[i].used_ms < young; i++) {
        char hex[LK_ROOT_HEX], path[LK__BLOB_PATH_BYTES];
        lk_root_hex(&list[i].root, hex);
        snprintf(path, sizeof path, "%s/%s/%.2s/%s", c->top, list[i].place, hex, hex + 2);
        if (unlink(path) == 0) e->bytes -= list[i].size;
    }
}

/* Of all places; each one's old temporaries go too. */
static int read_places(struct lk__blob_cache *c, struct entries *e) {
    DIR *dir = opendir(c->top);
    int code = dir ? 0 : LK_EIO;
    for (struct dirent *d; code == 0 && (d = readdir(dir));) {
        struct lk_blobs *blobs;
        if (strlen(d->d_name) != PLACE_DIGITS || strspn(d->d_name, "0123456789abcdef") != PLACE_DIGITS) continue;
        char *path = lk_asprintf("%s/%s", c->top, d->d_name);
        code = path ? lk__blobs_dir_open(path, LK_READ, &blobs, NULL) : LK_ENOMEM;
        lk_free(path);
        if (code) break;
        e->place = d->d_name;
        code = blobs->ops->list(blobs, OLD_TMP_MS, note_entry, e, NULL);
        blobs->ops->close(blobs);
    }
    if (dir) closedir(dir);
    return code;
}

/* One process at a time; a failure leaves more than the limit, and the next look removes it. */
void lk__blob_cache_shrink(struct lk__blob_cache *c, uint64_t limit) {
    struct entries e = {.list = LK_BUF_INIT};
    char *path = lk_asprintf("%s/lock", c->top);
    int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 && read_places(c, &e) == 0 && e.bytes > limit)
        remove_oldest(c, &e, limit - limit / 10);
    if (fd >= 0) close(fd);
    lk_free(path);
    lk_buf_release(&e.list);
}
