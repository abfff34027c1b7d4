#!/usr/bin/env python3
"""Writes unicode_nfc.c: what normal form C needs.

    pip install unicodedata2==16.0.0 && python3 unicode_nfc.py > unicode_nfc.c

The tables are those of Unicode 9.0.0, the version of the normalizer in tokenizers 0.23.3, so that ids are equal to its: a
character assigned since then stands as it is. They are made from a later version, which by Unicode's stability policy has the
same mappings and classes for every character of 9.0.0; Perl knows which characters these are.
"""
import subprocess

import unicodedata2 as u

VERSION, FROM = "9.0.0", "16.0.0"
BLOCK = 128
HANGUL = range(0xAC00, 0xAC00 + 11172)
SLOW = 255


def assigned():
    script = r'for (0..0x10FFFF) { next if $_ >= 0xD800 && $_ < 0xE000; print "$_\n" if chr($_) =~ /\p{Present_In: 9.0}/ }'
    return set(map(int, subprocess.run(["perl", "-e", script], capture_output=True, check=True).stdout.split()))


def main():
    assert u.unidata_version == FROM, u.unidata_version
    known = assigned()
    full = {c: [ord(x) for x in u.normalize("NFD", chr(c))] for c in sorted(known) if c not in HANGUL}
    full = {c: d for c, d in full.items() if d != [c]}
    pairs = {}
    for c in full:
        parts = [int(x, 16) for x in u.decomposition(chr(c)).split()]
        if len(parts) == 2 and u.normalize("NFC", chr(c)) == chr(c):
            pairs[tuple(parts)] = c
    seconds = {b for _, b in pairs} | set(range(0x1161, 0x1176)) | set(range(0x11A8, 0x11C3))
    classes = []
    for c in range(0x110000):
        if c not in known:
            classes.append(0)
        elif u.combining(chr(c)):
            classes.append(u.combining(chr(c)))
        else:
            classes.append(SLOW if c in seconds or u.normalize("NFC", chr(c)) != chr(c) else 0)
    assert max(k for k in classes if k != SLOW) < SLOW
    end = (max(c for c, k in enumerate(classes) if k) // BLOCK + 1) * BLOCK
    blocks, first = {}, []
    for at in range(0, end, BLOCK):
        first.append(blocks.setdefault(tuple(classes[at : at + BLOCK]), len(blocks)))
    pool = []
    print("/* Written by unicode_nfc.py: Unicode %s; do not edit. */" % VERSION)
    print('#include "data/tokenizer/nfc.h"\n')
    print("/* clang-format off */")
    print('const char lk__tokenizer_nfc_version[] = "%s";' % VERSION)
    print("const uint32_t lk__tokenizer_nfc_end = 0x%x;" % end)
    print("/* Block of 128 code points -> row of the second table. */")
    print("const uint8_t lk__tokenizer_nfc_block[%d] = {" % len(first))
    rows(first, 28, "%d")
    print("};")
    assert len(blocks) <= 256
    print("/* Combining class; 255: of class 0, but changed by normal form C or joined to what stands in front; 0: neither. */")
    print("const uint8_t lk__tokenizer_nfc_class[%d][%d] = {" % (len(blocks), BLOCK))
    for block in blocks:
        print("    {%s}," % ",".join("%d" % v for v in block))
    print("};")
    print("/* Full canonical decompositions by code point: place and number in the list below. */")
    print("const struct lk__tokenizer_nfc_long lk__tokenizer_nfc_long[] = {")
    entries = []
    for c, d in full.items():
        entries.append("{0x%x,%d,%d}" % (c, len(pool), len(d)))
        pool += d
    rows(entries, 7, "%s")
    print("};\nconst size_t lk__tokenizer_nfc_long_count = %d;" % len(entries))
    print("const uint32_t lk__tokenizer_nfc_codes[%d] = {" % len(pool))
    rows(pool, 14, "0x%x")
    print("};")
    print("/* Two code points that join to a third, in the order of both. */")
    print("const struct lk__tokenizer_nfc_pair lk__tokenizer_nfc_pairs[] = {")
    rows(["{0x%x,0x%x,0x%x}" % (a, b, c) for (a, b), c in sorted(pairs.items())], 5, "%s")
    print("};\nconst size_t lk__tokenizer_nfc_pair_count = %d;" % len(pairs))


def rows(values, per_line, form):
    for i in range(0, len(values), per_line):
        print("    " + " ".join(form % v + "," for v in values[i : i + per_line]))


main()
