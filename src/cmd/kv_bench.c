/* lockstep kv bench: how fast a store's rows are, as db_bench asks. */
#include "kv.h"
#include "kv_work.h"

#include "lockstep/base/file.h"
#include <unistd.h>

#define ROUNDS 15

static struct { uint32_t entries, value, batch, reads, commits, writers, rounds; } bench;

enum { FILL_SEQ, READ_SEQ, READ_RANDOM, SEEK_RANDOM, COMMIT, COMMIT_MANY, OPEN, FILL_SYNC, FILL_RANDOM, WORKS };
static const struct {
    const char *name, *what;
    uint32_t values; /* that an operation moves; 0: none to speak of */
} works[WORKS] = {
    {"fillseq", "rows in order, a batch in a commit", 1},
    {"readseq", "all rows in order", 1},
    {"readrandom", "gets at random", 1},
    {"seekrandom", "seeks at random, 10 rows read", WORK_SEEK},
    {"commit", "synced commits of one row, 1 thread", 1},
    {"commits", "synced commits of one row", 1},
    {"open", "open, get, close", 0},
    {"fillsync", "as fillseq, each commit synced", 1},
    {"fillrandom", "rows in random order, a batch in a commit", 1},
};

/* Where the rows go: a folder of its own beside a store in a folder, else below a prefix. */
struct place {
    char *url, *folder;
    char prefix[WORK_PREFIX - 4];
};
static int find_place(const struct cmd_context *c, struct place *p, struct lk_err *err) {
    const char *dir = strncmp(c->store_url, "file:", 5) == 0 ? c->store_url + 5 : c->store_url;
    bool memory = strncmp(c->store_url, "memory:", 7) == 0, server = strstr(c->store_url, "://") != NULL;
    if (memory || server) {
        p->url = lk_strdup(memory ? "memory:bench" : c->store_url);
        snprintf(p->prefix, sizeof p->prefix, "bench/%ld/", (long)getpid());
        return p->url ? 0 : lk_fail(err, LK_ENOMEM, "out of memory");
    }
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/') n--;
    p->folder = lk_asprintf("%.*s.bench-XXXXXX", (int)n, dir);
    if (!p->folder) return lk_fail(err, LK_ENOMEM, "out of memory");
    if (!mkdtemp(p->folder)) {
        int code = lk_fail_errno(err, "cannot make the folder %s", p->folder);
        lk_free(p->folder);
        p->folder = NULL;
        return code;
    }
    p->url = lk_asprintf("file:%s", p->folder);
    return p->url ? 0 : lk_fail(err, LK_ENOMEM, "out of memory");
}
static int remove_rows(struct lk_kv_txn *t, void *arg, struct lk_err *err) {
    const struct place *p = arg;
    unsigned char end[WORK_PREFIX];
    size_t size, n = strlen(p->prefix);
    lk_kv_prefix_end(lk_bytes(p->prefix, n), end, &size);
    return lk_kv_delete_range(t, lk_bytes(p->prefix, n), lk_bytes(end, size), err);
}
static void use(const struct place *p, const char *which) {
    snprintf(work.prefix, sizeof work.prefix, "%s%s", p->prefix, which);
}
static double one_work(int w, const struct place *p, struct lk_kv *kv) {
    const struct work_engine *e = &work_ours;
    use(p, w == FILL_SYNC ? "b/" : w == FILL_RANDOM ? "c/" : "a/");
    switch (w) {
    case READ_SEQ:
        return work_read_all(e, kv);
    case READ_RANDOM:
        return work_read_some(e, kv, false);
    case SEEK_RANDOM:
        return work_read_some(e, kv, true);
    case COMMIT:
        return work_commit(e, kv, 1, bench.commits);
    case COMMIT_MANY:
        return work_commit(e, kv, (int)bench.writers, bench.commits);
    case OPEN:
        return work_open(e, p->url);
    default:
        return work_fill(e, kv, work.entries, w != FILL_RANDOM, w == FILL_SYNC);
    }
}

