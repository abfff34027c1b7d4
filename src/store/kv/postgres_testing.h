/* A PostgreSQL of a test's own, by tests/postgres.sh; tests only. */
#ifndef LK_STORE_KV_POSTGRES_TESTING_H
#define LK_STORE_KV_POSTGRES_TESTING_H
#include "lockstep/base/progress.h"
#include "store/kv/testing.h"
#include <sys/stat.h>

static char *server_dir, *server_url; /* NULL: there is no PostgreSQL here, and the tests skip */

/* what: start, stop, kill. */
static inline int server_do(const char *what, const char *settings) {
    char *command = lk_asprintf("tests/postgres.sh %s %s %s", what, server_dir, settings ? settings : ""), line[512] = "";
    FILE *f = popen(command, "r");
    assert_non_null(f);
    if (fgets(line, sizeof line, f) && !server_url) {
        line[strcspn(line, "\n")] = 0;
        server_url = lk_strdup(line);
    }
    lk_free(command);
    int status = pclose(f);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
static inline int server_setup(void **state) {
    (void)state;
    server_dir = test_dir_make();
    assert_int_equal(chmod(server_dir, 0755), 0);
    int status = server_do("start", NULL);
    struct lk_kv *kv;
    if (server_url && lk_kv_open(server_url, LK_READ, &kv, NULL) == LK_EUNSUPPORTED) { /* POSTGRES=no */
        server_do("stop", NULL);
        lk_free(server_url);
        server_url = NULL, status = 77;
    }
    if (status == 77) print_message("no PostgreSQL here: skipped\n");
    return status == 0 || status == 77 ? 0 : -1;
}
static inline int server_teardown(void **state) {
    (void)state;
    if (server_url) server_do("stop", NULL);
    lk_free(server_url);
    test_dir_remove(server_dir);
    return 0;
}
/* The server's URL with options, such as "schema=a&deadline_ms=1000"; the caller frees it. */
static inline char *url_with(const char *options) {
    char *url = lk_asprintf("%s&%s", server_url, options);
    assert_non_null(url);
    return url;
}
static inline struct lk_kv *open_with(const char *options) {
    char *url = url_with(options);
    struct lk_kv *kv;
    OK(lk_kv_open(url, LK_CREATE, &kv, &test_err));
    lk_free(url);
    return kv;
}
#define NEEDS_SERVER()                                                                                                     \
    do {                                                                                                                   \
        if (!server_url) skip();                                                                                           \
    } while (0)

#endif
