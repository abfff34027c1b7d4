/* lockstep pin create|list|show|renew|release */
#include "cmd.h"

#include "lockstep/store/pin.h"
#include "lockstep/train/train.h"
#include <string.h>
#include <time.h>

static const char *date_of(int64_t ms, char out[32]) {
    time_t seconds = (time_t)(ms / 1000);
    struct tm t;
    if (!localtime_r(&seconds, &t) || !strftime(out, 32, "%Y-%m-%d %H:%M:%S", &t)) return "-";
    return out;
}
static json_t *as_json(const struct lk_pin *p) {
    char hex[LK_ROOT_HEX];
    return json_pack("{s:s, s:s, s:I, s:o, s:s, s:b}", "name", p->name, "token", lk_root_hex(&p->token, hex), "at_ms",
                     (json_int_t)p->at_ms, "until_ms", p->until_ms ? json_integer(p->until_ms) : json_null(), "holder",
                     p->holder, "over", p->over);
}
static const char *end_of(const struct lk_pin *p, char out[64]) {
    char date[32];
    if (!p->until_ms) return "until it is released";
    snprintf(out, 64, "until %s%s", date_of(p->until_ms, date), p->over ? ", which is over" : "");
    return out;
}

/* A number and s, m, h or d. */
static int take_time(const struct cmd_context *c, const struct cmd_option *o, const char *text) {
    static const char units[] = "smhd";
    static const uint64_t seconds[] = {1, 60, 3600, 86400};
    char *end;
    unsigned long long n = strtoull(text, &end, 10);
    const char *unit = *end ? strchr(units, *end) : NULL;
    if (*text < '0' || *text > '9' || !unit || end[1] || n < 1 || n > 36500)
        return cmd_usage_error(c, "%s %s is no time: a number from 1 to 36500 and s, m, h or d, such as 90m", o->name,
                               text);
    *(int64_t *)o->any = (int64_t)(n * seconds[unit - units]) * 1000;
    return CMD_OK;
}

static int64_t for_ms;
static const char *holder;
static uint64_t at_ms;
#define FOR CMD_CALL("--for", "TIME", &for_ms, take_time, NULL, "how long, as 90m, 12h or 30d; else until it is released")
#define TAKEN                                                                                                              \
    CMD_U64("--taken", "MS", &at_ms, 1, INT64_MAX, NULL, "only if it is the pin that was taken then, as its at_ms says")

static int create(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_pin pin;
    char hex[LK_ROOT_HEX], text[64];
    if (cmd_open_store(c, LK_WRITE)) return CMD_FAILED;
    if (lk_pin_take(c->store, lk_train_rows(), c->arguments[0], for_ms, holder, &pin, &err)) return cmd_fail(&err);
    if (c->json) return cmd_print_json(as_json(&pin));
    printf("pin %s holds %s, %s\n", pin.name, lk_root_hex(&pin.token, hex), end_of(&pin, text));
    return CMD_OK;
}
const struct cmd cmd_pin_create = {
    "pin create",
    "NAME",
    1,
    1,
    "Keep all that the store's rows reach now, whatever rows change or go.",
    (const struct cmd_option[]){
        FOR, CMD_STRING("--holder", "TEXT", &holder, NULL, "who holds it, for people; else process and host"), CMD_END},
    "Takes no room but that of a list; blobs that go out of use stay until the pin is released or its time is over.\n"
    "Its token is the root of the list: stores that hold the same have the same token, on every engine and machine.",
    create};

