/* lockstep generate */
#include "model_run.h"

#include "lockstep/base/file.h"
#include "lockstep/data/chat.h"
#include "lockstep/serve/generate.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PANELS_FROM 32 /* tokens; making them takes as long as reading the weights a few times */

struct output {
    json_t *ids;       /* with --json: what was drawn, also when its bytes are no UTF-8 */
    struct lk_buf all; /* with --json */
    bool json;
    bool incomplete; /* with --json: there was no memory for a part of it */
};
static int put_text(void *arg, const char *data, size_t size) {
    struct output *o = arg;
    if (o->json) {
        if (lk_buf_append(&o->all, data, size)) o->incomplete = true;
        return cmd_interrupted() || o->incomplete;
    }
    fwrite(data, 1, size, stdout);
    fflush(stdout);
    return cmd_interrupted() || ferror(stdout);
}

static void put_id(void *arg, uint32_t id) {
    struct output *o = arg;
    if (o->json && json_array_append_new(o->ids, json_integer(id))) o->incomplete = true;
}

static struct {
    uint32_t tokens;
    struct lk_sampling sampling;
    struct lk_penalties penalties;
    struct cmd_list biases, stops;
    enum lk_chat chat;
    bool talk; /* in the model's own template */
    const char *system, *grammar, *schema;
    bool object; /* any JSON object */
    int bos, cache;
} wanted;
enum { AUTO, YES, NO }; /* of --bos */

/* ID=BIAS */
static int read_biases(struct cmd_context *c, const struct cmd_list *list, struct lk_logit_bias *out) {
    for (size_t i = 0; i < list->count; i++) {
        const char *text = list->items[i];
        char *end, *last;
        errno = 0;
        unsigned long id = strtoul(text, &end, 10);
        bool ok = *text >= '0' && *text <= '9' && *end == '=' && id <= UINT32_MAX && !errno;
        ok = ok && end[1] && strchr("+-.0123456789", end[1]);
        float bias = ok ? strtof(end + 1, &last) : 0;
        if (!ok || last == end + 1 || *last) return cmd_usage_error(c, "--logit-bias %s is not ID=BIAS, as 42=-1.5", text);
        out[i] = (struct lk_logit_bias){(uint32_t)id, bias};
    }
    return CMD_OK;
}

static int options(struct cmd_context *c, struct lk_generate_options *o) {
    static struct lk_logit_bias biases[CMD_MANY];
    if (read_biases(c, &wanted.biases, biases)) return CMD_USAGE;
    o->sampling = wanted.sampling;
    o->penalties = wanted.penalties;
    o->penalties.bias = biases, o->penalties.bias_count = wanted.biases.count;
    o->max_tokens = wanted.tokens;
    o->cache = cmd_cache(wanted.cache);
    o->panels = wanted.tokens >= PANELS_FROM;
    o->stops = wanted.stops.items;
    o->stop_count = wanted.stops.count;
    for (size_t i = 0; i < o->stop_count; i++)
        if (!*o->stops[i]) return cmd_usage_error(c, "--stop must not be empty");
    if ((wanted.grammar != NULL) + (wanted.schema != NULL) + wanted.object > 1)
        return cmd_usage_error(c, "give one of --grammar, --json-schema and --json-object");
    if (wanted.talk && wanted.chat) return cmd_usage_error(c, "give one of --chat and --template");
    if (wanted.system && !wanted.chat && !wanted.talk) return cmd_usage_error(c, "--system goes with --chat or --template");
    if ((wanted.chat || wanted.talk) && wanted.bos != AUTO)
        return cmd_usage_error(c, "--bos %s goes without a template, which says itself how a prompt begins",
                               wanted.bos == YES ? "yes" : "no");
    return CMD_OK;
}

/* A prompt that is not a plain text: what a user says, in the template's words, with a stop token that ends the answer; or
 * one that begins otherwise than lk_generate would have it. */
struct prepared {
    struct lk_tokens ids;
    uint32_t ends[LK_MODEL_STOPS + 1];
};

