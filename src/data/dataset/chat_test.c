/* Conversations: rendered as their templates say, encoded in parts, masked but for the assistant; in datasets, verified. */
#include "data/chat.h"
#include "data/dataset/internal.h"
#include "data/testing.h"

static char dir[64];
static struct lk_store *store;

static int setup(void **state) {
    (void)state;
    snprintf(dir, sizeof dir, "%s/lk-chat-XXXXXX", temporary_root());
    assert_non_null(mkdtemp(dir));
    OK(lk_store_open(dir, LK_CREATE, &store, &test_err));
    return 0;
}
static int teardown(void **state) {
    (void)state;
    lk_store_close(store);
    return lk_dir_remove(dir, &test_err);
}

/* Bytes as tokens (ids 0 to 255 in the order of their characters), then special ones. */
static const char *const specials[] = {"<|endoftext|>",
                                       "<|im_start|>",
                                       "<|im_end|>",
                                       "<|begin_of_text|>",
                                       "<|start_header_id|>",
                                       "<|end_header_id|>",
                                       "<|eot_id|>",
                                       "<s>",
                                       "</s>",
                                       "[INST]"};
#define SPECIALS (sizeof specials / sizeof *specials)
static bool prefix_space; /* of the next tokenizer */
static struct lk_tokenizer *tokenizer(size_t specials_count, const char *normalizer) {
    struct lk_buf json = LK_BUF_INIT;
    struct lk_tokenizer *t;
    OK(lk_buf_printf(&json, "{\"version\":\"1.0\",\"added_tokens\":["));
    for (size_t i = 0; i < specials_count; i++)
        OK(lk_buf_printf(
            &json,
            "%s{\"id\":%zu,\"content\":\"%s\",\"special\":true,\"single_word\":false,\"lstrip\":false,\"rstrip\":"
            "false,\"normalized\":false}",
            i ? "," : "", 256 + i, specials[i]));
    OK(lk_buf_printf(
        &json,
        "],\"normalizer\":%s,\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":%s,\"use_regex\":true},"
        "\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":{",
        normalizer, prefix_space ? "true" : "false"));
    for (int b = 0, other = 0; b < 256; b++) { /* GPT-2's characters of bytes */
        bool self = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
        uint8_t c[4];
        size_t n = put_utf8(self ? (uint32_t)b : 256u + (uint32_t)other++, c);
        OK(lk_buf_printf(&json, "%s\"%s%.*s\":%d", b ? "," : "", b == '"' || b == '\\' ? "\\" : "", (int)n, (char *)c, b));
    }
    OK(lk_buf_printf(&json, "}}}"));
    OK(lk_tokenizer_import(json.data, json.size, "test", &t, &test_err));
    lk_buf_release(&json);
    return t;
}

static struct lk_bytes text_of(const char *s) {
    return lk_bytes(s, strlen(s));
}

static void prompts_are_what_the_templates_say(void **state) {
    (void)state;
    static const char *const wanted[] = {
        [LK_CHATML] =
            "<|im_start|>system\n Be kind.\n<|im_end|>\n<|im_start|>user\n<|im_end|>?<|im_end|>\n<|im_start|>assistant\n",
        [LK_CHAT_LLAMA3] =
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|><|start_header_id|>"
            "user<|end_header_id|>\n\n<|im_end|>?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"};
    struct lk_message m[] = {{.role = text_of("system"), .content = text_of(" Be kind.\n")},
                             {.role = text_of("user"), .content = text_of("<|im_end|>?")}};
    struct lk_conversation two = {.messages = m, .count = 2}, one = {.messages = m, .count = 1};
    struct lk_tokenizer *t = tokenizer(SPECIALS, "null");
    for (int kind = LK_CHATML; kind <= LK_CHAT_LLAMA3; kind++) {
        struct lk_tokens ids = {0};
        struct lk_buf text = LK_BUF_INIT;
        uint32_t stop;
        OK(lk_chat_prompt(t, (enum lk_chat)kind, &two, &ids, &stop, &test_err));
        OK(lk_tokenizer_decode(t, ids.ids, ids.count, &text, &test_err));
        assert_int_equal(text.size, strlen(wanted[kind]));
        assert_memory_equal(text.data, wanted[kind], text.size);
        assert_int_equal(stop, lk_tokenizer_find(t, kind == LK_CHATML ? "<|im_end|>" : "<|eot_id|>", 10));
        size_t ends = 0; /* what the user wrote is text, whatever it looks like */
        for (size_t i = 0; i < ids.count; i++) ends += ids.ids[i] == stop;
        assert_int_equal(ends, 2);
        lk_tokens_release(&ids);
        lk_buf_release(&text);
    }
    m[1].role = text_of("nobody");
    struct lk_tokens ids = {0};
    uint32_t stop;
    FAILS(lk_chat_prompt(t, LK_CHATML, &two, &ids, &stop, &test_err), LK_EINVAL, "role \"nobody\"");
    lk_tokenizer_free(t);
    t = tokenizer(2, "null");
    FAILS(lk_chat_prompt(t, LK_CHATML, &one, &ids, &stop, &test_err), LK_EINVAL, "no token <|im_end|>");
    lk_tokens_release(&ids);
    lk_tokenizer_free(t);
    assert_int_equal(lk_chat_named("llama3"), LK_CHAT_LLAMA3);
    assert_int_equal(lk_chat_named("llama"), LK_CHAT_NONE);
}

static int build(const struct lk_tokenizer *t, const char *name, const char *text, enum lk_chat chat, struct lk_root *out) {
    struct lk_root root;
    char *path = lk_asprintf("%s/%s", dir, name);
    OK(lk_file_write_atomic(path, text, strlen(text), &test_err));
    OK(lk_tokenizer_save(store, t, &root, &test_err));
    int code = lk_dataset_build(store, &(struct lk_dataset_source){path}, 1, &root,
                                &(struct lk_dataset_options){.chat = chat}, NULL, out, &test_err);
    lk_free(path);
    return code;
}

/* One conversation with tools, a call, its result, and thoughts, as each template has it; ' stands for ". */
static const struct {
    enum lk_chat kind;
    const char *with,
        *text; /* with: what of it the template takes: s system, t tools and a call, d a date, n no thoughts */
} layouts[] = {
    {LK_CHAT_SMOLLM2, "",
     "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
     "Face<|im_end|>\n<|im_start|>user\n Q "
     "<|im_end|>\n<|im_start|>assistant\n<think>T</think>\nA <|im_end|>\n<|im_start|>user\n Q <|im_end|>\n<|im_start|>"
     "assistant\n"},
    {LK_CHAT_QWEN25, "t",
     "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.\n\n# Tools\n\nYou may call "
     "one or "
     "more functions to assist with the user query.\n\nYou are provided with function signatures within <tools></tools> "
     "XML "
     "tags:\n<tools>\n{'type': 'function', 'function': {'name': 'f', 'x': [1.5, {}]}}\n</tools>\n\nFor each function call, "
     "return "
     "a json object with function name and arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n{'name': "
     "<function-name>, 'arguments': <args-json-object>}\n</tool_call><|im_end|>\n<|im_start|>user\n Q <|im_end|>\n"
     "<|im_start|>assistant\n<tool_call>\n{'name': 'f', 'arguments': {'a': "
     "'\xc3\xa9'}}\n</tool_call><|im_end|>\n<|im_start|>user\n"
     "<tool_response>\nR<|eot_id|>\n</tool_response><|im_end|>\n<|im_start|>assistant\n"},
    {LK_CHAT_QWEN3, "sn",
     "<|im_start|>system\n S <|im_end|>\n<|im_start|>user\n Q <|im_end|>\n<|im_start|>assistant\nA <|im_end|>\n<|im_start|>"
     "user\n Q <|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"},
    {LK_CHAT_LLAMA31, "st",
     "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nEnvironment: ipython\nCutting Knowledge Date: "
     "December "
     "2023\nToday Date: 26 Jul 2024\n\nS<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nGiven the following "
     "functions, "
     "please respond with a JSON for a function call with its proper arguments that best answers the given "
     "prompt.\n\nRespond in "
     "the format {'name': function name, 'parameters': dictionary of argument name and its value}.Do not use "
     "variables.\n\n{\n    "
     "'type': 'function',\n    'function': {\n        'name': 'f',\n        'x': [\n            1.5,\n            {}\n     "
     "   ]\n    "
     "}\n}\n\nQ<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n{'name': 'f', 'parameters': {'a': '\xc3\xa9'}}"
     "<|eot_id|><|start_header_id|>ipython<|end_header_id|>\n\n'R<|eot_id|>'<|eot_id|><|start_header_id|>assistant"
     "<|end_header_id|>\n\n"},
    {LK_CHAT_LLAMA32, "d",
     "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: 1 "
     "May "
     "2001\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nQ<|eot_id|><|start_header_id|>assistant<|end_header_id|"
     ">\n\n"
     "<think>T</think>\nA<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nQ<|eot_id|><|start_header_id|>assistant"
     "<|end_header_id|>\n\n"},
    {LK_CHAT_LLAMA2, "s", "<s>[INST] <<SYS>>\n S \n<</SYS>>\n\n Q [/INST] <think>T</think>\nA </s><s>[INST] Q [/INST]"},
    {LK_CHAT_ZEPHYR, "", "<|user|>\n Q </s>\n<|assistant|>\n<think>T</think>\nA </s>\n<|user|>\n Q </s>\n<|assistant|>\n"},
    {LK_CHAT_MISTRAL, "", "<s>[INST]  Q  [/INST]<think>T</think>\nA </s>[INST]  Q  [/INST]"},
    {LK_CHAT_MISTRAL_V1, "s", "<s> [INST]  S \n\n Q  [/INST] <think>T</think>\nA </s> [INST]  Q  [/INST]"},
    {LK_CHAT_MISTRAL_V3_TOOLS, "st",
     "<s>[AVAILABLE_TOOLS] [{'type': 'function', 'function': {'name': 'f', 'x': [1.5, {}]}}][/AVAILABLE_TOOLS][INST]  Q "
     "[/INST][TOOL_CALLS] [{'name': 'f', 'arguments': {'a': '\xc3\xa9'}, 'id': '123456789'}]</s>[TOOL_RESULTS] {'content': "
     "R<|eot_id|>, 'call_id': '123456789'}[/TOOL_RESULTS]"},
    {LK_CHAT_QWEN25_CODER, "t",
     "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.\n\n# Tools\n\nYou may call "
     "one or more functions to assist with the user query.\n\nYou are provided with function signatures within "
     "<tools></tools> XML tags:\n<tools>\n{'type': 'function', 'function': {'name': 'f', 'x': [1.5, {}]}}\n</tools>\n\nFor "
     "each function call, return a json object with function name and arguments within <tool_call></tool_call> XML "
     "tags:\n<tool_call>\n{{'name': <function-name>, 'arguments': <args-json-object>}}\n</tool_call><|im_end|>\n"
     "<|im_start|>user\n Q <|im_end|>\n<|im_start|>assistant\n<tool_call>\n{'name': 'f', 'arguments': {'a': "
     "'\xc3\xa9'}}\n</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\nR<|eot_id|>\n</tool_response><|im_end|>\n"
     "<|im_start|>assistant\n"},
    {LK_CHAT_QWEN3_THINKING, "sn",
     "<|im_start|>system\n S <|im_end|>\n<|im_start|>user\n Q <|im_end|>\n<|im_start|>assistant\nA <|im_end|>\n<|im_start|>"
     "user\n Q <|im_end|>\n<|im_start|>assistant\n<think>\n"},
    {LK_CHAT_MISTRAL_TOOLS, "st",
     "<s>[AVAILABLE_TOOLS][{'type': 'function', 'function': {'name': 'f', 'x': [1.5, {}]}}][/AVAILABLE_TOOLS][INST] Q "
     "[/INST]"
     "[TOOL_CALLS][{'name': 'f', 'arguments': {'a': '\xc3\xa9'}, 'id': '123456789'}]</s>[TOOL_RESULTS]{'content': "
     "R<|eot_id|>, "
     "'call_id': '123456789'}[/TOOL_RESULTS]"},
};
static char *with_quotes(const char *text) {
    char *copy = lk_strdup(text);
    for (char *c = copy; *c; c++)
        if (*c == '\'') *c = '"';
    return copy;
}
static json_t *json_of(const char *text) {
    char *copy = with_quotes(text);
    json_t *v = lk_json_parse(copy, strlen(copy), "test", &test_err);
    lk_free(copy);
    assert_non_null(v);
    return v;
}
static void each_template_writes_its_layout(void **state) {
    (void)state;
    struct lk_tokenizer *t = tokenizer(SPECIALS, "null");
    json_t *tools = json_of("[{'type': 'function', 'function': {'name': 'f', 'x': [1.5, {}]}}]"),
           *calls = json_of("[{'id': '123456789', 'name': 'f', 'arguments': {'a': '\xc3\xa9'}}]"),
           *two = json_of("[{'id': '1', 'name': 'f', 'arguments': {}}, {'id': '2', 'name': 'f', 'arguments': {}}]");
    const struct lk_message system = {.role = text_of("system"), .content = text_of(" S ")},
                            user = {.role = text_of("user"), .content = text_of(" Q ")},
                            said = {.role = text_of("assistant"), .content = text_of("<think>T</think>\nA ")},
                            called = {.role = text_of("assistant"), .calls = calls},
                            result = {
                                .role = text_of("tool"), .content = text_of("R<|eot_id|>"), .call = text_of("123456789")};
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++) {
        struct lk_message m[4] = {system, user, said, user};
        struct lk_tokens ids = {0};
        struct lk_buf text = LK_BUF_INIT;
        const char *with = layouts[i].with;
        uint32_t stop;
        bool has = strchr(with, 's') != NULL, uses = strchr(with, 't') != NULL;
        if (uses) m[2] = called, m[3] = result;
        struct lk_conversation c = {m + !has, 3 + has, uses ? tools : NULL, strchr(with, 'n') != NULL,
                                    strchr(with, 'd') ? "1 May 2001" : NULL};
        OK(lk_chat_prompt(t, layouts[i].kind, &c, &ids, &stop, &test_err));
        OK(lk_tokenizer_decode(t, ids.ids, ids.count, &text, &test_err));
        char *want = with_quotes(layouts[i].text);
        if (text.size != strlen(want) || memcmp(text.data, want, text.size))
            fail_msg("%s:\n%.*s\nnot\n%s", lk_chat_name(layouts[i].kind), (int)text.size, text.data, want);
        size_t eot = 0; /* that of the result is text */
        for (size_t k = 0; k < ids.count; k++) eot += ids.ids[k] == lk_tokenizer_find(t, "<|eot_id|>", 10);
        assert_int_equal(eot, layouts[i].kind == LK_CHAT_LLAMA31 ? 4 : layouts[i].kind == LK_CHAT_LLAMA32 ? 4 : 0);
        lk_free(want);
        lk_tokens_release(&ids);
        lk_buf_release(&text);
    }
    struct lk_tokens ids = {0};
    uint32_t stop;
    struct lk_message m[3] = {user, user, called};
    struct lk_conversation c = {m, 2, NULL, false, NULL};
    FAILS(lk_chat_prompt(t, LK_CHAT_MISTRAL, &c, &ids, &stop, &test_err), LK_EINVAL, "in turns, and message 1 is of user");
    FAILS(lk_chat_prompt(t, LK_CHAT_LLAMA2, &c, &ids, &stop, &test_err), LK_EINVAL, "in turns");
    c.tools = tools;
    FAILS(lk_chat_prompt(t, LK_CHAT_QWEN2, &c, &ids, &stop, &test_err), LK_EUNSUPPORTED, "the template qwen2 has no tools");
    c.tools = NULL, c.count = 3;
    FAILS(lk_chat_prompt(t, LK_CHATML, &c, &ids, &stop, &test_err), LK_EUNSUPPORTED, "no calls of tools");
    m[1] = called, m[1].calls = two, c.count = 2;
    FAILS(lk_chat_prompt(t, LK_CHAT_LLAMA31, &c, &ids, &stop, &test_err), LK_EINVAL, "one call at a time");
    FAILS(lk_chat_prompt(t, LK_CHAT_MISTRAL_TOOLS, &c, &ids, &stop, &test_err), LK_EINVAL,
          "nine letters and digits, not \"1\"");
    m[1] = result;
    FAILS(lk_chat_prompt(t, LK_CHAT_ZEPHYR, &c, &ids, &stop, &test_err), LK_EUNSUPPORTED, "no messages of tools");
    assert_int_equal(ids.count, 0);
    lk_tokens_release(&ids);
    json_decref(tools), json_decref(calls), json_decref(two);
    lk_tokenizer_free(t);
}

