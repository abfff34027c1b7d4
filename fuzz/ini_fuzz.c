/* clang -fsanitize=fuzzer,address: whatever the bytes, the INI reader ends with entries or with a place and a reason. */
#include "lockstep/base/ini.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct lk_ini ini;
    struct lk_err err = {0};
    int rc = lk_ini_parse((const char *)data, size, "fuzz.ini", &ini, &err);
    if (rc != 0) {
        if (strncmp(err.message, "fuzz.ini:", 9) != 0 || ini.count != 0) abort();
        return 0;
    }
    for (size_t i = 0; i < ini.count; i++) {
        const struct lk_ini_entry *e = &ini.entries[i];
        if (e->line < 1 || !*e->section || !*e->key) abort();
        if (lk_ini_find(&ini, e->section, e->key) != e) abort(); /* no key twice */
        lk_nearest(e->key, (const char *const[]){"learning_rate", "steps"}, 2);
    }
    lk_ini_release(&ini);
    return 0;
}
