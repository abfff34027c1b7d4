/* The patterns that GGUF files name, shared by lists_in.c and lists_out.c. */
#ifndef LOCKSTEP_DATA_TOKENIZER_LISTS_H
#define LOCKSTEP_DATA_TOKENIZER_LISTS_H
#include "data/tokenizer/internal.h"

/* tokenizer.ggml.pre by our pattern; the first name of a pattern is the one that is written. whole: llama.cpp takes a word
 * that is a token as that token, whatever merges make of it. */
static const struct {
    const char *name;
    enum lk__tokenizer_pattern pattern;
    bool whole;
} lk__tokenizer_list_patterns[] = {{"gpt-2", LK__GPT2, false},
                                   {"phi-2", LK__GPT2, false},
                                   {"llama-bpe", LK__LLAMA3, true},
                                   {"llama-v3", LK__LLAMA3, true},
                                   {"llama3", LK__LLAMA3, true},
                                   {"qwen2", LK__QWEN2, false},
                                   {"deepseek-r1-qwen", LK__QWEN2, false},
                                   {"smollm", LK__SMOLLM, false},
                                   {"starcoder", LK__SMOLLM, false}};
#define LK__LIST_PATTERNS (sizeof lk__tokenizer_list_patterns / sizeof *lk__tokenizer_list_patterns)

#endif
