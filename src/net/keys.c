/* API keys and their limits. */
#include "lockstep/net/keys.h"

#include "lockstep/base/file.h"
#include "lockstep/base/hash.h"
#include "lockstep/base/mem.h"
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/stat.h>

#define NAME_MOST 64
#define FILE_MOST ((size_t)4 << 20)
#define MINUTE    60e9

/* What is left of a minute's allowance; below 0: spent ahead. */
struct account {
    double left;
    uint64_t at_ns;
};
struct key {
    char name[NAME_MOST + 1];
    struct lk_root hash;
    uint32_t number, streams_most, streams;
    double requests_most, tokens_most; /* a minute; 0: no limit */
    struct account requests, tokens;
    char *grants; /* RIGHT=PREFIX words, each with a blank before and behind it; NULL: none */
    bool there;   /* in the file that was read last */
};
struct lk_keys {
    char *path;
    pthread_mutex_t mutex;
    struct key *keys; /* by their numbers; those that are no longer there stay, for requests that run */
    uint32_t count;
};

static bool name_fits(const char *name) {
    size_t n = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.@");
    return n && n <= NAME_MOST && !name[n];
}

/* --- The file ------------------------------------------------------------------------------------------------------ */

static int limit(const char *word, struct key *k, const char *where, struct lk_err *err) {
    const char *equals = strchr(word, '=');
    char *end;
    size_t n = equals ? (size_t)(equals - word) : 0;
    errno = 0;
    unsigned long long value = equals && equals[1] >= '0' && equals[1] <= '9' ? strtoull(equals + 1, &end, 10) : 0;
    if (value && !errno && !*end && value <= 1000000000000) {
        if (n == 8 && !memcmp(word, "requests", n)) return k->requests_most = (double)value, LK_OK;
        if (n == 6 && !memcmp(word, "tokens", n)) return k->tokens_most = (double)value, LK_OK;
        if (n == 7 && !memcmp(word, "streams", n) && value <= UINT32_MAX) return k->streams_most = (uint32_t)value, LK_OK;
    }
    return lk_fail(err, LK_EINVAL, "%s: \"%.40s\" is no limit: write requests=N, tokens=N (a minute) or streams=N", where,
                   word);
}

/* read=PREFIX, write=PREFIX, admin=PREFIX: kept as they are. */
static bool is_grant(const char *word) {
    return !strncmp(word, "read=", 5) || !strncmp(word, "write=", 6) || !strncmp(word, "admin=", 6);
}
static int grant(const char *word, struct key *k, struct lk_err *err) {
    char *more = k->grants ? lk_asprintf("%s%s ", k->grants, word) : lk_asprintf(" %s ", word);
    if (!more) return lk_fail(err, LK_ENOMEM, "no memory for keys");
    lk_free(k->grants);
    k->grants = more;
    return LK_OK;
}

static int read_line(char *line, struct key *k, const char *where, struct lk_err *err) {
    char *rest = NULL, *name = strtok_r(line, " \t\r", &rest), *hash = strtok_r(NULL, " \t\r", &rest), *word;
    *k = (struct key){.there = true};
    if (!name_fits(name))
        return lk_fail(err, LK_EINVAL, "%s: a name has 1 to %d letters, digits and - _ . @", where, NAME_MOST);
    strcpy(k->name, name);
    if (!hash || strncmp(hash, "sha256:", 7) || !lk_root_parse(hash + 7, &k->hash))
        return lk_fail(err, LK_EINVAL,
                       "%s: behind the name stands sha256: and 64 hexadecimal digits, as `lockstep serve key` "
                       "prints them",
                       where);
    int code = LK_OK;
    while (!code && (word = strtok_r(NULL, " \t\r", &rest)))
        code = is_grant(word) ? grant(word, k, err) : limit(word, k, where, err);
    return code;
}

