/* lockstep serve, serve key */
#include "model_run.h"

#include "lockstep/base/file.h"
#include "lockstep/serve/api.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MODELS_MOST 16

static struct {
    const char *listen, *keys, *certificate, *key;
    bool no_keys, follow;
    uint32_t slots, queue, rows, page, draft, choices, timeout_s, drain_s, connections, of_one, client_s;
    uint64_t memory;
    struct cmd_list aliases;
    enum lk_chat chat;
    int cache;
} wanted;

/* A model that is served, and what belongs to it alone. */
struct served {
    const char *name;
    struct cmd_model m;
    struct lk_tokenizer *tokenizer;
    struct lk_batch *batch;
    char root[LK_ROOT_HEX];
    uint32_t pages;
};
static struct served served[MODELS_MOST];
static struct lk_api_model names[MODELS_MOST + CMD_MANY];
static size_t served_count, name_count;
static struct lk_api *api;
static volatile sig_atomic_t reread;

/* "4G", "512M", "100000" */
static int take_size(const struct cmd_context *c, const struct cmd_option *o, const char *text) {
    static const char units[] = "KMGT";
    char *end;
    errno = 0;
    double x = strtod(text, &end);
    const char *unit = *end ? strchr(units, *end >= 'a' ? *end - 32 : *end) : NULL;
    if (end == text || errno || !(x > 0) || x > 1e18 || (*end && (!unit || !*unit || end[1])))
        return cmd_usage_error(c, "%s %s is no size, as 512M or 4G", o->name, text);
    for (const char *u = units; unit && u <= unit; u++) x *= 1024;
    *(uint64_t *)o->any = (uint64_t)x;
    return CMD_OK;
}

/* --- Keys ------------------------------------------------------------------------------------------------ */

static int append_line(const char *path, const char *line, struct lk_err *err) {
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    char text[300];
    size_t n = (size_t)snprintf(text, sizeof text, "%s\n", line);
    bool ok = fd >= 0 && write(fd, text, n) == (ssize_t)n && !fsync(fd);
    int code = ok ? LK_OK : lk_fail_errno(err, "cannot add a key to %s", path);
    if (fd >= 0) close(fd);
    return code;
}

static int serve_key(struct cmd_context *c) {
    char key[LK_KEY_TEXT], line[256];
    struct lk_err err = {0};
    int code = lk_key_make(c->arguments[0], key, line, &err);
    if (!code && wanted.keys) code = append_line(wanted.keys, line, &err);
    if (code) return cmd_fail(&err);
    if (c->json) return cmd_print_json(json_pack("{s:s, s:s, s:s}", "name", c->arguments[0], "key", key, "line", line));
    printf("key   %s\nline  %s\n", key, line);
    if (!wanted.keys)
        printf("The key is shown this once. The line goes into the file that `lockstep serve --keys FILE` reads.\n");
    return CMD_OK;
}
const struct cmd cmd_serve_key = {
    "serve key",
    "NAME",
    1,
    1,
    "Make an API key.",
    (const struct cmd_option[]){
        CMD_STRING("--keys", "FILE", &wanted.keys, NULL, "add its line to this file, which is made if need be"), CMD_END},
    "A server keeps only a hash of the key. Limits go behind it in the line: requests=N and tokens=N a minute, streams=N "
    "at "
    "the same time.\n"
    "A server that runs reads its file again on SIGHUP.",
    serve_key};

/* --- Models ---------------------------------------------------------------------------------------------- */

static int open_model(struct cmd_context *c, struct served *s, struct lk_err *err) {
    int code = cmd_model_open(c, s->name, &s->m);
    if (code) return *err->message = 0, LK_EINVAL; /* said already */
    served_count++;
    if (!s->m.model.has_tokenizer)
        return lk_fail(err, LK_EINVAL, "model %s was imported without a tokenizer, so it cannot read or write text",
                       s->name);
    lk_root_hex(&s->m.model.weights_root, s->root);
    return lk_tokenizer_load(c->store, &s->m.model.tokenizer_root, &s->tokenizer, err);
}

static struct lk_batch_options batch_options(void) {
    return (struct lk_batch_options){.slots = wanted.slots,
                                     .page_positions = wanted.page,
                                     .rows = wanted.rows,
                                     .queue = wanted.queue,
                                     .draft = wanted.draft,
                                     .cache = cmd_cache(wanted.cache),
                                     .panels = true};
}
static uint64_t fixed_bytes(const struct served *s) {
    struct lk_batch_options o = batch_options();
    return lk_batch_bytes(&s->m.model.layout, &o);
}

