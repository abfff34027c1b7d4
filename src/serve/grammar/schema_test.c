/* Schemas: texts that satisfy them and texts that do not, and every refusal by the path of its keyword. */
#include "lockstep/base/json.h"
#include "serve/grammar/testing.h"

/* ' stands for " in schemas and texts. */
static char *quoted(const char *text) {
    char *copy = lk_strdup(text);
    for (char *c = copy; *c; c++)
        if (*c == '\'') *c = '"';
    return copy;
}
static int compile(const char *text, struct lk_grammar **out) {
    char *copy = quoted(text);
    json_t *schema = lk_json_parse(copy, strlen(copy), "schema", &test_err);
    if (!schema) fail_msg("%s: %s", text, test_err.message);
    int code = lk_grammar_from_schema(schema, out, &test_err);
    json_decref(schema);
    lk_free(copy);
    return code;
}

static const struct {
    const char *schema, *texts[14];
} cases[] = {
    {"{'type': 'boolean'}", {"ytrue", "yfalse", "pf", "nnull", "n true"}},
    {"{'type': 'null', 'title': 'x', 'default': 3}", {"ynull"}},
    {"{'type': ['boolean', 'null']}", {"ynull", "ytrue"}},
    {"{'type': 'string'}",
     {"y''", "y'a\xc3\xa9\xf0\x9f\x98\x80'", "n'\n", "n'\x1f", "y'\\n\\u00e9\\ud83d\\ude00'", "n'\\ud83d'", "n'\\ude",
      "n'\\u0000", "n'\xff", "p'\xc3", "n'a'b", "n'\\x"}},
    {"{'type': 'string', 'minLength': 2, 'maxLength': 3}",
     {"n'a'", "y'ab'", "y'a\xe2\x82\xac'", "y'\\u0041\\n\\ud83d\\ude00'", "n'abcd", "p'abc"}},
    {"{'type': 'string', 'maxLength': 0}", {"y''", "n'a"}},
    {"{'type': 'string', 'pattern': '^[a-c]+-(x|yz){2}$'}", {"y'ab-xx'", "y'c-yzx'", "n'c-x'", "n'-", "n'c-xxx"}},
    {"{'type': 'string', 'pattern': '\\\\d'}", {"y'a1b'", "n'ab'", "y'1'", "p'\\n"}},
    {"{'type': 'string', 'pattern': '^a|b$|^\\\\\\\\\\\\.$'}", {"y'axx'", "y'xxb'", "y'\\\\.'", "n'x'", "y'\\\\\\\\.b'"}},
    {"{'type': 'string', 'pattern': '^[^\\\\w\\\\u0000]\\\\s?\\\\x41*?(?:\\\\u00e9|\\\\u{1F600})(?<n>.)$'}",
     {"y'-\\tA\xc3\xa9\\\\'", "y'\xc3\xa9 \xf0\x9f\x98\x80z'", "na", "n'a", "y'\\u001f\xc3\xa9!'", "n'-\xc3\xa9\\n"}},
    {"{'type': 'integer'}", {"y0", "y-12", "n01", "n-0", "n1.", "y123456789012345678", "n1234567890123456789", "n+"}},
    {"{'type': 'number'}", {"y0", "y-0.5", "y1e-3", "y1.25E+10", "n.", "p1.", "p1e", "n1e100", "n00"}},
    {"{'type': 'integer', 'minimum': -3, 'maximum': 12}",
     {"y-3", "y-1", "n-4", "n-0", "y0", "y9", "y12", "n13", "y1", "n20", "n012"}},
    {"{'type': 'integer', 'exclusiveMinimum': 98, 'exclusiveMaximum': 1002.5}",
     {"y99", "p98", "y1002", "n1003", "p9", "y100", "n097"}},
    {"{'type': 'integer', 'minimum': 1.5, 'maximum': 2}", {"y2", "n1", "n3"}},
    {"{'type': 'integer', 'minimum': 999999999999999999}", {"y999999999999999999", "n999999999999999998"}},
    {"{'type': 'integer', 'minimum': 10, 'maximum': 40, 'multipleOf': 7}",
     {"y14", "y35", "n1 4", "n10", "n7", "n42", "p2"}},
    {"{'type': 'number', 'multipleOf': 5, 'maximum': -3}", {"y-5", "y-10", "n0", "p-3", "p-4", "n-5.0"}},
    {"{'type': 'number', 'minimum': 0.25, 'exclusiveMaximum': 1}",
     {"y0.25", "y0.250", "y0.99", "n0.2 ", "p0.2", "n0.24", "n1", "y0.3", "n-", "n0.25e"}},
    {"{'type': 'number', 'minimum': -1.5, 'maximum': 10}",
     {"y-1.5", "y-1.50", "n-1.51", "y10", "y10.0", "n10.01", "y0.0", "n-0.0,", "y-0.01"}},
    {"{'type': 'number', 'exclusiveMinimum': 0}", {"y0.001", "p0.0", "p0", "y123456789.5", "n-"}},
    {"{'const': {'a': [1, 2.5, null], 'b': 'x\xc3\xa9\\n'}}", {"y{'a': [1, 2.5, null], 'b': 'x\xc3\xa9\\n'}", "n{'a':["}},
    {"{'enum': ['a', 'ab', 3, 0.1]}", {"y'a'", "y'ab'", "y3", "y0.1", "n0.10", "n'b"}},
    {"{'enum': ['a', 3, null], 'type': ['string', 'null']}", {"y'a'", "ynull", "n3"}},
    {"{'anyOf': [{'type': 'integer'}, {'type': 'object', 'properties': {'a': {'type': 'null'}}, 'required': ['a'], "
     "'additionalProperties': false}]}",
     {"y5", "y{'a': null}", "n{}", "n{'b"}},
    {"{'type': 'object', 'properties': {}, 'additionalProperties': false}", {"y{}", "n{'"}},
    {"{'type': 'object', 'properties': {'b': {'type': 'integer'}, 'a': {'type': 'null'}}, 'required': ['a', 'b']}",
     {"y{'b': 1, 'a': null}", "n{'a", "n{'b': 1}", "n{'b':1", "n{ "}},
    {"{'type': 'object', 'properties': {'a': {'type': 'null'}, 'b': {'type': 'null'}, 'c': {'type': 'null'}}, 'required': "
     "['b']}",
     {"y{'b': null}", "y{'a': null, 'b': null, 'c': null}", "y{'b': null, 'c': null}", "n{}", "n{'c", "n{'a': null}",
      "n{'b': null, 'a"}},
    {"{'type': 'object', 'properties': {'a': {'type': 'null'}, 'b': {'type': 'null'}}}",
     {"y{}", "y{'a': null}", "y{'b': null}", "y{'a': null, 'b': null}", "n{'b': null, '"}},
    {"{'type': 'array', 'items': {'type': 'integer'}}", {"y[]", "y[1, 2, 3]", "n[1,2", "n[1, ]", "p[1, "}},
    {"{'type': 'array', 'items': {'type': 'null'}, 'minItems': 1, 'maxItems': 2}",
     {"n[]", "y[null]", "y[null, null]", "n[null, null, "}},
    {"{'type': 'array', 'maxItems': 0}", {"y[]", "n[1"}},
    {"{'type': 'array', 'minItems': 2}", {"y[{'a': []}, 'x']", "n[1]"}},
    {"{'$ref': '#/$defs/list', '$defs': {'list': {'type': 'object', 'properties': {'v': {'type': 'integer'}, 'next': "
     "{'anyOf': "
     "[{'$ref': '#/$defs/list'}, {'type': 'null'}]}}, 'required': ['v', 'next'], 'additionalProperties': false}}}",
     {"y{'v': 1, 'next': {'v': 2, 'next': null}}", "n{'v': 1}", "p{'v': 1, 'next': {"}},
    {"{'type': 'object', 'properties': {'kids': {'type': 'array', 'items': {'$ref': '#'}}}, 'required': ['kids']}",
     {"y{'kids': []}", "y{'kids': [{'kids': []}, {'kids': [{'kids': []}]}]}"}},
    {"{'type': 'object', 'properties': {'a~/%': {'type': 'null'}, 'b': {'$ref': '#/properties/a~0~1%25'}}, 'required': "
     "['b']}",
     {"y{'b': null}", "y{'a~/%': null, 'b': null}"}},
    {"{}", {"y1", "y{'a': {'b': [true, -1.5e3, null]}}", "y'x'", "n{a", "n[1 ,"}},
    {"{'type': 'string', 'format': 'date'}",
     {"y'2024-02-29'", "n'2023-02-29", "y'2000-02-29'", "n'1900-02-29", "n'2024-13", "n'2024-04-31", "n'0000"}},
    {"{'type': 'string', 'format': 'time'}", {"y'23:59:59Z'", "y'00:00:00.123+05:30'", "n'24", "n'12:00:00'", "n'12:60"}},
    {"{'type': 'string', 'format': 'date-time'}", {"y'2024-02-29T12:30:00Z'", "n'2024-02-29 ", "n'2024-02-29T12:30Z"}},
    {"{'type': 'string', 'format': 'duration'}",
     {"y'P3Y6M4DT12H30M5S'", "y'PT1S'", "y'P2W'", "n'P'", "n'P1Y1D", "n'PT'", "n'1"}},
    {"{'type': 'string', 'format': 'email'}", {"y'a.b+c@example.com'", "n'@", "n'a..b", "p'a@b", "y'a@b'", "n'a@-"}},
    {"{'type': 'string', 'format': 'hostname'}", {"y'a-b.example.com'", "n'-a", "n'a-'", "n'a..b"}},
    {"{'type': 'string', 'format': 'ipv4'}", {"y'192.168.0.255'", "n'256", "n'01", "n'1.2.3'"}},
    {"{'type': 'string', 'format': 'ipv6'}",
     {"y'::1'", "y'2001:db8::ff00:42:8329'", "y'1:2:3:4:5:6:7:8'", "y'1::'", "n'1:2'", "n'1::2::3'", "n'12345", "y'::'"}},
    {"{'type': 'string', 'format': 'uuid'}", {"y'123e4567-e89b-12d3-a456-426614174000'", "n'123e4567e", "n'g"}},
};
static void schemas_have_their_texts(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct lk_grammar *g;
        if (compile(cases[i].schema, &g)) fail_msg("%s: %s", cases[i].schema, test_err.message);
        for (const char *const *t = cases[i].texts; *t; t++) {
            char *text = quoted(*t + 1), is = test_text(g, text, strlen(text));
            if (is != **t) fail_msg("%s: %s is '%c', not '%c'", cases[i].schema, text, is, **t);
            lk_free(text);
        }
        lk_grammar_free(g);
    }
}

