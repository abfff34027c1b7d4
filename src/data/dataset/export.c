/* A dataset's tokens in the files of llm.c, Megatron-LM and numpy, streamed from the mapped parts. */
#include "data/dataset/export_files.h"
#include "data/dataset/internal.h"
#include <stdio.h>
#include <string.h>

#define LLMC_HEADER   256 /* numbers of 4 bytes */
#define LLMC_SHARD    ((uint64_t)100000000)
#define NPY_ALIGN     64
#define PROGRESS_EACH ((uint64_t)1 << 20) /* tokens */

struct exporter {
    const struct lk_dataset *d;
    const struct lk__dataset_split *s;
    const struct lk_dataset_export_options *options;
    struct lk__dataset_files *files;
    const char *name;  /* of the dataset */
    const char *split; /* "train" or "val" */
    uint64_t done, total;
    struct lk_err *err;
};

static int begin(struct exporter *e, const char *ending) {
    char file[512];
    snprintf(file, sizeof file, "%s_%s%s", e->name, e->split, ending);
    return lk__dataset_files_begin(e->files, file, e->err);
}
static int put(struct exporter *e, uint64_t value, int bytes) {
    return lk__dataset_files_write_le(e->files, value, bytes, e->err);
}

/* Tokens [from, to) of the stream, each in `bytes` bytes (2 or 4, not less than the dataset's own). */
static int put_tokens(struct exporter *e, uint64_t from, uint64_t to, int bytes) {
    uint32_t own = e->d->token_bytes;
    int code = 0;
    for (uint64_t at = from; at < to && !code;) {
        uint64_t stop = to - at < PROGRESS_EACH ? to : at + PROGRESS_EACH;
        if ((uint32_t)bytes == own)
            code = lk__dataset_files_write(e->files, e->s->parts[LK__TOKENS].data + at * own, (stop - at) * own, e->err);
        for (uint64_t i = at; (uint32_t)bytes != own && i < stop && !code; i++)
            code = put(e, lk__dataset_token_at(e->d, e->s, i), bytes);
        e->done += stop - at;
        at = stop;
        if (!code && e->options->progress && e->options->progress(e->options->arg, e->done, e->total))
            code = lk_fail(e->err, LK_ESTOPPED, "stopped; nothing was written");
    }
    return code;
}

/* --- llm.c: the end token before each document; the last one, behind the last document, is left out -------- */

static int llmc(struct exporter *e) {
    uint64_t shard = e->options->shard_tokens ? e->options->shard_tokens : LLMC_SHARD, last = e->s->tokens - 1;
    bool wide = e->d->token_bytes == 4;
    int code = 0;
    for (uint64_t at = 0, number = 0; at < last && !code; at += shard, number++) {
        uint64_t count = last - at < shard ? last - at : shard;
        char ending[32];
        snprintf(ending, sizeof ending, "_%06llu.bin", (unsigned long long)number);
        code = begin(e, ending);
        if (!code) code = put(e, wide ? 20240801 : 20240520, 4);
        if (!code) code = put(e, wide ? 7 : 1, 4);
        if (!code) code = put(e, count, 4);
        for (int i = 3; i < LLMC_HEADER && !code; i++) code = put(e, 0, 4);
        if (!code) code = put_tokens(e, at, at + count, wide ? 4 : 2);
    }
    return code;
}

/* --- Megatron-LM: each document's tokens and its end token are a sequence ---------------------------------- */

/* Tokens of document i with its end token. */
static uint64_t length(const struct exporter *e, uint64_t i) {
    return lk__dataset_end_of(e->s, i) - (i ? lk__dataset_end_of(e->s, i - 1) : 0);
}

static int megatron_index(struct exporter *e, int bytes) {
    uint64_t n = e->s->documents, pointer = 0;
    int code = lk__dataset_files_write(e->files, "MMIDIDX\0", 9, e->err);
    if (!code) code = put(e, 1, 8);                  /* version */
    if (!code) code = put(e, bytes == 2 ? 8 : 4, 1); /* uint16 or int32 */
    if (!code) code = put(e, n, 8);                  /* sequences */
    if (!code) code = put(e, n + 1, 8);              /* entries of the document index */
    for (uint64_t i = 0; i < n && !code; i++) {
        if (length(e, i) > INT32_MAX)
            return lk_fail(e->err, LK_EUNSUPPORTED, "document %llu has %llu tokens; Megatron's index counts at most %d",
                           (unsigned long long)i, (unsigned long long)length(e, i), INT32_MAX);
        code = put(e, length(e, i), 4);
    }
    for (uint64_t i = 0; i < n && !code; i++) {
        code = put(e, pointer, 8);
        pointer += length(e, i) * (uint64_t)bytes;
    }
    for (uint64_t i = 0; i <= n && !code; i++) code = put(e, i, 8);
    return code;
}