static int open_batch(struct cmd_context *c, struct served *s, uint64_t memory, struct lk_err *err) {
    const struct lk_layout *l = &s->m.model.layout;
    uint64_t enough =
        ((uint64_t)l->config.context + wanted.page) / wanted.page * wanted.slots; /* pages, for full contexts */
    struct lk_batch_options o = batch_options();
    o.pages = lk_batch_pages(l, o.cache, wanted.page, memory);
    if (o.pages > enough) o.pages = (uint32_t)enough;
    s->pages = o.pages;
    return lk_batch_open(c->math, s->tokenizer, &(struct lk_batch_weights){l, s->m.model.weights, NULL, NULL}, &o,
                         &s->batch, err);
}

static int add_name(const char *name, const struct served *s, struct lk_err *err) {
    for (size_t i = 0; i < name_count; i++)
        if (!strcmp(names[i].name, name)) return lk_fail(err, LK_EINVAL, "two models would be called %s", name);
    enum lk_chat chat = wanted.chat ? wanted.chat : s->m.model.chat;
    uint32_t stop;
    if (chat && lk_chat_stop(s->tokenizer, chat, &stop, err)) return lk_fail_prefix(err, LK_EINVAL, "model %s", s->name);
    names[name_count++] = (struct lk_api_model){.name = name,
                                                .root = s->root,
                                                .model = &s->m.model,
                                                .tokenizer = s->tokenizer,
                                                .batch = s->batch,
                                                .chat = chat,
                                                .created = (uint64_t)time(NULL)};
    return LK_OK;
}

/* NAME=MODEL, one of those that are served */
static int add_alias(const char *text, struct lk_err *err) {
    const char *equals = strchr(text, '=');
    for (size_t i = 0; equals && equals > text && i < served_count; i++) {
        if (strcmp(served[i].name, equals + 1)) continue;
        char *name = lk_strndup(text, (size_t)(equals - text)); /* lives as long as the process */
        return name ? add_name(name, &served[i], err) : lk_fail(err, LK_ENOMEM, "no memory for an alias");
    }
    return lk_fail(err, LK_EINVAL, "--alias %s is not NAME=MODEL with one of the models that are served", text);
}

static void print_plan(const struct served *s) {
    const struct lk_layout *l = &s->m.model.layout;
    char weights[32], fixed[32], pages[32];
    uint64_t cache = lk_attention_cache_bytes(l, cmd_cache(wanted.cache), wanted.page, s->pages);
    printf("model  %s\n  root      %s\n  weights   %s, mapped; beside them panels and work space: %s\n"
           "  pages     %u of %u positions, %s: %u texts of %u tokens\n",
           s->name, s->root, lk_format_bytes(l->floats * sizeof(float), weights), lk_format_bytes(fixed_bytes(s), fixed),
           s->pages, wanted.page, lk_format_bytes(cache, pages),
           (unsigned)((uint64_t)s->pages * wanted.page / l->config.context), l->config.context);
}

static int open_all(struct cmd_context *c, struct lk_err *err) {
    int code = LK_OK;
    uint64_t fixed = 0, available;
    for (int i = 0; i < c->argument_count && !code; i++) {
        served[i].name = c->arguments[i];
        code = open_model(c, &served[i], err);
        if (!code) fixed += fixed_bytes(&served[i]);
    }
    available = lk_memory_available_bytes();
    uint64_t memory = wanted.memory ? wanted.memory : available > fixed ? (available - fixed) / 2 : 0;
    char has[32], needs[32];
    if (!code && fixed + wanted.memory > available)
        lk_log_warn("%s of memory are free, and the models and --memory take %s", lk_format_bytes(available, has),
                    lk_format_bytes(fixed + wanted.memory, needs));
    for (size_t i = 0; i < served_count && !code; i++) {
        code = open_batch(c, &served[i], memory / served_count, err);
        if (!code) code = add_name(served[i].name, &served[i], err);
    }
    for (size_t i = 0; i < wanted.aliases.count && !code; i++) code = add_alias(wanted.aliases.items[i], err);
    return code;
}

static void close_all(void) {
    for (size_t i = 0; i < served_count; i++) {
        lk_batch_close(served[i].batch);
        lk_tokenizer_free(served[i].tokenizer);
        cmd_model_close(&served[i].m);
    }
}

/* --- The server ------------------------------------------------------------------------------------------ */

static void on_signal(int number) {
    if (number == SIGHUP)
        reread = 1;
    else
        lk_api_stop(api);
}
static void tick(void *arg) {
    struct lk_keys *keys = arg;
    struct lk_err err = {0};
    if (!reread) return;
    reread = 0;
    if (!keys) return;
    if (lk_keys_reload(keys, &err))
        lk_log_warn("the keys stay as they were: %s", err.message);
    else
        lk_log_warn("%u keys read again", lk_keys_count(keys));
}

