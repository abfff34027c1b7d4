/* How the tensors of a model are called in a GGUF file and how their rows lie there; the factors of rotary frequencies. */
#include "model/gguf/keys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *lk__gguf_architecture(const struct lk_model_config *c) {
    if (c->family == LK_GPT2) return "gpt2";
    if (c->qkv_bias && c->qk_norm) return NULL;
    return c->qkv_bias ? "qwen2" : c->qk_norm ? "qwen3" : "llama";
}

/* Ours, behind a layer's number where there is one; theirs. */
static const char *const names[][2] = {{"model.embed_tokens", "token_embd"},
                                       {"wte", "token_embd"},
                                       {"wpe", "position_embd"},
                                       {"model.norm", "output_norm"},
                                       {"ln_f", "output_norm"},
                                       {"lm_head", "output"},
                                       {"input_layernorm", "attn_norm"},
                                       {"self_attn.q_proj", "attn_q"},
                                       {"self_attn.k_proj", "attn_k"},
                                       {"self_attn.v_proj", "attn_v"},
                                       {"self_attn.o_proj", "attn_output"},
                                       {"self_attn.q_norm", "attn_q_norm"},
                                       {"self_attn.k_norm", "attn_k_norm"},
                                       {"post_attention_layernorm", "ffn_norm"},
                                       {"mlp.gate_proj", "ffn_gate"},
                                       {"mlp.up_proj", "ffn_up"},
                                       {"mlp.down_proj", "ffn_down"},
                                       {"ln_1", "attn_norm"},
                                       {"attn.c_attn", "attn_qkv"},
                                       {"attn.c_proj", "attn_output"},
                                       {"ln_2", "ffn_norm"},
                                       {"mlp.c_fc", "ffn_up"},
                                       {"mlp.c_proj", "ffn_down"}};

void lk__gguf_tensor_name(const char *ours, char out[LK__GGUF_NAME]) {
    char layer[16] = "";
    const char *rest = strncmp(ours, "model.layers.", 13) == 0 ? ours + 13 : strncmp(ours, "h.", 2) == 0 ? ours + 2 : NULL;
    if (rest) {
        char *end;
        snprintf(layer, sizeof layer, "blk.%lu.", strtoul(rest, &end, 10));
        rest = end + 1;
    } else
        rest = ours;
    const char *kind = strrchr(rest, '.'); /* .weight or .bias */
    size_t i = 0, n = (size_t)(kind - rest);
    while (strlen(names[i][0]) != n || strncmp(names[i][0], rest, n)) i++;
    snprintf(out, LK__GGUF_NAME, "%s%s%s", layer, names[i][1], kind);
}

size_t lk__gguf_row(const struct lk_layout *l, const struct lk_tensor *t, size_t row) {
    const struct lk_model_config *c = &l->config;
    size_t d = c->head_dim, i = row % d;
    bool turned = strstr(t->name, ".q_proj.") || strstr(t->name, ".k_proj.");
    if (!turned || strcmp(lk__gguf_architecture(c), "llama")) return row;
    return row - i + (i < d / 2 ? 2 * i : 2 * (i - d / 2) + 1);
}

/* --- rope_freqs.weight ------------------------------------------------------------------------------------- */

#define HALF_MOST 512
#define TWO_PI    6.283185307179586
static const struct lk_rope_scaling none;

void lk__gguf_rope_factors(const struct lk_model_config *c, float *factors) {
    float plain[HALF_MOST], scaled[HALF_MOST];
    const struct lk_rope_scaling s = {c->rope_factor, c->rope_low, c->rope_high, c->rope_original};
    lk_rope_frequencies(c->head_dim, c->rope_theta, &none, plain);
    lk_rope_frequencies(c->head_dim, c->rope_theta, &s, scaled);
    for (uint32_t i = 0; i < c->head_dim / 2; i++) factors[i] = plain[i] / scaled[i];
}

