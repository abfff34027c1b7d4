// A second implementation of the numeric contract, written from docs/numerics.md and docs/formats.md alone: no header of
// the project, none of its code, no speed. "Section" below is a section of numerics.md, names are those of the page.
//
//   contract run BLOBS RECORD          train the run of this record (runs show --json): rows, evaluations, roots, identity
//   contract begin BLOBS RECORD        initial values, root, logits and losses of sample 0, as "Worked runs" lists them
//   contract identity BLOBS RECORD [KEY=VALUE...]   the identity, from these keys and the defaults
//   contract generate BLOBS RECORD TOKENS TEMPERATURE TOP_K TOP_P SEED MIN_P CHOICE REPETITION PRESENCE FREQUENCY
//                     ID=BIAS,...|- [ID...]   from the run's newest checkpoint
//   contract text BLOBS RECORD [ID...]  the bytes of these tokens
//   contract logged                    lines of `runs log --json` in the form of `run`
//   contract evaluated STEP            an answer of `eval --json` in that form
//   contract recorded BLOBS RECORD     a record's identity and roots in that form
//   contract hex                       decimal numbers as the bits of doubles
//   contract stream BLOBS DATASET      tokens and masked places of a dataset
//   contract vectors                   the figures of the pages, line by line
//
// It reads blobs (BLOBS is STORE/blobs) and what the program prints, and writes to standard output only.
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h> // fmaf, sqrt and sqrtf, which round correctly; frexp and %a for texts
#include <openssl/sha.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __FAST_MATH__
#error "the contract forbids -ffast-math"
#endif

enum { SEGMENT = 512, LANES = 64, BLOCK = 4096, LEAF = 1048576 };

static void die(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "contract: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    exit(2);
}
static void *zeros(size_t count, size_t size) {
    void *p = calloc(count ? count : 1, size);
    if (!p) die("out of memory");
    return p;
}
static float *floats(size_t count) {
    return zeros(count, sizeof(float));
}
static uint32_t bits32(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}
static uint64_t bits64(double x) {
    uint64_t u;
    memcpy(&u, &x, 8);
    return u;
}
static double double_of(uint64_t u) {
    double x;
    memcpy(&x, &u, 8);
    return x;
}
static float float_of(uint32_t u) {
    float x;
    memcpy(&x, &u, 4);
    return x;
}

// --- section 9: functions

// 2^k as a normal number
static float two32(int k) {
    return float_of((uint32_t)(k + 127) << 23);
}
static double two64(int k) {
    return double_of((uint64_t)(k + 1023) << 52);
}
static double integer64(double x) {
    return (x + 0x1.8p52) - 0x1.8p52;
}
// the double next to 1/i!: i! is exact up to 18
static double inverse(int i) {
    double product = 1;
    for (; i > 1; i--) product *= i;
    return 1 / product;
}

static float exp32(float x) {
    static const float coefficients[] = {0x1.123984p-7f, 0x1.5558bp-5f, 0x1.555492p-3f, 0x1.fffffcp-2f, 1, 1};
    if (x != x) return x;
    x = x > 89 ? 89 : x < -104 ? -104 : x;
    float whole = fmaf(x, 0x1.715476p+0f, 0x1.8p23f) - 0x1.8p23f;
    float rest = fmaf(whole, -0x1.62e43p-1f, x), poly = 0x1.6a4d3ep-10f;
    rest = fmaf(whole, 0x1.05c61p-29f, rest);
    for (int i = 0; i < 6; i++) poly = fmaf(poly, rest, coefficients[i]);
    int first = (int)whole / 2;
    return (poly * two32(first)) * two32((int)whole - first);
}
static float sexp(float x) {
    return x < -64 ? +0.0f : exp32(x);
}

static float tanh32(float x) {
    static const float coefficients[] = {0x1.6d4ccp-10f, 0x1.11131p-7f, 0x1.5554e8p-5f, 0x1.555554p-3f, 0.5f};
    if (x != x) return x;
    float abs = x < 0 ? -x : x, poly = 0x1.9df74ep-13f;
    if (abs > 10) abs = 10;
    float whole = fmaf(abs, 0x1.715476p+1f, 0x1.8p23f) - 0x1.8p23f, rest0 = fmaf(whole, -0x1.62e43p-1f, abs + abs);
    float rest = fmaf(whole, 0x1.05c61p-29f, rest0), low = fmaf(whole, 0x1.05c61p-29f, rest0 - rest);
    for (int i = 0; i < 5; i++) poly = fmaf(poly, rest, coefficients[i]);
    float tail = fmaf(rest * rest, poly, low), pow2 = two32((int)whole), below = pow2 - 1, above = pow2 + 1;
    float up0 = fmaf(pow2, rest, below), up1 = fmaf(pow2, tail, fmaf(pow2, rest, below - up0));
    float up = up0 + up1, uplow = up1 - (up - up0);
    float down0 = fmaf(pow2, rest, above), down1 = fmaf(pow2, tail, fmaf(pow2, rest, above - down0));
    float down = down0 + down1, downlow = down1 - (down - down0);
    float inv = 1 / down, ratio = up * inv, error = fmaf(-ratio, downlow, uplow + fmaf(-ratio, down, up));
    float result = abs <= 4 ? fmaf(error, inv, ratio) : fmaf(-2, inv, 1);
    return float_of((bits32(result) & 0x7fffffff) | (bits32(x) & 0x80000000));
}

static const double ln2high = 0x1.62e42fefa2p-1, ln2low = 0x1.9ef35793c7673p-41;

static double exp64(double high, double low) {
    if (high != high) return high;
    if (high > 710) high = 710, low = 0;
    if (high < -746) high = -746, low = 0;
    double whole = integer64(high * 0x1.71547652b82fep+0), big = high - whole * ln2high, small = whole * ln2low - low;
    double rest = big - small, restlow = (big - rest) - small, poly = inverse(14);
    for (int i = 13; i >= 2; i--) poly = poly * rest + inverse(i);
    poly = 1 + (rest + (rest * rest * poly + restlow));
    int first = (int)whole / 2;
    return (poly * two64(first)) * two64((int)whole - first);
}

static double two_sum(double x, double y, double *error) {
    double sum = x + y, diff = sum - x;
    *error = (x - (sum - diff)) + (y - diff);
    return sum;
}
static double two_product(double x, double y, double *error) {
    double product = x * y;
    *error = fma(x, y, -product);
    return product;
}
// the pair of log64: the result and what it lacks
static double log_pair(double x, double *rest) {
    *rest = 0;
    if (x != x || x < 0) return double_of(0x7ff8000000000000);
    if (x == 0) return -HUGE_VAL;
    if (x == HUGE_VAL) return x;
    int power = 0;
    if (x < 0x1p-1022) x *= 0x1p54, power = -54;
    uint64_t fraction = bits64(x) & 0xfffffffffffff;
    power += (int)(bits64(x) >> 52) - 1023;
    double mantissa = double_of(fraction | 0x3ff0000000000000);
    if (mantissa >= 0x1.6a09e667f3bcdp+0) mantissa /= 2, power++;
    double frac = mantissa - 1, guesslow, prodlow, leadlow;
    double guess = two_sum(2, frac, &guesslow), quot = frac / guess, prod = two_product(quot, guess, &prodlow);
    double quotlow = (((frac - prod) - prodlow) - quot * guesslow) / guess, square = quot * quot, poly = 1.0 / 23;
    for (int i = 21; i >= 3; i -= 2) poly = poly * square + 1.0 / i;
    double tail = 2 * quotlow + (2 * quot) * (square * poly), lead = two_sum(power * ln2high, 2 * quot, &leadlow);
    double low = leadlow + (power * ln2low + tail), high = lead + low;
    *rest = low - (high - lead);
    return high;
}
static double log64(double x) {
    double rest;
    return log_pair(x, &rest);
}
static double pow64(double x, double y) {
    if (y == 0) return 1;
    if (x == 0 && y > 0) return 0;
    if (!(x > 0) || x == HUGE_VAL || !(y - y == 0)) return double_of(0x7ff8000000000000);
    double low, high = log_pair(x, &low), prod = y * high, prodlow;
    if (!(-800 < prod && prod < 800)) return exp64(prod, 0);
    prod = two_product(y, high, &prodlow);
    return exp64(prod, prodlow + y * low);
}

static double sin_series(double x) {
    double square = x * x, poly = inverse(17);
    for (int i = 15; i >= 3; i -= 2) poly = poly * square + (i / 2 % 2 ? -inverse(i) : inverse(i));
    return x + x * (square * poly);
}
static double cos_series(double x) {
    double square = x * x, poly = inverse(16);
    for (int i = 14; i >= 4; i -= 2) poly = poly * square + (i / 2 % 2 ? -inverse(i) : inverse(i));
    return 1 - (0.5 * square - square * square * poly);
}
static double cos_turns64(double x) {
    const double twopi = 0x1.921fb54442d18p+2;
    double abs = x < 0 ? -x : x;
    if (!(abs < HUGE_VAL)) return double_of(0x7ff8000000000000);
    if (abs >= 0x1p52) return 1;
    double frac = abs - (double)(uint64_t)abs;
    if (frac > 0.5) frac = 1 - frac;
    if (frac <= 0.125) return cos_series(twopi * frac);
    if (frac < 0.375) return sin_series(twopi * (0.25 - frac));
    return -cos_series(twopi * (0.5 - frac));
}
// sin for turn 0, cos for turn 1
static float circle(float x, int turn) {
    if (!(x >= -0x1p24f && x <= 0x1p24f)) return float_of(0x7fc00000);
    double wide = x, whole = integer64(wide * 0x1.45f306dc9c883p-1);
    double rest = ((wide - whole * 0x1.921fb54p+0) - whole * 0x1.10b461p-30) - whole * 0x1.a62633145c06ep-58;
    int quarter = (int)((int64_t)whole + turn) & 3;
    double value = quarter % 2 ? cos_series(rest) : sin_series(rest);
    return (float)(quarter >= 2 ? -value : value);
}
static float sin32(float x) {
    return x == 0 ? x : circle(x, 0);
}
static float cos32(float x) {
    return circle(x, 1);
}
static float log32(float x) {
    return (float)log64(x);
}

// --- section 2: matrix product, 3: sums over tokens, 4: sums over a row

// element (r, c) is at[r * row + c * column]
struct view {
    const float *at;
    size_t row, column;
};
// total(i, j), a row of `stride` elements after the other, grows by all segments of one part of length `length`
static void part(float *total, size_t stride, struct view left, struct view right, size_t rows, size_t columns,
                 size_t length) {
    enum { AT_ONCE = 16 }; // chains side by side
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j += AT_ONCE) {
            size_t width = columns - j < AT_ONCE ? columns - j : AT_ONCE;
            for (size_t begin = 0; begin < length; begin += SEGMENT) {
                size_t end = length - begin < SEGMENT ? length : begin + SEGMENT;
                float chain[AT_ONCE] = {0};
                for (size_t n = begin; n < end; n++) {
                    float factor = left.at[i * left.row + n * left.column];
                    const float *others = right.at + n * right.row + j * right.column;
                    for (size_t u = 0; u < width; u++) chain[u] = fmaf(factor, others[u * right.column], chain[u]);
                }
                for (size_t u = 0; u < width; u++) total[i * stride + j + u] += chain[u];
            }
        }
}