static const struct {
    const char *schema;
    int code;
    const char *message;
} refusals[] = {
    {"{'type': 'object', 'properties': {'a': {'allOf': []}}}", LK_EUNSUPPORTED, "$.properties.a.allOf: not supported"},
    {"{'type': 'object', 'properties': {'a b': {'not': {}}}}", LK_EUNSUPPORTED, "$.properties[\"a b\"].not: not supported"},
    {"{'oneOf': []}", LK_EUNSUPPORTED, "$.oneOf: not supported"},
    {"{'type': 'object', 'patternProperties': {}}", LK_EUNSUPPORTED, "$.patternProperties: "},
    {"{'type': 'object', 'additionalProperties': true}", LK_EUNSUPPORTED, "$.additionalProperties: must be false"},
    {"{'type': 'object', 'required': ['a']}", LK_EINVAL, "$.required[0]: a is none of the properties"},
    {"{'type': 'object', 'required': [1]}", LK_EINVAL, "$.required[0]: must be a name"},
    {"{'type': 'object', 'required': 'a'}", LK_EINVAL, "$.required: must be a list"},
    {"{'type': 'object', 'properties': []}", LK_EINVAL, "$.properties: must be an object"},
    {"{'type': 'array', 'uniqueItems': true}", LK_EUNSUPPORTED, "$.uniqueItems: not supported"},
    {"{'type': 'array', 'items': {'anyOf': [{}, {'if': {}}]}}", LK_EUNSUPPORTED, "$.items.anyOf[1].if: not supported"},
    {"{'type': 'array', 'items': []}", LK_EINVAL, "$.items: a schema must be an object"},
    {"{'type': 'array', 'items': false}", LK_EUNSUPPORTED, "$.items: false"},
    {"{'type': 'array', 'minItems': 3, 'maxItems': 2}", LK_EINVAL, "$.minItems: 3 is more than maxItems, 2"},
    {"{'type': 'array', 'minItems': -1}", LK_EINVAL, "$.minItems: must be a whole number"},
    {"{'type': 'array', 'maxItems': 1000000}", LK_EUNSUPPORTED, "$.maxItems: more than 100000"},
    {"{'type': 'string', 'minLength': 'x'}", LK_EINVAL, "$.minLength: must be a whole number"},
    {"{'type': 'string', 'maxLength': 99999}", LK_EINVAL, "too large"},
    {"{'type': 'string', 'pattern': 3}", LK_EINVAL, "$.pattern: must be a string"},
    {"{'type': 'string', 'pattern': 'a', 'format': 'date'}", LK_EUNSUPPORTED,
     "$.pattern: not supported together with format"},
    {"{'type': 'string', 'pattern': 'a', 'minLength': 2}", LK_EUNSUPPORTED, "$.minLength: not supported together"},
    {"{'type': 'string', 'format': 'uri'}", LK_EUNSUPPORTED, "$.format: uri is not supported; there are date-time"},
    {"{'type': 'string', 'pattern': '(?=a)'}", LK_EUNSUPPORTED, "$.pattern: at character 1: only (...)"},
    {"{'type': 'string', 'pattern': '(?<!a)'}", LK_EUNSUPPORTED, "$.pattern: at character 1: only (...)"},
    {"{'type': 'string', 'pattern': '(a)\\\\1'}", LK_EUNSUPPORTED, "$.pattern: at character 4: \\1 refers back"},
    {"{'type': 'string', 'pattern': 'a\\\\b'}", LK_EUNSUPPORTED, "$.pattern: at character 2: \\b is not supported"},
    {"{'type': 'string', 'pattern': '\\\\p{L}'}", LK_EUNSUPPORTED, "\\p is not supported"},
    {"{'type': 'string', 'pattern': 'a^b'}", LK_EUNSUPPORTED, "at character 2: ^ is supported only at the begin"},
    {"{'type': 'string', 'pattern': '(a$)'}", LK_EUNSUPPORTED, "at character 3: $ is supported only at the end"},
    {"{'type': 'string', 'pattern': '[a'}", LK_EINVAL, "at character 1: this class has no end"},
    {"{'type': 'string', 'pattern': '[b-a]'}", LK_EINVAL, "at character 2: this range goes backwards"},
    {"{'type': 'string', 'pattern': '(a'}", LK_EINVAL, "at character 1: this group has no end"},
    {"{'type': 'string', 'pattern': 'a)'}", LK_EINVAL, "at character 2: there is no group"},
    {"{'type': 'string', 'pattern': '*a'}", LK_EINVAL, "at character 1: there is nothing before *"},
    {"{'type': 'string', 'pattern': 'a**'}", LK_EINVAL, "at character 3: there is nothing before *"},
    {"{'type': 'string', 'pattern': 'a{3,1}'}", LK_EINVAL, "{3,1} goes backwards"},
    {"{'type': 'string', 'pattern': '\\\\ud83d'}", LK_EUNSUPPORTED, "U+D83D is no character"},
    {"{'type': 'string', 'pattern': 'a\\\\'}", LK_EINVAL, "a \\ ends the pattern"},
    {"{'type': 'number', 'multipleOf': 0.1}", LK_EUNSUPPORTED, "$.multipleOf: only whole numbers"},
    {"{'type': 'integer', 'multipleOf': 0}", LK_EINVAL, "$.multipleOf: must be a number above 0"},
    {"{'type': 'integer', 'minimum': 'x'}", LK_EINVAL, "$.minimum: must be a number"},
    {"{'type': 'integer', 'minimum': 5, 'maximum': 4}", LK_EINVAL, "$: no number lies between"},
    {"{'type': 'integer', 'minimum': 11, 'maximum': 13, 'multipleOf': 7}", LK_EINVAL, "has no text"},
    {"{'type': 'integer', 'maximum': 1e30}", LK_EUNSUPPORTED, "$.maximum: bounds of more than 18 digits"},
    {"{'type': 'number', 'maximum': 1e15}", LK_EUNSUPPORTED, "$.maximum: bounds of more than 15 digits"},
    {"{'type': 'text'}", LK_EINVAL, "$.type: text is none of string"},
    {"{'type': []}", LK_EINVAL, "$.type: the list is empty"},
    {"{'type': 3}", LK_EINVAL, "$.type: must be a name"},
    {"{'enum': []}", LK_EINVAL, "$.enum: must be a list of one value or more"},
    {"{'enum': [1], 'type': 'string'}", LK_EINVAL, "$.enum: no value is of the type"},
    {"{'const': 1, 'minimum': 0}", LK_EUNSUPPORTED, "$.minimum: not supported beside enum or const"},
    {"{'anyOf': [], 'type': 'string'}", LK_EUNSUPPORTED, "$.type: not supported beside anyOf"},
    {"{'anyOf': []}", LK_EINVAL, "$.anyOf: must be a list"},
    {"{'properties': {}}", LK_EUNSUPPORTED, "$: a schema without type"},
    {"{'$ref': '#/$defs/x'}", LK_EINVAL, "$.$ref: #/$defs/x leads nowhere"},
    {"{'$ref': 'http://x'}", LK_EUNSUPPORTED, "$.$ref: only # and pointers"},
    {"{'$ref': '#/$defs/a', 'type': 'object'}", LK_EUNSUPPORTED, "$.type: not supported beside $ref"},
    {"{'$ref': '#'}", LK_EINVAL, "has no text"},
    {"{'$ref': '#/$defs/a', '$defs': {'a': {'type': 'array', 'items': {'contains': {}}}}}", LK_EUNSUPPORTED,
     "$.$defs.a.items.contains: not supported"},
    {"{'type': 'object', 'properties': {'a': {'$ref': '#'}}, 'required': ['a']}", LK_EINVAL, "has no text"},
    {"3", LK_EINVAL, "$: a schema must be an object"},
};
static void what_is_outside_is_refused_by_its_path(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        struct lk_grammar *g;
        test_err.message[0] = 0;
        int code = compile(refusals[i].schema, &g);
        if (code != refusals[i].code || !strstr(test_err.message, refusals[i].message) || g)
            fail_msg("%s: %d, \"%s\", not \"%s\"", refusals[i].schema, code, test_err.message, refusals[i].message);
    }
    struct lk_buf deep = LK_BUF_INIT;
    for (int i = 0; i < 400; i++) OK(lk_buf_printf(&deep, "{'type': 'array', 'items': "));
    OK(lk_buf_printf(&deep, "{'type': 'null'}"));
    for (int i = 0; i < 400; i++) OK(lk_buf_printf(&deep, "}"));
    struct lk_grammar *g;
    FAILS(compile(deep.data, &g), LK_EUNSUPPORTED, "nested deeper than 256");
    lk_buf_release(&deep);
}