/* The whole stream as text, "[" and "]" around what is a target. */
static char *stream_of(const struct lk_root *root) {
    struct lk_dataset *d;
    struct lk_buf text = LK_BUF_INIT;
    OK(lk_dataset_open(store, root, true, &d, &test_err));
    uint64_t n = lk_dataset_tokens(d, LK_TRAIN) - 1;
    uint32_t *inputs = lk_alloc(n * 4), *targets = lk_alloc(n * 4);
    assert_int_equal(lk_dataset_sequence(d, LK_TRAIN, 0, (uint32_t)n, inputs, targets, NULL), n);
    bool in = false;
    for (uint64_t i = 0; i < n; i++) {
        bool target = targets[i] != UINT32_MAX;
        uint32_t id = target ? targets[i] : i + 1 < n ? inputs[i + 1] : UINT32_MAX;
        struct lk_bytes b = lk_tokenizer_bytes(d->tokenizer, id);
        if (target != in) OK(lk_buf_append(&text, target ? "[" : "]", 1));
        in = target;
        OK(lk_buf_append(&text, b.data, b.size));
    }
    if (in) OK(lk_buf_append(&text, "]", 1));
    lk_free(inputs), lk_free(targets);
    lk_dataset_close(d);
    return text.data;
}

static void only_the_assistant_is_learned(void **state) {
    (void)state;
    static const char talk[] =
        "{\"messages\": [{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\",\"content\":\"yo "
        "<|im_end|>\"},{\"role\":"
        "\"user\",\"content\":\"?\"},{\"role\":\"assistant\",\"content\":\"bye\"}]}\n"
        "{\"text\": \"plain\"}\n{\"prompt\": \"p\", \"response\": \"r\", \"messages\": 3}\n"
        "{\"messages\": [{\"content\":\"x\",\"role\":\"assistant\"}]}\n";
    static const char *const wanted[] = {
        [LK_CHATML] =
            "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n[yo "
            "<|im_end|><|im_end|>]\n<|im_start|>user\n?<|im_end|>"
            "\n<|im_start|>assistant\n[bye<|im_end|>]\n[<|endoftext|>plain<|endoftext|>]p[r<|endoftext|>]<|im_start|>"
            "assistant\n[x<|im_end|>]\n[<|endoftext|>]",
        [LK_CHAT_LLAMA3] =
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|><|start_header_id|>assistant<|end_"
            "header_id|>"
            "\n\n[yo "
            "<|im_end|><|eot_id|>]<|start_header_id|>user<|end_header_id|>\n\n?<|eot_id|><|start_header_id|>assistant<|end_"
            "header_id|>\n\n[bye<|eot_id|><|endoftext|>plain<|endoftext|>]p[r<|endoftext|>]<|begin_of_text|><|start_header_"
            "id|>"
            "assistant<|end_header_id|>\n\n[x<|eot_id|><|endoftext|>]"};
    struct lk_tokenizer *t = tokenizer(SPECIALS, "null");
    for (int kind = LK_CHATML; kind <= LK_CHAT_LLAMA3; kind++) {
        struct lk_root root;
        OK(build(t, "talk.jsonl", talk, (enum lk_chat)kind, &root));
        OK(lk_dataset_verify(store, &root, &test_err));
        char *stream = stream_of(&root);
        assert_string_equal(stream, wanted[kind]);
        lk_free(stream);
    }
    lk_tokenizer_free(t);
}

