#!/bin/bash
# Whatever is wrong, the message says what, where and what to do, the exit status is 1 (2 for wrong usage), and the store is
# as it was.
. "$(dirname "$0")/lib.sh"

# listing: every file of the store with its checksum (LMDB's table of readers is no content)
listing() { (cd "$LOCKSTEP_STORE" 2>/dev/null && find . -type f ! -name lock.mdb | sort | xargs cksum); }
# bad NAME STATUS PATTERN... -- COMMAND...: fails so, and the store is as it was
bad() {
    local before after
    before=$(listing)
    fails "$@"
    after=$(listing)
    [ "$before" = "$after" ] || not_ok "$1: the store is as it was" "$(diff <(echo "$before") <(echo "$after"))"
}

bad "no store yet" 1 "store" "tokenizer (train|import)" -- "$LOCKSTEP" runs list
[ ! -e store ] && ok "and none is made" || not_ok "and none is made"
standard_data
config c.ini
quiet "$LOCKSTEP" train c.ini || finish
mkdir dir
: >empty
head -c 300 "$LOCKSTEP" >binary.ini

# --- configurations -------------------------------------------------------------------------------------------------------
bad "no such file" 1 "cannot open none.ini: No such file" -- "$LOCKSTEP" train none.ini
bad "a directory" 1 "dir: Is a directory" -- "$LOCKSTEP" train dir
bad "an empty file" 1 "data.dataset is missing" "dataset list" -- "$LOCKSTEP" train empty
bad "a binary file" 1 "binary.ini:1: control character" -- "$LOCKSTEP" train binary.ini
ini() { printf '%s\n' "$@" >bad.ini; }
ini '[run]' 'steps = 3' '' '[optimizer]' 'lerning_rate = 1'
bad "an unknown key" 1 "bad.ini:5: unknown key \"optimizer.lerning_rate\"; did you mean \"optimizer.learning_rate\"" -- "$LOCKSTEP" train bad.ini
ini '[modle]' 'width = 3'
bad "an unknown section" 1 "bad.ini:2: unknown section or key \"modle.width\"; did you mean \"model.width\"" -- "$LOCKSTEP" train bad.ini
ini '[run]' 'steps 3'
bad "no equals sign" 1 "bad.ini:2: " -- "$LOCKSTEP" train bad.ini
ini '[run' 'steps = 3'
bad "an unclosed section" 1 "bad.ini:1: " -- "$LOCKSTEP" train bad.ini
ini '[run]' 'steps = 3' 'steps = 4'
bad "a key given twice" 1 "bad.ini:3: .*(twice|again|already|before)" -- "$LOCKSTEP" train bad.ini
ini '[model]' 'family = lama'
bad "an unknown word" 1 "bad.ini:2: model.family = \"lama\" must be llama or gpt2" -- "$LOCKSTEP" train bad.ini
for value in run.steps=0 run.steps=-1 run.steps=99999999999 run.steps=3.5 run.steps= run.seed=x model.width=0 model.tied=perhaps model.context=0 \
             optimizer.learning_rate=nan optimizer.learning_rate=inf optimizer.beta1=1 optimizer.beta2=-0.1 optimizer.clip=-1 \
             batch.sequences=0 eval.sequences=-3 model.rope_theta=0 optimizer.schedule=cosin "run.name=a/b" "run.name=.." ; do
    bad "$value" 1 "command line: ${value%%=*}" -- "$LOCKSTEP" train c.ini "$value"
done
bad "what is impossible with a key of the command line" 1 "on the command line: batch.grains = 5 must divide" -- "$LOCKSTEP" train c.ini batch.grains=5 --dry-run
bad "a cooldown with another schedule" 1 "on the command line: optimizer.cooldown = 2 is a key of optimizer.schedule = wsd alone" -- "$LOCKSTEP" train c.ini optimizer.cooldown=2 --dry-run
bad "a cooldown longer than there are steps" 1 "optimizer.warmup = 3 and optimizer.cooldown = 6 are more than the 8 steps of optimizer.decay" "give a shorter" -- \
    "$LOCKSTEP" train c.ini optimizer.schedule=wsd optimizer.warmup=3 optimizer.cooldown=6 --dry-run
