#!/bin/bash
# Exported datasets, read back as llm.c, Megatron-LM and numpy read them: the same documents, ends and masks.
. "$(dirname "$0")/lib.sh"
command -v python3 >/dev/null || { ok "SKIP: no python3"; finish; }
READ="python3 $HERE/../read_export.py"

# Documents of all sizes, some not ASCII.
text 40000 7 | awk 'NR % 7 == 1 && NR > 1 { print "" } { printf "%s ", $0 }' | grep . >documents.txt
awk '{ gsub(/\\/, "\\\\"); gsub(/"/, "\\\""); gsub(/[\t\r]/, " "); printf "{\"text\": \"%s\"}\n", $0 }' documents.txt >plain.jsonl
quiet "$LOCKSTEP" tokenizer train documents.txt --vocab 500 --name t || exit 1
quiet "$LOCKSTEP" tokenizer export t t.json
end=$("$LOCKSTEP" tokenizer show t --json | field end)
quiet "$LOCKSTEP" dataset build plain plain.jsonl --tokenizer t --holdout 0.2 || exit 1
# what the dataset itself says of its documents, as read_export.py prints it
documents() { # NAME OPTION...
    "$LOCKSTEP" dataset cat "$@" --json | python3 -c '
import json, sys
for line in sys.stdin:
    d = json.loads(line)
    print(json.dumps({"text": d["text"], "tokens": d["tokens"]}, ensure_ascii=False))'
}
without_loss() { sed 's/, "without_loss": [0-9]*//'; }
check "there are documents to compare" test "$(documents plain | wc -l)" -gt 20
for format in llmc megatron npy; do
    check "export as $format" "$LOCKSTEP" dataset export plain "$format" --format $format
    for split in train val; do
        option=$([ $split = train ] || echo --held-out)
        equal "$format, $split: every document comes back" "$($READ $format $format plain $split "$end" t.json 2>&1 | without_loss | cksum)" "$(documents plain $option | cksum)"
    done
done
check "files of 1000 tokens" "$LOCKSTEP" dataset export plain shards --format llmc --shard-tokens 1000
check "are many" test "$(ls shards/plain_train_*.bin | wc -l)" -gt 3
equal "and hold the same" "$($READ llmc shards plain train "$end" t.json 2>&1 | cksum)" "$(documents plain | cksum)"
check "one split" "$LOCKSTEP" dataset export plain one --format npy --split held-out --json
said "names its files" '"file": "one/plain_val_ends.npy"'
equal "and no others" "$(ls one | tr '\n' ' ')" "plain_val.npy plain_val_ends.npy "

# --- loss masks ---------------------------------------------------------------------------------------------------------
printf '{"prompt": "one two three", "response": " four"}\n{"prompt": "", "response": "five six"}\n{"prompt": "seven", "response": " eight nine"}\n' >chat.jsonl
quiet "$LOCKSTEP" dataset build chat chat.jsonl --tokenizer t --holdout 0
prompt_tokens() { printf %s "$1" | "$LOCKSTEP" tokenizer encode t | wc -w; }
check "masks as npy" "$LOCKSTEP" dataset export chat chat --format npy
equal "are each prompt's tokens" "$($READ npy chat chat train "$end" t.json | sed 's/.*loss": //; s/}//' | tr '\n' ' ')" \
    "$(prompt_tokens "one two three") 0 $(prompt_tokens seven) "
fails "llmc cannot hold masks" 1 "train split has loss masks" "--without-masks" -- "$LOCKSTEP" dataset export chat chat --format llmc
check "llmc without masks" "$LOCKSTEP" dataset export chat chat --format llmc --without-masks

# --- errors ---------------------------------------------------------------------------------------------------------------
fails "nothing is written over" 1 "plain_train.idx exists|plain_train.bin exists" -- "$LOCKSTEP" dataset export plain megatron --format megatron
fails "no format" 2 "--format is missing: llmc, megatron or npy" -- "$LOCKSTEP" dataset export plain x
fails "an unknown format" 2 "--format tfrecord: give llmc, megatron or npy" -- "$LOCKSTEP" dataset export plain x --format tfrecord
fails "an unknown split" 2 "--split test" -- "$LOCKSTEP" dataset export plain x --format npy --split test
fails "an empty split" 1 "held_out split holds no document" -- "$LOCKSTEP" dataset export chat x --format npy --split held-out
fails "an unknown dataset" 1 "nobody" -- "$LOCKSTEP" dataset export nobody x --format npy
fails "shards of another format" 2 "--shard-tokens goes with" -- "$LOCKSTEP" dataset export plain x --format npy --shard-tokens 5
mkdir full
if mount -t tmpfs -o size=64k tmpfs full 2>/dev/null; then
    MOUNTED=$WORK/full
    # train alone is larger than the file system
    fails "a full disk" 1 "cannot (write|sync) full/.*: No space left on device" -- "$LOCKSTEP" dataset export plain full --format llmc --shard-tokens 100
    equal "nothing stays there, under any name" "$(ls -A full)none" none
fi
check "a damaged dataset is not exported" bash -c '
    root=$("$0" dataset show plain --json | sed -n "s/^ *\"tokens\": \"\([0-9a-f]\{64\}\)\".*/\1/p" | head -n 1)
    file=$LOCKSTEP_STORE/blobs/${root:0:2}/${root:2}
    chmod u+w "$file" && printf X | dd of="$file" bs=1 seek=100 conv=notrunc status=none
    ! "$0" dataset export plain damaged --format npy 2>damaged.txt && grep -q damage damaged.txt && [ -z "$(ls -A damaged 2>/dev/null)" ]' "$LOCKSTEP"

# --- show -----------------------------------------------------------------------------------------------------------------
quiet "$LOCKSTEP" dataset build again plain.jsonl --tokenizer t --holdout 0.2
check "dataset show" "$LOCKSTEP" dataset show again
said "shows documents" "^  train document 0, plain.jsonl line 1, [0-9]+ tokens"
equal "three of each split" "$(grep -cE '^  (train|held out) document' .out)" 6
first=$(head -n 1 documents.txt | cut -c 1-30)
equal "with their first line" "$(grep -cF "    | $first" .out)" 1
check "dataset show --json" "$LOCKSTEP" dataset show again --samples 2 --json
cp .out show.json
check "has bytes a token and how documents begin" python3 -c '
import json
d = json.load(open("show.json"))
first = open("documents.txt").readline()
assert len(d["samples"]) == 4, d["samples"]
assert first.startswith(d["samples"][0]["begin"]) and d["samples"][0]["line"] == 1, d["samples"][0]
t = d["train"]
assert abs(t["bytes_a_token"] - t["bytes"] / (t["tokens"] - t["documents"] - 1)) < 1e-9, t'
finish
