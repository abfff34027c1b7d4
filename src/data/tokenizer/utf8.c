#include "data/tokenizer/pretoken.h"
#include "lockstep/data/tokenizer.h"

/* True when p[0..size) is the beginning, not the whole, of a well-formed sequence. */
static bool is_beginning(const uint8_t *p, size_t size) {
    uint8_t padded[4] = {0x80, 0x80, 0x80, 0x80};
    uint32_t c;
    if (size > 3) return false;
    for (size_t i = 0; i < size; i++) padded[i] = p[i];
    /* E0 and F0 want a larger second byte, which 0xBF is for every lead but ED and F4, which take 0x80. */
    if (size == 1 && (p[0] == 0xE0 || p[0] == 0xF0)) padded[1] = 0xBF;
    return lk__tokenizer_utf8_decode(padded, 4, &c) > size;
}

size_t lk_utf8_complete(const void *data, size_t size) {
    const uint8_t *p = data;
    for (size_t back = 1; back <= 3 && back <= size; back++) {
        if ((p[size - back] & 0xC0) == 0x80) continue;
        return is_beginning(p + size - back, back) ? size - back : size;
    }
    return size;
}

bool lk__tokenizer_is_utf8(const void *text, size_t size) {
    const uint8_t *p = text;
    uint32_t c;
    for (size_t at = 0, length; at < size; at += length)
        if (!(length = lk__tokenizer_utf8_decode(p + at, size - at, &c))) return false;
    return true;
}
