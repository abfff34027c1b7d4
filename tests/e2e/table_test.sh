#!/bin/bash
# lockstep table: tables made, altered, written, read, pinned, compared, copied; files in and out, killed in the middle.
. "$(dirname "$0")/lib.sh"

table() { "$LOCKSTEP" table "$@"; }
one_line() { tr '\t\n' ' ;'; }

# --- tables and families
check "create" table create people name 'contact:maxversions=2' --zstd name
said "create says so" '^created the table people with 2 families$'
fails "create: it is there" 1 'there is a table "people" already' -- table create people f
fails "create: a bad rule" 1 'family f: ' -- table create p2 f:maxage=3x
fails "create: a bad name" 1 'no name of a table' -- table create 'a b' f
fails "create: --zstd of another family" 2 'none of the families' -- table create p2 f --zstd g
equal "list" "$(table list)" people
equal "list --json" "$(table list --json | field name)" people
equal "families" "$(table families people | tr -s ' ' | one_line)" 'contact maxversions=2;name never, zstd;'
equal "gc-rule" "$(table gc-rule people contact)" 'maxversions=2'
equal "gc-rule: another one" "$(table gc-rule people name 'maxversions=3 or maxage=30d')" 'maxversions=3 or maxage=30d'
equal "which keeps the compression" "$(table families people --json | grep -c '"zstd": true')" 1
equal "and back" "$(table gc-rule people name never)" never
fails "gc-rule: no such family" 1 'has no family "f"' 'table families people' -- table gc-rule people f
check "alter" table alter people --add extra:maxversions=1 --add old --no-zstd name
check "alter: drop" table alter people --drop old --update extra:never
equal "all at once" "$(table families people | tr -s ' ' | one_line)" 'contact maxversions=2;extra never;name never;'
fails "alter: one of them is wrong" 1 'no family none' -- table alter people --add more --drop none
equal "then none is done" "$(table families people | wc -l)" 3
fails "alter: nothing to do" 2 'nothing to change' -- table alter people
check "alter: compression alone" table alter people --zstd name
equal "keeps the rule" "$(table families people | tr -s ' ' | tail -n 1)" 'name never, zstd'
fails "no such table" 1 'no table "none"' 'there are: people' -- table read none
fails "no store" 1 'none' -- table read people --store none
fails "unknown verb" 2 'did you mean' -- table reed people

# --- cells
check "set" table set people ada name:first=Ada 'name:born=1815@1000' contact:mail=ada@example.org@2000
check "set: any bytes" table set people 'x\x00\xff' 'name:\x3d=\x00a@3000'
check "set --hex" table set people --hex 6162 name:71=00ff@1000
check "set: an older version" table set people ada name:born=1800@0
equal "lookup" "$(table lookup people ada --columns name:born,contact:mail | one_line)" \
    '----------------------------------------;ada;  contact:mail                             @ 1970/01/01-00:00:00.002000;    "ada@example.org";  name:born                                @ 1970/01/01-00:00:00.001000;    "1815";  name:born                                @ 1970/01/01-00:00:00.000000;    "1800";'
equal "--latest" "$(table lookup people ada --columns name:born --latest 1 | grep -c '"')" 1
equal "--json" "$(table read people --json --start 'x')" \
    '{"key_base64":"eAD/","cells":[{"family":"name","qualifier":"=","timestamp_us":3000,"value_base64":"AGE="}]}'
