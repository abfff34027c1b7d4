#!/bin/bash
# lockstep kv: rows of any bytes in and out, ranges, whole stores copied and made smaller, Lockstep's own rows left alone.
. "$(dirname "$0")/lib.sh"

kv() { "$LOCKSTEP" kv "$@"; }
hex() { od -An -v -tx1 "$@" | tr -d ' \n'; }

# --- single rows
check "put" kv put apple red
equal "get: the value as it is" "$(kv get apple | hex)" "$(printf red | hex)"
check "put from standard input" kv put bytes <<<$'a\tb'
equal "its line end, too" "$(kv get bytes | hex)" 6109620a
head -c 300 /dev/urandom >random
printf 'all:' >all
for i in $(seq 0 255); do printf "\\x$(printf %02x "$i")" >>all; done
check "put --hex" kv put --hex "$(hex all)" "$(hex random)"
equal "get --hex" "$(kv get --hex "$(hex all)")" "$(hex random)"
equal "get --base64" "$(kv get --base64 "$(base64 -w0 all)")" "$(base64 -w0 random)"
text=$(kv scan --prefix all: --keys)
equal "a key as text can be given again" "$(kv get "$text" | hex)" "$(hex random)"
kv put empty ''
equal "an empty value" "$(kv get empty | wc -c)" 0
fails "get: absent" 1 'no row with the key "pear"' 'kv scan' -- kv get pear
fails "a bad backslash" 2 'a backslash is' -- kv put 'a\b' x
fails "bad hexadecimal" 2 'pairs of hexadecimal' -- kv get --hex 6
fails "bad base64" 2 'not base64' -- kv get --base64 'YQ='
fails "two forms" 2 'one of them' -- kv get --base64 --hex 61
fails "an empty key" 1 'key of 0 bytes' -- kv put '' x
fails "a reserved key" 1 'zero byte' -- kv put --hex 0074 61
long=$(head -c 8192 /dev/zero | tr '\0' k)
check "a key of 8,192 bytes" kv put "$long" long
equal "and its value" "$(kv get "$long")" long
fails "a key of 8,193 bytes" 1 '8193 bytes' -- kv put "${long}k" x
head -c 5000000 /dev/urandom >large
check "a value of 5 MB" kv put large <large
check "comes back" sh -c "'$LOCKSTEP' kv get large | cmp - large"

# --- ranges
for k in b a d c; do kv put "k/$k" "v$k"; done
equal "scan --prefix" "$(kv scan --prefix k/ | tr '\t\n' '= ')" 'k/a=va k/b=vb k/c=vc k/d=vd '
equal "scan --from --to" "$(kv scan --from k/b --to k/d --keys | tr '\n' ' ')" 'k/b k/c '
equal "scan --reverse --limit" "$(kv scan --prefix k/ --reverse --limit 2 --keys | tr '\n' ' ')" 'k/d k/c '
equal "scan --json" "$(kv scan --prefix k/a --json)" '{"key":"k/a","value":"va"}'
fails "--prefix and --from" 2 '--prefix, or' -- kv scan --prefix a --from b
equal "del tells how many were there" "$(kv del k/a k/none)" 'deleted 1 row'
equal "del --prefix" "$(kv del --prefix k/ --json | tr -d ' \n')" '{"deleted":3}'
equal "they are gone" "$(kv scan --prefix k/ | wc -l)" 0

# --- out and in
kv export >one.jsonl
check "export is JSON lines" python3 -c "
import base64, json
rows = [json.loads(l) for l in open('one.jsonl')]
get = lambda r, n: r[n].encode() if n in r else base64.b64decode(r[n + '_base64'], validate=True)
rows = [(get(r, 'key'), get(r, 'value')) for r in rows]
assert rows == sorted(rows) and len(rows) == 7, rows
assert dict(rows)[open('all', 'rb').read()] == open('random', 'rb').read()
assert dict(rows)[b'bytes'] == b'a\tb\n'"
check "import, where the format is the same" kv import one.jsonl --store two
echo '{"key":"format","value":"9"}' >format.jsonl
fails "import does not write another format by chance" 1 'format.jsonl:1: the row "format" is one of Lockstep' -- kv import format.jsonl --store two
kv export --store two >two.jsonl
check "the same rows" cmp one.jsonl two.jsonl
check "import again, from standard input" sh -c "'$LOCKSTEP' kv import --store two <one.jsonl"
kv export --store two | cmp -s - one.jsonl && ok "changes nothing" || not_ok "changes nothing"
seq 5000 | awk '{ printf "{\"key\":\"n%06d\",\"value\":\"%d\"}\n", $1, $1 }' >many.jsonl
equal "import of many" "$(kv import many.jsonl --store two)" 'imported 5000 rows'
for line in '{"key":"a"}' '{"key":"a","value":1}' '{"key":"a","value":"b","more":1}' '{"key":"a","key_base64":"YQ==","value":"b"}' \
    '{"key":"a","value_base64":"YQ"}' 'x' '["a","b"]'; do
    (echo '{"key":"before","value":"1"}' && echo && echo "$line") >bad.jsonl
    fails "import: $line" 1 'bad.jsonl:3: ' -- kv import bad.jsonl --store two
