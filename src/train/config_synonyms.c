/* Keys that nobody knows here: what other tools call ours, the right key under another section, and the nearest. */
#include "config.h"

#include <stdio.h>
#include <string.h>

/* Names of nanoGPT, llm.c, Hugging Face's configurations and trainer, PyTorch and Megatron-LM, in lower case with "_".
 * ours: the key here; NULL: there is none, and `note` says why. Otherwise a note says what else differs. */
static const struct {
    const char *theirs, *ours, *note;
} synonyms[] = {
    {"lr", "optimizer.learning_rate", NULL},
    {"max_lr", "optimizer.learning_rate", NULL},
    {"peak_lr", "optimizer.learning_rate", NULL},
    {"min_lr", "optimizer.min_ratio", "it is a share of the peak, not a rate"},
    {"min_learning_rate", "optimizer.min_ratio", "it is a share of the peak, not a rate"},
    {"final_lr_fraction", "optimizer.min_ratio", NULL},
    {"min_lr_ratio", "optimizer.min_ratio", NULL},
    {"wd", "optimizer.weight_decay", NULL},
    {"adam_beta1", "optimizer.beta1", NULL},
    {"adam_beta2", "optimizer.beta2", NULL},
    {"betas", "optimizer.beta1", "the second one is optimizer.beta2"},
    {"eps", "optimizer.epsilon", "that of the norms is model.norm_epsilon"},
    {"adam_epsilon", "optimizer.epsilon", NULL},
    {"adam_eps", "optimizer.epsilon", NULL},
    {"grad_clip", "optimizer.clip", NULL},
    {"max_grad_norm", "optimizer.clip", NULL},
    {"clip_grad", "optimizer.clip", NULL},
    {"gradient_clip", "optimizer.clip", NULL},
    {"lr_scheduler", "optimizer.schedule", NULL},
    {"lr_scheduler_type", "optimizer.schedule", NULL},
    {"lr_schedule", "optimizer.schedule", NULL},
    {"scheduler", "optimizer.schedule", NULL},
    {"lr_decay_style", "optimizer.schedule", NULL},
    {"warmup_steps", "optimizer.warmup", NULL},
    {"warmup_iters", "optimizer.warmup", NULL},
    {"num_warmup_steps", "optimizer.warmup", NULL},
    {"warmup_ratio", "optimizer.warmup", "it is a number of steps"},
    {"lr_decay_iters", "optimizer.decay", NULL},
    {"lr_decay_steps", "optimizer.decay", NULL},
    {"decay_steps", "optimizer.decay", NULL},
    {"num_decay_steps", "optimizer.cooldown", NULL},
    {"lr_wsd_decay_iters", "optimizer.cooldown", NULL},
    {"cooldown_steps", "optimizer.cooldown", NULL},
    {"cooldown_iters", "optimizer.cooldown", NULL},
    {"warmdown_iters", "optimizer.cooldown", NULL},
    {"cooldown_ratio", "optimizer.cooldown", "it is a number of steps"},
    {"cooldown_frac", "optimizer.cooldown", "it is a number of steps"},
    {"warmdown_ratio", "optimizer.cooldown", "it is a number of steps"},
    {"num_stable_steps", NULL,
     "with schedule = wsd it is what optimizer.warmup and optimizer.cooldown leave of optimizer.decay"},
    {"max_steps", "run.steps", NULL},
    {"max_iters", "run.steps", NULL},
    {"num_steps", "run.steps", NULL},
    {"num_iterations", "run.steps", NULL},
    {"train_iters", "run.steps", NULL},
    {"train_steps", "run.steps", NULL},
    {"total_steps", "run.steps", NULL},
    {"iterations", "run.steps", NULL},
    {"iters", "run.steps", NULL},
    {"num_train_epochs", "run.steps",
     "a run's length is in steps, and `lockstep dataset show` says how many tokens there are"},
    {"num_epochs", "run.steps", "a run's length is in steps, and `lockstep dataset show` says how many tokens there are"},
    {"epochs", "run.steps", "a run's length is in steps, and `lockstep dataset show` says how many tokens there are"},
    {"random_seed", "run.seed", NULL},
    {"run_name", "run.name", NULL},
    {"batch_size", "batch.sequences", "all of a step's, however many fit into memory at a time"},
    {"train_batch_size", "batch.sequences", NULL},
    {"global_batch_size", "batch.sequences", NULL},
    {"total_batch_size", "batch.sequences", "in sequences, not tokens"},
    {"per_device_train_batch_size", "memory.micro_batch", "a step's number is batch.sequences"},
    {"micro_batch_size", "memory.micro_batch", "a step's number is batch.sequences"},
    {"device_batch_size", "memory.micro_batch", "a step's number is batch.sequences"},
    {"gradient_accumulation_steps", "memory.micro_batch",
     "give the whole batch as batch.sequences; as many as fit are computed at a time"},
    {"grad_accum_steps", "memory.micro_batch",
     "give the whole batch as batch.sequences; as many as fit are computed at a time"},
    {"gradient_checkpointing", "memory.recompute", NULL},
    {"recompute_activations", "memory.recompute", NULL},
    {"activation_checkpointing", "memory.recompute", NULL},
    {"n_layer", "model.layers", NULL},
    {"n_layers", "model.layers", NULL},
    {"num_layers", "model.layers", NULL},
    {"num_hidden_layers", "model.layers", NULL},
    {"depth", "model.layers", NULL},
    {"n_head", "model.heads", NULL},
    {"n_heads", "model.heads", NULL},
    {"num_heads", "model.heads", NULL},
    {"num_attention_heads", "model.heads", NULL},
    {"n_kv_head", "model.kv_heads", NULL},
    {"n_kv_heads", "model.kv_heads", NULL},
    {"num_kv_heads", "model.kv_heads", NULL},
    {"num_key_value_heads", "model.kv_heads", NULL},
    {"n_embd", "model.width", NULL},
    {"d_model", "model.width", NULL},
    {"dim", "model.width", NULL},
    {"n_embed", "model.width", NULL},
    {"hidden_size", "model.width", NULL},
    {"hidden_dim", "model.width", NULL},
    {"embed_dim", "model.width", NULL},
    {"d_head", "model.head_dim", NULL},
    {"head_size", "model.head_dim", NULL},
    {"d_ff", "model.ffn", NULL},
    {"n_inner", "model.ffn", NULL},
    {"ffn_dim", "model.ffn", NULL},
    {"ffn_hidden_size", "model.ffn", NULL},
    {"intermediate_size", "model.ffn", NULL},
    {"block_size", "model.context", NULL},
    {"seq_len", "model.context", NULL},
    {"seq_length", "model.context", NULL},
    {"sequence_length", "model.context", NULL},
    {"sequence_len", "model.context", NULL},
    {"max_seq_len", "model.context", NULL},
    {"context_length", "model.context", NULL},
    {"n_ctx", "model.context", NULL},
    {"n_positions", "model.context", NULL},
    {"max_position_embeddings", "model.context", NULL},
    {"vocab_size", "model.vocab", NULL},
    {"tie_word_embeddings", "model.tied", NULL},
    {"weight_tying", "model.tied", NULL},
    {"rms_norm_eps", "model.norm_epsilon", NULL},
    {"norm_eps", "model.norm_epsilon", NULL},
    {"layer_norm_eps", "model.norm_epsilon", NULL},
    {"layer_norm_epsilon", "model.norm_epsilon", NULL},
    {"rope_base", "model.rope_theta", NULL},
    {"initializer_range", "model.init_std", NULL},
    {"sliding_window", "model.window", NULL},
    {"attention_bias", "model.qkv_bias", "it is of q, k and v only"},
    {"model_type", "model.family", NULL},
    {"arch", "model.family", NULL},
    {"architecture", "model.family", NULL},
    {"init_from", "model.from", NULL},
    {"resume_from_checkpoint", "model.from", "to go on with a run as it is, `lockstep train --resume RUN`"},
    {"eval_interval", "eval.every", NULL},
    {"eval_steps", "eval.every", NULL},
    {"val_every", "eval.every", NULL},
    {"eval_iters", "eval.sequences", "it is a number of sequences"},
    {"save_steps", "checkpoint.every", NULL},
    {"save_interval", "checkpoint.every", NULL},
    {"save_every", "checkpoint.every", NULL},
    {"checkpoint_interval", "checkpoint.every", NULL},
    {"save_total_limit", "checkpoint.keep", NULL},
    {"load_best_model_at_end", "checkpoint.best", "RUN@best names it"},
    {"sample_interval", "sample.every", NULL},
    {"sample_every", "sample.every", NULL},
    {"train_data", "data.dataset", "it is the name of one that `lockstep dataset build` made"},
    {"train_file", "data.dataset", "it is the name of one that `lockstep dataset build` made"},
    {"data_path", "data.dataset", "it is the name of one that `lockstep dataset build` made"},
    {"data_dir", "data.dataset", "it is the name of one that `lockstep dataset build` made"},
    {"dropout", NULL, "models here have no dropout"},
    {"resid_dropout", NULL, "models here have no dropout"},
    {"attention_dropout", NULL, "models here have no dropout"},
    {"hidden_dropout", NULL, "models here have no dropout"},
    {"bias", NULL, "gpt2 has biases and llama has none; model.qkv_bias gives those of q, k and v"},
    {"dtype", NULL, "weights and sums are float32 always, which is what makes the bits the same everywhere"},
    {"torch_dtype", NULL, "weights and sums are float32 always, which is what makes the bits the same everywhere"},
    {"precision", NULL, "weights and sums are float32 always, which is what makes the bits the same everywhere"},
    {"bf16", NULL, "weights and sums are float32 always, which is what makes the bits the same everywhere"},
    {"fp16", NULL, "weights and sums are float32 always, which is what makes the bits the same everywhere"},
    {"device", NULL, "training runs on CPUs: `--threads N` says how many, `--on local:N` starts several processes"},
    {"n_gpu", NULL, "training runs on CPUs: `--threads N` says how many, `--on local:N` starts several processes"},
    {"num_threads", NULL, "it is no key but an option: `--threads N`"},
    {"threads", NULL, "it is no key but an option: `--threads N`"},
    {"num_workers", NULL, "a dataset needs no workers: its tokens are read where they lie"},
    {"compile", NULL, "nothing is compiled at run time"},
    {"optimizer", NULL, "there is one optimizer, AdamW; whether a run goes on with another's moments is model.optimizer"},
    {"optim", NULL, "there is one optimizer, AdamW"},
    {"tokenizer", NULL, "the dataset says which: `lockstep dataset build --tokenizer T`"},
    {"val_data", NULL, "the dataset holds some out: `lockstep dataset build --holdout`"},
    {"val_file", NULL, "the dataset holds some out: `lockstep dataset build --holdout`"},
    {"hidden_act", NULL, "the family decides: SwiGLU in llama, GELU in gpt2"},
    {"activation", NULL, "the family decides: SwiGLU in llama, GELU in gpt2"},
    {"out_dir", NULL, "everything is kept in the store: `--store DIR`"},
    {"output_dir", NULL, "everything is kept in the store: `--store DIR`"},
};