equal "bytes as text" "$(table read people --start x | tail -n 3 | one_line)" 'x\x00\xff;  name:=                                   @ 1970/01/01-00:00:00.003000;    "\x00a";'
equal "--hex" "$(table lookup people --hex 6162 --latest 1 | tail -n 1)" '    00ff'
equal "--keys-only" "$(table read people --keys-only | one_line)" 'ab;ada;x\x00\xff;'
equal "--reversed --limit" "$(table read people --keys-only --reversed --limit 2 | one_line)" 'x\x00\xff;ada;'
equal "--prefix" "$(table read people --keys-only --prefix ad)" ada
equal "--start --end" "$(table read people --keys-only --start aba --end x)" ada
equal "--regex" "$(table read people --keys-only --regex 'a.a|b')" ada
equal "--families" "$(table read people --families 'con.*' --keys-only)" ada
equal "--columns with a pattern" "$(table read people --columns 'name:[bq]' --keys-only | one_line)" 'ab;'
equal "--filter" "$(table read people --filter 'family("name") | column_regex("born") | latest(1) | strip_value' --json)" \
    '{"key":"ada","cells":[{"family":"name","qualifier":"born","timestamp_us":1000,"value":""}]}'
fails "--filter: what is wrong, and where" 2 'at its end: a whole number' -- table read people --filter 'latest('
fails "--columns without a family" 2 'FAMILY:PATTERN' -- table read people --columns born
fails "--prefix and --start" 2 '--prefix, or' -- table read people --prefix a --start b
fails "lookup: no row" 1 'no row "bob" in people' -- table lookup people bob
fails "lookup: no such cells" 1 'with such cells' -- table lookup people ada --columns name:none
equal "count" "$(table count people)" 3
equal "count --cells" "$(table count people --cells)" '3 rows, 6 cells'
equal "count --json" "$(table count people --prefix a --cells --json | tr -d ' \n')" '{"rows":2,"cells":5}'
fails "set: no family" 1 'none' -- table set people ada none:a=b
fails "set: not whole milliseconds" 1 'whole milliseconds' -- table set people ada name:a=b@5
fails "set: no value" 2 'is no cell' -- table set people ada name:a
fails "set: an empty row key" 1 'key' -- table set people '' name:a=b
fails "set: one of two is wrong" 1 'none' -- table set people new name:a=b none:a=b
fails "then neither is done" 1 'no row' -- table lookup people new
check "delete: a column's cells of a time" table delete people ada name:born --from 0 --to 1000
equal "leaves the others" "$(table lookup people ada --columns name:born | tail -n 1)" '    "1815"'
check "delete: a column and a family" table delete people ada name:born contact
equal "leaves the others" "$(table lookup people ada --json | grep -o '"qualifier":"[a-z]*"')" '"qualifier":"first"'
check "delete: a row" table delete people ab
fails "it is gone" 1 'no row' -- table lookup people ab
equal "delete --prefix" "$(table delete people --prefix x)" 'deleted 1 row'
fails "delete: what?" 2 'ROW is missing' -- table delete people
fails "delete: two ways" 2 'one of them' -- table delete people ada --prefix a
fails "delete: --prefix of nothing" 2 '--all' -- table delete people --prefix ''
seq 2500 | awk '{ printf "%05d,%d\n", $1, $1 }' | sed '1i key,v' >n.csv
check "import for delete --all" table import people n.csv --family extra
equal "delete --all" "$(table delete people --all)" 'deleted 2501 rows'
equal "nothing is left" "$(table count people)" 0

# --- CSV
printf 'id;name:first;mail;"name:a;""b"\r\n1;Ada;"a;b\n""c""";\r\n2;"";;x\n\n3;  s ;;"y"\n' >in.csv
check "import CSV" table import people in.csv --separator ';' --family contact --timestamp 5000
said "import: what it did" '^imported 3 rows, 6 cells into people$'
equal "its cells" "$(table read people --json | one_line)" \
    '{"key":"1","cells":[{"family":"contact","qualifier":"mail","timestamp_us":5000,"value":"a;b\n\"c\""},{"family":"name","qualifier":"first","timestamp_us":5000,"value":"Ada"}]};{"key":"2","cells":[{"family":"name","qualifier":"a;\"b","timestamp_us":5000,"value":"x"},{"family":"name","qualifier":"first","timestamp_us":5000,"value":""}]};{"key":"3","cells":[{"family":"name","qualifier":"a;\"b","timestamp_us":5000,"value":"y"},{"family":"name","qualifier":"first","timestamp_us":5000,"value":"  s "}]};'
