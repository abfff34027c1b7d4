#!/bin/bash
# What every command promises: help, JSON, exit status, nearest names, and that its results are what they should be.
. "$(dirname "$0")/lib.sh"
json() { check "$1: JSON" bash -c "\"\$@\" </dev/null | '$TOOLS/json_check' ${LINES_OF:-}" - "${@:2}"; }

# --- help -----------------------------------------------------------------------------------------------------------------
commands=$("$LOCKSTEP" help | sed -n 's/^  lockstep \([a-z]* \{0,1\}[a-z]*\).*/\1/p' | sed 's/ *$//')
for want in "tokenizer train" "tokenizer encode" "tokenizer decode" "tokenizer import" "tokenizer export" "tokenizer list" "tokenizer show" \
            "dataset build" "dataset list" "dataset show" "dataset cat" "dataset verify" train "runs list" "runs show" "runs log" \
            "runs plot" "runs rm" verify eval generate doctor gc "pin create" "pin list" version help; do
    check "help lists $want" grep -qx "$want" <<<"$commands"
    check "$want -h" "$LOCKSTEP" $want -h
    said "$want -h names its options" "--store URL"
done
equal "help X = X -h" "$("$LOCKSTEP" help runs log)" "$("$LOCKSTEP" runs log -h)"
check "--version" "$LOCKSTEP" --version
[ ! -e "$HERE/../../docs/commands.md" ] || equal "docs/commands.md = lockstep help --markdown (make docs)" "$("$LOCKSTEP" help --markdown | cksum)" "$(cksum <"$HERE/../../docs/commands.md")"
fails "no command" 2 -- "$LOCKSTEP"
fails "unknown command" 2 'no command "trian"; did you mean "train"' -- "$LOCKSTEP" trian
fails "unknown verb" 2 'no command "runs lost"; did you mean "runs list"' -- "$LOCKSTEP" runs lost
fails "a noun alone lists its verbs" 2 -- "$LOCKSTEP" dataset
fails "usage of a command without arguments" 2 "usage: lockstep runs list \[options\]" -- "$LOCKSTEP" runs list --status none
fails "unknown option" 2 "unknown option --thread; did you mean --threads" -- "$LOCKSTEP" train x.ini --thread 3
fails "an option without its value" 2 "--threads needs a value" -- "$LOCKSTEP" train x.ini --threads
fails "a flag with a value" 2 "takes no value" -- "$LOCKSTEP" runs list --json=yes
fails "not a number" 2 "--threads x is not a whole number" -- "$LOCKSTEP" doctor --threads x
fails "out of range" 2 "--threads 0 is out of range" -- "$LOCKSTEP" doctor --threads 0
fails "missing argument" 2 "is missing" -- "$LOCKSTEP" eval
fails "too many arguments" 2 'unexpected argument "b"' -- "$LOCKSTEP" eval a b

# --- tokenizer ------------------------------------------------------------------------------------------------------------
standard_data
equal "another training gives the same tokenizer" "$("$LOCKSTEP" tokenizer train text.txt --vocab 700 --name t2 --threads 1 --json | field root)" \
    "$("$LOCKSTEP" tokenizer show t --json | field root)"
