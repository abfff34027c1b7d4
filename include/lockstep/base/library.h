/* Shared libraries that one engine needs are loaded with its first use, so that other commands start without them and what
 * they bring. */
#ifndef LOCKSTEP_LIBRARY_H
#define LOCKSTEP_LIBRARY_H

#ifdef __cplusplus
extern "C" {
#endif

/* For good: what such libraries bring does not survive that they are unloaded. Not thread-safe: pthread_once. */
struct lk_library {
    void *handle;      /* NULL: it was not found */
    char problem[256]; /* empty: it is here with all that was asked for; else the first that was missed */
};
void lk_library_open(struct lk_library *, const char *const *names); /* the first that is there; NULL at the end */
/* *function, a pointer to a function, gets what has this name. */
void lk_library_find(struct lk_library *, const char *name, void *function);

#ifdef __cplusplus
}
#endif
#endif
