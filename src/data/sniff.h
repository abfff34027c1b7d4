/* What a file is, by the begin of its content. */
#ifndef LOCKSTEP_DATA_SNIFF_H
#define LOCKSTEP_DATA_SNIFF_H
#include <stddef.h>
#include <stdint.h>

#define LK__HEAD_BYTES ((size_t)64 << 10) /* of the text that are looked at */

/* If these first bytes are no text: what they are ("a Parquet file"), and in *todo what to do about it. NULL: a text. */
const char *lk__data_sniff(const uint8_t *head, size_t size, const char **todo);

#endif
