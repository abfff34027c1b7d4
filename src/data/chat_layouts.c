/* What each template writes, mark by mark. The texts in quotes are what models learned to read; they stand here as the
 * templates of their makers write them (which: src/data/README.md, "Conversations"). */
#include "data/chat.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static bool is(struct lk_bytes b, const char *word) {
    return b.size == strlen(word) && memcmp(b.data, word, b.size) == 0;
}
static bool same(struct lk_bytes a, struct lk_bytes b) {
    return a.size == b.size && !memcmp(a.data, b.data, a.size);
}
static bool begins(struct lk_bytes b, const char *word) {
    return b.size >= strlen(word) && !memcmp(b.data, word, strlen(word));
}
static bool ends(struct lk_bytes b, const char *word) {
    size_t n = strlen(word);
    return b.size >= n && !memcmp((const char *)b.data + b.size - n, word, n);
}
/* Without newlines at the begin, at the end. */
static struct lk_bytes without_lines(struct lk_bytes b, bool begin, bool end) {
    const char *p = b.data;
    size_t n = b.size;
    for (; begin && n && *p == '\n'; n--) p++;
    while (end && n && p[n - 1] == '\n') n--;
    return lk_bytes(p, n);
}
/* Whoever named a tool: marks in it are none. */
static void put_name(struct lk__data_chat_render *r, const json_t *call) {
    const json_t *name = json_object_get(call, "name");
    lk__data_chat_content(r, lk_bytes(json_string_value(name), json_string_length(name)));
}

/* What the assistant says is a target, its head is not. */
static void said(struct lk__data_chat_render *r, struct lk_bytes text) {
    lk__data_chat_target(r, true);
    lk__data_chat_content(r, text);
}
static void over(struct lk__data_chat_render *r, const char *mark, const char *behind) {
    lk__data_chat_put(r, mark);
    lk__data_chat_target(r, false);
    lk__data_chat_put(r, behind);
}

/* --- ChatML ------------------------------------------------------------------------------------------------
 * <|im_start|>ROLE\nCONTENT<|im_end|>\n ... */

static void head(struct lk__data_chat_render *r, struct lk_bytes role) {
    lk__data_chat_put(r, "<|im_start|>");
    lk__data_chat_content(r, role);
    lk__data_chat_put(r, "\n");
}
static void message(struct lk__data_chat_render *r, const struct lk_message *m) {
    head(r, m->role);
    if (is(m->role, "assistant"))
        said(r, m->content);
    else
        lk__data_chat_content(r, m->content);
    over(r, "<|im_end|>", "\n");
}
void lk__data_chat_chatml(struct lk__data_chat_render *r) {
    const struct lk_conversation *c = r->of;
    const char *system = r->chat->rules->system;
    if (system && c->count && !is(c->messages[0].role, "system")) {
        lk__data_chat_put(r, "<|im_start|>system\n");
        lk__data_chat_put(r, system);
        lk__data_chat_put(r, "<|im_end|>\n");
    }
    for (size_t i = 0; i < c->count; i++) message(r, &c->messages[i]);
    if (r->answer) lk__data_chat_put(r, "<|im_start|>assistant\n");
}

/* --- Qwen 2.5 and 3 ----------------------------------------------------------------------------------------- */