bad "another tool's word" 1 'optimizer.schedule = "warmup_stable_decay" must be cosine, linear, constant or wsd' -- "$LOCKSTEP" train c.ini optimizer.schedule=warmup_stable_decay
cp c.ini "my run.ini"
bad "a file whose name names no run" 1 "my run.ini: the file's name is no valid run name: pass run.name=" -- "$LOCKSTEP" train "my run.ini" --dry-run
sed 's/^steps *=.*/& ; short/' c.ini >semicolon.ini
bad "no comment behind a value: nothing is cut" 1 'semicolon.ini:[0-9]*: run.steps = ".* ; short" is not a number' -- "$LOCKSTEP" train semicolon.ini --dry-run
bad "no section" 1 'command line: unknown section or key "steps"; did you mean "run.steps"' -- "$LOCKSTEP" train c.ini steps=3
bad "another tool's key without a section" 1 'command line: "lr" is called optimizer.learning_rate here' -- "$LOCKSTEP" train c.ini lr=3
bad "no key=value" 1 'command line: "steps" is not of the form section.key=value' -- "$LOCKSTEP" train c.ini steps
for values in "model.heads=5" "model.heads=6 model.kv_heads=4" "batch.grains=5" "batch.grains=24" "model.vocab=100"; do
    last=${values##* }
    key=${last%%=*}
    bad "impossible: $values" 1 "^lockstep: (on|c.ini and) the command line: .*${key#*.}" -- "$LOCKSTEP" train c.ini run.name=x $values
done
bad "impossible: an odd head" 1 "c.ini and the command line: .*head size must be even; it is 13" -- "$LOCKSTEP" train c.ini run.name=x model.head_dim=13
bad "an unknown dataset" 1 'no dataset named "nothing"; there is d' -- "$LOCKSTEP" train c.ini run.name=x data.dataset=nothing
bad "a context longer than the data" 1 "too few for one sequence of 60000 positions" -- "$LOCKSTEP" train c.ini run.name=x model.context=60000
bad "an unknown run" 1 'run.*"nothing".*there is c' -- "$LOCKSTEP" train --resume nothing
bad "too little memory" 1 "needs .* of memory and .* are free" "model.width" "recompute" -- env LOCKSTEP_MEMORY_BYTES=100000 "$LOCKSTEP" train c.ini run.name=x
bad "far too large a model" 1 "needs .* of memory and .* are free" -- env LOCKSTEP_MEMORY_BYTES=1000000000 "$LOCKSTEP" train c.ini run.name=x model.width=7000 model.layers=40
bad "an unknown instruction set" 1 'instruction set "nonsense".*possible here: .*ref' -- env LOCKSTEP_ISA=nonsense "$LOCKSTEP" train c.ini run.name=x
bad "--resume and keys" 2 "takes no keys: .lockstep train --from c run.steps=9" -- "$LOCKSTEP" train --resume c run.steps=9

# --- texts ----------------------------------------------------------------------------------------------------------------
build() { "$LOCKSTEP" dataset build q "$@" --tokenizer t; }
bad "a tokenizer of nothing" 1 "empty|no text|0 pairs" "(vocabulary|more text)" -- "$LOCKSTEP" tokenizer train empty --name q
bad "a tokenizer of a directory" 1 "dir" -- "$LOCKSTEP" tokenizer train dir --name q
bad "a tokenizer of no file" 1 "missing.txt: No such file" -- "$LOCKSTEP" tokenizer train missing.txt --name q
bad "a tokenizer without a name" 2 "--name is missing" -- "$LOCKSTEP" tokenizer train text.txt
bad "a name that is none" 2 "a/b.*1 to 128 of" -- "$LOCKSTEP" tokenizer train text.txt --name a/b
bad "too large a vocabulary" 1 "pairs to merge" -- "$LOCKSTEP" tokenizer train text.txt --vocab 60000 --name q
bad "too small a vocabulary" 2 "--vocab 256 is out of range: 257" -- "$LOCKSTEP" tokenizer train text.txt --vocab 256 --name q
bad "tokenizer.json that is none" 1 "text.txt:1:.*not valid JSON" -- "$LOCKSTEP" tokenizer import text.txt --name q
echo '{"version": "1.0", "model": {"type": "Unigram"}}' >unigram.json
bad "a tokenizer.json of another kind" 1 "unigram.json.*BPE" -- "$LOCKSTEP" tokenizer import unigram.json --name q
bad "decode of no ids" 1 "byte 4 of the input is no token id" -- bash -c "echo 1 2 x | '$LOCKSTEP' tokenizer decode t"
bad "decode of ids beyond the end" 1 "token 1 is 700, but ids end at 699" -- bash -c "echo 1 700 | '$LOCKSTEP' tokenizer decode t"
bad "a dataset of no file" 1 "missing.txt: No such file" -- build missing.txt
bad "a dataset of a directory" 1 "dir is a directory without a file to read" -- build dir
bad "a dataset of nothing" 1 "no text" -- build empty
bad "a dataset without a tokenizer" 2 "--tokenizer is missing" -- "$LOCKSTEP" dataset build q text.txt
bad "a dataset with an unknown tokenizer" 1 'no tokenizer named "nothing"; there is t' -- "$LOCKSTEP" dataset build q text.txt --tokenizer nothing
bad "too large a holdout" 2 "--holdout 0.9 is out of range" -- build text.txt --holdout 0.9
jsonl() { printf '%s\n' "$@" >bad.jsonl; }
jsonl '{"text": "a"}' '{"text": 3}'
bad "jsonl: no string" 1 'bad.jsonl:2: byte [0-9]*: "text" is not a string' -- build bad.jsonl
jsonl '{"text": "a"}' '' '{"text": "b'
bad "jsonl: an unclosed string" 1 'bad.jsonl:3: byte' -- build bad.jsonl
jsonl '{"text": "a"}' '[1]'
bad "jsonl: no object" 1 'bad.jsonl:2: byte' -- build bad.jsonl
jsonl '{"text": "a"}' '{"texts": "b"}'
bad "jsonl: another key" 1 'bad.jsonl:2: .*"text"' -- build bad.jsonl
jsonl '{"prompt": "a"}'
bad "jsonl: a prompt alone" 1 'bad.jsonl:1: .*response' -- build bad.jsonl
jsonl "{\"a\": $(printf '[%.0s' $(seq 20000))"
bad "jsonl: deep nesting" 1 'bad.jsonl:1: ' -- build bad.jsonl
gzip -c text.txt >good.txt.gz
head -c 5000 good.txt.gz >short.txt.gz
bad "a truncated .gz" 1 "short.txt.gz: the gzip data is damaged at byte 5000 .*ends too early" -- build short.txt.gz
cp good.txt.gz flipped.txt.gz && flip flipped.txt.gz
bad "a damaged .gz" 1 "flipped.txt.gz: the gzip data is damaged at byte" -- build flipped.txt.gz
cp text.txt none.txt.gz
bad "a .gz that is none" 1 "none.txt.gz: the gzip data is damaged at byte" -- build none.txt.gz
if command -v zstd >/dev/null; then
    zstd -qc text.txt >good.txt.zst
    head -c 5000 good.txt.zst >short.txt.zst
    bad "a truncated .zst" 1 "short.txt.zst: the zstd data is damaged at byte 5000 .*ends too early" -- build short.txt.zst
    cp good.txt.zst flipped.txt.zst && flip flipped.txt.zst
    bad "a damaged .zst" 1 "flipped.txt.zst: the zstd data is damaged at byte" -- build flipped.txt.zst
fi
bad "a good file and a bad one" 1 "short.txt.gz" -- build text.txt short.txt.gz
for packing in xz bzip2; do
    command -v $packing >/dev/null || continue
    $packing -c text.txt >packed
    head -c 5000 packed >short
    bad "a truncated $packing" 1 "short: the $packing data is damaged at byte 5000 .*ends too early" -- build short
done
cp "$LOCKSTEP" real.parquet
bad "a program under another name" 1 "real.parquet is a program .ELF.; .*--format text" -- build real.parquet
printf 'PAR1\025\000' >x.txt
bad "a Parquet file under another name" 1 "x.txt is a Parquet file; write its texts as .jsonl" -- build x.txt
bad "the same for a tokenizer" 1 "x.txt is a Parquet file" -- "$LOCKSTEP" tokenizer train x.txt --name q
bad "the same to encode" 1 "x.txt is a Parquet file" -- "$LOCKSTEP" tokenizer encode t x.txt
tar -czf x.tgz text.txt
bad "a tar archive" 1 "x.tgz is a tar archive inside gzip; unpack it" -- build x.tgz
printf '\377\376h\000i\000' >wide.txt
bad "UTF-16" 1 "wide.txt is UTF-16 text; convert it: iconv -f UTF-16 -t UTF-8" -- build wide.txt
printf '%s\n' '[{"text": "a"},' '{"txt": "b"}]' >list.json
bad "a bad record of a list" 1 "list.json: record 2: byte 15: it has neither .*--skip-bad N" -- build list.json
bad "keys for both" 1 "give one of them" -- build bad.jsonl --text-key a --messages-key b
jsonl '{"text": "a"}' '{' '{"text": "b"}' '}'
bad "more bad records than may be" 1 "more than 1 bad records, as --skip-bad allows; the first is bad.jsonl:2: byte 15" -- build bad.jsonl --skip-bad 1
bad "no token to begin with" 1 "no token that begins a text" -- build text.txt --bos yes
bad "an empty mark" 2 "--split-at must not be empty" -- build text.txt --split-at ""

# --- commands on runs -----------------------------------------------------------------------------------------------------
for command in "runs show" "runs log" "runs plot" "runs rm" verify eval generate; do
    bad "$command of an unknown run" 1 'nothing.*there is c' -- "$LOCKSTEP" $command nothing
done
bad "an unknown document" 1 "d has 1 document in its training split.*no document 5" -- "$LOCKSTEP" dataset cat d --document 5
bad "a picture where there is no folder" 1 "none/x.svg" -- "$LOCKSTEP" runs plot c --out none/x.svg
bad "an empty --stop" 2 "--stop must not be empty" -- "$LOCKSTEP" generate c x --stop ""
bad "a repetition penalty of 0" 2 "--repetition-penalty 0 is out of range: 0.01 .. 100" -- "$LOCKSTEP" generate c x --repetition-penalty 0
bad "a presence penalty above 2" 2 "--presence-penalty 2.1 is out of range: -2 .. 2" -- "$LOCKSTEP" generate c x --presence-penalty 2.1
bad "a bias without a number" 2 "--logit-bias 3= is not ID=BIAS, as 42=-1.5" -- "$LOCKSTEP" generate c x --logit-bias 3=
bad "a bias of no id" 2 "--logit-bias -3=1 is not ID=BIAS" -- "$LOCKSTEP" generate c x --logit-bias=-3=1
bad "a bias of an id that is no token" 1 "the bias of token 99999: the tokenizer has" -- "$LOCKSTEP" generate c x --logit-bias 99999=1
bad "a bias too large" 1 "the bias of token 3, 200, is not from -100 to 100" -- "$LOCKSTEP" generate c x --logit-bias 3=200
bad "two biases of one token" 1 "token 3 has two biases" -- "$LOCKSTEP" generate c x --logit-bias 3=1 --logit-bias 3=2
bad "min-p above 1" 2 "--min-p 1.5 is out of range: 0 .. 1" -- "$LOCKSTEP" generate c x --min-p 1.5
bad "temperature below 0" 2 "--temperature -1 is out of range" -- "$LOCKSTEP" generate c x --temperature -1
for to in "'>/dev/full'" "'>&-'"; do
    for command in "runs list" "runs list --json" "runs log c" "version" "help" "generate c x --tokens 30" "tokenizer encode t text.txt" "dataset cat d"; do
        bad "$command ${to//\'/}" 1 "cannot write to standard output" -- bash -c "'$LOCKSTEP' $command ${to//\'/}"
    done
done
bad "an unknown kind of store" 1 "mysql" -- "$LOCKSTEP" runs list --store mysql://x
bad "rows without blobs" 1 "say where, --blobs" -- "$LOCKSTEP" runs list --store postgresql://x
bad "a store that is a file" 1 "text.txt" -- "$LOCKSTEP" runs list --store text.txt

# --- damage ---------------------------------------------------------------------------------------------------------------
for root in $("$LOCKSTEP" dataset show d --json | grep -o '"[0-9a-f]\{64\}"' | tr -d '"' | sort -u); do
    file=$(blob "$root")
    [ -f "$file" ] || continue
    flip "$file"
    case $file in *"$(blob "$("$LOCKSTEP" tokenizer show t --json 2>/dev/null | field root)")") ;; *)
        fails "a flipped bit in ${root:0:8} is found by dataset verify, with its name" 1 "${root:2:8}" -- "$LOCKSTEP" dataset verify d ;;
    esac
    fails "and by train" 1 "${root:2:8}" -- "$LOCKSTEP" train c.ini run.name=x
    flip "$file"