head -c 100000 /dev/urandom >bytes.bin
"$LOCKSTEP" tokenizer encode t bytes.bin --format text | "$LOCKSTEP" tokenizer decode t >back.bin
check "encode | decode of random bytes" cmp bytes.bin back.bin
"$LOCKSTEP" tokenizer encode t <text.txt --json | "$LOCKSTEP" tokenizer decode t - >back.txt
check "encode --json | decode -, of text from standard input" cmp text.txt back.txt
equal "encode of nothing" "$("$LOCKSTEP" tokenizer encode t </dev/null | wc -w)" 0
equal "threads do not change ids" "$("$LOCKSTEP" tokenizer encode t bytes.bin --format text --threads 1 | cksum)" "$("$LOCKSTEP" tokenizer encode t bytes.bin --format text --threads 4 | cksum)"
check "export" "$LOCKSTEP" tokenizer export t t.json
check "an exported tokenizer.json is JSON" bash -c "'$TOOLS/json_check' <t.json"
check "import" "$LOCKSTEP" tokenizer import t.json --name t3
"$LOCKSTEP" tokenizer encode t3 text.txt >ids3
check "an imported tokenizer encodes the same" bash -c "'$LOCKSTEP' tokenizer encode t text.txt | cmp - ids3"
json "tokenizer encode" "$LOCKSTEP" tokenizer encode t text.txt --json
json "tokenizer decode" bash -c "echo 1 2 3 | '$LOCKSTEP' tokenizer decode t --json"
json "tokenizer list" "$LOCKSTEP" tokenizer list --json
json "tokenizer show" "$LOCKSTEP" tokenizer show t --json
json "tokenizer import" "$LOCKSTEP" tokenizer import t.json --name t4 --json
json "tokenizer export" "$LOCKSTEP" tokenizer export t t5.json --json
json "tokenizer train" "$LOCKSTEP" tokenizer train text.txt --vocab 300 --name small --json

# --- dataset --------------------------------------------------------------------------------------------------------------
gzip -k text.txt
root_of() { "$LOCKSTEP" dataset build "$@" --tokenizer t --json | field root; }
mkdir gz && gzip -c text.txt >gz/text.txt.gz
equal "a dataset by one thread and by many" "$(root_of a text.txt --threads 1)" "$(root_of b text.txt --threads 5)"
ids() { "$LOCKSTEP" dataset cat "$1"; "$LOCKSTEP" dataset cat "$1" --held-out; }
quiet "$LOCKSTEP" dataset build z text.txt.gz --tokenizer t
equal "text from .gz is the same text" "$(ids z | cksum)" "$(cksum <text.txt)"
if command -v zstd >/dev/null; then
    zstd -q -k text.txt && quiet "$LOCKSTEP" dataset build zs text.txt.zst --tokenizer t
    equal "text from .zst is the same text" "$(ids zs | cksum)" "$(cksum <text.txt)"
fi
"$LOCKSTEP" dataset build in - --tokenizer t <text.txt >/dev/null 2>&1
equal "text from standard input is the same text" "$(ids in | cksum)" "$(cksum <text.txt)"
printf '%s\n' '{"text": "one two"}' '{"text": "straße \"\u00e9\n"}' '{"prompt": "and", "response": " the"}' >x.jsonl
quiet "$LOCKSTEP" dataset build x x.jsonl --tokenizer t --holdout 0
equal "jsonl documents" "$("$LOCKSTEP" dataset cat x | cksum)" "$(printf 'one twostraße "é\nand the' | cksum)"
equal "one document" "$("$LOCKSTEP" dataset cat x --document 2)" "and the"
equal "two files, two documents" "$(quiet "$LOCKSTEP" dataset build two text.txt x.jsonl --tokenizer t --holdout 0; "$LOCKSTEP" dataset cat two --document 1)" "one two"
fails "no such document" 1 "dataset x has 3 documents in its training split, counted from 0: there is no document 3" -- "$LOCKSTEP" dataset cat x --document 3
for what in list "show d" "verify d"; do json "dataset $what" "$LOCKSTEP" dataset $what --json; done
LINES_OF=lines json "dataset cat" "$LOCKSTEP" dataset cat x --json
json "dataset build" "$LOCKSTEP" dataset build d2 text.txt --tokenizer t --json