// y = x W^T, and its bias
static void linear(float *y, const float *x, const float *w, const float *bias, size_t rows, size_t in, size_t out) {
    memset(y, 0, rows * out * sizeof *y);
    part(y, out, (struct view){x, in, 1}, (struct view){w, 1, in}, rows, out, in);
    for (size_t i = 0; bias && i < rows * out; i++) y[i] += bias[i % out];
}
// dx grows by a part of dy W
static void input_gradient(float *dx, const float *dy, const float *w, size_t rows, size_t in, size_t out) {
    part(dx, in, (struct view){dy, out, 1}, (struct view){w, in, 1}, rows, in, out);
}
// dW grows by one sequence
static void weight_gradient(float *dw, const float *dy, const float *x, size_t rows, size_t in, size_t out) {
    part(dw, in, (struct view){dy, 1, out}, (struct view){x, in, 1}, out, in, rows);
}
// gradient of a gain (factors are xhat) or a bias (factors are 1, where x is NULL), one sequence
static void vector_gradient(float *total, const float *x, const float *dy, size_t rows, size_t width) {
    for (size_t c = 0; c < width; c++)
        for (size_t begin = 0; begin < rows; begin += SEGMENT) {
            float chain = 0;
            for (size_t t = begin; t < rows && t < begin + SEGMENT; t++)
                chain = fmaf(x ? x[t * width + c] : 1, dy[t * width + c], chain);
            total[c] += chain;
        }
}
// gradient of the embedding's rows, one sequence
static void embedding_gradient(float *table, const uint32_t *tokens, const float *dx, size_t rows, size_t width) {
    for (size_t begin = 0; begin < rows; begin += SEGMENT) {
        size_t end = rows - begin < SEGMENT ? rows : begin + SEGMENT;
        for (size_t t = begin; t < end; t++) {
            bool met = false;
            for (size_t before = begin; before < t && !met; before++) met = tokens[before] == tokens[t];
            if (met) continue;
            for (size_t c = 0; c < width; c++) {
                float chain = 0;
                for (size_t later = t; later < end; later++)
                    if (tokens[later] == tokens[t]) chain += dx[later * width + c];
                table[tokens[t] * width + c] += chain;
            }
        }
    }
}

// sum of x, or of the products of x and y
static float row_sum(const float *x, const float *y, size_t count) {
    float lane[LANES] = {0};
    for (size_t i = 0; i < count; i++) lane[i % LANES] = y ? fmaf(x[i], y[i], lane[i % LANES]) : lane[i % LANES] + x[i];
    for (int half = LANES / 2; half; half /= 2)
        for (int j = 0; j < half; j++) lane[j] += lane[j + half];
    return lane[0] + 0.0f;
}
static double sum_of_squares(const float *x, size_t count) {
    double lane[LANES] = {0};
    for (size_t i = 0; i < count; i++) lane[i % LANES] += (double)x[i] * (double)x[i];
    for (int half = LANES / 2; half; half /= 2)
        for (int j = 0; j < half; j++) lane[j] += lane[j + half];
    return lane[0] + 0.0;
}
static float row_max(const float *x, size_t count) {
    float most = x[0];
    for (size_t i = 0; i < count; i++) {
        if (x[i] != x[i]) return x[i];
        if (x[i] > most || (x[i] == 0 && most == 0 && bits32(most))) most = x[i];
    }
    return most;
}
// expo of section 7's rows: the sum of what is written
static float softmax(float *expo, const float *x, size_t count, float *most) {
    *most = row_max(x, count);
    for (size_t j = 0; j < count; j++) expo[j] = sexp(x[j] - *most);
    return row_sum(expo, NULL, count);
}
// section 8's tree, over numbers and over arrays; the result is the first
static double tree(double *node, size_t count) {
    for (; count > 1; count = (count + 1) / 2)
        for (size_t i = 0; i < (count + 1) / 2; i++)
            node[i] = 2 * i + 1 < count ? node[2 * i] + node[2 * i + 1] : node[2 * i];
    return count ? node[0] : 0;
}
static void tree_of_arrays(float **node, size_t count, size_t elements) {
    for (size_t step = 1; step < count; step *= 2)
        for (size_t i = 0; i + step < count; i += 2 * step)
            for (size_t e = 0; e < elements; e++) node[i][e] += node[i + step][e];
}

// --- configuration: section 0, "Keys and defaults"