done
check "without the damage all is well" "$LOCKSTEP" dataset verify d
root=$("$LOCKSTEP" tokenizer show t --json | field root)
mv "$(blob "$root")" kept
bad "a missing blob" 1 "${root:2:8}" -- "$LOCKSTEP" tokenizer encode t text.txt
mv kept "$(blob "$root")"

cp -r store cut
truncate -s 8192 cut/kv/data.mdb
fails "a database cut short" 1 "lockstep: .*shorter than it was written" -- "$LOCKSTEP" runs list --store cut
rm -r cut
for i in 1 2 3 4 5 6 7 8; do printf '{"prompt": "%s", "response": "the"}\n' "$(head -c 900 text.txt | tr -d '\\"\n')"; done >prompts.jsonl
quiet "$LOCKSTEP" dataset build prompts prompts.jsonl --tokenizer t --holdout 0.5 --holdout-by tail
bad "an evaluation of nothing but prompts, before the first step" 1 "held-out .*are masked" "eval.every = 0" -- \
    "$LOCKSTEP" train c.ini data.dataset=prompts eval.sequences=1 run.name=x

weights=$(run_field c weights_root)
flip "$(blob "$weights")"
for command in generate eval; do
    check "$command: a flipped bit in the weights: the checkpoint before is used" "$LOCKSTEP" $command c
    if grep -q "step 8: .*${weights:2:8}.*trying the one before" "$WORK/.err"; then ok "and the damage named"; else not_ok "and the damage named" "$(cat "$WORK/.err")"; fi
