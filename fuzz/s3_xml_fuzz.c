/* clang -fsanitize=fuzzer,address: whatever a server sends for XML is read or refused with a line that quotes nothing of
 * it; paths and texts end in a zero byte where they say. Times and names of lists are read or refused. */
#include "store/blob/s3.h"
#include "store/blob/s3_xml.h"
#include <stdlib.h>
#include <string.h>

static int note(void *arg, const char *path, const char *text, size_t size) {
    struct lk_root root;
    unsigned *depth_most = arg;
    unsigned depth = 1;
    for (const char *p = path; *p; p++) depth += *p == '/';
    if (depth > *depth_most || text[size] || !*path) abort();
    if (lk__blob_s3_time(text) < -1) abort();
    if (lk__blob_s3_parse_name(text, size, &root)) {
        char name[LK__BLOB_S3_NAME_BYTES];
        if (memcmp(lk__blob_s3_name(&root, name), text, size) != 0) abort();
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct lk_err err = {0};
    unsigned depth_most = 8;
    char *copy = malloc(size + 1); /* so that a byte too far is seen */
    if (!copy) abort();
    char *exact = realloc(copy, size ? size : 1);
    memcpy(exact, data, size);
    int code = lk__blob_xml_read(exact, size, "an answer", note, &depth_most, &err);
    if (code && (code != LK_ECORRUPT || strncmp(err.message, "an answer is not", 16) != 0)) abort();
    free(exact);
    return 0;
}
