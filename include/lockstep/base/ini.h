/* INI files with line numbers (inih does the splitting). A comment is a line that begins with ; or #, or stands behind the
 * ] of a section; a value is all of its line behind the = or :, without white space around it. */
#ifndef LOCKSTEP_INI_H
#define LOCKSTEP_INI_H
#include "lockstep/base/err.h"
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct lk_ini_entry {
    char *section, *key, *value;
    int line;          /* 1-based; 0 for an entry set on the command line */
    const char *where; /* "FILE:LINE" or "on the command line", for messages; owned by the lk_ini */
};
struct lk_ini {
    struct lk_ini_entry *entries;
    size_t count;
    char *name; /* the file's name as given */
};
/* A syntax error, a line over 4,096 bytes, a zero byte, a key outside a section, a key given twice: LK_EINVAL that names
 * file and line. */
int lk_ini_read(const char *path, struct lk_ini *out, struct lk_err *);
int lk_ini_parse(const char *text, size_t size, const char *name, struct lk_ini *out, struct lk_err *);
/* Adds or replaces "section.key=value" (from a command line); "key=value" is a key of the section "". */
int lk_ini_override(struct lk_ini *, const char *assignment, struct lk_err *);
const struct lk_ini_entry *lk_ini_find(const struct lk_ini *, const char *section, const char *key); /* NULL: absent */
void lk_ini_release(struct lk_ini *);

/* The candidate nearest to word by edit distance (Damerau-Levenshtein), or NULL if none is near enough to suggest. */
const char *lk_nearest(const char *word, const char *const *candidates, size_t count);

#ifdef __cplusplus
}
#endif
#endif