done
flip "$(blob "$weights")"
quiet "$LOCKSTEP" train c.ini run.name=single run.seed=4 checkpoint.keep=1
weights=$(run_field single weights_root)
flip "$(blob "$weights")"
for command in generate eval; do bad "$command: a flipped bit in the only weights" 1 "${weights:2:8}" -- "$LOCKSTEP" $command single; done
quiet "$LOCKSTEP" runs rm single
quiet "$LOCKSTEP" gc --grace 0
config long.ini run.steps=40 checkpoint.every=4
quiet "$LOCKSTEP" train long.ini run.name=whole
"$LOCKSTEP" train long.ini run.name=hurt >/dev/null 2>&1 &
pid=$!
until [ "$(run_field hurt step 2>/dev/null || echo 0)" -ge 12 ] 2>/dev/null || ! kill -0 $pid 2>/dev/null; do sleep 0.02; done
kill -TERM $pid
wait $pid
step=$(run_field hurt step)
flip "$(blob "$(run_field hurt weights_root)")"
check "a damaged newest checkpoint: the one before is used" "$LOCKSTEP" train --resume hurt
if grep -Eq "checkpoint of step $step can't be used: .*$(run_field whole nothing)" "$WORK/.err"; then ok "and the damaged one named"
else not_ok "and the damaged one named" "$(cat "$WORK/.err")"; fi
equal "with the same result" "$(run_field hurt state_root)" "$(run_field whole state_root)"