struct config {
    int64_t seed, steps, cross_documents, layers, width, context, heads, kv_heads, head_dim, ffn, vocab, tied, qkv_bias,
        qk_norm, window, rope_original, sequences, grains, batch_context, warmup, decay, cooldown, every, eval_sequences;
    double norm_epsilon, rope_theta, init_std, rope_factor, rope_low, rope_high, learning_rate, beta1, beta2, epsilon,
        weight_decay, clip, min_ratio;
    char family[16], schedule[16], optimizer[16];
};
enum { UNSET = -1 };
enum { IN_ALWAYS, IN_CHANGED, OUT }; // of the identity
struct key {
    const char *section, *name;
    char kind; // Integer, Truth, Real, Word
    size_t at;
    const char *standard; // NULL: depends on others
    int place;
};
#define KEY(section, name, member, kind, standard, place)                                                                  \
    { #section, #name, kind, offsetof(struct config, member), standard, place }
static const struct key keys[] = {
    KEY(run, seed, seed, 'i', "1", OUT),
    KEY(run, steps, steps, 'i', "1000", OUT),
    KEY(data, cross_documents, cross_documents, 't', "true", IN_ALWAYS),
    KEY(model, family, family, 'w', "llama", IN_ALWAYS),
    KEY(model, layers, layers, 'i', "6", IN_ALWAYS),
    KEY(model, width, width, 'i', "384", IN_ALWAYS),
    KEY(model, context, context, 'i', "256", IN_ALWAYS),
    KEY(model, heads, heads, 'i', NULL, IN_ALWAYS),
    KEY(model, kv_heads, kv_heads, 'i', NULL, IN_ALWAYS),
    KEY(model, head_dim, head_dim, 'i', NULL, IN_ALWAYS),
    KEY(model, ffn, ffn, 'i', NULL, IN_ALWAYS),
    KEY(model, vocab, vocab, 'i', NULL, IN_ALWAYS),
    KEY(model, tied, tied, 't', "true", IN_ALWAYS),
    KEY(model, norm_epsilon, norm_epsilon, 'r', "1e-5", IN_ALWAYS),
    KEY(model, rope_theta, rope_theta, 'r', "10000", IN_ALWAYS),
    KEY(model, init_std, init_std, 'r', "0.02", IN_ALWAYS),
    KEY(model, qkv_bias, qkv_bias, 't', "false", IN_CHANGED),
    KEY(model, qk_norm, qk_norm, 't', "false", IN_CHANGED),
    KEY(model, window, window, 'i', "0", IN_CHANGED),
    KEY(model, rope_factor, rope_factor, 'r', "0", IN_CHANGED),
    KEY(model, rope_low, rope_low, 'r', "1", IN_CHANGED),
    KEY(model, rope_high, rope_high, 'r', "4", IN_CHANGED),
    KEY(model, rope_original, rope_original, 'i', "8192", IN_CHANGED),
    KEY(model, optimizer, optimizer, 'w', "fresh", OUT),
    KEY(batch, sequences, sequences, 'i', "16", IN_ALWAYS),
    KEY(batch, grains, grains, 'i', NULL, IN_ALWAYS),
    KEY(batch, context, batch_context, 'i', "0", IN_CHANGED),
    KEY(optimizer, learning_rate, learning_rate, 'r', "1e-3", IN_ALWAYS),
    KEY(optimizer, beta1, beta1, 'r', "0.9", IN_ALWAYS),
    KEY(optimizer, beta2, beta2, 'r', "0.95", IN_ALWAYS),
    KEY(optimizer, epsilon, epsilon, 'r', "1e-8", IN_ALWAYS),
    KEY(optimizer, weight_decay, weight_decay, 'r', "0.1", IN_ALWAYS),
    KEY(optimizer, clip, clip, 'r', "1", IN_ALWAYS),
    KEY(optimizer, min_ratio, min_ratio, 'r', "0.1", IN_ALWAYS),
    KEY(optimizer, schedule, schedule, 'w', "cosine", IN_ALWAYS),
    KEY(optimizer, warmup, warmup, 'i', NULL, IN_ALWAYS),
    KEY(optimizer, decay, decay, 'i', "0", IN_ALWAYS),
    KEY(optimizer, cooldown, cooldown, 'i', "0", IN_CHANGED),
    KEY(eval, every, every, 'i', NULL, OUT),
    KEY(eval, sequences, eval_sequences, 'i', "0", OUT),
};
enum { KEYS = sizeof keys / sizeof *keys };

static int64_t *whole_of(const struct config *c, const struct key *k) {
    return (int64_t *)((char *)c + k->at);
}
static double *real_of(const struct config *c, const struct key *k) {
    return (double *)((char *)c + k->at);
}
static char *word_of(const struct config *c, const struct key *k) {
    return (char *)c + k->at;
}
static size_t size_of(const struct key *k) {
    return k->kind == 'w' ? sizeof((struct config *)0)->family : 8;
}
static void set_text(struct config *c, const struct key *k, const char *text) {
    if (k->kind == 'r')
        *real_of(c, k) = strtod(text, NULL);
    else if (k->kind == 'w')
        snprintf(word_of(c, k), sizeof c->family, "%s", text);
    else
        *whole_of(c, k) = !strcmp(text, "true") || (strcmp(text, "false") && strtoll(text, NULL, 10));
    if (k->kind == 'i') *whole_of(c, k) = strtoll(text, NULL, 10);
}
static struct config standard(void) {
    struct config c = {0};
    for (const struct key *k = keys; k < keys + KEYS; k++)
        if (k->standard)
            set_text(&c, k, k->standard);
        else
            *whole_of(&c, k) = UNSET;
    return c;
}
static bool is_gpt2(const struct config *c) {
    return !strcmp(c->family, "gpt2");
}
// fills in what depends on other keys
static void resolve(struct config *c, int64_t tokenizer_vocab) {
    if (c->heads < 0) c->heads = c->width / 64 > 1 ? c->width / 64 : 1;
    if (c->kv_heads < 0) c->kv_heads = c->heads;
    if (c->head_dim < 0) c->head_dim = c->width / c->heads;
    if (c->ffn < 0) c->ffn = is_gpt2(c) ? 4 * c->width : ((8 * c->width + 2) / 3 + 31) / 32 * 32;
    if (c->vocab < 0) c->vocab = tokenizer_vocab;
    for (int64_t g = 8; c->grains < 0; g /= 2)
        if (c->sequences % g == 0) c->grains = g;
    if (c->warmup < 0) c->warmup = c->steps / 20;
    if (c->decay <= 0) c->decay = c->steps;
    bool wsd = !strcmp(c->schedule, "wsd");
    if (wsd && !c->cooldown) c->cooldown = c->decay / 5 > 1 ? c->decay / 5 : 1;
    if (wsd ? c->warmup + c->cooldown > c->decay : c->cooldown != 0)
        die("there can be no cooldown of %" PRId64, c->cooldown);
    if (c->every < 0) c->every = c->steps < 10 ? c->steps : c->steps / 10;
}
static int64_t positions(const struct config *c) { // T
    return c->batch_context ? c->batch_context : c->context;
}

// --- formats.md: JSON, roots, blobs

static const char *blobs;

static void hex(char text[65], const uint8_t digest[32]) {
    for (int i = 0; i < 32; i++) sprintf(text + 2 * i, "%02x", digest[i]);
}
static void tree_hash(uint8_t out[32], const uint8_t *data, size_t size) {
    if (!size) {
        SHA256(data, 0, out);
    } else if (size <= LEAF) {
        uint8_t *leaf = zeros(size + 1, 1);
        memcpy(leaf + 1, data, size);
        SHA256(leaf, size + 1, out);
        free(leaf);
    } else {
        uint8_t node[65] = {1};
        size_t leaves = (size + LEAF - 1) / LEAF, first = 1;
        while (first * 2 < leaves) first *= 2;
        tree_hash(node + 1, data, first * LEAF);
        tree_hash(node + 33, data + first * LEAF, size - first * LEAF);
        SHA256(node, 65, out);
    }
}
static void root_of(char text[65], const void *data, size_t size) {
    uint8_t all[41] = {2}, digest[32];
    for (int i = 0; i < 8; i++) all[1 + i] = (uint8_t)((uint64_t)size >> 8 * i);
    tree_hash(all + 9, data, size);
    SHA256(all, 41, digest);
    hex(text, digest);
}
// floats as bytes, little-endian
static void root_of_floats(char text[65], const float *x, size_t count) {
    uint8_t *bytes = zeros(count, 4);
    for (size_t i = 0; i < 4 * count; i++) bytes[i] = (uint8_t)(bits32(x[i / 4]) >> 8 * (i % 4));
    root_of(text, bytes, 4 * count);
    free(bytes);
}
// the hexadecimal value of a double as formats.md writes it; %a of a normal number in [1, 2) has the digits
static void real_text(char text[64], double x) {
    int power;
    double part = frexp(x, &power) * 2;
    char digits[40];
    snprintf(digits, sizeof digits, "%a", part);
    *strchr(digits, 'p') = 0;
    snprintf(text, 64, "%sp%+d", digits, x == 0 ? 0 : power - 1);
}
static char *canonical(json_t *object, size_t *size) {
    char *text = json_dumps(object, JSON_COMPACT | JSON_SORT_KEYS);
    *size = strlen(text);
    return text;
}

static uint8_t *blob(const char *root, size_t *size) {
    char path[4096], again[65];
    snprintf(path, sizeof path, "%s/%.2s/%s", blobs, root, root + 2);
    FILE *f = fopen(path, "rb");
    if (!f) die("%s: %s", path, strerror(errno));
    fseek(f, 0, SEEK_END);
    *size = (size_t)ftell(f);
    rewind(f);
    uint8_t *data = zeros(*size + 1, 1);
    if (fread(data, 1, *size, f) != *size) die("%s: cannot be read", path);
    fclose(f);
    root_of(again, data, *size);
    if (strcmp(again, root) != 0) die("%s has the root %s", path, again);
    return data;
}
static json_t *manifest(const char *root) {
    size_t size;
    uint8_t *data = blob(root, &size);
    json_t *value = json_loadb((char *)data, size, 0, NULL);
    if (!value) die("blob %s is not JSON", root);
    free(data);
    return value;
}
static uint32_t word_at(const uint8_t *bytes) {
    return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}
static void floats_of_blob(float *x, const char *root, size_t count) {
    size_t size;
    uint8_t *data = blob(root, &size);
    if (size != 4 * count) die("blob %s has %zu bytes, not %zu", root, size, 4 * count);
    for (size_t i = 0; i < count; i++) x[i] = float_of(word_at(data + 4 * i));
    free(data);
}
static const char *text_at(json_t *object, const char *key) {
    return json_string_value(json_object_get(object, key));
}

static struct config config_of_record(json_t *record) {
    struct config c = standard();
    for (const struct key *k = keys; k < keys + KEYS; k++) {
        json_t *value = json_object_get(json_object_get(json_object_get(record, "config"), k->section), k->name);
        if (!value) continue;
        if (k->kind == 'r')
            *real_of(&c, k) = json_number_value(value);
        else if (k->kind == 'w')
            set_text(&c, k, json_string_value(value));
        else
            *whole_of(&c, k) = k->kind == 't' ? json_is_true(value) : json_integer_value(value);
    }
    return c;
}

// formats.md, "Identity"
static void identity(char text[65], const struct config *c, const char *dataset, json_t *initial) {
    json_t *object = json_object(), *sections[3];
    static const char *names[] = {"batch", "data", "model"};
    for (int i = 0; i < 3; i++) json_object_set_new(object, names[i], sections[i] = json_object());
    json_object_set_new(object, "optimizer", json_object());
    for (const struct key *k = keys; k < keys + KEYS; k++) {
        struct config other = *c;
        char real[64];
        if (k->place == OUT) continue;
        if (k->place == IN_CHANGED) {
            set_text(&other, k, k->standard);
            if (!memcmp(c, &other, sizeof other)) continue;
        }
        if (k->kind == 'r') real_text(real, *real_of(c, k));
        json_object_set_new(json_object_get(object, k->section), k->name,
                            k->kind == 'i'   ? json_integer(*whole_of(c, k))
                            : k->kind == 't' ? json_boolean(*whole_of(c, k))
                                             : json_string(k->kind == 'r' ? real : word_of(c, k)));
    }
    json_object_set_new(object, "dataset", json_string(dataset));
    const char *began = initial ? text_at(initial, strcmp(c->optimizer, "keep") ? "weights" : "state") : NULL;
    json_object_set_new(object, "initial", began ? json_string(began) : json_null());
    json_object_set_new(object, "numerics", json_string("fp32-1"));
    json_object_set_new(object, "seed", json_integer(c->seed));
    json_object_set_new(object, "steps", json_integer(c->steps));
    size_t size;
    char *json = canonical(object, &size);
    uint8_t digest[32];
    SHA256((uint8_t *)json, size, digest);
    hex(text, digest);
    free(json);
    json_decref(object);
}

// --- section 10: random numbers

static void philox(uint32_t c[4], uint32_t key0, uint32_t key1) {
    for (int round = 0; round < 10; round++, key0 += 0x9E3779B9, key1 += 0xBB67AE85) {
        uint64_t a = 0xD2511F53ULL * c[0], b = 0xCD9E8D57ULL * c[2];
        uint32_t next[4] = {(uint32_t)(b >> 32) ^ c[1] ^ key0, (uint32_t)b, (uint32_t)(a >> 32) ^ c[3] ^ key1, (uint32_t)a};
        memcpy(c, next, sizeof next);
    }
}
static void random_words(uint32_t word[4], uint64_t seed, uint32_t purpose, uint64_t step, uint64_t sample, uint64_t layer,
                         uint64_t element) {
    word[0] = (uint32_t)element, word[1] = (uint32_t)layer, word[2] = (uint32_t)sample, word[3] = (uint32_t)step;
    philox(word, (uint32_t)seed, (uint32_t)(seed >> 32) ^ purpose << 24);
}
static uint64_t bits53(uint32_t high, uint32_t low) {
    return (uint64_t)high << 21 | low >> 11;
}
static double uniform(uint32_t high, uint32_t low) {
    return (double)bits53(high, low) * 0x1p-53;
}
static float initial_value(uint64_t seed, uint64_t tensor, uint64_t element, double deviation) {
    uint32_t word[4];
    random_words(word, seed, 1, 0, 0, tensor, element);
    double u1 = (double)(bits53(word[0], word[1]) + 1) * 0x1p-53, u2 = uniform(word[2], word[3]);
    double normal = sqrt(-2 * log64(u1)) * cos_turns64(u2);
    return (float)(normal * deviation);
}
static uint64_t permutation(uint64_t seed, uint64_t epoch, uint64_t size, uint64_t index) {
    int bits = 2;
    while (bits < 64 && (1ULL << bits) < size) bits += 2;
    int half = bits / 2;
    uint64_t mask = (1ULL << half) - 1, x = index;
    do {
        uint64_t left = x >> half, right = x & mask;
        for (uint32_t round = 0; round < 4; round++) {
            uint32_t word[4];
            random_words(word, seed, 2, epoch, round, 0, right);
            uint64_t next = left ^ (word[0] & mask);
            left = right, right = next;
        }
        x = left << half | right;
    } while (x >= size);
    return x;
}

// "Sampling of text", "Sampling of text with min_p", "Sampling of text with biases and penalties"
struct sampling {
    double temperature, top_p;
    uint64_t top_k, seed;
    double min_p;
    uint64_t choice;
    double repetition, presence, frequency;
    const char *biases; // "ID=BIAS,...", or "-"
};
static void penalise(float *logit, size_t count, const struct sampling *s, const uint32_t *text, size_t read,
                     size_t tokens) {
    char *end = (char *)s->biases;
    while (*end >= '0' && *end <= '9') {
        uint64_t id = strtoull(end, &end, 10);
        if (id >= count || *end != '=') die("biases %s", s->biases);
        logit[id] += strtof(end + 1, &end);
        if (*end == ',') end++;
    }
    for (uint32_t id = 0; id < count; id++) {
        uint64_t there = 0, drawn = 0;
        for (size_t i = 0; i < tokens; i++) there += text[i] == id, drawn += i >= read && text[i] == id;
        if (there) logit[id] = logit[id] < 0 ? logit[id] * (float)s->repetition : logit[id] / (float)s->repetition;
        if (drawn) logit[id] = (float)(logit[id] - ((double)drawn * s->frequency + s->presence));
    }
}
struct rank {
    float x, expo;
    uint32_t id;
};
static int by_rank(const void *left, const void *right) {
    const struct rank *a = left, *b = right;
    if (a->x != b->x) return a->x > b->x ? -1 : 1;
    return a->id < b->id ? -1 : a->id > b->id;
}
static uint32_t greatest(const float *logit, size_t count) {
    uint32_t best = 0;
    for (uint32_t id = 0; id < count; id++)
        if (logit[id] > logit[best]) best = id;
    return best;
}
static uint32_t sample(const float *logit, size_t count, const struct sampling *s, uint64_t place) {
    float temperature = (float)s->temperature;
    if (temperature == 0 || count == 1) return greatest(logit, count);
    struct rank *ranks = zeros(count, sizeof *ranks);
    bool nan = false;
    for (uint32_t id = 0; id < count; id++) {
        ranks[id] = (struct rank){logit[id] / temperature, 0, id};
        nan |= ranks[id].x != ranks[id].x;
    }
    if (nan) return free(ranks), greatest(logit, count);
    qsort(ranks, count, sizeof *ranks, by_rank);
    float first = ranks[0].x;
    if (first - first != 0) return free(ranks), greatest(logit, count);
    for (size_t r = 0; r < count; r++) ranks[r].expo = sexp(ranks[r].x - first);
    size_t kept = s->top_k && s->top_k < count ? s->top_k : count;
    float *by_id = floats(count);
    for (size_t r = 0; r < count; r++) by_id[ranks[r].id] = ranks[r].expo;
    double all = 0, running = 0;
    for (size_t i = 0; i < kept; i++) all += kept == count ? by_id[i] : ranks[i].expo;
    double limit = all;
    if (s->top_p < 1) {
        size_t prefix = 0;
        while (prefix < kept) {
            running += ranks[prefix++].expo;
            if (!(running < s->top_p * all)) break;
        }
        kept = prefix, limit = running;
    }
    if (s->min_p > 0) {
        size_t likely = 0;
        for (limit = 0; likely < kept && !(ranks[likely].expo < s->min_p); likely++) limit += ranks[likely].expo;
        kept = likely;
    }
    uint32_t word[4];
    random_words(word, s->seed, 3, place, s->choice, 0, 0);
    double draw = uniform(word[0], word[1]);
    size_t chosen = 0;
    for (running = ranks[0].expo; chosen + 1 < kept && !(running > draw * limit);) running += ranks[++chosen].expo;
    uint32_t id = ranks[chosen].id;
    free(by_id);
    free(ranks);
    return id;
}

// --- section 0: tensors

enum kind { MATRIX, RESIDUAL, GAIN, BIAS };
struct tensor {
    size_t at, count;
    enum kind kind;
    uint64_t rows, columns;
};
// where a layer's tensors begin in the packed parameters
struct layer {
    size_t gain1, bias1, q, qbias, k, kbias, v, vbias, qnorm, knorm, o, obias, gain2, bias2, gate, gatebias, up, down,
        downbias;
};
struct model {
    struct config c;
    bool gpt2;
    size_t width, d, Q, KV, ffn, vocab, T;
    struct tensor *tensors;
    size_t tensor_count, parameters;
    size_t table, wpe, gain, bias, output; // output: the output matrix
    struct layer *layers;
    float *weights;
};
static const size_t NONE = SIZE_MAX;

static size_t add(struct model *m, enum kind kind, size_t rows, size_t columns) {
    m->tensors = realloc(m->tensors, (m->tensor_count + 1) * sizeof *m->tensors);
    if (!m->tensors) die("out of memory");
    m->tensors[m->tensor_count++] = (struct tensor){m->parameters, rows * columns, kind, rows, columns};
    m->parameters += rows * columns;
    return m->parameters - rows * columns;
}
static size_t add_if(bool present, struct model *m, enum kind kind, size_t count) {
    return present ? add(m, kind, count, 1) : NONE;
}
static void add_llama_layer(struct model *m, struct layer *l) {
    bool bias = m->c.qkv_bias, norm = m->c.qk_norm;
    *l = (struct layer){.bias1 = NONE, .obias = NONE, .bias2 = NONE, .gatebias = NONE, .downbias = NONE};
    l->gain1 = add(m, GAIN, m->width, 1);
    l->q = add(m, MATRIX, m->Q, m->width), l->qbias = add_if(bias, m, BIAS, m->Q);
    l->k = add(m, MATRIX, m->KV, m->width), l->kbias = add_if(bias, m, BIAS, m->KV);
    l->v = add(m, MATRIX, m->KV, m->width), l->vbias = add_if(bias, m, BIAS, m->KV);
    l->qnorm = add_if(norm, m, GAIN, m->d), l->knorm = add_if(norm, m, GAIN, m->d);
    l->o = add(m, RESIDUAL, m->width, m->Q);
    l->gain2 = add(m, GAIN, m->width, 1);
    l->gate = add(m, MATRIX, m->ffn, m->width), l->up = add(m, MATRIX, m->ffn, m->width);
    l->down = add(m, RESIDUAL, m->width, m->ffn);
}
static void add_gpt2_layer(struct model *m, struct layer *l) {
    size_t width = m->width;
    *l = (struct layer){.qnorm = NONE, .knorm = NONE, .up = NONE};
    l->gain1 = add(m, GAIN, width, 1), l->bias1 = add(m, BIAS, width, 1);
    l->q = add(m, MATRIX, 3 * width, width), l->qbias = add(m, BIAS, 3 * width, 1);
    l->k = l->q + width * width, l->v = l->k + width * width;
    l->kbias = l->qbias + width, l->vbias = l->kbias + width;
    l->o = add(m, RESIDUAL, width, width), l->obias = add(m, BIAS, width, 1);
    l->gain2 = add(m, GAIN, width, 1), l->bias2 = add(m, BIAS, width, 1);
    l->gate = add(m, MATRIX, m->ffn, width), l->gatebias = add(m, BIAS, m->ffn, 1);
    l->down = add(m, RESIDUAL, width, m->ffn), l->downbias = add(m, BIAS, width, 1);
}
static struct model new_model(const struct config *c) {
    struct model m = {
        .c = *c, .gpt2 = is_gpt2(c), .wpe = NONE, .bias = NONE, .width = (size_t)c->width, .d = (size_t)c->head_dim};
    m.Q = (size_t)c->heads * m.d, m.KV = (size_t)c->kv_heads * m.d;
    m.ffn = (size_t)c->ffn, m.vocab = (size_t)c->vocab, m.T = (size_t)positions(c);
    m.layers = zeros((size_t)c->layers, sizeof *m.layers);
    m.table = add(&m, MATRIX, m.vocab, m.width);
    if (m.gpt2) m.wpe = add(&m, MATRIX, (size_t)c->context, m.width);
    for (int64_t l = 0; l < c->layers; l++) (m.gpt2 ? add_gpt2_layer : add_llama_layer)(&m, m.layers + l);
    m.gain = add(&m, GAIN, m.width, 1);
    if (m.gpt2) m.bias = add(&m, BIAS, m.width, 1);
    m.output = c->tied ? m.table : add(&m, MATRIX, m.vocab, m.width);
    m.weights = floats(m.parameters);
    return m;
}
static void initialise(struct model *m) {
    for (size_t t = 0; t < m->tensor_count; t++) {
        const struct tensor *x = m->tensors + t;
        double deviation = x->kind == RESIDUAL ? m->c.init_std / sqrt(2.0 * (double)m->c.layers) : m->c.init_std;
        for (size_t i = 0; i < x->count; i++)
            m->weights[x->at + i] = x->kind == GAIN   ? 1
                                    : x->kind == BIAS ? 0
                                                      : initial_value((uint64_t)m->c.seed, t, i, deviation);
    }
}
static float *at(float *base, size_t offset) {
    return offset == NONE ? NULL : base + offset;
}

// --- section 5: layers

struct norm {
    bool centred; // LayerNorm
    size_t width;
    float eps;
    const float *gain, *bias;
};
// xhat of a row; the result is rstd
static float normalise(const struct norm *n, const float *x, float *xhat) {
    float wide = (float)n->width, mean = n->centred ? row_sum(x, NULL, n->width) / wide : 0;
    for (size_t i = 0; i < n->width; i++) xhat[i] = n->centred ? x[i] - mean : x[i];
    float rstd = 1 / sqrtf(row_sum(xhat, xhat, n->width) / wide + n->eps);
    for (size_t i = 0; i < n->width; i++) xhat[i] = xhat[i] * rstd;
    return rstd;
}
static void norm_forward(const struct norm *n, float *y, const float *x, size_t rows) {
    float *xhat = floats(n->width);
    for (size_t t = 0; t < rows; t++, x += n->width, y += n->width) {
        normalise(n, x, xhat);
        for (size_t i = 0; i < n->width; i++)
            y[i] = n->centred ? fmaf(xhat[i], n->gain[i], n->bias[i]) : xhat[i] * n->gain[i];
    }
    free(xhat);
}
// dx is written (or added to what is there: the residual) and may be dy; dgain and dbias grow by one sequence
static void norm_backward(const struct norm *n, float *dx, bool residual, const float *dy, const float *x, size_t rows,
                          float *dgain, float *dbias) {
    float wide = (float)n->width, *all = floats(rows * n->width), *rstd = floats(rows), *scaled = floats(n->width);
    for (size_t t = 0; t < rows; t++) rstd[t] = normalise(n, x + t * n->width, all + t * n->width);
    vector_gradient(dgain, all, dy, rows, n->width);
    if (n->centred) vector_gradient(dbias, NULL, dy, rows, n->width);
    for (size_t t = 0; t < rows; t++) {
        float *xhat = all + t * n->width, *dxt = dx + t * n->width;
        for (size_t i = 0; i < n->width; i++) scaled[i] = dy[t * n->width + i] * n->gain[i];
        float mean1 = n->centred ? row_sum(scaled, NULL, n->width) / wide : 0;
        float mean2 = row_sum(scaled, xhat, n->width) / wide;
        for (size_t i = 0; i < n->width; i++) {
            float value = fmaf(-xhat[i], mean2, n->centred ? scaled[i] - mean1 : scaled[i]) * rstd[t];
            dxt[i] = residual ? dxt[i] + value : value;
        }
    }
    free(all), free(rstd), free(scaled);
}

static void swiglu(float *y, const float *gate, const float *up, size_t count) {
    for (size_t i = 0; i < count; i++) {
        float sig = 1 / (1 + exp32(-gate[i])), silu = gate[i] * sig;
        y[i] = silu * up[i];
    }
}
static void swiglu_backward(float *dgate, float *dup, const float *dy, const float *gate, const float *up, size_t count) {
    for (size_t i = 0; i < count; i++) {
        float sig = 1 / (1 + exp32(-gate[i])), silu = gate[i] * sig, dsilu = dy[i] * up[i];
        dup[i] = dy[i] * silu;
        dgate[i] = dsilu * (sig * fmaf(gate[i], 1 - sig, 1));
    }
}
static const float gelu0 = (float)0.7978845608028654, gelu1 = (float)0.03567740813636141,
                   gelu2 = (float)0.10703222440908423;
static void gelu(float *y, const float *x, size_t count) {
    for (size_t i = 0; i < count; i++) {
        float xx = x[i] * x[i], arg = x[i] * fmaf(xx, gelu1, gelu0), th = tanh32(arg), half = 0.5f * x[i];
        y[i] = fmaf(half, th, half);
    }
}
static void gelu_backward(float *dx, const float *dy, const float *x, size_t count) {
    for (size_t i = 0; i < count; i++) {
        float xx = x[i] * x[i], arg = x[i] * fmaf(xx, gelu1, gelu0), th = tanh32(arg), half = 0.5f * x[i];
        float left = fmaf(0.5f, th, 0.5f), slope = fmaf(xx, gelu2, gelu0), right = (half * fmaf(-th, th, 1)) * slope;
        dx[i] = dy[i] * (left + right);
    }
}

static float frequency(const struct config *c, size_t i) {
    float freq = (float)(1 / pow64(c->rope_theta, (double)(2 * i) / (double)c->head_dim));
    if (!(c->rope_factor > 0)) return freq;
    float length = (1 / freq) * (float)0x1.921fb54442d18p+2, factor = (float)c->rope_factor;
    double original = (double)c->rope_original;
    if (length > (float)(original / c->rope_low)) return freq / factor;
    if (length < (float)(original / c->rope_high)) return freq;
    float smooth = ((1 / length) * (float)original - (float)c->rope_low) / (float)(c->rope_high - c->rope_low);
    return ((1 - smooth) * freq) / factor + smooth * freq;
}
// all heads of all rows; the transpose where backward
static void rope(const struct config *c, float *x, size_t rows, size_t heads, bool backward) {
    size_t d = (size_t)c->head_dim;
    for (size_t i = 0; i < d / 2; i++) {
        float freq = frequency(c, i);
        for (size_t t = 0; t < rows; t++) {
            float angle = (float)t * freq, cosine = cos32(angle), sine = sin32(angle);
            for (size_t h = 0; h < heads; h++) {
                float *x1 = x + (t * heads + h) * d + i, *x2 = x1 + d / 2, y1 = *x1, y2 = *x2;
                *x1 = backward ? fmaf(y1, cosine, y2 * sine) : fmaf(y1, cosine, -(y2 * sine));
                *x2 = backward ? fmaf(y2, cosine, -(y1 * sine)) : fmaf(y2, cosine, y1 * sine);
            }
        }
    }
}

// --- section 6: attention

struct attention {
    size_t T, d, heads, kv_heads, window;
    const size_t *document; // where the document of a position begins
    const float *q, *k, *v; // q scaled
    float *most, *inv;      // (head, position)
};
static size_t first_key(const struct attention *a, size_t i) {
    size_t start = a->document ? a->document[i] : 0;
    return a->window && i + 1 > a->window && i + 1 - a->window > start ? i + 1 - a->window : start;
}
// scores of a query with keys 0 .. i; those before start mean nothing
static void scores(const struct attention *a, float *score, size_t h, size_t i) {
    size_t Q = a->heads * a->d, KV = a->kv_heads * a->d, kv = h / (a->heads / a->kv_heads) * a->d;
    memset(score, 0, a->T * sizeof *score);
    part(score, a->T, (struct view){a->q + i * Q + h * a->d, Q, 1}, (struct view){a->k + kv, 1, KV}, 1, i + 1, a->d);
}
static void attention_forward(const struct attention *a, float *o) {
    size_t Q = a->heads * a->d, KV = a->kv_heads * a->d;
    float *score = floats(a->T);
    memset(o, 0, a->T * Q * sizeof *o);
    for (size_t h = 0; h < a->heads; h++)
        for (size_t i = 0; i < a->T; i++) {
            size_t start = first_key(a, i), kv = h / (a->heads / a->kv_heads) * a->d;
            float *out = o + i * Q + h * a->d, most, inv;
            scores(a, score, h, i);
            most = row_max(score + start, i + 1 - start);
            for (size_t j = 0; j <= i; j++) score[j] = j < start ? +0.0f : sexp(score[j] - most);
            inv = 1 / row_sum(score, NULL, i + 1);
            part(out, Q, (struct view){score, 0, 1}, (struct view){a->v + kv, KV, 1}, 1, a->d, i + 1);
            for (size_t c = 0; c < a->d; c++) out[c] *= inv;
            a->most[h * a->T + i] = most, a->inv[h * a->T + i] = inv;
        }
    free(score);
}
// dq, dk, dv are +0 at the start
static void attention_backward(const struct attention *a, float scale, const float *dout, const float *o, float *dq,
                               float *dk, float *dv) {
    size_t T = a->T, d = a->d, Q = a->heads * d, KV = a->kv_heads * d;
    float *prob = floats(T * T), *dscore = floats(T * T);
    for (size_t h = 0; h < a->heads; h++) {
        size_t kv = h / (a->heads / a->kv_heads) * d;
        for (size_t i = 0; i < T; i++) {
            const float *doi = dout + i * Q + h * d;
            float *p = prob + i * T, *ds = dscore + i * T, dot = row_sum(doi, o + i * Q + h * d, d);
            size_t start = first_key(a, i);
            scores(a, p, h, i);
            memset(ds, 0, T * sizeof *ds);
            part(ds, T, (struct view){doi, Q, 1}, (struct view){a->v + kv, 1, KV}, 1, i + 1, d);
            for (size_t j = 0; j < T; j++) {
                bool visible = start <= j && j <= i;
                p[j] = visible ? sexp(p[j] - a->most[h * T + i]) * a->inv[h * T + i] : +0.0f;
                ds[j] = visible ? p[j] * (ds[j] - dot) : +0.0f;
            }
        }
        part(dv + kv, KV, (struct view){prob, 1, T}, (struct view){dout + h * d, Q, 1}, T, d, T);
        part(dk + kv, KV, (struct view){dscore, 1, T}, (struct view){a->q + h * d, Q, 1}, T, d, T);
        part(dq + h * d, Q, (struct view){dscore, T, 1}, (struct view){a->k + kv, KV, 1}, T, d, T);
    }
    for (size_t i = 0; i < T * Q; i++) dq[i] *= scale;
    free(prob);
    free(dscore);
}

// --- a layer forward, backward: section 0

// what one sequence's forward leaves for its backward
struct kept {
    float *x, *h1, *q0, *k0, *q, *k, *v, *o, *most, *inv, *mid, *h2, *gate, *up, *act;
};
struct pass {
    const struct model *m;
    size_t T;
    const uint32_t *tokens;
    size_t *document; // NULL: no document mask
    struct kept *layers;
    float *x, *last, *logits, *memory;
};
static struct pass new_pass(const struct model *m, size_t T) {
    size_t width = m->width, heads = (size_t)m->c.heads, layers = (size_t)m->c.layers;
    size_t each = T * (4 * width + 3 * m->Q + 3 * m->KV + 2 * heads + 3 * m->ffn);
    struct pass p = {.m = m, .T = T, .layers = zeros(layers, sizeof *p.layers)};
    float *next = p.memory = floats(layers * each + T * (2 * width + m->vocab));
    for (size_t l = 0; l < layers; l++) {
        struct kept *k = p.layers + l;
        float **parts[] = {&k->x, &k->h1, &k->mid,  &k->h2,  &k->q0,   &k->q,  &k->o,  &k->k0,
                           &k->k, &k->v,  &k->most, &k->inv, &k->gate, &k->up, &k->act};
        size_t sizes[] = {width, width, width, width, m->Q,   m->Q,   m->Q,  m->KV,
                          m->KV, m->KV, heads, heads, m->ffn, m->ffn, m->ffn};
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) *parts[i] = next, next += T * sizes[i];
    }
    p.x = next, p.last = next + T * width, p.logits = next + 2 * T * width;
    return p;
}
static void free_pass(struct pass *p) {
    free(p->memory);
    free(p->layers);
}
static struct norm norm_of(const struct model *m, size_t gain, size_t bias) {
    return (struct norm){m->gpt2, m->width, (float)m->c.norm_epsilon, m->weights + gain, at(m->weights, bias)};
}
static struct norm head_norm(const struct model *m, size_t gain) {
    return (struct norm){false, m->d, (float)m->c.norm_epsilon, m->weights + gain, NULL};
}
static float scale_of(size_t d) {
    return (float)(1 / sqrt((double)d));
}
static struct attention attention_of(const struct pass *p, const struct kept *k) {
    const struct config *c = &p->m->c;
    return (struct attention){
        p->T,    p->m->d, (size_t)c->heads, (size_t)c->kv_heads, (size_t)c->window, p->document, k->q, k->k, k->v,
        k->most, k->inv};
}
static void add_to(float *sum, const float *residual, size_t count) {
    for (size_t i = 0; i < count; i++) sum[i] = residual[i] + sum[i];
}

