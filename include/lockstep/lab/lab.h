/* The lab floor: pictures of runs, and garbage collection of the store. */
#ifndef LOCKSTEP_LAB_H
#define LOCKSTEP_LAB_H
#include "lockstep/train/train.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The loss curve of a run as a self-contained SVG: training loss (raw and smoothed) and evaluations over steps.
 * LK_ENOTFOUND: no such run, or it has no steps yet. LK_ECORRUPT: a damaged row of its ledger. LK_EIO, LK_EBUSY: of
 * lk_kv_begin and lk_kv_scan. LK_ENOMEM. */
int lk_plot_run(struct lk_store *, const char *run, struct lk_buf *out, struct lk_err *);

/* Several runs in one picture: smoothed training loss (one polyline a run) and evaluations, over steps, tokens learned from
 * or seconds of training. In bits a byte where every dataset's bytes are known, so that runs of several tokenizers compare;
 * else in nats a token. A run that has no steps yet is left out: left_out (count; may be NULL) tells which. Errors as
 * lk_plot_run, LK_ENOTFOUND where none has steps; LK_EINVAL: fewer than 1 or more than LK_PLOT_RUNS. */
enum lk_plot_by { LK_PLOT_STEP, LK_PLOT_TOKENS, LK_PLOT_SECONDS };
#define LK_PLOT_RUNS 28
int lk_plot_runs(struct lk_store *, const char *const *runs, size_t count, enum lk_plot_by, bool *left_out,
                 struct lk_buf *out, struct lk_err *);

/* What a run's record does not say. */
struct lk_run_facts {
    uint32_t step, steps; /* step: the ledger's last, which may be ahead of the last checkpoint's */
    double loss;          /* of that step */
    bool has_loss;
    double tokens_per_second;      /* of the last steps, without evaluations and waiting; 0: no step yet */
    size_t evals;                  /* how many evaluations; 0: the next two mean nothing */
    struct lk_eval_row eval, best; /* the last, and the one with the least loss */
    long process;                  /* that trains it on this machine; 0: none */
    char damage[256];              /* the first of its rows that can't be read, and why; "": all can */
};
/* `record` is what lk_run_get or lk_run_list gave. A damaged record (NULL), configuration, ledger or evaluation is no
 * error: out->damage says so, and the rest is filled with what can be read. LK_EIO, LK_EBUSY: of lk_kv_begin and
 * lk_kv_scan. LK_ENOMEM. */
int lk_run_facts_read(struct lk_store *, const char *run, const json_t *record, struct lk_run_facts *out, struct lk_err *);
/* {"step", "steps", "loss", "tokens_per_second", "held_out": {"step", "loss", "bits_per_byte"}, "best", "process",
 * "damage"}; new reference, NULL: no memory. */
json_t *lk_run_facts_json(const struct lk_run_facts *);

/* Two runs beside each other (docs/formats.md, "Comparison of runs"): keys that differ, the first step whose ledger rows
 * differ in their deterministic columns, losses at common steps, results. *out is a new reference. */
int lk_compare_runs(struct lk_store *, const char *a, const char *b, json_t **out, struct lk_err *);

#ifdef __cplusplus
}
#endif
#endif
