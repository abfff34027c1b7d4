/* lockstep verify */
#include "cmd.h"

#include "lockstep/base/random.h"
#include "lockstep/train/train.h"
#include <stdlib.h>
#include <string.h>

struct choice {
    uint32_t from, to;
};
#define SAMPLES_MAX 256
static struct {
    struct choice segment;
    uint32_t sample;
    uint64_t seed;
} wanted;

/* "FROM..TO" */
static int take_segment(const struct cmd_context *c, const struct cmd_option *o, const char *text) {
    struct choice *segment = o->any;
    char *end;
    if (*text < '0' || *text > '9') return cmd_usage_error(c, "--segment %s is not FROM..TO", text);
    unsigned long a = strtoul(text, &end, 10);
    if (end == text || strncmp(end, "..", 2) || end[2] < '0' || end[2] > '9')
        return cmd_usage_error(c, "--segment %s is not FROM..TO", text);
    unsigned long b = strtoul(end + 2, &end, 10);
    if (*end || a >= b || b > UINT32_MAX) return cmd_usage_error(c, "--segment %s is not FROM..TO with FROM < TO", text);
    *segment = (struct choice){(uint32_t)a, (uint32_t)b};
    return CMD_OK;
}

/* On paper, or into all unless that is NULL. */
static int report(json_t *all, const char *run, const struct lk_verify_result *r, struct lk_err *err) {
    if (all &&
        json_array_append_new(all, json_pack("{s:s, s:I, s:I, s:I, s:b, s:b, s:o, s:s}", "run", run, "from",
                                             (json_int_t)r->from, "to", (json_int_t)r->to, "steps", (json_int_t)r->steps,
                                             "equal", r->equal, "roots_compared", r->roots_compared, "first_difference",
                                             r->equal ? json_null() : json_integer(r->first_difference), "what", r->what)))
        return lk_fail(err, LK_ENOMEM, "no memory for the result of steps %u..%u", r->from, r->to);
    if (all) return LK_OK;
    if (r->equal)
        printf("equal: steps %u..%u of %s executed again, %u ledger row%s%s the same to the bit\n", r->from, r->to, run,
               r->steps, r->steps == 1 ? "" : "s", r->roots_compared ? " and the checkpoints' roots" : "");
    else
        printf("DIFFERENT: step %u of %s: %s\n", r->first_difference, run, r->what);
    return LK_OK;
}

/* Segments between neighbouring checkpoints whose beginning can be loaded (or is step 0). */
static size_t segments(const struct lk_checkpoint *list, size_t count, struct choice *out) {
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t from = i ? list[i - 1].step : 0;
        if ((i == 0 || list[i - 1].kept) && list[i].step > from) out[n++] = (struct choice){from, list[i].step};
    }
    return n;
}

struct shown {
    struct lk_progress progress;
    const struct lk_checkpoint *list;
    size_t count;
    struct choice what;
    bool asked;
    const char *run;
};

/* Says what will be executed, and why that, before it begins. */
static void announce(const struct shown *s, uint32_t start) {
    uint32_t newest = s->count ? s->list[s->count - 1].step : 0;
    bool kept = false;
    for (size_t i = 0; i < s->count; i++) kept |= s->list[i].kept && s->list[i].step == start;
    fprintf(stderr, "verify: executes steps %u..%u of %s again", start, s->what.to, s->run);
    if (s->asked && s->what.from != start)
        fprintf(stderr, ": starts at step %u, %s %u", start,
                kept ? "the checkpoint before" : "the run's beginning, as no checkpoint is kept before", s->what.from);
    else if (s->asked)
        fprintf(stderr, ", as asked");
    else if (!wanted.sample && s->what.to == newest)
        fprintf(stderr, ": the segment that ends at the newest checkpoint");
    else if (!wanted.sample)
        fprintf(stderr,
                ": the newest segment whose beginning is kept (checkpoint.keep); the newest checkpoint is that of step %u",
                newest);
    fputc('\n', stderr);
}
static void show(void *arg, uint32_t step, uint32_t from, uint32_t to) {
    struct shown *s = arg;
    if (step == from)
        announce(s, from);
    else
        lk_progress_show(&s->progress, false, "verify: step %u of %u..%u", step, from, to);
}

