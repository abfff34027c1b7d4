#!/bin/sh
# Writes 40,000,000 bytes of real, varied text, valid UTF-8, to a file:  bench/text.sh FILE
# The King James Bible, the modules and manuals of Perl (code), and the GNU Collaborative International Dictionary of
# English, from Debian's packages bible-kjv, perl-modules and dict-gcide. The same bytes where the same versions are installed.
set -eu
[ $# = 1 ] || { echo "usage: bench/text.sh FILE" >&2; exit 2; }
gcide=/usr/share/dictd/gcide.dict.dz
for need in "$(command -v bible)" "$gcide" /usr/share/perl; do
    [ -e "$need" ] || { echo "bench/text.sh: apt-get install bible-kjv dict-gcide perl-modules" >&2; exit 1; }
done
{
    bible gen1:1-rev22:21
    find /usr/share/perl/ -type f \( -name '*.pm' -o -name '*.pod' -o -name '*.pl' \) ! -path '*/unicore/*' -print0 |
        LC_ALL=C sort -z | xargs -0 cat
    gzip -dc <"$gcide"
} 2>/dev/null | iconv -c -f utf-8 -t utf-8 2>/dev/null | head -c 40000000 | iconv -c -f utf-8 -t utf-8 >"$1" || true
[ "$(wc -c <"$1")" -gt 39000000 ] || { echo "bench/text.sh: only $(wc -c <"$1") bytes of text" >&2; exit 1; }
