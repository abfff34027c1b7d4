/* The types of GGUF's tensors: what a row takes, and the numbers that it stands for. */
#include "model/gguf/gguf.h"
#include "model/safetensors.h"

#include <string.h>

static const struct {
    const char *name;
    uint32_t number, block, bytes; /* block 0: known to the format, not read here */
} types[] = {{"F32", LK__GGUF_F32, 1, 4},
             {"F16", LK__GGUF_F16, 1, 2},
             {"Q4_0", LK__GGUF_Q4_0, 32, 18},
             {"Q8_0", LK__GGUF_Q8_0, 32, 34},
             {"Q6_K", LK__GGUF_Q6_K, 256, 210},
             {"BF16", LK__GGUF_BF16, 1, 2},
             {"Q4_1", 3, 0, 0},
             {"Q5_0", 6, 0, 0},
             {"Q5_1", 7, 0, 0},
             {"Q8_1", 9, 0, 0},
             {"Q2_K", 10, 0, 0},
             {"Q3_K", 11, 0, 0},
             {"Q4_K", 12, 0, 0},
             {"Q5_K", 13, 0, 0},
             {"Q8_K", 15, 0, 0},
             {"IQ2_XXS", 16, 0, 0},
             {"IQ2_XS", 17, 0, 0},
             {"IQ3_XXS", 18, 0, 0},
             {"IQ1_S", 19, 0, 0},
             {"IQ4_NL", 20, 0, 0},
             {"IQ3_S", 21, 0, 0},
             {"IQ2_S", 22, 0, 0},
             {"IQ4_XS", 23, 0, 0},
             {"I8", 24, 0, 0},
             {"I16", 25, 0, 0},
             {"I32", 26, 0, 0},
             {"I64", 27, 0, 0},
             {"F64", 28, 0, 0},
             {"IQ1_M", 29, 0, 0},
             {"TQ1_0", 34, 0, 0},
             {"TQ2_0", 35, 0, 0},
             {"MXFP4", 39, 0, 0}};
#define TYPES (sizeof types / sizeof *types)

static size_t type_at(uint32_t number) {
    size_t i = 0;
    while (i < TYPES && types[i].number != number) i++;
    return i;
}

const char *lk__gguf_type_name(enum lk__gguf_type type) {
    return types[type_at(type)].name;
}

uint64_t lk__gguf_row_bytes(enum lk__gguf_type type, uint64_t k) {
    size_t i = type_at(type);
    return k % types[i].block ? 0 : k / types[i].block * types[i].bytes;
}

bool lk__gguf_type_of(uint64_t number, enum lk__gguf_type *out, const char **name) {
    size_t i = number > UINT32_MAX ? TYPES : type_at((uint32_t)number);
    *name = i < TYPES ? types[i].name : NULL;
    if (i == TYPES || !types[i].block) return false;
    *out = (enum lk__gguf_type)number;
    return true;
}

/* The float that two bytes of fp16 are. */
static float half_at(const unsigned char *p) {
    float x;
    lk__model_to_f32(LK__F16, p, 1, &x);
    return x;
}
static bool half_finite(const unsigned char *p) {
    return (p[1] & 0x7c) != 0x7c;
}

bool lk__gguf_finite(enum lk__gguf_type type, const unsigned char *data, size_t bytes) {
    size_t block = types[type_at(type)].bytes, bad = 0;
    for (size_t at = 0; at < bytes; at += block) bad += !half_finite(data + at);
    return !bad;
}

static void widen_q8(const unsigned char *p, float *out) {
    float scale = half_at(p);
    for (size_t i = 0; i < 32; i++) out[i] = scale * (float)(int8_t)p[2 + i];
}
static void widen_q4(const unsigned char *p, float *out) {
    float scale = half_at(p);
    for (size_t i = 0; i < 16; i++) {
        out[i] = scale * (float)((p[2 + i] & 15) - 8);
        out[16 + i] = scale * (float)((p[2 + i] >> 4) - 8);
    }
}
/* 256 numbers: 128 bytes of low halves, 64 of the upper two bits, 16 scales of 8 bits, one of fp16. Two halves of 128 lie
 * one after the other; within one, number 32 g + i has its low four bits in byte i + 32 (g & 1), upper half from g = 2 on,
 * and its upper bits in byte i at 2 g. */
static void widen_q6(const unsigned char *p, float *out) {
    float scale = half_at(p + 208);
    for (size_t n = 0; n < 256; n++) {
        size_t half = n / 128, g = n % 128 / 32, i = n % 32;
        unsigned low = p[64 * half + i + 32 * (g & 1)] >> (g >= 2 ? 4 : 0) & 15,
                 high = p[128 + 32 * half + i] >> (2 * g) & 3;
        int whole = (int)(low | high << 4) - 32, part = (int8_t)p[192 + n / 16];
        out[n] = scale * (float)(whole * part); /* 11 and 12 bits: exact */
    }
}

bool lk__gguf_to_f32(enum lk__gguf_type type, const unsigned char *data, size_t count, float *out) {
    size_t block = types[type_at(type)].block, bytes = types[type_at(type)].bytes;
    uint32_t bad = 0;
    if (block == 1)
        lk__model_to_f32(type == LK__GGUF_F32 ? LK__F32 : type == LK__GGUF_F16 ? LK__F16 : LK__BF16, data, count, out);
    for (size_t i = 0; block > 1 && i < count; i += block, data += bytes) {
        bad |= !half_finite(type == LK__GGUF_Q6_K ? data + 208 : data);
        if (type == LK__GGUF_Q8_0) widen_q8(data, out + i);
        if (type == LK__GGUF_Q4_0) widen_q4(data, out + i);
        if (type == LK__GGUF_Q6_K) widen_q6(data, out + i);
    }
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &out[i], sizeof bits);
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return !bad;
}