static void layer_forward(const struct pass *p, const struct layer *l, const struct kept *k, float *next) {
    const struct model *m = p->m;
    const struct config *c = &m->c;
    float *w = m->weights;
    size_t T = p->T, width = m->width, heads = (size_t)c->heads, kv_heads = (size_t)c->kv_heads;
    struct norm norm1 = norm_of(m, l->gain1, l->bias1), norm2 = norm_of(m, l->gain2, l->bias2);
    norm_forward(&norm1, k->h1, k->x, T);
    linear(k->q0, k->h1, w + l->q, at(w, l->qbias), T, width, m->Q);
    linear(k->k0, k->h1, w + l->k, at(w, l->kbias), T, width, m->KV);
    linear(k->v, k->h1, w + l->v, at(w, l->vbias), T, width, m->KV);
    memcpy(k->q, k->q0, T * m->Q * sizeof(float));
    memcpy(k->k, k->k0, T * m->KV * sizeof(float));
    if (l->qnorm != NONE) {
        struct norm qnorm = head_norm(m, l->qnorm), knorm = head_norm(m, l->knorm);
        norm_forward(&qnorm, k->q, k->q0, T * heads);
        norm_forward(&knorm, k->k, k->k0, T * kv_heads);
    }
    if (!m->gpt2) rope(c, k->q, T, heads, false), rope(c, k->k, T, kv_heads, false);
    for (size_t i = 0; i < T * m->Q; i++) k->q[i] *= scale_of(m->d);
    struct attention a = attention_of(p, k);
    attention_forward(&a, k->o);
    linear(k->mid, k->o, w + l->o, at(w, l->obias), T, m->Q, width);
    add_to(k->mid, k->x, T * width);
    norm_forward(&norm2, k->h2, k->mid, T);
    linear(k->gate, k->h2, w + l->gate, at(w, l->gatebias), T, width, m->ffn);
    if (m->gpt2) {
        gelu(k->act, k->gate, T * m->ffn);
    } else {
        linear(k->up, k->h2, w + l->up, NULL, T, width, m->ffn);
        swiglu(k->act, k->gate, k->up, T * m->ffn);
    }
    linear(next, k->act, w + l->down, at(w, l->downbias), T, m->ffn, width);
    add_to(next, k->mid, T * width);
}
static void forward(struct pass *p, const uint32_t *tokens) {
    const struct model *m = p->m;
    size_t layers = (size_t)m->c.layers, width = m->width;
    float *x = layers ? p->layers[0].x : p->x;
    p->tokens = tokens;
    for (size_t i = 0; i < p->T * width; i++) {
        x[i] = m->weights[m->table + tokens[i / width] * width + i % width];
        if (m->gpt2) x[i] += m->weights[m->wpe + i];
    }
    for (size_t l = 0; l < layers; l++)
        layer_forward(p, m->layers + l, p->layers + l, l + 1 < layers ? p->layers[l + 1].x : p->x);
    struct norm norm = norm_of(m, m->gain, m->bias);
    norm_forward(&norm, p->last, p->x, p->T);
    linear(p->logits, p->last, m->weights + m->output, NULL, p->T, width, m->vocab);
}

