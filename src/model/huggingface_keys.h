/* Reading a config.json: what its files share. Private to huggingface_in.c, huggingface_keys.c and huggingface_out.c. */
#ifndef LOCKSTEP_MODEL_HUGGINGFACE_KEYS_H
#define LOCKSTEP_MODEL_HUGGINGFACE_KEYS_H
#include "huggingface.h"

enum { LK__HF_GPT2 = 1, LK__HF_LLAMA = 2, LK__HF_MISTRAL = 4, LK__HF_QWEN2 = 8, LK__HF_QWEN3 = 16 };
#define LK__HF_ROTARY      (LK__HF_LLAMA | LK__HF_MISTRAL | LK__HF_QWEN2 | LK__HF_QWEN3)
#define LK__HF_MODEL_TYPES 5
struct lk__model_hf_type_entry {
    const char *name, *architecture;
    unsigned bit;
};
extern const struct lk__model_hf_type_entry lk__model_hf_types[LK__HF_MODEL_TYPES];

/* What is read besides lk_model_config's own fields. */
struct lk__model_hf_parsed {
    struct lk_model_config m;
    uint32_t sliding_window, max_window_layers, n_ctx;
    bool use_sliding_window, no_window; /* no_window: sliding_window is null */
};
struct lk__model_hf_reader {
    const json_t *config;
    const char *file;
    unsigned type;
    struct lk__model_hf_parsed p;
    const struct lk__model_hf_notes *notes;
    struct lk_err *err;
};

/* LK_EUNSUPPORTED: "FILE: KEY WHY". */
int lk__model_hf_refuse(const struct lk__model_hf_reader *r, const char *key, const char *why);
/* LK_EINVAL: the value of `key` is none of these. */
int lk__model_hf_read_size(const struct lk__model_hf_reader *r, const char *key, const json_t *, uint32_t *out);
int lk__model_hf_read_number(const struct lk__model_hf_reader *r, const char *key, const json_t *, double *out);
/* values: JSON, '|' between several; LK_EUNSUPPORTED: another one. */
int lk__model_hf_must_be(const struct lk__model_hf_reader *r, const char *key, const json_t *, const char *values);
/* Reads the keys that go into one field each, and refuses those that are neither known nor in `ignore`. */
int lk__model_hf_read_keys(struct lk__model_hf_reader *r, const char *const *ignore, size_t ignore_count);

#endif
