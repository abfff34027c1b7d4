/* Answers with calls: what the grammar takes, and how they are found again, whatever the pieces. */
#include "lockstep/base/json.h"
#include "serve/calls.h"
#include "serve/grammar/testing.h"

#define HERMES LK_CHAT_QWEN25
#define LIST   LK_CHAT_MISTRAL_V3_TOOLS
#define BARE   LK_CHAT_LLAMA31

static const char tools_text[] =
    "[{'type': 'function', 'function': {'name': 'add', 'parameters': {'type': 'object', 'properties': {'a': {'$ref': "
    "'#/$defs/n'}, 'b': {'$ref': '#/$defs/n'}}, 'required': ['a', 'b'], 'additionalProperties': false, '$defs': {'n': "
    "{'type': 'integer'}}}}}, {'type': 'function', 'function': {'name': 'now'}}, {'type': 'function', 'function': {'name': "
    "'say', 'parameters': {'type': 'object', 'properties': {'t': {'$ref': '#/$defs/n'}}, 'required': ['t'], '$defs': {'n': "
    "{'type': 'string'}}}}}]";

/* ' stands for " */
static char *quoted(const char *text) {
    char *copy = lk_strdup(text);
    for (char *c = copy; *c; c++)
        if (*c == '\'') *c = '"';
    return copy;
}
static json_t *parsed(const char *text) {
    char *copy = quoted(text);
    json_t *v = lk_json_parse(copy, strlen(copy), "tools", &test_err);
    lk_free(copy);
    assert_non_null(v);
    return v;
}

#define Q   "<tool_call>\n{'name': '"
#define ADD "add', 'arguments': {'a': 1, 'b': -2}"
static const struct {
    enum lk_chat how;
    enum lk_tool_choice choice;
    const char *only, *answer;
    bool one;
    const char *texts[16]; /* 'y' a text, 'p' it may become one, 'n' neither; ' for " */
} cases[] = {
    {HERMES,
     LK_TOOLS_MAY,
     NULL,
     NULL,
     false,
     {"y", "yhello", "yhello <", "yab<tool_cal", "p<tool_call>", "n<tool_call> ", "y<tool_<tool_", "p<<tool_call>",
      "yx\n" Q ADD "}\n</tool_call>", "y<<tool_" Q ADD "}\n</tool_call>\n" Q "now', 'arguments': {}}\n</tool_call>",
      "n" Q "nox", "p" Q "now', 'arguments': {}}\n</tool_call", "n" Q ADD "}\n</tool_call>\nx", "n\xff",
      "y\xc3\xa9<tool_\xc3\xa9<tool_callx", "n" Q "say', 'arguments': {'t': 1"}},
    {HERMES, LK_TOOLS_MAY, NULL, NULL, true, {"y" Q ADD "}\n</tool_call>", "n" Q ADD "}\n</tool_call>\n"}},
    {HERMES, LK_TOOLS_NEVER, NULL, NULL, false, {"y", "yx<tool_cal", "n<tool_call>", "yx\n"}},
    {HERMES, LK_TOOLS_ALWAYS, NULL, NULL, false, {"p", "nx", "p<tool", "y" Q ADD "}\n</tool_call>", "n\n"}},
    {HERMES, LK_TOOLS_ALWAYS, "say", NULL, false, {"n" Q "a", "y" Q "say', 'arguments': {'t': '}'}}\n</tool_call>"}},
    {HERMES,
     LK_TOOLS_MAY,
     NULL,
     "{'type': 'integer'}",
     false,
     {"y12", "p<", "nx", "y" Q ADD "}\n</tool_call>", "n1<", "p"}},
    {LIST,
     LK_TOOLS_MAY,
     NULL,
     NULL,
     false,
     {"y[TOOL_CALLS", "n[TOOL_CALLS] x", "y[[TOOL_[", "yhi[TOOL_CALLS] [{'name': '" ADD "}]",
      "y[TOOL_CALLS] [{'name': '" ADD "}, {'name': 'now', 'arguments': {}}]", "p[TOOL_CALLS] [{'name': '" ADD "}",
      "n[TOOL_CALLS] []"}},
    {BARE,
     LK_TOOLS_MAY,
     NULL,
     NULL,
     false,
     {"y", "yhello {", "n{x", "p{", "y{'name': 'now', 'parameters': {}}", "n{'name': 'now', 'parameters': {}},"}},
    {BARE, LK_TOOLS_NEVER, NULL, NULL, false, {"y", "n{", "ya{"}},
};
static void grammars_take_calls_and_nothing_like_them(void **state) {
    (void)state;
    json_t *tools = parsed(tools_text);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *answer = cases[i].answer ? parsed(cases[i].answer) : NULL;
        struct lk_tools t = {lk_chat_calls(cases[i].how), tools, cases[i].choice, cases[i].only, !cases[i].one, answer};
        struct lk_grammar *g;
        OK(lk_grammar_from_tools(&t, &g, &test_err));
        for (size_t k = 0; k < 16 && cases[i].texts[k]; k++) {
            char *text = quoted(cases[i].texts[k] + 1);
            TEXT_IS(g, text, cases[i].texts[k][0]);
            lk_free(text);
        }
        lk_grammar_free(g);
        json_decref(answer);
    }
    json_decref(tools);
}

