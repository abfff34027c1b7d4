/* Conversations of requests: messages, tools, and what tools make of the answer's form. */
#include "inside.h"

#include <stdlib.h>
#include <string.h>

/* --- Tools ------------------------------------------------------------------------------------------------ */

#define TOOLS_MOST 128
#define NAME_MOST  64

/* Unknown keys are refused: names ends with NULL. */
static int only_keys(const json_t *v, const char *const names[], const char *param, size_t i, const char *what,
                     struct lk__api_problem *p) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)v, key, value) {
        size_t k = 0;
        while (names[k] && strcmp(names[k], key)) k++;
        if (!names[k] && !json_is_null(value))
            return lk__api_wrong(p, param, "%s[%zu].%s%.40s is not supported", param, i, what, key);
    }
    return LK_OK;
}

static bool is_name(const json_t *v) {
    const char *name = json_string_value(v);
    size_t n = json_string_length(v);
    return n && n <= NAME_MOST && strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == n;
}
static const json_t *name_in(const json_t *tool) {
    return json_object_get(json_object_get(tool, "function"), "name");
}
static const char *name_of(const json_t *tool) {
    return json_string_value(name_in(tool));
}
static bool is_type(const json_t *v, const char *type) {
    const char *text = json_string_value(json_object_get(v, "type"));
    return text && !strcmp(text, type);
}

static int check_tool(const json_t *tools, size_t i, struct lk__api_problem *p) {
    static const char *const keys[] = {"type", "function", NULL};
    static const char *const function_keys[] = {"name", "description", "parameters", "strict", NULL};
    const json_t *tool = json_array_get(tools, i), *f = json_object_get(tool, "function"),
                 *parameters = json_object_get(f, "parameters"), *description = json_object_get(f, "description"),
                 *strict = json_object_get(f, "strict");
    if (!is_type(tool, "function") || !json_is_object(f))
        return lk__api_wrong(p, "tools", "tools[%zu] must be {\"type\": \"function\", \"function\": {...}}", i);
    int code = only_keys(tool, keys, "tools", i, "", p);
    if (!code) code = only_keys(f, function_keys, "tools", i, "function.", p);
    if (code) return code;
    if (!is_name(name_in(tool)))
        return lk__api_wrong(p, "tools", "tools[%zu].function.name must be 1 to %d letters, digits, _ and -", i, NAME_MOST);
    for (size_t k = 0; k < i; k++)
        if (!strcmp(name_of(json_array_get(tools, k)), name_of(tool)))
            return lk__api_wrong(p, "tools", "tools[%zu] and tools[%zu] have the same name %s", k, i, name_of(tool));
    if (description && !json_is_null(description) && !json_is_string(description))
        return lk__api_wants(p, "tools", "a string in function.description", description);
    if (parameters && !json_is_null(parameters) && !json_is_object(parameters))
        return lk__api_wants(p, "tools", "a schema in function.parameters", parameters);
    if (strict && !json_is_null(strict) && !json_is_boolean(strict))
        return lk__api_wants(p, "tools", "true or false in function.strict", strict);
    return LK_OK;
}

int lk__api_read_tools(const json_t *v, struct lk__api_ask *a, struct lk__api_problem *p) {
    size_t count = json_array_size(v);
    if (!json_is_array(v)) return lk__api_wants(p, "tools", "an array", v);
    if (count > TOOLS_MOST) return lk__api_wrong(p, "tools", "%zu tools are more than %d", count, TOOLS_MOST);
    int code = LK_OK;
    for (size_t i = 0; !code && i < count; i++) code = check_tool(v, i, p);
    if (!code && count) a->tools = json_incref((json_t *)(uintptr_t)v);
    return code;
}

