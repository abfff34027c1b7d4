/* API keys: a file of names, hashes and limits. A key is 256 random bits, so a plain hash of it is as safe as the key. */
#ifndef LOCKSTEP_KEYS_H
#define LOCKSTEP_KEYS_H
#include "lockstep/base/err.h"
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LK_KEY_TEXT 47 /* "lk-", 43 characters of base64url, the zero byte */

struct lk_keys;
/* Reads a file: a key a line, "NAME sha256:HEX [requests=N] [tokens=N] [streams=N] [read=PREFIX]
 * [write=PREFIX] [admin=PREFIX]", comments behind #; the last three as often as one likes. requests and tokens
 * are of a minute, streams are requests at the same time. LK_EINVAL: a line that can't be (its number is named), or a file
 * that others may read; LK_ENOTFOUND, LK_EIO, LK_ENOMEM. Threads: any may call what follows. */
int lk_keys_open(const char *path, struct lk_keys **out, struct lk_err *);
/* Reads it again: keys that are still there keep their accounts. On failure all stays as it was. */
int lk_keys_reload(struct lk_keys *, struct lk_err *);
void lk_keys_close(struct lk_keys *);
uint32_t lk_keys_count(struct lk_keys *);
/* The number of a key, the same for a name as long as the keys are open; from "Bearer KEY" or KEY. LK_ENOTFOUND: none. It
 * takes as long whichever it is. */
int lk_keys_find(struct lk_keys *, const char *authorization, uint32_t *key);

/* Whether its line has RIGHT=PREFIX with a prefix of this name, or RIGHT=*. */
bool lk_keys_may(struct lk_keys *, uint32_t key, const char *right, const char *name);

/* A request of that key begins, now_ns is lk_clock_ns(). LK_EBUSY: a limit, *wait_s: seconds after which it may be tried
 * again. When it ends, lk_keys_end tells the tokens it took. */
int lk_keys_begin(struct lk_keys *, uint32_t key, uint64_t now_ns, uint32_t *wait_s, struct lk_err *);
void lk_keys_end(struct lk_keys *, uint32_t key, uint64_t tokens);

/* Draws a key. line: what stands in the file for it, without the newline, "NAME sha256:HEX" (name at most 64 of letters,
 * digits, - _ . @). LK_EINVAL: a name that can't be. */
int lk_key_make(const char *name, char key[LK_KEY_TEXT], char line[256], struct lk_err *);

#ifdef __cplusplus
}
#endif
#endif