static void tools_are_refused_by_their_paths(void **state) {
    (void)state;
    static const struct {
        const char *tools, *only, *what;
        int code;
    } bad[] = {
        {"[{'type': 'function', 'function': {'name': 'f', 'parameters': {'type': 'object', 'properties': {'a': {'allOf': "
         "[]}}}}}]",
         NULL, "$.tools[0].function.parameters.properties.a.allOf", LK_EUNSUPPORTED},
        {"[{'type': 'function', 'function': {'name': 'f', 'parameters': {'type': 'string'}}}]", NULL,
         "$.tools[0].function.parameters.type: the parameters of a tool must be an object", LK_EINVAL},
        {"[{'type': 'function', 'function': {}}]", NULL, "$.tools[0].function.name is missing", LK_EINVAL},
        {"[{'type': 'function', 'function': {'name': 'f'}}]", "g", "there is no tool g", LK_EINVAL},
        {"[{'type': 'function', 'function': {'name': 'f', 'parameters': {'type': 'object', 'properties': {'a': {'$ref': "
         "'#/x'}}}}}]",
         NULL, "leads nowhere in this schema", LK_EINVAL},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        json_t *tools = parsed(bad[i].tools);
        struct lk_tools t = {.how = lk_chat_calls(HERMES), .tools = tools, .choice = LK_TOOLS_MAY, .only = bad[i].only};
        struct lk_grammar *g;
        FAILS(lk_grammar_from_tools(&t, &g, &test_err), bad[i].code, bad[i].what);
        json_decref(tools);
    }
}

/* --- Found again ------------------------------------------------------------------------------------------ */

static int note(void *arg, enum lk__serve_calls_part part, const char *data, size_t size) {
    static enum lk__serve_calls_part last;
    struct lk_buf *out = arg;
    if (!out->size || part != last || part == LK__SERVE_CALLS_END) OK(lk_buf_append(out, &"TNAE"[part], 1));
    last = part;
    if (part == LK__SERVE_CALLS_END) return 0;
    assert_true(size > 0);
    OK(lk_buf_append(out, data, size));
    return 0;
}
static void calls_are_found_in_any_pieces(void **state) {
    (void)state;
    static const struct {
        enum lk_chat how;
        bool anywhere;
        const char *text, *found;
    } texts[] = {
        {HERMES, true, "hello\nyou", "Thello\nyou"},
        {HERMES, true, "hello\n", "Thello\n"},
        {HERMES, true, "a\n<tool_cal", "Ta\n<tool_cal"},
        {HERMES, true, "a\n\n" Q ADD "}\n</tool_call>", "Ta\nNaddA{'a': 1, 'b': -2}E"},
        {HERMES, true,
         "<<tool_" Q "say', 'arguments': {'t': '}\\\\'}}\n</tool_call>\n" Q "now', 'arguments': {}}\n</tool_call>",
         "T<<tool_NsayA{'t': '}\\\\'}ENnowA{}E"},
        {HERMES, true, Q "say', 'arguments': {'t': '\\'}{'}}\n</tool_call>", "NsayA{'t': '\\'}{'}E"},
        {HERMES, true, Q "say', 'arguments': {'t': '\\'}{", "NsayA{'t': '\\'}{"},
        {HERMES, true, "x" Q "sa", "Tx"},
        {HERMES, false, "{'a': '" Q "'}", "T{'a': '" Q "'}"},
        {LIST, true, "hi\n[TOOL_CALLS] [{'name': '" ADD "}, {'name': 'now', 'arguments': {}}]",
         "ThiNaddA{'a': 1, 'b': -2}ENnowA{}E"},
        {LIST, false, "[1, 2]", "T[1, 2]"},
        {BARE, false, "{'name': 'now', 'parameters': {'x': [{}]}}", "NnowA{'x': [{}]}E"},
        {BARE, false, "yes {'name': '", "Tyes {'name': '"},
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char *text = quoted(texts[i].text), *want = quoted(texts[i].found);
        for (size_t piece = 1; piece <= strlen(text); piece++) {
            struct lk_buf found = LK_BUF_INIT;
            struct lk__serve_calls c = {
                .how = lk_chat_calls(texts[i].how), .anywhere = texts[i].anywhere, .tell = note, .arg = &found};
            for (size_t at = 0; at < strlen(text); at += piece)
                OK(lk__serve_calls_take(&c, text + at, strlen(text) - at < piece ? strlen(text) - at : piece));
            OK(lk__serve_calls_finish(&c));
            if (found.size != strlen(want) || memcmp(found.data, want, found.size) != 0)
                fail_msg("%s in pieces of %zu: %.*s, not %s", text, piece, (int)found.size, found.data, want);
            lk__serve_calls_release(&c);
            lk_buf_release(&found);
        }
        lk_free(text);
        lk_free(want);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grammars_take_calls_and_nothing_like_them),
        cmocka_unit_test(tools_are_refused_by_their_paths),
        cmocka_unit_test(calls_are_found_in_any_pieces),
    };
    return cmocka_run_group_tests(tests, test_bytes_setup, test_bytes_teardown);
}
