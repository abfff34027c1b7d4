#include "lockstep/base/base64.h"
#include "lockstep/base/err.h"
#include <string.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

int lk_base64_write(struct lk_buf *out, struct lk_bytes b) {
    const unsigned char *p = b.data;
    int code = lk_buf_reserve(out, b.size / 3 * 4 + 5);
    if (!code) code = lk_buf_append(out, "", 0); /* the zero byte behind a text of nothing */
    for (size_t i = 0; i < b.size && !code; i += 3) {
        size_t n = b.size - i < 3 ? b.size - i : 3;
        uint32_t bits = (uint32_t)p[i] << 16 | (n > 1 ? (uint32_t)p[i + 1] << 8 : 0) | (n > 2 ? p[i + 2] : 0);
        char four[4];
        for (size_t k = 0; k < 4; k++) four[k] = k <= n ? alphabet[bits >> (18 - 6 * k) & 63] : '=';
        code = lk_buf_append(out, four, 4);
    }
    return code;
}

bool lk_base64_read(const char *text, size_t size, struct lk_buf *out) {
    if (size % 4) return false;
    for (size_t i = 0; i < size; i += 4) {
        uint32_t bits = 0;
        size_t n = 0;
        for (; n < 4 && text[i + n] != '='; n++) {
            const char *at = text[i + n] ? strchr(alphabet, text[i + n]) : NULL;
            if (!at) return false;
            bits |= (uint32_t)(at - alphabet) << (18 - 6 * n);
        }
        bool end = i + 4 == size;
        if (n < 2 || (n < 4 && !end) || (n == 2 && text[i + 3] != '=')) return false;
        if (bits & (n == 2 ? 0xffff : n == 3 ? 0xff : 0)) return false; /* one text for each value */
        char three[3] = {(char)(bits >> 16), (char)(bits >> 8), (char)bits};
        if (lk_buf_append(out, three, n - 1)) return false;
    }
    return true;
}
