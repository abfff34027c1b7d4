#include "data/tokenizer/internal.h"
int lk_tokenizer_import_ranks(const void *file, size_t size, const char *name, const char *pattern,
                              const struct lk_special *specials, size_t special_count, const char *end,
                              struct lk_tokenizer **out, struct lk_err *err) {
    (void)file, (void)size, (void)pattern, (void)specials, (void)special_count, (void)end;
    *out = NULL;
    return lk_fail(err, LK_EUNSUPPORTED, "%s: rank files are not read yet", name);
}
