#!/bin/bash
# Models: folders that transformers wrote come in, continue a prompt as it does, go out and come back; runs begin with them;
# names keep what they name. tests/golden/folders.py made the folders; tests/peers/folders_peers.py loads what goes out.
. "$(dirname "$0")/lib.sh"

GOLDEN=$HERE/../golden/folders
PROMPT="in the beginning God created the heaven"
ids() { "$LOCKSTEP" generate "$1" "$PROMPT" --tokens 24 --temperature 0 --json "${@:2}" | tr -d ' \n' | sed 's/.*"ids":\[\([^]]*\)\].*/\1/; s/,/ /g'; }
root_of() { "$LOCKSTEP" model show "$1" --json | field weights_root; }

# --- in and out ------------------------------------------------------------------------------------------------------------
while read -r kind want; do
    check "$kind comes in" "$LOCKSTEP" model import "$GOLDEN/$kind" --name "$kind"
    equal "$kind goes on as in transformers" "$(ids "$kind")" "$want"
    check "$kind goes out" "$LOCKSTEP" model export "$kind" "out/$kind"
    check "$kind comes back" "$LOCKSTEP" model import "out/$kind" --name "$kind.back"
    equal "$kind has the same weights root" "$(root_of "$kind.back")" "$(root_of "$kind")"
    for file in tokenizer.json tokenizer_config.json generation_config.json; do
        cmp -s "$GOLDEN/$kind/$file" "out/$kind/$file" || not_ok "$kind: $file as it was"
    done
done <"$GOLDEN/expected.txt"
for isa in $(isas); do equal "the same by $isa" "$(LOCKSTEP_ISA=$isa ids mistral --threads 1)" "$(sed -n 's/^mistral //p' "$GOLDEN/expected.txt")"; done
check "half the size" "$LOCKSTEP" model export qwen2 out/qwen2.bf16 --dtype bf16
equal "what was bf16 is bf16 again" "$("$LOCKSTEP" model import out/qwen2.bf16 --name q --json | field weights_root)" "$(root_of qwen2)"
check "llm.c's checkpoint" "$LOCKSTEP" model export gpt2 gpt2.bin --format llmc
equal "begins with its magic number and version" "$(od -An -tu4 -N8 gpt2.bin | tr -s ' ')" " 20240326 3"
fails "llm.c has no llama" 1 "GPT-2 only" -- "$LOCKSTEP" model export llama llama.bin --format llmc
fails "a folder that is not empty" 1 "no empty folder" -- "$LOCKSTEP" model export gpt2 out/gpt2
fails "no folder" 1 "there is no file or folder nowhere" -- "$LOCKSTEP" model import nowhere --name x
fails "no Hugging Face folder" 1 "no config.json" -- "$LOCKSTEP" model import out --name x
fails "a type of numbers that is none" 2 "f8" -- "$LOCKSTEP" model export gpt2 out/x --dtype f8
cp -r "$GOLDEN/qwen3" odd && sed -i 's/"attention_bias": false/"attention_bias": true/' odd/config.json
fails "what is not computed is named" 1 "attention_bias = true is not computed here" -- "$LOCKSTEP" model import odd --name x
sed -i 's/"attention_bias": true/"attention_bias": false,\n  "new_in_2027": 1/' odd/config.json
fails "and what is not known" 1 "new_in_2027 is not known here.*--ignore new_in_2027" -- "$LOCKSTEP" model import odd --name x
check "unless it is passed over" "$LOCKSTEP" model import odd --name x --ignore new_in_2027
rm odd/model-00002-of-00004.safetensors
fails "a file is missing" 1 "model-00002-of-00004.safetensors" -- "$LOCKSTEP" model import odd --name x --ignore new_in_2027

for file in config.json tokenizer.json generation_config.json model.safetensors; do
    rm -rf odd && cp -r "$GOLDEN/llama" odd && rm odd/$file && mkfifo odd/$file
    fails "a pipe as $file" 1 "$file is no regular file" -- timeout 20 "$LOCKSTEP" model import odd --name x
    rm odd/$file && ln -s nowhere odd/$file
    fails "a link to nowhere as $file" 1 "cannot follow the link .*$file" -- "$LOCKSTEP" model import odd --name x
done
fails "a folder without a name" 1 "no name of a new folder" -- "$LOCKSTEP" model export gpt2 out/.