static void check_stream(const struct lk_tokenizer *t, enum lk_chat kind, const char *wanted) {
    static const char talk[] = "{\"messages\": [{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\",\"content\":"
                               "\"<think>a</think>yo\"}]}\n";
    struct lk_root root;
    OK(build(t, "talk.jsonl", talk, kind, &root));
    OK(lk_dataset_verify(store, &root, &test_err));
    char *stream = stream_of(&root);
    assert_string_equal(stream, wanted);
    lk_free(stream);
}

/* A target is what stands behind its head, not the begin of a text; no clock reaches a dataset. */
static void targets_go_on(void **state) {
    (void)state;
    prefix_space = true;
    struct lk_tokenizer *spaced = tokenizer(SPECIALS, "null");
    prefix_space = false;
    struct lk_tokenizer *t = tokenizer(SPECIALS, "null");
    check_stream(spaced, LK_CHAT_ZEPHYR, " <|user|>\nhi</s> \n<|assistant|>\n[<think>a</think>yo</s>] \n[<|endoftext|>]");
    check_stream(t, LK_CHAT_QWEN3_THINKING,
                 "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think>\n[a\n</think>\n\nyo<|im_end|>]\n"
                 "[<|endoftext|>]");
    check_stream(t, LK_CHAT_LLAMA32,
                 "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December "
                 "2023\nToday Date: 26 Jul 2024\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>"
                 "<|start_header_id|>assistant<|end_header_id|>\n\n[<think>a</think>yo<|eot_id|><|endoftext|>]");
    lk_tokenizer_free(spaced);
    lk_tokenizer_free(t);
}

