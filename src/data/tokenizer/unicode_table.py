#!/usr/bin/env python3
"""Writes unicode_table.c: the class of every code point, for the patterns.

    pip install unicodedata2==16.0.0 && python3 unicode_table.py > unicode_table.c

Unicode 16.0.0 is what tokenizers 0.23.3 and tiktoken 0.14.0 were built with: on all 1,112,064 scalar values the classes
written here are those two libraries' (tests/peers/tokenizer_peers.py compares them again).
"""
import unicodedata2

VERSION = "16.0.0"
BLOCK = 128
# White_Space of PropList.txt; unchanged since Unicode 6.3, so a list is shorter than a parser.
SPACE = {*range(9, 14), 32, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000}


def class_of(c):
    if c in SPACE:
        return 3
    major = unicodedata2.category(chr(c))[0]
    return {"L": 1, "N": 2}.get(major, 0)


def case_of(c):
    """In o200k's two sets: 1 the first (upper), 2 the second (lower), 3 both."""
    category = unicodedata2.category(chr(c))
    if category in ("Lu", "Lt"):
        return 1
    return 2 if category == "Ll" else 3 if category in ("Lm", "Lo") or category[0] == "M" else 0


def rows(values, per_line, text):
    for i in range(0, len(values), per_line):
        print("    " + " ".join(text(v) + "," for v in values[i : i + per_line]))


def put_table(values, first_name, name, comment):
    blocks, first = {}, []
    for at in range(0, len(values), BLOCK):
        first.append(blocks.setdefault(tuple(values[at : at + BLOCK]), len(blocks)))
    assert len(blocks) <= 256 or first_name == "case_block"
    print("/* Block of 128 code points -> row of the second table. */")
    print("const %s lk__tokenizer_unicode_%s[%d] = {" % ("uint8_t" if first_name == "block" else "uint16_t", first_name, len(first)))
    rows(first, 28, lambda v: "%d" % v)
    print("};")
    print("/* %s */" % comment)
    print("const uint8_t lk__tokenizer_unicode_%s[%d][%d] = {" % (name, len(blocks), BLOCK // 4))
    for block in blocks:
        packed = [sum(block[i + j] << (2 * j) for j in range(4)) for i in range(0, BLOCK, 4)]
        print("    {%s}," % ",".join("%d" % v for v in packed))
    print("};")


def main():
    assert unicodedata2.unidata_version == VERSION, unicodedata2.unidata_version
    classes = [class_of(c) for c in range(0x110000)]
    cases = [case_of(c) for c in range(0x110000)]
    ends = []
    for values in (classes, cases):
        end = max(c for c, k in enumerate(values) if k) + 1
        ends.append((end + BLOCK - 1) // BLOCK * BLOCK)
    print("/* Written by unicode_table.py from Unicode %s; do not edit. */" % VERSION)
    print('#include "data/tokenizer/pretoken.h"\n')
    print("/* clang-format off */")
    print('const char lk__tokenizer_unicode_version[] = "%s";' % VERSION)
    print("const uint32_t lk__tokenizer_unicode_end = 0x%x;" % ends[0])
    put_table(classes[: ends[0]], "block", "class",
              "Four classes a byte, the first in the low bits: 0 other, 1 letter, 2 number, 3 white space.")
    print("const uint32_t lk__tokenizer_unicode_case_end = 0x%x;" % ends[1])
    put_table(cases[: ends[1]], "case_block", "case",
              "Four a byte: 1 Lu, Lt; 2 Ll; 3 Lm, Lo, Mn, Mc, Me; 0 all others.")


main()
