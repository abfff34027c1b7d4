#!/bin/bash
# One sentence a line in Markdown, none of them over LONGEST characters besides code: a change then shows as the sentences that it changes.
# Code, tables, headings and lists of links are free. usage: tools/prose.sh [FILE...]    (all Markdown of the repository)
LONGEST=400
cd "$(dirname "$0")/.." || exit 1
[ $# -gt 0 ] || mapfile -t files < <(git ls-files '*.md' ':!docs/commands.md' 2>/dev/null)
awk -v longest=$LONGEST '
    function complain(what) { print FILENAME ":" FNR ": " what ": " substr($0, 1, 80); bad = 1 }
    FNR == 1 { fenced = 0; above = "" }
    { before = above; above = $0 }
    /^ *```/ { fenced = !fenced; next }
    fenced || /^ *[|#<]/ || /^ *!\[/ { next }
    # four spaces behind an empty line, or behind more of it, are code, unless a list goes on
    /^    / && (before == "" || code) && !list { code = 1; next }
    { code = 0 }
    /^ *([-*]|[0-9]+\.) / { list = 1 }
    /^[^ ]/ && !/^([-*]|[0-9]+\.) / { list = 0 }
    {
        line = $0
        sub(/^ *([-*]|[0-9]+\.) +/, "", line)              # the mark of a list
        gsub(/`[^`]*`/, "`", line)                          # code
        gsub(/\]\([^)]*\)/, "]", line)                      # where a link goes
        links = gsub(/\[[^]]*\]/, "&", line)
        words = length(line)                                # a line of formulas may be longer
        while (line ~ /\([^()]*\)/) sub(/\([^()]*\)/, "(", line) # what parentheses hold
        sub(/^\*+[^*]*\*+ /, "", line)                      # a paragraph that begins with its name
        gsub(/\[[0-9]+\. /, "[", line)                      # a table of contents
        gsub(/(e\.g|i\.e|vs|et al|cf|No|Fig|St|Dr|[^A-Za-z0-9][A-Z])\. /, "& ", line)
        gsub(/\.\.\./, "", line)
        if (line ~ /[A-Za-z0-9`"*_(\]%)][.!?]["*_)]* ([*_"`]*[A-Z0-9`]|\[|\()/) complain("two sentences on a line")
        else if (words > longest && links < 3) complain("a line of " words " characters besides code, over " longest)
    }
    END { exit bad }' "${@:-${files[@]}}" || { echo "prose: one sentence a line, $LONGEST characters at most besides code"; exit 1; }