/* Fills chosen, at most SAMPLES_MAX, and how many; without --sample it is the last segment. */
static int choose(const struct lk_checkpoint *list, size_t count, uint64_t seed, struct choice *chosen, size_t *n,
                  struct lk_err *err) {
    struct choice *all = lk_alloc((count + 1) * sizeof *all);
    if (!all) return lk_fail(err, LK_ENOMEM, "no memory to choose segments of %zu checkpoints", count);
    size_t possible = segments(list, count, all), asked = wanted.sample ? wanted.sample : 1;
    if (asked > possible && possible)
        fprintf(stderr, "verify: %zu segments are asked for, and there %s %zu\n", asked, possible == 1 ? "is" : "are",
                possible);
    for (*n = 0; *n < asked && possible; ++*n) {
        uint32_t w[4];
        lk_random(seed, LK_PURPOSE_VERIFY, (uint32_t)*n, 0, 0, 0, w);
        size_t pick = wanted.sample ? w[0] % possible : possible - 1;
        chosen[*n] = all[pick];
        all[pick] = all[--possible]; /* each at most once */
    }
    lk_free(all);
    return LK_OK;
}

/* The checkpoints of the run that the words name, and which segments are executed again. */
static int plan(struct cmd_context *c, struct lk_checkpoint **list, size_t *count, struct choice *chosen, size_t *n,
                struct lk_err *err) {
    const char *run = c->arguments[0];
    json_t *record;
    uint64_t seed = cmd_given(c, &wanted.seed) ? wanted.seed : (uint64_t)lk_clock_wall_ms();
    int code = lk_run_get(c->store, run, &record, err);
    if (code) return code;
    json_decref(record);
    code = lk_run_checkpoints(c->store, run, list, count, err);
    if (code) return code;
    *n = 1;
    *chosen = wanted.segment;
    if (cmd_given(c, &wanted.segment)) return LK_OK;
    code = choose(*list, *count, seed, chosen, n, err);
    if (!code && !*n)
        code = lk_fail(err, LK_ENOTFOUND,
                       "run %s has no checkpoint yet; give --segment FROM..TO, which begins at step 0 then", run);
    if (!code && wanted.sample) fprintf(stderr, "verify: --seed %llu chooses\n", (unsigned long long)seed);
    return code;
}

static int verify(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_checkpoint *list = NULL;
    size_t count = 0, n = 0;
    const char *run = c->arguments[0];
    struct choice chosen[SAMPLES_MAX];
    bool segment = cmd_given(c, &wanted.segment), equal = true;
    if (segment && wanted.sample) return cmd_usage_error(c, "--segment and --sample exclude each other");
    if (cmd_given(c, &wanted.seed) && !wanted.sample) return cmd_usage_error(c, "--seed goes with --sample");
    int code = cmd_open_math(c);
    if (!code) code = cmd_open_store(c, LK_READ);
    if (code) return code;
    code = plan(c, &list, &count, chosen, &n, &err);
    json_t *results = c->json ? json_array() : NULL;
    if (!code && c->json && !results) code = lk_fail(&err, LK_ENOMEM, "no memory for results");
    for (size_t i = 0; i < n && !code; i++) {
        struct lk_verify_result r;
        struct shown shown = {.list = list, .count = count, .what = chosen[i], .asked = segment, .run = run};
        lk_progress_init(&shown.progress, stderr);
        code = lk_verify(c->store, c->math, run, chosen[i].from, chosen[i].to, show, &shown, &r, &err);
        lk_progress_end(&shown.progress);
        if (!code) code = report(results, run, &r, &err);
        equal = equal && !code && r.equal;
    }
    lk_free(list);
    if (code) json_decref(results);
    if (code) return cmd_fail(&err);
    if (results && cmd_print_json(results)) return CMD_FAILED;
    return equal ? CMD_OK : CMD_FAILED;
}
const struct cmd cmd_verify = {
    "verify",
    "RUN",
    1,
    1,
    "Execute a segment of a run again and compare every row and root.",
    (const struct cmd_option[]){
        CMD_CALL("--segment", "FROM..TO", &wanted.segment, take_segment, NULL,
                 "steps FROM+1 to TO; begins at the checkpoint kept at or before FROM"),
        CMD_U32("--sample", "N", &wanted.sample, 1, SAMPLES_MAX, NULL,
                "N random segments between checkpoints, each at most once"),
        CMD_U64("--seed", "N", &wanted.seed, 0, UINT64_MAX, NULL, "seed of --sample; by default the clock, which is shown"),
        CMD_END},
    "Without options the newest segment between two checkpoints whose beginning is kept: with checkpoint.keep=1 that is "
    "the\n"
    "run's first one, which begins at step 0. Says first what it executes, then equal, or the first step that differs "
    "(exit\n"
    "status 1).",
    verify};
