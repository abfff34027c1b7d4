/* A save may fail or be killed at every point, memory may be out at every call, the disk may be full: afterwards the run
 * goes on to the same root. */
#include "lockstep/lab/lab.h"
#include "train/saver.h"
#include "train/testing.h"
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>

static struct test_world world;
static char *root; /* of the run below without faults */
static bool large; /* arrays of more than a buffer of writes past the page cache, which are written so */

static struct lk_run_config victim(void) {
    return test_config("victim", large ? "run.steps=2 checkpoint.every=1 checkpoint.keep=1 model.vocab=30000"
                                       : "run.steps=2 checkpoint.every=1 checkpoint.keep=1");
}

/* Removes the run and its blobs, so that the next save writes everything again. */
static void forget(void) {
    struct lk_gc_result result;
    json_t *record;
    if (lk_run_get(world.store, "victim", &record, &test_err) == LK_OK) {
        json_decref(record);
        OK(lk_run_remove(world.store, "victim", &test_err));
    }
    OK(lk_store_gc(world.store, lk_train_rows(), &(struct lk_gc_options){.grace_ms = 0, .dry_run = false}, &result,
                   &test_err));
}

/* Resumes (or begins, when the fault came before the run was there) and compares the final root. */
static void finish_and_compare(void) {
    struct lk_run_config c = victim();
    json_t *record;
    bool there = lk_run_get(world.store, "victim", &record, &test_err) == LK_OK;
    const char *run_state = there ? json_string_value(json_object_get(record, "state")) : "";
    bool finished = strcmp(run_state, "finished") == 0;
    if (there) {
        assert_string_not_equal(run_state, "running");
        json_decref(record);
    }
    if (!there)
        OK(test_create_and_run(&world, &c, NULL));
    else if (!finished)
        OK(test_resume_and_run(&world, "victim", NULL));
    assert_record(&world, "victim", "state", "finished");
    assert_record(&world, "victim", "state_root", root);
    struct lk_verify_result v;
    OK(lk_verify(world.store, world.math, "victim", 0, 2, NULL, NULL, &v, &test_err));
    assert_true(v.equal && v.roots_compared);
    forget();
}

static int setup(void **state) {
    (void)state;
    if (access("/dev/shm", W_OK) == 0) setenv("TMPDIR", "/dev/shm", 0); /* thousands of syncs */
    test_world_make(&world);
    struct lk_run_config c = victim();
    root = test_root_of(&world, &c);
    forget();
    return 0;
}
static int setup_large(void **state) {
    large = true;
    lk__train_past_cache_bytes = (size_t)1 << 20;
    return setup(state);
}
static int teardown(void **state) {
    (void)state;
    lk_free(root);
    test_world_drop(&world);
    return 0;
}

static void every_call_of_a_save_may_fail(void **state) {
    (void)state;
    static const int numbers[] = {ENOSPC, EIO, EDQUOT};
    struct lk_run_config c = victim();
    uint64_t calls = 0, failed = 0;
    for (uint64_t nth = 1;; nth++) {
        assert_in_range(nth, 1, 1000);
        lk__file_fail_at(nth, numbers[nth % 3]);
        int code = test_create_and_run(&world, &c, NULL);
        calls = lk__file_call_count();
        lk__file_fail_at(0, 0);
        if (code) {
            failed++;
            assert_int_equal(code, LK_EIO);
            assert_non_null(strstr(test_err.message, "the checkpoint could not be written"));
        }
        finish_and_compare();
        if (calls < nth) break;
    }
    print_message("%llu calls in two saves, %llu of their failures end the run\n", (unsigned long long)calls,
                  (unsigned long long)failed);
    assert_true(failed > 20);
}

struct fault {
    char *dir;
    uint64_t kill_at;
    uint64_t size_limit;
    unsigned kill_after_us;
};
static void train_with(void *arg) {
    struct fault *f = arg;
    struct test_world w = {.dir = f->dir};
    struct lk_run_config c = victim();
    test_world_open(&w);
    signal(SIGXFSZ, SIG_IGN);
    if (f->size_limit) setrlimit(RLIMIT_FSIZE, &(struct rlimit){f->size_limit, f->size_limit});
    if (f->kill_at) lk__file_kill_at(f->kill_at);
    int code = test_create_and_run(&w, &c, NULL);
    if (code && f->size_limit) _exit(code == LK_EIO && *test_err.message ? 3 : 4);
    _exit(code != 0);
}

