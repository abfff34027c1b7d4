#include "data/manifest.h"

int lk__manifest_put(struct lk_store *s, const json_t *m, const char *what, struct lk_root *out, struct lk_err *err) {
    json_t *back = NULL;
    int code = lk_manifest_put(s, m, out, err);
    if (!code) code = lk_manifest_get(s, out, what, &back, err);
    if (!code && !json_equal(m, back)) code = lk_fail(err, LK_ENOMEM, "writing the manifest of a %s: out of memory", what);
    json_decref(back);
    return code;
}
