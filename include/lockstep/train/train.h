/* The train floor: configuration and identity of runs, the deterministic step, checkpoints, ledger, evaluation,
 * verification. Algorithms and failure cases: src/train/README.md. */
#ifndef LOCKSTEP_TRAIN_H
#define LOCKSTEP_TRAIN_H
#include "lockstep/base/ini.h"
#include "lockstep/cluster/comm.h"
#include "lockstep/data/dataset.h"
#include "lockstep/math/measure.h"
#include "lockstep/model/model.h"
#include "lockstep/model/models.h"
#include "lockstep/store/gc.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LK_NUMERICS "fp32-1"
#define LK_NAME_MAX 128

/* --- Configuration --------------------------------------------------------------------------------------- */
enum lk_schedule { LK_COSINE, LK_LINEAR, LK_CONSTANT, LK_WSD };
enum lk_optimizer_from { LK_OPTIMIZER_FRESH, LK_OPTIMIZER_KEEP };

struct lk_run_config {
    char name[LK_NAME_MAX + 1];
    uint64_t seed;
    uint32_t steps;
    char dataset[LK_NAME_MAX + 1];
    bool cross_documents; /* attention sees earlier documents of its sequence */
    uint32_t family, layers, width, heads, kv_heads, head_dim, ffn, context, vocab;
    bool tied;
    double norm_epsilon, rope_theta, init_std;
    bool qkv_bias, qk_norm;
    uint32_t window, rope_original;
    double rope_factor, rope_low, rope_high;
    char from[LK_NAME_MAX + 32]; /* what lk_model_find takes, or empty: initial weights from the seed */
    uint32_t optimizer_from;     /* enum lk_optimizer_from */
    uint32_t sequences, grains;
    uint32_t batch_context; /* positions in a training sequence; 0: context */
    uint32_t micro_batch;   /* sequences at a time; 0: chosen by the memory plan */
    bool recompute;
    double learning_rate, beta1, beta2, epsilon, weight_decay, clip, min_ratio;
    uint32_t schedule, warmup, decay;
    uint32_t cooldown; /* of LK_WSD: the last steps before decay; 0: not resolved, or another schedule */
    uint32_t eval_every, eval_sequences;
    uint32_t checkpoint_every, checkpoint_keep;
    bool checkpoint_best;
    uint32_t sample_every;
    char prompt[512];
    char parent[LK_NAME_MAX + 1]; /* no key: the run that it goes on from, for its record; set here and by a trainer */
    uint32_t parent_step;
};
enum { LK_O_IDENTITY = 1, LK_O_LATER = 2 };
enum lk_option_type { LK_O_U32, LK_O_U64, LK_O_F64, LK_O_BOOL, LK_O_ENUM, LK_O_NAME, LK_O_TEXT };
/* One INI key. `fallback` is its default as text ("" = derived from other keys, as `help` says). */
struct lk_option {
    const char *section, *key;
    enum lk_option_type type;
    size_t offset, size; /* of the field in struct lk_run_config */
    const char *fallback;
    double low, high;
    const char *words; /* enum: names separated by '|' in the order of values */
    /* LK_O_IDENTITY: part of what decides the bits. LK_O_LATER: not in the first release, so it counts only where it
     * differs from `fallback`, and a record without it means that. */
    unsigned flags;
    const char *help;
};
const struct lk_option *lk_run_options(size_t *count);

/* Unknown or impossible keys: LK_EINVAL that names file, line and the nearest right key. `ini` may be from any file. */
int lk_run_config_read(const struct lk_ini *, struct lk_run_config *out, struct lk_err *);
/* Fills what depends on the tokenizer's vocabulary and on other keys, and checks the whole. */
int lk_run_config_resolve(struct lk_run_config *, uint32_t tokenizer_vocab, struct lk_err *);
/* That of a child of run `from`, "RUN", "RUN@STEP" or "RUN@best": the parent's record with `keys` changed. It begins with
 * that checkpoint's weights and, unless model.optimizer=fresh, moments and order of samples; at "RUN@0" as the parent
 * began. Keys that the parent had by default follow those that change. Without run.name it is called RUN-2, RUN-3, ... To
 * be resolved. changed (may be NULL): whether a key but the name differs from the parent's. LK_ENOTFOUND: no such run.
 * LK_EINVAL: as lk_run_config_read, or a key of [model] beside a checkpoint's weights.
 */
