"""Writes regex_golden.h: what RE2 (google-re2 from PyPI) says of random patterns in Latin-1 mode, matched whole.
usage: python3 regex_golden.py >regex_golden.h"""
import random
import re2

PIECES = r"""a b c . \C \d \w \W \s [ab] [^a] [a-c] ^ $ \b \B \A \z \n (?i) (?m) (?s) (?-m) (?U) (?i:a) ( ( (?: ) ) | | * + ?
{2} {1,3} {0} {2,} {,2} { } *? \Qa*\E \x61 \x{62} \141 \xE9 [\xe0-\xff] \pL \PL \p{Lu} \p{^Lu} \p{Greek} [[:alpha:]]
[[:^alpha:]] [^[:space:]x] []a] [^]a] [a-] [\d-z] (?P<n>a) (?<m>b) ab _ A B .* \C* .+ abc \0 \- [\pN_] [\PNa]""".split()
PIECES = [p.encode() for p in PIECES] + [b"\xe9", b"\n", b" ", b"\0"]
RARE = r"""[[:bad:]] \p{Bad} [ ] \ (? - \1 \E \Z [b-a] {1001} {3,2} (?=a) (?<!a) (?>a) \x{100} \k<n> a** (?i)[a-k] (?i)\PL
(?i)[^[:lower:]] (?i)[[:^upper:]] (?i)\xe9 (a{30}){40} (?#c) \cA \e \h""".split()
RARE = [p.encode() for p in RARE]
LETTERS = b"abcABC_ 01\n\xe9\xc9\0-xk\xff"


def pattern(r):
    out = b"".join(r.choice(RARE if r.random() < 0.04 else PIECES) for _ in range(r.randint(0, 9)))
    return out + b")" * max(0, out.count(b"(") - out.count(b")")) if r.random() < 0.6 else out


def text(r, n):
    return bytes(r.choice(LETTERS if n % 2 else b"abc") for _ in range(r.randint(0, 5)))


def main():
    r = random.Random(20261129)
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    print("/* Made by regex_golden.py: pattern, NULL if RE2 refuses it, else texts with whether it matches; bytes in hex. */")
    print("#include <stddef.h>")
    print("static const char *const regex_golden[][2] = {")
    for _ in range(1500):
        p = pattern(r)
        try:
            compiled = re2.compile(p, options)
        except re2.error:
            print('    {"%s", NULL},' % p.hex())
            continue
        found = {t: compiled.fullmatch(t) is not None for t in (text(r, n) for n in range(8))}
        yes = [t for t in found if found[t]][:3]
        no = [t for t in found if not found[t]][: 4 - len(yes)]
        print('    {"%s", "%s"},' % (p.hex(), " ".join("%s=%d" % (t.hex(), found[t]) for t in yes + no)))
    print("};")


main()