/* --- Newer checkpoints ----------------------------------------------------------------------------------- */

static pthread_t follower;
static atomic_bool following;

static void close_newer(void *arg) {
    lk_model_close(arg);
    lk_free(arg);
}

/* A run's newest checkpoint, if it is not the one that is served. */
static int follow_one(struct lk_store *store, struct served *s, uint32_t *step, struct lk_err *err) {
    struct lk_model_ref ref;
    struct lk_model *m = lk_calloc(1, sizeof *m);
    char root[LK_ROOT_HEX];
    if (!m) return lk_fail(err, LK_ENOMEM, "no memory for a model");
    int code = lk_model_find(store, s->name, false, NULL, NULL, &ref, m, err);
    bool newer = !code && ref.step != *step;
    if (!code) lk_model_close(m);
    if (newer) code = lk_model_find(store, s->name, true, NULL, NULL, &ref, m, err);
    if (!newer || code) {
        lk_free(m);
        return code;
    }
    lk_root_hex(&m->weights_root, root);
    code = lk_api_swap(api, s->batch, &(struct lk_batch_weights){&m->layout, m->weights, close_newer, m}, root, err);
    if (code) {
        close_newer(m);
        return code;
    }
    *step = ref.step;
    lk_log_warn("%s: step %u now, root %s", s->name, ref.step, root);
    return LK_OK;
}

static void *follow(void *arg) {
    struct cmd_context *c = arg;
    uint32_t steps[MODELS_MOST];
    char told[MODELS_MOST][256] = {{0}};
    for (size_t i = 0; i < served_count; i++) steps[i] = served[i].m.ref.step;
    while (following) {
        for (size_t i = 0; i < served_count && following; i++) {
            struct lk_err err = {0};
            if (!served[i].m.ref.is_run || strchr(served[i].name, '@')) continue;
            if (!follow_one(c->store, &served[i], &steps[i], &err)) {
                *told[i] = 0;
                continue;
            }
            if (strncmp(told[i], err.message, sizeof told[i] - 1))
                lk_log_warn("%s goes on with step %u: %s", served[i].name, steps[i], err.message);
            snprintf(told[i], sizeof told[i], "%.255s", err.message); /* once, not each second */
        }
        for (int i = 0; i < 10 && following; i++) usleep(100000);
    }
    return NULL;
}

static int check(struct cmd_context *c) {
    if (c->argument_count > MODELS_MOST)
        return cmd_usage_error(c, "%d models are more than %d", c->argument_count, MODELS_MOST);
    if (wanted.keys && wanted.no_keys) return cmd_usage_error(c, "--keys and --no-keys do not go together");
    if (!wanted.keys && !wanted.no_keys && !lk_http_is_loopback(wanted.listen))
        return cmd_usage_error(c,
                               "--listen %s lets others come: give --keys FILE (`lockstep serve key NAME` makes keys), or "
                               "--no-keys to let anybody ask",
                               wanted.listen);
    if (wanted.rows < wanted.slots)
        return cmd_usage_error(c, "--rows %u is less than --slots %u", wanted.rows, wanted.slots);
    if (!wanted.certificate != !wanted.key) return cmd_usage_error(c, "--tls-cert and --tls-key go together");
    return CMD_OK;
}

static int run(struct cmd_context *c, struct lk_keys *keys, struct lk_err *err) {
    struct lk_api_options o = {.listen = wanted.listen,
                               .tls_certificate = wanted.certificate,
                               .tls_key = wanted.key,
                               .keys = keys,
                               .models = names,
                               .model_count = name_count,
                               .most_choices = wanted.choices,
                               .limits = {.connections = wanted.connections,
                                          .connections_per_client = wanted.of_one,
                                          .idle_ms = 2000 * wanted.client_s,
                                          .request_ms = 1000 * wanted.client_s},
                               .timeout_ms = wanted.timeout_s * 1000,
                               .tick = tick,
                               .arg = keys};
    int code = lk_api_open(&o, &api, err);
    if (code) return code;
    struct sigaction act = {.sa_handler = on_signal};
    sigaction(SIGINT, &act, NULL), sigaction(SIGTERM, &act, NULL), sigaction(SIGHUP, &act, NULL);
    signal(SIGPIPE, SIG_IGN);
    const char *scheme = wanted.certificate ? "https" : "http";
    if (c->json)
        printf("{\"address\":\"%s\",\"scheme\":\"%s\"}\n", lk_api_address(api), scheme);
    else
        printf("ready  %s://%s/v1\n", scheme, lk_api_address(api));
    fflush(stdout);
    following = wanted.follow;
    if (following && (errno = lk_thread_start(&follower, follow, c))) {
        code = lk_fail_errno(err, "cannot start a thread that looks for checkpoints");
        lk_api_stop(api);
        following = false;
    }
    lk_api_run(api, wanted.drain_s * 1000);
    act.sa_handler = SIG_IGN; /* it ends already, and soon there is no api to stop */
    sigaction(SIGINT, &act, NULL), sigaction(SIGTERM, &act, NULL), sigaction(SIGHUP, &act, NULL);
    if (following) {
        following = false;
        pthread_join(follower, NULL);
    }
    lk_api_close(api);
    return code;
}

