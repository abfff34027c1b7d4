/* clang -fsanitize=fuzzer,address: hostile JSON is refused with a place; what is taken has one canonical text, which reads
 * back as the same value. */
#include "lockstep/base/json.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct lk_err err = {0};
    json_t *value = lk_json_parse((const char *)data, size, "fuzz.json", &err);
    if (!value) {
        if (strncmp(err.message, "fuzz.json:", 10) != 0) abort();
        return 0;
    }
    struct lk_buf first = LK_BUF_INIT, second = LK_BUF_INIT;
    if (lk_json_canonical(value, &first, &err) == 0) {
        json_t *again = lk_json_parse(first.data, first.size, "canonical", &err);
        if (!again || !json_equal(value, again) || lk_json_canonical(again, &second, &err) != 0) abort();
        if (first.size != second.size || memcmp(first.data, second.data, first.size) != 0) abort();
        json_decref(again);
    }
    double x;
    uint64_t n;
    const char *s;
    lk_json_float_parse(value, &x);
    lk_json_get_u64(value, "a", "fuzz", &n, NULL);
    lk_json_get_string(value, "a", "fuzz", &s, NULL);
    json_decref(value);
    lk_buf_release(&first);
    lk_buf_release(&second);
    return 0;
}