/* Whether c's scaling gives these factors, but for what float32 rounds on the way to them. */
static bool gives(const struct lk_model_config *c, const float *factors) {
    float mine[HALF_MOST];
    if (lk_model_config_check(c, NULL)) return false;
    lk__gguf_rope_factors(c, mine);
    for (uint32_t i = 0; i < c->head_dim / 2; i++) {
        float apart = mine[i] - factors[i];
        if (!(apart <= 2e-5f * mine[i] && -apart <= 2e-5f * mine[i])) return false;
    }
    return true;
}

/* Whether the factors come from this ratio of high to low, and of original to low. Low is 1, or the least whole number with
 * which original is one. */
static bool try_scaling(const float *factors, double ratio, double original, struct lk_model_config *c) {
    if (!(ratio > 1 && ratio < 1e5 && original > 0 && original < 1e7)) return false;
    for (int low = 1; low <= 64; low++) {
        c->rope_low = low;
        c->rope_high = (double)(int64_t)(ratio * 1000 + 0.5) / 1000 * low;
        c->rope_original = (uint32_t)(original * low + 0.5);
        if (gives(c, factors)) return true;
        c->rope_high = ratio * low;
        if (gives(c, factors)) return true;
    }
    return false;
}

/* Between the frequencies that stay and those that are divided by the whole factor, 1/f is a line over the frequency, which
 * says both ratios. Where it has one point only, or none, several are tried. */
static bool fit(const float *factors, struct lk_model_config *c) {
    static const double ratios[] = {4, 3, 2, 1.5, 1.25, 1.1, 1.01, 5, 6, 8, 16};
    float plain[HALF_MOST];
    uint32_t half = c->head_dim / 2, first = half, last = half, stay = 0;
    double top = factors[half - 1], share[2] = {0}, turns[2] = {0};
    lk_rope_frequencies(c->head_dim, c->rope_theta, &none, plain);
    for (uint32_t i = 0; i < half; i++) {
        if (factors[i] == 1) stay = i + 1;
        if (factors[i] == 1 || factors[i] > 0.99999 * top) continue;
        if (first == half) first = i;
        last = i;
    }
    for (int k = 0; k < 2 && first < half; k++) {
        uint32_t i = k ? last : first;
        share[k] = (1 / (double)factors[i] - 1 / top) / (1 - 1 / top);
        turns[k] = (double)plain[i] / TWO_PI; /* in a position */
    }
    if (first < last) {
        double slope = (share[0] - share[1]) / (turns[0] - turns[1]), low = slope * turns[0] - share[0];
        return try_scaling(factors, (low + 1) / low, slope / low, c);
    }
    if (stay == half) return false;
    double longest = stay ? TWO_PI / (double)plain[stay - 1] : 0, next = TWO_PI / (double)plain[stay]; /* waves */
    for (size_t i = 0; i < sizeof ratios / sizeof *ratios; i++) {
        double original = first < half ? ((ratios[i] - 1) * share[0] + 1) / turns[0] : (ratios[i] * longest + next) / 2;
        if (try_scaling(factors, ratios[i], original, c)) return true;
    }
    return false;
}

int lk__gguf_rope_find(const float *factors, const char *file, struct lk_model_config *c, struct lk_err *err) {
    uint32_t half = c->head_dim / 2, ones = 0;
    while (ones < half && factors[ones] == 1) ones++;
    if (c->rope_factor > 0 && gives(c, factors)) return LK_OK;
    if (c->rope_factor > 0)
        return lk_fail(err, LK_EINVAL, "%s: tensor " LK__GGUF_ROPE " is not what the keys lockstep.rope_* say", file);
    if (ones == half) return LK_OK;
    struct lk_model_config tried = *c;
    tried.rope_factor = lk__gguf_decimal(factors[half - 1]);
    tried.rope_low = 1;
    tried.rope_high = 4;
    for (tried.rope_original = 8192; tried.rope_original; tried.rope_original /= 2)
        if (gives(&tried, factors)) break;
    if (!tried.rope_original && !fit(factors, &tried))
        return lk_fail(err, LK_EUNSUPPORTED,
                       "%s: tensor " LK__GGUF_ROPE
                       " holds factors that Llama 3.1's scaling does not give; no other scaling "
                       "of rotary positions is computed here",
                       file);
    *c = tried;
    return LK_OK;
}