# one reader for all commands, by content
records() { awk '{ gsub(/["\\]/, ""); printf "{\"url\": \"http://example.org/%d\", \"text\": \"%s\"}\n", NR, $0 }' text.txt; }
records >r.jsonl
want=$(root_of r r.jsonl)
ids r >r.ids
cp r.jsonl R.JSONL && cp r.jsonl r.ndjson && gzip -c r.jsonl >c4-train.00000-of-01024.json.gz && xz -c r.jsonl >r.jsonl.xz && bzip2 -c r.jsonl >r.jsonl.bz2
gzip -c r.jsonl >packed.jsonl && { echo '['; sed '$!s/$/,/' r.jsonl; echo ']'; } >r.json && { printf '\357\273\277'; cat r.jsonl; } >mark.jsonl
for file in R.JSONL r.ndjson c4-train.00000-of-01024.json.gz r.jsonl.xz r.jsonl.bz2 packed.jsonl r.json mark.jsonl; do
    quiet "$LOCKSTEP" dataset build same $file --tokenizer t --replace
    equal "the records of $file" "$(ids same | cksum)" "$(cksum <r.ids)"
    equal "a tokenizer of $file" "$("$LOCKSTEP" tokenizer train $file --vocab 300 --name same --json 2>/dev/null | field root)" \
        "$("$LOCKSTEP" tokenizer train r.jsonl --vocab 300 --name same --json 2>/dev/null | field root)"
    equal "ids of $file" "$("$LOCKSTEP" tokenizer encode t $file 2>/dev/null | cksum)" "$("$LOCKSTEP" tokenizer encode t r.jsonl | cksum)"
done
equal "no JSON is learned" "$("$LOCKSTEP" tokenizer train r.jsonl --vocab 300 --name same >/dev/null; "$LOCKSTEP" tokenizer export same - | grep -c http)" 0
if command -v zstd >/dev/null; then
    zstd -q --long=31 <r.jsonl >long.jsonl.zst
    quiet "$LOCKSTEP" dataset build same long.jsonl.zst --tokenizer t --replace
    equal "a zstd window of 2 GiB" "$(ids same | cksum)" "$(cksum <r.ids)"
fi
check "a mark is dropped with a note" "$LOCKSTEP" dataset build same mark.jsonl --tokenizer t --replace
equal "the note" "$(cat .err | grep -c 'mark.jsonl: the byte order mark at its begin is dropped')" 1
mkdir -p folder/sub && cp text.txt folder && cp r.jsonl folder/sub && cp r.jsonl folder/.hidden
check "a folder" "$LOCKSTEP" dataset build folder folder --tokenizer t
equal "what is hidden is told" "$(grep -c '1 hidden file' .err)" 1
equal "names below a folder" "$("$LOCKSTEP" dataset show folder --json | grep -c '"name": "sub/r.jsonl"')" 1
equal "what is held out is told" "$(grep -c 'held out: .* of 2 sources: ' .err)" 1
equal "the order of arguments does not decide" "$(for f in "r.jsonl text.txt" "text.txt r.jsonl"; do
    quiet "$LOCKSTEP" dataset build order $f --tokenizer t --replace; "$LOCKSTEP" dataset cat order --held-out | tr -d '\n' | fold -w1 | sort | cksum; done | sort -u | wc -l)" 1
printf '%s\n' '{"text": "a"}' '{' '{"text": null, "prompt": "p", "response": "r"}' >bad.jsonl
check "bad records are skipped" "$LOCKSTEP" dataset build bad bad.jsonl --tokenizer t --holdout 0 --skip-bad 3
equal "they are listed and counted" "$(grep -cE 'left out: bad.jsonl:2: byte 15|1 bad record left out' .err)" 2
equal "and in the recipe" "$("$LOCKSTEP" dataset show bad --json | grep -cE '"skip_bad": "3"|"bad_count": 1')" 2
check "a text is split" "$LOCKSTEP" dataset build split text.txt --tokenizer t --split-at '\n\n'
equal "nothing but the marks is lost" "$(ids split | tr -d '\n' | wc -c)" "$(tr -d '\n' <text.txt | wc -c)"
fails "a name is not taken from a dataset unawares" 1 "dataset d is another one, root .*; it is used by|--replace" -- "$LOCKSTEP" dataset build d r.jsonl --tokenizer t
check "the same dataset may be built again" "$LOCKSTEP" dataset build r r.jsonl --tokenizer t
equal "and has its root" "$("$LOCKSTEP" dataset show r --json | field root)" "$want"
fails "a failed export leaves no folder" 1 "held_out" -- "$LOCKSTEP" dataset export bad new/folder --format npy --split held-out
[ ! -e new ] && ok "none at all" || not_ok "none at all"
[ -z "$("$LOCKSTEP" dataset show bad | grep 0.00)" ] && ok "no bytes a token of nothing" || not_ok "no bytes a token of nothing"

