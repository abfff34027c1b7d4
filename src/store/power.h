/* What a disk may hold after power loss, from a recorder's log (tests/power/recorder.c); tests only.
 *
 * The log is played event by event. What was synced is a file's base; what was not is a list of changes. After a power loss
 * a sector holds what it held at some moment since its last sync, each sector at a moment of its own (so a write is there,
 * is not, or is torn); a file's size is that of some moment; and each name in a folder leads where it led at some moment
 * since the folder's last sync, whatever became of other names. That is more than any journal allows, and all that POSIX
 * promises. A sync takes what came before its begin. A write through O_DSYNC is durable at its end. */
#ifndef LK_STORE_POWER_H
#define LK_STORE_POWER_H
#include "../tests/power/log.h"
#include "base/testing.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

struct power_file;
/* A change that no sync has taken. */
struct power_change {
    uint64_t at; /* in the log */
    bool durable;
    /* of a file */
    bool resizes; /* size is the file's size behind it; else bytes at offset */
    const unsigned char *bytes;
    uint64_t offset, size, size_before, size_after;
    /* of a folder */
    const char *name;
    struct power_file *target; /* NULL: gone */
};
struct power_entry {
    const char *name;
    struct power_file *target;
};
struct power_file {
    uint64_t inode;
    bool folder;
    unsigned char *base;
    uint64_t base_size, room, size; /* size: now */
    struct power_entry *entries;    /* synced */
    size_t entry_count, entry_room;
    struct power_change *changes;
    size_t count, change_room;
};
struct power {
    const struct power_log *log;
    uint64_t at;
    struct power_file **files;
    size_t count, room;
    struct power_file *root;
    const char *bad; /* what the recorder could not tell */
};

#define POWER_GROW(array, n, room_of)                                                                                      \
    do {                                                                                                                   \
        if ((n) == (room_of)) {                                                                                            \
            (room_of) = (room_of) ? 2 * (room_of) : 16;                                                                    \
            (array) = realloc((array), (size_t)(room_of) * sizeof *(array));                                               \
            assert_non_null(array);                                                                                        \
        }                                                                                                                  \
    } while (0)

static inline struct power_file *power_add(struct power *p, uint64_t inode, bool folder) {
    struct power_file *f = calloc(1, sizeof *f);
    POWER_GROW(p->files, p->count, p->room);
    f->inode = inode, f->folder = folder;
    return p->files[p->count++] = f;
}
/* The last one: its number may have been another's before. */
static inline struct power_file *power_find(const struct power *p, uint64_t inode) {
    for (size_t i = p->count; i-- > 0;)
        if (p->files[i]->inode == inode) return p->files[i];
    fail_msg("the log tells of inode %llu, which it did not see made", (unsigned long long)inode);
    return NULL;
}