static void any_object_is_json(void **state) {
    (void)state;
    static const char *const texts[] = {"y{}", "y{'a': 1, 'b': [true, {'c': ''}]}", "n[", "n{'a':1", "p{'a': ", "n{}x"};
    struct lk_grammar *g;
    OK(lk_grammar_json_object(&g, &test_err));
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char *text = quoted(texts[i] + 1);
        TEXT_IS(g, text, texts[i][0]);
        lk_free(text);
    }
    lk_grammar_free(g);
}

/* Every whole number and every decimal of two places near random bounds, one by one. */
static void bounds_are_exact(void **state) {
    (void)state;
    struct test_random r = test_random_open("bounds_are_exact");
    for (int i = 0; i < 60; i++) {
        int low = (int)test_random_below(&r, 2400) - 1200, high = low + (int)test_random_below(&r, 400), multiple = 1;
        bool whole = i % 2, open = test_random_below(&r, 2);
        char schema[200], text[32];
        if (whole && test_random_below(&r, 2)) multiple = 1 + (int)test_random_below(&r, 30);
        if (whole)
            snprintf(schema, sizeof schema, "{'type': 'integer', '%s': %d, 'maximum': %d, 'multipleOf': %d}",
                     open ? "exclusiveMinimum" : "minimum", low, high, multiple);
        else
            snprintf(schema, sizeof schema, "{'type': 'number', '%s': %.2f, 'maximum': %.2f}",
                     open ? "exclusiveMinimum" : "minimum", low / 100.0, high / 100.0);
        struct lk_grammar *g;
        int code = compile(schema, &g), found = 0;
        for (int n = low - 120; n <= high + 120; n++) {
            bool in = n >= low + open && n <= high && n % multiple == 0;
            found += in;
            if (code) continue;
            if (whole)
                snprintf(text, sizeof text, "%d", n);
            else
                snprintf(text, sizeof text, "%s%d.%02d", n < 0 ? "-" : "", abs(n) / 100, abs(n) % 100);
            if (!whole && n == 0) continue;
            if ((test_text(g, text, strlen(text)) == 'y') != in) fail_msg("%s: %s", schema, text);
        }
        if (code && (found || !strstr(test_err.message, "no"))) fail_msg("%s: %s", schema, test_err.message);
        if (!code) lk_grammar_free(g);
    }
}

