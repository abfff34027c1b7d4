#include "lockstep/base/err.h"
#include "base/limits.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A message is one line: what it quotes (a path, a line of a file) may hold control characters. */
static void clean(char *s) {
    for (; *s; s++) {
        if ((unsigned char)*s < 0x20 || *s == 0x7f) *s = '?';
    }
}

/* Says which limit may be the reason, unless the message has it already. */
static void name_limit(struct lk_err *err, int number) {
    char text[400];
    size_t used = strlen(err->message);
    if (lk__limit_text(number, text, sizeof text) && !strstr(err->message, text))
        snprintf(err->message + used, sizeof err->message - used, "; %s", text);
}

int lk_fail(struct lk_err *err, int code, const char *format, ...) {
    lk__forget_disk();
    if (!err) return code;
    va_list args;
    va_start(args, format);
    err->code = code;
    vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    if (code == LK_ENOMEM) name_limit(err, ENOMEM);
    clean(err->message);
    return code;
}

static int code_of_errno(int number) {
    switch (number) {
    case ENOMEM:
        return LK_ENOMEM;
    case ENOENT:
    case ENOTDIR:
        return LK_ENOTFOUND;
    default:
        return LK_EIO;
    }
}

int lk_fail_errno(struct lk_err *err, const char *format, ...) {
    int number = errno, code = code_of_errno(number);
    if (!err) {
        lk__forget_disk();
        return code;
    }
    va_list args;
    va_start(args, format);
    err->code = code;
    vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    char text[128];
    /* The GNU form returns the text, which need not be in the buffer. */
    const char *reason = strerror_r(number, text, sizeof text);
    size_t used = strlen(err->message);
    snprintf(err->message + used, sizeof err->message - used, ": %s", reason);
    name_limit(err, number);
    clean(err->message);
    errno = number;
    return code;
}

int lk_fail_prefix(struct lk_err *err, int code, const char *format, ...) {
    if (!err) return code ? code : LK_EIO;
    char rest[sizeof err->message];
    memcpy(rest, err->message, sizeof rest);
    va_list args;
    va_start(args, format);
    vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    size_t used = strlen(err->message);
    snprintf(err->message + used, sizeof err->message - used, ": %s", rest);
    clean(err->message);
    err->code = code;
    return code;
}

const char *lk_code_text(int code) {
    switch (code) {
#define X(name, value, text)                                                                                               \
    case value:                                                                                                            \
        return text;
        LK_CODES(X)
#undef X
    default:
        return "unknown error";
    }
}

void lk_assert_failed(const char *text, const char *file, int line) {
    fprintf(stderr, "lockstep: %s:%d: this must hold: %s\n", file, line, text);
    fflush(stderr);
    abort();
}
