/* What the files of the API share. Private to src/serve/api.
 *
 * Threads: the server's thread reads requests and submits (params.c, routes.c); the thread of lk_api_run makes tokens and
 * writes answers (job.c, answer.c). A job's mutex keeps the first from being overtaken by the second. */
#ifndef LOCKSTEP_SERVE_API_INSIDE_H
#define LOCKSTEP_SERVE_API_INSIDE_H
#include "lockstep/base/json.h"
#include "lockstep/base/json_out.h"
#include "lockstep/serve/api.h"
#include "lockstep/serve/grammar.h"
#include "metrics.h"
#include "serve/calls.h"
#include <pthread.h>
#include <stdatomic.h>

#define LK__API_STOPS 4

/* A grammar that requests have asked for, kept for the next one. */
struct lk__api_grammar {
    struct lk__api_grammar *next; /* newer used ones first */
    struct lk_grammar *grammar;
    struct lk_root key;
    uint32_t references; /* of jobs */
};
struct lk_api {
    struct lk_api_options o;
    struct lk_http_server *server;
    pthread_mutex_t listing; /* of the list of grammars */
    struct lk__api_grammar *grammars;
    struct lk_vocabulary *(
        *vocabularies)[3];      /* of each model: of completions, conversations, those with tools; NULL: not yet */
    pthread_mutex_t swapping;   /* held while a request's texts are submitted, so that they have the same weights */
    char (*roots)[LK_ROOT_HEX]; /* of the models' weights now; under swapping */
    struct lk__api_metrics metrics;
    size_t *text_most; /* of each model: no text of more bytes fits into its context */
    atomic_bool stopping;
    atomic_uint jobs; /* that are not answered yet */
};

void lk__api_root(struct lk_api *, const struct lk_api_model *, char root[LK_ROOT_HEX]); /* with swapping held */
bool lk__api_is_alias(const struct lk_api *, size_t model); /* its batch is an earlier model's */

/* What is wrong with a request. */
struct lk__api_problem {
    int status;
    const char *code;
    char param[64];
    uint32_t retry_s; /* 429, 503 */
    struct lk_err err;
};
int lk__api_wrong(struct lk__api_problem *, const char *param, const char *format, ...)
    __attribute__((format(printf, 3, 4))); /* 400; returns LK_EINVAL */
const char *lk__api_type(const json_t *);  /* "an object", "a string" ... */
int lk__api_wants(struct lk__api_problem *, const char *name, const char *what, const json_t *is); /* 400 */
uint64_t lk__api_random(void);
void lk__api_refuse(struct lk_api *, struct lk_http_exchange *, const struct lk__api_problem *); /* and counts it */
void lk__api_error_json(struct lk_buf *, int status, const char *code, const char *param, const char *message);

struct lk__api_prompt {
    struct lk_tokens t;
    bool begins; /* its first token is the model's, no part of the text */
};
enum lk__api_form { LK__API_FREE, LK__API_OBJECT, LK__API_SCHEMA, LK__API_GBNF, LK__API_TOOLS };
/* A request as it was asked, from params.c. */
struct lk__api_ask {
    const struct lk_api_model *model;
    bool receipt, embedding, base64;
    bool chat, stream, include_usage, echo, to_the_end; /* to_the_end: as many tokens as there is room for */
    uint32_t n;
    struct lk_request r; /* without prompt and callbacks */
    struct lk_logit_bias *biases;
    char *stops[LK__API_STOPS];
    uint32_t ends[LK_MODEL_STOPS + 1];
    struct lk__api_prompt *prompts;
    size_t prompt_count;
    enum lk__api_form form; /* of the text */
    char *form_text;        /* a schema, a GBNF, tools as JSON; NULL for the others */
    json_t *tools;          /* of a conversation; NULL: none */
    enum lk_tool_choice tool_choice;
    char *only_tool; /* the tool that must be called; NULL: any */
    bool many_calls, no_thinking;
    const struct lk_chat_calls *calls; /* the answer may have some; NULL: it has none */
    bool calls_anywhere;               /* behind text too */
};
enum lk__api_route { LK__API_COMPLETIONS = 1, LK__API_CHAT, LK__API_EMBEDDINGS };
int lk__api_parse(const struct lk_api *, enum lk__api_route, struct lk_bytes body, struct lk__api_ask *,
                  struct lk__api_problem *);
void lk__api_ask_release(struct lk__api_ask *);
/* Shared with /tokenize: a text's ids with what begins a text; model by its name, or the only one. */
int lk__api_text_ids(const struct lk_api_model *, const char *text, size_t size, struct lk__api_prompt *,
                     struct lk__api_problem *);
