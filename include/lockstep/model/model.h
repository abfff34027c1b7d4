/* The model floor: configuration, tensors in canonical order, and the decoder's forward and backward passes of the Llama
 * and GPT-2 families. Numbers: docs/numerics.md. Names of tensors: Hugging Face's; order and shapes: docs/formats.md. */
#ifndef LOCKSTEP_MODEL_H
#define LOCKSTEP_MODEL_H
#include "lockstep/base/mem.h"
#include "lockstep/math/kernels.h"
#include "lockstep/math/quant.h"

#ifdef __cplusplus
extern "C" {
#endif

enum lk_family { LK_LLAMA, LK_GPT2 };

struct lk_model_config {
    enum lk_family family;
    uint32_t layers, width, heads, kv_heads, head_dim, ffn, context, vocab;
    bool tied;
    double norm_epsilon, rope_theta, init_std;
    /* The llama family's variants; zero: without. */
    bool qkv_bias;   /* q, k and v have biases (Qwen2) */
    bool qk_norm;    /* RMSNorm on each head of q and k, before the rotation, one gain for all heads (Qwen3) */
    uint32_t window; /* keys that a position sees, itself included (Mistral); 0: all before it */
    /* Llama 3.1's scaling of the rotary frequencies, as in Hugging Face's "rope_type": "llama3"; factor 0: none. */
    double rope_factor, rope_low, rope_high;
    uint32_t rope_original; /* positions that the model learned with before it was scaled */
};
/* Checks that the sizes fit each other; the message names the INI key ("[model] heads ..."). */
int lk_model_config_check(const struct lk_model_config *, struct lk_err *);

struct lk_tensor {
    char name[64];
    uint32_t dims, shape[2]; /* (out, in) for matrices */
    size_t count;            /* elements */
    size_t offset;           /* first element in a parameter array, in floats; a multiple of 16, unless packed */
    bool decay;              /* two or more dimensions */
    enum lk_dtype dtype;     /* how it is stored: LK_F32, but for layouts of lk_layout_narrow */
    size_t words;            /* 4 bytes each, that it takes in an array; count, where it is stored as floats */
    size_t panels;           /* where its panels begin, in bytes from those of all (lk_decoder_fill_panels) */
    double deviation;        /* of the normal initialisation; 0: filled with `constant` */
    float constant;
};

/* Where each role's tensor lies: index into tensors, -1 where the family has none. */
struct lk_layer_tensors {
    int norm1, norm1_bias, q, q_bias, k, k_bias, v, v_bias, q_norm, k_norm, qkv, qkv_bias, o, o_bias, norm2, norm2_bias,
        gate, up, up_bias, down, down_bias;
};
struct lk_layout {
    struct lk_model_config config;
    struct lk_tensor *tensors; /* canonical order */
    size_t tensor_count;
    size_t parameters; /* elements of all tensors */
    size_t floats;     /* size of a parameter array, padding (always zero) included; in words, where tensors have formats */
    size_t panel_bytes; /* of all panels */
    bool narrow;        /* by lk_layout_narrow: some tensors are no floats */
    struct lk_layer_tensors *layers;
    int embedding, positions, norm, norm_bias, head; /* head -1 when tied */
};
int lk_layout_init(struct lk_layout *, const struct lk_model_config *, struct lk_err *);
/* From now on without padding, as stored weights are: they can be used where they lie. */
void lk_layout_pack(struct lk_layout *);
/* From now on for weights in fewer bits: the layers' matrices in one format, the embedding table and the head in another;
 * what has rows of no whole blocks, vectors and learned positions stay floats. Each tensor begins at a multiple of 64
 * bytes. Such weights are for inference alone. */
void lk_layout_narrow(struct lk_layout *, enum lk_dtype matrices, enum lk_dtype ends);
/* LK_F32, LK_BF16, LK_Q8, LK_Q4. */
static inline bool lk_layout_can_narrow(enum lk_dtype dtype) {
    return dtype != LK_F16;
}
void lk_layout_release(struct lk_layout *);
/* Fills w (layout->floats) as docs/numerics.md section 10 says. */
void lk_layout_initialise(const struct lk_layout *, struct lk_math *, uint64_t seed, float *w);

/* Floating-point operations of matrix products and attention: one forward pass of `sequences` x `positions`. A training
 * step is three times that. */
double lk_model_flops(const struct lk_model_config *, uint64_t sequences, uint32_t positions);

/* --- Decoder ---------------------------------------------------------------------------------------------------------
 * Workspace for passes of up to `sequences` x `positions` tokens. Not thread-safe (its lk_math's pool does the work). */
struct lk_decoder;
enum lk_decoder_mode {
    LK_INFER,     /* forward only: one layer's activations */
    LK_TRAINING,  /* all activations kept for backward */
    LK_RECOMPUTE, /* only each layer's input is kept; backward computes the layer again: less memory, same bits */
    LK_EXTEND     /* lk_decoder_extend alone: `positions` tokens of all sequences together, `sequences` rows of logits */
};
/* The layout is borrowed. LK_ENOMEM. */
int lk_decoder_create(const struct lk_layout *, struct lk_math *, uint32_t sequences, uint32_t positions,
                      enum lk_decoder_mode, struct lk_decoder **out, struct lk_err *);
void lk_decoder_free(struct lk_decoder *);
/* What create would take, in bytes (per-thread scratch of attention excluded, see lk_decoder_scratch_bytes). */
size_t lk_decoder_bytes(const struct lk_layout *, uint32_t sequences, uint32_t positions, enum lk_decoder_mode);
size_t lk_decoder_scratch_bytes(const struct lk_layout *, uint32_t positions, enum lk_decoder_mode); /* per thread */

/* From now on keys and values are those of such a cache: what lk_decoder_extend is given must be one, and
 * lk_decoder_forward, in mode LK_INFER, computes the same. The errors of lk_attention_cache_init. */
int lk_decoder_use_cache(struct lk_decoder *, enum lk_dtype, struct lk_err *);

/* Forward of tokens (sequences, positions), row-major; document_start as in lk_attention or NULL. Returns the logits
 * (sequences * positions, vocab), owned by the decoder, valid until the next pass; they may be overwritten by the caller.
 */
float *lk_decoder_forward(struct lk_decoder *, const float *weights, uint32_t sequences, uint32_t positions,
                          const uint32_t *tokens, const uint32_t *document_start);

/* Backward of the last forward, the logits now holding their gradient. parts: one a sequence (rows = positions), grouped by
 * grain. Writes (or accumulates into) every tensor's gradient except the embedding side of the embedding table:
 * that leaves as the gradient of its output, (rows, width), the return value, valid until the next pass. With tied weights
 * the table's gradient receives the output side.
 * Gradients are finished in stages: 0 the head (the table, when tied) and the last norm; 1 .. layers the layers, last one
 * first; layers + 1 learned positions. stage (may be NULL) is told each one as soon as it is done. */
typedef void lk_stage_fn(void *arg, uint32_t stage);
const float *lk_decoder_backward(struct lk_decoder *, const float *weights, const struct lk_row_part *parts,
                                 size_t part_count, bool accumulate, float *gradient, lk_stage_fn *stage, void *arg);

/* --- Keys and values for generation ---------------------------------------------------------------------------------- */
/* Keys and values of many sequences, in pages of a fixed number of positions of all layers. Which page is whose, and for
 * how long, is the caller's to decide; a page that several sequences read must not be written. */
struct lk_attention_cache {
    enum lk_dtype dtype; /* LK_F32, or LK_Q8: docs/numerics.md, section 14 */
    uint32_t page_positions, pages;
    size_t row_words, page_words; /* of 32 bits: the keys of a position, a page */
    float *data;                  /* pages x layers x {k, v} x page_positions x row_words */
    struct lk_arena memory;
};
size_t lk_attention_cache_bytes(const struct lk_layout *, enum lk_dtype, uint32_t page_positions, uint32_t pages);
/* LK_EUNSUPPORTED: not LK_F32 or LK_Q8, or heads of no whole blocks. LK_ENOMEM. */
int lk_attention_cache_init(struct lk_attention_cache *, const struct lk_layout *, enum lk_dtype, uint32_t page_positions,
                            uint32_t pages, struct lk_err *);
void lk_attention_cache_release(struct lk_attention_cache *);
/* What a pass reads of one sequence: count (>= 1) tokens at positions first .. first + count - 1, whose keys and values it
 * writes; those of all positions before are in the cache. pages: position j is in page pages[j / page_positions]. wanted:
 * so many of the last rows' logits are computed, 0 to count. */
struct lk_extension {
    const uint32_t *tokens, *pages;
    uint32_t first, count, wanted;
    float *hidden; /* (count, width): gets what the last norm makes of each row; or NULL */
};
/* Forward of further tokens of `extensions` sequences together, in mode LK_EXTEND: tokens in all <= the decoder's
 * positions, wanted in all <= its sequences. Returns the wanted logits in order (wanted in all, vocab), owned by the
 * decoder, valid until the next pass. Bits equal to lk_decoder_forward's rows, whatever else is in the pass and however
 * pages lie. */
float *lk_decoder_extend(struct lk_decoder *, const float *weights, const struct lk_attention_cache *,
                         const struct lk_extension *, uint32_t extensions);

/* Generation at the memory's full speed: the weights' matrices in another order, which passes of few rows read
 * (lk_panels_fill, lk_quant_panels_fill), in layout->panel_bytes of memory, 64-byte aligned for the full speed; what is
 * between them is not touched. Returns false, and does nothing, where the instruction set has no use for them. A formatted
 * layout must have them. */
bool lk_decoder_fill_panels(const struct lk_decoder *, const float *weights, void *panels);
/* From now on passes with these weights read these panels, which fill made of them; NULL: none. Both are borrowed and must
 * not change. */
void lk_decoder_use_panels(struct lk_decoder *, const float *weights, const void *panels);

/* --- Gradient of the embedding table: touched rows only -------------------------------------------------- */
struct lk_embedding_gradient;
/* Rows of one rank: by token, then by grain, ascending. The gradient of tokens[i] in the tree's node of grains[i] is
 * sums + index[i] * width. */
struct lk_embedding_rows {
    uint32_t count;
    const uint32_t *tokens, *grains, *index;
    float *sums; /* lk_embedding_rows_finish changes them */
};
/* For batches of up to `tokens` positions of vocabulary `vocab` and width `width`. memory: lk_embedding_rows_bytes, where
 * the list of rows will lie so that other ranks can read it; NULL: its own. */
int lk_embedding_gradient_create(uint32_t vocab, uint32_t width, size_t tokens, void *memory,
                                 struct lk_embedding_gradient **out, struct lk_err *);
void lk_embedding_gradient_free(struct lk_embedding_gradient *);
size_t lk_embedding_gradient_bytes(uint32_t vocab, uint32_t width, size_t tokens); /* its own memory included */
size_t lk_embedding_rows_bytes(uint32_t width, size_t tokens);
void lk_embedding_gradient_begin(struct lk_embedding_gradient *);
/* Adds consecutive sequences of one grain: tokens (sequences, positions), dx (sequences * positions, width). Grains ascend;
 * a grain may come in several calls. */
void lk_embedding_gradient_add(struct lk_embedding_gradient *, struct lk_math *, uint32_t grain, uint32_t sequences,
                               uint32_t positions, const uint32_t *tokens, const float *dx);
/* Combines what of the tree over `grains` grains lies within [first_grain, end_grain), which are all that were added, and
 * lists the rows that are left; valid until begin. */
struct lk_embedding_rows lk_embedding_gradient_list(struct lk_embedding_gradient *, struct lk_math *, uint32_t first_grain,
                                                    uint32_t end_grain, uint32_t grains);
/* The same list where another rank made it, with its `tokens`. */
struct lk_embedding_rows lk_embedding_rows_at(void *memory, uint32_t width, size_t tokens);
uint32_t lk_embedding_rows_find(const struct lk_embedding_rows *,
                                uint32_t token); /* the first row of that token or a later one */
/* Combines the rows of all ranks, grains ascending from rank to rank; then, for the table's (vocab, width) elements [first,
 * first + count): table = rows + table (add) or table = rows with zeros elsewhere. Several callers may work on one list at
 * elements that are not the same. */
void lk_embedding_rows_finish(struct lk_math *, uint32_t width, const struct lk_embedding_rows *, size_t ranks,
                              size_t first, size_t count, bool add, float *table);

#ifdef __cplusplus
}
#endif
#endif