int lk__api_read_tool_choice(const json_t *v, struct lk__api_ask *a, struct lk__api_problem *p) {
    static const char *const names[] = {[LK_TOOLS_NEVER] = "none", [LK_TOOLS_MAY] = "auto", [LK_TOOLS_ALWAYS] = "required"};
    const char *text = json_string_value(v), *only = name_of(v);
    for (int i = LK_TOOLS_NEVER; text && i <= LK_TOOLS_ALWAYS; i++)
        if (!strcmp(names[i], text)) {
            a->tool_choice = (enum lk_tool_choice)i;
            return LK_OK;
        }
    if (!is_type(v, "function") || !is_name(name_in(v)))
        return lk__api_wrong(p, "tool_choice",
                             "tool_choice must be none, auto, required or {\"type\": \"function\", "
                             "\"function\": {\"name\": ...}}");
    a->tool_choice = LK_TOOLS_ALWAYS;
    return (a->only_tool = lk_strdup(only)) ? LK_OK : lk_fail(&p->err, LK_ENOMEM, "no memory for a request");
}

int lk__api_read_template_kwargs(const json_t *v, struct lk__api_ask *a, struct lk__api_problem *p) {
    static const char name[] = "chat_template_kwargs";
    const char *key;
    json_t *value;
    if (!v || json_is_null(v)) return LK_OK;
    if (!json_is_object(v)) return lk__api_wants(p, name, "an object", v);
    json_object_foreach((json_t *)(uintptr_t)v, key, value) {
        if (strcmp(key, "enable_thinking")) return lk__api_wrong(p, name, "%s.%.40s is not supported", name, key);
        if (!json_is_boolean(value) && !json_is_null(value))
            return lk__api_wants(p, "chat_template_kwargs.enable_thinking", "true or false", value);
        a->no_thinking = json_is_false(value);
    }
    return LK_OK;
}

static bool has_tool(const json_t *tools, const char *name) {
    for (size_t i = 0; i < json_array_size(tools); i++)
        if (!strcmp(name_of(json_array_get(tools, i)), name)) return true;
    return false;
}

/* The form of answers with tools as a text, from which a receipt makes the grammar again: the schema of answers without
 * calls, as response_format says, goes into it. */
static int tools_form(struct lk__api_ask *a, struct lk__api_problem *p) {
    json_t *form = json_object(), *answer = NULL;
    struct lk_err err = {0};
    if (a->form == LK__API_OBJECT) answer = json_pack("{s: s}", "type", "object");
    if (a->form == LK__API_SCHEMA) answer = lk_json_parse(a->form_text, strlen(a->form_text), "the schema", &err);
    bool bad = json_object_set_new(form, "template", json_string(lk_chat_name(a->model->chat))) ||
               json_object_set(form, "tools", a->tools) ||
               json_object_set_new(form, "choice", json_integer(a->tool_choice)) ||
               json_object_set_new(form, "many", json_boolean(a->many_calls && !a->only_tool)) ||
               (a->only_tool && json_object_set_new(form, "only", json_string(a->only_tool))) ||
               (a->form && json_object_set_new(form, "answer", answer));
    char *dumped = bad ? NULL : json_dumps(form, JSON_COMPACT), *text = dumped ? lk_strdup(dumped) : NULL;
    free(dumped);
    json_decref(form);
    if (!text) return lk_fail(&p->err, LK_ENOMEM, "no memory for a grammar");
    lk_free(a->form_text);
    a->form = LK__API_TOOLS, a->form_text = text;
    return LK_OK;
}

int lk__api_join_tools(struct lk__api_ask *a, struct lk__api_problem *p) {
    const struct lk_chat_calls *how = lk_chat_calls(a->model->chat);
    if (!a->tools && (a->tool_choice == LK_TOOLS_ALWAYS))
        return lk__api_wrong(p, "tool_choice", "tool_choice wants a call, and there are no tools");
    if (!a->tools) return LK_OK;
    if (a->only_tool && !has_tool(a->tools, a->only_tool))
        return lk__api_wrong(p, "tool_choice", "tool_choice names %.64s, which is none of tools", a->only_tool);
    if (a->form == LK__API_GBNF) return lk__api_wrong(p, "grammar", "grammar does not go with tools");
    if (a->form && !how->marks[0] && a->tool_choice == LK_TOOLS_MAY)
        return lk__api_wrong(p, "response_format",
                             "with the template %s, response_format goes with tools only where tool_choice is none or "
                             "required: its calls have no mark that tells them from other JSON",
                             lk_chat_name(a->model->chat));
    if (a->tool_choice != LK_TOOLS_NEVER) a->calls = how;
    a->calls_anywhere = how->text && !a->form && a->tool_choice == LK_TOOLS_MAY;
    return tools_form(a, p);
}