# --- train, runs ----------------------------------------------------------------------------------------------------------
config c.ini eval.sequences=0
before=$(cd store && find . -type f | sort | xargs cksum | grep -v lock)
check "dry run" "$LOCKSTEP" train c.ini --dry-run
json "train --dry-run" "$LOCKSTEP" train c.ini --dry-run --json
equal "a dry run stores nothing" "$(cd store && find . -type f | sort | xargs cksum | grep -v lock)" "$before"
fails "and no run" 1 "run .*c.* " -- "$LOCKSTEP" runs show c
check "train --keys" "$LOCKSTEP" train --keys
check "train" "$LOCKSTEP" train c.ini
equal "the run's name is the file's" "$(run_field c state)" finished
json "train" "$LOCKSTEP" train c.ini run.name=c2 --json
json "runs show" "$LOCKSTEP" runs show c --json
for key in name identity state step steps train_loss eval_loss weights_root state_root dataset_root config seed numerics; do
    check "runs show has $key" bash -c "'$LOCKSTEP' runs show c --json | grep -q '^  \"$key\": '"
done
json "runs list" "$LOCKSTEP" runs list --json
LINES_OF=lines json "runs log" "$LOCKSTEP" runs log c --json
equal "runs log has a line a step" "$("$LOCKSTEP" runs log c --json | sed 's/{"step":\([0-9]*\),"loss":[0-9.e-]*,"gradient_norm":[0-9.e-]*,"learning_rate":[0-9.e-]*,"tokens":780,"seconds":[0-9.]*}/\1/' | tr '\n' ' ')" "1 2 3 4 5 6 7 8 "
equal "runs log --from --to" "$("$LOCKSTEP" runs log c --json --from 3 --to 4 | wc -l)" 2
check "runs plot" "$LOCKSTEP" runs plot c --out c.svg
check "it is an SVG picture" grep -q "^<svg .*xmlns=\|<svg" c.svg
json "runs plot" "$LOCKSTEP" runs plot c --json
json "doctor" "$LOCKSTEP" doctor --json
json "version" "$LOCKSTEP" version --json
equal "every ISA has the same fingerprint" "$(for i in $(isas); do LOCKSTEP_ISA=$i "$LOCKSTEP" doctor --json --threads 3 | grep fingerprint; done | sort -u | wc -l)" 2
json "verify" "$LOCKSTEP" verify c --json
json "verify --sample" "$LOCKSTEP" verify c --sample 2 --json
json "eval" "$LOCKSTEP" eval c --json
equal "eval = the training's last evaluation" "$("$LOCKSTEP" eval c --json | field loss)" "$(run_field c eval_loss)"
equal "eval by other threads and kernels" "$(LOCKSTEP_ISA=ref "$LOCKSTEP" eval c --sequences 2 --threads 1 --json | field loss)" "$("$LOCKSTEP" eval c --sequences 2 --threads 3 --json | field loss)"
check "eval of another dataset" "$LOCKSTEP" eval c --dataset a
fails "eval of a dataset of another tokenizer" 1 "dataset s was made with another tokenizer" -- bash -c "'$LOCKSTEP' dataset build s text.txt --tokenizer small >/dev/null 2>&1; '$LOCKSTEP' eval c --dataset s"

