/* Hugging Face's config.json and names of tensors. Private to src/model. */
#ifndef LOCKSTEP_MODEL_HUGGINGFACE_H
#define LOCKSTEP_MODEL_HUGGINGFACE_H
#include "lockstep/model/models.h"

/* What a config.json says. */
struct lk__model_hf_config {
    struct lk_model_config model;
    const char *type; /* static: "llama" */
    uint32_t stops[LK_MODEL_STOPS];
    size_t stop_count;
    uint32_t begin; /* UINT32_MAX: none */
};
/* Where notes go: what a file says that is not followed. */
struct lk__model_hf_notes {
    void (*note)(void *arg, const char *text); /* may be NULL */
    void *arg;
};
/* Every key is read, known to change nothing, or in `ignore`; else LK_EUNSUPPORTED that names all that are not. notes
 * may be NULL. */
int lk__model_hf_config_read(const json_t *config, const char *file, const char *const *ignore, size_t ignore_count,
                             const struct lk__model_hf_notes *notes, struct lk__model_hf_config *out, struct lk_err *);
/* Adds eos_token_id: null, a number or a list of numbers. Ids that the model has no row for can never come: left out,
 * with a note. */
int lk__model_hf_stops(const json_t *eos, const char *file, const struct lk__model_hf_notes *, struct lk__model_hf_config *,
                       struct lk_err *);
/* The model_type that computes this configuration: `wanted` if it does, else the plainest; NULL: there is none. */
const char *lk__model_hf_type(const struct lk_model_config *, const char *wanted);
/* config.json for the model. NULL: no memory. */
/* An object of a file whose whole numbers may be beyond 64 bits, as tokenizer_config.json's model_max_length; NULL: it is
 * none. */
json_t *lk__model_hf_lenient(const void *text, size_t size);
/* The template of chat_template.jinja, which goes first, or of tokenizer_config.json; both may be NULL. *any: there is one.
 */
enum lk_chat lk__model_hf_chat(const struct lk_bytes *jinja, const json_t *tokenizer_config, bool *any);
json_t *lk__model_hf_config_write(const struct lk_model *, const char *type, enum lk_dtype);

/* A file of a folder: absent, or a regular one, also through links; anything else (a link to nowhere, a pipe) is an error.
 */
int lk__model_hf_file(const char *path, bool *there, struct lk_err *);

/* A matrix that the folder holds as (in, out) while we have (out, in): GPT-2's Conv1D. */
bool lk__model_hf_transposed(const struct lk_layout *, const struct lk_tensor *);

#endif