static json_t *parsed;
static int compile_parsed(void) {
    struct lk_grammar *g, *object;
    int code = lk_grammar_from_schema(parsed, &g, &test_err);
    if (!code) code = lk_grammar_json_object(&object, &test_err);
    if (!code) lk_grammar_free(object);
    lk_grammar_free(g);
    return code;
}
static void no_memory_is_said(void **state) {
    (void)state;
    char *text = quoted(
        "{'type': 'object', 'properties': {'a': {'$ref': '#/$defs/x'}, 'b': {'type': 'string', 'pattern': '^(a|[^b])+$'}, "
        "'c': {'type': 'number', 'minimum': 3}, 'd': {'type': 'integer', 'multipleOf': 3, 'maximum': 99, 'minimum': -9}, "
        "'e': {'enum': [1, 'x']}}, "
        "'required': ['b'], '$defs': {'x': {'type': ['string', 'null'], 'format': 'ipv4'}}}");
    parsed = lk_json_parse(text, strlen(text), "schema", &test_err);
    assert_non_null(parsed);
    FAIL_EACH_ALLOCATION(compile_parsed());
    json_decref(parsed);
    lk_free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schemas_have_their_texts), cmocka_unit_test(what_is_outside_is_refused_by_its_path),
        cmocka_unit_test(any_object_is_json),       cmocka_unit_test(bounds_are_exact),
        cmocka_unit_test(no_memory_is_said),
    };
    return cmocka_run_group_tests(tests, test_bytes_setup, test_bytes_teardown);
}
