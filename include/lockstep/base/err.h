/* Errors: one table of codes, one message that says what, where and what to do. */
#ifndef LOCKSTEP_ERR_H
#define LOCKSTEP_ERR_H

#ifdef __cplusplus
extern "C" {
#endif

#define LK_CODES(X)                                                                                                        \
    X(LK_OK, 0, "ok")                                                                                                      \
    X(LK_ENOMEM, -1, "out of memory")                                                                                      \
    X(LK_EIO, -2, "input or output failed")                                                                                \
    X(LK_EINVAL, -3, "invalid value")                                                                                      \
    X(LK_ENOTFOUND, -4, "not found")                                                                                       \
    X(LK_EEXISTS, -5, "already exists")                                                                                    \
    X(LK_ECORRUPT, -6, "damaged data")                                                                                     \
    X(LK_EBUSY, -7, "in use")                                                                                              \
    X(LK_ESTOPPED, -8, "stopped on request")                                                                               \
    X(LK_ENAN, -9, "not a number")                                                                                         \
    X(LK_EDIVERGED, -10, "bits differ")                                                                                    \
    X(LK_EUNSUPPORTED, -11, "not supported")                                                                               \
    X(LK_ECONFLICT, -12, "conflict with another transaction")

enum lk_code {
#define X(name, value, text) name = value,
    LK_CODES(X)
#undef X
};

/* Filled by a failing call when the caller passes one; `message` is one line without a newline. */
struct lk_err {
    int code;
    char message[768];
};

/* Sets *err (which may be NULL) and returns code, so that a function can `return lk_fail(...)`. To LK_ENOMEM it adds the
 * limits of memory that are set here, as "; address space is limited to 976 MiB (ulimit -v)". */
int lk_fail(struct lk_err *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* The same with ": strerror(errno)" appended, and the limit that may stand behind it: of memory, processes, open files, a
 * file's size, or what is free on the disk that was written last. The code is LK_EIO, or LK_ENOMEM / LK_ENOTFOUND where
 * errno says so. */
int lk_fail_errno(struct lk_err *err, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Puts "text: " before the message that err already holds; returns err->code (LK_EIO when err is NULL). */
int lk_fail_prefix(struct lk_err *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* The fixed text of a code; never NULL. */
const char *lk_code_text(int code);

/* An assertion that stays on: for programmer errors only, never for input. */
void lk_assert_failed(const char *text, const char *file, int line) __attribute__((noreturn));
#define LK_ASSERT(x) ((x) ? (void)0 : lk_assert_failed(#x, __FILE__, __LINE__))

#ifdef __cplusplus
}
#endif
#endif
