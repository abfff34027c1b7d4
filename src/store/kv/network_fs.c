/* A memory-mapped database needs one kernel's page cache and locks. On a file system shared over a network two machines
 * each have their own, and the database is lost without a word. */
#include "store/kv/kv_engine.h"

static const struct {
    unsigned long type;
    const char *name;
    bool refuse;
} table[] = {
    {0x00006969, "NFS", true},   {0x0000517B, "SMB", true},  {0xFE534D42, "SMB 2", true},
    {0xFF534D42, "CIFS", true},  {0x0000564C, "NCP", true},  {0x5346414F, "AFS", true},
    {0x6B414653, "AFS", true},   {0x73757245, "Coda", true}, {0x0BD00BD0, "Lustre", true},
    {0x47504653, "GPFS", true},  {0x00C36400, "Ceph", true}, {0x19830326, "BeeGFS", true},
    {0x7461636F, "OCFS2", true}, {0x01161970, "GFS2", true}, {0x01021997, "9p", false},
    {0x65735546, "FUSE", false}, /* sshfs, but also local disks of virtual machines */
};

const char *lk__kv_network_fs(long type, bool *refuse) {
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        /* f_type is signed on some machines; all magic numbers have 32 bits. */
        if (table[i].type != ((unsigned long)type & 0xFFFFFFFFul)) continue;
        *refuse = table[i].refuse;
        return table[i].name;
    }
    *refuse = false;
    return NULL;
}
