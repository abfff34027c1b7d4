/* New files that get their names together: temporaries, synced as each one ends, renamed at the end. */
#include "data/dataset/export_files.h"
#include "base/syscalls.h"
#include "lockstep/base/file.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define BUFFER_BYTES ((size_t)1 << 20)

struct file {
    char *path, *temporary;
    uint64_t size_bytes;
};
struct lk__dataset_files {
    char *dir;
    size_t found; /* this much of dir was there before; we made the folders behind it */
    bool named;
    struct file *list;
    size_t count, capacity;
    int fd; /* of the last one, while it is written */
    unsigned char *buffer;
    size_t fill;
};

/* Cuts the last name off a path. */
static void to_parent(char *path) {
    size_t n = strlen(path);
    while (n && path[n - 1] == '/') n--;
    while (n && path[n - 1] != '/') n--;
    path[n] = 0;
}

/* Removes the folders that we made, as far as they are empty. */
static void remove_folders(struct lk__dataset_files *f) {
    while (strlen(f->dir) > f->found && (rmdir(f->dir) == 0 || errno == ENOENT)) to_parent(f->dir);
}

static int found_bytes(const char *dir, size_t *found, struct lk_err *err) {
    char *path = lk_strdup(dir);
    if (!path) return lk_fail(err, LK_ENOMEM, "writing into %s: out of memory", dir);
    while (*path && !lk_file_exists(path)) to_parent(path);
    *found = strlen(path);
    lk_free(path);
    return LK_OK;
}

int lk__dataset_files_open(const char *dir, struct lk__dataset_files **out, struct lk_err *err) {
    *out = NULL;
    struct lk__dataset_files *f = lk_calloc(1, sizeof *f);
    if (f) f->fd = -1, f->dir = lk_strdup(dir), f->buffer = lk_alloc(BUFFER_BYTES);
    int code = f && f->dir && f->buffer ? LK_OK : lk_fail(err, LK_ENOMEM, "writing into %s: out of memory", dir);
    if (f) f->found = SIZE_MAX;
    if (!code) code = found_bytes(dir, &f->found, err);
    if (!code) code = lk_dir_make(dir, err);
    if (code)
        lk__dataset_files_close(f);
    else
        *out = f;
    return code;
}

static struct file *last(struct lk__dataset_files *f) {
    return &f->list[f->count - 1];
}

static int flush(struct lk__dataset_files *f, struct lk_err *err) {
    if (lk__write_all(f->fd, f->buffer, f->fill)) return lk_fail_errno(err, "cannot write %s", last(f)->temporary);
    last(f)->size_bytes += f->fill;
    f->fill = 0;
    return LK_OK;
}

/* The last file is complete. */
static int end(struct lk__dataset_files *f, struct lk_err *err) {
    if (f->fd < 0) return LK_OK;
    int code = flush(f, err);
    if (!code && lk__fsync(f->fd)) code = lk_fail_errno(err, "cannot sync %s", last(f)->temporary);
    if (lk__close(f->fd) && !code) code = lk_fail_errno(err, "cannot close %s", last(f)->temporary);
    f->fd = -1;
    return code;
}

int lk__dataset_files_begin(struct lk__dataset_files *f, const char *name, struct lk_err *err) {
    int code = end(f, err);
    if (code) return code;
    if (f->count == f->capacity) {
        size_t capacity = f->capacity ? 2 * f->capacity : 8;
        struct file *list = lk_realloc(f->list, capacity * sizeof *list);
        if (!list) return lk_fail(err, LK_ENOMEM, "writing into %s: out of memory", f->dir);
        f->list = list;
        f->capacity = capacity;
    }
    struct file *new = &f->list[f->count];
    *new = (struct file){.path = lk_asprintf("%s/%s", f->dir, name)};
    if (new->path) new->temporary = lk_asprintf("%s/.%s.%ld.tmp", f->dir, name, (long)getpid());
    if (!new->temporary)
        code = lk_fail(err, LK_ENOMEM, "writing into %s: out of memory", f->dir);
    else if (lk_file_exists(new->path))
        code = lk_fail(err, LK_EEXISTS, "%s exists; remove it, or choose another folder", new->path);
    else if ((f->fd = lk__open(new->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) < 0)
        code = lk_fail_errno(err, "cannot create %s", new->temporary);
    if (!code)
        f->count++;
    else
        lk_free(new->path), lk_free(new->temporary);
    return code;
}

int lk__dataset_files_write(struct lk__dataset_files *f, const void *data, size_t size, struct lk_err *err) {
    LK_ASSERT(f->fd >= 0);
    for (const unsigned char *p = data; size;) {
        size_t n = BUFFER_BYTES - f->fill < size ? BUFFER_BYTES - f->fill : size;
        memcpy(f->buffer + f->fill, p, n);
        f->fill += n;
        p += n;
        size -= n;
        int code = f->fill == BUFFER_BYTES ? flush(f, err) : LK_OK;
        if (code) return code;
    }
    return LK_OK;
}

int lk__dataset_files_write_le(struct lk__dataset_files *f, uint64_t value, int bytes, struct lk_err *err) {
    unsigned char p[8];
    for (int i = 0; i < 8; i++) p[i] = (unsigned char)(value >> (8 * i));
    return lk__dataset_files_write(f, p, (size_t)bytes, err);
}

int lk__dataset_files_name(struct lk__dataset_files *f, void (*file)(void *arg, const char *path, uint64_t size_bytes),
                           void *arg, struct lk_err *err) {
    size_t named = 0;
    int code = end(f, err);
    for (; !code && named < f->count; named++)
        if (lk__rename(f->list[named].temporary, f->list[named].path)) {
            code = lk_fail_errno(err, "cannot rename %s to %s", f->list[named].temporary, f->list[named].path);
            break;
        }
    if (!code) code = lk_dir_sync(f->dir, err);
    for (size_t i = 0; code && i < named; i++) unlink(f->list[i].path);
    f->named = !code;
    for (size_t i = 0; !code && i < named; i++)
        if (file) file(arg, f->list[i].path, f->list[i].size_bytes);
    return code;
}

void lk__dataset_files_close(struct lk__dataset_files *f) {
    if (!f) return;
    if (f->fd >= 0) lk__close(f->fd);
    for (size_t i = 0; i < f->count; i++) {
        unlink(f->list[i].temporary); /* a file that has its name already has left this one */
        lk_free(f->list[i].path);
        lk_free(f->list[i].temporary);
    }
    if (!f->named && f->dir) remove_folders(f); /* a failed export leaves no empty folder */
    lk_free(f->list);
    lk_free(f->buffer);
    lk_free(f->dir);
    lk_free(f);
}