# --- a disk that is full, a store that may not be written -----------------------------------------------------------------
limited() { (ulimit -f "$1" && shift && exec "$@"); }
before=$(listing | wc -l)
fails "a file size limit (tokenizer train)" 1 "File too large; a file may have at most 1 KiB \(ulimit -f\)" -- limited 1 "$LOCKSTEP" tokenizer train text.txt --vocab 690 --name limited
fails "a file size limit (dataset build)" 1 "File too large" -- limited 8 "$LOCKSTEP" dataset build limited text.txt --tokenizer t --holdout 0.02
equal "leaves nothing behind" "$(listing | wc -l)" "$before"
fails "a file size limit (train)" 1 "checkpoint could not be written.*File too large" -- limited 200 "$LOCKSTEP" train long.ini run.name=limited
equal "the run is failed" "$(run_field limited state)" failed
check "and goes on when there is room" "$LOCKSTEP" train --resume limited
equal "to the same result" "$(run_field limited state_root)" "$(run_field whole state_root)"
few() { (ulimit "$1" "$2" && shift 2 && exec "$@"); }
check "little address space: the database takes less of it" few -v 1000000 "$LOCKSTEP" runs list
fails "few open files" 1 "may have 4 files open \(ulimit -n\)" -- few -n 4 "$LOCKSTEP" runs list
for files in 6 7 8 9 10; do few -n $files "$LOCKSTEP" train long.ini run.name=files-$files; done >/dev/null 2>"$WORK/.err"
if grep -q 'damaged' "$WORK/.err" || ! grep -q 'ulimit -n' "$WORK/.err"; then not_ok "few open files are no damage" "$(cat "$WORK/.err")"
else ok "few open files are no damage"; fi
mkdir disk
if [ "$(id -u)" = 0 ] && mount -t tmpfs -o size=12m none disk 2>/dev/null; then
    MOUNTED=$WORK/disk
    quiet "$LOCKSTEP" tokenizer train text.txt --vocab 700 --name t --store disk/store
    quiet "$LOCKSTEP" dataset build d text.txt --tokenizer t --store disk/store
    quiet "$LOCKSTEP" train c.ini --store disk/store
    head -c 20M /dev/zero >disk/filler 2>/dev/null
    truncate -s -64K disk/filler # room for the database, not for weights
    before=$(LOCKSTEP_STORE=$WORK/disk/store listing)
    fails "a full disk (train)" 1 "No space left" "disk \(tmpfs\) has .* free" -- "$LOCKSTEP" train c.ini run.name=x --store disk/store
    fails "a full disk (dataset build)" 1 "No space left" -- "$LOCKSTEP" dataset build x text.txt --tokenizer t --holdout 0.03 --store disk/store
    check "reading goes on" "$LOCKSTEP" generate c x --tokens 3 --store disk/store
    rm disk/filler
    [ ! -e disk/store/blobs/tmp ] || equal "no unfinished files stay" "$(find disk/store/blobs/tmp -type f | wc -l)" 0
    check "when there is room again, the run goes on" "$LOCKSTEP" train --resume x --store disk/store
    head -c 20M /dev/zero >disk/filler 2>/dev/null
    check "a full disk: a run can be removed" "$LOCKSTEP" runs rm x --store disk/store
    rm -rf disk/store/locks # a collector makes folders, and a list of what goes
    cat /dev/zero >>disk/filler 2>/dev/null
    check "and what it took" "$LOCKSTEP" gc --grace 0 --store disk/store
else echo "# no tmpfs may be mounted here: a full disk is tested by a file size limit only"; fi
if [ "$(id -u)" = 0 ]; then
    as_user() { setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }
    cp "$LOCKSTEP" bin && chmod 755 bin && chmod 711 . && chmod -R go+rX store
else
    as_user() { "$@"; }
    cp "$LOCKSTEP" bin && chmod -R a-w store
fi
bad "a store that may not be written" 1 "(no permission|ermission denied)" -- as_user ./bin train c.ini run.name=x
bad "a dataset in it" 1 "(no permission|ermission denied)" -- as_user ./bin dataset build q text.txt --tokenizer t
chmod 000 text.txt
mkdir -m 777 open
bad "a text that may not be read" 1 "text.txt: P(no permission|ermission denied)" -- as_user ./bin tokenizer train text.txt --name q --store "$WORK/open/store"
finish
