/* The log of the recorder of I/O (recorder.c): what happened to the files below a folder, in one order for all threads and
 * processes. src/store/power.h reads it. Tests only. */
#ifndef LK_TESTS_POWER_LOG_H
#define LK_TESTS_POWER_LOG_H
#include <pthread.h>
#include <stdint.h>

/* Files and folders are inodes: a number of the system's may be used again after its last name is gone, and then a
 * POWER_MAKE or POWER_MKDIR begins another file. Names: text behind the event, each ended by a zero. */
enum power_kind {
    POWER_MAKE = 1,   /* inode: a new file, as name in folder */
    POWER_MKDIR,      /* the same for a folder */
    POWER_WRITE,      /* bytes at offset */
    POWER_SIZE,       /* the file's size is offset now */
    POWER_SYNC_BEGIN, /* of inode; what came before it is durable at the end that names it */
    POWER_SYNC_END,   /* offset: the place of that begin in the log */
    POWER_WRITTEN,    /* offset: the place of a POWER_WRITE whose bytes are durable now (O_DSYNC) */
    POWER_NAME,       /* inode has the name in folder now, also if another file had it (rename, link) */
    POWER_UNNAME,     /* folder has no such name any more */
    POWER_MARK,       /* bytes: what the program says about itself */
    POWER_BAD         /* text: something that the log cannot tell, such as a writable shared map */
};
struct power_event {
    uint32_t kind, size; /* size: of the bytes behind it, which are padded to 8 */
    uint64_t inode, folder, offset;
};
/* The log is a map of a sparse file that all processes share. */
#define POWER_LOG_BYTES ((uint64_t)1 << 30)
struct power_log {
    uint64_t used; /* bytes behind this head */
    uint64_t fdatasyncs, fsyncs, folder_syncs;
    uint64_t swallowed; /* syncs that were left out, as POWER_SWALLOW wants */
    uint64_t ready;
    pthread_mutex_t mutex;
    _Alignas(64) unsigned char events[];
};
/* The environment that the recorder reads:
 *   POWER_LOG      the log's file
 *   POWER_ROOT     the folder; its real path
 *   POWER_SWALLOW  fdatasync:N, fsync:N, folder:N: the N-th such sync does nothing and is not told; N+: nor are those after
 *                  it; dsync:1+: O_DSYNC and O_SYNC are ignored
 * A program finds these with dlsym: */
typedef void power_mark_fn(const void *data, uint32_t size); /* power_mark: tells a POWER_MARK */
/* power_forget_folders: syncs of folders by this process do nothing from now on, as if it had been killed before them. */
typedef void power_forget_folders_fn(void);

#endif