equal "export CSV" "$(table export people --format csv | one_line)" \
    'key,contact:mail,"name:a;""b",name:first;1,"a;b;""c""",,Ada;2,,x,"";3,,y,"  s ";'
check "export CSV to a file" table export people out.csv
check "create" table create p2 name contact
check "import it" table import p2 out.csv --timestamp 5000
equal "the same cells" "$(table digest p2)" "$(table digest people)"
fails "CSV: no family" 1 'in.csv:1: .*"mail" has no family' -- table import p2 in.csv --separator ';'
fails "CSV: no such key column" 1 'no column "k"' -- table import p2 in.csv --separator ';' --family name --key k
printf 'a,k\n1,x\n2,y\n' >key.csv
check "CSV: another key column" table import p2 key.csv --family name --key k
equal "its rows" "$(table read p2 --keys-only --start x | one_line)" 'x;y;'
fails "CSV: an empty key" 1 'bad.csv:2: ' -- sh -c "printf 'k,name:a\n,b\n' >bad.csv; '$LOCKSTEP' table import p2 bad.csv"
fails "CSV: too many fields" 1 'bad.csv:3: 3 fields, where the header has 2' -- sh -c "printf 'k,name:a\na,b\na,b,c\n' >bad.csv; '$LOCKSTEP' table import p2 bad.csv"
printf 'k,name:a\na,b\na,"b\n' >bad.csv
fails "CSV: an open quote" 1 'bad.csv:3: .*closing quote' -- table import p2 bad.csv
fails "import: what is it?" 2 'give --format' -- table import p2 bad.txt
fails "import: no such file" 1 'none.csv' -- table import p2 none.csv

# --- lines of JSON
for line in 'x' '{"key":"a"}' '{"key":"a","cells":[{"family":"name","qualifier":"q"}]}' '{"key":"a","cells":[{"family":"no","qualifier":"q","value":""}]}' \
    '{"key":"a","cells":[{"family":"name","qualifier":"q","value":"","timestamp_us":1}]}'; do
    printf '{"key":"before","cells":[{"family":"name","qualifier":"q","value":""}]}\n\n%s\n' "$line" >bad.jsonl
    fails "import: $line" 1 'bad.jsonl:3: ' -- table import p2 bad.jsonl
done
fails "nothing of a batch with a bad line is kept" 1 'no row' -- table lookup p2 before
python3 - <<'P'
import json, base64, random
random.seed(5)
def put(d, name, b):
    try: t = b.decode()
    except UnicodeDecodeError: t = None
    if t is None or 0 in b: d[name + "_base64"] = base64.b64encode(b).decode()
    else: d[name] = t
    return d
with open("many.jsonl", "w") as f:
    for i in range(15000):
        cells = [put(put({"family": "name", "timestamp_us": random.randrange(9) * 1000}, "qualifier", bytes([97 + k % 3, random.randrange(256)])),
                     "value", random.randbytes(random.randrange(20))) for k in range(random.randrange(1, 5))]
        f.write(json.dumps(put({}, "key", b"%06d" % i + random.randbytes(2)) | {"cells": cells}) + "\n")
P
check "create" table create all name
check "import" table import all many.jsonl
digest=$(table digest all)
check "export" table export all one.jsonl
check "create" table create again name
check "import what was exported, packed" sh -c "gzip -k one.jsonl && '$LOCKSTEP' table import again one.jsonl.gz"
equal "the same cells" "$(table digest again)" "$digest"
check "from standard input" sh -c "'$LOCKSTEP' table drop again && '$LOCKSTEP' table create again name && '$LOCKSTEP' table export all | '$LOCKSTEP' table import again - --format jsonl"
equal "the same cells" "$(table digest again)" "$digest"
equal "a second import of a file does nothing" "$(table import all many.jsonl)" 'imported 0 rows, 0 cells into all; 15000 rows were there from before (--again imports all)'
echo '{"key":"zz","cells":[{"family":"name","qualifier":"q","value":"v"}]}' >>many.jsonl
equal "of a file that has grown it takes what is new" "$(table import all many.jsonl --json | tr -d ' \n')" '{"rows":1,"cells":1,"imported_before":15000}'
sed -i '1s/./ {/' many.jsonl
fails "a file that was changed" 1 'not the file any more|longer than it was' '--again' -- table import all many.jsonl

