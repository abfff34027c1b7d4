/* Keys and values of a table's rows in the kv; docs/formats.md has the bytes. */
#ifndef LK_TABLE_KEY_H
#define LK_TABLE_KEY_H
#include "lockstep/store/table.h"

/* 'T', the table's number (4 bytes, the most significant first), and what lies there: */
enum lk__table_space {
    LK__CELLS = 'c',      /* as they are now */
    LK__CELLS_PAST = 'h', /* as pins see them, that were removed since */
    LK__SAMPLES = 's',    /* rows whose key's hash ends in ten zero bits */
    LK__SAMPLES_PAST = 'S',
    LK__LOG = 'l',  /* which rows were written since which pin */
    LK__NOTES = 'n' /* of programs; no part of what reads, pins and digests see */
};
#define LK__KEY_PREFIX 6

static inline struct lk_bytes lk__table_bytes(const struct lk_buf *b) {
    return lk_bytes(b->data, b->size);
}
/* The buffer's contents become a copy of these. LK_ENOMEM. */
int lk__table_set(struct lk_buf *, struct lk_bytes, struct lk_err *);
/* The row, with its end, of a key that ends there. */
static inline struct lk_bytes lk__table_row_part(const struct lk_buf *key) {
    return lk_bytes(key->data + LK__KEY_PREFIX, key->size - LK__KEY_PREFIX);
}

/* A key is built in a buffer from left to right. All return 0 or LK_ENOMEM, with the message. */
int lk__table_key_begin(struct lk_buf *, uint32_t table, enum lk__table_space, struct lk_err *);
/* Ends a part that any bytes may be in: a zero byte, and inside the part 0x00 0xFF for each. */
int lk__table_key_part(struct lk_buf *, struct lk_bytes part, struct lk_err *);
/* A name ends with its generation, a byte of 1 to 31. */
int lk__table_key_family(struct lk_buf *, const char *name, unsigned char generation, struct lk_err *);
/* 8 bytes, so that larger numbers come first (newest), or last. 0 <= number. */
int lk__table_key_descending(struct lk_buf *, int64_t number, struct lk_err *);
int lk__table_key_ascending(struct lk_buf *, int64_t number, struct lk_err *);
/* Behind all keys that begin with this part and its end, before those of the next. */
int lk__table_key_past_part(struct lk_buf *, struct lk_err *);

int64_t lk__table_read_descending(const unsigned char *eight);
int64_t lk__table_read_ascending(const unsigned char *eight);

/* The size of the part that begins at data, with its end; 0: it has none. */
size_t lk__table_part_size(const unsigned char *data, size_t size);
/* Its bytes: in the key where nothing was put in, else in scratch. LK_ENOMEM, LK_ECORRUPT. */
int lk__table_part_read(struct lk_bytes part_with_end, struct lk_buf *scratch, struct lk_bytes *out, struct lk_err *);

/* Where the parts of a cell's key end (each with its end): row, family, column; the timestamp's 8 bytes follow. */
struct lk__table_cell_key {
    size_t row, family, column;
};
/* The key of a cell (without what LK__CELLS_PAST has behind it). LK_ECORRUPT. */
int lk__table_cell_key_read(struct lk_bytes key, struct lk__table_cell_key *out, struct lk_err *);

/* A value in the kv: flags, the time of the pin that it was written behind, bytes. */
#define LK__VALUE_HEAD 7
#define LK__VALUE_ZSTD 1
#define LK__TIME_MAX   (((int64_t)1 << 48) - 1) /* ms: what the head has room for, and 1,000 times that is no overflow */
int lk__table_value_write(struct lk_buf *out, int64_t since_ms, bool zstd, struct lk_bytes value, struct lk_err *);
/* LK_ECORRUPT. Compressed bytes are in scratch then. */
int lk__table_value_since(struct lk_bytes stored, int64_t *out_ms, struct lk_err *);
int lk__table_value_read(struct lk_bytes stored, struct lk_buf *scratch, struct lk_bytes *out, struct lk_err *);

/* One row of 1,024. */
bool lk__table_row_is_sample(struct lk_bytes row);

#endif