static int say(const struct lk_tokenizer *t, struct lk_bytes prompt, struct prepared *p, uint32_t *stop,
               struct lk_err *err) {
    const char *system = wanted.system;
    struct lk_message messages[2];
    size_t count = 0;
    if (system)
        messages[count++] = (struct lk_message){.role = lk_bytes("system", 6), .content = lk_bytes(system, strlen(system))};
    messages[count++] = (struct lk_message){.role = lk_bytes("user", 4), .content = prompt};
    struct lk_conversation c = {.messages = messages, .count = count};
    return lk_chat_prompt(t, wanted.chat, &c, &p->ids, stop, err);
}

/* Without the tokenizer's first token. A model that came from a folder reads the text alone, as transformers has it; others
 * begin with the end token, as their datasets did. */
static int begin_without(const struct lk_tokenizer *t, struct lk_bytes prompt, bool folder, struct lk_tokens *out,
                         struct lk_err *err) {
    uint32_t end = lk_tokenizer_end(t);
    if (end != UINT32_MAX && (!folder || !prompt.size)) {
        if (!(out->ids = lk_alloc(64 * sizeof *out->ids))) return lk_fail(err, LK_ENOMEM, "no memory for a prompt");
        out->capacity = 64;
        out->ids[out->count++] = end;
    }
    int code = lk_tokenizer_encode(t, prompt.data, prompt.size, NULL, out, err);
    if (!code && !out->count)
        code =
            lk_fail(err, LK_EINVAL,
                    "the prompt is empty and the tokenizer has no end token to begin with: give a PROMPT, or leave --bos "
                    "out");
    return code;
}

static int prepare(const struct lk_tokenizer *t, struct lk_bytes prompt, const struct cmd_model *m, struct prepared *p,
                   struct lk_generate_options *o, struct lk_err *err) {
    bool folder = json_is_string(json_object_get(m->model.manifest, "type")), begins = lk_tokenizer_begin(t) != UINT32_MAX;
    int code = LK_OK;
    memcpy(p->ends, m->model.stops, m->model.stop_count * sizeof *p->ends);
    o->ends = p->ends;
    o->end_count = m->model.stop_count;
    if (wanted.chat)
        code = say(t, prompt, p, &p->ends[o->end_count++], err);
    else if (wanted.bos == YES && !begins)
        code = lk_fail(err, LK_EINVAL, "the tokenizer has no token that begins a text (--bos yes): leave --bos out");
    else if (begins ? wanted.bos == NO : prompt.size && lk_model_text_begin(&m->model, t) == UINT32_MAX)
        code = begin_without(t, prompt, folder, &p->ids, err);
    o->ids = p->ids.ids;
    o->id_count = p->ids.count;
    return code;
}

static int load_tokenizer(struct cmd_context *c, const struct cmd_model *m, struct lk_tokenizer **out, struct lk_err *err) {
    if (!m->model.has_tokenizer)
        return lk_fail(err, LK_EINVAL, "model %s was imported without a tokenizer, so it cannot read or write text",
                       m->ref.name);
    return lk_tokenizer_load(c->store, &m->model.tokenizer_root, out, err);
}

/* PROMPT, or standard input into `input`. */
static int read_prompt(const struct cmd_context *c, struct lk_buf *input, struct lk_bytes *prompt, struct lk_err *err) {
    const char *text = c->argument_count > 1 ? c->arguments[1] : "";
    *prompt = lk_bytes(text, strlen(text));
    if (strcmp(text, "-")) return LK_OK;
    int code = cmd_read_input(NULL, input, err);
    size_t bom = code || !input->size ? 0 : lk_skip_bom(input->data, input->size);
    *prompt = input->size ? lk_bytes(input->data + bom, input->size - bom) : lk_bytes("", 0);
    return code;
}