# --- killed in the middle: each row once. The rows have no times, so a row that came twice would have two cells.
seq 120000 | awk '{ printf "r%06d,%d\n", $1, $1 }' | sed '1i key,name:v' >big.csv
check "create" table create once name
kills=0 there=0
for i in 1 2; do # as soon as there are more rows
    "$LOCKSTEP" table import once big.csv >/dev/null 2>&1 &
    until [ "$(table count once)" -gt $there ]; do kill -0 $! 2>/dev/null || break; done
    kill -9 $! 2>/dev/null && kills=$((kills + 1))
    wait $! 2>/dev/null
    there=$(table count once)
done
[ "$kills" -gt 0 ] && [ "$there" -gt 0 ] && ok "imports were killed ($kills; $there rows)" || not_ok "imports were killed ($kills; $there rows)"
check "import goes on" table import once big.csv
equal "each row is there once" "$(table count once --cells)" '120000 rows, 120000 cells'
table export once whole.jsonl >/dev/null 2>&1
size=0
for signal in TERM KILL TERM; do # TERM notes how far it is, KILL does not
    "$LOCKSTEP" table export once killed.jsonl >/dev/null 2>&1 &
    until [ "$(stat -c %s killed.jsonl.part 2>/dev/null || echo 0)" -gt $size ]; do kill -0 $! 2>/dev/null || break; done
    kill -$signal $! 2>/dev/null
    wait $! 2>/dev/null
    size=$(stat -c %s killed.jsonl.part 2>/dev/null || echo 0)
done
[ "$size" -gt 0 ] && ok "an export was stopped and killed ($size bytes)" || not_ok "an export was stopped and killed"
table delete once r000001
check "export goes on, with the state of its beginning" table export once killed.jsonl
[ -e killed.jsonl.part ] && not_ok "no part is left" || ok "no part is left"
cmp -s whole.jsonl killed.jsonl && ok "all rows, each once" || { table pin list; not_ok "all rows, each once" "$(wc -l killed.jsonl)"; }
killed=no # on a quick machine the first ones may be done before they are killed
for wait in 0.25 0.1 0.05 0.02 0.01; do
    "$LOCKSTEP" table copy once twin >/dev/null 2>&1 &
    sleep $wait
    kill -9 $! 2>/dev/null && killed=yes
    wait $! 2>/dev/null
    [ $killed = yes ] && break
    table drop twin >/dev/null 2>&1
done
equal "a copy was killed" $killed yes
check "copy goes on" table copy once twin
equal "the same digest" "$(table digest twin)" "$(table digest once)"
equal "no pin is left of all that" "$(table pin list | wc -l)" 0

# --- a wide row: several lines, several batches
python3 -c "
import json
cells = [{'family': 'f', 'qualifier': 'q%06d' % i, 'timestamp_us': 1000, 'value': 'v' * (i % 9)} for i in range(120000)]
print(json.dumps({'key': 'wide', 'cells': cells}))
print(json.dumps({'key': 'x', 'cells': cells[:1]}))" >wide.jsonl
check "create" table create wide f
check "import a row of 120,000 cells" table import wide wide.jsonl
equal "all are there" "$(table count wide --cells)" '2 rows, 120001 cells'
check "export" table export wide wide2.jsonl
[ "$(wc -l <wide2.jsonl)" -gt 2 ] && ok "in several lines" || not_ok "in several lines"
check "create" table create wide2 f
check "import" table import wide2 wide2.jsonl
equal "the same cells" "$(table digest wide2)" "$(table digest wide)"
check "copy" table copy wide wide3
equal "the same cells" "$(table digest wide3)" "$(table digest wide)"

