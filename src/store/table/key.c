/* Keys and values of a table's rows: order by bytes is order by row, family, column, newest first. */
#include "store/table/key.h"
#include <string.h>
#include <zstd.h>

#define ZSTD_FROM  64 /* smaller values are not worth a frame's head */
#define ZSTD_LEVEL 3

static int add(struct lk_buf *b, const void *data, size_t size, struct lk_err *err) {
    return lk_buf_append(b, data, size) == 0 ? 0 : lk_fail(err, LK_ENOMEM, "out of memory for a row of a table");
}

int lk__table_set(struct lk_buf *b, struct lk_bytes from, struct lk_err *err) {
    b->size = 0;
    return add(b, from.data, from.size, err);
}

/* --- writing --------------------------------------------------------------------------------------------- */

int lk__table_key_begin(struct lk_buf *b, uint32_t table, enum lk__table_space space, struct lk_err *err) {
    unsigned char head[LK__KEY_PREFIX] = {'T',
                                          (unsigned char)(table >> 24),
                                          (unsigned char)(table >> 16),
                                          (unsigned char)(table >> 8),
                                          (unsigned char)table,
                                          (unsigned char)space};
    b->size = 0;
    return add(b, head, sizeof head, err);
}

int lk__table_key_part(struct lk_buf *b, struct lk_bytes part, struct lk_err *err) {
    const unsigned char *p = part.data, *end = p + part.size;
    int code = 0;
    while (code == 0 && p < end) {
        const unsigned char *zero = memchr(p, 0, (size_t)(end - p));
        size_t n = (size_t)((zero ? zero : end) - p);
        code = add(b, p, n, err);
        if (zero && code == 0) code = add(b, "\0\xff", 2, err);
        p += n + (zero != NULL);
    }
    return code ? code : add(b, "", 1, err);
}

int lk__table_key_family(struct lk_buf *b, const char *name, unsigned char generation, struct lk_err *err) {
    int code = add(b, name, strlen(name), err);
    return code ? code : add(b, &generation, 1, err);
}

static int eight(struct lk_buf *b, uint64_t number, struct lk_err *err) {
    unsigned char bytes[8];
    for (int i = 0; i < 8; i++) bytes[i] = (unsigned char)(number >> (56 - 8 * i));
    return add(b, bytes, 8, err);
}
int lk__table_key_descending(struct lk_buf *b, int64_t number, struct lk_err *err) {
    return eight(b, (uint64_t)(INT64_MAX - number), err);
}
int lk__table_key_ascending(struct lk_buf *b, int64_t number, struct lk_err *err) {
    return eight(b, (uint64_t)number, err);
}

/* What follows a part's end is below 0x80: a family's letter, the first byte of a number. */
int lk__table_key_past_part(struct lk_buf *b, struct lk_err *err) {
    return add(b, "\x80", 1, err);
}

/* --- reading --------------------------------------------------------------------------------------------- */

int64_t lk__table_read_ascending(const unsigned char *p) {
    uint64_t number = 0;
    for (int i = 0; i < 8; i++) number = number << 8 | p[i];
    return (int64_t)(number & INT64_MAX);
}
int64_t lk__table_read_descending(const unsigned char *p) {
    return INT64_MAX - lk__table_read_ascending(p);
}

size_t lk__table_part_size(const unsigned char *data, size_t size) {
    for (size_t i = 0; i < size;) {
        const unsigned char *zero = memchr(data + i, 0, size - i);
        if (!zero) return 0;
        i = (size_t)(zero - data) + 1;
        if (i == size || data[i] != 0xff) return i;
        i++;
    }
    return 0;
}

int lk__table_part_read(struct lk_bytes part, struct lk_buf *scratch, struct lk_bytes *out, struct lk_err *err) {
    const unsigned char *p = part.data, *end = p + part.size - 1; /* without its end */
    *out = lk_bytes(p, part.size - 1);
    const unsigned char *zero = memchr(p, 0, part.size - 1);
    if (!zero) return 0;
    scratch->size = 0;
    int code = 0;
    while (zero && code == 0) {
        if (zero[1] != 0xff) return lk_fail(err, LK_ECORRUPT, "a part of a table's key in the store is damaged");
        code = add(scratch, p, (size_t)(zero + 1 - p), err);
        p = zero + 2;
        zero = p < end ? memchr(p, 0, (size_t)(end - p)) : NULL;
    }
    if (code == 0 && p < end) code = add(scratch, p, (size_t)(end - p), err);
    *out = lk_bytes(scratch->data, scratch->size);
    return code;
}

