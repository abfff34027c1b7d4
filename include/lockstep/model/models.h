/* Models in the store: weights, configuration, tokenizer and what else a Hugging Face folder brings, behind one root; from
 * such folders and into them. Formats: docs/formats.md, "Models"; which families and keys: src/model/README.md.
 *
 * A model is a JSON manifest, immutable, and known by its root; a name (kind "model") points at it. lk_model_find
 * (lockstep/train/train.h) opens a run's checkpoint as a model too, so that whoever takes models takes runs. */
#ifndef LOCKSTEP_MODELS_H
#define LOCKSTEP_MODELS_H
#include "lockstep/data/chat.h"
#include "lockstep/model/model.h"
#include "lockstep/store/blob.h"
#include "lockstep/store/store.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LK_MODEL_STOPS 16

struct lk_model {
    struct lk_layout layout; /* layout.config is the configuration */
    struct lk_root weights_root, tokenizer_root;
    bool has_tokenizer;
    const float *weights;           /* (layout.floats), read-only; NULL when opened without */
    uint32_t stops[LK_MODEL_STOPS]; /* ids that end a text, besides the tokenizer's end token */
    size_t stop_count;
    uint32_t begin;      /* the id that its folder says a text begins with (bos_token_id), UINT32_MAX: none */
    uint32_t text_begin; /* the id in front of texts in a folder that lk_model_export made, UINT32_MAX: none */
    enum lk_chat chat;   /* the template of the conversations that its run learned, or LK_CHAT_NONE */
    enum lk_dtype narrow_matrices, narrow_ends; /* of a narrow layout, and the floats that it was made from, */
    struct lk_root narrow_from;
    bool has_narrow_from; /* where they are known */
    json_t *manifest;
    struct lk_blob blob; /* where the weights lie */
};

struct lk_model_parts {
    const struct lk_model_config *config;
    const char *type; /* Hugging Face's model_type ("llama"); NULL: the plainest that computes config */
    const struct lk_root *weights, *tokenizer; /* tokenizer: NULL: none */
    const uint32_t *stops;
    size_t stop_count;
    uint32_t begin;      /* id that begins a text, UINT32_MAX: none */
    uint32_t text_begin; /* see lk_model; UINT32_MAX: none */
    enum lk_chat chat;
    json_t *files; /* {"tokenizer_config.json": root, ...}, borrowed; NULL: none */
};
/* A manifest of these parts, as a new reference; NULL: no memory. */
json_t *lk_model_manifest(const struct lk_model_parts *);

/* Opens what a manifest describes (its reference is taken, also on failure). weights: map and verify them (LK_ECORRUPT
 * names the file); the layout is then packed, as they are. */
int lk_model_open(struct lk_store *, json_t *manifest, bool weights, struct lk_model *out, struct lk_err *);
int lk_model_open_root(struct lk_store *, const struct lk_root *, bool weights, struct lk_model *out, struct lk_err *);
void lk_model_close(struct lk_model *); /* zeroed is fine */
/* The id in front of a text that the model goes on with, UINT32_MAX: none. It is what the model's tokenizer puts there,
 * else, for a model trained here, the end token, which in datasets stands before every document. A model that came from
 * another program's folder has the text alone, as transformers has it. */
uint32_t lk_model_text_begin(const struct lk_model *, const struct lk_tokenizer *);

/* --- Hugging Face folders -------------------------------------------------------------------------------------------- */
struct lk_model_import {
    const struct lk_root *tokenizer; /* use this one instead of the folder's tokenizer.json; NULL: the folder's */
    bool no_tokenizer;               /* leave it out */
    const char *const *ignore;       /* keys of config.json that may be passed over although they are not known */
    size_t ignore_count;
    void (*note)(void *arg, const char *text); /* what the folder says and training here does not follow (dropout) */
    int (*progress)(void *arg, uint64_t done_bytes, uint64_t total_bytes); /* non-zero stops: LK_ESTOPPED */
    void *arg;
};
/* Reads config.json, model.safetensors or the files of model.safetensors.index.json (F32, BF16, F16), tokenizer.json,
 * generation_config.json; keeps tokenizer.json, tokenizer_config.json, special_tokens_map.json, chat_template.jinja and
 * generation_config.json as they are. Whatever in config.json would change the result and is not computed here is
 * LK_EUNSUPPORTED that names the key; a tensor that is missing, left over or of another shape LK_EINVAL that names it.
 * The manifest is put, and named by nobody. */
