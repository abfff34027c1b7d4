/* URLs as people may see them: passwords stay out of messages, logs and lists of processes. */
#include "lockstep/base/mem.h"
#include "lockstep/store/kv.h"
#include <string.h>

/* Whether the value of the option that is called text[0..size) may be shown. A name that hides letters as %XX hides
 * something. */
static bool may_show(const char *text, size_t size) {
    static const char *const secret[] = {"password", "sslpassword"};
    if (memchr(text, '%', size)) return false;
    for (size_t i = 0; i < sizeof secret / sizeof *secret; i++)
        if (strlen(secret[i]) == size && strncmp(text, secret[i], size) == 0) return false;
    return true;
}

static int append(struct lk_buf *out, const char *text, size_t size) {
    return lk_buf_append(out, text, size);
}

char *lk_kv_shown(const char *url) {
    struct lk_buf out = LK_BUF_INIT;
    const char *slashes = strstr(url, "://"), *at = slashes ? strrchr(slashes, '@') : NULL;
    const char *colon = at ? memchr(slashes + 3, ':', (size_t)(at - slashes - 3)) : NULL;
    const char *rest = url;
    int code = 0;
    if (colon) { /* a password that is not written as it should be may hold any of :/?@, so up to the last @ */
        code = append(&out, url, (size_t)(colon - url)) || append(&out, ":***", 4);
        rest = at;
    }
    size_t head = slashes ? strcspn(rest, "?") : strlen(rest);
    code = code || append(&out, rest, head);
    for (rest += head; code == 0 && *rest;) { /* ?a=b&c=d */
        size_t size = 1 + strcspn(rest + 1, "&"), name = 1 + strcspn(rest + 1, "=&");
        bool hide = name < size && !may_show(rest + 1, name - 1);
        code = append(&out, rest, hide ? name + 1 : size) || (hide && append(&out, "***", 3));
        rest += size;
    }
    if (code == 0 && out.data) return out.data;
    lk_buf_release(&out);
    return code == 0 ? lk_strdup("") : NULL;
}
