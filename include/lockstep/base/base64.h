/* Base64 with padding (RFC 4648, section 4). */
#ifndef LOCKSTEP_BASE64_H
#define LOCKSTEP_BASE64_H
#include "lockstep/base/mem.h"
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Appends the bytes as text. LK_ENOMEM. */
int lk_base64_write(struct lk_buf *out, struct lk_bytes);
/* Appends what the text stands for; false: it is none (each value has one text), or memory is out. */
bool lk_base64_read(const char *text, size_t size, struct lk_buf *out);

#ifdef __cplusplus
}
#endif
#endif
