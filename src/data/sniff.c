#include "data/sniff.h"
#include <stdbool.h>
#include <string.h>

#define UNZIP "unpack it and name its files or its folder"

/* Magic bytes at a place. A text may begin with letters alone too ("GGUF is a format"): with `zero` they count only where a
 * zero byte stands in the head, as one does in every such file. */
static const struct {
    size_t at, size;
    const char *magic, *what, *todo;
    bool zero;
} kinds[] = {
    {0, 4, "PAR1", "a Parquet file",
     "write its texts as .jsonl, for example with pandas: read_parquet(F).to_json(G, orient='records', lines=True)", true},
    {0, 6, "ARROW1", "an Arrow file",
     "write its texts as .jsonl, for example with datasets: Dataset.from_file(F).to_json(G)", true},
    {0, 4, "\xFF\xFF\xFF\xFF", "an Arrow stream",
     "write its texts as .jsonl, for example with datasets: Dataset.from_file(F).to_json(G)"},
    {0, 4, "PK\3\4", "a zip archive (or .docx, .npz, .pt, which are zip archives)", UNZIP},
    {0, 4, "PK\5\6", "an empty zip archive", UNZIP},
    {257, 5, "ustar", "a tar archive", UNZIP, true},
    {0, 6, "7z\xBC\xAF\x27\x1C", "a 7z archive", UNZIP},
    {0, 6, "Rar!\x1A\7", "a RAR archive", UNZIP},
    {0, 5, "%PDF-", "a PDF document", "take its text out first: pdftotext FILE.pdf FILE.txt"},
    {0, 4,
     "\x7F"
     "ELF",
     "a program (ELF)", "name texts"},
    {0, 3, "MZ\x90", "a Windows program", "name texts"},
    {0, 4, "GGUF", "a GGUF model", "name texts", true},
    {0, 6, "\x93NUMPY", "a numpy array", "name texts"},
    {0, 15, "SQLite format 3", "an SQLite database", "write its texts as .jsonl", true},
    {0, 8, "\x89HDF\r\n\x1A\n", "an HDF5 file", "write its texts as .jsonl"},
    {0, 8, "\x89PNG\r\n\x1A\n", "a PNG picture", "name texts"},
    {0, 3, "\xFF\xD8\xFF", "a JPEG picture", "name texts"},
    {0, 4, "GIF8", "a GIF picture", "name texts", true},
    {0, 4, "\xFE\xFF\0\0", "UTF-32 text", "convert it: iconv -f UTF-32 -t UTF-8 FILE >NEW"},
    {0, 4, "\xFF\xFE\0\0", "UTF-32 text", "convert it: iconv -f UTF-32 -t UTF-8 FILE >NEW"},
    {0, 2, "\xFF\xFE", "UTF-16 text", "convert it: iconv -f UTF-16 -t UTF-8 FILE >NEW"},
    {0, 2, "\xFE\xFF", "UTF-16 text", "convert it: iconv -f UTF-16 -t UTF-8 FILE >NEW"},
    {0, 42, "version https://git-lfs.github.com/spec/v1", "a Git LFS pointer, not the file that it stands for",
     "fetch that: git lfs pull"},
};

/* A pickle of protocol 2 to 5: its first opcode, and one of those that follow in practice. */
static int is_pickle(const uint8_t *p, size_t size) {
    return size > 3 && p[0] == 0x80 && p[1] >= 2 && p[1] <= 5 && (p[1] >= 4 ? p[2] == 0x95 : strchr("}](c", p[2]) && p[2]);
}

/* The length of the header, then JSON. */
static int is_safetensors(const uint8_t *p, size_t size) {
    return size > 10 && !p[5] && !p[6] && !p[7] && p[8] == '{' && (p[9] == '"' || p[9] == '}');
}

/* Every other byte of a text of ASCII in UTF-16 is zero. */
static int is_wide(const uint8_t *p, size_t size) {
    size_t zeros[2] = {0, 0}, half = size / 2;
    for (size_t i = 0; i < 2 * half; i++) zeros[i & 1] += p[i] == 0;
    return half >= 8 && (zeros[0] * 4 > half * 3) != (zeros[1] * 4 > half * 3);
}

const char *lk__data_sniff(const uint8_t *head, size_t size, const char **todo) {
    const bool zero = memchr(head, 0, size) != NULL;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (kinds[i].zero && !zero) continue;
        if (size < kinds[i].at + kinds[i].size || memcmp(head + kinds[i].at, kinds[i].magic, kinds[i].size)) continue;
        *todo = kinds[i].todo;
        return kinds[i].what;
    }
    *todo = "name texts";
    if (is_pickle(head, size)) return *todo = "write its texts as .jsonl", "a Python pickle";
    if (is_safetensors(head, size)) return "a safetensors model";
    if (!zero) return NULL;
    if (is_wide(head, size)) return *todo = "convert it: iconv -f UTF-16LE -t UTF-8 FILE >NEW", "UTF-16 text";
    return "binary data (it has zero bytes)";
}