static int read_all(const char *path, struct key **out, uint32_t *count, struct lk_err *err) {
    struct stat st;
    struct lk_buf text = LK_BUF_INIT;
    uint32_t capacity = 0, n = 0;
    struct key *keys = NULL;
    int code = LK_OK;
    if (!stat(path, &st) && st.st_mode & 077)
        return lk_fail(err, LK_EINVAL, "%s: others may read or change it: chmod 600 %s", path, path);
    code = lk_file_read(path, FILE_MOST, &text, err);
    char *rest = NULL, where[4200];
    unsigned number = 0;
    for (char *line = text.data; !code && line && line < text.data + text.size; line = rest) {
        rest = memchr(line, '\n', (size_t)(text.data + text.size - line));
        if (rest) *rest++ = 0;
        number++;
        line[strcspn(line, "#")] = 0;
        if (!line[strspn(line, " \t\r")]) {
            if (!rest) break;
            continue;
        }
        if (n == capacity) {
            capacity = capacity ? 2 * capacity : 16;
            struct key *more = lk_realloc(keys, capacity * sizeof *more);
            if (!more) {
                code = lk_fail(err, LK_ENOMEM, "no memory for keys");
                break;
            }
            keys = more;
        }
        snprintf(where, sizeof where, "%s, line %u", path, number);
        code = read_line(line, &keys[n], where, err);
        for (uint32_t i = 0; !code && i < n; i++)
            if (!strcmp(keys[i].name, keys[n].name))
                code = lk_fail(err, LK_EINVAL, "%s: %s stands there twice", where, keys[n].name);
        n++;
        if (!rest) break;
    }
    lk_buf_release(&text);
    if (code) {
        for (uint32_t i = 0; i < n; i++) lk_free(keys[i].grants);
        lk_free(keys);
        return code;
    }
    *out = keys, *count = n;
    return LK_OK;
}

int lk_keys_reload(struct lk_keys *k, struct lk_err *err) {
    struct key *fresh = NULL, *all = NULL;
    uint32_t count = 0;
    int code = read_all(k->path, &fresh, &count, err);
    if (code) return code;
    pthread_mutex_lock(&k->mutex);
    all = lk_realloc(k->keys, (k->count + (size_t)count + 1) * sizeof *all);
    if (all) {
        k->keys = all;
        for (uint32_t i = 0; i < k->count; i++) all[i].there = false;
        for (uint32_t i = 0; i < count; i++) {
            uint32_t j = 0;
            while (j < k->count && strcmp(all[j].name, fresh[i].name)) j++;
            fresh[i].number = j;
            if (j < k->count) {
                lk_free(all[j].grants);
                fresh[i].requests = all[j].requests, fresh[i].tokens = all[j].tokens, fresh[i].streams = all[j].streams;
            } else {
                fresh[i].requests.left = fresh[i].requests_most, fresh[i].tokens.left = fresh[i].tokens_most;
                k->count++;
            }
            all[j] = fresh[i];
        }
    } else {
        for (uint32_t i = 0; i < count; i++) lk_free(fresh[i].grants);
        code = lk_fail(err, LK_ENOMEM, "no memory for keys");
    }
    pthread_mutex_unlock(&k->mutex);
    lk_free(fresh);
    return code;
}

int lk_keys_open(const char *path, struct lk_keys **out, struct lk_err *err) {
    struct lk_keys *k = lk_calloc(1, sizeof *k);
    if (!k || !(k->path = lk_strdup(path))) {
        lk_free(k);
        return lk_fail(err, LK_ENOMEM, "no memory for keys");
    }
    pthread_mutex_init(&k->mutex, NULL);
    int code = lk_keys_reload(k, err);
    if (code)
        lk_keys_close(k);
    else
        *out = k;
    return code;
}
void lk_keys_close(struct lk_keys *k) {
    if (!k) return;
    pthread_mutex_destroy(&k->mutex);
    for (uint32_t i = 0; i < k->count; i++) lk_free(k->keys[i].grants);
    lk_free(k->keys);
    lk_free(k->path);
    lk_free(k);
}
uint32_t lk_keys_count(struct lk_keys *k) {
    uint32_t there = 0;
    pthread_mutex_lock(&k->mutex);
    for (uint32_t i = 0; i < k->count; i++) there += k->keys[i].there;
    pthread_mutex_unlock(&k->mutex);
    return there;
}

/* --- Who asks ------------------------------------------------------------------------------------------------------- */

int lk_keys_find(struct lk_keys *k, const char *authorization, uint32_t *key) {
    const char *text = authorization ? authorization : "";
    struct lk_root hash;
    uint32_t found = UINT32_MAX;
    if (!strncasecmp(text, "Bearer ", 7)) text += 7;
    text += strspn(text, " ");
    lk_sha256(text, strlen(text), &hash);
    pthread_mutex_lock(&k->mutex);
    for (uint32_t i = 0; i < k->count; i++) { /* all of them, all bytes: time tells nothing */
        uint32_t different = !k->keys[i].there;
        for (size_t j = 0; j < sizeof hash.bytes; j++) different |= hash.bytes[j] ^ k->keys[i].hash.bytes[j];
        uint32_t same = ((different | (0 - different)) >> 31) - 1; /* all ones, or 0 */
        found = (found & ~same) | (i & same);
    }
    pthread_mutex_unlock(&k->mutex);
    *key = found;
    return found == UINT32_MAX ? LK_ENOTFOUND : LK_OK;
}

