/* Text from a model: seeded sampling over exact logits, streamed as whole UTF-8 characters.
 * Numbers: docs/numerics.md, section 10. */
#ifndef LOCKSTEP_GENERATE_H
#define LOCKSTEP_GENERATE_H
#include "lockstep/data/tokenizer.h"
#include "lockstep/model/model.h"
#include "lockstep/serve/grammar.h"

#ifdef __cplusplus
extern "C" {
#endif

struct lk_sampling {
    double temperature; /* >= 0; 0: the likeliest token */
    uint32_t top_k;     /* the so many likeliest; 0: all */
    double top_p;       /* 0 to 1: of those, the likeliest that have this share together; 1: all */
    uint64_t seed;
    double min_p;    /* 0 to 1: of what top_p keeps, the tokens at least this times as likely as the likeliest; 0: all */
    uint32_t choice; /* which of the texts of this seed: others draw otherwise */
};
/* LK_EINVAL: a value out of its range, or NaN; the message names it. */
int lk_sampling_check(const struct lk_sampling *, struct lk_err *);
/* One token from a row of logits (vocab), of which ids below `tokens` exist. position: of the token that is drawn.
 * The options are good ones (lk_sampling_check).
 * workspace: lk_sample_bytes(tokens) bytes, overwritten, aligned to 8. */
uint32_t lk_sample_token(struct lk_math *, const float *logits, uint32_t tokens, const struct lk_sampling *,
                         uint32_t position, void *workspace);
size_t lk_sample_bytes(uint32_t tokens);
/* The same of the ids whose bits are set in `allowed` (bit id % 64 of word id / 64; (tokens + 63) / 64 words), as if there
 * were no others. UINT32_MAX: no bit is set. workspace: lk_sample_allowed_bytes(tokens). */
uint32_t lk_sample_allowed(struct lk_math *, const float *logits, uint32_t tokens, const uint64_t *allowed,
                           const struct lk_sampling *, uint32_t position, void *workspace);
size_t lk_sample_allowed_bytes(uint32_t tokens);

/* What changes the logits before a token is drawn from them, at any temperature; all zeros: nothing. */
#define LK_LOGIT_BIAS_MOST   100
#define LK_LOGIT_BIASES_MOST 1024 /* of one text */
#define LK_REPETITION_MOST   100
struct lk_logit_bias {
    uint32_t id;
    float bias; /* -100 to 100; added to its logit */
};
struct lk_penalties {
    const struct lk_logit_bias *bias; /* of different ids, borrowed */
    size_t bias_count;                /* at most LK_LOGIT_BIASES_MOST */
    /* of tokens in the text so far, the prompt's too: a logit of 0 or more is divided by this, one below 0 multiplied
     * (Keskar et al. 2019, "CTRL"); above 0; 0 counts as 1, which is none */
    double repetition;
    double presence, frequency; /* -2 to 2: taken from the logit of a token that was drawn; frequency, once for each time */
};
bool lk_penalties_none(const struct lk_penalties *);
/* LK_EINVAL: a value out of its range, or NaN; too many biases, one of an id that is no token, or two of one; the message
 * names it. */
int lk_penalties_check(const struct lk_penalties *, uint32_t tokens, struct lk_err *);
enum lk_finish { LK_FINISH_LENGTH, LK_FINISH_END, LK_FINISH_STOP, LK_FINISH_CALLER };
struct lk_generation {
    uint32_t prompt_tokens, tokens; /* read and drawn */
    double prompt_seconds, seconds;
    enum lk_finish finish;
};
struct lk_generate_options {
    struct lk_sampling sampling;
    struct lk_penalties penalties;
    uint32_t max_tokens;
    /* Copies the weights into an order that single tokens are faster with; pays from some 30 tokens on. That is as much
     * memory again as the weights (layout->floats) until lk_generate returns; not done where it would take more than four
     * fifths of lk_memory_available_bytes. */
    bool panels;
    enum lk_dtype cache; /* keys and values: LK_F32, or LK_Q8, whose text is another one */
    const uint32_t *ids; /* unless NULL: the prompt as it is to be read (lk_chat_prompt's), instead of a text */
    size_t id_count;
    const uint32_t *ends; /* ids that end the text, besides the tokenizer's end token */
    size_t end_count;
    /* Unless NULL: at the begin of a text, with this tokenizer and these ends. Only tokens that it allows are drawn, and
     * the text ends where it is complete and nothing else may come, by an end token or, if there is none, LK_FINISH_STOP.
     * It is moved on; afterwards it is where the text is. */
    struct lk_matcher *matcher;
    const char *const *stops; /* the text ends before the first of these */
    size_t stop_count;
    /* Gets text as it comes, never a part of a character (an incomplete one at the very end is given as it is); returning
     * non-zero ends the generation. */
    int (*text)(void *arg, const char *data, size_t size);
    void (*token)(void *arg, uint32_t id); /* every id drawn, the end token included; may be NULL */
    void *arg;
};
/* Goes on from the tokenizer's begin token, or else its end token, and the prompt's tokens; or from options->ids. When the
 * context is full, its newer half is read again and generation goes on. weights: layout->floats, borrowed.
 * LK_EINVAL: of lk_sampling_check and lk_penalties_check, more tokens than the model has, an id in options->ids that it
 * does not have, or an empty prompt and a tokenizer without an end token to begin with. LK_ENOMEM (the message names a
 * limit that is set): for the tokens, the text, the decoder, its cache; missing memory for panels only slows it down. What
 * options->text returned is no error: out->finish is LK_FINISH_CALLER. */
int lk_generate(struct lk_math *, const struct lk_layout *, const float *weights, const struct lk_tokenizer *,
                const char *prompt, size_t prompt_size, const struct lk_generate_options *, struct lk_generation *out,
                struct lk_err *);

#ifdef __cplusplus
}
#endif
#endif