static void qwen_system(struct lk__data_chat_render *r, bool three) {
    const struct lk_conversation *c = r->of;
    bool own = c->count && is(c->messages[0].role, "system");
    if (!c->tools && !own && three) return;
    lk__data_chat_put(r, "<|im_start|>system\n");
    if (own)
        lk__data_chat_content(r, c->messages[0].content);
    else if (!three)
        lk__data_chat_put(r, r->chat->rules->system);
    if (c->tools) {
        if (own || !three) lk__data_chat_put(r, "\n\n");
        lk__data_chat_put(
            r, "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided "
               "with function signatures within <tools></tools> XML tags:\n<tools>");
        for (size_t i = 0; i < json_array_size(c->tools); i++) {
            lk__data_chat_put(r, "\n");
            lk__data_chat_json(r, json_array_get(c->tools, i), 0);
        }
        lk__data_chat_put(r, "\n</tools>\n\nFor each function call, return a json object with function name and arguments "
                             "within <tool_call></tool_call> XML tags:\n<tool_call>\n");
        /* the coder's template has a slip, which its model has read */
        bool twice = r->chat->kind == LK_CHAT_QWEN25_CODER;
        lk__data_chat_put(r, twice ? "{{" : "{");
        lk__data_chat_put(r, "\"name\": <function-name>, \"arguments\": <args-json-object>}");
        lk__data_chat_put(r, twice ? "}\n</tool_call>" : "\n</tool_call>");
    }
    lk__data_chat_put(r, "<|im_end|>\n");
}

static void qwen_tool_result(struct lk__data_chat_render *r, size_t i) {
    const struct lk_conversation *c = r->of;
    if (i == 0 || !is(c->messages[i - 1].role, "tool")) lk__data_chat_put(r, "<|im_start|>user");
    lk__data_chat_put(r, "\n<tool_response>\n");
    lk__data_chat_content(r, c->messages[i].content);
    lk__data_chat_put(r, "\n</tool_response>");
    if (i + 1 == c->count || !is(c->messages[i + 1].role, "tool")) lk__data_chat_put(r, "<|im_end|>\n");
}
static void qwen_call(struct lk__data_chat_render *r, const json_t *call, bool newline) {
    lk__data_chat_put(r, newline ? "\n<tool_call>\n{\"name\": \"" : "<tool_call>\n{\"name\": \"");
    put_name(r, call);
    lk__data_chat_put(r, "\", \"arguments\": ");
    lk__data_chat_json(r, json_object_get(call, "arguments"), 0);
    lk__data_chat_put(r, "}\n</tool_call>");
}

void lk__data_chat_qwen25(struct lk__data_chat_render *r) {
    const struct lk_conversation *c = r->of;
    qwen_system(r, false);
    for (size_t i = 0; i < c->count; i++) {
        const struct lk_message *m = &c->messages[i];
        if (is(m->role, "system") && i == 0) continue;
        if (is(m->role, "tool")) {
            qwen_tool_result(r, i);
        } else if (!m->calls) {
            message(r, m);
        } else {
            lk__data_chat_put(r, "<|im_start|>assistant");
            if (m->content.size) lk__data_chat_put(r, "\n"), said(r, m->content);
            lk__data_chat_target(r, true);
            for (size_t k = 0; k < json_array_size(m->calls); k++) qwen_call(r, json_array_get(m->calls, k), true);
            over(r, "<|im_end|>", "\n");
        }
    }
    if (r->answer) lk__data_chat_put(r, "<|im_start|>assistant\n");
}

/* What stands behind the last </think>, and the thought before the first. */
static void split_thought(struct lk_bytes all, struct lk_bytes *content, struct lk_bytes *thought) {
    static const char close[] = "</think>", open[] = "<think>";
    const char *p = all.data, *first = memmem(p, all.size, close, strlen(close)), *last = first, *at;
    *content = all, *thought = lk_bytes("", 0);
    if (!first) return;
    const char *end = p + all.size;
    while ((at = memmem(last + 1, (size_t)(end - last - 1), close, strlen(close)))) last = at;
    *content = without_lines(lk_bytes(last + strlen(close), (size_t)(end - last) - strlen(close)), true, false);
    struct lk_bytes before = without_lines(lk_bytes(p, (size_t)(first - p)), false, true);
    p = before.data, end = p + before.size;
    while ((at = memmem(p, (size_t)(end - p), open, strlen(open)))) p = at + strlen(open);
    *thought = without_lines(lk_bytes(p, (size_t)(end - p)), true, false);
}