# --- generate -------------------------------------------------------------------------------------------------------------
head_of() { printf '%s' "${1%%"$2"*}"; }
g() { "$LOCKSTEP" generate c "$@" 2>/dev/null; }
json "generate" "$LOCKSTEP" generate c "the king" --tokens 20 --json
want=$(g "the king" --tokens 60 --seed 7)
check "generate begins with the prompt" grep -q "^the king" <<<"$want"
equal "the same seed, the same text" "$(g "the king" --tokens 60 --seed 7)" "$want"
equal "whatever the threads and kernels" "$(LOCKSTEP_ISA=ref g "the king" --tokens 60 --seed 7 --threads 3)" "$want"
differ "another seed, another text" "$(g "the king" --tokens 60 --seed 8)" "$want"
equal "temperature 0 needs no seed" "$(g he --tokens 40 --temperature 0 --seed 1)" "$(g he --tokens 40 --temperature 0 --seed 2)"
equal "top-k 1 is temperature 0" "$(g he --tokens 40 --top-k 1 --seed 3)" "$(g he --tokens 40 --temperature 0)"
equal "min-p 1 is temperature 0" "$(g he --tokens 40 --min-p 1 --seed 3)" "$(g he --tokens 40 --temperature 0)"
differ "min-p leaves tokens out" "$(g he --tokens 60 --temperature 1 --top-p 1 --min-p 0.7)" "$(g he --tokens 60 --temperature 1 --top-p 1)"
differ "another choice of a seed is another text" "$(g he --tokens 40 --choice 1)" "$(g he --tokens 40)"
differ "penalties change what is likely" "$(g he --tokens 60 --temperature 0 --frequency-penalty 2)" "$(g he --tokens 60 --temperature 0)"
equal "a penalty of 1 and biases of 0 change nothing" "$(g he --tokens 40 --repetition-penalty 1 --logit-bias 3=0 --logit-bias 4=0)" "$(g he --tokens 40)"
likely=$(g he --tokens 1 --temperature 0 --json | sed -n '/"ids"/,/]/p' | tr -cd '0-9')
differ "a token with a bias of -100 does not come" "$(g he --tokens 1 --temperature 0 --logit-bias "$likely=-100" --json | sed -n '/"ids"/,/]/p' | tr -cd '0-9')" "$likely"
equal "whatever the threads and kernels, penalties too" "$(LOCKSTEP_ISA=ref g he --tokens 60 --repetition-penalty 1.3 --presence-penalty 0.2 --threads 3)" "$(g he --tokens 60 --repetition-penalty 1.3 --presence-penalty 0.2)"
equal "whatever the threads and kernels, min-p too" "$(LOCKSTEP_ISA=ref g he --tokens 60 --temperature 1 --min-p 0.7 --threads 3)" "$(g he --tokens 60 --temperature 1 --min-p 0.7)"
stop=${want:20:3}
equal "--stop ends the text before it" "$(g "the king" --tokens 60 --seed 7 --stop "$stop")" "the king$(head_of "${want:8}" "$stop")"
for seed in 1 2 3 4 5 6 7 8; do "$LOCKSTEP" generate c --tokens 8 --temperature 1000 --seed $seed --json 2>/dev/null; done >texts
equal "--json: text is never null" "$(grep -c '"text": "' texts)" 8
bytes=$(sed -n 's/^  "bytes": "\([0-9a-f]*\)".*/\1/p' texts | head -n 1)
differ "--json: bytes holds what is not UTF-8" "${bytes:-none}" none
check "--json: and it is not UTF-8" bash -c "! printf '$(sed 's/../\\x&/g' <<<"$bytes")' | iconv -f UTF-8 -t UTF-8 >/dev/null 2>&1"
check "--json: the text then has U+FFFD" grep -q $'"text": ".*\xef\xbf\xbd' texts
zero() { printf "the\\$1king" | "$LOCKSTEP" generate c - --tokens 1 --json 2>/dev/null; }
differ "a zero byte does not end the prompt" "$(zero 000 | field prompt_tokens)" "$(printf the | "$LOCKSTEP" generate c - --tokens 1 --json 2>/dev/null | field prompt_tokens)"
equal "it is in the JSON" "$(zero 000 | field prompt)" 'the\u0000king'
"$LOCKSTEP" generate c he --tokens 100000000 --temperature 0 --json >cut.json 2>/dev/null &
pid=$!
sleep 1
kill -INT $pid
wait $pid
equal "Ctrl-C ends a text in JSON too, whole" "$(field finish <cut.json)" interrupted
fails "--bos beside --template" 2 "--bos no goes without a template" -- "$LOCKSTEP" generate c x --template chatml --bos no
check "longer than the context" "$LOCKSTEP" generate c --tokens 150
check "a prompt longer than the context" "$LOCKSTEP" generate c "$(head -c 3000 text.txt | iconv -c -f UTF-8 -t UTF-8)" --tokens 5
check "an empty prompt" "$LOCKSTEP" generate c "" --tokens 5