const struct lk_api_model *lk__api_model(const struct lk_api *, const json_t *name, struct lk__api_problem *);
const struct lk_api_model *lk__api_model_named(const struct lk_api *, const char *name, struct lk__api_problem *);
json_t *lk__api_body(struct lk_bytes body, struct lk__api_problem *);

/* messages.c: the tokens of a conversation, and of what answers end with. tools: may be NULL. */
int lk__api_chat_ids(const struct lk_api_model *, const json_t *messages, const json_t *tools, bool no_thinking,
                     struct lk_tokens *, uint32_t *stop, struct lk__api_problem *);
int lk__api_read_tools(const json_t *, struct lk__api_ask *, struct lk__api_problem *);
int lk__api_read_tool_choice(const json_t *, struct lk__api_ask *, struct lk__api_problem *);
int lk__api_read_template_kwargs(const json_t *, struct lk__api_ask *, struct lk__api_problem *); /* may be NULL */
int lk__api_join_tools(struct lk__api_ask *,
                       struct lk__api_problem *); /* when all parameters are read: the answer's form */
int lk__api_compile_tools(const json_t *form, const struct lk_chat_calls **, struct lk_grammar **, struct lk_err *);

/* One of the texts of a job. */
struct lk__api_choice {
    struct lk__api_job *job;
    uint32_t index;
    _Atomic uint64_t id; /* in the batch; 0: not yet, or over */
    struct lk_buf text;  /* not written yet */
    struct lk_buf told;  /* struct lk__api_told, not written yet */
    size_t offset;       /* bytes of text before the next token's */
    uint64_t last_ns;    /* of the last token */
    struct lk_request_result result;
    bool opened;
    struct lk_matcher *matcher;
    struct lk__serve_calls calls; /* where the answer may have some */
    uint32_t max_tokens;          /* as submitted */
    struct lk_buf marks;          /* struct lk__api_mark, with a receipt */
    struct lk_root chain;
};
#define LK__API_MARK 8
struct lk__api_mark {
    uint32_t id;
    uint8_t mark[LK__API_MARK]; /* the first bytes of the chain behind the token */
};
struct lk__api_told {
    struct lk_drawn_token drawn;
    bool prompt;
};
struct lk__api_job {
    struct lk_api *api;
    struct lk_http_exchange *x;
    struct lk__api_ask ask;
    char id[40], root[LK_ROOT_HEX]; /* root: of the weights that it runs on */
    uint64_t created, began_ns;
    uint32_t key;
    bool has_key;
    pthread_mutex_t mutex;
    atomic_bool gone;
    bool begun, failed; /* the answer in pieces; by `problem` */
    struct lk__api_problem problem;
    uint32_t left, choice_count;
    struct lk__api_choice *choices;
    struct lk_buf out;
    struct lk__api_grammar *grammar;
};
/* job.c: takes ask over, and the exchange. */
void lk__api_start(struct lk_api *, struct lk_http_exchange *, struct lk__api_ask *, struct lk__api_grammar *, bool has_key,
                   uint32_t key);
/* grammars.c: compiles, or finds what was compiled; one reference. The problem's parameter is set. */
int lk__api_grammar_get(struct lk_api *, enum lk__api_form, const char *text, struct lk__api_grammar **,
                        struct lk__api_problem *);
const char *lk__api_form_param(enum lk__api_form); /* the parameter that it is of */
void lk__api_grammar_drop(struct lk_api *, struct lk__api_grammar *);
int lk__api_vocabulary(struct lk_api *, const struct lk__api_ask *, const struct lk_vocabulary **, struct lk_err *);
/* *calls is set for LK__API_TOOLS alone. */
int lk__api_compile(enum lk__api_form, const char *text, const struct lk_chat_calls **calls, struct lk_grammar **,
                    struct lk_err *);
void lk__api_grammars_close(struct lk_api *);
/* receipt.c */
int lk__api_receipt_add(struct lk__api_choice *, const struct lk_drawn_token *); /* LK_ENOMEM */
void lk__api_receipt_write(struct lk_json_out *, const struct lk__api_choice *);
/* answer.c */
void lk__api_write_piece(struct lk__api_job *, struct lk__api_choice *, bool last); /* a chunk of a stream, into job->out */
void lk__api_write_usage(struct lk__api_job *);                                     /* the usage chunk */
void lk__api_write_whole(struct lk__api_job *);                                     /* the answer at once */

#endif
