/* Completion for bash and zsh from the commands' tables. A placeholder ("RUN", "[FILE]", "bash|zsh") says what may stand
 * there; both shells get it as words joined by '|':  @NOUN names that `lockstep NOUN list` gives,  / files,  // folders,
 * @commands,  or the word itself. */
#include "help.h"

#include <string.h>

/* --- what may stand at a placeholder ---------------------------------------------------------------------- */

static const char *const words[][2] = {
    {"T", "@tokenizer"}, {"TOKENIZER", "@tokenizer"}, {"DATASET", "@dataset"}, {"RUN", "@runs"},
    {"MODEL", "@model"}, {"TABLE", "@table"},         {"RUN@STEP", "@runs"},   {"RUN[@STEP]", "@runs"},
    {"DIR", "//"},       {"COMMAND", "@commands"},    {"FILE", "/"},           {"CONFIG.ini", "/"},
};

/* One alternative of a placeholder; "" when nothing is known about it. */
static const char *word(const char *text, size_t size, bool alternatives, char out[32]) {
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strlen(words[i][0]) == size && strncmp(words[i][0], text, size) == 0) return words[i][1];
    bool literal = alternatives && size < 32;
    for (size_t i = 0; i < size; i++)
        literal = literal && ((text[i] >= 'a' && text[i] <= 'z') || text[i] == '-' || (text[i] >= '0' && text[i] <= '9'));
    snprintf(out, 32, "%.*s", literal ? (int)size : 0, text);
    return out;
}

/* placeholder (size characters, without brackets and dots): "@runs|@model" */
static void what(const char *placeholder, size_t size, char out[128]) {
    char literal[32];
    size_t n = 0;
    bool alternatives = memchr(placeholder, '|', size) != NULL;
    out[0] = 0;
    for (size_t i = 0; i < size;) {
        size_t length = 0;
        while (i + length < size && placeholder[i + length] != '|') length++;
        const char *w = word(placeholder + i, length, alternatives, literal);
        if (*w && n + strlen(w) + 2 < 128) n += (size_t)snprintf(out + n, 128 - n, "%s%s", n ? "|" : "", w);
        i += length + 1;
    }
}

/* One positional argument of a command; false when there are no more. */
struct argument {
    const char *text; /* in the table */
    size_t size;
    bool optional, repeats;
    char what[128];
};
static bool next_argument(const char **at, struct argument *a) {
    const char *p = *at;
    while (*p == ' ') p++;
    if (!*p) return false;
    size_t size = strcspn(p, " ");
    *at = p + size;
    a->repeats = size > 3 && strncmp(p + size - 3, "...", 3) == 0;
    if (a->repeats) size -= 3;
    a->optional = size > 2 && *p == '[' && p[size - 1] == ']';
    a->text = p + a->optional;
    a->size = size - 2 * (size_t)a->optional;
    what(a->text, a->size, a->what);
    return true;
}

static const char *verb_of(const char *name) {
    const char *space = strchr(name, ' ');
    return space ? space + 1 : NULL;
}
/* The first command of its noun: the one at which a noun is listed. */
static bool first_of_noun(const struct cmd *const *c) {
    size_t n = strcspn((*c)->name, " ");
    return c == cmd_table || strncmp(c[-1]->name, (*c)->name, n + 1) != 0;
}

/* --- bash ------------------------------------------------------------------------------------------------ */

static void bash_options(const struct cmd_option *options) {
    for (const struct cmd_option *o = options; o && o->name; o++) {
        char kind[128] = "";
        if (o->value) what(o->value, strlen(o->value), kind);
        printf("%s%s%s ", o->name, o->value ? "=" : "", kind);
    }
}

static void bash_table(void) {
    struct argument a;
    printf("_lockstep_table() { # COMMAND: sets options (with a value: OPTION=WHAT) and arguments (WHAT, or WHAT... to the "
           "end)\n"
           "    case $1 in\n");
    for (const struct cmd *const *c = cmd_table; *c; c++) {
        const char *at = (*c)->arguments;
        printf("    '%s') options='", (*c)->name);
        bash_options((*c)->options);
        printf("' arguments='");
        while (next_argument(&at, &a)) printf("%s%s ", *a.what ? a.what : "-", a.repeats ? "..." : "");
        printf("' ;;\n");
    }
    printf("    *) return 1 ;;\n    esac\n    options+='");
    bash_options(cmd_common_options);
    printf("'\n}\n_lockstep_words() { # the next words of a command, behind NOUN or at the begin\n    case $1 in\n    '') "
           "REPLY='");
    for (const struct cmd *const *c = cmd_table; *c; c++)
        if (first_of_noun(c)) printf("%.*s ", (int)strcspn((*c)->name, " "), (*c)->name);
    printf("' ;;\n");
    for (const struct cmd *const *c = cmd_table; *c; c++) {
        if (!verb_of((*c)->name)) continue;
        size_t n = strcspn((*c)->name, " ");
        if (first_of_noun(c)) printf("    %.*s) REPLY='", (int)n, (*c)->name);
        printf("%s ", verb_of((*c)->name));
        if (!c[1] || first_of_noun(c + 1)) printf("' ;;\n");
    }
    printf("    *) REPLY= ;;\n    esac\n}\n");
}