static int serve(struct cmd_context *c) {
    struct lk_err err = {0};
    struct lk_keys *keys = NULL;
    int code = check(c);
    if (code) return code;
    signal(SIGHUP, SIG_IGN); /* until there is somebody to read the keys again */
    code = wanted.keys ? lk_keys_open(wanted.keys, &keys, &err) : LK_OK;
    if (!code) code = open_all(c, &err);
    for (size_t i = 0; !code && !c->json && i < served_count; i++) print_plan(&served[i]);
    if (!code) code = run(c, keys, &err);
    close_all();
    lk_keys_close(keys);
    if (!code) return CMD_OK;
    return *err.message ? cmd_fail(&err) : CMD_FAILED;
}
const struct cmd cmd_serve = {
    "serve",
    "MODEL|RUN[@STEP]...",
    1,
    -1,
    "Serve models by OpenAI's HTTP API.",
    (const struct cmd_option[]){
        CMD_STRING("--listen", "HOST:PORT", &wanted.listen, "127.0.0.1:8080", "where; port 0: any that is free"),
        CMD_STRING("--keys", "FILE", &wanted.keys, NULL, "who may ask; `lockstep serve key` makes its lines"),
        CMD_FLAG("--no-keys", &wanted.no_keys, "let anybody ask, also from other machines"),
        CMD_U32("--slots", "N", &wanted.slots, 1, LK_BATCH_SLOTS_MOST, "16", "texts that are computed together"),
        CMD_CALL(
            "--memory", "SIZE", &wanted.memory, take_size, NULL,
            "for keys and values of all models, as 4G; half of what is free, but no more than slots can use, unless given"),
        CMD_U32("--queue", "N", &wanted.queue, 0, 100000, "256", "requests that wait; beyond: 429"),
        CMD_LIST("--alias", "NAME=MODEL", &wanted.aliases, "another name for requests to call a model by; may be repeated"),
        CMD_CALL("--template", "NAME", &wanted.chat, cmd_take_template, NULL,
                 "of conversations, instead of the models' own: " LK_CHAT_NAMES),
        CMD_FLAG("--follow", &wanted.follow, "runs: serve newer checkpoints as they come"),
        CMD_U32("--draft", "N", &wanted.draft, 0, 15, "7", "tokens guessed ahead from the text, where that pays; 0: none"),
        CMD_U32("--choices", "N", &wanted.choices, 1, 128, "16", "n of a request, at most"),
        CMD_U32("--timeout", "SECONDS", &wanted.timeout_s, 0, 4000000, "600", "a request ends after this; 0: never"),
        CMD_U32("--drain", "SECONDS", &wanted.drain_s, 0, 4000000, "30", "for what runs when the server is told to end"),
        CMD_U32("--connections", "N", &wanted.connections, 1, 100000, "1000", "at the same time; beyond: closed"),
        CMD_U32("--of-one-client", "N", &wanted.of_one, 1, 100000, "256", "connections of one IP address; a proxy is one"),
        CMD_U32("--client-timeout", "SECONDS", &wanted.client_s, 1, 3600, "30",
                "for a client to send a request; twice that to begin one, and to read on"),
        CMD_U32("--rows", "N", &wanted.rows, 1, 65536, "512", "tokens of one pass, at most"),
        CMD_U32("--page", "N", &wanted.page, 1, 65536, "32", "positions of a page of keys and values"),
        CMD_CACHE("--cache", &wanted.cache),
        CMD_STRING("--tls-cert", "FILE", &wanted.certificate, NULL, "PEM; speak HTTPS"),
        CMD_STRING("--tls-key", "FILE", &wanted.key, NULL, "its key, PEM"),
        CMD_END},
    "A request's tokens and log-probabilities do not depend on what else is served, and equal those of `lockstep generate` "
    "and of training, by bits.\n"
    "SIGTERM and Ctrl-C: no new requests, those that run are finished. SIGHUP: the keys are read again.",
    serve};