int lk_run_config_child(struct lk_store *, const char *from, const struct lk_ini *keys, struct lk_run_config *out,
                        bool *changed, struct lk_err *);
struct lk_model_config lk_run_config_model(const struct lk_run_config *);
/* The other way: [model] as this configuration has it. */
void lk_run_config_set_model(struct lk_run_config *, const struct lk_model_config *);
/* Positions in a training sequence. */
static inline uint32_t lk_run_config_context(const struct lk_run_config *c) {
    return c->batch_context ? c->batch_context : c->context;
}
/* {"run": {...}, "model": {...}, ...}: every key, floats as exact hexadecimal strings; new reference, NULL: no memory. */
json_t *lk_run_config_json(const struct lk_run_config *);
int lk_run_config_from_json(const json_t *, struct lk_run_config *out, struct lk_err *);
/* SHA-256 of the canonical JSON of what decides the bits (docs/formats.md, "Identity"). initial: the root of the weights or
 * the state that the run begins with; NULL: the seed says. */
int lk_run_identity(const struct lk_run_config *, const struct lk_root *dataset, const struct lk_root *initial,
                    struct lk_root *out, struct lk_err *);

double lk_learning_rate(const struct lk_run_config *, uint32_t step);

/* --- State ----------------------------------------------------------------------------------------------- */
struct lk__train_shards;
struct lk_state {
    const struct lk_layout *layout;
    float *weights, *moments1, *moments2; /* layout->floats each; padding is zero */
    uint64_t updates, samples;            /* of these moments: those before the run that it goes on from count */
    uint64_t samples_before;              /* samples at the run's step 0 */
    /* In training: moments hold this rank's slices only; weights are the engine's, and may be all ranks' together. */
    const struct lk__train_shards *shards;
    bool weights_shared;
};
int lk_state_init(struct lk_state *, const struct lk_layout *, bool moments, struct lk_err *);
void lk_state_release(struct lk_state *);
/* Tensors in canonical order, float32 little-endian, without padding or header. */
int lk_array_root(const struct lk_layout *, const float *array, struct lk_root *out, struct lk_err *);

struct lk_checkpoint {
    uint32_t step;
    struct lk_root state, weights;
    bool kept; /* its blobs are in the store */
};
/* Loads and verifies; weights only when state->moments1 is NULL. Damage: LK_ECORRUPT that names the file. */
int lk_checkpoint_load(struct lk_store *, const struct lk_root *state_root, struct lk_state *, struct lk_err *);

/* --- Memory plan ----------------------------------------------------------------------------------------- */
struct lk_plan {
    uint32_t micro_batch, units, gradient_buffers;
    uint64_t weights_bytes, moments_bytes, gradients_bytes, activations_bytes, embedding_bytes, batch_bytes, scratch_bytes,
        process_bytes;
    uint64_t total_bytes, available_bytes;
};
/* Of one rank (comm: NULL: alone). Chooses micro_batch where it is 0 (config->micro_batch stays), refuses what does not fit
 * with the numbers and the keys to change. */
int lk_plan_make(const struct lk_run_config *, const struct lk_layout *, struct lk_math *, const struct lk_comm *,
                 struct lk_plan *out, struct lk_err *);

/* --- Ledger ---------------------------------------------------------------------------------------------- */
struct lk_ledger_row {
    uint32_t step; /* 1 = after the first update */
    double loss, gradient_norm, learning_rate;
    uint64_t tokens; /* unmasked targets of this step; 0: nothing to learn, so no update; loss and norm are +0 then */
    double seconds;
};
typedef int lk_ledger_fn(void *arg, const struct lk_ledger_row *);
int lk_ledger_list(struct lk_store *, const char *run, uint32_t from, uint32_t to, lk_ledger_fn *fn, void *arg,
                   struct lk_err *);