int lk__api_compile_tools(const json_t *form, const struct lk_chat_calls **calls, struct lk_grammar **out,
                          struct lk_err *err) {
    const char *name = json_string_value(json_object_get(form, "template"));
    struct lk_tools t = {.how = name ? lk_chat_calls(lk_chat_named(name)) : NULL,
                         .tools = json_object_get(form, "tools"),
                         .choice = (enum lk_tool_choice)json_integer_value(json_object_get(form, "choice")),
                         .only = json_string_value(json_object_get(form, "only")),
                         .many = json_is_true(json_object_get(form, "many")),
                         .answer = json_object_get(form, "answer")};
    if (!t.how) return lk_fail(err, LK_EINVAL, "the template %.40s has no tools", name ? name : "that is missing");
    *calls = t.how;
    return lk_grammar_from_tools(&t, out, err);
}

/* --- Messages --------------------------------------------------------------------------------------------- */

/* The text of a message: a string, or parts of text. */
static int content_of(const json_t *v, size_t i, struct lk_buf *out, struct lk__api_problem *p) {
    if (!v || json_is_null(v)) return LK_OK;
    if (json_is_string(v)) return lk_buf_append(out, json_string_value(v), json_string_length(v));
    if (!json_is_array(v))
        return lk__api_wrong(p, "messages", "messages[%zu].content must be a string or parts of text, not %s", i,
                             lk__api_type(v));
    int code = LK_OK;
    for (size_t j = 0; !code && j < json_array_size(v); j++) {
        const json_t *part = json_array_get(v, j), *text = json_object_get(part, "text");
        const char *type = json_string_value(json_object_get(part, "type"));
        if (!type || strcmp(type, "text") || !json_is_string(text))
            return lk__api_wrong(p, "messages",
                                 "messages[%zu].content[%zu] is no part of type text: only these are supported", i, j);
        code = lk_buf_append(out, json_string_value(text), json_string_length(text));
    }
    return code;
}
/* Calls as templates have them: their arguments are a text in requests, and an object here. As Python's json.loads has it,
 * of a key that is there twice the last counts, and strings may have zero characters. */
static int calls_of(const json_t *v, size_t i, json_t **out, struct lk__api_problem *p) {
    *out = json_array();
    for (size_t k = 0; k < json_array_size(v); k++) {
        const json_t *call = json_array_get(v, k), *f = json_object_get(call, "function"),
                     *id = json_object_get(call, "id"), *said = json_object_get(f, "arguments");
        json_error_t why = {.text = ""};
        if (!is_type(call, "function") || !json_is_string(id) || !is_name(name_in(call)) || !json_is_string(said))
            return lk__api_wrong(p, "messages",
                                 "messages[%zu].tool_calls[%zu] must be {\"id\", \"type\": \"function\", \"function\": "
                                 "{\"name\", \"arguments\": a string}}",
                                 i, k);
        json_t *arguments = json_string_length(said)
                                ? json_loadb(json_string_value(said), json_string_length(said), JSON_ALLOW_NUL, &why)
                                : json_object();
        if (!json_is_object(arguments)) {
            json_decref(arguments);
            return lk__api_wrong(p, "messages", "messages[%zu].tool_calls[%zu].function.arguments is no object as JSON%s%s",
                                 i, k, *why.text ? ": " : "", why.text);
        }
        json_t *one = json_pack("{s: O, s: s, s: O}", "id", id, "name", name_of(call), "arguments", arguments);
        json_decref(arguments);
        if (json_array_append_new(*out, one)) return lk_fail(&p->err, LK_ENOMEM, "no memory for messages");
    }
    return LK_OK;
}

