/* Packed bytes in, text out: gzip, zstd, xz and bzip2 behind one call. Memory is bounded by what a file's header asks for.
 */
#ifndef LOCKSTEP_DATA_UNPACK_H
#define LOCKSTEP_DATA_UNPACK_H
#include "lockstep/base/err.h"
#include <bzlib.h>
#include <lzma.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <zlib.h>
#include <zstd.h>

enum lk__data_packing { LK__UNPACKED, LK__GZIP, LK__ZSTD, LK__XZ, LK__BZIP2, LK__PACKINGS };
struct lk__data_packing_names {
    const char *name, *ending; /* "gzip", ".gz" */
};
extern const struct lk__data_packing_names lk__data_packing_names[LK__PACKINGS];
/* By the first bytes of a file. */
enum lk__data_packing lk__data_packing_of(const void *head, size_t size);

struct lk__data_unpacker {
    enum lk__data_packing packing;
    const char *name; /* of the file, for messages */
    uint64_t in, out; /* bytes before `data` of the present pull; bytes of text so far */
    bool between;     /* at the end of a member, frame or stream */
    bool full;        /* the library may have output left, without more input */
    bool ready;       /* gzip, xz or bzip2 is initialised */
    z_stream gzip;
    lzma_stream xz;
    bz_stream bzip2;
    ZSTD_DStream *zstd;
};
int lk__data_unpacker_init(struct lk__data_unpacker *, enum lk__data_packing, const char *name, struct lk_err *);
void lk__data_unpacker_release(struct lk__data_unpacker *);
/* One call of the library: reads data[*pos .. size), writes up to `room` bytes. Damage and rubbish behind the end:
 * LK_EINVAL that names file and byte. A window or dictionary for which there is no memory: LK_ENOMEM that says how much it
 * wants. */
int lk__data_unpacker_pull(struct lk__data_unpacker *, const uint8_t *data, size_t size, size_t *pos, uint8_t *out,
                           size_t room, size_t *made, struct lk_err *);
/* No more input: LK_EINVAL if the packed data ends too early. */
int lk__data_unpacker_finish(const struct lk__data_unpacker *, struct lk_err *);

#endif