struct lk_eval_row {
    uint32_t step;
    double loss; /* nats a token */
    uint64_t targets, bytes;
};
typedef int lk_eval_fn(void *arg, const struct lk_eval_row *);
int lk_eval_list(struct lk_store *, const char *run, lk_eval_fn *fn, void *arg, struct lk_err *);
double lk_bits_per_byte(const struct lk_eval_row *);

/* --- Rows ------------------------------------------------------------------------------------------------ */
lk_row_kinds lk_train_rows(void); /* of runs: for lk_store_gc */

/* --- Runs ------------------------------------------------------------------------------------------------ */
/* A run's record (JSON, docs/formats.md). State "running" of a dead process is given as "killed". New reference. A record
 * that is not JSON: LK_ECORRUPT. */
int lk_run_get(struct lk_store *, const char *name, json_t **out, struct lk_err *);
/* The number of the process that trains it, on the machine that has its lock; 0: none does, or it can't be told. */
long lk_run_process(struct lk_store *, const char *name);
/* record is borrowed; NULL: it is not JSON, and lk_run_get says why. */
typedef int lk_run_fn(void *arg, const char *name, json_t *record);
int lk_run_list(struct lk_store *, lk_run_fn *fn, void *arg, struct lk_err *);
/* Removes record, ledger, evaluations and checkpoints' rows; blobs go with the next gc. A living run: LK_EBUSY. A
 * record that is not JSON goes too. */
int lk_run_remove(struct lk_store *, const char *name, struct lk_err *);
/* All checkpoints of a run, ascending; *out with lk_free. */
int lk_run_checkpoints(struct lk_store *, const char *name, struct lk_checkpoint **out, size_t *count, struct lk_err *);
/* What every reader of a run needs. Released by lk_run_close. */
/* Of the kept checkpoints, the one whose step's evaluation has the least held-out loss, the earliest among equals.
 * LK_ENOTFOUND: none of them was evaluated. */
int lk_run_best(struct lk_store *, const char *name, struct lk_checkpoint *out, struct lk_err *);
struct lk_run {
    char name[LK_NAME_MAX + 1];
    struct lk_run_config config;
    struct lk_root identity, dataset, tokenizer;
    struct lk_layout layout;
    /* What it began with. LK_FROM_STATE: weights, moments and counts of `initial_state`. */
    enum lk_run_from { LK_FROM_SEED, LK_FROM_WEIGHTS, LK_FROM_STATE } from;
    struct lk_root initial_model, initial_weights, initial_state;
    uint64_t updates_before, samples_before; /* of `initial_state` */
};
int lk_run_open(struct lk_store *, const char *name, struct lk_run *out, struct lk_err *);
void lk_run_close(struct lk_run *);

/* --- Models: named ones, and checkpoints of runs ---------------------------------------------------------------------
 * What `text` names: "MODEL", "RUN" (its newest checkpoint that is whole), "RUN@STEP" or "RUN@best" (lk_run_best);
 * "RUN@0": what a run began with that did not begin from its seed; "model:NAME" and "run:NAME" where both have the name. */
struct lk_model_ref {
    char name[LK_NAME_MAX + 1];
    bool is_run;
    uint32_t step;        /* of the checkpoint, when it is a run */
    struct lk_root state; /* its state root, when it is a run; zeros: of RUN@0 without an optimizer's state */
};
/* Finds and opens it. A run's damaged checkpoint is reported to `warning` (may be NULL) and the one before is taken, unless
 * STEP was given. LK_ENOTFOUND: neither a model nor a run, or no checkpoint of that step is kept (it says which are). */
int lk_model_find(struct lk_store *, const char *text, bool weights, void (*warning)(void *arg, const char *message),
                  void *arg, struct lk_model_ref *ref, struct lk_model *out, struct lk_err *);