# --- pins, differences, copies
check "pin" table pin create p1 p2 people --lease 1h
before=$(table digest people)
table set people 1 name:first=Bea@5000 name:new=n@7000 && table delete people 3
equal "diff" "$(table diff people p1 2>/dev/null | one_line)" '~ 1 name:first@5000 Ada Bea;+ 1 name:new@7000 n;- 3 name:a;"b@5000 y;- 3 name:first@5000   s ;'
equal "diff --json" "$(table diff people p1 now --json | head -n 1)" \
    '{"change":"changed","before":{"key":"1","cells":[{"family":"name","qualifier":"first","timestamp_us":5000,"value":"Ada"}]},"after":{"key":"1","cells":[{"family":"name","qualifier":"first","timestamp_us":5000,"value":"Bea"}]}}'
check "a second pin" table pin create p2 people
table set people 9 name:late=l
equal "diff of two pins" "$(table diff people p1 p2 2>/dev/null | wc -l)" 4
equal "a pin's digest" "$(table digest people --pin p1)" "$before"
table compact people >/dev/null
equal "which a compaction does not change" "$(table digest people --pin p1)" "$before"
equal "read --pin" "$(table read people --pin p1 --keys-only | one_line)" '1;2;3;'
equal "count --pin" "$(table count people --pin p1 --cells)" '3 rows, 6 cells'
equal "pin list" "$(table pin list --json | sed -n 's/^ *"name": "\(.*\)",/\1/p' | one_line)" 'p1;p2;'
fails "pin: it is there" 1 'there is a pin "p1" already' -- table pin create p1 people
fails "pin: which?" 2 'PIN is missing' -- table pin create
fails "pin: of which table?" 2 'TABLE is missing' -- table pin create p3
fails "pin: a bad lease" 2 'give a time as' -- table pin create p3 people --lease 3
fails "pin: a bad verb" 2 'give create, list' -- table pin make
fails "no such pin" 1 'no pin "p9"' 'there are: p1, p2' -- table read people --pin p9
fails "drop: a pin holds it" 1 'the pin p1 holds' -- table drop people
check "renew" table pin renew p1 --lease 1s
check "copy of a pin" table copy people copied --pin p2
check "copy to another store" table copy people copied --to-store other
equal "the same digest there" "$(table digest copied --store other)" "$(table digest people)"
equal "and the rules" "$(table families copied --store other | tr -s ' ' | head -n 1)" 'contact maxversions=2'
fails "copy: it is there" 1 'there is a table "copied" already' -- table copy people copied --to-store other
sleep 1.1
fails "a pin's lease ends" 1 'no pin "p1"' -- table digest people --pin p1
check "release" table pin release p2
check "drop" table drop people
fails "release: no such pin" 1 'no pin "p2"' -- table pin release p2

# --- the whole
table set p2 r name:v=1@1000 name:v=2@2000 name:v=3@3000
check "a rule" table gc-rule p2 name maxversions=1
equal "compact" "$(table compact p2 --json | field removed)" 2
equal "sample-keys: the last one is the end" "$(table sample-keys all | tail -n 1 | cut -f 1 | wc -c)" 1
[ "$(table sample-keys all | wc -l)" -gt 7 ] && ok "about one of 1,024 rows" || not_ok "about one of 1,024 rows"
equal "sample-keys --cuts" "$(table sample-keys all --cuts 4 --json | grep -c '"key"')" 4
check "gc knows the rows of tables" "$LOCKSTEP" gc --grace 0
check "and so does a dry run" "$LOCKSTEP" gc --dry-run
fails "kv leaves tables alone" 1 "one of Lockstep's own" -- "$LOCKSTEP" kv put t/table/all x
fails "and cells" 1 "one of Lockstep's own" -- "$LOCKSTEP" kv del --hex 540000000163
fails "and all that begins so" 1 "may be Lockstep's own" -- "$LOCKSTEP" kv del --prefix T
check "a key of one's own" "$LOCKSTEP" kv put user/Title x
check "and gc goes on" "$LOCKSTEP" gc
finish