# --- gc, rm ---------------------------------------------------------------------------------------------------------------
blobs() { find store -type f | grep -c /blobs/; }
quiet "$LOCKSTEP" gc --grace 0
n=$(blobs)
json "gc" "$LOCKSTEP" gc --json
quiet "$LOCKSTEP" gc --grace 0
equal "gc keeps all that is needed" "$(blobs)" "$n"
quiet "$LOCKSTEP" train c.ini run.name=other run.seed=9
more=$(blobs)
check "runs rm" "$LOCKSTEP" runs rm other
said "runs rm says when its space comes back" "gc. frees its space once it is an hour old, .lockstep gc --grace 0. at once"
fails "a removed run is gone" 1 "other" -- "$LOCKSTEP" runs show other
quiet "$LOCKSTEP" gc --grace 0 --dry-run
equal "gc --dry-run removes nothing" "$(blobs)" "$more"
said "gc --dry-run says what goes" "^goes   [0-9a-f]{64} .* nothing needs it$"
said "gc --dry-run says why the rest stays" "^stays  [0-9a-f]{64} .* (checkpoint of run|run|dataset|tokenizer|model) "
check "gc" "$LOCKSTEP" gc
said "gc says what it spares" "what is younger than 3600 s stays, --grace 0 takes it too"
equal "gc leaves what is young" "$(blobs)" "$more"
check "gc --grace 0" "$LOCKSTEP" gc --grace 0
equal "removes what the run had" "$(blobs)" "$n"
check "then runs verify" "$LOCKSTEP" verify c
check "datasets verify" "$LOCKSTEP" dataset verify d
check "and generate" "$LOCKSTEP" generate c --tokens 3
json "runs rm" "$LOCKSTEP" runs rm c2 --json

# --- where the time goes --------------------------------------------------------------------------------------------------
# Evaluations are not steps: the kernels' time lies within that of the steps.
json "train --profile" "$LOCKSTEP" train c.ini run.name=profiled eval.every=1 --profile --json
within() { # the kernels' nanoseconds together, and the steps'
    local profile
    profile=$("$LOCKSTEP" runs show profiled --json | tr -d ' \n' | sed 's/.*"profile":{"kernels":\[//')
    echo "$(sed 's/\].*//' <<<"$profile" | grep -o '"ns":[0-9]*' | awk -F: '{ n += $2 } END { print n }') $(sed 's/.*\],"ns":\([0-9]*\).*/\1/' <<<"$profile")" |
        awk '{ print (($1 > $2 / 10 && $1 <= $2) ? "yes" : "no: " $1 " of " $2) }'
}
equal "kernels' time lies within the steps'" "$(within)" yes
check "runs show has the profile" "$LOCKSTEP" runs show profiled
said "with a row for each kernel" "^matmul weight gradient +[0-9]+ +[0-9.]+ +[0-9.]+%"
said "and what is left" "^elsewhere +[0-9.]+ +[0-9.]+%"
equal "measuring changes no bit" "$(run_field profiled weights_root)" "$("$LOCKSTEP" train c.ini run.name=unprofiled eval.every=1 >/dev/null 2>&1; run_field unprofiled weights_root)"
json "doctor --bench" "$LOCKSTEP" doctor --bench --json

# --- the store's place ----------------------------------------------------------------------------------------------------
check "--store wins over LOCKSTEP_STORE" "$LOCKSTEP" tokenizer train text.txt --vocab 300 --name u --store "file:$WORK/second"
check "a store is a folder" test -d second
fails "what is in one store is not in another" 1 -- "$LOCKSTEP" tokenizer show u
check "the default is ./lockstep.d" env -u LOCKSTEP_STORE "$LOCKSTEP" tokenizer train text.txt --vocab 300 --name u
check "which was made" test -d lockstep.d
finish
