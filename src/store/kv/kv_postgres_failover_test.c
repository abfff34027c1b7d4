/* PostgreSQL where a machine or the network between is lost: failover to a synchronous standby, and a network that says
 * nothing. LOCKSTEP_TEST_SECONDS: of the network's silence (2); from 10 on there are more failovers. */
#include "lockstep/base/progress.h"
#include "store/kv/postgres_testing.h"
#include "store/kv/postgres_writers.h"
#include <sched.h>
#include <sys/stat.h>

static int seconds_of_test(void) {
    const char *seconds = getenv("LOCKSTEP_TEST_SECONDS");
    return seconds ? atoi(seconds) : 2;
}
static int server_in(const char *dir, const char *what, const char *more) {
    char *command = lk_asprintf("tests/postgres.sh %s %s %s >/dev/null", what, dir, more);
    int status = system(command);
    lk_free(command);
    return status;
}
/* Until the writers were told of so many more durable commits. */
static void wait_for(struct score *score, int more, int limit_s, const char *what) {
    int until = writers_told(score) + more;
    uint64_t end = lk_clock_ns() + (uint64_t)limit_s * 1000000000u;
    while (writers_told(score) < until) {
        if (lk_clock_ns() > end) fail_msg("%s: no commits for %d s", what, limit_s);
        usleep(10000);
    }
}

/* --- failover ------------------------------------------------------------------------------------------------------ */

/* Two servers take turns: the standby follows, the primary is killed, the standby promoted, and another standby made in the
 * dead one's place. The writers' URL names both. */
static void failover(void **state) {
    if (LK_TSAN) skip(); /* fork */
    NEEDS_SERVER();
    char *dirs[2] = {test_join(*state, "a"), test_join(*state, "b")};
    pid_t writers[WRITERS];
    assert_int_equal(chmod(*state, 0755), 0);
    assert_int_equal(server_in(dirs[0], "start", "max_wal_senders=4"), 0);
    char *url = lk_asprintf("postgresql://postgres@/postgres?host=%s,%s&target_session_attrs=read-write", dirs[0], dirs[1]);
    char *options = lk_asprintf("%s&schema=failover", url);
    struct lk_kv *kv;
    OK(lk_kv_open(options, LK_CREATE, &kv, &test_err));
    assert_int_equal(server_in(dirs[1], "standby", dirs[0]), 0);
    struct score *score = start_writers(url, "schema=failover", writers);
    for (int turn = 0, turns = seconds_of_test() < 10 ? 1 : 4; turn < turns; turn++) {
        const char *primary = dirs[turn % 2], *standby = dirs[1 - turn % 2];
        if (turn > 0) assert_int_equal(server_in(standby, "standby", primary), 0);
        wait_for(score, 40, 30, "before a failover");
        assert_int_equal(server_in(primary, "kill", ""), 0); /* never to come back with what it has: so it is fenced */
        assert_int_equal(server_in(standby, "promote", ""), 0);
        wait_for(score, 40, 40, "after a failover");
    }
    stop_writers(score, writers, kv);
    lk_kv_close(kv);
    munmap(score, sizeof *score * WRITERS);
    for (int i = 0; i < 2; i++) server_in(dirs[i], "stop", ""), lk_free(dirs[i]);
    lk_free(url), lk_free(options);
}

/* --- no network ------------------------------------------------------------------------------------------------------ */

#define SERVER "10.77.0.1"
static void must(const char *command) {
    if (system(command) != 0) fprintf(stderr, "%s failed\n", command), _exit(4);
}
/* In a network namespace of its own, beside the server's, from which the writers' packets come and where they are lost
 * without a word: a cable that is pulled. */
static void lose_network(const char *dir) {
    char command[256], url[256];
    int ready[2];
    char c;
    pid_t server, writers[WRITERS];
    int seconds = seconds_of_test();
    if (unshare(CLONE_NEWNET) != 0) _exit(77);
    if (system("ip link set lo up 2>/dev/null") != 0) _exit(77);
    if (pipe(ready) != 0) _exit(5);
    if ((server = fork()) == 0) {
        if (unshare(CLONE_NEWNET) != 0 || write(ready[1], "", 1) != 1) _exit(5);
        for (;;) pause();
    }
    if (read(ready[0], &c, 1) != 1) _exit(5);
    snprintf(command, sizeof command, "ip link add lkc type veth peer name lks netns %d 2>/dev/null", (int)server);
    if (system(command) != 0) kill(server, SIGKILL), _exit(77);
    must("ip addr add 10.77.0.2/24 dev lkc && ip link set lkc up");
#define IN_SERVER(...)                                                                                                     \
    do {                                                                                                                   \
        int n = snprintf(command, sizeof command, "nsenter --net=/proc/%d/ns/net ", (int)server);                          \
        snprintf(command + n, sizeof command - (size_t)n, __VA_ARGS__);                                                    \
        must(command);                                                                                                     \
    } while (0)
    IN_SERVER("ip addr add " SERVER "/24 dev lks");
    IN_SERVER("ip link set lks up");
    IN_SERVER("tests/postgres.sh start %s listen_addresses=* >/dev/null", dir);
    snprintf(command, sizeof command, "echo 'host all all 10.77.0.0/24 trust' >>%s/data/pg_hba.conf", dir);
    must(command);
    IN_SERVER("psql -q -h %s -U postgres -c 'SELECT pg_reload_conf()' >/dev/null", dir);
    snprintf(url, sizeof url, "postgresql://postgres@" SERVER "/postgres?schema=network&deadline_ms=%d",
             2000 + 1000 * seconds / 2);
    struct lk_kv *kv;
    if (lk_kv_open(url, LK_CREATE, &kv, &test_err) != 0) fprintf(stderr, "%s\n", test_err.message), _exit(6);
    struct score *score = start_writers(url, "connect_timeout=3", writers);
    wait_for(score, 40, 30, "before");
    IN_SERVER("ip link set lks down");
    usleep(300000); /* what was on its way */
    int told = writers_told(score);
    usleep((useconds_t)seconds * 1000000);
    int silent = writers_told(score) - told;
    if (silent != 0) fprintf(stderr, "%d commits without a network\n", silent), _exit(7);
    IN_SERVER("ip link set lks up");
    uint64_t back = lk_clock_ns();
    wait_for(score, 40, 60, "after the network was lost");
    print_message("%d s without a network; 40 commits %.1f s after it\n", seconds, (double)(lk_clock_ns() - back) * 1e-9);
    stop_writers(score, writers, kv);
    lk_kv_close(kv);
    IN_SERVER("tests/postgres.sh stop %s", dir);
    kill(server, SIGKILL);
}
static void no_network(void **state) {
    if (LK_TSAN || geteuid() != 0) skip(); /* who else may have a network of his own, and a server that is not root? */
    NEEDS_SERVER();
    char *dir = test_join(*state, "server");
    assert_int_equal(chmod(*state, 0755), 0);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        lose_network(dir);
        fflush(NULL);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    server_in(dir, "stop", "");
    lk_free(dir);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        print_message("no network namespaces here: skipped\n");
        skip();
    }
    assert_int_equal(status, 0);
}

int main(void) {
    lk_log_quiet(true);
    const struct CMUnitTest tests[] = {TEST_IN_DIR(failover), TEST_IN_DIR(no_network)};
    return cmocka_run_group_tests(tests, server_setup, server_teardown);
}