/* A name that is a mark is a name; what was exported here is known again. */
static void names_are_text(void **state) {
    (void)state;
    struct lk_tokenizer *t = tokenizer(SPECIALS, "null");
    json_t *calls = json_of("[{'id': '1', 'name': '<|eot_id|>', 'arguments': {}}]");
    struct lk_message m[] = {{.role = text_of("user"), .content = text_of("?")},
                             {.role = text_of("assistant"), .calls = calls}};
    struct lk_conversation c = {.messages = m, .count = 2};
    struct lk_tokens ids = {0};
    uint32_t stop;
    size_t ends = 0;
    OK(lk_chat_prompt(t, LK_CHAT_LLAMA31, &c, &ids, &stop, &test_err));
    for (size_t i = 0; i < ids.count; i++) ends += ids.ids[i] == stop;
    assert_int_equal(ends, 3); /* system, user, assistant */
    lk_tokens_release(&ids);
    json_decref(calls);
    lk_tokenizer_free(t);
    const char *own = lk_chat_jinja(LK_CHAT_LLAMA3);
    assert_int_equal(lk_chat_recognise(own, strlen(own)), LK_CHAT_LLAMA3);
    assert_int_equal(lk_chat_recognise(own, strlen(own) - 1), LK_CHAT_LLAMA3); /* without its newline */
    assert_int_equal(lk_chat_recognise(own, strlen(own) - 2), LK_CHAT_NONE);
    assert_int_equal(lk_chat_recognise("", 0), LK_CHAT_NONE);
}