int lk__table_cell_key_read(struct lk_bytes key, struct lk__table_cell_key *out, struct lk_err *err) {
    const unsigned char *p = key.data;
    size_t least = LK__KEY_PREFIX + 2 + 2 + 1 + 8; /* a row and a family of one letter, a qualifier of none, a time */
    if (key.size >= least) {
        out->row = LK__KEY_PREFIX + lk__table_part_size(p + LK__KEY_PREFIX, key.size - LK__KEY_PREFIX - 8);
        size_t i = out->row;
        while (i < key.size - 9 && p[i] > 31 && p[i] < 127) i++;
        out->family = i + 1;
        out->column = key.size - 8;
        if (out->row > LK__KEY_PREFIX + 1 && out->family > out->row + 1 && p[i] <= 31 && out->family < out->column &&
            p[out->column - 1] == 0 && p[out->column] < 0x80)
            return 0;
    }
    return lk_fail(err, LK_ECORRUPT, "a table's row in the store is no cell (a key of %zu bytes)", key.size);
}

/* --- values ---------------------------------------------------------------------------------------------- */

static int value_head(struct lk_buf *out, unsigned char flags, int64_t since_ms, struct lk_err *err) {
    unsigned char head[LK__VALUE_HEAD] = {flags};
    for (int i = 0; i < 6; i++) head[1 + i] = (unsigned char)((uint64_t)since_ms >> 8 * i);
    out->size = 0;
    return add(out, head, sizeof head, err);
}

int lk__table_value_write(struct lk_buf *out, int64_t since_ms, bool zstd, struct lk_bytes value, struct lk_err *err) {
    int code = value_head(out, 0, since_ms, err);
    if (code == 0 && zstd && value.size >= ZSTD_FROM) {
        size_t room = ZSTD_compressBound(value.size);
        if (lk_buf_reserve(out, room) != 0) return lk_fail(err, LK_ENOMEM, "out of memory compressing a value");
        size_t n = ZSTD_compress(out->data + LK__VALUE_HEAD, room, value.data, value.size, ZSTD_LEVEL);
        if (!ZSTD_isError(n) && n < value.size) {
            out->data[0] = LK__VALUE_ZSTD;
            out->size += n;
            return 0;
        }
    }
    return code ? code : add(out, value.data, value.size, err);
}

static int no_value(struct lk_bytes stored, struct lk_err *err) {
    return lk_fail(err, LK_ECORRUPT, "a table's value in the store is damaged (%zu bytes)", stored.size);
}

int lk__table_value_since(struct lk_bytes stored, int64_t *out_ms, struct lk_err *err) {
    const unsigned char *p = stored.data;
    if (stored.size < LK__VALUE_HEAD || p[0] > LK__VALUE_ZSTD) return no_value(stored, err);
    uint64_t since = 0;
    for (int i = 0; i < 6; i++) since |= (uint64_t)p[1 + i] << 8 * i;
    *out_ms = (int64_t)since;
    return 0;
}

int lk__table_value_read(struct lk_bytes stored, struct lk_buf *scratch, struct lk_bytes *out, struct lk_err *err) {
    const unsigned char *p = stored.data;
    if (stored.size < LK__VALUE_HEAD || p[0] > LK__VALUE_ZSTD) return no_value(stored, err);
    *out = lk_bytes(p + LK__VALUE_HEAD, stored.size - LK__VALUE_HEAD);
    if (p[0] != LK__VALUE_ZSTD) return 0;
    unsigned long long size = ZSTD_getFrameContentSize(out->data, out->size);
    if (size > LK_TABLE_VALUE_MAX) return no_value(stored, err);
    scratch->size = 0;
    if (lk_buf_reserve(scratch, (size_t)size + 1) != 0)
        return lk_fail(err, LK_ENOMEM, "out of memory for a value of %llu bytes", size);
    size_t n = ZSTD_decompress(scratch->data, (size_t)size, out->data, out->size);
    if (ZSTD_isError(n) || n != size) return no_value(stored, err);
    scratch->size = n;
    *out = lk_bytes(scratch->data, n);
    return 0;
}

/* --- samples --------------------------------------------------------------------------------------------- */

bool lk__table_row_is_sample(struct lk_bytes row) {
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a, then the end of MurmurHash3, as FNV's low bits alone mix too little */
    for (size_t i = 0; i < row.size; i++) h = (h ^ ((const unsigned char *)row.data)[i]) * 0x100000001b3u;
    h = (h ^ h >> 33) * 0xff51afd7ed558ccdu;
    h = (h ^ h >> 33) * 0xc4ceb9fe1a85ec53u;
    return ((h ^ h >> 33) & 1023) == 0;
}
