/* A small, strict reader of the XML that S3 servers answer with: elements, text, the five entities and numbered ones, one
 * declaration in front, comments. Attributes are read over (S3 has xmlns only). No DOCTYPE, no processing instructions, no
 * CDATA: none of them is S3's, and they are where XML is dangerous. */
#ifndef LK_BLOB_S3_XML_H
#define LK_BLOB_S3_XML_H
#include "lockstep/base/err.h"
#include <stddef.h>

/* Called at the end of each element, children before parents. path: names from the outermost on, "List/Contents/Key",
 * without the prefixes of name spaces. text: what stands directly in it, decoded; size bytes and a zero byte, of which it
 * may hold more. Non-zero ends the reading and is returned. */
typedef int lk__blob_xml_fn(void *arg, const char *path, const char *text, size_t size);

/* LK_ECORRUPT: no such XML; more than 8 levels, 16 KiB of text in an element or 128 bytes of a name. LK_ENOMEM. what: whose
 * answer it is, for the message, which quotes nothing of it. */
int lk__blob_xml_read(const char *xml, size_t size, const char *what, lk__blob_xml_fn *fn, void *arg, struct lk_err *);

#endif