/* "LR" and "learning-rate" as the tables have them. */
static void plain(const char *key, char *out, size_t size) {
    size_t n = 0;
    for (; key[n] && n + 1 < size; n++)
        out[n] = key[n] == '-' ? '_' : (char)(key[n] | (key[n] >= 'A' && key[n] <= 'Z') << 5);
    out[n] = 0;
}

static int other_tools_key(const struct lk_ini_entry *e, const char *key, struct lk_err *err) {
    for (size_t i = 0; i < sizeof synonyms / sizeof *synonyms; i++) {
        const char *ours = synonyms[i].ours, *note = synonyms[i].note;
        if (strcmp(synonyms[i].theirs, key)) continue;
        const char *dot = *e->section ? "." : "";
        if (!ours)
            return lk_fail(err, LK_EINVAL, "%s: there is no \"%s%s%s\": %s", e->where, e->section, dot, e->key, note);
        return lk_fail(err, LK_EINVAL, "%s: \"%s%s%s\" is called %s here%s%s", e->where, e->section, dot, e->key, ours,
                       note ? "; " : "", note ? note : "");
    }
    return LK_OK;
}

/* The right key under another section: that one, or all of them; of a misspelt section's the nearest. */
static void elsewhere(const char *asked, const char *key, bool section_known, char *out, size_t size) {
    const char *found[LK__TRAIN_OPTIONS];
    char full[LK__TRAIN_OPTIONS][48];
    size_t count = 0, n = 0;
    *out = 0;
    for (size_t i = 0; i < LK__TRAIN_OPTIONS; i++) {
        if (strcmp(lk__train_options[i].key, key)) continue;
        snprintf(full[count], sizeof *full, "%s.%s", lk__train_options[i].section, lk__train_options[i].key);
        found[count] = full[count];
        count++;
    }
    const char *near = count == 1 ? found[0] : section_known ? NULL : lk_nearest(asked, found, count);
    if (near) snprintf(out, size, "\"%s\"", near);
    for (size_t i = 0; !near && i < count && n < size; i++)
        n += (size_t)snprintf(out + n, size - n, "%s\"%s\"", i == 0 ? "" : i + 1 < count ? ", " : " or ", found[i]);
}