/* --- Training -------------------------------------------------------------------------------------------- */
struct lk_trainer;
struct lk_train_hooks {
    void *arg;
    void (*plan)(void *arg, const struct lk_run_config *, const struct lk_layout *, const struct lk_plan *);
    void (*resumed)(void *arg, uint32_t step);
    void (*step)(void *arg, const struct lk_ledger_row *, uint32_t steps);
    void (*evaluated)(void *arg, const struct lk_eval_row *);
    void (*sample)(void *arg, struct lk_trainer *, uint32_t step);
    void (*warning)(void *arg, const char *message);
    bool (*stop)(void *arg); /* asked before every step; true: save and leave with LK_ESTOPPED */
    struct lk_peaks peaks;   /* of all ranks together: kept beside the profile, when the math measures one */
};
/* Creates the run (its name must be free) or opens an existing one, takes its lock (held by a living process: LK_EBUSY),
 * makes the plan, loads the newest good checkpoint. The store, the math and the comm (NULL: this process alone) are
 * borrowed. With several ranks, rank 0 calls one of these, and all others lk_trainer_join with a store that may be
 * lk_store_open_blobs's; every function of a trainer is then called by all of them, and returns the same code on all. Hooks
 * are called on rank 0 only, but `stop`, which is asked on all: any of them stops all. */
int lk_trainer_create(struct lk_store *, struct lk_math *, struct lk_comm *, const struct lk_run_config *,
                      const struct lk_train_hooks *, struct lk_trainer **out, struct lk_err *);
int lk_trainer_resume(struct lk_store *, struct lk_math *, struct lk_comm *, const char *run, const struct lk_train_hooks *,
                      struct lk_trainer **out, struct lk_err *);
int lk_trainer_join(struct lk_store *, struct lk_math *, struct lk_comm *, const struct lk_train_hooks *,
                    struct lk_trainer **out, struct lk_err *);
/* Trains to the end: LK_OK, LK_ESTOPPED (state saved), or an error (state "failed", the last good state saved). */
int lk_trainer_run(struct lk_trainer *, struct lk_err *);
void lk_trainer_free(struct lk_trainer *);
const struct lk_run *lk_trainer_about(const struct lk_trainer *);
const struct lk_state *lk_trainer_state(const struct lk_trainer *);
/* Seconds of one step, measured on two steps whose results are thrown away (dry run), or where they would take long on two
 * shorter ones; nothing is stored. The plan is this
 * rank's. config: NULL on other ranks than 0. Of the hooks (NULL: none) only `warning` is called. */
int lk_train_dry_run(struct lk_store *, struct lk_math *, struct lk_comm *, const struct lk_run_config *,
                     const struct lk_train_hooks *, struct lk_plan *plan, double *seconds_a_step, struct lk_err *);

/* --- Evaluation and verification ------------------------------------------------------------------------- */
/* The held-out split in order, at most `sequences` sequences (0: all). likeliest (NULL: not wanted): for each target, in
 * order, the id of the greatest logit before it (uint32_t; the lowest of equals) is appended. cache: LK_F32, or LK_Q8 for
 * what keys and values in 8 bits make of it. */
int lk_evaluate(struct lk_math *, const struct lk_layout *, const float *weights, const struct lk_dataset *,
                uint32_t context, bool cross_documents, uint32_t sequences, enum lk_dtype cache, struct lk_eval_row *out,
                struct lk_buf *likeliest, struct lk_err *);

struct lk_verify_result {
    uint32_t from, to; /* the segment */
    uint32_t steps;    /* executed again and equal */
    bool equal, roots_compared;
    uint32_t first_difference; /* step, when not equal */
    char what[256];            /* what differed */
};
/* Executes steps from+1 .. to again from the newest kept checkpoint at or before `from` (0: from the seed) and compares
 * every ledger row and every checkpoint's roots on the way. progress (NULL: none) is told the step that it begins at, once
 * there is such a segment and it is loaded, then each step. */
int lk_verify(struct lk_store *, struct lk_math *, const char *run, uint32_t from, uint32_t to,
              void (*progress)(void *arg, uint32_t step, uint32_t from, uint32_t to), void *arg,
              struct lk_verify_result *out, struct lk_err *);

#ifdef __cplusplus
}
#endif
#endif