static int print_result(const struct lk_generation *g, struct output *out, struct lk_bytes prompt) {
    static const char *const reasons[] = {"length", "end", "stop", "interrupted"};
    if (!out->json) {
        printf("\n");
        fflush(stdout);
        fprintf(stderr, "%u token%s, %.0f tokens/s (%s)\n", g->tokens, g->tokens == 1 ? "" : "s",
                g->seconds > 0 ? g->tokens / g->seconds : 0, reasons[g->finish]);
        return CMD_OK;
    }
    json_t *bytes, *text = cmd_json_text(out->all.data, out->all.size, &bytes);
    return cmd_print_json(json_pack(
        "{s:o, s:o, s:o, s:O, s:I, s:I, s:s, s:f, s:f}", "prompt", cmd_json_text(prompt.data, prompt.size, NULL), "text",
        text, "bytes", bytes, "ids", out->ids, "prompt_tokens", (json_int_t)g->prompt_tokens, "tokens",
        (json_int_t)g->tokens, "finish", reasons[g->finish], "prompt_seconds", g->prompt_seconds, "seconds", g->seconds));
}

/* What the text has to satisfy. */
struct constraint {
    struct lk_grammar *grammar;
    struct lk_vocabulary *vocabulary;
    struct lk_matcher *matcher;
};

static int read_grammar(struct lk_grammar **out, struct lk_err *err) {
    const char *path = wanted.grammar ? wanted.grammar : wanted.schema;
    struct lk_buf text = LK_BUF_INIT;
    json_t *schema = NULL;
    if (!path) return lk_grammar_json_object(out, err);
    int code = cmd_read_input(path, &text, err);
    if (!code && wanted.schema && !(schema = lk_json_parse(text.data ? text.data : "", text.size, path, err)))
        code = err->code;
    if (!code) {
        code = schema ? lk_grammar_from_schema(schema, out, err)
                      : lk_grammar_from_gbnf(text.data ? text.data : "", text.size, out, err);
        if (code) code = lk_fail_prefix(err, code, "%s", path);
    }
    json_decref(schema);
    lk_buf_release(&text);
    return code;
}
static int constrain(const struct lk_tokenizer *t, struct constraint *out, struct lk_generate_options *o,
                     struct lk_err *err) {
    if (!wanted.grammar && !wanted.schema && !wanted.object) return LK_OK;
    int code = read_grammar(&out->grammar, err);
    if (!code) code = lk_vocabulary_create(t, o->ends, o->end_count, NULL, &out->vocabulary, err);
    if (!code) code = lk_matcher_create(out->grammar, out->vocabulary, &out->matcher, err);
    o->matcher = out->matcher;
    return code;
}

/* From the opened model to all of its text. */
static int run(struct cmd_context *c, const struct cmd_model *m, struct lk_bytes prompt, struct output *out,
               struct lk_generate_options *o, struct lk_generation *g, struct lk_err *err) {
    struct lk_tokenizer *t = NULL;
    struct prepared prepared = {0};
    struct constraint constraint = {0};
    int code = out->json && !(out->ids = json_array()) ? lk_fail(err, LK_ENOMEM, "no memory for ids") : LK_OK;
    if (!code) code = load_tokenizer(c, m, &t, err);
    if (!code && wanted.talk && !(wanted.chat = m->model.chat))
        code = lk_fail(err, LK_EINVAL, "%s has no chat template that is known here: say by --template (" LK_CHAT_NAMES ")",
                       m->ref.name);
    if (!code) code = prepare(t, prompt, m, &prepared, o, err);
    if (!code) code = constrain(t, &constraint, o, err);
    if (!code && !out->json && !wanted.chat) put_text(out, prompt.data, prompt.size);
    if (!code) code = lk_generate(c->math, &m->model.layout, m->model.weights, t, prompt.data, prompt.size, o, g, err);
    if (!code && out->incomplete)
        code = lk_fail(err, LK_ENOMEM, "no memory for all of the text: leave out --json, or ask for fewer --tokens");
    lk_tokenizer_free(t);
    lk_tokens_release(&prepared.ids);
    lk_matcher_free(constraint.matcher);
    lk_vocabulary_free(constraint.vocabulary);
    lk_grammar_free(constraint.grammar);
    if (!code && g->prompt_tokens > m->model.layout.config.context)
        lk_log_warn("the prompt has %u tokens, the model's context %u: its beginning was not read", g->prompt_tokens,
                    m->model.layout.config.context);
    return code;
}

