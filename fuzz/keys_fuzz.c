/* clang -fsanitize=fuzzer,address: files of keys are read or refused with a line; what was read finds no key that it does
 * not hold, and limits it with any clock. */
#include "lockstep/base/file.h"
#include "lockstep/net/keys.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static char path[64];
    struct lk_keys *keys;
    struct lk_err err = {0};
    uint32_t key, wait;
    if (!path[0]) snprintf(path, sizeof path, "/dev/shm/lockstep-keys-fuzz.%d", (int)getpid());
    FILE *f = fopen(path, "w");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f) || chmod(path, 0600)) abort();
    int code = lk_keys_open(path, &keys, &err);
    if (code) {
        if (strncmp(err.message, path, strlen(path)) != 0) abort();
        unlink(path);
        return 0;
    }
    uint32_t count = lk_keys_count(keys);
    if (lk_keys_reload(keys, &err) || lk_keys_count(keys) != count) abort();
    if (!lk_keys_find(keys, "Bearer lk-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", &key)) abort();
    for (uint32_t i = 0; i < count && i < 8; i++) {
        uint64_t now = (size ? data[i % size] : 0) * UINT64_C(0x0101010101010101) >> (i * 7);
        if (lk_keys_begin(keys, i, now, &wait, &err)) {
            if (!wait) abort(); /* "try again in 0 s" would be a busy loop */
        } else
            lk_keys_end(keys, i, now);
    }
    lk_keys_close(keys);
    unlink(path);
    return 0;
}
