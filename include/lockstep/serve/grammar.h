/* Output that satisfies a grammar: which tokens may come next. Algorithm: src/serve/grammar/README.md; what is supported:
 * docs/structured-output.md.
 * A grammar and a vocabulary are immutable and may be used by any number of threads; what they keep for later calls is
 * guarded. A matcher belongs to one sequence and one thread at a time. */
#ifndef LOCKSTEP_GRAMMAR_H
#define LOCKSTEP_GRAMMAR_H
#include "lockstep/base/json.h"
#include "lockstep/data/chat.h"

#ifdef __cplusplus
extern "C" {
#endif

struct lk_grammar;

/* llama.cpp's GBNF; the rule `root` is the whole text. A mistake is LK_EINVAL (LK_EUNSUPPORTED for what llama.cpp has and
 * we do not: tokens as terminals) with "line L, column C" and what to do. More than LK_GRAMMAR_TEXT_MOST bytes, too much
 * nesting, too large numbers of repetition, or a grammar that grows beyond the limits of its automaton: LK_EINVAL. */
#define LK_GRAMMAR_TEXT_MOST ((size_t)1 << 20)
int lk_grammar_from_gbnf(const char *text, size_t size, struct lk_grammar **out, struct lk_err *);
/* A JSON text in one line, as json.dumps of Python writes it, that satisfies the schema. What is not supported is
 * LK_EUNSUPPORTED, what is wrong LK_EINVAL; the message begins with the JSON path of the keyword, as
 * "$.properties.a.allOf". schema is borrowed for the call. */
int lk_grammar_from_schema(const json_t *schema, struct lk_grammar **out, struct lk_err *);
/* Answers that call tools, written as a chat template has it (lk_chat_calls). Arguments satisfy the tool's `parameters`;
 * without these they are {}. Messages begin with paths as "$.tools[0].function.parameters". */
enum lk_tool_choice { LK_TOOLS_NEVER, LK_TOOLS_MAY, LK_TOOLS_ALWAYS };
struct lk_tools {
    const struct lk_chat_calls *how;
    const json_t *tools; /* as in struct lk_conversation */
    enum lk_tool_choice choice;
    const char *only;     /* the tool that is called; NULL: any */
    bool many;            /* one answer may call more than once, if the template can */
    const json_t *answer; /* the schema of answers that call none; NULL: any text that does not open a call */
};
int lk_grammar_from_tools(const struct lk_tools *, struct lk_grammar **out, struct lk_err *);
/* Any JSON object. */
int lk_grammar_json_object(struct lk_grammar **out, struct lk_err *);
/* No matcher may use it any more. NULL is fine. */
void lk_grammar_free(struct lk_grammar *);
/* What it takes now, with the masks that matchers have found. */
size_t lk_grammar_bytes(struct lk_grammar *);

struct lk_vocabulary;

/* The tokens of a tokenizer as a trie of their bytes, a few MB; the tokenizer is not needed any more afterwards. Special
 * and other added tokens are never a part of a text that a grammar describes, but those whose texts stand in `marks` (up to
 * a NULL; marks may be NULL, and may name what the tokenizer has not). ends: ids that end a text, besides the tokenizer's
 * own end token; one that is no token is LK_EINVAL. */
int lk_vocabulary_create(const struct lk_tokenizer *, const uint32_t *ends, size_t end_count, const char *const *marks,
                         struct lk_vocabulary **out, struct lk_err *);
void lk_vocabulary_free(struct lk_vocabulary *); /* NULL is fine */
uint32_t lk_vocabulary_tokens(const struct lk_vocabulary *);
/* 64-bit words of a mask: bit id % 64 of word id / 64 is token id's. */
size_t lk_vocabulary_words(const struct lk_vocabulary *);

struct lk_matcher;

/* Borrows both until it is freed. */
int lk_matcher_create(struct lk_grammar *, const struct lk_vocabulary *, struct lk_matcher **out, struct lk_err *);
/* The same place in the same text, without a way back to what was before. */
int lk_matcher_copy(const struct lk_matcher *, struct lk_matcher **out, struct lk_err *);
void lk_matcher_free(struct lk_matcher *); /* NULL is fine */
/* bits: lk_vocabulary_words. Sets exactly the bits of the tokens that may come next: those after which the text can still
 * be completed, and the end tokens where it is complete. None at all: the text has ended, or it is complete, nothing else
 * may come and there is no end token. LK_EUNSUPPORTED: only bytes may come that no token of this vocabulary has, or there
 * are too many ways to read the text so far. */
int lk_matcher_mask(struct lk_matcher *, uint64_t *bits, struct lk_err *);
/* Takes a token. LK_EINVAL: it may not come here. LK_EUNSUPPORTED: too many ways, as above. Nothing changes when this
 * fails. */
int lk_matcher_accept(struct lk_matcher *, uint32_t id, struct lk_err *);
/* Takes back the last `tokens` tokens; LK_EINVAL: more than lk_matcher_undo. */
#define LK_MATCHER_UNDO 64 /* at least so many of the accepted ones can be taken back */
int lk_matcher_rollback(struct lk_matcher *, uint32_t tokens, struct lk_err *);
uint32_t lk_matcher_undo(const struct lk_matcher *);
/* Why lk_matcher_mask or lk_matcher_accept last gave a grammar up (LK_EUNSUPPORTED): what is wrong with it, and what to do;
 * NULL: neither has. */
const char *lk_matcher_stuck(const struct lk_matcher *);
bool lk_matcher_complete(const struct lk_matcher *); /* the text may end here */
bool lk_matcher_done(const struct lk_matcher *);     /* nothing but an end token may come, or it has come */

#ifdef __cplusplus
}
#endif
#endif