# --- GGUF --------------------------------------------------------------------------------------------------------------------
while read -r kind want; do
    check "$kind goes out as gguf" "$LOCKSTEP" model export "$kind" "$kind.gguf" --format gguf
    check "$kind comes back from it" "$LOCKSTEP" model import "$kind.gguf" --name "$kind.gguf"
    equal "$kind has the same weights root" "$(root_of "$kind.gguf")" "$(root_of "$kind")"
    equal "$kind goes on as before" "$(ids "$kind.gguf")" "$want"
done <"$GOLDEN/expected.txt"
check "a model in 8 bits" "$LOCKSTEP" model quantize llama
fails "goes out as it is" 1 "leave --dtype out" -- "$LOCKSTEP" model export llama-q8 q8.gguf --format gguf --dtype f16
check "and so it does" "$LOCKSTEP" model export llama-q8 q8.gguf --format gguf
check "half the size" "$LOCKSTEP" model export qwen2 half.gguf --format gguf --dtype bf16
equal "what was bf16 is bf16 again" "$("$LOCKSTEP" model import half.gguf --name q --json | field weights_root)" "$(root_of qwen2)"
fails "a file that is there" 1 "half.gguf exists" -- "$LOCKSTEP" model export qwen2 half.gguf --format gguf
fails "no GGUF" 1 "is no GGUF file" -- "$LOCKSTEP" model import gpt2.bin --name x
head -c 9000 half.gguf >cut.gguf
fails "one that was cut short" 1 "cut.gguf: .*cut short" -- "$LOCKSTEP" model import cut.gguf --name x
sed 's/qwen2.context_length/qwen2.context_lengtX/' half.gguf >odd.gguf
fails "a key that is not known" 1 "--ignore qwen2.context_lengtX" -- "$LOCKSTEP" model import odd.gguf --name x

# --- beginning with them ---------------------------------------------------------------------------------------------------
for i in $(seq 300); do echo "in the beginning God created the heaven and the earth, and the $i-th day was good."; done >text.txt
for i in $(seq 60); do echo "{\"messages\": [{\"role\": \"user\", \"content\": \"day $i?\"}, {\"role\": \"assistant\", \"content\": \"the earth\"}]}"; done >talk.jsonl
quiet "$LOCKSTEP" dataset build plain text.txt --tokenizer model:qwen3 --holdout 0.05
quiet "$LOCKSTEP" dataset build talk talk.jsonl --tokenizer model:qwen3 --template chatml --holdout 0.1
check "conversations are whole" "$LOCKSTEP" dataset verify talk
fails "the template's tokens are missing" 1 "no token <.im_start.>" -- "$LOCKSTEP" dataset build x talk.jsonl --tokenizer model:gpt2 --template chatml
cat >tune.ini <<'I'
[run]
steps = 8
[data]
dataset = talk
[model]
from = qwen3
[batch]
sequences = 4
context = 24
[optimizer]
learning_rate = 3e-3
schedule = constant
warmup = 0
[checkpoint]
every = 4
keep = 0
I
before=$("$LOCKSTEP" eval qwen3 --dataset talk --context 24 --json | field loss)
check "a model is tuned" "$LOCKSTEP" train tune.ini
after=$("$LOCKSTEP" eval tune --json | field loss)
if awk "BEGIN { exit !($after < $before) }"; then ok "and learns" "$before $after"; else not_ok "and learns" "$before then $after"; fi
check "every step can be verified from the model on" "$LOCKSTEP" verify tune
for isa in $(isas); do
    quiet env LOCKSTEP_ISA="$isa" "$LOCKSTEP" train tune.ini run.name="tune-$isa" --threads 1
    equal "the same weights by $isa" "$(run_field "tune-$isa" weights_root)" "$(run_field tune weights_root)"
done
if have_ranks; then
    quiet "$LOCKSTEP" train tune.ini run.name=tune-ranks --on local:2 --threads 1
    equal "and by two ranks" "$(run_field tune-ranks weights_root)" "$(run_field tune weights_root)"
fi
quiet "$LOCKSTEP" train tune.ini run.name=rest run.steps=4 model.from=tune@4 model.optimizer=keep
equal "going on from a checkpoint with its optimizer is going on" "$(run_field rest state_root)" "$(run_field tune state_root)"
if have_ranks; then
    quiet "$LOCKSTEP" train tune.ini run.name=rest2 run.steps=4 model.from=tune@4 model.optimizer=keep --on local:2 --threads 1
    equal "by two ranks too" "$(run_field rest2 state_root)" "$(run_field tune state_root)"