static void every_call_of_a_save_may_be_the_last(void **state) {
    (void)state;
    uint64_t nth = 1;
    for (bool killed = true; killed; nth++) {
        assert_in_range(nth, 1, 1000);
        test_world_close(&world);
        int status = test_fork(train_with, &(struct fault){.dir = world.dir, .kill_at = nth});
        test_world_open(&world);
        killed = WIFSIGNALED(status);
        if (killed)
            assert_int_equal(WTERMSIG(status), SIGKILL);
        else
            assert_int_equal(WEXITSTATUS(status), 0);
        finish_and_compare();
    }
    print_message("killed before %llu calls\n", (unsigned long long)nth - 2);
    assert_true(nth > 20);
}

/* Also where no call of ours can be seen: inside the database's commits, between steps. */
static void any_moment_may_be_the_last(void **state) {
    (void)state;
    struct test_random r = test_random_open("kill");
    int killed = 0;
    for (int n = 0; n < 30; n++) {
        test_world_close(&world);
        fflush(NULL);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) train_with(&(struct fault){.dir = world.dir});
        usleep(1000 + test_random_below(&r, n % 3 ? 20000 : 60000));
        kill(pid, SIGKILL);
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        killed += WIFSIGNALED(status) != 0;
        test_world_open(&world);
        finish_and_compare();
    }
    print_message("%d of 30 killed\n", killed);
}

static void a_file_size_limit_is_an_error_like_others(void **state) {
    (void)state;
    static const uint64_t limits[] = {1, 1000, 4096, 10000, 20000, 40000, 60000, 80000, 1u << 20, 1300000, 1u << 30};
    int failed = 0;
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        test_world_close(&world);
        int status = test_fork(train_with, &(struct fault){.dir = world.dir, .size_limit = limits[i]});
        test_world_open(&world);
        assert_true(WIFEXITED(status) && (WEXITSTATUS(status) == 3 || WEXITSTATUS(status) == 0));
        failed += WEXITSTATUS(status) == 3;
        finish_and_compare();
    }
    assert_true(failed > 0 && failed < (int)(sizeof limits / sizeof *limits));
}