/* Thoughts stay behind the last question: a message of a user that is no result of a tool. */
static size_t last_question(const struct lk_conversation *c) {
    for (size_t i = c->count; i-- > 0;) {
        struct lk_bytes text = c->messages[i].content;
        if (is(c->messages[i].role, "user") && !(begins(text, "<tool_response>") && ends(text, "</tool_response>")))
            return i;
    }
    return c->count - 1;
}
static void qwen3_answer(struct lk__data_chat_render *r, size_t i, size_t question) {
    const struct lk_message *m = &r->of->messages[i];
    struct lk_bytes content, thought;
    split_thought(m->content, &content, &thought);
    bool thinks = i > question && (i + 1 == r->of->count || thought.size);
    bool opened = thinks && r->chat->kind == LK_CHAT_QWEN3_THINKING; /* by the head */
    lk__data_chat_put(r, opened ? "<|im_start|>assistant\n<think>\n" : "<|im_start|>assistant\n");
    lk__data_chat_target(r, true);
    if (thinks) {
        if (!opened) lk__data_chat_put(r, "<think>\n");
        lk__data_chat_content(r, without_lines(thought, true, true));
        lk__data_chat_put(r, "\n</think>\n\n");
        lk__data_chat_content(r, without_lines(content, true, false));
    } else
        lk__data_chat_content(r, content);
    for (size_t k = 0; k < json_array_size(m->calls); k++)
        qwen_call(r, json_array_get(m->calls, k), k > 0 || content.size > 0);
    over(r, "<|im_end|>", "\n");
}
void lk__data_chat_qwen3(struct lk__data_chat_render *r) {
    const struct lk_conversation *c = r->of;
    size_t question = c->count ? last_question(c) : 0;
    qwen_system(r, true);
    for (size_t i = 0; i < c->count; i++) {
        const struct lk_message *m = &c->messages[i];
        if (is(m->role, "system") && i == 0) continue;
        if (is(m->role, "tool"))
            qwen_tool_result(r, i);
        else if (is(m->role, "assistant"))
            qwen3_answer(r, i, question);
        else
            message(r, m);
    }
    if (r->answer) lk__data_chat_put(r, "<|im_start|>assistant\n");
    if (r->answer && r->chat->kind == LK_CHAT_QWEN3_THINKING)
        lk__data_chat_put(r, "<think>\n");
    else if (r->answer && c->no_thinking)
        lk__data_chat_put(r, "<think>\n\n</think>\n\n");
}

/* --- Llama 3 ------------------------------------------------------------------------------------------------
 * <|begin_of_text|><|start_header_id|>ROLE<|end_header_id|>\n\nCONTENT<|eot_id|> ... */

static void llama_head(struct lk__data_chat_render *r, struct lk_bytes role) {
    lk__data_chat_put(r, "<|start_header_id|>");
    lk__data_chat_content(r, role);
    lk__data_chat_put(r, "<|end_header_id|>\n\n");
}
static void llama_message(struct lk__data_chat_render *r, const struct lk_message *m) {
    llama_head(r, m->role);
    if (is(m->role, "assistant")) lk__data_chat_target(r, true);
    lk__data_chat_content(r, lk__data_chat_trimmed(m->content));
    over(r, "<|eot_id|>", "");
}
void lk__data_chat_llama3(struct lk__data_chat_render *r) {
    lk__data_chat_put(r, "<|begin_of_text|>");
    for (size_t i = 0; i < r->of->count; i++) llama_message(r, &r->of->messages[i]);
    if (r->answer) llama_head(r, lk_bytes("assistant", 9));
}

/* "26 Jul 2024" is what the template says where it is given no date. A dataset always has that: no time reaches its root.
 */