done
fails "nothing of a batch with a bad line is kept" 1 'no row' -- kv get before --store two
fails "import: no such file" 1 'cannot open none.jsonl' -- kv import none.jsonl

# --- Lockstep's own rows
for k in format n/model/m h/model/m r/run/r l/r e/r c/r; do
    fails "put $k" 1 "\"$k\" is one of Lockstep's own" -- kv put $k x
    fails "del $k" 1 "one of Lockstep's own" -- kv del $k
done
fails "del --prefix ''" 1 "may be Lockstep's own" -- kv del --prefix ''
check "formats is another key" kv put formats x
check "nobody's letter" kv put x/y z
check "--force" kv put --force r/mine/x '{}'
check "del --force" kv del --force r/mine/x

# --- the whole
check "stats" kv stats
said "stats: the engine" '^engine +LMDB$'
rows=$(kv stats --json | field rows)
check "check" kv check
said "check: rows" 'rows are there and in order'
kv stats --json --store two >before
check "copy" kv copy hot
check "the copy opens as a store" kv scan --store hot --keys
kv export --store hot | cmp -s - <(kv export) && ok "the copy has the same rows" || not_ok "the copy has the same rows"
fails "copy over a copy" 1 'exists already' -- kv copy hot
kv del --prefix n0 --store two >/dev/null
(sleep 5 | kv import --store two >/dev/null) &
sleep 0.3
fails "compact: somebody has it open" 1 'another process has' 'kv copy --compact' -- kv compact --store two
check "copy --compact, all the same" kv copy --compact small --store two
kill %1 2>/dev/null
wait 2>/dev/null
for i in 1 2 3 4 5 6 7 8; do kv compact --store two >/dev/null 2>&1 && break; sleep 1; done
check "compact" kv compact --store two
[ "$(stat -c %s two/kv/data.mdb)" -le "$(stat -c %s small/kv/data.mdb)" ] && ok "it is smaller" || not_ok "it is smaller"
check "and whole" kv check --store two
kv export --store two | cmp -s - <(kv export --store small) && ok "the same rows as before" || not_ok "the same rows as before"

# --- a benchmark leaves nothing behind
bench() { "$LOCKSTEP" kv bench --entries 2000 --reads 500 --commits 10 --writers 4 --rounds 1 "$@"; }
before=$(ls)
check "bench" bench --store fast
said "measures what db_bench does" "^seekrandom +[0-9.]+ +[0-9.]+ "
said "and says by which CPU" "^cpu +[^ ]"
equal "in a folder that is gone" "$(ls)" "$before"
equal "JSON has every work" "$(bench --store memory: --json 2>/dev/null | grep -c '"us_per_op": [0-9]')" 9
fails "bench: no such folder" 1 "cannot make the folder" -- "$LOCKSTEP" kv bench --store /proc/none/x

# --- a program's own rows, which have no format; no store; damage
cp -r small/kv own-kv && mkdir own && mv own-kv own/kv
"$LOCKSTEP" kv del --force format --store own >/dev/null
fails "not a store of Lockstep" 1 'not a store of Lockstep' -- "$LOCKSTEP" tokenizer list --store own
check "its rows are read" kv scan --store own --limit 3
check "and written" kv put mine x --store own
check "and copied" kv copy own-copy --store file:own
equal "the copy has them" "$(kv get mine --store own-copy)" x
fails "get: no store" 1 'there is no store at none' -- kv get a --store none
fails "del: no store" 1 'there is no store at none' -- kv del a --store none
check "import makes one" kv import one.jsonl --store made
check "of Lockstep's" "$LOCKSTEP" tokenizer list --store made
printf 'garbage%.0s' $(seq 3000) | dd of=two/kv/data.mdb conv=notrunc status=none
fails "damage" 1 'two/kv' -- kv check --store two
finish