int lk__train_unknown_key(const struct lk_ini_entry *e, struct lk_err *err) {
    char full[LK__TRAIN_OPTIONS][48], asked[256], key[128], meant[256];
    const char *all[LK__TRAIN_OPTIONS];
    bool section_known = false;
    plain(e->key, key, sizeof key);
    int code = other_tools_key(e, key, err);
    if (code) return code;
    snprintf(asked, sizeof asked, "%s%s%s", e->section, *e->section ? "." : "", e->key);
    for (size_t i = 0; i < LK__TRAIN_OPTIONS; i++) {
        snprintf(full[i], sizeof full[i], "%s.%s", lk__train_options[i].section, lk__train_options[i].key);
        all[i] = full[i];
        section_known |= strcmp(lk__train_options[i].section, e->section) == 0;
    }
    elsewhere(asked, key, section_known, meant, sizeof meant);
    const char *near = *meant ? NULL : lk_nearest(asked, all, LK__TRAIN_OPTIONS);
    if (near) snprintf(meant, sizeof meant, "\"%s\"", near);
    return lk_fail(err, LK_EINVAL, "%s: unknown %s \"%s\"%s%s%s; `lockstep train --keys` lists all", e->where,
                   section_known ? "key" : "section or key", asked, *meant ? "; did you mean " : "", meant,
                   *meant ? "?" : "");
}