// gradients of weight and bias of a linear
static void linear_backward(float *grads, size_t w, size_t bias, const float *dy, const float *x, size_t rows, size_t in,
                            size_t out) {
    weight_gradient(grads + w, dy, x, rows, in, out);
    if (bias != NONE) vector_gradient(grads + bias, NULL, dy, rows, out);
}
static void feed_forward_backward(const struct pass *p, const struct layer *l, const struct kept *k, float *dx,
                                  float *grads) {
    const struct model *m = p->m;
    size_t T = p->T, width = m->width, ffn = m->ffn;
    float *dact = floats(T * ffn), *dgate = floats(T * ffn), *dup = floats(T * ffn), *dh2 = floats(T * width);
    linear_backward(grads, l->down, l->downbias, dx, k->act, T, ffn, width);
    input_gradient(dact, dx, m->weights + l->down, T, ffn, width);
    if (m->gpt2)
        gelu_backward(dgate, dact, k->gate, T * ffn);
    else
        swiglu_backward(dgate, dup, dact, k->gate, k->up, T * ffn);
    linear_backward(grads, l->gate, l->gatebias, dgate, k->h2, T, width, ffn);
    input_gradient(dh2, dgate, m->weights + l->gate, T, width, ffn);
    if (!m->gpt2) {
        linear_backward(grads, l->up, NONE, dup, k->h2, T, width, ffn);
        input_gradient(dh2, dup, m->weights + l->up, T, width, ffn);
    }
    struct norm norm = norm_of(m, l->gain2, l->bias2);
    norm_backward(&norm, dx, true, dh2, k->mid, T, grads + l->gain2, at(grads, l->bias2));
    free(dact), free(dgate), free(dup), free(dh2);
}
static void heads_backward(const struct pass *p, const struct layer *l, const struct kept *k, float *dx, float *grads) {
    const struct model *m = p->m;
    const struct config *c = &m->c;
    size_t T = p->T, width = m->width, heads = (size_t)c->heads, kv_heads = (size_t)c->kv_heads;
    float *dout = floats(T * m->Q), *dq = floats(T * m->Q), *dk = floats(T * m->KV), *dv = floats(T * m->KV),
          *dh1 = floats(T * width);
    linear_backward(grads, l->o, l->obias, dx, k->o, T, m->Q, width);
    input_gradient(dout, dx, m->weights + l->o, T, m->Q, width);
    struct attention a = attention_of(p, k);
    attention_backward(&a, scale_of(m->d), dout, k->o, dq, dk, dv);
    if (!m->gpt2) rope(c, dq, T, heads, true), rope(c, dk, T, kv_heads, true);
    if (l->qnorm != NONE) {
        struct norm qnorm = head_norm(m, l->qnorm), knorm = head_norm(m, l->knorm);
        norm_backward(&qnorm, dq, false, dq, k->q0, T * heads, grads + l->qnorm, NULL);
        norm_backward(&knorm, dk, false, dk, k->k0, T * kv_heads, grads + l->knorm, NULL);
    }
    linear_backward(grads, l->q, l->qbias, dq, k->h1, T, width, m->Q);
    linear_backward(grads, l->k, l->kbias, dk, k->h1, T, width, m->KV);
    linear_backward(grads, l->v, l->vbias, dv, k->h1, T, width, m->KV);
    input_gradient(dh1, dq, m->weights + l->q, T, width, m->Q);
    input_gradient(dh1, dk, m->weights + l->k, T, width, m->KV);
    input_gradient(dh1, dv, m->weights + l->v, T, width, m->KV);
    struct norm norm = norm_of(m, l->gain1, l->bias1);
    norm_backward(&norm, dx, true, dh1, k->x, T, grads + l->gain1, at(grads, l->bias1));
    free(dout), free(dq), free(dk), free(dv), free(dh1);
}
// grads: a grain's, `table` its embedding side, which in a tied model is apart from the output side
static void backward(const struct pass *p, const float *dlogits, float *grads, float *table) {
    const struct model *m = p->m;
    size_t T = p->T, width = m->width;
    float *dlast = floats(T * width), *dx = floats(T * width);
    weight_gradient(grads + m->output, dlogits, p->last, T, width, m->vocab);
    input_gradient(dlast, dlogits, m->weights + m->output, T, width, m->vocab);
    struct norm norm = norm_of(m, m->gain, m->bias);
    norm_backward(&norm, dx, false, dlast, p->x, T, grads + m->gain, at(grads, m->bias));
    for (size_t l = (size_t)m->c.layers; l--;) {
        feed_forward_backward(p, m->layers + l, p->layers + l, dx, grads);
        heads_backward(p, m->layers + l, p->layers + l, dx, grads);
    }
    embedding_gradient(table, p->tokens, dx, T, width);
    for (size_t i = 0; m->gpt2 && i < T * width; i++) grads[m->wpe + i] += 0.0f + dx[i];
    free(dlast), free(dx);
}

