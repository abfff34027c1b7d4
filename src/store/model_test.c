/* Interleavings of writers, namers, pin takers, collectors and pauses, step by step: the code is that of the library,
 * over rows and blobs in memory. Each actor runs in a context of its own and gives way between steps; all orders of steps
 * are tried, one after the other, of three actors those with at most a few switches. Planted faults have to be found. */
#include "base/testing.h"
#include "store/blob/blob_engine.h"
#include "store/kv/kv_engine.h"
#include "store/pin.h"
#include "store/sweep.h"
#include <sys/mman.h>
#include <ucontext.h>

#define ACTORS      4
#define STEPS       64
#define STACK_BYTES ((size_t)512 << 10)
#define BLOBS       16

static const struct lk_row_kind *const kinds[] = {NULL};

/* --- Blobs in memory ------------------------------------------------------------------------------------- */

static struct {
    struct lk_root root;
    char data[128];
    size_t size;
} blobs[BLOBS];
static size_t blob_count;

struct writer {
    struct lk_blob_writer base;
    char data[128];
    size_t size;
};
static size_t find(const struct lk_root *root) {
    size_t i = 0;
    while (i < blob_count && !lk_root_equal(&blobs[i].root, root)) i++;
    return i;
}
static void insert(const void *data, size_t size, const struct lk_root *root) {
    assert_true(blob_count < BLOBS && size <= sizeof blobs->data);
    if (find(root) < blob_count) return;
    blobs[blob_count].root = *root, blobs[blob_count].size = size;
    memcpy(blobs[blob_count++].data, data, size);
}
static int memory_create(struct lk_blobs *b, struct lk_blob_writer **out, struct lk_err *err) {
    struct writer *w = lk_calloc(1, sizeof *w);
    (void)err;
    w->base.blobs = b;
    *out = &w->base;
    return 0;
}
static int memory_write(struct lk_blob_writer *base, const void *data, size_t size, struct lk_err *err) {
    struct writer *w = (struct writer *)base;
    (void)err;
    assert_true(w->size + size <= sizeof w->data);
    memcpy(w->data + w->size, data, size);
    w->size += size;
    return 0;
}
/* As a directory does it: what is there is found, else it is made. */
static int memory_finish(struct lk_blob_writer *base, struct lk_root *out, struct lk_err *err) {
    struct writer *w = (struct writer *)base;
    lk_root_of(w->data, w->size, out);
    int code = lk__blob_before_put(base->blobs, out, err);
    bool there = find(out) < blob_count;
    if (!code) lk__store_at(there ? "found" : "not there");
    if (!code && !there) insert(w->data, w->size, out);
    lk_free(w);
    return code;
}
static int memory_open(struct lk_blobs *b, const struct lk_root *root, bool verify, struct lk_blob *out,
                       struct lk_err *err) {
    size_t i = find(root);
    (void)b, (void)verify;
    if (i == blob_count) return lk_fail(err, LK_ENOTFOUND, "no such blob");
    void *map = mmap(NULL, blobs[i].size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(map, blobs[i].data, blobs[i].size);
    *out = (struct lk_blob){map, blobs[i].size, *root};
    return 0;
}
static int memory_peek(struct lk_blobs *b, const struct lk_root *root, void *out, size_t size, size_t *got,
                       struct lk_err *err) {
    size_t i = find(root);
    (void)b;
    if (i == blob_count) return lk_fail(err, LK_ENOTFOUND, "no such blob");
    *got = size < blobs[i].size ? size : blobs[i].size;
    memcpy(out, blobs[i].data, *got);
    return 0;
}
static bool memory_exists(struct lk_blobs *b, const struct lk_root *root) {
    (void)b;
    return find(root) < blob_count;
}
static int memory_modified(struct lk_blobs *b, const struct lk_root *root, int64_t *out_ms, struct lk_err *err) {
    (void)b;
    *out_ms = 0; /* of no use: the protocol does without */
    return find(root) < blob_count ? 0 : lk_fail(err, LK_ENOTFOUND, "no such blob");
}
static int memory_remove(struct lk_blobs *b, const struct lk_root *root, struct lk_err *err) {
    size_t i = find(root);
    (void)b;
    if (i == blob_count) return lk_fail(err, LK_ENOTFOUND, "no such blob");
    blobs[i] = blobs[--blob_count];
    return 0;
}
static int memory_list(struct lk_blobs *b, int64_t keep_tmp_ms, lk_blob_list_fn *fn, void *arg, struct lk_err *err) {
    struct lk_root all[BLOBS];
    size_t n = blob_count;
    int code = 0;
    (void)b, (void)keep_tmp_ms, (void)err;
    for (size_t i = 0; i < n; i++) all[i] = blobs[i].root;
    for (size_t i = 0; i < n && !code; i++) code = fn(arg, &all[i], 1, 0);
    return code;
}
static const struct lk_blobs_ops memory_blobs = {.name = "memory",
                                                 .create = memory_create,
                                                 .write = memory_write,
                                                 .finish = memory_finish,
                                                 .open = memory_open,
                                                 .peek = memory_peek,
                                                 .exists = memory_exists,
                                                 .modified = memory_modified,
                                                 .remove = memory_remove,
                                                 .list = memory_list};

/* --- Actors and their orders ----------------------------------------------------------------------------- */

typedef int actor_fn(struct lk_store *);
static struct actor {
    actor_fn *run;
    ucontext_t context;
    char *stack;
    struct lk_store store; /* a handle of its own, as of a process of its own */
    struct lk_blobs blobs;
    bool done, waits;
    int code;
    const char *at;
} actors[ACTORS];
static int actor_count, current;
static bool machine; /* a store of one machine, with locks and files; else of several, with leases and rows */
static struct lk_kv_ops machine_ops;
static char *machine_dir;
static ucontext_t scheduler;

static void give_way(const char *what) {
    if (current < 0) return;
    struct actor *a = &actors[current];
    a->waits = strcmp(what, "waits") == 0;
    a->at = what;
    swapcontext(&a->context, &scheduler);
}
static void act(void) {
    struct actor *a = &actors[current];
    a->code = a->run(&a->store);
    a->done = true;
    swapcontext(&a->context, &scheduler);
}
static void open_handle(struct lk_store *s, struct lk_blobs *b, bool announces) {
    *b = (struct lk_blobs){.ops = &memory_blobs};
    *s = (struct lk_store){.blobs = b, .dir = machine_dir};
    OK(lk_kv_open("memory:model", LK_CREATE, &s->kv, &test_err));
    if (machine) s->kv->ops = &machine_ops;
    if (announces) OK(lk__store_uploads_open(s, &test_err));
}
static void close_handle(struct lk_store *s) {
    lk__store_uploads_close(s);
    lk_kv_close(s->kv);
}

/* A choice at each point where several may go on; the next order differs in the last choice that has another. */
static struct {
    unsigned char chosen[STEPS], of[STEPS];
    int length, at;
    char story[2000];
} order;
static bool next_order(void) {
    while (order.length && order.chosen[order.length - 1] + 1 >= order.of[order.length - 1]) order.length--;
    if (!order.length) return false;
    order.chosen[order.length - 1]++;
    return true;
}
/* False: those that are left wait for one another. */
static bool run_in_order(int switches) {
    int last = -1;
    order.at = 0, order.story[0] = 0;
    for (;;) {
        int able[ACTORS], n = 0, left = 0;
        bool goes_on = last >= 0 && !actors[last].done && !actors[last].waits;
        if (goes_on) able[n++] = last;
        for (int i = 0; i < actor_count; i++) {
            if (!actors[i].done && !actors[i].waits && i != last && (!goes_on || switches > 0)) able[n++] = i;
            left += !actors[i].done;
        }
        if (!n) return left == 0;
        assert_true(order.at < STEPS);
        if (order.at == order.length) order.chosen[order.length++] = 0;
        order.of[order.at] = (unsigned char)n;
        current = able[order.chosen[order.at++]];
        switches -= goes_on && current != last;
        last = current;
        size_t used = strlen(order.story);
        snprintf(order.story + used, sizeof order.story - used, " %d:%s", current, actors[current].at);
        swapcontext(&scheduler, &actors[current].context);
        for (int i = 0; i < actor_count && !actors[current].waits; i++)
            actors[i].waits = false; /* what it waits for may have come */
        current = -1;
    }
}

/* --- What has to be so ----------------------------------------------------------------------------------- */

struct looking {
    bool whole;
};
static int child_there(void *arg, const struct lk_root *root) {
    if (find(root) == blob_count) ((struct looking *)arg)->whole = false;
    return 0;
}
static void reaches(struct looking *l, const struct lk_root *root) {
    size_t i = find(root);
    if (i == blob_count)
        l->whole = false;
    else if (blobs[i].data[0] == '{')
        lk_row_tell_hex(blobs[i].data, blobs[i].size, child_there, l);
}
static int on_name(void *arg, const char *name, const struct lk_root *root) {
    (void)name;
    reaches(arg, root);
    return 0;
}
static int on_pin(void *arg, const struct lk_pin *p) {
    reaches(arg, &p->token);
    return 0;
}
static bool all_is_there(struct lk_store *s) {
    struct looking l = {true};
    struct lk_kv_txn *t;
    OK(lk_kv_begin(s->kv, false, &t, &test_err));
    OK(lk_name_list(t, "thing", on_name, &l, &test_err));
    OK(lk_pin_list(t, on_pin, &l, &test_err));
    lk_kv_abort(t);
    return l.whole;
}

/* --- Actors ---------------------------------------------------------------------------------------------- */

static const char text_a[] = "a blob that is there already, and that nobody needs";
static struct lk_root root_a;
static char text_m[128];

static int put_and_name(struct lk_store *s, const char *text, const char *name) {
    struct lk_root root;
    struct lk_err err;
    int code = lk_blob_put(s->blobs, text, strlen(text), &root, &err);
    lk__store_at("names");
    return code ? code : lk_store_name_put(s, "thing", name, &root, &err);
}
static int writes(struct lk_store *s) {
    return put_and_name(s, text_a, "w");
}
/* A manifest and what it names. */
static int writes_two(struct lk_store *s) {
    struct lk_root root;
    int code = lk_blob_put(s->blobs, text_a, strlen(text_a), &root, NULL);
    return code ? code : put_and_name(s, text_m, "w");
}
/* A manifest that names what another one put, and named. */
static int points(struct lk_store *s) {
    int code = lk_uploads_hold(s, &root_a, NULL);
    lk__store_at("holds");
    if (code == LK_ENOTFOUND) return LK_OK; /* it knows, and points at nothing */
    return code ? code : put_and_name(s, text_m, "w");
}
static int name_a(struct lk_kv_txn *t, void *store, struct lk_err *err) {
    int code = lk_store_still_there(store, t, &root_a, 1, err);
    return code ? code : lk_name_put(t, "thing", "w", &root_a, err);
}
/* Looks in the transaction that names it. */
static int finds(struct lk_store *s) {
    int code = lk_kv_update(s->kv, name_a, s, LK_DURABLE, NULL, NULL);
    return code == LK_ENOTFOUND ? LK_OK : code;
}
static int unname(struct lk_kv_txn *t, void *arg, struct lk_err *err) {
    (void)arg;
    return lk_name_delete(t, "thing", "n", err);
}
static int unnames(struct lk_store *s) {
    return lk_kv_update(s->kv, unname, NULL, LK_DURABLE, NULL, NULL);
}
static int pins(struct lk_store *s) {
    return lk_pin_take(s, kinds, "p", 0, "a test", NULL, NULL);
}
static int collects(struct lk_store *s) {
    struct lk_gc_result r;
    return lk_store_gc(s, kinds, &(struct lk_gc_options){.grace_ms = 0}, &r, NULL);
}
/* An hour in which every other one stood still: leases of uploads are over, what is doomed is late. */
static int end_lease(void *arg, const char *name, json_t *record) {
    if (strncmp(name, "upload/", 7) == 0 && json_object_get(record, "until_ms")) snprintf(arg, 100, "%s", name);
    return 0;
}
static int end_leases(struct lk_kv_txn *t, void *arg, struct lk_err *err) {
    char name[100] = "";
    json_t *record;
    (void)arg;
    int code = lk_record_list(t, "lease", end_lease, name, err);
    if (code || !*name) return code;
    code = lk_record_get(t, "lease", name, &record, err);
    if (code) return code;
    json_object_set_new(record, "until_ms", json_integer(1));
    code = lk_record_put(t, "lease", name, record, err);
    json_decref(record);
    return code;
}
static int an_hour(struct lk_store *s) {
    lk__store_skipped_ms += 3600000;
    return lk_kv_update(s->kv, end_leases, NULL, LK_LAZY, NULL, NULL);
}

/* --- Scenes ---------------------------------------------------------------------------------------------- */

struct scene {
    const char *name;
    actor_fn *actors[ACTORS];
    int switches;   /* at most so often is one who could go on stopped for another; 0: any number */
    bool named;     /* thing/n points at the blob at first */
    bool timed;     /* not of one machine, whose locks know who is gone */
    bool may_fail;  /* a process that stands still for an hour may find that it has to begin again */
    bool held;      /* in a store of one machine its announcement covers what a second look would find */
    unsigned finds; /* planted faults that must show here */
};
static const struct scene scenes[] = {
    {"a writer and a collector",
     {writes, collects},
     .held = true,
     .finds = LK__STORE_NO_ANNOUNCING | LK__STORE_NO_SECOND_LOOK | LK__STORE_NO_DOOM | LK__STORE_LEASE_IGNORED},
    {"a writer of two and a collector", {writes_two, collects}, .switches = 3, .finds = LK__STORE_NO_ANNOUNCING},
    {"a writer, a collector and an hour",
     {writes, collects, an_hour},
     .switches = 3,
     .timed = true,
     .may_fail = true,
     .finds = LK__STORE_NO_LEASE | LK__STORE_NO_BOUND},
    {"two writers and a collector", {writes, writes, collects}, .switches = 2, .finds = LK__STORE_NO_DOOM},
    {"a writer and two collectors", {writes, collects, collects}, .switches = 1, .finds = LK__STORE_NO_DOOM},
    {"one who points at what another one takes away",
     {points, unnames, collects},
     .held = true,
     .switches = 3,
     .named = true,
     .finds = LK__STORE_NO_SECOND_LOOK | LK__STORE_NO_DOOM},
    {"one who names what is there", {finds, unnames, collects}, .switches = 3, .named = true, .finds = LK__STORE_NO_DOOM},
    {"a pin, what it holds, and a collector",
     {pins, unnames, collects},
     .switches = 3,
     .named = true,
     .finds = LK__STORE_NO_SECOND_LOOK},
};

static void set_scene(const struct scene *scene, struct lk_store *outside, struct lk_blobs *b) {
    char hex[LK_ROOT_HEX];
    open_handle(outside, b, false);
    blob_count = 0, lk__store_skipped_ms = 0, current = -1;
    lk_root_of(text_a, strlen(text_a), &root_a);
    insert(text_a, strlen(text_a), &root_a);
    snprintf(text_m, sizeof text_m, "{\"a\":\"%s\"}", lk_root_hex(&root_a, hex));
    if (scene->named) OK(lk_store_name_put(outside, "thing", "n", &root_a, &test_err));
    for (actor_count = 0; actor_count < ACTORS && scene->actors[actor_count]; actor_count++) {
        struct actor *a = &actors[actor_count];
        if (!a->stack) a->stack = malloc(STACK_BYTES);
        char *stack = a->stack;
        *a = (struct actor){.run = scene->actors[actor_count], .stack = stack, .at = "begins"};
        open_handle(&a->store, &a->blobs, true);
        getcontext(&a->context);
        a->context.uc_stack.ss_sp = stack, a->context.uc_stack.ss_size = STACK_BYTES;
        makecontext(&a->context, act, 0);
    }
}
/* One order; what is wrong, or NULL. */
static const char *play(const struct scene *scene) {
    struct lk_store outside;
    struct lk_blobs b;
    const char *wrong = NULL;
    set_scene(scene, &outside, &b);
    lk__store_step = give_way;
    const char *more = getenv("LOCKSTEP_TEST_STEPS"); /* hours of it, if wanted */
    bool ended = run_in_order(scene->switches ? scene->switches + (more ? atoi(more) : 0) : STEPS);
    lk__store_step = NULL;
    if (!ended) wrong = "those that are left wait for one another";
    if (!wrong && !all_is_there(&outside)) wrong = "a row needs a blob that is gone";
    for (int i = 0; i < actor_count && !wrong && !scene->may_fail; i++)
        if (actors[i].code) wrong = "one was disturbed";
    for (int i = 0; i < actor_count; i++)
        if (ended) close_handle(&actors[i].store); /* else it holds what it holds: the test ends here */
    unsigned planted = lk__store_planted;
    lk__store_planted = 0;
    if (!wrong && (collects(&outside) || !all_is_there(&outside))) wrong = "a collector afterwards";
    size_t left = blob_count;
    if (!wrong && (collects(&outside) || blob_count != left)) wrong = "the second collector found what the first had left";
    lk__store_planted = planted;
    close_handle(&outside);
    return wrong;
}
static size_t orders;
static const char *play_all(const struct scene *scene, char *story) {
    const char *wrong = NULL;
    order.length = 0;
    do {
        wrong = play(scene);
        orders++;
    } while (!wrong && next_order());
    snprintf(story, 2000, "%s", order.story);
    return wrong;
}

static void nothing_needed_goes(void **state) {
    char story[2000];
    (void)state;
    for (size_t i = 0; i < sizeof scenes / sizeof *scenes; i++) {
        if (machine && scenes[i].timed) continue;
        orders = 0;
        const char *wrong = play_all(&scenes[i], story);
        print_message("  %s: %zu orders\n", scenes[i].name, orders);
        if (wrong) fail_msg("%s: %s:%s", scenes[i].name, wrong, story);
    }
}
static void planted_faults_are_found(void **state) {
    char story[2000];
    (void)state;
    for (size_t i = 0; i < sizeof scenes / sizeof *scenes; i++)
        for (unsigned fault = 1; fault <= LK__STORE_LEASE_IGNORED; fault *= 2) {
            if (!(scenes[i].finds & fault) || (machine && scenes[i].timed)) continue;
            if (machine && scenes[i].held && fault == LK__STORE_NO_SECOND_LOOK) continue;
            lk__store_planted = fault;
            orders = 0;
            const char *wrong = play_all(&scenes[i], story);
            lk__store_planted = 0;
            print_message("  %u, %s: %s\n", fault, scenes[i].name, wrong ? wrong : "not found");
            if (!wrong) fail_msg("the planted fault %u is not found in %zu orders: %s", fault, orders, scenes[i].name);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(nothing_needed_goes), cmocka_unit_test(planted_faults_are_found)};
    machine_ops = lk__kv_memory;
    machine_ops.now = NULL;
    if (access("/dev/shm", W_OK) == 0) setenv("TMPDIR", "/dev/shm", 1); /* many small files, a disk is not asked for */
    machine_dir = test_dir_make();
    int failed = cmocka_run_group_tests_name("rows and leases", tests, NULL, NULL);
    machine = true;
    failed += cmocka_run_group_tests_name("files and locks", tests, NULL, NULL);
    test_dir_remove(machine_dir);
    return failed;
}