static int generate(struct cmd_context *c) {
    struct lk_err err = {0};
    struct cmd_model m;
    struct output out = {.json = c->json};
    struct lk_generation g;
    struct lk_generate_options o = {.text = put_text, .token = put_id, .arg = &out};
    struct lk_buf input = LK_BUF_INIT;
    struct lk_bytes prompt;
    if (options(c, &o)) return CMD_USAGE;
    int code = read_prompt(c, &input, &prompt, &err) ? cmd_fail(&err) : cmd_model_open(c, c->arguments[0], &m);
    if (!code) {
        cmd_catch_signals();
        code = run(c, &m, prompt, &out, &o, &g, &err) ? cmd_fail(&err) : CMD_OK;
        cmd_model_close(&m);
        if (!code) code = print_result(&g, &out, prompt);
    }
    json_decref(out.ids);
    lk_buf_release(&out.all);
    lk_buf_release(&input);
    return code;
}
const struct cmd cmd_generate = {
    "generate",
    "MODEL|RUN[@STEP] [PROMPT]",
    1,
    2,
    "Go on from a prompt (\"-\": standard input).",
    (const struct cmd_option[]){
        CMD_U32("--tokens", "N", &wanted.tokens, 1, 100000000, "200", "at most this many"),
        CMD_F64("--temperature", "X", &wanted.sampling.temperature, 0, 1000, "0.8",
                "the higher, the less likely tokens come; 0: always the likeliest"),
        CMD_U32("--top-k", "N", &wanted.sampling.top_k, 0, UINT32_MAX, "0", "only the N likeliest tokens, or all: 0"),
        CMD_F64("--top-p", "X", &wanted.sampling.top_p, 0, 1, "0.95",
                "only the likeliest tokens that together have this share"),
        CMD_F64("--min-p", "X", &wanted.sampling.min_p, 0, 1, "0",
                "only tokens at least X times as likely as the likeliest, or all: 0"),
        CMD_F64("--repetition-penalty", "X", &wanted.penalties.repetition, 0.01, LK_REPETITION_MOST, "1",
                "divides logits above 0 of tokens that the text has, multiplies those below; 1: off"),
        CMD_F64("--presence-penalty", "X", &wanted.penalties.presence, -2, 2, "0",
                "taken from the logits of tokens that were drawn"),
        CMD_F64("--frequency-penalty", "X", &wanted.penalties.frequency, -2, 2, "0",
                "taken from them once for each time that they were drawn"),
        CMD_LIST("--logit-bias", "ID=X", &wanted.biases, "added to that token's logit; may be repeated"),
        CMD_U64("--seed", "N", &wanted.sampling.seed, 0, UINT64_MAX, "1", "of the draws"),
        CMD_U32("--choice", "N", &wanted.sampling.choice, 0, UINT32_MAX, "0", "which of the texts of that seed"),
        CMD_LIST("--stop", "S", &wanted.stops, "end before this text; may be repeated"),
        CMD_STRING("--grammar", "FILE", &wanted.grammar, NULL, "only text of this grammar, in llama.cpp's GBNF"),
        CMD_STRING("--json-schema", "FILE", &wanted.schema, NULL, "only JSON that satisfies this schema, on one line"),
        CMD_FLAG("--json-object", &wanted.object, "only a JSON object, on one line"),
        CMD_FLAG("--chat", &wanted.talk, "the prompt is what a user says, in the model's own template"),
        CMD_CALL("--template", "NAME", &wanted.chat, cmd_take_template, NULL,
                 "the prompt is what a user says, in this template: " LK_CHAT_NAMES),
        CMD_STRING("--system", "TEXT", &wanted.system, NULL, "what stands before it as the system's message"),
        CMD_CACHE("--cache", &wanted.cache),
        CMD_CHOICE("--bos", &wanted.bos, "auto|yes|no", "auto",
                   "begin a prompt with the tokenizer's first token, as dataset build does; auto: if it has one"),
        CMD_END},
    "Equal weights, prompt, options and seed give equal text, on any machine.\n"
    "With --json, text that is not UTF-8 has U+FFFD for what is none, and bytes has all of it in hexadecimal.",
    generate};