bool lk_keys_may(struct lk_keys *k, uint32_t key, const char *right, const char *name) {
    size_t n = strlen(right);
    bool may = false;
    pthread_mutex_lock(&k->mutex);
    const char *at = key < k->count && k->keys[key].there ? k->keys[key].grants : NULL;
    for (; at && !may && (at = strchr(at, ' ')) && *++at;) {
        if (strncmp(at, right, n) || at[n] != '=') continue;
        const char *prefix = at + n + 1;
        size_t size = strcspn(prefix, " ");
        may = (size == 1 && *prefix == '*') || !strncmp(prefix, name, size);
    }
    pthread_mutex_unlock(&k->mutex);
    return may;
}

/* An account fills up again over a minute. Seconds until there is `needed` in it. */
static double wait_for(struct account *a, double most, double needed, uint64_t now_ns) {
    if (most == 0) return 0;
    if (a->at_ns && now_ns > a->at_ns) a->left += most * (double)(now_ns - a->at_ns) / MINUTE;
    if (a->left > most) a->left = most;
    a->at_ns = now_ns;
    return a->left >= needed ? 0 : (needed - a->left) / most * 60;
}

int lk_keys_begin(struct lk_keys *k, uint32_t key, uint64_t now_ns, uint32_t *wait_s, struct lk_err *err) {
    int code = LK_OK;
    pthread_mutex_lock(&k->mutex);
    LK_ASSERT(key < k->count);
    struct key *q = &k->keys[key];
    double requests = wait_for(&q->requests, q->requests_most, 1, now_ns),
           tokens = wait_for(&q->tokens, q->tokens_most, 1, now_ns);
    double wait = requests > tokens ? requests : tokens;
    *wait_s = wait > 0 ? (uint32_t)wait + 1 : 0;
    if (requests > 0)
        code = lk_fail(err, LK_EBUSY, "key %s has asked %.0f times in a minute, its limit: try again in %u s", q->name,
                       q->requests_most, *wait_s);
    else if (tokens > 0)
        code = lk_fail(err, LK_EBUSY, "key %s has had %.0f tokens in a minute, its limit: try again in %u s", q->name,
                       q->tokens_most, *wait_s);
    else if (q->streams_most && q->streams >= q->streams_most)
        *wait_s = 1, code = lk_fail(err, LK_EBUSY, "key %s has %u requests running, its limit", q->name, q->streams);
    else
        q->streams++, q->requests.left -= q->requests_most > 0;
    pthread_mutex_unlock(&k->mutex);
    return code;
}

void lk_keys_end(struct lk_keys *k, uint32_t key, uint64_t tokens) {
    pthread_mutex_lock(&k->mutex);
    struct key *q = &k->keys[key];
    q->streams--;
    if (q->tokens_most > 0) q->tokens.left -= (double)tokens;
    pthread_mutex_unlock(&k->mutex);
}

int lk_key_make(const char *name, char key[LK_KEY_TEXT], char line[256], struct lk_err *err) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    unsigned char random[33] = {0};
    struct lk_root hash;
    char hex[LK_ROOT_HEX];
    if (!name_fits(name))
        return lk_fail(err, LK_EINVAL, "\"%s\" is no name of a key: it has 1 to %d letters, digits and - _ . @", name,
                       NAME_MOST);
    if (getrandom(random, 32, 0) != 32) return lk_fail_errno(err, "the system gives no random numbers");
    char *to = key + sprintf(key, "lk-");
    for (int bit = 0; bit < 256; bit += 6) { /* the last one has four bits of the key */
        unsigned two = (unsigned)random[bit / 8] << 8 | random[bit / 8 + 1];
        *to++ = digits[two >> (10 - bit % 8) & 63];
    }
    *to = 0;
    lk_sha256(key, strlen(key), &hash);
    snprintf(line, 256, "%s sha256:%s", name, lk_root_hex(&hash, hex));
    return LK_OK;
}