struct printing {
    json_t *list;
    size_t count;
};
static int print_pin(void *arg, const struct lk_pin *p) {
    struct printing *l = arg;
    char hex[LK_ROOT_HEX], date[32], text[64];
    if (l->list) return json_array_append_new(l->list, as_json(p));
    if (!l->count++) printf("%-20s %-16s %-19s  %-32s %s\n", "name", "token", "taken", "held", "by");
    printf("%-20s %.16s %-19s  %-32s %s\n", p->name, lk_root_hex(&p->token, hex), date_of(p->at_ms, date), end_of(p, text),
           p->holder);
    return 0;
}
static int list(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_kv_txn *t;
    struct printing l = {c->json ? json_array() : NULL, 0};
    if (cmd_open_store(c, LK_READ)) return json_decref(l.list), CMD_FAILED;
    int code = lk_kv_begin(c->store->kv, false, &t, &err);
    if (!code) code = lk_pin_list(t, print_pin, &l, &err), lk_kv_abort(t);
    if (code) return json_decref(l.list), cmd_fail(&err);
    if (c->json) return cmd_print_json(l.list);
    if (!l.count) printf("there are no pins\n");
    return CMD_OK;
}
const struct cmd cmd_pin_list = {"pin list", "", 0, 0, "List the pins.", NULL, NULL, list};

static int show(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_kv_txn *t;
    struct lk_pin p;
    struct lk_root *roots = NULL;
    size_t count = 0;
    char hex[LK_ROOT_HEX], date[32], text[64];
    if (cmd_open_store(c, LK_READ)) return CMD_FAILED;
    int code = lk_kv_begin(c->store->kv, false, &t, &err);
    if (!code) code = lk_pin_get(t, c->arguments[0], &p, &err), lk_kv_abort(t);
    if (!code) code = lk_pin_roots(c->store, &p.token, &roots, &count, &err);
    if (code) return cmd_fail(&err);
    json_t *all = c->json ? as_json(&p) : NULL, *list = c->json ? json_array() : NULL;
    if (!c->json)
        printf("pin            %s\ntoken          %s\ntaken          %s, at_ms %lld\nheld           %s\nby             "
               "%s\nholds\n",
               p.name, lk_root_hex(&p.token, hex), date_of(p.at_ms, date), (long long)p.at_ms, end_of(&p, text), p.holder);
    for (size_t i = 0; i < count; i++) {
        bool there = lk_blob_exists(c->store->blobs, &roots[i]);
        lk_root_hex(&roots[i], hex);
        if (c->json)
            json_array_append_new(list, json_pack("{s:s, s:b}", "root", hex, "there", there));
        else
            printf("  %s%s\n", hex, there ? "" : "  was not there then, or is lost");
    }
    lk_free(roots);
    if (!c->json) return CMD_OK;
    json_object_set_new(all, "roots", list);
    return cmd_print_json(all);
}
const struct cmd cmd_pin_show = {"pin show",
                                 "NAME",
                                 1,
                                 1,
                                 "Show a pin and the roots that it holds.",
                                 NULL,
                                 "What manifests among them name is held with them.",
                                 show};

static int renew(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_pin p;
    char text[64];
    if (cmd_open_store(c, LK_WRITE)) return CMD_FAILED;
    if (lk_pin_renew(c->store, c->arguments[0], (int64_t)at_ms, for_ms, &p, &err)) return cmd_fail(&err);
    if (c->json) return cmd_print_json(as_json(&p));
    printf("pin %s is held %s\n", p.name, end_of(&p, text));
    return CMD_OK;
}
const struct cmd cmd_pin_renew = {
    "pin renew",
    "NAME",
    1,
    1,
    "Hold a pin from now on for --for, or until it is released.",
    (const struct cmd_option[]){FOR, TAKEN, CMD_END},
    "A pin whose time is over is held until the next `lockstep gc`, and can be renewed until then.",
    renew};

static int release(struct cmd_context *c) {
    struct lk_err err = {0};
    if (cmd_open_store(c, LK_WRITE)) return CMD_FAILED;
    if (lk_pin_release(c->store, c->arguments[0], (int64_t)at_ms, &err)) return cmd_fail(&err);
    if (c->json) return cmd_print_json(json_pack("{s:s}", "released", c->arguments[0]));
    printf("pin %s released; `lockstep gc` frees what nothing else needs\n", c->arguments[0]);
    return CMD_OK;
}
const struct cmd cmd_pin_release = {"pin release", "NAME", 1, 1, "End a pin.", (const struct cmd_option[]){TAKEN, CMD_END},
                                    NULL,          release};
