/* A model of the store becomes a Hugging Face folder, a GGUF file, or llm.c's checkpoint. The folder is written beside its
 * place and renamed there when it is whole and durable. */
#include "base/syscalls.h"
#include "lockstep/base/file.h"
#include "lockstep/model/models.h"
#include "weights_out.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Without slashes at its end. */
static char *plain_path(const char *dir) {
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/') n--;
    return n ? lk_strndup(dir, n) : NULL;
}

static char *parent_of(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash == path ? lk_strdup("/") : slash ? lk_strndup(path, (size_t)(slash - path)) : lk_strdup(".");
}

/* Gives what was built its name, durably; on failure what was built is removed. code: of the building. */
static int finish(const char *building, const char *place, int code, struct lk_err *err) {
    char *parent = parent_of(place);
    if (!code && !parent) code = lk_fail(err, LK_ENOMEM, "no memory for the name of a folder");
    if (!code && lk__rename(building, place)) code = lk_fail_errno(err, "cannot rename %s to %s", building, place);
    if (code)
        lk_dir_remove(building, NULL);
    else
        code = lk_dir_sync(parent, err);
    lk_free(parent);
    return code;
}

static bool is_empty_folder(const char *path) {
    DIR *d = opendir(path);
    int entries = 0;
    while (d && readdir(d)) entries++;
    if (d) closedir(d);
    return d && entries == 2; /* . and .. */
}

/* mkdtemp makes a folder for its owner alone; others may read an export as the umask says. */
static int open_to_all(const char *path) {
    mode_t mask = umask(0);
    umask(mask);
    return chmod(path, 0777 & ~mask);
}

/* A new folder beside the place, nobody else's; NULL on failure. */
static char *make_building(const char *place, struct lk_err *err) {
    char *parent = parent_of(place), *building = NULL;
    if (!parent) lk_fail(err, LK_ENOMEM, "no memory for the name of a folder");
    if (parent && lk_dir_make(parent, err) == LK_OK && !(building = lk_asprintf("%s.tmp.XXXXXX", place)))
        lk_fail(err, LK_ENOMEM, "no memory for the name of a folder");
    lk_free(parent);
    if (!building) return NULL;
    bool made = mkdtemp(building) != NULL;
    if (made && !open_to_all(building)) return building;
    lk_fail_errno(err, "cannot make the folder %s", building);
    if (made) rmdir(building);
    lk_free(building);
    return NULL;
}

/* The weights last: what else may fail does so sooner. */
static int build(struct lk_store *store, const struct lk_model *m, const struct lk_model_export *how, const char *dir,
                 struct lk_err *err) {
    char *path = lk_asprintf("%s/model.safetensors", dir);
    int code = path ? lk__model_folder_files_write(store, m, how->dtype, dir, err)
                    : lk_fail(err, LK_ENOMEM, "no memory to write %s", dir);
    if (!code) code = lk__model_safetensors_write(m, how, path, err);
    lk_free(path);
    return code ? code : lk_dir_sync(dir, err);
}

static int narrow_fails(const struct lk_model *m, struct lk_err *err) {
    return lk_fail(
        err, LK_EUNSUPPORTED,
        "the model's weights are %s, which this format does not hold: export it with --format gguf, or the model that "
        "it was made from",
        lk_dtype_name(m->narrow_matrices));
}

int lk_model_export(struct lk_store *store, const struct lk_model *m, const struct lk_model_export *how, const char *dir,
                    struct lk_err *err) {
    struct lk_err own;
    LK_ASSERT(m->weights);
    if (!err) err = &own;
    if (m->layout.narrow) return narrow_fails(m, err);
    char *place = plain_path(dir);
    const char *last = place ? strrchr(place, '/') : NULL;
    last = last ? last + 1 : place;
    if (!place || !*last || strcmp(last, ".") == 0 || strcmp(last, "..") == 0) {
        lk_free(place);
        return lk_fail(err, LK_EINVAL, "\"%s\" is no name of a new folder: say what it shall be called", dir);
    }
    int code = LK_OK;
    char *building = NULL;
    if (lk_file_exists(place) && !is_empty_folder(place))
        code = lk_fail(err, LK_EEXISTS, "%s exists and is no empty folder: remove it, or export to another one", place);
    else if (!(building = make_building(place, err)))
        code = err->code;
    if (building) code = finish(building, place, build(store, m, how, building, err), err);
    lk_free(place);
    lk_free(building);
    return code;
}

/* --- GGUF ------------------------------------------------------------------------------------------------ */

int lk_model_export_gguf(struct lk_store *store, const struct lk_model *m, const struct lk_model_export *how,
                         const char *path, struct lk_err *err) {
    LK_ASSERT(m->weights && how->dtype <= LK_F16);
    if (m->layout.narrow && how->dtype != LK_F32)
        return lk_fail(err, LK_EINVAL, "the model's weights are %s and go out as they are: leave --dtype out",
                       lk_dtype_name(m->narrow_matrices));
    if (lk_file_exists(path)) return lk_fail(err, LK_EEXISTS, "%s exists: remove it, or export to another file", path);
    char *building = lk_asprintf("%s.tmp.%ld", path, (long)getpid());
    if (!building) return lk_fail(err, LK_ENOMEM, "no memory to write %s", path);
    int code = finish(building, path, lk__model_gguf_write(store, m, how, building, err), err);
    lk_free(building);
    return code;
}

/* --- llm.c ----------------------------------------------------------------------------------------------- */

int lk_model_export_llmc(const struct lk_model *m, const struct lk_model_export *how, const char *path,
                         struct lk_err *err) {
    const struct lk_model_config *c = &m->layout.config;
    LK_ASSERT(m->weights);
    if (m->layout.narrow) return narrow_fails(m, err);
    if (c->family != LK_GPT2 || !c->tied || c->ffn != 4 * c->width)
        return lk_fail(err, LK_EUNSUPPORTED,
                       "llm.c's checkpoint holds GPT-2 only, with tied weights and an inner width of 4 times the width");
    if (how->dtype == LK_F16) return lk_fail(err, LK_EUNSUPPORTED, "llm.c's checkpoint holds f32 or bf16, no f16");
    if (lk_file_exists(path)) return lk_fail(err, LK_EEXISTS, "%s exists: remove it, or export to another file", path);
    char *building = lk_asprintf("%s.tmp.%ld", path, (long)getpid());
    if (!building) return lk_fail(err, LK_ENOMEM, "no memory to write %s", path);
    int code = finish(building, path, lk__model_llmc_write(m, how, building, err), err);
    lk_free(building);
    return code;
}