/* Each round begins with nothing: in an empty folder, or below a prefix where all is deleted. */
static int all_works(const struct place *p, struct lk_kv *kv, struct lk_progress *progress, int round,
                     double us[WORKS][ROUNDS], struct lk_err *err) {
    for (int w = 0; w < WORKS; w++) {
        lk_progress_show(progress, false, "round %d of %u: %s", round + 1, bench.rounds, works[w].name);
        us[w][round] = one_work(w, p, kv);
        if (us[w][round] < 0 && work_err.code)
            return lk_fail(err, work_err.code, "%s: %s", works[w].name, work_err.message);
        if (us[w][round] < 0)
            return lk_fail(err, LK_ECORRUPT, "%s: the store does not give back what was written", works[w].name);
        if (cmd_interrupted()) return lk_fail(err, LK_ESTOPPED, "stopped; what was written is removed");
    }
    return 0;
}
static int one_round(const struct place *p, struct lk_progress *progress, int round, double us[WORKS][ROUNDS],
                     struct lk_kv_stats *stats, struct lk_err *err) {
    struct lk_kv *kv;
    struct lk_err why = {0};
    int code = lk_kv_open(p->url, LK_CREATE, &kv, err);
    if (code) return code;
    code = all_works(p, kv, progress, round, us, err);
    if (!code) code = lk_kv_stats(kv, stats, err);
    int removed = *p->prefix ? lk_kv_update(kv, remove_rows, (void *)(uintptr_t)p, LK_LAZY, NULL, &why) : 0;
    lk_kv_close(kv);
    if (p->folder) removed = lk_dir_remove(p->folder, &why);
    return code || !removed ? code : lk_fail(err, removed, "%s", why.message);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static double median(double *x) {
    qsort(x, bench.rounds, sizeof *x, by_value);
    return x[bench.rounds / 2];
}
/* Keys without the prefix, and values; a seek is followed by values. */
static double mb_per_s(int w, double us) {
    uint64_t bytes = (uint64_t)works[w].values * work.value + (works[w].values ? WORK_DIGITS : 0);
    return (double)bytes / us;
}
static void print_text(const struct lk_kv_stats *s, const char *at, const char *cpu, double us[WORKS][ROUNDS]) {
    printf("engine   %s, %s\ncpu      %s\nrows     %u of %d + %u bytes, %u in a commit; median of %u\n\n", s->engine, at,
           cpu, work.entries, WORK_DIGITS, work.value, work.batch, bench.rounds);
    printf("%-12s %10s %10s\n", "", "us/op", "MB/s");
    for (int w = 0; w < WORKS; w++) {
        double m = median(us[w]);
        char rate[32] = "";
        if (works[w].values) snprintf(rate, sizeof rate, "%.1f", mb_per_s(w, m));
        printf("%-12s %10.3f %10s  %s", works[w].name, m, rate, works[w].what);
        if (w == COMMIT_MANY) printf(", %u threads", bench.writers);
        putchar('\n');
    }
}
static int print_json(const struct lk_kv_stats *s, const char *at, const char *cpu, double us[WORKS][ROUNDS]) {
    json_t *list = json_array();
    for (int w = 0; w < WORKS; w++) {
        double m = median(us[w]);
        json_t *rate = works[w].values ? json_real(mb_per_s(w, m)) : json_null();
        json_array_append_new(list, json_pack("{s:s, s:f, s:o, s:i}", "work", works[w].name, "us_per_op", m, "mb_per_s",
                                              rate, "threads", w == COMMIT_MANY ? (int)bench.writers : 1));
    }
    return cmd_print_json(json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "engine", s->engine, "at", at,
                                    "cpu", cpu, "entries", (json_int_t)work.entries, "key_bytes", (json_int_t)WORK_DIGITS,
                                    "value_bytes", (json_int_t)work.value, "batch", (json_int_t)work.batch, "reads",
                                    (json_int_t)work.reads, "rounds", (json_int_t)bench.rounds, "works", list));
}

static int kv_bench(struct cmd_context *c) {
    static double us[WORKS][ROUNDS];
    struct lk_err err = {0};
    struct lk_kv_stats stats = {0};
    struct lk_progress progress;
    struct place p = {0};
    char cpu[200];
    work.entries = bench.entries, work.value = bench.value, work.batch = bench.batch, work.reads = bench.reads;
    work_begin();
    cmd_catch_signals();
    lk_progress_init(&progress, stderr);
    int code = find_place(c, &p, &err);
    for (uint32_t i = 0; i < bench.rounds && !code; i++) code = one_round(&p, &progress, (int)i, us, &stats, &err);
    lk_progress_end(&progress);
    if (p.folder) lk_dir_remove(p.folder, NULL);
    char *shown = p.url ? lk_kv_shown(p.url) : NULL;
    cmd_cpu_name(cpu, sizeof cpu);
    if (code)
        code = cmd_fail(&err);
    else if (c->json)
        code = print_json(&stats, shown ? shown : "", cpu, us);
    else
        print_text(&stats, shown ? shown : "", cpu, us);
    lk_free(shown);
    lk_free(p.url);
    lk_free(p.folder);
    return code;
}
const struct cmd cmd_kv_bench = {
    "kv bench",
    "",
    0,
    0,
    "Measure how fast rows are where the store is: work of db_bench, medians.",
    (const struct cmd_option[]){
        CMD_U32("--entries", "N", &bench.entries, 1, 1000000000, "100000", "rows that are written and read in order"),
        CMD_U32("--value-bytes", "N", &bench.value, 1, WORK_VALUE, "100", "bytes of a value; keys have 16"),
        CMD_U32("--batch", "N", &bench.batch, 1, WORK_BATCH, "1000", "rows of a commit"),
        CMD_U32("--reads", "N", &bench.reads, 1, 1000000000, "20000", "gets and seeks at random"),
        CMD_U32("--commits", "N", &bench.commits, 1, 1000000, "300", "synced commits of each thread"),
        CMD_U32("--writers", "N", &bench.writers, 1, WORK_THREADS, "16", "threads that commit at once"),
        CMD_U32("--rounds", "N", &bench.rounds, 1, ROUNDS, "3", "of which each figure is the median"), CMD_END},
    "--store DIR: in a new folder beside it, on the same disk, which is removed. postgresql://...: below keys "
    "bench/PROCESS/ "
    "in that schema, which are deleted (tables that were not there stay, empty). memory:: in this process.\n"
    "The store's own rows are neither read nor changed. After a kill the folder DIR.bench-..., or rows that "
    "`lockstep kv del --prefix bench/` deletes, are left.",
    kv_bench,
};