static const char bash_code[] =
    "_lockstep_complete() { # WHAT, the word so far\n"
    "    local IFS='|' word names=() REPLY\n"
    "    for word in $1; do\n"
    "        IFS=$' \\t\\n'\n"
    "        case $word in\n"
    "        @commands) _lockstep_words '' && names+=($REPLY) ;;\n"
    "        @*) names+=($(\"$program\" \"${word#@}\" list --json ${store:+--store \"$store\"} 2>/dev/null |\n"
    "            sed -n 's/^    \"name\": \"\\([^\"]*\\)\".*/\\1/p')) ;;\n"
    "        / | //)\n"
    "            compopt -o filenames 2>/dev/null\n"
    "            local kind=-f && [[ $word == / ]] || kind=-d\n"
    "            while IFS= read -r word; do COMPREPLY+=(\"$word\"); done < <(compgen $kind -- \"$2\") ;;\n"
    "        -) ;;\n"
    "        *) names+=(\"$word\") ;;\n"
    "        esac\n"
    "    done\n"
    "    COMPREPLY+=($(compgen -W \"${names[*]}\" -- \"$2\"))\n"
    "}\n"
    "_lockstep() {\n"
    "    local program=${COMP_WORDS[0]/#\\~/$HOME} store= line=() options= arguments= command REPLY word i joined=\n"
    "    COMPREPLY=()\n"
    "    for ((i = 1; i <= COMP_CWORD; i++)); do # \"--option=value\" comes as three words\n"
    "        word=${COMP_WORDS[i]}\n"
    "        if [[ $word == = && ${#line[@]} -gt 0 ]]; then line[${#line[@]}-1]+== joined=yes\n"
    "        elif [[ $joined ]]; then line[${#line[@]}-1]+=$word joined=\n"
    "        else line+=(\"$word\"); fi\n"
    "    done\n"
    "    local last=$((${#line[@]} - 1))\n"
    "    local current=${line[last]} begin=2\n"
    "    if ((last == 0)); then _lockstep_words '' && COMPREPLY=($(compgen -W \"$REPLY --help --version\" -- "
    "\"$current\")) && return; fi\n"
    "    _lockstep_words \"${line[0]}\"\n"
    "    if ((last == 1)) && [[ $REPLY ]]; then COMPREPLY=($(compgen -W \"$REPLY\" -- \"$current\")) && return; fi\n"
    "    command=\"${line[0]} ${line[1]}\"\n"
    "    [[ $REPLY ]] || { command=${line[0]} && begin=1; }\n"
    "    _lockstep_table \"$command\" || return\n"
    "    local position=0 value= option what\n"
    "    for ((i = begin; i < last; i++)); do\n"
    "        word=${line[i]}\n"
    "        if [[ $value ]]; then # of the option before\n"
    "            [[ $value != --store ]] || store=${word/#\\~/$HOME}\n"
    "            value=\n"
    "        elif [[ $word == --store=* ]]; then word=${word#*=} && store=${word/#\\~/$HOME}\n"
    "        elif [[ $word == -?* ]]; then\n"
    "            for option in $options; do [[ $option != \"$word\"=* ]] || value=$word; done\n"
    "        else ((position++)); fi\n"
    "    done\n"
    "    [[ $value || $current != --*=* ]] || { value=${current%%=*} && current=${current#*=}; }\n"
    "    if [[ $value ]]; then\n"
    "        for option in $options; do [[ $option != \"$value\"=* ]] || _lockstep_complete \"${option#*=}\" \"$current\"; "
    "done\n"
    "    elif [[ $current == -* ]]; then\n"
    "        for option in $options; do COMPREPLY+=($(compgen -W \"${option%%=*}\" -- \"$current\")); done\n"
    "    else\n"
    "        for what in $arguments; do\n"
    "            if ((position-- == 0)) || [[ $what == *... ]]; then _lockstep_complete \"${what%...}\" \"$current\" && "
    "return; fi\n"
    "        done\n"
    "    fi\n"
    "}\n"
    "complete -F _lockstep lockstep\n";