static inline void power_open(struct power *p, const char *log, uint64_t root_inode) {
    int fd = open(log, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    memset(p, 0, sizeof *p);
    p->log = mmap(NULL, POWER_LOG_BYTES, PROT_READ, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(p->log, MAP_FAILED);
    close(fd);
    p->root = power_add(p, root_inode, true);
}
static inline void power_close(struct power *p) {
    for (size_t i = 0; i < p->count; i++) {
        free(p->files[i]->base), free(p->files[i]->entries), free(p->files[i]->changes);
        free(p->files[i]);
    }
    free(p->files);
    munmap((void *)(uintptr_t)p->log, POWER_LOG_BYTES);
}

/* --- playing ------------------------------------------------------------------------------------------------------ */

static inline void power_resize_base(struct power_file *f, uint64_t size) {
    if (size > f->room) {
        f->room = size * 2;
        f->base = realloc(f->base, f->room);
        assert_non_null(f->base);
    }
    if (size > f->base_size) memset(f->base + f->base_size, 0, size - f->base_size);
    f->base_size = size;
}
static inline void power_set_entry(struct power_file *f, const char *name, struct power_file *target) {
    size_t i = 0;
    while (i < f->entry_count && strcmp(f->entries[i].name, name) != 0) i++;
    if (i == f->entry_count) {
        POWER_GROW(f->entries, f->entry_count, f->entry_room);
        f->entries[f->entry_count++].name = name;
    }
    f->entries[i].target = target;
}
static inline void power_settle(struct power_file *f, const struct power_change *c) {
    if (f->folder)
        power_set_entry(f, c->name, c->target);
    else if (c->resizes)
        power_resize_base(f, c->size);
    else {
        if (c->offset + c->size > f->base_size) power_resize_base(f, c->offset + c->size);
        memcpy(f->base + c->offset, c->bytes, c->size);
    }
}
static inline void power_sync(struct power_file *f, uint64_t before) {
    size_t n = 0;
    while (n < f->count && f->changes[n].at < before) power_settle(f, &f->changes[n++]);
    memmove(f->changes, f->changes + n, (f->count - n) * sizeof *f->changes);
    f->count -= n;
}
static inline void power_change(struct power_file *f, struct power_change c) {
    POWER_GROW(f->changes, f->count, f->change_room);
    if (!f->folder) {
        c.size_before = f->size;
        c.size_after = c.resizes ? c.size : c.offset + c.size > f->size ? c.offset + c.size : f->size;
        f->size = c.size_after;
    }
    f->changes[f->count++] = c;
}

/* Plays the next event; NULL: there is none. bytes: behind it. */
static inline const struct power_event *power_next(struct power *p, const unsigned char **bytes) {
    if (p->at >= p->log->used) return NULL;
    const struct power_event *e = (const void *)(p->log->events + p->at);
    const unsigned char *data = p->log->events + p->at + sizeof *e;
    struct power_file *f;
    switch (e->kind) {
    case POWER_MAKE:
    case POWER_MKDIR:
        f = power_add(p, e->inode, e->kind == POWER_MKDIR);
        power_change(power_find(p, e->folder), (struct power_change){.at = p->at, .name = (const char *)data, .target = f});
        break;
    case POWER_NAME:
    case POWER_UNNAME:
        f = e->kind == POWER_NAME ? power_find(p, e->inode) : NULL;
        power_change(power_find(p, e->folder), (struct power_change){.at = p->at, .name = (const char *)data, .target = f});
        break;
    case POWER_WRITE:
        power_change(power_find(p, e->inode),
                     (struct power_change){.at = p->at, .bytes = data, .offset = e->offset, .size = e->size});
        break;
    case POWER_SIZE:
        power_change(power_find(p, e->inode), (struct power_change){.at = p->at, .resizes = true, .size = e->offset});
        break;
    case POWER_SYNC_END:
        power_sync(power_find(p, e->inode), e->offset);
        break;
    case POWER_WRITTEN:
        f = power_find(p, e->inode);
        for (size_t i = 0; i < f->count; i++)
            if (f->changes[i].at == e->offset) f->changes[i].durable = true;
        break;
    case POWER_BAD:
        p->bad = (const char *)data;
        break;
    default:
        break;
    }
    p->at += sizeof *e + ((e->size + 7u) & ~7u);
    *bytes = data;
    return e;
}

/* --- states ------------------------------------------------------------------------------------------------------- */

/* How one state is chosen: which changes are there. */
enum power_way {
    POWER_NONE, /* nothing that was not synced */
    POWER_ALL,  /* everything */
    POWER_BITS, /* change i is there if bit i is set */
    POWER_ONLY, /* nothing but change number `bits` */
    POWER_BUT,  /* everything but it */
    POWER_SOME, /* each with a chance of odds in 8 */
    POWER_TORN, /* each sector of `sector` bytes, name and size for itself */
};
struct power_state {
    enum power_way way;
    uint64_t bits;
    uint32_t odds, sector;
    struct test_random random;
    size_t number; /* of the change that is asked for; while it is built */
};

static inline size_t power_pending(const struct power *p) {
    size_t n = 0;
    for (size_t i = 0; i < p->count; i++)
        for (size_t j = 0; j < p->files[i]->count; j++) n += !p->files[i]->changes[j].durable;
    return n;
}

static inline bool power_chosen(struct power_state *s) {
    size_t n = s->number++;
    switch (s->way) {
    case POWER_NONE:
        return false;
    case POWER_ALL:
        return true;
    case POWER_BITS:
        return s->bits >> n & 1;
    case POWER_ONLY:
        return n == s->bits;
    case POWER_BUT:
        return n != s->bits;
    default:
        return test_random_below(&s->random, 8) < s->odds;
    }
}
/* A moment of a thing that changes `touched[0..count)` touch: how many changes of the file are behind it. `chosen` of all
 * changes of the file; durable ones are, and what they touch is never older. */
static inline size_t power_moment(struct power_state *s, const struct power_file *f, const bool *chosen,
                                  const size_t *touched, size_t count) {
    size_t least = 0, last = 0;
    for (size_t i = 0; i < count; i++) {
        if (f->changes[touched[i]].durable) least = i + 1;
        if (chosen[touched[i]]) last = i + 1;
    }
    if (s->way == POWER_TORN) last = least + test_random_below(&s->random, (uint32_t)(count - least + 1));
    if (last < least) last = least;
    return last ? touched[last - 1] + 1 : 0;
}

static inline void power_write_file(const struct power_file *f, struct power_state *s, const bool *chosen,
                                    const char *path) {
    size_t *touched = malloc((f->count + 1) * sizeof *touched), n = 0;
    for (size_t i = 0; i < f->count; i++)
        if (f->changes[i].size_after != f->changes[i].size_before) touched[n++] = i;
    size_t moment = power_moment(s, f, chosen, touched, n);
    uint64_t size = moment ? f->changes[moment - 1].size_after : f->base_size, sector = s->sector;
    unsigned char *image = calloc(1, size + sector);
    memcpy(image, f->base, f->base_size < size ? f->base_size : size);
    /* only sectors that something touches differ from the base */
    bool *seen = calloc(size / sector + 1, 1);
    for (size_t i = 0; i < f->count; i++) {
        const struct power_change *c = &f->changes[i];
        uint64_t from = c->resizes ? (c->size_before < c->size_after ? c->size_before : c->size_after) : c->offset;
        uint64_t to = c->resizes ? (c->size_before > c->size_after ? c->size_before : c->size_after) : c->offset + c->size;
        for (uint64_t at = from / sector; at * sector < to && at * sector < size; at++) {
            if (seen[at]) continue;
            seen[at] = true;
            uint64_t begin = at * sector, end = begin + sector;
            n = 0;
            for (size_t j = i; j < f->count; j++) {
                const struct power_change *d = &f->changes[j];
                if (d->resizes ? d->size < end && d->size_before > begin : d->offset < end && d->offset + d->size > begin)
                    touched[n++] = j;
            }
            moment = power_moment(s, f, chosen, touched, n);
            for (size_t j = 0; j < moment; j++) {
                const struct power_change *d = &f->changes[j];
                if (d->resizes) {
                    if (d->size < end)
                        memset(image + (d->size > begin ? d->size : begin), 0, end - (d->size > begin ? d->size : begin));
                    continue;
                }
                uint64_t a = d->offset > begin ? d->offset : begin,
                         b = d->offset + d->size < end ? d->offset + d->size : end;
                if (a < b) memcpy(image + a, d->bytes + (a - d->offset), b - a);
            }
        }
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, image, size), size);
    close(fd);
    free(image), free(seen), free(touched);
}

static inline void power_write_folder(const struct power_file *f, struct power_state *s, bool *const *chosen,
                                      const struct power *p, const char *path);
static inline void power_write_any(const struct power_file *f, struct power_state *s, bool *const *chosen,
                                   const struct power *p, const char *path) {
    size_t i = 0;
    while (p->files[i] != f) i++;
    if (!f->folder) {
        power_write_file(f, s, chosen[i], path);
        return;
    }
    assert_true(mkdir(path, 0755) == 0 || errno == EEXIST);
    power_write_folder(f, s, chosen, p, path);
}
static inline void power_write_folder(const struct power_file *f, struct power_state *s, bool *const *chosen,
                                      const struct power *p, const char *path) {
    size_t names = f->entry_count, *touched = malloc((f->count + 1) * sizeof *touched), self = 0;
    const char **all = malloc((f->entry_count + f->count + 1) * sizeof *all);
    for (size_t i = 0; i < f->entry_count; i++) all[i] = f->entries[i].name;
    for (size_t i = 0; i < f->count; i++) {
        size_t j = 0;
        while (j < names && strcmp(all[j], f->changes[i].name) != 0) j++;
        if (j == names) all[names++] = f->changes[i].name;
    }
    while (p->files[self] != f) self++;
    for (size_t i = 0; i < names; i++) {
        size_t n = 0;
        for (size_t j = 0; j < f->count; j++)
            if (strcmp(f->changes[j].name, all[i]) == 0) touched[n++] = j;
        size_t moment = power_moment(s, f, chosen[self], touched, n);
        struct power_file *target = moment ? f->changes[moment - 1].target : NULL;
        if (!moment && i < f->entry_count) target = f->entries[i].target;
        if (!target) continue;
        char *below = test_join(path, all[i]);
        power_write_any(target, s, chosen, p, below);
        lk_free(below);
    }
    free(touched), free((void *)all);
}

/* Writes one state to an empty folder. */
static inline void power_build(const struct power *p, struct power_state s, const char *dir) {
    bool **chosen = malloc((p->count + 1) * sizeof *chosen);
    s.number = 0;
    if (!s.sector) s.sector = 512;
    for (size_t i = 0; i < p->count; i++) {
        chosen[i] = calloc(p->files[i]->count + 1, 1);
        for (size_t j = 0; j < p->files[i]->count; j++) chosen[i][j] = p->files[i]->changes[j].durable || power_chosen(&s);
    }
    power_write_any(p->root, &s, chosen, p, dir);
    for (size_t i = 0; i < p->count; i++) free(chosen[i]);
    free(chosen);
}

/* The n-th state of this moment, all that there are where there are few changes; false: there is no more. most: of those
 * that are drawn. */
static inline bool power_nth(const struct power *p, size_t n, size_t most, uint64_t seed, struct power_state *out) {
    size_t pending = power_pending(p);
    static const uint32_t odds[] = {4, 7, 1}, sectors[] = {4096, 512};
    *out = (struct power_state){.sector = 512, .random = {seed + n * 1000003u + p->at, 0}};
    if (pending == 0) return out->way = POWER_ALL, n == 0;
    size_t all = pending <= 5 && ((size_t)1 << pending) <= most ? (size_t)1 << pending : 0;
    if (n < all) return out->way = POWER_BITS, out->bits = n, true;
    n -= all;
    if (!all) {
        if (n < 2) return out->way = n ? POWER_ALL : POWER_NONE, true;
        n -= 2;
        size_t alone = 2 * pending <= most ? 2 * pending : 0;
        if (n < alone) return out->way = n % 2 ? POWER_BUT : POWER_ONLY, out->bits = n / 2, true;
        n -= alone;
    }
    if (n >= most) return false;
    out->way = n % 3 ? POWER_TORN : POWER_SOME;
    out->odds = odds[n / 3 % 3];
    out->sector = sectors[n % 2];
    return true;
}
static inline void power_describe(const struct power *p, const struct power_state *s, char *out, size_t size) {
    static const char *const ways[] = {
        "nothing unsynced", "all", "changes by bits", "one change only", "all but one", "some", "torn"};
    snprintf(out, size, "at %llu of %llu, %zu changes not synced, %s (bits %llx, sectors of %u, seed %llx)",
             (unsigned long long)p->at, (unsigned long long)p->log->used, power_pending(p), ways[s->way],
             (unsigned long long)s->bits, s->sector, (unsigned long long)s->random.seed);
}

#endif
