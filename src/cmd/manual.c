/* Manual pages (the man macros of roff) from the commands' tables. */
#include "help.h"

#include "lockstep/base/file.h"
#include <string.h>

/* --- roff ------------------------------------------------------------------------------------------------ */

/* Text as it is, to the eye and to copy and paste: what roff would take for its own, or make prettier, is escaped. */
static int put_text(struct lk_buf *out, const char *text, size_t size) {
    int code = 0;
    for (size_t i = 0; i < size && !code; i++) {
        const char c = text[i];
        const char *escaped = c == '\\'   ? "\\(rs"
                              : c == '-'  ? "\\-"
                              : c == '`'  ? "\\(ga"
                              : c == '\'' ? "\\(aq"
                              : c == '^'  ? "\\(ha"
                              : c == '~'  ? "\\(ti"
                              : c == '"'  ? "\\(dq"
                                          : NULL;
        bool command = c == '.' && (i == 0 || text[i - 1] == '\n'); /* at the begin of a line */
        if (command) code = lk_buf_append(out, "\\&", 2);
        if (!code) code = escaped ? lk_buf_append(out, escaped, strlen(escaped)) : lk_buf_append(out, &c, 1);
    }
    return code;
}
static int put_line(struct lk_buf *out, const char *text) {
    return put_text(out, text, strlen(text)) || lk_buf_append(out, "\n", 1);
}

/* Paragraphs are filled; one with indented lines keeps its lines. */
static int put_paragraphs(struct lk_buf *out, const char *text) {
    int code = 0;
    for (bool first = true; *text && !code; first = false) {
        const char *end = strstr(text, "\n\n");
        size_t size = end ? (size_t)(end - text) : strlen(text);
        bool lines = *text == ' ';
        for (size_t i = 0; i + 1 < size; i++) lines = lines || (text[i] == '\n' && text[i + 1] == ' ');
        if (!first) code = lk_buf_printf(out, ".PP\n");
        if (lines && !code) code = lk_buf_printf(out, ".nf\n");
        if (!code) code = put_text(out, text, size) || lk_buf_append(out, "\n", 1);
        if (lines && !code) code = lk_buf_printf(out, ".fi\n");
        text += size;
        while (*text == '\n') text++;
    }
    return code;
}

static int put_options(struct lk_buf *out, const struct cmd_option *options) {
    int code = 0;
    char help[256];
    for (const struct cmd_option *o = options; o && o->name && !code; o++) {
        code = lk_buf_printf(out, ".TP\n\\fB") || put_text(out, o->name, strlen(o->name)) || lk_buf_printf(out, "\\fR");
        if (o->value && !code)
            code = lk_buf_printf(out, " \\fI") || put_text(out, o->value, strlen(o->value)) || lk_buf_printf(out, "\\fR");
        if (!code) code = lk_buf_append(out, "\n", 1) || put_line(out, cmd_option_help(o, help));
    }
    return code;
}

/* "tokenizer train": "tokenizer-train" */
static void page_of(const char *command, char out[96]) {
    snprintf(out, 96, "%s", command);
    for (char *p = out; *p; p++)
        if (*p == ' ') *p = '-';
}
static int put_reference(struct lk_buf *out, const char *command, const char *behind) {
    char page[96];
    page_of(command, page);
    return lk_buf_printf(out, ".BR lockstep%s", *page ? "\\-" : "") || put_text(out, page, strlen(page)) ||
           lk_buf_printf(out, " (1)%s\n", behind);
}
static int put_head(struct lk_buf *out, const char *command, const char *summary) {
    char page[96];
    page_of(command, page);
    int code = lk_buf_printf(out,
                             ".\\\" Made by `lockstep help --man` from the table that makes -h.\n"
                             ".TH \"lockstep%s%s\" 1 %s \"Lockstep %s\" \"Lockstep\"\n.nh\n.ad l\n.SH NAME\nlockstep%s",
                             *page ? "-" : "", page, LK_RELEASED, lk_version(), *page ? "\\-" : "");
    return code || put_text(out, page, strlen(page)) || lk_buf_printf(out, " \\- ") || put_line(out, summary);
}
static const char exit_status[] =
    ".SH EXIT STATUS\n.TP\n0\nok\n.TP\n1\nfailed: what, where and what to do stand on standard "
    "error\n.TP\n2\nwrong usage\n";

/* --- pages ----------------------------------------------------------------------------------------------- */

static int command_page(const struct cmd *cmd, struct lk_buf *out) {
    char summary[512];
    snprintf(summary, sizeof summary, "%.*s", (int)strcspn(cmd->summary, "\n"), cmd->summary);
    size_t n = strlen(summary);
    if (n && summary[n - 1] == '.') summary[n - 1] = 0;
    int code =
        put_head(out, cmd->name, summary) || lk_buf_printf(out, ".SH SYNOPSIS\n.B lockstep ") || put_line(out, cmd->name);
    if (*cmd->arguments && !code) code = lk_buf_printf(out, ".I ") || put_line(out, cmd->arguments);
    if (!code) code = lk_buf_printf(out, "[options]\n.SH DESCRIPTION\n") || put_paragraphs(out, cmd->summary);
    if (cmd->details && !code) code = lk_buf_printf(out, ".PP\n") || put_paragraphs(out, cmd->details);
    if (!code) code = lk_buf_printf(out, ".SH OPTIONS\n") || put_options(out, cmd->options);
    if (!code) code = put_options(out, cmd_common_options) || lk_buf_printf(out, "%s.SH SEE ALSO\n", exit_status);
    return code || put_reference(out, "", "");
}