fi
check "an answer in the template" "$LOCKSTEP" generate tune "day 7?" --template chatml --tokens 8
check "out with what it inherited" "$LOCKSTEP" model export tune out/tune
if cmp -s out/tune/tokenizer.json "$GOLDEN/qwen3/tokenizer.json"; then ok "its tokenizer is the model's"; else not_ok "its tokenizer is the model's"; fi
if grep -q Qwen3ForCausalLM out/tune/config.json; then ok "and so is its type"; else not_ok "and so is its type"; fi
fails "another tokenizer's dataset" 1 "another tokenizer.*--tokenizer model:gpt2." -- "$LOCKSTEP" train tune.ini run.name=x model.from=gpt2
fails "keys that the model gives" 1 "model.width is given by model.from" -- "$LOCKSTEP" train tune.ini run.name=x model.width=3

# --- without the folder's tokenizer ----------------------------------------------------------------------------------------
check "a model without its tokenizer" "$LOCKSTEP" model import "$GOLDEN/qwen3" --name bare --tokenizer none
fails "reads no text" 1 "without a tokenizer" -- "$LOCKSTEP" generate bare "the"
check "its files go out again all the same" "$LOCKSTEP" model export bare out/bare
if cmp -s out/bare/tokenizer.json "$GOLDEN/qwen3/tokenizer.json"; then ok "as they were"; else not_ok "as they were"; fi
quiet "$LOCKSTEP" tokenizer train text.txt --vocab 270 --name small
quiet "$LOCKSTEP" tokenizer train text.txt --vocab 300 --name large
for t in small large; do quiet "$LOCKSTEP" dataset build "by-$t" text.txt --tokenizer $t --holdout 0.1; done
fails "more tokens than rows" 1 "the dataset has tokens up to 299, the model only" -- "$LOCKSTEP" eval bare --dataset by-large --context 24
check "a run from it" "$LOCKSTEP" train tune.ini run.name=bare-run run.steps=2 checkpoint.every=2 model.from=bare data.dataset=by-small
check "has the tokenizer that it learned with" "$LOCKSTEP" generate bare-run "the" --tokens 4
fails "and no other" 1 "another tokenizer" -- "$LOCKSTEP" eval bare-run --dataset by-large
fails "a name keeps what it has when the new model is none" 1 "no config.json" -- "$LOCKSTEP" model import out --name bare
check "so it is still there" "$LOCKSTEP" model show bare
fails "an export replaces no file" 1 "exists: remove it" -- "$LOCKSTEP" model export gpt2 gpt2.bin --format llmc

# --- names -----------------------------------------------------------------------------------------------------------------
check "a checkpoint is pinned" "$LOCKSTEP" model pin tune@4 --name early
early=$(root_of early)
quiet "$LOCKSTEP" runs rm tune && quiet "$LOCKSTEP" runs rm rest && quiet "$LOCKSTEP" runs rm rest2
quiet "$LOCKSTEP" gc --grace 0
check "and outlives its run and gc" "$LOCKSTEP" model export early out/early
equal "with the same weights" "$("$LOCKSTEP" model import out/early --name again --json | field weights_root)" "$early"
check "list" "$LOCKSTEP" model list
said "names it" "^early "
check "rm" "$LOCKSTEP" model rm early
fails "it is gone" 1 "no model named" -- "$LOCKSTEP" model show early
fails "what is neither" 1 "no run named .*no model named" -- "$LOCKSTEP" generate nothing
fails "the name that was meant stands last" 1 "no model named .*no run named \"bare-rum\"; did you mean \"bare-run\"[?]\$" -- "$LOCKSTEP" generate bare-rum

# --- kills: a folder is whole or not there ---------------------------------------------------------------------------------
seed
broken=0
for i in $(seq 12); do
    "$LOCKSTEP" model export qwen3 "killed$i" >/dev/null 2>&1 &
    pid=$!
    sleep 0.0$((RANDOM % 30 + 1))
    kill -9 $pid 2>/dev/null
    wait $pid 2>/dev/null
    [ ! -e "killed$i" ] || "$LOCKSTEP" model import "killed$i" --name k >/dev/null 2>&1 || broken=$((broken + 1))
done
equal "killed exports leave whole folders or none" "$broken" 0
rm -rf killed*
for i in $(seq 12); do # what is stopped takes its folder along
    "$LOCKSTEP" model export qwen3 "stopped$i" >/dev/null 2>&1 &
    pid=$!
    sleep 0.0$((RANDOM % 30 + 1))
    kill -TERM $pid 2>/dev/null
    wait $pid 2>/dev/null
done
equal "stopped exports leave no temporary folder" "$(find . -maxdepth 1 -name '*.tmp.*' | wc -l)" 0
finish
