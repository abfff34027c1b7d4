/* Tables of normal form C, written by unicode_nfc.py; the algorithm is in nfc.c. */
#ifndef LOCKSTEP_DATA_NFC_H
#define LOCKSTEP_DATA_NFC_H
#include <stddef.h>
#include <stdint.h>

struct lk__tokenizer_nfc_long {
    uint32_t code;
    uint16_t first, count;
};
struct lk__tokenizer_nfc_pair {
    uint32_t a, b, joined;
};
extern const char lk__tokenizer_nfc_version[];
extern const uint32_t lk__tokenizer_nfc_end;
extern const uint8_t lk__tokenizer_nfc_block[];
extern const uint8_t lk__tokenizer_nfc_class[][128];
extern const struct lk__tokenizer_nfc_long lk__tokenizer_nfc_long[];
extern const size_t lk__tokenizer_nfc_long_count;
extern const uint32_t lk__tokenizer_nfc_codes[];
extern const struct lk__tokenizer_nfc_pair lk__tokenizer_nfc_pairs[];
extern const size_t lk__tokenizer_nfc_pair_count;

#endif