// --- section 7: loss

// the loss of a row; its gradient takes the logits' place
static float row_loss(float *x, size_t count, uint32_t target, float weight) {
    float *expo = floats(count), most, sum = softmax(expo, x, count, &most), inv = 1 / sum;
    float loss = log32(sum) - (x[target] - most);
    for (size_t j = 0; j < count; j++) {
        float prob = expo[j] * inv;
        x[j] = j == target ? (prob - 1) * weight : prob * weight;
    }
    free(expo);
    return loss;
}

// --- data: section 0, "The stream and its sequences"

struct split {
    uint32_t *stream;
    const uint8_t *mask;
    size_t tokens;
    uint32_t end;
};
static struct split read_split(const char *dataset, const char *name) {
    json_t *all = manifest(dataset), *part = json_object_get(json_object_get(all, "splits"), name);
    size_t size, bytes = (size_t)json_integer_value(json_object_get(all, "token_bytes"));
    struct split s = {.tokens = (size_t)json_integer_value(json_object_get(part, "tokens_count")),
                      .end = (uint32_t)json_integer_value(json_object_get(all, "end"))};
    s.stream = zeros(s.tokens, sizeof *s.stream);
    if (s.tokens) {
        uint8_t *data = blob(text_at(part, "tokens"), &size);
        if (size != s.tokens * bytes) die("the stream of %s has %zu bytes", dataset, size);
        for (size_t i = 0; i < size; i++) s.stream[i / bytes] |= (uint32_t)data[i] << 8 * (i % bytes);
        free(data);
        if (text_at(part, "mask")) s.mask = blob(text_at(part, "mask"), &size);
    }
    json_decref(all);
    return s;
}
static bool masked(const struct split *s, size_t place) {
    return s->mask && (s->mask[place / 8] >> place % 8 & 1);
}
static size_t unmasked(const struct split *s, size_t begin, size_t T) {
    size_t targets = 0;
    for (size_t t = 0; t < T; t++) targets += !masked(s, begin + t + 1);
    return targets;
}
// forward of the sequence whose inputs begin at `begin`: losses[t], and in logits their gradient
static void read_sequence(struct pass *p, const struct split *s, size_t begin, float weight, float *losses) {
    size_t document[1] = {0}, *documents = p->m->c.cross_documents ? NULL : zeros(p->T, sizeof *documents),
           vocab = p->m->vocab;
    for (size_t t = 0; documents && t < p->T; t++) {
        if (s->stream[begin + t] == s->end) *document = t;
        documents[t] = *document;
    }
    free(p->document);
    p->document = documents;
    forward(p, s->stream + begin);
    for (size_t t = 0; t < p->T; t++) {
        if (masked(s, begin + t + 1)) {
            losses[t] = 0;
            memset(p->logits + t * vocab, 0, vocab * sizeof(float));
        } else {
            losses[t] = row_loss(p->logits + t * vocab, vocab, s->stream[begin + t + 1], weight);
        }
    }
}

static bool evaluate(const struct model *m, const struct split *s, double *loss, size_t *targets) {
    if (s->tokens < 2) return false;
    size_t count = (s->tokens - 1 + m->T - 1) / m->T;
    if (m->c.eval_sequences && (size_t)m->c.eval_sequences < count) count = (size_t)m->c.eval_sequences;
    double *sums = zeros(count, sizeof *sums);
    *targets = 0;
    for (size_t i = 0; i < count; i++) {
        size_t begin = i * m->T, T = s->tokens - 1 - begin < m->T ? s->tokens - 1 - begin : m->T;
        struct pass p = new_pass(m, T);
        float *losses = floats(T);
        read_sequence(&p, s, begin, 0, losses);
        for (size_t t = 0; t < T; t++) sums[i] += losses[t];
        *targets += unmasked(s, begin, T);
        free(losses);
        free(p.document);
        free_pass(&p);
    }
    *loss = tree(sums, count) / (double)*targets;
    free(sums);
    return true;
}

// --- section 8: batches, AdamW, schedules

struct state {
    struct model m;
    float *moment1, *moment2;
    uint64_t updates, samples;
    struct split train, held_out;
};
static size_t begin_of_sample(const struct state *s, uint64_t number) {
    uint64_t N = (s->train.tokens - 1) / s->m.T;
    if (!N) die("the training split is shorter than a sequence");
    return permutation((uint64_t)s->m.c.seed, number / N, N, number % N) * s->m.T;
}
// loss of the batch, and its gradient, which is left alone where nothing is a target
static double batch(const struct state *s, float *gradient, size_t *targets) {
    const struct model *m = &s->m;
    size_t G = (size_t)m->c.grains, each = (size_t)m->c.sequences / G, table = m->vocab * m->width;
    *targets = 0;
    for (uint64_t j = 0; j < G * each; j++) *targets += unmasked(&s->train, begin_of_sample(s, s->samples + j), m->T);
    if (!*targets) return 0;
    float **grains = zeros(G, sizeof *grains), **tables = zeros(G, sizeof *tables), *losses = floats(m->T);
    double *sums = zeros(G, sizeof *sums);
    struct pass p = new_pass(m, m->T);
    for (size_t g = 0; g < G; g++) {
        grains[g] = floats(m->parameters);
        tables[g] = m->c.tied ? floats(table) : grains[g] + m->table;
        for (size_t j = 0; j < each; j++) {
            read_sequence(&p, &s->train, begin_of_sample(s, s->samples + g * each + j), (float)(1 / (double)*targets),
                          losses);
            for (size_t t = 0; t < m->T; t++) sums[g] += losses[t];
            backward(&p, p.logits, grains[g], tables[g]);
        }
    }
    tree_of_arrays(grains, G, m->parameters);
    if (m->c.tied) {
        tree_of_arrays(tables, G, table);
        for (size_t i = 0; i < table; i++) grains[0][m->table + i] = tables[0][i] + grains[0][m->table + i];
    }
    memcpy(gradient, grains[0], m->parameters * sizeof *gradient);
    for (size_t g = 0; g < G; g++) {
        if (m->c.tied) free(tables[g]);
        free(grains[g]);
    }
    double loss = tree(sums, G) / (double)*targets;
    free(grains), free(tables), free(losses), free(sums), free(p.document);
    free_pass(&p);
    return loss;
}
static double norm_of_gradient(const struct model *m, const float *gradient) {
    double *blocks = zeros(m->parameters / BLOCK + m->tensor_count, sizeof *blocks);
    size_t count = 0;
    for (const struct tensor *t = m->tensors; t < m->tensors + m->tensor_count; t++)
        for (size_t i = 0; i < t->count; i += BLOCK)
            blocks[count++] = sum_of_squares(gradient + t->at + i, t->count - i < BLOCK ? t->count - i : BLOCK);
    double norm = sqrt(tree(blocks, count));
    free(blocks);
    return norm;
}
static double rate_of(const struct config *c, int64_t s) {
    if (s < c->warmup) return c->learning_rate * ((double)(s + 1) / (double)c->warmup);
    int64_t span = c->decay - c->warmup > 1 ? c->decay - c->warmup : 1;
    double progress = (double)(s - c->warmup) / (double)span;
    if (!strcmp(c->schedule, "wsd")) progress = (double)(s - (c->decay - c->cooldown)) / (double)c->cooldown;
    if (progress > 1) progress = 1;
    if (!strcmp(c->schedule, "constant") || progress < 0) return c->learning_rate;
    double part = !strcmp(c->schedule, "cosine") ? 0.5 * (1 + cos_turns64(progress / 2)) : 1 - progress;
    return c->learning_rate * (c->min_ratio + (1 - c->min_ratio) * part);
}
struct adam {
    float beta1, rest1, beta2, rest2, step, root, epsilon, decay;
};
static struct adam adam_of(const struct config *c, double rate, uint64_t update) {
    double one = 1 - pow64(c->beta1, (double)update), two = 1 - pow64(c->beta2, (double)update);
    return (struct adam){
        (float)c->beta1,      (float)(1 - c->beta1),  (float)c->beta2,   (float)(1 - c->beta2),
        (float)(-rate / one), (float)(1 / sqrt(two)), (float)c->epsilon, (float)(1 - rate * c->weight_decay)};
}
static void adam(const struct adam *a, bool matrix, float *weight, float *moment1, float *moment2, float gradient) {
    *moment1 = fmaf(a->beta1, *moment1, a->rest1 * gradient);
    *moment2 = fmaf(a->beta2, *moment2, (a->rest2 * gradient) * gradient);
    *weight = fmaf(a->step, *moment1 / fmaf(sqrtf(*moment2), a->root, a->epsilon), matrix ? *weight * a->decay : *weight);
}
static void update(const struct state *s, const float *gradient, double norm, double rate) {
    const struct config *c = &s->m.c;
    struct adam a = adam_of(c, rate, s->updates + 1);
    bool clipped = c->clip > 0 && norm > c->clip;
    float factor = (float)(c->clip / norm);
    for (const struct tensor *t = s->m.tensors; t < s->m.tensors + s->m.tensor_count; t++)
        for (size_t i = t->at; i < t->at + t->count; i++)
            adam(&a, t->kind == MATRIX || t->kind == RESIDUAL, s->m.weights + i, s->moment1 + i, s->moment2 + i,
                 clipped ? gradient[i] * factor : gradient[i]);
}
static void state_root(char text[65], const struct state *s, char weights[65]) {
    char moments1[65], moments2[65];
    size_t size;
    root_of_floats(weights, s->m.weights, s->m.parameters);
    root_of_floats(moments1, s->moment1, s->m.parameters);
    root_of_floats(moments2, s->moment2, s->m.parameters);
    json_t *object = json_pack("{ss ss ss sI sI ss}", "format", "checkpoint-0", "moments1", moments1, "moments2", moments2,
                               "samples", (json_int_t)s->samples, "updates", (json_int_t)s->updates, "weights", weights);
    char *json = canonical(object, &size);
    root_of(text, json, size);
    free(json);
    json_decref(object);
}

