/* What the files of `lockstep kv` share: bytes as text, ranges, which rows are ours. */
#ifndef LOCKSTEP_CMD_KV_H
#define LOCKSTEP_CMD_KV_H
#include "cmd.h"

/* The rows of the store, also where they are not Lockstep's (a program's own); LK_CREATE makes a store where there is none.
 * CMD_FAILED with a message. kv_close also takes what kv_open failed to open. */
int kv_open(struct cmd_context *, enum lk_access, struct lk_kv **);
void kv_close(const struct cmd_context *, struct lk_kv *);

/* How keys and values stand in arguments and in what is printed. Text: \\, \t, \n, \r and \xNN stand for what cannot be
 * written, so that what is printed can be given again. */
struct kv_form {
    bool hex, base64;
};
extern struct kv_form kv_form;
extern bool kv_force;
#define KV_FORM                                                                                                            \
    CMD_FLAG("--hex", &kv_form.hex, "keys and values are hexadecimal digits, in arguments and in what is printed"),        \
        CMD_FLAG("--base64", &kv_form.base64, "keys and values are base64, in arguments and in what is printed")
#define KV_FORCE CMD_FLAG("--force", &kv_force, "also rows that are Lockstep's own: names, runs, ledgers, the format")

/* Appends what the text stands for. CMD_OK, or CMD_USAGE with a message. */
int kv_take(const struct cmd_context *, const char *text, struct lk_buf *out);
/* Appends the bytes as text. LK_ENOMEM. */
int kv_write(struct lk_buf *out, struct lk_bytes);
/* The same in a message, cut where it is long; out: (size), at least 8. */
const char *kv_shown(struct lk_bytes, char *out, size_t size);
/* A row as a line of JSON without its end; keys_only: without the value. LK_ENOMEM. */
int kv_json_write(struct lk_buf *out, struct lk_bytes key, struct lk_bytes value, bool keys_only);
/* NULL, or what is wrong with the line. */
const char *kv_json_read(const char *line, size_t size, struct lk_buf *key, struct lk_buf *value);

/* LK_EINVAL: the key is a row of Lockstep's own, and --force is not given. */
int kv_check_ours(struct lk_bytes key, struct lk_err *);
/* The same of all keys that begin so. */
int kv_check_ours_prefix(struct lk_bytes prefix, struct lk_err *);

#endif