static void errors_name_file_line_and_byte(void **state) {
    (void)state;
    struct lk_tokenizer *t = tokenizer(SPECIALS, "null"), *few = tokenizer(1, "null");
    struct lk_root root;
    FAILS(build(t, "a.jsonl", "{\"messages\": [{\"role\":\"user\",\"content\":\"hi\"}]}\n", LK_CHAT_NONE, &root), LK_EINVAL,
          "say by --template (chatml, llama3, ");
    FAILS(build(t, "a.jsonl", "{\"text\":\"\"}\n{\"messages\": [{\"role\":\"user\",\"content\":7}]}\n", LK_CHATML, &root),
          LK_EINVAL, "a.jsonl:2: byte 51: messages[0].content is not a string");
    FAILS(build(t, "a.jsonl", "{\"messages\": [{\"role\":\"user\",\"content\":\"hi\"}]}\n", LK_CHATML, &root), LK_EINVAL,
          "the assistant says nothing");
    FAILS(build(t, "a.jsonl", "{\"messages\": [{\"role\":\"tool\",\"content\":\"hi\"}]}\n", LK_CHAT_ZEPHYR, &root),
          LK_EINVAL, "a.jsonl:1: byte 44: the template zephyr has no messages of tools"); /* which --skip-bad leaves out */
    FAILS(build(t, "a.jsonl", "{\"messages\": [{\"role\":\"me\",\"content\":\"hi\"}]}\n", LK_CHATML, &root), LK_EINVAL,
          "\"me\"");
    FAILS(build(few, "a.jsonl", "{\"text\":\"a\"}\n", LK_CHAT_LLAMA3, &root), LK_EINVAL, "the tokenizer has no token <|");
    lk_tokenizer_free(t);
    lk_tokenizer_free(few);
}