int cmd_write_bash(void) {
    printf("# Completion of lockstep in bash, made by `lockstep help --completion bash` from the table that makes -h.\n");
    bash_table();
    printf("%s", bash_code);
    return CMD_OK;
}

/* --- zsh ------------------------------------------------------------------------------------------------- */

/* Within single quotes, and within what _arguments and _describe take apart. */
static void zsh_text(const char *text) {
    for (; *text && *text != '\n'; text++) {
        if (*text == '\'')
            printf("'\\''");
        else
            printf("%s%c", strchr("[]:\\", *text) ? "\\" : "", *text);
    }
}
static void zsh_what(const char *placeholder, size_t size, const char *kind) {
    printf(":");
    for (size_t i = 0; i < size; i++) printf("%s%c", strchr("[]:\\", placeholder[i]) ? "\\" : "", placeholder[i]);
    printf(*kind ? ":_lockstep_complete \"%s\"" : ": ", kind);
}

static void zsh_options(const struct cmd_option *options) {
    for (const struct cmd_option *o = options; o && o->name; o++) {
        char kind[128] = "", help[256];
        printf(" '%s%s[", o->name, o->value ? (o->name[1] == '-' ? "=" : "") : "");
        zsh_text(cmd_option_help(o, help));
        printf("]");
        if (o->value) {
            what(o->value, strlen(o->value), kind);
            zsh_what(o->value, strlen(o->value), kind);
        }
        printf("'");
    }
}

static void zsh_command(const struct cmd *cmd) {
    struct argument a;
    const char *at = cmd->arguments;
    printf("    '%s') arguments=(", cmd->name);
    zsh_options(cmd->options);
    while (next_argument(&at, &a)) {
        printf(" '%s", a.repeats ? "*" : a.optional ? ":" : "");
        zsh_what(a.text, a.size, a.what);
        printf("'");
    }
    printf(" ) ;;\n");
}

static const char zsh_code[] =
    "_lockstep_complete() { # [options of compadd] WHAT\n"
    "    local word store=${opt_args[--store]} program=$lockstep_program\n"
    "    local -a names\n"
    "    for word in ${(s:|:)@[-1]}; do\n"
    "        case $word in\n"
    "        @commands) names+=($lockstep_words) ;;\n"
    "        @*) names+=(${(f)\"$($program ${word#@} list --json ${store:+--store} ${store:+$store} 2>/dev/null |\n"
    "            sed -n 's/^    \"name\": \"\\([^\"]*\\)\".*/\\1/p')\"}) ;;\n"
    "        /) _files \"${@[1,-2]}\" ;;\n"
    "        //) _files \"${@[1,-2]}\" -/ ;;\n"
    "        *) names+=($word) ;;\n"
    "        esac\n"
    "    done\n"
    "    (( $#names )) && compadd \"${@[1,-2]}\" -a names\n"
    "}\n";

int cmd_write_zsh(void) {
    printf("#compdef lockstep\n# Completion of lockstep in zsh, made by `lockstep help --completion zsh` from the table "
           "that makes "
           "-h.\n%s_lockstep() {\n    local lockstep_program=${(Q)words[1]} command\n    local -A opt_args\n"
           "    local -a arguments verbs lockstep_words=(",
           zsh_code);
    for (const struct cmd *const *c = cmd_table; *c; c++)
        if (first_of_noun(c)) printf(" %.*s", (int)strcspn((*c)->name, " "), (*c)->name);
    printf(" )\n    if (( CURRENT == 2 )); then\n        _wanted commands expl command compadd -a lockstep_words\n        "
           "return\n"
           "    fi\n    case $words[2] in\n");
    for (const struct cmd *const *c = cmd_table; *c; c++) {
        if (!verb_of((*c)->name)) continue;
        if (first_of_noun(c)) printf("    %.*s) verbs=(", (int)strcspn((*c)->name, " "), (*c)->name);
        printf(" '%s:", verb_of((*c)->name));
        zsh_text((*c)->summary);
        printf("'");
        if (!c[1] || first_of_noun(c + 1)) printf(" ) ;;\n");
    }
    printf(
        "    esac\n    if (( $#verbs && CURRENT == 3 )); then\n        _describe -t commands verb verbs\n        return\n  "
        "  fi\n"
        "    command=$words[2]\n    if (( $#verbs )); then\n        command=\"$words[2] $words[3]\"\n        shift words\n"
        "        (( CURRENT-- ))\n    fi\n    shift words\n    (( CURRENT-- ))\n    case $command in\n");
    for (const struct cmd *const *c = cmd_table; *c; c++) zsh_command(*c);
    printf("    *) return 1 ;;\n    esac\n    _arguments -S $arguments");
    zsh_options(cmd_common_options);
    printf("\n}\n_lockstep \"$@\"\n");
    return CMD_OK;
}