// --- section 0: where a run begins, a step

static json_t *initial_of(json_t *record) {
    json_t *initial = json_object_get(record, "initial");
    return initial && !json_is_null(initial) ? initial : NULL;
}
static struct state begin(json_t *record) {
    struct config c = config_of_record(record);
    struct state s = {.m = new_model(&c)};
    json_t *initial = initial_of(record);
    s.moment1 = floats(s.m.parameters), s.moment2 = floats(s.m.parameters);
    s.train = read_split(text_at(record, "dataset_root"), "train");
    s.held_out = read_split(text_at(record, "dataset_root"), "held_out");
    if (!initial) {
        initialise(&s.m);
    } else if (strcmp(c.optimizer, "keep") != 0) {
        floats_of_blob(s.m.weights, text_at(initial, "weights"), s.m.parameters);
    } else {
        json_t *state = manifest(text_at(initial, "state"));
        floats_of_blob(s.m.weights, text_at(state, "weights"), s.m.parameters);
        floats_of_blob(s.moment1, text_at(state, "moments1"), s.m.parameters);
        floats_of_blob(s.moment2, text_at(state, "moments2"), s.m.parameters);
        s.updates = (uint64_t)json_integer_value(json_object_get(state, "updates"));
        s.samples = (uint64_t)json_integer_value(json_object_get(state, "samples"));
        json_decref(state);
    }
    return s;
}
// a row as numerics.md has it in its tables
static void print_row(int64_t step, double loss, double norm, double rate, size_t targets) {
    printf("| %" PRId64 " | `%016" PRIx64 "` | `%016" PRIx64 "` | `%016" PRIx64 "` | %zu |\n", step, bits64(loss),
           bits64(norm), bits64(rate), targets);
}
static void run(json_t *record) {
    struct state s = begin(record);
    const struct config *c = &s.m.c;
    float *gradient = floats(s.m.parameters);
    char text[65], weights[65];
    for (int64_t step = 0; step < c->steps; step++) {
        size_t targets;
        double loss = batch(&s, gradient, &targets), norm = targets ? norm_of_gradient(&s.m, gradient) : 0,
               rate = rate_of(c, step);
        if (loss - loss != 0 || norm - norm != 0) {
            printf("failed %" PRId64 "\n", step + 1);
            break;
        }
        if (targets) update(&s, gradient, norm, rate), s.updates++;
        s.samples += (uint64_t)c->sequences;
        print_row(step + 1, loss, norm, rate, targets);
        if (c->every && ((step + 1) % c->every == 0 || step + 1 == c->steps) &&
            evaluate(&s.m, &s.held_out, &loss, &targets))
            printf("evaluation %" PRId64 " %016" PRIx64 " targets %zu\n", step + 1, bits64(loss), targets);
    }
    identity(text, c, text_at(record, "dataset_root"), initial_of(record));
    printf("identity %s\n", text);
    state_root(text, &s, weights);
    printf("weights_root %s\nstate_root %s\n", weights, text);
}

// the figures of a worked run before its first step, in the page's order
static void print_begin(json_t *record) {
    struct state s = begin(record);
    const struct model *m = &s.m;
    char text[65];
    for (size_t t = 0; t < m->tensor_count; t++) {
        const float *x = m->weights + m->tensors[t].at;
        printf("tensor %zu %08x %08x %08x\n", t, bits32(x[0]), bits32(x[1]), bits32(x[m->tensors[t].count - 1]));
    }
    root_of_floats(text, m->weights, m->parameters);
    printf("weights_root %s\n", text);
    size_t begin = begin_of_sample(&s, s.samples);
    struct pass p = new_pass(m, m->T);
    float *losses = floats(m->T);
    read_sequence(&p, &s.train, begin, 0, losses);
    forward(&p, s.train.stream + begin); // the logits again, which the gradient replaced
    printf("sample %" PRIu64 " %zu\nlogits %08x %08x %08x\nlosses", s.samples, begin / m->T, bits32(p.logits[0]),
           bits32(p.logits[(m->T - 1) * m->vocab]), bits32(p.logits[(m->T - 1) * m->vocab + s.train.end]));
    for (size_t t = 0; t < m->T; t++) printf(" %08x", bits32(losses[t]));
    printf("\n");
}

// --- section 10: generation, "A full context"

// the manifest of the model that the run began with, or NULL
static json_t *model_of(json_t *record) {
    json_t *initial = initial_of(record);
    return initial && text_at(initial, "model") ? manifest(text_at(initial, "model")) : NULL;
}
static bool ends(json_t *model, uint32_t end, uint32_t id) {
    json_t *stop;
    size_t i;
    bool found = id == end;
    json_array_foreach(json_object_get(model, "stops"), i, stop) found |= json_integer_value(stop) == id;
    return found;
}
static void generate(json_t *record, size_t wanted, const struct sampling *options, char **ids, size_t prompt) {
    struct config c = config_of_record(record);
    struct model m = new_model(&c);
    json_t *tokenizer = manifest(text_at(record, "tokenizer_root")), *before = json_object_get(tokenizer, "before"),
           *model = model_of(record);
    uint32_t end = read_split(text_at(record, "dataset_root"), "train").end;
    size_t vocab = (size_t)json_integer_value(json_object_get(tokenizer, "vocab")), context = (size_t)c.context, count = 0,
           first = 0;
    uint32_t *tokens = zeros(prompt + wanted + 1, sizeof *tokens);
    floats_of_blob(m.weights, text_at(record, "weights_root"), m.parameters);
    if (!before) before = json_object_get(model, "text_begin");
    if (before || !prompt || !text_at(model, "type")) tokens[count++] = before ? (uint32_t)json_integer_value(before) : end;
    for (size_t i = 0; i < prompt; i++) tokens[count++] = (uint32_t)strtoul(ids[i], NULL, 10);
    size_t read = count;
    for (size_t drawn = 0; drawn < wanted; drawn++) {
        size_t most = context / 2 > 1 ? context / 2 : 1;
        if (count - first > context) first = count > most ? count - most : 0;
        struct pass p = new_pass(&m, count - first); // all of the context again: no rule of the contract knows a cache
        forward(&p, tokens + first);
        float *logit = p.logits + (count - first - 1) * m.vocab;
        penalise(logit, vocab, options, tokens, read, count);
        tokens[count] = sample(logit, vocab, options, count);
        free_pass(&p);
        printf("%u\n", tokens[count]);
        if (ends(model, end, tokens[count++])) break;
    }
}

// formats.md, "Tokenizer": the blob of tokens
static void print_text(json_t *record, char **ids, size_t count) {
    json_t *tokenizer = manifest(text_at(record, "tokenizer_root"));
    size_t size;
    uint8_t *data = blob(text_at(tokenizer, "tokens"), &size);
    for (size_t i = 0; i < count; i++) {
        uint32_t id = (uint32_t)strtoul(ids[i], NULL, 10);
        size_t place = 4 + 4 * (size_t)word_at(data);
        for (uint32_t before = 0; before < id; before++) place += word_at(data + 4 + 4 * before);
        fwrite(data + place, 1, word_at(data + 4 + 4 * id), stdout);
    }
}

// --- the figures of the pages

