/* "Did you mean": the candidate with the least edit distance. */
#include "lockstep/base/ini.h"
#include <string.h>

#define WORD_MAX 128

/* Optimal string alignment: insert, delete, replace, and swap of neighbours, each once per place. Three rows suffice. */
static int distance(const char *a, size_t a_size, const char *b, size_t b_size) {
    int rows[3][WORD_MAX + 1];
    int *before = rows[0], *last = rows[1], *now = rows[2];
    for (size_t j = 0; j <= b_size; j++) last[j] = before[j] = (int)j;
    for (size_t i = 1; i <= a_size; i++) {
        now[0] = (int)i;
        for (size_t j = 1; j <= b_size; j++) {
            int best = last[j - 1] + (a[i - 1] != b[j - 1]);
            if (last[j] + 1 < best) best = last[j] + 1;
            if (now[j - 1] + 1 < best) best = now[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            now[j] = best;
        }
        int *row = before;
        before = last, last = now, now = row;
    }
    return last[b_size];
}

const char *lk_nearest(const char *word, const char *const *candidates, size_t count) {
    const char *best = NULL;
    size_t size = strlen(word);
    int least = 0;
    for (size_t i = 0; size <= WORD_MAX && i < count; i++) {
        size_t other = strlen(candidates[i]);
        if (other > WORD_MAX) continue;
        int d = distance(word, size, candidates[i], other);
        /* Near enough: a third of the longer word, and never all of the shorter one. */
        size_t longer = size > other ? size : other, shorter = size > other ? other : size;
        if ((size_t)d > (longer + 2) / 3 || (size_t)d >= shorter) continue;
        if (!best || d < least) best = candidates[i], least = d;
    }
    return best;
}