static void today(const struct lk_conversation *c, bool knows, char out[32]) {
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    time_t now = time(NULL);
    struct tm t;
    snprintf(out, 32, "%s", c->date ? c->date : "26 Jul 2024");
    if (!c->date && knows && localtime_r(&now, &t))
        snprintf(out, 32, "%02d %.3s %d", t.tm_mday, months + 3 * t.tm_mon, 1900 + t.tm_year);
}
static void llama_tools(struct lk__data_chat_render *r, const struct lk_message *first) {
    llama_head(r, lk_bytes("user", 4));
    lk__data_chat_put(r, "Given the following functions, please respond with a JSON for a function call with its proper "
                         "arguments that best answers the given prompt.\n\nRespond in the format {\"name\": function name, "
                         "\"parameters\": dictionary of argument name and its value}.Do not use variables.\n\n");
    for (size_t i = 0; i < json_array_size(r->of->tools); i++) {
        lk__data_chat_json(r, json_array_get(r->of->tools, i), 4);
        lk__data_chat_put(r, "\n\n");
    }
    lk__data_chat_content(r, lk__data_chat_trimmed(first->content));
    lk__data_chat_put(r, "<|eot_id|>");
}
static void llama_call(struct lk__data_chat_render *r, const json_t *calls) {
    const json_t *call = json_array_get(calls, 0);
    if (json_array_size(calls) != 1)
        lk__data_chat_refuse(r, "the template %s has one call at a time", r->chat->rules->name);
    llama_head(r, lk_bytes("assistant", 9));
    lk__data_chat_target(r, true);
    lk__data_chat_put(r, "{\"name\": \"");
    put_name(r, call);
    lk__data_chat_put(r, "\", \"parameters\": ");
    lk__data_chat_json(r, json_object_get(call, "arguments"), 0);
    lk__data_chat_put(r, "}");
    over(r, "<|eot_id|>", "");
}
void lk__data_chat_llama31(struct lk__data_chat_render *r) {
    const struct lk_conversation *c = r->of;
    size_t i = c->count && is(c->messages[0].role, "system");
    char date[32];
    today(c, r->chat->kind == LK_CHAT_LLAMA32 && r->answer, date);
    lk__data_chat_put(r, "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n");
    if (c->tools) lk__data_chat_put(r, "Environment: ipython\n");
    lk__data_chat_put(r, "Cutting Knowledge Date: December 2023\nToday Date: ");
    lk__data_chat_put(r, date);
    lk__data_chat_put(r, "\n\n");
    if (i) lk__data_chat_content(r, lk__data_chat_trimmed(c->messages[0].content));
    lk__data_chat_put(r, "<|eot_id|>");
    if (c->tools && i == c->count)
        lk__data_chat_refuse(r, "the template %s puts tools into the first message of the user, and there is none",
                             r->chat->rules->name);
    else if (c->tools)
        llama_tools(r, &c->messages[i++]);
    for (; i < c->count; i++) {
        const struct lk_message *m = &c->messages[i];
        if (m->calls) {
            llama_call(r, m->calls);
        } else if (is(m->role, "tool")) {
            llama_head(r, lk_bytes("ipython", 7));
            lk__data_chat_json_string(r, m->content);
            lk__data_chat_put(r, "<|eot_id|>");
        } else
            llama_message(r, m);
    }
    if (r->answer) llama_head(r, lk_bytes("assistant", 9));
}

/* --- [INST] ... [/INST] --------------------------------------------------------------------------------------- */

static void must_alternate(struct lk__data_chat_render *r, size_t from) {
    size_t place = 0;
    for (size_t i = from; i < r->of->count; i++) {
        const struct lk_message *m = &r->of->messages[i];
        if (is(m->role, "tool") || m->calls) continue;
        if (!is(m->role, place++ % 2 ? "assistant" : "user"))
            lk__data_chat_refuse(r, "the template %s wants user and assistant in turns%s, and message %zu is of %.*s",
                                 r->chat->rules->name, from ? " after the system's message" : "", i,
                                 m->role.size > 20 ? 20 : (int)m->role.size, (const char *)m->role.data);
    }
}
static void inst_answer(struct lk__data_chat_render *r, const char *before, struct lk_bytes text, const char *after,
                        const char *behind) {
    lk__data_chat_target(r, true);
    lk__data_chat_put(r, before);
    lk__data_chat_content(r, text);
    lk__data_chat_put(r, after);
    over(r, "</s>", behind);
}