int lk_model_import(struct lk_store *, const char *dir, const struct lk_model_import *, struct lk_root *out,
                    struct lk_err *);

/* A GGUF file (version 2 or 3; gpt2, llama, qwen2, qwen3), with its own tokenizer. Tensors of F32, F16, BF16 become floats,
 * exactly; where the layers' matrices are Q8_0 or Q4_0, all of them alike, the model has their blocks as they are
 * (lk_layout_narrow). What the file says and is not computed here is LK_EUNSUPPORTED that names the key, the tensor or the
 * type. Otherwise as lk_model_import; `ignore` are keys of the file. */
int lk_model_import_gguf(struct lk_store *, const char *path, const struct lk_model_import *, struct lk_root *out,
                         struct lk_err *);

/* A model's weights in fewer bits, as lk_layout_narrow says. Rounding is deterministic, so the same model
 * gives the same root. The manifest is put, and named by nobody. LK_EINVAL: it is narrow already, or a tensor, which is
 * named, can't be said in so few bits. The model has its weights. */
struct lk_model_quantize {
    enum lk_dtype matrices, ends;
    int (*progress)(void *arg, uint64_t done_bytes, uint64_t total_bytes); /* non-zero stops: LK_ESTOPPED; may be NULL */
    void *arg;
};
int lk_model_quantize(struct lk_math *, struct lk_store *, const struct lk_model *, const struct lk_model_quantize *,
                      struct lk_root *out, struct lk_err *);
/* The manifest with weights in fewer bits, which were made from the weights `from`, NULL: from what is not known. A new
 * reference, NULL: no memory. */
json_t *lk_model_narrow_manifest(const json_t *manifest, enum lk_dtype matrices, enum lk_dtype ends,
                                 const struct lk_root *from, const struct lk_root *weights);

struct lk_model_export {
    enum lk_dtype dtype;
    int (*progress)(void *arg, uint64_t done_bytes, uint64_t total_bytes); /* non-zero stops: LK_ESTOPPED; may be NULL */
    void *arg;
};
/* Writes DIR, which must not exist or be empty, as transformers' AutoModelForCausalLM and AutoTokenizer read it. Values are
 * rounded to nearest even; one beyond float16 is LK_EINVAL that names the tensor. All or nothing: DIR appears when it is
 * whole and durable, and after a failure or a stop nothing of it is left. The model has its weights. A text begins in the
 * folder as lk_model_text_begin says, and generation ends there with the stops, the end token and a chat's stop. */
int lk_model_export(struct lk_store *, const struct lk_model *, const struct lk_model_export *, const char *dir,
                    struct lk_err *);
/* llm.c's checkpoint (version 3: f32, 5: bf16) in the file `path`; GPT-2 family with tied weights only. */
int lk_model_export_llmc(const struct lk_model *, const struct lk_model_export *, const char *path, struct lk_err *);
/* A GGUF file (version 3) that llama.cpp loads, with the model's tokenizer. A model in fewer bits goes out with its blocks
 * as they are, and wants LK_F32; of others the matrices are rounded to dtype, vectors stay float. The bytes are a function
 * of the model and dtype. Nothing of it is left after a failure or a stop. */
int lk_model_export_gguf(struct lk_store *, const struct lk_model *, const struct lk_model_export *, const char *path,
                         struct lk_err *);

#ifdef __cplusplus
}
#endif
#endif
