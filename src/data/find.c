/* Files and folders as they are given on a command line to the list of files that are read. */
#include "data/source.h"
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct search {
    const struct lk_source_options *options;
    struct lk__data_found_list *out;
    const char *root; /* the folder that was given */
    uint64_t hidden, other,
        kinds;       /* left out: hidden files and folders; files that are no text; links to folders, pipes, devices */
    char first[512]; /* of the others: what it is */
    struct lk_err *err;
};

static int no_memory(struct lk_err *err) {
    return lk_fail(err, LK_ENOMEM, "looking for files: out of memory");
}

/* Takes path over, also when it fails. name_at: where the name begins in it. */
static int add(struct lk__data_found_list *l, char *path, size_t name_at, struct lk_err *err) {
    if (path && l->count == l->capacity) {
        size_t capacity = l->capacity ? 2 * l->capacity : 16;
        struct lk__data_found *list = lk_realloc(l->list, capacity * sizeof *list);
        if (list) l->list = list, l->capacity = capacity;
    }
    if (!path || l->count == l->capacity) {
        lk_free(path);
        return no_memory(err);
    }
    l->list[l->count++] = (struct lk__data_found){path, path + name_at};
    return 0;
}

/* A file below a folder, unless it is no text. Takes path over. */
static int add_file(struct search *s, char *path) {
    struct lk__data_source source = {.fd = -1};
    struct lk_source_options silent = *s->options;
    struct lk_err why = {0};
    silent.note = NULL;
    int code = lk__data_source_look(path, NULL, &silent, &source, &why);
    lk__data_source_close(&source);
    if (!code) return add(s->out, path, strlen(s->root) + 1, s->err);
    if (code == LK_EUNSUPPORTED) {
        if (!s->other++) snprintf(s->first, sizeof s->first, "%.500s", why.message);
        code = 0;
    } else {
        lk_fail(s->err, code, "%s", why.message);
    }
    lk_free(path);
    return code;
}

static int walk(struct search *s, const char *dir, int depth) {
    struct dirent *e;
    if (depth > 64) return lk_fail(s->err, LK_EINVAL, "%s: folders are nested too deeply", dir);
    DIR *d = opendir(dir);
    if (!d) return lk_fail_errno(s->err, "cannot read the folder %s", dir);
    int code = 0;
    while (!code && (errno = 0, e = readdir(d))) {
        struct stat own, st;
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        if (e->d_name[0] == '.' && ++s->hidden) continue;
        char *path = lk_asprintf("%s/%s", dir, e->d_name);
        if (!path) {
            code = no_memory(s->err);
        } else if (lstat(path, &own) || stat(path, &st)) {
            code = lk_fail_errno(s->err, "cannot read %s", path);
            lk_free(path);
        } else if (S_ISREG(st.st_mode)) {
            code = add_file(s, path);
        } else {
            if (S_ISDIR(own.st_mode))
                code = walk(s, path, depth + 1);
            else
                s->kinds++; /* links to folders could go round, pipes and devices may never end */
            lk_free(path);
        }
    }
    if (!code && errno) code = lk_fail_errno(s->err, "cannot read the folder %s", dir);
    closedir(d);
    return code;
}

static int by_path(const void *a, const void *b) {
    return strcmp(((const struct lk__data_found *)a)->path, ((const struct lk__data_found *)b)->path);
}

static int add_folder(struct search *s, const char *given) {
    size_t before = s->out->count, size = strlen(given);
    while (size > 1 && given[size - 1] == '/') size--;
    char *root = lk_strndup(given, size);
    if (!root) return no_memory(s->err);
    s->root = root;
    s->hidden = s->other = s->kinds = 0;
    int code = walk(s, root, 0);
    size_t count = s->out->count - before;
    if (!code && !count)
        code = lk_fail(s->err, LK_EINVAL, "%s is a directory without a file to read%s%s", given, s->other ? "; " : "",
                       s->other ? s->first : "");
    if (!code) {
        qsort(s->out->list + before, count, sizeof *s->out->list, by_path);
        lk__data_source_note(s->options, "%s: %zu file%s", given, count, count == 1 ? "" : "s");
        if (s->hidden)
            lk__data_source_note(s->options, "%s: %llu hidden file%s or folder%s left out", given,
                                 (unsigned long long)s->hidden, s->hidden == 1 ? "" : "s", s->hidden == 1 ? "" : "s");
        if (s->kinds)
            lk__data_source_note(s->options, "%s: %llu of its entries left out that are links to folders, pipes or devices",
                                 given, (unsigned long long)s->kinds);
        if (s->other)
            lk__data_source_note(s->options, "%s: %llu file%s left out that %s no text; the first: %s", given,
                                 (unsigned long long)s->other, s->other == 1 ? "" : "s", s->other == 1 ? "is" : "are",
                                 s->first);
    }
    lk_free(root);
    return code;
}

int lk__data_sources_find(const char *const *paths, size_t count, const struct lk_source_options *options,
                          struct lk__data_found_list *out, struct lk_err *err) {
    struct search s = {.options = options, .out = out, .err = err};
    int code = 0, inputs = 0;
    *out = (struct lk__data_found_list){0};
    for (size_t i = 0; !code && i < count; i++) {
        struct stat st;
        bool input = !strcmp(paths[i], "-");
        if (input && inputs++) {
            code = lk_fail(err, LK_EINVAL, "standard input (-) can be a source only once");
        } else if (!input && !stat(paths[i], &st) && S_ISDIR(st.st_mode)) {
            code = add_folder(&s, paths[i]);
        } else { /* an absent file is a file here: whoever opens it says that it is absent */
            const char *slash = strrchr(paths[i], '/');
            code = add(out, lk_strdup(paths[i]), slash && slash[1] ? (size_t)(slash + 1 - paths[i]) : 0, err);
        }
    }
    if (code) lk__data_found_release(out);
    return code;
}

void lk__data_found_release(struct lk__data_found_list *l) {
    for (size_t i = 0; i < l->count; i++) lk_free(l->list[i].path);
    lk_free(l->list);
    *l = (struct lk__data_found_list){0};
}
