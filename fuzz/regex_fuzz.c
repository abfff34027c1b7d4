/* clang -fsanitize=fuzzer,address: a pattern is refused with the place, or matches the same whatever is remembered between
 * texts; what its head says holds. Up to the first zero byte it is the pattern, behind it texts, zero bytes between. */
#include "store/table/regex.h"
#include <stdlib.h>
#include <string.h>

static int match(struct lk__table_regex_run *run, struct lk_bytes text) {
    struct lk_err err;
    bool yes;
    int code = lk__table_regex_match(run, text, &yes, &err);
    if (code && (code != LK_EINVAL || !strstr(err.message, "steps"))) abort();
    return code ? code : yes;
}
static void check(const struct lk__table_regex *re, struct lk__table_regex_run *large, struct lk__table_regex_run *small,
                  struct lk_bytes text) {
    bool whole;
    struct lk_bytes head = lk__table_regex_head(re, &whole);
    int yes = lk__table_regex_compare(re, text);
    if (yes < 0) {
        yes = match(large, text);
        int again = match(small, text);
        if (yes >= 0 && again >= 0 && yes != again) abort();
    }
    bool begins = text.size >= head.size && (!head.size || memcmp(text.data, head.data, head.size) == 0);
    if (yes == 1 && (!begins || (whole && text.size != head.size))) abort();
    if (yes == 0 && whole && begins && text.size == head.size) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct lk_err err = {0};
    struct lk__table_regex *re;
    struct lk__table_regex_run *large = NULL, *small = NULL;
    const uint8_t *end = data + size, *zero = size ? memchr(data, 0, size) : NULL;
    int code = lk__table_regex_compile(lk_bytes(data, zero ? (size_t)(zero - data) : size), &re, &err);
    if (code) {
        if (code != LK_EINVAL || (!strstr(err.message, "at byte ") && !strstr(err.message, "states"))) abort();
        return 0;
    }
    if (lk__table_regex_states(re) &&
        (lk__table_regex_run_open(re, 1 << 16, &large, &err) || lk__table_regex_run_open(re, 64, &small, &err)))
        abort();
    check(re, large, small, lk_bytes("", 0));
    while (zero) {
        const uint8_t *text = zero + 1;
        zero = memchr(text, 0, (size_t)(end - text));
        check(re, large, small, lk_bytes(text, (size_t)((zero ? zero : end) - text)));
    }
    lk__table_regex_run_close(large);
    lk__table_regex_run_close(small);
    lk__table_regex_free(re);
    return 0;
}
