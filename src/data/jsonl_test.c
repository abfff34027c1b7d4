#include "data/jsonl.h"
#include "data/testing.h"
#include <jansson.h>

static const struct lk__data_record_keys usual;

struct outcome {
    int code;
    size_t prompt_size;
    bool blank;
};

/* What jansson and plain rules make of a line. */
static struct outcome by_jansson(const char *line, size_t size, struct lk_buf *text) {
    struct outcome o = {0};
    json_error_t error;
    text->size = 0;
    if (strspn(line, " \t\r\n") == size) return o.blank = true, o;
    json_t *v = json_loadb(line, size, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    const json_t *t = json_object_get(v, "text"), *p = json_object_get(v, "prompt"), *r = json_object_get(v, "response");
    o.code = LK_EINVAL;
    if (json_is_object(v) && json_is_string(t) && !p && !r) {
        o.code = lk_buf_append(text, json_string_value(t), json_string_length(t));
    } else if (json_is_object(v) && !t && json_is_string(p) && json_is_string(r)) {
        o.prompt_size = json_string_length(p);
        o.code = lk_buf_append(text, json_string_value(p), json_string_length(p));
        if (!o.code) o.code = lk_buf_append(text, json_string_value(r), json_string_length(r));
    } else if (json_is_object(v) && !t && !p && !r && json_is_array(json_object_get(v, "messages"))) {
        o.code = 0; /* its text waits for lk__data_messages_parse */
    }
    json_decref(v);
    return o;
}

static int check(const char *line, size_t size) {
    struct lk_buf have = LK_BUF_INIT, want = LK_BUF_INIT;
    struct lk__data_record record;
    size_t at;
    char *copy = lk_alloc(size + 1); /* sanitizers see a read past the line */
    char *exact = lk_alloc(size ? size : 1);
    memcpy(copy, line, size);
    memcpy(exact, line, size);
    copy[size] = 0;
    int code = lk__data_record_parse(exact, size, &usual, &have, &record, &at, &test_err);
    struct outcome o = by_jansson(copy, size, &want);
    if (code != o.code) fail_msg("%s: %d (%s), jansson %d", copy, code, code ? test_err.message : "", o.code);
    assert_true(at <= size);
    if (!code) {
        assert_int_equal(record.blank, o.blank);
        assert_int_equal(record.prompt_size, o.prompt_size);
        if (!record.blank) assert_int_equal(have.size, want.size);
        if (!record.blank && want.size) assert_memory_equal(have.data, want.data, want.size);
    }
    lk_buf_release(&have);
    lk_buf_release(&want);
    lk_free(copy);
    lk_free(exact);
    return code;
}

static void good_records(void **state) {
    (void)state;
    static const char *const lines[] = {
        "{\"text\":\"\"}",
        "  { \"text\" : \"a\\tb\\n\\\"\\\\\\/\\b\\f\\r\" } \r",
        "{\"text\":\"\\u0041\\u00e9\\u4e2d\\ud83d\\ude00\\u0000x\"}",
        "{\"prompt\":\"p\",\"response\":\"r\"}",
        "{\"response\":\"r\",\"x\":1,\"prompt\":\"p\\u0020\"}",
        "{\"a\":[],\"b\":{},\"c\":[[{\"d\":[1,-2.5e+3,true,false,null,\"\"]}]],\"text\":\"t\"}",
        "",
        "   \t\r",
        "{\"te\\u0078t\":\"escaped key\"}",
        "{\"text\":\"\xE4\xB8\xAD\xF0\x9F\x98\x80 0123456789 abcdefgh\"}",
        "{\"n\":0,\"m\":-0,\"o\":10,\"p\":0.5,\"q\":1E5,\"text\":\"\"}",
        "{\"\":1,\"text\":\"\\u007f\x7F\"}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}",
        "{\"messages\":7,\"text\":\"a\"}",
        "{\"prompt\":\"p\",\"messages\":[],\"response\":\"r\"}"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        if (check(lines[i], strlen(lines[i]))) fail_msg("%s: %s", lines[i], test_err.message);
}

static void messages_are_taken_apart(void **state) {
    (void)state;
    static const struct {
        const char *array, *says; /* says NULL: good, roles and contents joined are `all` */
        const char *all;
    } cases[] = {
        {"[{\"role\":\"user\",\"content\":\"a\\n\"},{\"content\":\"b\",\"role\":\"assistant\"}]", NULL,
         "user|a\n|assistant|b|"},
        {" [ { \"content\" : \"\" , \"role\" : \"\\u0075\" } ] ", NULL, "u||"},
        {"[]", "is empty", NULL},
        {"[7]", "messages[0] is not an object", NULL},
        {"[{}]", "messages[0] has no \"role\"", NULL},
        {"[{\"role\":\"user\"}]", "messages[0] has no \"content\"", NULL},
        {"[{\"role\":\"a\",\"content\":\"\"},{\"role\":\"a\",\"role\":\"b\"}]", "messages[1] has \"role\" twice", NULL},
        {"[{\"role\":\"a\",\"content\":null}]", "messages[0].content is not a string", NULL},
        {"[{\"role\":\"a\",\"content\":\"\",\"tool_calls\":[]}]", "the key \"tool_calls\"", NULL},
    };
    struct lk_buf text = LK_BUF_INIT, messages = LK_BUF_INIT, all = LK_BUF_INIT;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lk__data_record record;
        size_t at;
        char *line = lk_asprintf("{\"messages\":%s}", cases[i].array);
        assert_int_equal(lk__data_record_parse(line, strlen(line), &usual, &text, &record, &at, &test_err), 0);
        assert_non_null(record.messages);
        if (cases[i].says)
            FAILS(lk__data_messages_parse(record.messages, record.messages_size, &text, &messages, &at, &test_err),
                  LK_EINVAL, cases[i].says);
        else {
            assert_int_equal(
                lk__data_messages_parse(record.messages, record.messages_size, &text, &messages, &at, &test_err), 0);
            const struct lk__data_message *m = (const struct lk__data_message *)(const void *)messages.data;
            all.size = 0;
            for (size_t k = 0; k < messages.size / sizeof *m; k++)
                assert_int_equal(lk_buf_printf(&all, "%.*s|%.*s|", (int)m[k].role_size, text.data + m[k].role,
                                               (int)m[k].content_size, text.data + m[k].content),
                                 0);
            assert_string_equal(all.data, cases[i].all);
        }
        lk_free(line);
    }
    lk_buf_release(&text), lk_buf_release(&messages), lk_buf_release(&all);
}

/* Which of several texts a record is read for. */
static void keys_and_nulls_choose(void **state) {
    (void)state;
    static const struct lk__data_record_keys chat = {.conversations = true}, text_key = {.text = "text"},
                                             messages_key = {.messages = "messages"}, content = {.text = "content"};
    static const char m[] = "[{\"role\":\"user\",\"content\":\"a\"}]";
    static const struct {
        const char *line; /* %s: the messages above */
        const struct lk__data_record_keys *keys;
        const char *text, *says; /* text NULL: the messages; says: what is wrong */
    } cases[] = {
        {"{\"prompt\":\"Hi\",\"messages\":%s}", &chat, NULL, NULL},
        {"{\"text\":\"t\",\"messages\":%s}", &usual, "t", NULL},
        {"{\"text\":\"t\",\"messages\":%s}", &chat, NULL, "--messages-key messages, or the text with --text-key text"},
        {"{\"text\":\"t\",\"messages\":%s}", &text_key, "t", NULL},
        {"{\"text\":\"t\",\"messages\":%s}", &messages_key, NULL, NULL},
        {"{\"prompt\":\"p\",\"response\":\"r\",\"messages\":%s}", &chat, NULL, "by leaving out --template"},
        {"{\"text\":\"t\",\"messages\":[ ]}", &chat, "t", NULL},
        {"{\"text\":\"t\",\"messages\":null}", &chat, "t", NULL},
        {"{\"text\":null,\"messages\":%s}", &chat, NULL, NULL},
        {"{\"text\":null,\"prompt\":\"p\",\"response\":\"r\"}", &usual, "pr", NULL},
        {"{\"content\":\"c\",\"text\":7}", &content, "c", NULL},
        {"{\"content\":null}", &content, NULL, "it has no \"content\""},
        {"{\"text\":\"t\",\"prompt\":\"p\"}", &text_key, "t", NULL},
    };
    struct lk_buf text = LK_BUF_INIT, line = LK_BUF_INIT;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lk__data_record record;
        size_t at;
        const char *gap = strstr(cases[i].line, "%s");
        line.size = 0;
        if (gap)
            OK(lk_buf_printf(&line, "%.*s%s%s", (int)(gap - cases[i].line), cases[i].line, m, gap + 2));
        else
            OK(lk_buf_printf(&line, "%s", cases[i].line));
        int code = lk__data_record_parse(line.data, line.size, cases[i].keys, &text, &record, &at, &test_err);
        if (cases[i].says ? code != LK_EINVAL || !strstr(test_err.message, cases[i].says) : code != 0)
            fail_msg("%s: %d, %s", line.data, code, test_err.message);
        if (code) continue;
        assert_int_equal(record.messages != NULL, cases[i].text == NULL);
        if (cases[i].text) assert_string_equal(text.data, cases[i].text);
    }
    static const char tools[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"a\",\"tool_calls\":null}],\"tools\":[{}]}";
    struct lk__data_record record;
    size_t at;
    OK(lk__data_record_parse(tools, sizeof tools - 1, &usual, &text, &record, &at, &test_err));
    assert_true(record.tools);
    OK(lk__data_messages_parse(record.messages, record.messages_size, &text, &line, &at, &test_err));
    lk_buf_release(&text), lk_buf_release(&line);
}

static void bad_records_say_what_and_where(void **state) {
    (void)state;
    static const struct {
        const char *line, *part;
        size_t at;
    } cases[] = {
        {"{", "a key in quotes", 1},
        {"[1]", "begins with {", 0},
        {"{}", "neither", 0},
        {"{\"text\":1}", "\"text\" is not a string", 8},
        {"{\"text\":null}", "neither", 0},
        {"{\"text\":\"a\"} x", "behind the record", 13},
        {"{\"text\":\"a\",}", "a key in quotes", 12},
        {"{\"text\":\"a\" \"b\":1}", "a comma", 12},
        {"{\"text\" \"a\"}", "a colon", 8},
        {"{\"te\\u0000xt\":\"a\"}", "a zero byte in a key", 1},
        {"{\"text\":\"a\",\"text\":\"b\"}", "\"text\" stands twice", 12},
        {"{\"text\":\"a\",\"prompt\":\"b\"}", "the one or the other", 0},
        {"{\"prompt\":\"b\"}", "neither", 0},
        {"{\"text\":\"a", "ends in a string", 10},
        {"{\"text\":\"\\", "ends in a string", 10},
        {"{\"text\":\"\\x\"}", "unknown escape", 10},
        {"{\"text\":\"\\u12g4\"}", "four hexadecimal", 13},
        {"{\"text\":\"\\u12", "ends in a \\u", 11},
        {"{\"text\":\"\\ud800\"}", "high surrogate", 15},
        {"{\"text\":\"\\udc00\"}", "low surrogate", 15},
        {"{\"text\":\"\\ud800\\u0041\"}", "high surrogate", 21},
        {"{\"text\":\"\xFF\"}", "not UTF-8", 9},
        {"{\"text\":\"aaaaaaaaaaaa\xC3(\"}", "not UTF-8", 21},
        {"{\"text\":\"\x01\"}", "control character", 9},
        {"{\"text\":\"a\",\"n\":01}", "begins with 0", 18},
        {"{\"text\":\"a\",\"n\":1.}", "ends in a point", 18},
        {"{\"text\":\"a\",\"n\":-}", "without digits", 17},
        {"{\"text\":\"a\",\"n\":1e}", "exponent", 18},
        {"{\"text\":\"a\",\"n\":nul}", "not JSON", 16},
        {"{\"text\":\"a\",\"n\":", "too early", 16},
        {"{\"text\":\"a\",\"n\":[1 2]}", "a comma", 19},
        {"{\"text\":\"a\",\"n\":[1,]}", "not JSON", 19},
        {"{\"text\":\"a\",\"n\":[1}", "a comma", 18},
        {"{\"text\":\"a\",\"n\":{\"x\"}}", "a colon", 20},
        {"\xEF\xBB\xBF{\"text\":\"a\"}", "byte order mark", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lk_buf text = LK_BUF_INIT;
        struct lk__data_record record;
        size_t at = 999;
        assert_int_equal(check(cases[i].line, strlen(cases[i].line)), LK_EINVAL);
        FAILS(lk__data_record_parse(cases[i].line, strlen(cases[i].line), &usual, &text, &record, &at, &test_err),
              LK_EINVAL, cases[i].part);
        if (at != cases[i].at) fail_msg("%s: byte %zu, not %zu", cases[i].line, at, cases[i].at);
        lk_buf_release(&text);
    }
}

static void depth_and_keys_are_limited(void **state) {
    (void)state;
    static const int depths[] = {10, 2000, 2046, 2047, 2048, 2049, 100000};
    for (size_t i = 0; i < sizeof depths / sizeof *depths; i++) {
        struct lk_buf b = LK_BUF_INIT;
        OK(lk_buf_printf(&b, "{\"text\":\"\",\"x\":"));
        for (int k = 0; k < depths[i]; k++) OK(lk_buf_append(&b, "[", 1));
        for (int k = 0; k < depths[i]; k++) OK(lk_buf_append(&b, "]", 1));
        OK(lk_buf_append(&b, "}", 1));
        check(b.data, b.size);
        lk_buf_release(&b);
    }
    for (int keys = 999; keys < 1002; keys++) { /* and the text */
        struct lk_buf b = LK_BUF_INIT, text = LK_BUF_INIT;
        struct lk__data_record record;
        size_t at;
        OK(lk_buf_printf(&b, "{\"text\":\"\""));
        for (int k = 0; k < keys; k++) OK(lk_buf_printf(&b, ",\"%d\":0", k));
        OK(lk_buf_append(&b, "}", 1));
        int code = lk__data_record_parse(b.data, b.size, &usual, &text, &record, &at, &test_err);
        assert_int_equal(code, keys < 1000 ? 0 : LK_EINVAL);
        if (code) assert_non_null(strstr(test_err.message, "more than 1000 keys"));
        lk_buf_release(&b);
        lk_buf_release(&text);
    }
}

/* Pieces of JSON in random order, and good lines with a byte changed. Numbers stay small: their size is not looked at. */
static void random_lines_are_judged_as_by_jansson(void **state) {
    (void)state;
    static const char *const pieces[] = {
        "{",        "}",    "[",    "]",    ":",           ",", "\"text\"",           "\"prompt\"",   "\"a\"", "\"\"",
        "1",        "-0.5", "true", "null", "\"\\u00e9\"", " ", "\"\\ud83d\\ude00\"", "\"response\"", "\"b\"", "\"c\"",
        "\xC3\xA9", "\"",   "\\",   "0"};
    random_begin("random_lines_are_judged_as_by_jansson");
    int good = 0;
    for (int i = 0; i < (LK_SANITIZED ? 20000 : 200000); i++) {
        char line[600];
        size_t n = 0;
        if (i & 1) {
            n += (size_t)sprintf(line, "{\"text\":");
            for (size_t k = random_below(10); k-- > 0;) n += (size_t)sprintf(line + n, "%s", pieces[random_below(24)]);
            if (random_below(2)) n += (size_t)sprintf(line + n, "}");
        } else {
            n +=
                (size_t)sprintf(line,
                                "{\"k\":[1,{\"z\":-0.5e1}],\"%s\":\"a\\u0062\\n\xE4\xB8\xAD\\ud83d\\ude00%zu\",\"response\""
                                ":\"a longer text without any escape\"}",
                                random_below(4) ? "prompt" : "text", random_below(1000));
            if (random_below(4)) line[random_below(n)] = (char)random_u64();
        }
        if (memchr(line, 0, n)) continue; /* strspn in the oracle */
        if (!check(line, n)) good++;
    }
    assert_true(good > 1000);
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    static const char line[] = "{\"a\":{\"b\":[1,2]},\"prompt\":\"some \\u00e9 text\",\"response\":\"and more\\n\"}";
    struct lk__data_record record;
    size_t at;
    for (uint64_t n = 1;; n++) {
        struct lk_buf text = LK_BUF_INIT;
        lk__alloc_fail_at(n);
        int code = lk__data_record_parse(line, strlen(line), &usual, &text, &record, &at, &test_err);
        bool reached = lk__alloc_count() >= n;
        lk__alloc_fail_at(0);
        lk_buf_release(&text);
        assert_int_equal(code, reached ? LK_ENOMEM : 0);
        if (!reached) break;
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_records),
        cmocka_unit_test(keys_and_nulls_choose),
        cmocka_unit_test(bad_records_say_what_and_where),
        cmocka_unit_test(messages_are_taken_apart),
        cmocka_unit_test(depth_and_keys_are_limited),
        cmocka_unit_test(random_lines_are_judged_as_by_jansson),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
