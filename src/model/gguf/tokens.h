/* The tokenizer and the chat template in a GGUF file. Private to src/model/gguf. */
#ifndef LOCKSTEP_MODEL_GGUF_TOKENS_H
#define LOCKSTEP_MODEL_GGUF_TOKENS_H
#include "lockstep/data/tokenizer.h"
#include "model/gguf/keys.h"

/* The file's tokenizer; fills ids into c that such files may leave out. */
int lk__gguf_tokens_read(const struct lk__gguf *, const char *file, struct lk__gguf_config *c, struct lk_tokenizer **out,
                         struct lk_err *);
/* The keys of a file that is written, in its bytes. */
struct lk__gguf_out {
    struct lk_buf bytes;
    uint64_t count;
    bool bad; /* no memory */
};
void lk__gguf_put_number(struct lk__gguf_out *, const char *key, enum lk__gguf_kind, uint64_t bits);
void lk__gguf_put_u32(struct lk__gguf_out *, const char *key, uint32_t);
void lk__gguf_put_f32(struct lk__gguf_out *, const char *key, float);
void lk__gguf_put_f64(struct lk__gguf_out *, const char *key, double);
void lk__gguf_put_truth(struct lk__gguf_out *, const char *key, bool);
void lk__gguf_put_text(struct lk__gguf_out *, const char *key, const void *text, size_t size);
void lk__gguf_put_texts(struct lk__gguf_out *, const char *key, const struct lk_bytes *, size_t count);
void lk__gguf_put_array(struct lk__gguf_out *, const char *key, enum lk__gguf_kind of, const void *data, size_t count);
/* Appends what the file says of tokens and texts. */
int lk__gguf_tokens_write(struct lk_store *, const struct lk_model *, struct lk__gguf_out *, struct lk_err *);

#endif
