/* The keys of a run's configuration: one table gives reading, defaults, checks, JSON, identity and documentation. */
#include "config.h"

#define FIELD(f) offsetof(struct lk_run_config, f), sizeof(((struct lk_run_config *)0)->f)
#define U32(s, k, f, fall, low, high, flags, help)                                                                         \
    { s, k, LK_O_U32, FIELD(f), fall, low, high, NULL, flags, help }
#define F64(s, k, f, fall, low, high, flags, help)                                                                         \
    { s, k, LK_O_F64, FIELD(f), fall, low, high, NULL, flags, help }
#define BOOL(s, k, f, fall, flags, help)                                                                                   \
    { s, k, LK_O_BOOL, FIELD(f), fall, 0, 1, NULL, flags, help }
#define MANY 2147483647.0
/* Short names of flags, so that a row fits on a line. */
#define LOCAL 0 /* decides no bit */
#define BITS  LK_O_IDENTITY
#define LATER (LK_O_IDENTITY | LK_O_LATER)

const struct lk_option lk__train_options[] = {
    {"run", "name", LK_O_NAME, FIELD(name), "", 0, 0, NULL, LOCAL,
     "the run's name; the file's name without .ini by default"},
    {"run", "seed", LK_O_U64, FIELD(seed), "1", 0, 999999999999999.0, NULL, BITS,
     "seed of initial weights and of the order of samples"},
    U32("run", "steps", steps, "1000", 1, MANY, BITS, "optimizer steps"),
    {"data", "dataset", LK_O_NAME, FIELD(dataset), "", 0, 0, NULL, LOCAL, "name of the dataset (required)"},
    BOOL("data", "cross_documents", cross_documents, "true", BITS,
         "attention may look into earlier documents of its sequence"),
    {"model", "family", LK_O_ENUM, FIELD(family), "llama", 0, 0, "llama|gpt2", BITS,
     "RMSNorm, RoPE, SwiGLU; or LayerNorm, learned positions, GELU"},
    U32("model", "layers", layers, "6", 1, 10000, BITS, "decoder layers"),
    U32("model", "width", width, "384", 1, 1048576, BITS, "width of the residual stream"),
    U32("model", "heads", heads, "", 1, 65536, BITS, "query heads; width / 64 by default, at least 1"),
    U32("model", "kv_heads", kv_heads, "", 1, 65536, BITS, "key and value heads; equal to heads by default"),
    U32("model", "head_dim", head_dim, "", 1, 65536, BITS, "size of a head; width / heads by default"),
    U32("model", "ffn", ffn, "", 1, 4194304, BITS,
        "inner width of the feed-forward; llama 8/3 width rounded up to 32, gpt2 4 width"),
    U32("model", "context", context, "256", 1, 4194304, BITS, "positions in a sequence"),
    U32("model", "vocab", vocab, "", 2, MANY, BITS, "rows of the embedding; the tokenizer's by default, may be larger"),
    BOOL("model", "tied", tied, "true", BITS, "output matrix = embedding"),
    F64("model", "norm_epsilon", norm_epsilon, "1e-5", 1e-30, 1, BITS, "added to the mean square in the norms"),
    F64("model", "rope_theta", rope_theta, "10000", 1, 1e12, BITS, "base of the rotary angles (llama)"),
    F64("model", "init_std", init_std, "0.02", 0, 10, BITS, "standard deviation of initial matrices"),
    BOOL("model", "qkv_bias", qkv_bias, "false", LATER, "q, k and v have biases (llama, as in Qwen2)"),
    BOOL("model", "qk_norm", qk_norm, "false", LATER, "RMSNorm on the heads of q and k (llama, as in Qwen3)"),
    U32("model", "window", window, "0", 0, MANY, LATER,
        "keys that a position sees, itself included (llama, as in Mistral); 0: all before it"),
    F64("model", "rope_factor", rope_factor, "0", 0, 1e6, LATER, "scales the rotary frequencies as Llama 3.1 does; 0: not"),
    F64("model", "rope_low", rope_low, "1", 1e-6, 1e6, LATER, "low_freq_factor of that scaling"),
    F64("model", "rope_high", rope_high, "4", 1e-6, 1e6, LATER, "high_freq_factor of that scaling"),
    U32("model", "rope_original", rope_original, "8192", 1, MANY, LATER,
        "original_max_position_embeddings of that scaling"),
    {"model", "from", LK_O_TEXT, FIELD(from), "", 0, 0, NULL, LK_O_LATER,
     "begin with the weights of this model, run, RUN@STEP or RUN@best; it gives all other keys of [model]"},
    {"model", "optimizer", LK_O_ENUM, FIELD(optimizer_from), "fresh", 0, 0, "fresh|keep", LK_O_LATER,
     "keep: go on with the moments and the order of samples of model.from, a run"},
    U32("batch", "sequences", sequences, "16", 1, 16777216, BITS, "sequences in a batch"),
    U32("batch", "grains", grains, "", 1, 16777216, BITS,
        "parts whose gradients are summed in a fixed tree; the largest power of two up to 8 that divides sequences by "
        "default"),
    U32("batch", "context", batch_context, "0", 0, 4194304, LATER,
        "positions in a training sequence; 0: model.context, which is the most"),
    U32("memory", "micro_batch", micro_batch, "0", 0, 16777216, LOCAL,
        "sequences processed at a time, changes no bit; 0: as memory allows"),
    BOOL("memory", "recompute", recompute, "false", LOCAL, "compute activations again in backward, changes no bit"),
    F64("optimizer", "learning_rate", learning_rate, "1e-3", 0, 1000, BITS, "peak rate"),
    F64("optimizer", "beta1", beta1, "0.9", 0, 0.999999999, BITS, "AdamW: decay of the first moment"),
    F64("optimizer", "beta2", beta2, "0.95", 0, 0.999999999, BITS, "AdamW: decay of the second moment"),
    F64("optimizer", "epsilon", epsilon, "1e-8", 1e-30, 1, BITS, "AdamW: added to the root of the second moment"),
    F64("optimizer", "weight_decay", weight_decay, "0.1", 0, 1000, BITS, "AdamW: decay of matrices and embeddings"),
    F64("optimizer", "clip", clip, "1", 0, 1e30, BITS, "greatest norm of the gradient; 0: no clipping"),
    {"optimizer", "schedule", LK_O_ENUM, FIELD(schedule), "cosine", 0, 0, "cosine|linear|constant|wsd", BITS,
     "learning rate after warmup; wsd: constant, then linear over the last optimizer.cooldown steps"},
    U32("optimizer", "warmup", warmup, "", 0, MANY, BITS, "steps to the peak rate; steps / 20 by default"),
    U32("optimizer", "decay", decay, "", 0, MANY, BITS, "step at which the rate has come down; steps by default"),
    U32("optimizer", "cooldown", cooldown, "0", 0, MANY, LATER,
        "wsd: steps before decay over which the rate falls; 0: decay / 5, at least 1"),
    F64("optimizer", "min_ratio", min_ratio, "0.1", 0, 1, BITS, "rate at the end of the decay, as a share of the peak"),
    U32("eval", "every", eval_every, "", 0, MANY, LOCAL,
        "steps between evaluations; 0: never, not even at the end; steps / 10 by default"),
    U32("eval", "sequences", eval_sequences, "0", 0, MANY, LOCAL, "held-out sequences evaluated; 0: all"),
    U32("checkpoint", "every", checkpoint_every, "", 0, MANY, LOCAL,
        "steps between checkpoints; 0: only at the end; steps / 10 by default"),
    U32("checkpoint", "keep", checkpoint_keep, "2", 0, MANY, LOCAL, "newest checkpoints kept; 0: all"),
    BOOL("checkpoint", "best", checkpoint_best, "true", LK_O_LATER,
         "keep the checkpoint with the least held-out loss too: RUN@best; of steps that are evaluated"),
    U32("sample", "every", sample_every, "0", 0, MANY, LOCAL, "steps between printed samples; 0: never"),
    {"sample", "prompt", LK_O_TEXT, FIELD(prompt), "", 0, 0, NULL, LOCAL, "text that samples go on from"},
};
_Static_assert(sizeof lk__train_options / sizeof *lk__train_options == LK__TRAIN_OPTIONS,
               "config.h has the number of keys");

const struct lk_option *lk_run_options(size_t *count) {
    *count = LK__TRAIN_OPTIONS;
    return lk__train_options;
}
