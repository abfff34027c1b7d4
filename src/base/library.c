#include "lockstep/base/library.h"
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

static void miss(struct lk_library *l, const char *what) {
    const char *why = dlerror();
    if (!l->problem[0]) snprintf(l->problem, sizeof l->problem, "%s", why ? why : what);
}
void lk_library_open(struct lk_library *l, const char *const *names) {
    *l = (struct lk_library){0};
    for (const char *const *n = names; *n && !l->handle; n++)
        if (!(l->handle = dlopen(*n, RTLD_NOW | RTLD_LOCAL))) miss(l, *n);
    if (l->handle) l->problem[0] = 0;
}
void lk_library_find(struct lk_library *l, const char *name, void *function) {
    void *symbol = l->handle ? dlsym(l->handle, name) : NULL;
    if (symbol)
        memcpy(function, &symbol, sizeof symbol); /* ISO C has no cast between the two */
    else if (l->handle)
        miss(l, name);
}