/* A real full disk: a small tmpfs of our own, where the kernel lets us mount one. Exit 77: it does not. */
static void train_on_a_small_disk(void *arg) {
    char *dir = arg;
    if (unshare(CLONE_NEWNS) && unshare(CLONE_NEWUSER | CLONE_NEWNS)) _exit(77);
    if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) || mount("small", dir, "tmpfs", 0, "size=24m")) _exit(77);
    for (int kilobytes = 0, by = large ? 512 : 8; kilobytes <= 12 * by; kilobytes += by) {
        char option[40], *inner = lk_asprintf("%s/s%d", dir, kilobytes), *filler = lk_asprintf("%s/filler", dir);
        lk_dir_make(inner, NULL);
        setenv("TMPDIR", inner, 1);
        test_world_make(&world);
        struct lk_run_config c = victim();
        struct lk_buf zeros = LK_BUF_INIT;
        snprintf(option, sizeof option, "%d", kilobytes);
        FILE *f = fopen(filler, "wb"); /* all but some kilobytes of the disk */
        lk_buf_reserve(&zeros, 1024);
        memset(zeros.data, 1, 1024);
        while (f && fwrite(zeros.data, 1, 1024, f) == 1024 && fflush(f) == 0) {}
        if (f && ftruncate(fileno(f), ftell(f) > kilobytes * 1024 ? ftell(f) / 4096 * 4096 - kilobytes * 1024 : 0))
            _exit(1);
        fclose(f);
        int code = test_create_and_run(&world, &c, NULL);
        if (code && code != LK_EIO) {
            fprintf(stderr, "full disk: %d, %s\n", code, test_err.message);
            _exit(2);
        }
        unlink(filler);
        finish_and_compare();
        test_world_drop(&world);
        lk_buf_release(&zeros);
        lk_free(inner);
        lk_free(filler);
        if (kilobytes == 0 && code != LK_EIO) _exit(3);
    }
    umount(dir);
    _exit(0);
}
static void a_full_disk_loses_nothing(void **state) {
    (void)state;
    char *dir = test_dir_make();
    test_world_close(&world);
    int status = test_fork(train_on_a_small_disk, dir);
    test_world_open(&world);
    test_dir_remove(dir);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) {
        print_message("no right to mount a small disk here\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* --- Memory ---------------------------------------------------------------------------------------------- */

/* Canonical JSON has to come whole or not at all: jansson passes over a failing callback while it writes a key. */
static bool canonical_text_is_whole(void) {
    json_t *value =
        json_pack("{s:{s:i, s:i, s:i}, s:{s:i, s:i}}", "a-long-section-name", "a-long-key-of-it", 1, "another-long-key", 2,
                  "yet-another-long-key", 3, "the-second-long-section", "with-one-long-key", 4, "and-another-long-key", 5);
    bool whole = true;
    for (uint64_t nth = 1; nth < 8; nth++) {
        struct lk_buf text = LK_BUF_INIT;
        lk__alloc_fail_at(nth);
        int code = lk_json_canonical(value, &text, NULL);
        uint64_t made = lk__alloc_count();
        lk__alloc_fail_at(0);
        whole &= code != 0 || made < nth;
        lk_buf_release(&text);
    }
    json_decref(value);
    return whole;
}

/* Creates with the nth allocation failing until none does. json: jansson's own count too; it may call a failure a syntax
 * error. */
static void create_without_memory(bool json) {
    struct lk_run_config c = victim();
    int tolerated = 0;
    for (uint64_t nth = 1;; nth++) {
        struct lk_trainer *t = NULL;
        json_t *record;
        assert_in_range(nth, 1, 5000);
        test_err.message[0] = 0;
        lk__alloc_fail_at(nth);
        int code = lk_trainer_create(world.store, world.math, NULL, &c, NULL, &t, &test_err);
        uint64_t made = lk__alloc_count();
        lk__alloc_fail_at(0);
        if (code) {
            if (code != LK_ENOMEM && !json)
                fail_msg("allocation %llu: %d, %s", (unsigned long long)nth, code, test_err.message);
            assert_true(*test_err.message);
            FAILS(lk_run_get(world.store, "victim", &record, &test_err), LK_ENOTFOUND,
                  "victim"); /* the store is as it was */
            continue;
        }
        tolerated += made >= nth;                                  /* some are for words in messages only */
        OK(lk_run_get(world.store, "victim", &record, &test_err)); /* a success is a whole one */
        if (json_object_size(record) != 16)
            fail_msg("allocation %llu: the record has %zu keys", (unsigned long long)nth, json_object_size(record));
        json_decref(record);
        lk_trainer_free(t);
        forget();
        if (made >= nth) continue;
        print_message("%llu allocations%s, %d could fail without harm\n", (unsigned long long)made,
                      json ? " with JSON's" : "", tolerated);
        break;
    }
}
static void no_memory_at_any_call_of_create(void **state) {
    (void)state;
    assert_true(canonical_text_is_whole());
    create_without_memory(false);
    json_set_alloc_funcs(lk_alloc, lk_free);
    create_without_memory(true);
    json_set_alloc_funcs(malloc, free);
}

static void no_memory_at_some_calls_of_a_run(void **state) {
    (void)state;
    assert_true(canonical_text_is_whole());
    struct test_random r = test_random_open("memory");
    struct lk_run_config c = victim();
    json_set_alloc_funcs(lk_alloc, lk_free);
    time_t end = time(NULL) + 4;
    int failed = 0;
    for (uint64_t nth = 1; time(NULL) < end; nth += 1 + test_random_below(&r, 5)) {
        struct lk_trainer *t;
        OK(lk_trainer_create(world.store, world.math, NULL, &c, NULL, &t, &test_err));
        lk__alloc_fail_at(nth);
        int code = lk_trainer_run(t, &test_err);
        uint64_t made = lk__alloc_count();
        lk__alloc_fail_at(0);
        lk_trainer_free(t);
        failed += code != 0;
        finish_and_compare();
        if (made < nth) break;
    }
    json_set_alloc_funcs(malloc, free);
    print_message("%d runs ended by it\n", failed);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_call_of_a_save_may_fail),    cmocka_unit_test(every_call_of_a_save_may_be_the_last),
        cmocka_unit_test(any_moment_may_be_the_last),       cmocka_unit_test(a_file_size_limit_is_an_error_like_others),
        cmocka_unit_test(a_full_disk_loses_nothing),        cmocka_unit_test(no_memory_at_any_call_of_create),
        cmocka_unit_test(no_memory_at_some_calls_of_a_run),
    };
    const struct CMUnitTest large_tests[] = {
        cmocka_unit_test(every_call_of_a_save_may_fail),
        cmocka_unit_test(every_call_of_a_save_may_be_the_last),
        cmocka_unit_test(a_file_size_limit_is_an_error_like_others),
        cmocka_unit_test(a_full_disk_loses_nothing),
    };
    if (getenv("LOCKSTEP_TEST_ONLY")) cmocka_set_test_filter(getenv("LOCKSTEP_TEST_ONLY"));
    int failed = cmocka_run_group_tests(tests, setup, teardown);
    return failed + cmocka_run_group_tests(large_tests, setup_large, teardown);
}
