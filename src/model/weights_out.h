/* What export writes into a folder that nobody sees yet. Private to src/model. */
#ifndef LOCKSTEP_MODEL_WEIGHTS_OUT_H
#define LOCKSTEP_MODEL_WEIGHTS_OUT_H
#include "lockstep/model/models.h"

/* Write a file, synced. progress stops: LK_ESTOPPED. A value that the type cannot hold: LK_EINVAL that names the tensor. */
int lk__model_safetensors_write(const struct lk_model *, const struct lk_model_export *, const char *path, struct lk_err *);
int lk__model_llmc_write(const struct lk_model *, const struct lk_model_export *, const char *path, struct lk_err *);
int lk__model_gguf_write(struct lk_store *, const struct lk_model *, const struct lk_model_export *, const char *path,
                         struct lk_err *);
/* All files of a Hugging Face folder but the weights: folder_files.c. */
int lk__model_folder_files_write(struct lk_store *, const struct lk_model *, enum lk_dtype, const char *dir,
                                 struct lk_err *);

#endif