void lk__data_chat_llama2(struct lk__data_chat_render *r) {
    const struct lk_conversation *c = r->of;
    size_t first = c->count && is(c->messages[0].role, "system");
    must_alternate(r, first);
    for (size_t i = first; i < c->count; i++) {
        const struct lk_message *m = &c->messages[i];
        if (is(m->role, "assistant")) {
            inst_answer(r, " ", lk__data_chat_trimmed(m->content), " ", "");
            continue;
        }
        lk__data_chat_put(r, "<s>[INST] ");
        if (i == first && first) { /* all of it is trimmed together: its begin is no space */
            lk__data_chat_put(r, "<<SYS>>\n");
            lk__data_chat_content(r, c->messages[0].content);
            lk__data_chat_put(r, "\n<</SYS>>");
            struct lk_bytes rest = lk__data_chat_trimmed_end(m->content);
            if (rest.size) lk__data_chat_put(r, "\n\n");
            lk__data_chat_content(r, rest);
        } else
            lk__data_chat_content(r, lk__data_chat_trimmed(m->content));
        lk__data_chat_put(r, " [/INST]");
    }
}

/* What differs between Mistral's: what stands before and behind a question and an answer, and where the system's message
 * goes. */
static const struct inst {
    enum lk_chat kind;
    const char *open, *close, *before, *behind;
    enum { NOWHERE, FIRST, LAST } system;
    const char *space; /* behind marks of tools; answers are trimmed with it */
} insts[] = {
    {LK_CHAT_MISTRAL, "[INST] ", " [/INST]", "", "", NOWHERE},
    {LK_CHAT_MISTRAL_SPACE, "[INST] ", " [/INST]", "", " ", NOWHERE},
    {LK_CHAT_MISTRAL_V1, " [INST] ", " [/INST]", " ", "", FIRST},
    {LK_CHAT_MISTRAL_V3, "[INST] ", "[/INST]", " ", "", LAST},
    {LK_CHAT_MISTRAL_TOOLS, "[INST]", "[/INST]", "", "", LAST, ""},
    {LK_CHAT_MISTRAL_V3_TOOLS, "[INST] ", "[/INST]", " ", "", LAST, " "},
};