static void figure32(const char *name, float x) {
    printf("| %s | `%08x` |\n", name, bits32(x));
}
static void figure64(const char *name, double x) {
    printf("| %s | `%016" PRIx64 "` |\n", name, bits64(x));
}
static void figure_random(const char *name, uint64_t seed, uint32_t purpose, uint64_t step, uint64_t sample, uint64_t layer,
                          uint64_t element) {
    uint32_t w[4];
    random_words(w, seed, purpose, step, sample, layer, element);
    printf("| %s | `%08x %08x %08x %08x` |\n", name, w[0], w[1], w[2], w[3]);
}
// section 11's arrays
static float array_a(size_t i) {
    return (float)((int)(i % 13) - 6) / 10;
}
static float array_b(size_t i) {
    return (float)((int)(i % 7) - 2) / 10;
}
static void function_figures(void) {
    figure32("exp(1)", exp32(1)), figure32("exp(-0.1)", exp32(-0.1f)), figure32("exp(-100)", exp32(-100)),
        figure32("exp(88.7)", exp32(88.7f));
    figure32("sexp(-63.5)", sexp(-63.5f));
    figure32("tanh(0.2)", tanh32(0.2f)), figure32("tanh(-1)", tanh32(-1)), figure32("tanh(8.5)", tanh32(8.5f));
    figure32("log(10)", log32(10)), figure32("log(0.9999)", log32(0.9999f)), figure32("sin(1000)", sin32(1000));
    figure32("cos(1000)", cos32(1000)), figure32("cos(1e7)", cos32(1e7f));
    figure64("exp64(1)", exp64(1, 0)), figure64("exp64(-700.25)", exp64(-700.25, 0));
    figure64("log64(10)", log64(10)), figure64("log64(0x1p-53)", log64(0x1p-53));
    figure64("pow64(0.999, 12345)", pow64(0.999, 12345)), figure64("pow64(10000, 0.21875)", pow64(10000, 0.21875));
    figure64("cos_turns64(0.2)", cos_turns64(0.2)), figure64("cos_turns64(0.9)", cos_turns64(0.9));
    figure32("initial value, seed 42, tensor 3, deviation 0.02, element 0", initial_value(42, 3, 0, 0.02));
    figure32("the same, element 3", initial_value(42, 3, 3, 0.02));
    figure32("exp(88.72)", exp32(88.72f)), figure32("exp(-87.5)", exp32(-87.5f)), figure32("exp(-103)", exp32(-103));
    figure32("sexp(-64)", sexp(-64)), figure32("sexp(-64.00001)", sexp(-64.00001f));
    figure64("pow64(0.95, 7)", pow64(0.95, 7));
    figure64("pow64(1.4034600306737934, -1166.147746923544)", pow64(1.4034600306737934, -1166.147746923544));
    figure_random("random(42, 1, 0, 0, 3, 0)", 42, 1, 0, 0, 3, 0);
    figure_random("random(0x1122334455667788, 3, 1, 2, 3, 4)", 0x1122334455667788, 3, 1, 2, 3, 4);
}
static void rope_figures(void) {
    struct config c = standard();
    c.head_dim = 8;
    figure32("rope cos, theta 10000, d 8, position 1, i 1", cos32(frequency(&c, 1)));
    figure32("rope sin, the same", sin32(frequency(&c, 1)));
    c.head_dim = 128, c.rope_theta = 500000, c.rope_factor = 8;
    figure32("scaled frequency, rope_theta 500000, d 128, rope_factor 8, rope_low 1, rope_high 4, rope_original 8192, i 20",
             frequency(&c, 20));
    figure32("the same, i 30", frequency(&c, 30)), figure32("the same, i 40", frequency(&c, 40));
}
static void layer_figures(const float *a, const float *b) {
    float y[100] = {0}, z[100] = {0}, gain[100] = {0}, bias[100] = {0}, most;
    struct norm norm = {false, 100, (float)1e-5, b, b};
    figure32("RMSNorm of a, gain b, 100 wide, norm_epsilon 1e-5: rstd", normalise(&norm, a, y));
    norm_forward(&norm, y, a, 1), figure32("element 7", y[7]);
    norm_backward(&norm, y, false, b, a, 1, gain, bias), figure32("backward of dy = b: element 7", y[7]);
    norm.centred = true;
    figure32("LayerNorm, bias b: mean", row_sum(a, NULL, 100) / 100), figure32("rstd", normalise(&norm, a, y));
    norm_forward(&norm, y, a, 1), figure32("element 7", y[7]);
    norm_backward(&norm, y, false, b, a, 1, gain, bias), figure32("backward of dy = b: element 7", y[7]);
    swiglu(y, a, b, 100), figure32("SwiGLU of gate a, up b: element 4", y[4]);
    gelu(y, a, 100), figure32("GELU of a: element 4", y[4]);
    gelu_backward(y, b, a, 100), figure32("backward of dy = b: element 4", y[4]);
    memcpy(y, a, sizeof y);
    figure32("loss of logits a, 100 of them, target 5", row_loss(y, 100, 5, 0.125f));
    figure32("gradient with weight 1/8: element 4", y[4]), figure32("element 5", y[5]);
    figure64("squares of a, 100 of them", sum_of_squares(a, 100));
    float sum = softmax(z, a, 70, &most), inv = 1 / sum;
    figure32("softmax of a, 70 of them: sum", sum), figure32("inv", inv), figure32("expo(4)", z[4]),
        figure32("prob(4)", z[4] * inv);
}
static void product_figures(const float *a, const float *b) {
    float total = 0;
    part(&total, 1, (struct view){a, 0, 1}, (struct view){b, 1, 0}, 1, 1, 1100),
        figure32("product of a and b, 1,100 of each", total);
    part(&total, 1, (struct view){a, 0, 1}, (struct view){b, 1, 0}, 1, 1, 600);
    figure32("the same, and a second part of 600, whose arrays begin again at 0", total);
    float most[100], inv[100], *o = floats(1000);
    struct attention attention = {100, 10, 1, 1, 0, NULL, a, b, a, most, inv};
    attention_forward(&attention, o);
    figure32("attention, one head, 100 positions, d 10, the scaled q = v = a, k = b (row t is elements 10t .. 10t + 9): "
             "position 99, element 3",
             o[993]);
    free(o);
}
static void training_figures(void) {
    struct config c = standard();
    struct adam constants = adam_of(&c, 1e-3, 1);
    float weight = 0.5f, moment1 = 0, moment2 = 0;
    adam(&constants, true, &weight, &moment1, &moment2, 0.25f);
    figure32("AdamW, update 1 of moments 0, weight 0.5, gradient 0.25, rate 1e-3, default constants, a matrix: moment1",
             moment1);
    figure32("moment2", moment2), figure32("weight", weight);
    weight = 0.5f, moment1 = moment2 = 0;
    adam(&constants, false, &weight, &moment1, &moment2, 0.25f), figure32("weight, if it is a gain", weight);
    static const int64_t steps[] = {0, 4, 37, 65, 79, 90};
    static const char *schedules[] = {"cosine", "linear", "wsd"};
    c.warmup = 5, c.decay = 80, c.cooldown = 16;
    for (int i = 0; i < 6; i++) {
        double rates[3];
        bool again = steps[i] == 4;
        for (int j = 0; j < 3; j++) {
            strcpy(c.schedule, schedules[j]);
            rates[j] = rate_of(&c, steps[i]);
            again = again && rate_of(&c, 5) == rates[j];
        }
        printf(again ? "| 4, 5 |" : "| %" PRId64 " |", steps[i]);
        for (int j = 0; j < 3; j++)
            printf(j && rates[j] == rates[0] ? " the same |" : " `%016" PRIx64 "` |", bits64(rates[j]));
        printf("\n");
    }
}
static void sampling_figures(void) {
    static const struct sampling options[] = {
        {0.8, 0.95, 0, 1, 0, 0, 1, 0, 0, "-"}, {1, 1, 0, 1, 0, 0, 1, 0, 0, "-"}, {1, 1, 0, 1, 0.1, 0, 1, 0, 0, "-"},
        {5, 0.6, 0, 1, 0.5, 0, 1, 0, 0, "-"},  {1, 1, 0, 1, 0, 1, 1, 0, 0, "-"}, {1, 1, 0, 1, 0, 0, 1.5, 0.25, 0.5, "3=5"},
        {0, 0.95, 0, 1, 0, 0, 1, 0, 0, "-"}};
    static const char *names[] = {"temperature 0.8, top_p 0.95",
                                  "temperature 1, top_p 1",
                                  "temperature 1, top_p 1, min_p 0.1",
                                  "temperature 5, top_p 0.6, min_p 0.5",
                                  "temperature 1, top_p 1, choice 1",
                                  "temperature 1, top_p 1, repetition 1.5, presence 0.25, frequency 0.5, bias 5 of id 3"};
    float logit[100];
    uint32_t text[8];
    for (int i = 0; i < 7; i++) {
        if (i < 6) printf("| %s |", names[i]);
        for (uint32_t place = 0; place < 8; place++) {
            for (int id = 0; id < 100; id++) logit[id] = (float)(id % 13 - 6);
            penalise(logit, 100, options + i, text, 0, place);
            text[place] = sample(logit, 100, options + i, place);
            if (i < 6) printf(" %u", text[place]);
        }
        if (i < 6) printf(" |\n");
    }
    printf("| temperature 0 | %u at each |\n", text[7]);
}
static void order_figures(void) {
    static const uint32_t in[3][6] = {
        {0}, {~0u, ~0u, ~0u, ~0u, ~0u, ~0u}, {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0}};
    for (int i = 0; i < 3; i++) {
        uint32_t c[4];
        memcpy(c, in[i], sizeof c);
        philox(c, in[i][4], in[i][5]);
        for (int j = 0; j < 6; j++) printf("%s%08x", j == 0 ? "| " : j == 4 ? " | " : " ", in[i][j]);
        printf(" | %08x %08x %08x %08x |\n", c[0], c[1], c[2], c[3]);
    }
    printf("    seed 42, epoch 0, size 10:       0..9 go to");
    for (uint64_t i = 0; i < 10; i++) printf(" %" PRIu64, permutation(42, 0, 10, i));
    printf("\n    seed 42, epoch 1, size 1000000:  123456 goes to %" PRIu64
           "\n    seed 42, size 5:                 0..4 go to",
           permutation(42, 1, 1000000, 123456));
    for (uint64_t epoch = 0; epoch < 4; epoch++) {
        for (uint64_t i = 0; i < 5; i++) printf(" %" PRIu64, permutation(42, epoch, 5, i));
        printf(" (%s%" PRIu64 ")%s", epoch ? "" : "epoch ", epoch, epoch < 3 ? "," : "\n");
    }
}
static void vectors(void) {
    float a[1100], b[1100];
    char root[65];
    for (size_t i = 0; i < 1100; i++) a[i] = array_a(i), b[i] = array_b(i);
    function_figures();
    rope_figures();
    product_figures(a, b);
    layer_figures(a, b);
    training_figures();
    sampling_figures();
    order_figures();
    root_of(root, "", 0), printf("    root of \"\"    = %s\n", root);
    root_of(root, "abc", 3), printf("    root of \"abc\" = %s\n", root);
}

// --- commands

static void logged(void) {
    char line[4096];
    while (fgets(line, sizeof line, stdin)) {
        json_t *row = json_loads(line, 0, NULL);
        if (!row) die("a line of the ledger is not JSON: %s", line);
        print_row(json_integer_value(json_object_get(row, "step")), json_number_value(json_object_get(row, "loss")),
                  json_number_value(json_object_get(row, "gradient_norm")),
                  json_number_value(json_object_get(row, "learning_rate")),
                  (size_t)json_integer_value(json_object_get(row, "tokens")));
        json_decref(row);
    }
}
static void evaluated(const char *step) {
    json_t *answer = json_loadf(stdin, 0, NULL);
    if (!answer) die("no JSON for step %s", step);
    printf("evaluation %s %016" PRIx64 " targets %" PRId64 "\n", step,
           bits64(json_number_value(json_object_get(answer, "loss"))),
           (int64_t)json_integer_value(json_object_get(answer, "targets")));
    json_decref(answer);
}
static void recorded(json_t *record) {
    static const char *names[] = {"identity", "weights_root", "state_root"};
    if (!strcmp(text_at(record, "state"), "failed"))
        printf("failed %" PRId64 "\n", (int64_t)json_integer_value(json_object_get(record, "step")) + 1);
    for (int i = 0; i < 3; i++) printf("%s %s\n", names[i], text_at(record, names[i]));
}
static void print_hex(void) {
    char line[400];
    while (fgets(line, sizeof line, stdin)) printf("%016" PRIx64 "\n", bits64(strtod(line, NULL)));
}
static void print_stream(const char *dataset) {
    static const char *names[] = {"train", "held_out"};
    for (int i = 0; i < 2; i++) {
        struct split s = read_split(dataset, names[i]);
        printf("%s", names[i]);
        for (size_t t = 0; t < s.tokens; t++) printf(" %u", s.stream[t]);
        printf("\n");
        if (s.mask) printf("masked");
        for (size_t t = 0; s.mask && t < s.tokens; t++)
            if (masked(&s, t)) printf(" %zu", t);
        if (s.mask) printf("\n");
    }
}
// the configuration from what a user said, not from what the program made of it
static void print_identity(json_t *record, char **said, int count) {
    struct config c = standard(), made = config_of_record(record);
    char text[65];
    for (const struct key *k = keys; initial_of(record) && k < keys + KEYS; k++)
        if (!strcmp(k->section, "model")) memcpy((char *)&c + k->at, (char *)&made + k->at, size_of(k)); // the model's own
    for (int i = 0; i < count; i++) {
        const struct key *k = keys;
        char name[128];
        for (; k < keys + KEYS; k++) {
            snprintf(name, sizeof name, "%s.%s=", k->section, k->name);
            if (!strncmp(said[i], name, strlen(name))) break;
        }
        if (k < keys + KEYS) set_text(&c, k, said[i] + strlen(name)); // others change no bit
    }
    json_t *tokenizer = manifest(text_at(record, "tokenizer_root"));
    resolve(&c, json_integer_value(json_object_get(tokenizer, "vocab")));
    identity(text, &c, text_at(record, "dataset_root"), initial_of(record));
    printf("identity %s\n", text);
}
int main(int argc, char **argv) {
    const char *command = argc > 1 ? argv[1] : "";
    if (argc == 2 && !strcmp(command, "vectors")) return vectors(), 0;
    if (argc == 2 && !strcmp(command, "logged")) return logged(), 0;
    if (argc == 2 && !strcmp(command, "hex")) return print_hex(), 0;
    if (argc == 3 && !strcmp(command, "evaluated")) return evaluated(argv[2]), 0;
    if (argc < 4) die("see the top of contract.c");
    blobs = argv[2];
    if (!strcmp(command, "stream")) return print_stream(argv[3]), 0;
    json_t *record = json_load_file(argv[3], 0, NULL);
    if (!record) die("%s: not JSON", argv[3]);
    if (!strcmp(command, "text")) return print_text(record, argv + 4, (size_t)argc - 4), 0;
    if (!strcmp(command, "recorded")) return recorded(record), 0;
    if (!strcmp(command, "run")) return run(record), 0;
    if (!strcmp(command, "begin")) return print_begin(record), 0;
    if (!strcmp(command, "identity")) return print_identity(record, argv + 4, argc - 4), 0;
    if (strcmp(command, "generate") != 0 || argc < 15) die("see the top of contract.c");
    struct sampling options = {strtod(argv[5], NULL),       strtod(argv[7], NULL),
                               strtoull(argv[6], NULL, 10), strtoull(argv[8], NULL, 10),
                               strtod(argv[9], NULL),       strtoull(argv[10], NULL, 10),
                               strtod(argv[11], NULL),      strtod(argv[12], NULL),
                               strtod(argv[13], NULL),      argv[14]};
    generate(record, strtoull(argv[4], NULL, 10), &options, argv + 15, (size_t)argc - 15);
    return 0;
}