static const struct cmd_option environment[] = {
    {.name = "LOCKSTEP_STORE", .help = "the store, where --store is not given"},
    {.name = "LOCKSTEP_BLOBS", .help = "where the store keeps what is large, where --blobs is not given"},
    {.name = "LOCKSTEP_CACHE",
     .help =
         "the folder in which blobs of s3:// are kept to be read; lockstep/blobs in XDG_CACHE_HOME or ~/.cache by default"},
    {.name = "LOCKSTEP_CACHE_LIMIT", .help = "how large it may become, as 500M; 32G by default"},
    {.name = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_PROFILE, AWS_SHARED_CREDENTIALS_FILE",
     .help = "the keys for s3://, or the file that holds them; ~/.aws/credentials by default"},
    {.name = "AWS_REGION, AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, AWS_CA_BUNDLE",
     .help = "the server of s3://, and whose certificates are trusted"},
    {.name = "LOCKSTEP_S3_STYLE",
     .help = "path or virtual: where a request names the bucket; path where there is an endpoint"},
    {.name = "LOCKSTEP_S3_PATIENCE", .help = "for how many seconds a request of s3:// is tried again; 60 by default"},
    {.name = "LOCKSTEP_S3_ETAG", .help = "any: the server's ETags are no MD5, and are not compared"},
    {.name = "LOCKSTEP_ISA",
     .help = "ref, blocked, avx2, avx512 or neon: the kernels to compute with; the bits are the same"},
    {.name = "LOCKSTEP_CACHES",
     .help = "size and ways of L1 and L2, as 32K/8,512K/8, to choose blocks by; the bits are the same"},
    {.name = "LOCKSTEP_MEMORY_BYTES", .help = "plan with no more memory than this"},
    {.name = "LOCKSTEP_SHARED_MEMORY", .help = "no: ranks of one machine exchange messages"},
    {.name = "LOCKSTEP_MPI", .help = "the file lockstep-mpi.so, where it does not lie beside the program or the library"},
    CMD_END,
};

static int main_page(struct lk_buf *out) {
    int code = put_head(out, "", "trains language models and generates text, the same bits everywhere") ||
               lk_buf_printf(
                   out, ".SH SYNOPSIS\n.B lockstep\n.I COMMAND\n[options] [arguments]\n.SH DESCRIPTION\n"
                        "Learns tokenizers, builds datasets, trains, verifies and runs language models on CPUs. The same "
                        "configuration, data and seed give the same model to the bit, for any number of threads and "
                        "ranks, any instruction set, killed and resumed as often as you like.\n"
                        ".PP\n\\fBlockstep\\fR \\fICOMMAND\\fR \\fB\\-h\\fR explains a command.\n.SH COMMANDS\n");
    for (const struct cmd *const *c = cmd_table; *c && !code; c++) {
        code =
            lk_buf_printf(out, ".TP\n\\fB") || put_text(out, (*c)->name, strlen((*c)->name)) || lk_buf_printf(out, "\\fR");
        if (*(*c)->arguments && !code)
            code = lk_buf_printf(out, " \\fI") || put_text(out, (*c)->arguments, strlen((*c)->arguments)) ||
                   lk_buf_printf(out, "\\fR");
        if (!code)
            code = lk_buf_append(out, "\n", 1) || put_text(out, (*c)->summary, strcspn((*c)->summary, "\n")) ||
                   lk_buf_append(out, "\n", 1);
    }
    if (!code)
        code = lk_buf_printf(out, ".SH OPTIONS\nEvery command takes these.\n") || put_options(out, cmd_common_options);
    if (!code) code = lk_buf_printf(out, "%s.SH ENVIRONMENT\n", exit_status) || put_options(out, environment);
    if (!code)
        code =
            lk_buf_printf(out, ".SH FILES\n.TP\n\\fI./lockstep.d\\fR\nthe store, unless another is named\n.SH SEE ALSO\n");
    for (const struct cmd *const *c = cmd_table; *c && !code; c++) code = put_reference(out, (*c)->name, c[1] ? "," : "");
    return code;
}

static int write_page(const char *folder, const char *command, const struct lk_buf *page, struct lk_err *err) {
    char name[96];
    page_of(command, name);
    char *path = lk_asprintf("%s/lockstep%s%s.1", folder, *name ? "-" : "", name);
    if (!path) return lk_fail(err, LK_ENOMEM, "no memory");
    int code = lk_file_write_atomic(path, page->data, page->size, err);
    lk_free(path);
    return code;
}

int cmd_write_manual(const char *folder) {
    struct lk_err err = {0};
    struct lk_buf page = LK_BUF_INIT;
    int pages = 0, code = lk_dir_make(folder, &err);
    if (!code) code = main_page(&page) ? lk_fail(&err, LK_ENOMEM, "no memory") : write_page(folder, "", &page, &err);
    for (const struct cmd *const *c = cmd_table; *c && !code; c++, pages++) {
        page.size = 0;
        code =
            command_page(*c, &page) ? lk_fail(&err, LK_ENOMEM, "no memory") : write_page(folder, (*c)->name, &page, &err);
    }
    lk_buf_release(&page);
    if (code) return cmd_fail(&err);
    printf("%d pages in %s\n", pages + 1, folder);
    return CMD_OK;
}
