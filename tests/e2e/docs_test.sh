#!/bin/bash
# Every `lockstep` command in the code of the guides parses: its command and options exist, and its keys are known to train.
. "$(dirname "$0")/lib.sh"
DOCS=$HERE/../../docs

# commands FILE: the lines of fenced code that call lockstep, without redirections, comments and variables before them
commands() {
    awk '/^```/ { inside = !inside; next } inside' "$1" | sed -nE 's/^([A-Z_]+=[^ ]+ )*lockstep /lockstep /p' | sed -E 's/ +#.*//; s/ [>|<].*//'
}
for page in tutorial fine-tuning how-to kv tables; do
    check "$page has commands" test "$(commands "$DOCS/$page.md" | wc -l)" -ge 10
    while IFS= read -r line; do
        eval "words=($line)"
        # -h at the end: options before it are parsed, nothing runs
        check "$page: $line" "$LOCKSTEP" "${words[@]:1}" -h
        [ "${words[1]}" = train ] || continue
        for word in "${words[@]:2}"; do
            case $word in [a-z]*.*=*) check "$page: the key ${word%%=*}" bash -c '"$0" train --keys | awk -v k="$1" "/^\[/ { s = substr(\$1, 2, length(\$1) - 2) } s \".\" \$1 == k { found = 1 } END { exit !found }"' \
                "$LOCKSTEP" "${word%%=*}" ;; esac
        done
    done < <(commands "$DOCS/$page.md")
done
# the check can fail
fails "an unknown option before -h" 2 "unknown option" -- "$LOCKSTEP" dataset show --samplez 1 x -h
finish