/* A mark of tools and what begins behind it. */
static void mistral_open(struct lk__data_chat_render *r, const struct inst *n, const char *mark, const char *what) {
    lk__data_chat_put(r, mark);
    lk__data_chat_put(r, n->space);
    lk__data_chat_put(r, what);
}
static void mistral_tools(struct lk__data_chat_render *r, const struct inst *n) {
    mistral_open(r, n, "[AVAILABLE_TOOLS]", "[");
    for (size_t i = 0; i < json_array_size(r->of->tools); i++) {
        const char *key, *between = "";
        json_t *value, *f = json_object_get(json_array_get(r->of->tools, i), "function");
        lk__data_chat_put(r, i ? ", {\"type\": \"function\", \"function\": {" : "{\"type\": \"function\", \"function\": {");
        json_object_foreach(f, key, value) {
            if (!strcmp(key, "return")) continue;
            lk__data_chat_put(r, between), between = ", ";
            lk__data_chat_put(r, "\""), lk__data_chat_content(r, lk_bytes(key, strlen(key))), lk__data_chat_put(r, "\": ");
            if (json_is_string(value)) { /* as the template has it: nothing is escaped */
                lk__data_chat_put(r, "\"");
                lk__data_chat_content(r, lk_bytes(json_string_value(value), json_string_length(value)));
                lk__data_chat_put(r, "\"");
            } else
                lk__data_chat_json(r, value, 0);
        }
        lk__data_chat_put(r, "}}");
    }
    lk__data_chat_put(r, "][/AVAILABLE_TOOLS]");
}
static void mistral_id(struct lk__data_chat_render *r, struct lk_bytes id) {
    if (id.size != 9)
        lk__data_chat_refuse(r, "the template %s wants ids of calls with nine letters and digits, not \"%.*s\"",
                             r->chat->rules->name, id.size > 40 ? 40 : (int)id.size, (const char *)id.data);
}
static void mistral_calls(struct lk__data_chat_render *r, const struct inst *n, const json_t *calls) {
    lk__data_chat_target(r, true);
    mistral_open(r, n, "[TOOL_CALLS]", "[");
    for (size_t i = 0; i < json_array_size(calls); i++) {
        const json_t *call = json_array_get(calls, i), *id = json_object_get(call, "id");
        struct lk_bytes text = lk_bytes(json_string_value(id), json_string_length(id));
        mistral_id(r, text);
        lk__data_chat_put(r, i ? ", {\"name\": \"" : "{\"name\": \"");
        put_name(r, call);
        lk__data_chat_put(r, "\", \"arguments\": ");
        lk__data_chat_json(r, json_object_get(call, "arguments"), 0);
        lk__data_chat_put(r, ", \"id\": \"");
        lk__data_chat_content(r, text);
        lk__data_chat_put(r, "\"}");
    }
    lk__data_chat_put(r, "]");
    over(r, "</s>", "");
}
static const struct lk_message *last_of_user(const struct lk_conversation *c) {
    for (size_t i = c->count; i-- > 0;)
        if (is(c->messages[i].role, "user")) return &c->messages[i];
    return NULL;
}
static void mistral_question(struct lk__data_chat_render *r, const struct inst *n, size_t i, size_t first) {
    const struct lk_conversation *c = r->of;
    const struct lk_message *m = &c->messages[i], *last = last_of_user(c);
    if (c->tools && same(m->content, last->content)) mistral_tools(r, n);
    lk__data_chat_put(r, n->open);
    if (first && (n->system == FIRST ? i == first : i + 1 == c->count)) {
        lk__data_chat_content(r, c->messages[0].content);
        lk__data_chat_put(r, "\n\n");
    }
    lk__data_chat_content(r, m->content);
    lk__data_chat_put(r, n->close);
}
void lk__data_chat_mistral(struct lk__data_chat_render *r) {
    const struct lk_conversation *c = r->of;
    const struct inst *n = insts;
    while (n->kind != r->chat->kind) n++;
    size_t first = n->system != NOWHERE && c->count && is(c->messages[0].role, "system");
    must_alternate(r, first);
    lk__data_chat_put(r, "<s>");
    for (size_t i = first; i < c->count; i++) {
        const struct lk_message *m = &c->messages[i];
        if (is(m->role, "user")) {
            mistral_question(r, n, i, first);
        } else if (is(m->role, "tool")) {
            mistral_id(r, m->call);
            mistral_open(r, n, "[TOOL_RESULTS]", "{\"content\": ");
            lk__data_chat_content(r, m->content);
            lk__data_chat_put(r, ", \"call_id\": \"");
            lk__data_chat_content(r, m->call);
            lk__data_chat_put(r, "\"}[/TOOL_RESULTS]");
        } else if (m->calls)
            mistral_calls(r, n, m->calls);
        else
            inst_answer(r, n->before, n->space && *n->space ? lk__data_chat_trimmed(m->content) : m->content, "",
                        n->behind);
    }
}

/* --- Zephyr, as TinyLlama has it: <|ROLE|>\nCONTENT</s>\n, all but </s> plain text -------------------------------- */

void lk__data_chat_zephyr(struct lk__data_chat_render *r) {
    for (size_t i = 0; i < r->of->count; i++) {
        const struct lk_message *m = &r->of->messages[i];
        lk__data_chat_put(r, "<|");
        lk__data_chat_content(r, m->role);
        lk__data_chat_put(r, "|>\n");
        if (is(m->role, "assistant")) lk__data_chat_target(r, true);
        lk__data_chat_content(r, m->content);
        over(r, "</s>", "\n");
    }
    if (r->answer) lk__data_chat_put(r, "<|assistant|>\n");
}