static int megatron(struct exporter *e) {
    int bytes = e->d->vocab < 65500 ? 2 : 4; /* Megatron's own rule */
    int code = begin(e, ".bin");
    if (!code) code = put_tokens(e, 1, e->s->tokens, bytes);
    if (!code) code = begin(e, ".idx"); /* its name is that of the tokens it points into */
    return code ? code : megatron_index(e, bytes);
}

/* --- numpy: the whole stream, where documents end in it, which tokens count -------------------------------- */

static int npy_head(struct exporter *e, const char *ending, const char *type, uint64_t count) {
    char head[256];
    int code = begin(e, ending);
    int n = snprintf(head, sizeof head, "{'descr': '%s', 'fortran_order': False, 'shape': (%llu,), }", type,
                     (unsigned long long)count);
    int size = (10 + n + 1 + NPY_ALIGN - 1) / NPY_ALIGN * NPY_ALIGN - 10; /* magic, version and size are 10 bytes */
    memset(head + n, ' ', (size_t)(size - n));
    head[size - 1] = '\n';
    if (!code) code = lk__dataset_files_write(e->files, "\x93NUMPY\x01\x00", 8, e->err);
    if (!code) code = put(e, (uint64_t)size, 2);
    return code ? code : lk__dataset_files_write(e->files, head, (size_t)size, e->err);
}

static int npy(struct exporter *e) {
    const struct lk__dataset_split *s = e->s;
    int code = npy_head(e, ".npy", e->d->token_bytes == 2 ? "<u2" : "<u4", s->tokens);
    if (!code) code = put_tokens(e, 0, s->tokens, (int)e->d->token_bytes);
    if (!code) code = npy_head(e, "_ends.npy", "<u8", s->documents);
    if (!code) code = lk__dataset_files_write(e->files, s->parts[LK__ENDS].data, 8 * s->documents, e->err);
    if (code || !s->parts[LK__MASK].data) return code;
    code = npy_head(e, "_loss_mask.npy", "|b1", s->tokens);
    for (uint64_t i = 0; i < s->tokens && !code; i++) code = put(e, !lk__dataset_is_masked(s, i), 1);
    return code;
}

/* --- all --------------------------------------------------------------------------------------------------- */

static int export_split(struct exporter *e) {
    if (e->options->format == LK_DATASET_NPY) return npy(e);
    if (e->s->parts[LK__MASK].data && !e->options->without_masks)
        return lk_fail(e->err, LK_EUNSUPPORTED,
                       "the %s split has loss masks (prompts), which this format cannot hold: choose npy, or leave the "
                       "masks out (--without-masks), so that prompts are learned like responses",
                       e->split);
    return e->options->format == LK_DATASET_LLMC ? llmc(e) : megatron(e);
}

int lk_dataset_export(const struct lk_dataset *d, const char *dir, const char *name,
                      const struct lk_dataset_export_options *options, struct lk_err *err) {
    static const char *const names[] = {"train", "val"};
    struct exporter e = {.d = d, .options = options, .name = name, .err = err};
    bool all = !options->splits[0] && !options->splits[1], any = false;
    if (!lk_name_valid(name)) return lk_fail(err, LK_EINVAL, "%s is no name for files", name);
    if (options->shard_tokens > INT32_MAX)
        return lk_fail(err, LK_EINVAL, "llm.c counts at most %d tokens a file", INT32_MAX);
    for (int i = 0; i < 2; i++) {
        if (!(all || options->splits[i])) continue;
        e.total += d->splits[i].tokens;
        any = any || d->splits[i].documents;
        if (!all && !d->splits[i].documents)
            return lk_fail(err, LK_EINVAL, "the %s split holds no document", lk__dataset_split_names[i]);
    }
    if (!any) return lk_fail(err, LK_EINVAL, "the dataset holds no document");
    int code = lk__dataset_files_open(dir, &e.files, err);
    for (int i = 0; i < 2 && !code; i++) {
        if (!(all || options->splits[i]) || !d->splits[i].documents) continue;
        e.s = &d->splits[i];
        e.split = names[i];
        code = export_split(&e);
    }
    if (!code) code = lk__dataset_files_name(e.files, options->file, options->arg, err);
    lk__dataset_files_close(e.files);
    return code;
}
