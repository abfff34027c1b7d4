/* What a run's record does not say: how far its ledger is, how fast it goes, its evaluations, who trains it. */
#include "lockstep/lab/lab.h"

#include <stdio.h>
#include <string.h>

#define RECENT 20 /* steps that tell the speed */

struct reading {
    struct lk_run_facts *f;
    struct lk_ledger_row recent[RECENT];
    size_t count;
};

static int see_row(void *arg, const struct lk_ledger_row *row) {
    struct reading *r = arg;
    r->recent[r->count++ % RECENT] = *row;
    r->f->step = row->step;
    r->f->loss = row->loss;
    r->f->has_loss = row->tokens > 0;
    return 0;
}
static int see_eval(void *arg, const struct lk_eval_row *row) {
    struct lk_run_facts *f = arg;
    f->eval = *row;
    bool none = f->best.loss - f->best.loss != 0; /* NaN: anything is better */
    if (!f->evals++ || none || row->loss < f->best.loss) f->best = *row;
    return 0;
}

static int batch_tokens(const json_t *record, uint64_t *out, struct lk_err *err) {
    struct lk_run_config c;
    int code = lk_run_config_from_json(json_object_get(record, "config"), &c, err);
    *out = code ? 0 : (uint64_t)c.sequences * lk_run_config_context(&c);
    return code;
}

/* What is damaged is noted, the first of it, so that a list still has the run; other errors are the caller's. */
static int note_damage(struct lk_run_facts *f, int code, const struct lk_err *why) {
    if (code != LK_ECORRUPT && code != LK_EINVAL) return code;
    if (*f->damage) return LK_OK;
    snprintf(f->damage, sizeof f->damage, "%.255s", why->message);
    f->damage[lk_utf8_complete(f->damage, strlen(f->damage))] = 0;
    return LK_OK;
}

/* Why there is no record; one that went or was mended meanwhile has nothing to say. */
static int no_record(struct lk_store *store, const char *run, struct lk_err *why) {
    json_t *record = NULL;
    int code = lk_run_get(store, run, &record, why);
    json_decref(record);
    return code == LK_ENOTFOUND ? LK_OK : code;
}

int lk_run_facts_read(struct lk_store *store, const char *run, const json_t *record, struct lk_run_facts *f,
                      struct lk_err *err) {
    struct reading r = {.f = f};
    struct lk_err why = {0};
    const char *state = json_string_value(json_object_get(record, "state"));
    uint64_t tokens = 0;
    memset(f, 0, sizeof *f);
    f->steps = (uint32_t)json_integer_value(json_object_get(record, "steps"));
    uint32_t saved = (uint32_t)json_integer_value(json_object_get(record, "step"));
    if (state && strcmp(state, "running") == 0) f->process = lk_run_process(store, run);
    int code = note_damage(f, record ? batch_tokens(record, &tokens, &why) : no_record(store, run, &why), &why);
    if (!code) /* the ledger's front is not read: a list of long runs stays fast */
        code = note_damage(
            f, lk_ledger_list(store, run, saved > RECENT ? saved - RECENT : 0, UINT32_MAX, see_row, &r, &why), &why);
    if (!code) code = note_damage(f, lk_eval_list(store, run, see_eval, f, &why), &why);
    if (code) return lk_fail(err, code, "%s", why.message);
    double seconds = 0;
    size_t n = r.count < RECENT ? r.count : RECENT;
    for (size_t i = 0; i < n; i++) seconds += r.recent[i].seconds;
    f->tokens_per_second = seconds > 0 ? (double)tokens * (double)n / seconds : 0;
    return LK_OK;
}

/* JSON has no NaN and no infinities. */
static json_t *number(double x) {
    return x - x == 0 ? json_real(x) : json_null();
}
static json_t *eval_json(const struct lk_eval_row *e) {
    return json_pack("{s:I, s:o, s:o}", "step", (json_int_t)e->step, "loss", number(e->loss), "bits_per_byte",
                     e->bytes ? number(lk_bits_per_byte(e)) : json_null());
}
json_t *lk_run_facts_json(const struct lk_run_facts *f) {
    return json_pack("{s:I, s:I, s:o, s:f, s:o, s:o, s:o, s:s?}", "step", (json_int_t)f->step, "steps",
                     (json_int_t)f->steps, "loss", f->has_loss ? number(f->loss) : json_null(), "tokens_per_second",
                     f->tokens_per_second, "held_out", f->evals ? eval_json(&f->eval) : json_null(), "best",
                     f->evals ? eval_json(&f->best) : json_null(), "process",
                     f->process ? json_integer(f->process) : json_null(), "damage", *f->damage ? f->damage : NULL);
}
