/* json_check [lines] < TEXT: exits 0 when standard input is one JSON value, or one JSON object a line. */
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int check(const char *text, size_t size, bool object, size_t line) {
    json_error_t e;
    json_t *v = json_loadb(text, size, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &e);
    int bad = !v || (object && !json_is_object(v));
    if (bad)
        fprintf(stderr, "line %zu: %s\n", line + (v ? 0 : (size_t)(e.line > 0 ? e.line - 1 : 0)),
                v ? "not an object" : e.text);
    json_decref(v);
    return bad;
}

int main(int argc, char **argv) {
    bool lines = argc > 1 && strcmp(argv[1], "lines") == 0;
    char *text = NULL;
    size_t size = 0, capacity = 0, n = 0, bad = 0;
    if (lines) {
        for (ssize_t got; (got = getline(&text, &capacity, stdin)) > 0;) bad += (size_t)check(text, (size_t)got, true, ++n);
        bad += n == 0;
    } else {
        ssize_t got = getdelim(&text, &capacity, 0, stdin);
        size = got > 0 ? (size_t)got : 0;
        bad = (size_t)check(text, size, false, 1);
    }
    free(text);
    return bad ? 1 : 0;
}