/* text, calls: what the message borrows. */
static int message_of(const json_t *v, size_t i, struct lk_message *m, struct lk_buf *text, json_t **calls,
                      struct lk__api_problem *p) {
    static const char *const known[] = {"role",       "content",      "name",          "refusal",
                                        "tool_calls", "tool_call_id", "function_call", "audio"};
    const char *role = json_string_value(json_object_get(v, "role")), *key;
    json_t *value;
    if (!json_is_object(v))
        return lk__api_wrong(p, "messages", "messages[%zu] must be an object, not %s", i, lk__api_type(v));
    if (!role) return lk__api_wrong(p, "messages", "messages[%zu].role is missing", i);
    if (!strcmp(role, "developer")) role = "system";
    const json_t *call = json_object_get(v, "tool_call_id"), *said = json_object_get(v, "tool_calls");
    json_object_foreach((json_t *)(uintptr_t)v, key, value) {
        size_t k = 0;
        while (k < sizeof known / sizeof *known && strcmp(known[k], key)) k++;
        bool nothing = json_is_null(value) || (json_is_array(value) && !json_array_size(value));
        bool fits =
            k < 2 || (!strcmp(key, "tool_calls") && !strcmp(role, "assistant") && json_is_array(value)) ||
            ((!strcmp(key, "tool_call_id") || !strcmp(key, "name")) && !strcmp(role, "tool") && json_is_string(value));
        if (!fits && !nothing) return lk__api_wrong(p, "messages", "messages[%zu].%.40s is not supported", i, key);
    }
    int code = content_of(json_object_get(v, "content"), i, text, p);
    if (!code && json_array_size(said)) code = calls_of(said, i, calls, p);
    *m = (struct lk_message){.role = lk_bytes(role, strlen(role)),
                             .content = lk_bytes(text->data ? text->data : "", text->size),
                             .calls = *calls,
                             .call = lk_bytes(json_is_string(call) ? json_string_value(call) : "",
                                              json_is_string(call) ? json_string_length(call) : 0)};
    return code == LK_ENOMEM ? lk_fail(&p->err, LK_ENOMEM, "no memory for messages") : code;
}

struct kept {
    struct lk_buf text;
    json_t *calls;
};
int lk__api_chat_ids(const struct lk_api_model *m, const json_t *messages, const json_t *tools, bool no_thinking,
                     struct lk_tokens *out, uint32_t *stop_id, struct lk__api_problem *p) {
    size_t count = json_array_size(messages);
    if (m->chat == LK_CHAT_NONE)
        return lk__api_wrong(p, "messages",
                             "%s has no chat template that is known here: start the server with --template (" LK_CHAT_NAMES
                             "), or use /v1/completions",
                             m->name);
    if (!count) return lk__api_wrong(p, "messages", "messages must be an array of at least one message");
    if (tools && !lk_chat_calls(m->chat))
        return lk__api_wrong(p, "tools", "the template %s has no tools", lk_chat_name(m->chat));
    struct lk_message *list = lk_calloc(count, sizeof *list);
    struct kept *kept = lk_calloc(count, sizeof *kept);
    int code = list && kept ? LK_OK : lk_fail(&p->err, LK_ENOMEM, "no memory for messages");
    for (size_t i = 0; !code && i < count; i++)
        code = message_of(json_array_get(messages, i), i, &list[i], &kept[i].text, &kept[i].calls, p);
    struct lk_conversation c = {.messages = list, .count = count, .tools = tools, .no_thinking = no_thinking};
    if (!code) code = lk_chat_prompt(m->tokenizer, m->chat, &c, out, stop_id, &p->err);
    for (size_t i = 0; kept && i < count; i++) {
        lk_buf_release(&kept[i].text);
        json_decref(kept[i].calls);
    }
    lk_free(list);
    lk_free(kept);
    return code;
}
