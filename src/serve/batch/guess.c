/* Tokens guessed from the text so far: what followed the newest place at which the last tokens stood before ("prompt lookup
 * decoding", Saxena 2023). A wrong guess costs time and no bit. */
#include "inside.h"

#include <string.h>

#define LONGEST  4 /* of the last tokens, that are looked for */
#define SHORTEST 2
#define LOOK     8192 /* so far back */

uint32_t lk__batch_guess(const uint32_t *tokens, uint32_t count, uint32_t *out, uint32_t most) {
    for (uint32_t n = LONGEST; n >= SHORTEST && most; n--) {
        if (count < n + 1) continue;
        const uint32_t *last = tokens + count - n;
        uint32_t least = count > LOOK ? count - LOOK : n;
        for (uint32_t end = count - 1; end >= least && end >= n; end--) {
            if (tokens[end - 1] != last[n - 1] || memcmp(tokens + end - n, last, n * sizeof *last)) continue;
            uint32_t found = count - end < most ? count - end : most;
            memcpy(out, tokens + end, found * sizeof *out);
            return found;
        }
    }
    return 0;
}