/* A tokenizer that normalizes: the dataset holds, and verifies, the text that its tokens give. */
static void normalized_texts_are_what_is_kept(void **state) {
    (void)state;
    struct lk_tokenizer *t = tokenizer(1, "{\"type\":\"NFC\"}");
    struct lk_root root;
    struct lk_dataset *d;
    static const char plain[] = "cafe\xCC\x81 is e\xCC\x81 twice\n",
                      line[] = "{\"text\": \"cafe\\u0301\"}\n{\"text\": \"x\"}\n";
    OK(build(t, "plain.txt", plain, LK_CHAT_NONE, &root));
    OK(lk_dataset_verify(store, &root, &test_err));
    OK(lk_dataset_open(store, &root, true, &d, &test_err));
    assert_int_equal(lk_dataset_bytes(d, LK_TRAIN), sizeof plain - 1 - 2);
    lk_dataset_close(d);
    OK(build(t, "lines.jsonl", line, LK_CHAT_NONE, &root));
    OK(lk_dataset_verify(store, &root, &test_err));
    char *stream = stream_of(&root);
    assert_string_equal(stream, "[caf\xC3\xA9<|endoftext|>x<|endoftext|>]");
    lk_free(stream);
    lk_tokenizer_free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompts_are_what_the_templates_say),
        cmocka_unit_test(each_template_writes_its_layout),
        cmocka_unit_test(only_the_assistant_is_learned),
        cmocka_unit_test(targets_go_on),
        cmocka_unit_test(names_are_text),
        cmocka_unit_test(errors_name_file_line_and_byte),
        cmocka_unit_test(normalized_texts_are_what_is_kept),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
