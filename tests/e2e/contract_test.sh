#!/bin/bash
# Training, evaluation and generation are what docs/numerics.md and docs/formats.md say: tests/contract/contract.c, which was
# written from these pages alone, computes every loss, norm, rate, evaluation, identity, root, id and text of many small runs
# again; and every figure of the pages is compared with both. LOCKSTEP_TEST_SEED chooses the random runs, RANDOM_RUNS how many.
. "$(dirname "$0")/lib.sh"
CONTRACT=$TOOLS/contract
BLOBS=$LOCKSTEP_STORE/blobs
NUMERICS=$HERE/../../docs/numerics.md
FORMATS=$HERE/../../docs/formats.md
: >empty.ini

# section N: of numerics.md
section() { awk -v n="$1" '/^## /{ on = $2 == n "." } on' "$NUMERICS"; }
# worked N: what the page says of a worked run
worked() { section 12 | awk -v n="$1" '/^\*\*Run /{ on = $2 == n ".**" } on'; }
# same NAME WANT GOT: two files
same() { if [ -s "$2" ] && cmp -s "$2" "$3"; then ok "$1"; else not_ok "$1" "$(diff -a "$2" "$3" | head -n 12 | cat -v)"; fi; }

# --- a run by the program and by the page ------------------------------------------------------------------------------------

# program NAME EVALUATIONS: what the program has of a run, in the form of `contract run`; each step of the list has a checkpoint
program() {
    local step sequences
    sequences=$(sed -n '/^    "eval": {/,/}/p' "$1.json" | sed -n 's/.*"sequences": //p')
    "$LOCKSTEP" runs log "$1" --json | "$CONTRACT" logged
    for step in $2; do "$LOCKSTEP" eval "$1@$step" --sequences "$sequences" --json | "$CONTRACT" evaluated "$step"; done
    "$CONTRACT" recorded "$BLOBS" "$1.json"
}
# train NAME KEY=VALUE...: by both; NAME.json is the record, NAME.want and NAME.got what is compared
train() {
    local name=$1 evaluated
    shift
    quiet "$LOCKSTEP" train empty.ini run.name="$name" checkpoint.keep=0 "$@" --threads 1 2>"$name.err"
    if ! "$LOCKSTEP" runs show "$name" --json >"$name.json" 2>/dev/null; then not_ok "$name trains" "$*" "$(cat "$name.err")" && return 1; fi
    "$CONTRACT" run "$BLOBS" "$name.json" | sort >"$name.want"
    evaluated=$(sed -n 's/^evaluation \([0-9]*\) .*/\1/p' "$name.want")
    program "$name" "$evaluated" | sort >"$name.got"
    same "$name: rows, evaluations, identity and roots" "$name.want" "$name.got" || return 1
    equal "$name: identity of what was asked for" "$("$CONTRACT" identity "$BLOBS" "$name.json" "$@")" "identity $(field identity <"$name.json")"
    [ -z "$evaluated" ] || equal "$name: the record's evaluation" "$(field eval_loss <"$name.json" | "$CONTRACT" hex)" "$(evaluation "$name")"
}
# the last evaluation by the page
evaluation() { sed -n 's/^evaluation \([0-9]*\) \([0-9a-f]*\) .*/\1 \2/p' "$1.want" | sort -n | tail -n 1 | cut -d' ' -f2; }
# ids NAME PROMPT TOKENS TEMPERATURE TOP_K TOP_P SEED [MIN_P [CHOICE REPETITION PRESENCE FREQUENCY ID=BIAS,...|-]]: by the page
ids() {
    local tokens
    tokens=$(printf %s "$2" | "$LOCKSTEP" tokenizer encode "$(tokenizer_of "$1")")
    "$CONTRACT" generate "$BLOBS" "$1.json" "$3" "$4" "$5" "$6" "$7" "${8:-0}" "${9:-0}" "${10:-1}" "${11:-0}" "${12:-0}" "${13:--}" $tokens | tr '\n' ' ' | sed 's/ $//'
}
tokenizer_of() { [ "$(field dataset <"$1.json")" = d ] && echo t || echo u; }
# generates, with the same words: ids and text by both
generates() {
    local options=(--tokens "$3" --temperature "$4" --top-k "$5" --top-p "$6" --seed "$7" ${8:+--min-p "$8"}) want end bias
    [ -z "${9:-}" ] || options+=(--choice "$9" --repetition-penalty "${10}" --presence-penalty "${11}" --frequency-penalty "${12}")
    for bias in $(tr ',' ' ' <<<"${13:--}"); do [ "$bias" = - ] || options+=(--logit-bias "$bias"); done
    want=$(ids "$@")
    equal "$1: ids of temperature $4, top_k $5, top_p $6, seed $7${8:+, min_p $8}${9:+, choice and penalties ${*:9}}" \
        "$("$LOCKSTEP" generate "$1" "$2" "${options[@]}" --json | sed -n '/"ids"/,/]/p' | tr -cd '0-9\n' | xargs)" "$want"
    end=$("$LOCKSTEP" tokenizer show "$(tokenizer_of "$1")" --json | field end)
    { printf %s "$2" && "$CONTRACT" text "$BLOBS" "$1.json" $(sed "s/\(^\| \)$end\$//" <<<"$want") && echo; } >"$1.text"
    "$LOCKSTEP" generate "$1" "$2" "${options[@]}" >"$1.said" 2>/dev/null
    same "$1: its text" "$1.text" "$1.said"
}

# --- the figures of the pages --------------------------------------------------------------------------------------------------

figures() {
    "$CONTRACT" vectors >figures
    equal "every figure is on its page" "$(grep -Fxv -f <(cat "$NUMERICS" "$FORMATS") figures | head -n 5)|" "|"
    equal "every figure of section 11 is computed" "$(section 11 | grep '^|' | grep -vE '^\| (result|s|options) |^\|---' | grep -Fxv -f figures)|" "|"
}
# the keys of a worked run, from its first line: "seed 42, steps 4; llama, layers 2"
keys_of() {
    "$LOCKSTEP" train --keys >known_keys
    worked "$1" | head -n 1 | sed -E 's/^\*\*Run [0-9]\.\*\* //; s/; the rest by default.*//; s/\.$//; s/[,;] /\n/g' | awk '
        FNR == NR { if ($1 ~ /^\[/) section = substr($1, 2, length($1) - 2); else if (NF && !($1 in at)) at[$1] = section; next }
        $1 == "llama" || $1 == "gpt2" { print "model.family=" $1; next }
        $1 == "model.from" { print "model.from=run" $3 "@" $6; next }
        { print at[$1] "." $1 "=" $2 }' known_keys -
}
worked_data() {
    local train held words
    section 12 | sed -n 's/^    \({"\(text\|prompt\)".*\)/\1/p' >d.jsonl
    for words in "tokenizer train" "dataset build"; do # as the page has the commands
        quiet "$LOCKSTEP" $(section 12 | grep -o "\`lockstep $words [^\`]*" | cut -d' ' -f2-) || exit 1
    done
    equal "root of the page's dataset" "$("$LOCKSTEP" dataset show d --json | field root)" "$(section 12 | sed -n 's/.*make the root `\([0-9a-f]*\)`:/\1/p')"
    "$CONTRACT" stream "$BLOBS" "$("$LOCKSTEP" dataset show d --json | field root)" >d.got
    train=$(section 12 | sed -n '/^    train, /,/^    mask/p' | sed '/mask/d; s/.*tokens://' | xargs)
    held=$(section 12 | sed -n 's/^    held-out: *//p')
    printf 'train %s\nmasked %s\nheld_out %s\n' "$train" "$(section 12 | sed -n 's/^    mask bits 1 at: *//p')" "$held" >d.want
    same "the page's streams" d.want d.got
}
# the value that stands in backquotes behind these words
told() { worked "$1" | sed -n "s/^$2:* \`\([0-9a-f]*\)\`.*/\1/p"; }
worked_run() {
    local n=$1 name=run$1 words logits
    if [ "$n" = 4 ]; then
        equal "run 4 is run 3 with another optimizer" "$(worked 4 | head -n 1)" "**Run 4.** As run 3 with optimizer fresh."
        words=$(keys_of 3 | sed 's/optimizer=keep/optimizer=fresh/')
    else words=$(keys_of "$n"); fi
    train "$name" data.dataset=d $words || return
    worked "$n" | grep -E '^\| [0-9]+ \|' | grep '`3' >page.rows
    grep '^|' "$name.got" >page.got
    same "$name: the page's rows" page.rows page.got
    equal "$name: the page's evaluation" "$(told "$n" 'Evaluation after the last step')" "$(evaluation "$name")"
    equal "$name: the page's identity and roots" "$(told "$n" Identity) $(told "$n" 'Weights root') $(told "$n" 'State root')" \
        "$(for key in identity weights_root state_root; do field $key <"$name.json"; done | xargs)"
    [ "$n" -le 2 ] || return 0
    "$CONTRACT" begin "$BLOBS" "$name.json" >"$name.begin"
    equal "$name: the page's root before step 0" "$(told "$n" 'Weights root before step 0')" "$(sed -n 's/^weights_root //p' "$name.begin")"
    logits=$(worked "$n" | grep 'ogit of id 0' | grep -oE '[0-9a-f]{8}' | xargs)
    equal "$name: the page's logits and losses" "$logits" "$(sed -nE 's/^(logits|losses) //p' "$name.begin" | xargs)"
    equal "$name: sample 0" "$(grep '^sample' "$name.begin")" "sample 0 $(section 12 | sed -n 's/^Sample 0 is sequence \(.*\)\.$/\1/p')"
    equal "$name: the page's initial values" "$(worked "$n" | grep -E '^\| [0-9]+, ' | sed 's/^| \([0-9]*\),[^|]*/tensor \1/; s/[`|]//g; s/ \+/ /g; s/ $//' | grep -Fxv -f "$name.begin")|" "|"
}
# the generations of a worked run: prompt, options and ids from the page's lines
worked_generation() {
    local line name=run$1 prompt="" seed temperature top_k top_p want
    option() { sed -nE "s/.*\b$1 ([0-9]+(\.[0-9]+)?).*/\1/Ip" <<<"$line"; }
    while read -r line; do
        [[ $line =~ \"(.*)\" ]] && prompt=${BASH_REMATCH[1]}
        seed=$(option seed) temperature=$(option temperature) top_k=$(option top_k) top_p=$(option top_p)
        want=$(sed 's/, the end//; s/.*: //; s/\.$//' <<<"$line")
        generates "$name" "$prompt" "$(wc -w <<<"$want")" "${temperature:-0.8}" "${top_k:-0}" "${top_p:-0.95}" "${seed:-1}"
        equal "$name: the page's ids" "$(ids "$name" "$prompt" "$(wc -w <<<"$want")" "${temperature:-0.8}" "${top_k:-0}" "${top_p:-0.95}" "${seed:-1}")" "$want"
    done < <(worked "$1" | grep -E '^(`generate`|Temperature|Seed)')
}
formats_figures() {
    equal "the page's identity, its text" "$(sed -n 's/^    \({"batch.*\)/\1/p' "$FORMATS" | tr -d '\n' | sha256sum | cut -c1-64)" "$(told 1 Identity)"
    equal "the page's checkpoint, its text" "$(sed -n 's/^    \({"format":"checkpoint.*\)/\1/p' "$FORMATS")" "$(cat "$(blob "$(told 1 'State root')")")"
}

# --- more runs -----------------------------------------------------------------------------------------------------------------

# Texts and masked prompts, shorter than most sequences; the held-out part has both.
more_data() {
    local i
    for i in 1 2 3 4 5 6 7 8; do
        printf '{"prompt":"say it %d times:","response":"%s"}\n' $i "$(text $((15 * i)) $((i + 40)) | tr '\n"' '  ')"
        text $((100 + 90 * i)) "$i" | tr '\n"' '  ' | sed 's/.*/{"text":"&"}/' && echo
    done >e.jsonl
    quiet "$LOCKSTEP" tokenizer train e.jsonl --name u --vocab 300 || exit 1
    quiet "$LOCKSTEP" dataset build e e.jsonl --tokenizer u --holdout 0.34 --holdout-by tail || exit 1
    printf '{"prompt":"%s","response":"bad cab"}\n' "a long prompt without any target" "another long prompt that has none either" >prompts.jsonl
    quiet "$LOCKSTEP" dataset build prompts prompts.jsonl --tokenizer u --holdout 0 || exit 1
    quiet "$LOCKSTEP" dataset build all e.jsonl --tokenizer u --holdout 0 || exit 1
}
LLAMA="data.dataset=e run.steps=3 model.layers=2 model.width=20 model.heads=2 model.ffn=24 model.context=24 batch.sequences=4"
GPT2="data.dataset=e run.steps=3 model.family=gpt2 model.layers=2 model.width=18 model.heads=3 model.context=21 batch.sequences=5"
more_runs() {
    train untied $LLAMA model.tied=false batch.grains=1 memory.micro_batch=1 && generates untied "the of and" 40 0.9 0 1 5 &&
        generates untied "the of and" 40 1.2 0 1 5 0.9 &&
        differ "min_p cuts there" "$(ids untied "the of and" 40 1.2 0 1 5 0.9)" "$(ids untied "the of and" 40 1.2 0 1 5)" && generates untied "thou" 30 1 200 0.9 6 0.8 &&
        generates untied "the of and" 40 1.1 0 1 5 0 3 1.4 0.3 0.7 "3=4.5,40=-100,41=2.25" &&
        generates untied "the of the" 40 0 0 1 1 0 0 0.7 -0.5 1.9 - &&
        differ "penalties cut there" "$(ids untied "the of the" 40 0 0 1 1 0 0 0.7 -0.5 1.9 -)" "$(ids untied "the of the" 40 0 0 1 1)"
    train grouped $LLAMA model.heads=6 model.kv_heads=2 model.head_dim=6 model.qkv_bias=true data.cross_documents=false batch.grains=2 \
        batch.sequences=6 run.seed=999999999999999 checkpoint.every=1 && generates grouped "" 30 1.3 12 0.6 9
    train window $LLAMA model.window=3 model.qk_norm=true batch.context=17 batch.sequences=7 batch.grains=7 eval.every=2 checkpoint.every=1 \
        memory.micro_batch=3 memory.recompute=true && generates window "he shall" 60 0 0 1 1
    train scaled $LLAMA model.head_dim=16 model.heads=1 model.kv_heads=1 model.rope_factor=3 model.rope_original=40 model.rope_low=1.25 model.rope_high=3.5 \
        model.rope_theta=123.456 model.norm_epsilon=1e-3 model.init_std=0.3 data.cross_documents=false && generates scaled "you" 20 0.5 1 0.9 3
    train long $LLAMA model.context=530 model.layers=1 model.width=8 model.qk_norm=true model.heads=2 model.qkv_bias=true run.steps=2 batch.sequences=2 \
        batch.grains=1 eval.sequences=1 data.cross_documents=false
    train wide $LLAMA model.width=6 model.heads=1 model.head_dim=516 model.ffn=1030 model.layers=1 model.vocab=601 model.context=9 run.steps=2 && generates wide "a" 12 2 0 0.99 2
    train linear $GPT2 optimizer.schedule=linear optimizer.warmup=2 optimizer.decay=4 run.steps=6 optimizer.clip=0.3 optimizer.min_ratio=0.25 eval.every=4 \
        eval.sequences=3 checkpoint.every=2 batch.grains=5 && generates linear "unto for I" 50 0.7 30 0.9 77
    train epochs $GPT2 data.dataset=d model.context=7 batch.sequences=27 batch.grains=9 model.tied=false optimizer.schedule=constant optimizer.weight_decay=0 \
        data.cross_documents=false && generates epochs "dead" 25 1 0 0.8 4
    train short $GPT2 batch.context=5 batch.sequences=8 optimizer.beta1=0.5 optimizer.beta2=0.999 optimizer.epsilon=1e-4 optimizer.clip=0 eval.every=0 \
        optimizer.schedule=linear optimizer.warmup=1 optimizer.decay=1
    train wsd $GPT2 optimizer.schedule=wsd optimizer.warmup=2 optimizer.cooldown=3 optimizer.decay=6 optimizer.min_ratio=0.3 run.steps=7
    equal "wsd: rates of warmup, peak, fall and end" "$(awk -F' [|] ' '/^[|]/ { print $4 }' wsd.got | sort -u | wc -l)" 5
    train wsd_alone $GPT2 optimizer.schedule=wsd run.steps=6 eval.every=0
    train one $GPT2 model.context=1 model.width=1 model.heads=1 model.layers=1 model.ffn=1 batch.sequences=6 batch.grains=6 && generates one "of" 6 0.8 0 0.95 1
    train blocks $GPT2 model.width=66 model.layers=1 model.heads=11 model.ffn=70 batch.grains=1 batch.sequences=3 run.steps=2 optimizer.clip=0.9
    train unheld $LLAMA data.dataset=all run.steps=12 model.width=4 model.heads=1 model.layers=1 eval.every=1
    train fresh data.dataset=e model.from=grouped@2 batch.sequences=3 batch.grains=3 run.steps=2 run.seed=8
    train kept data.dataset=e model.from=grouped model.optimizer=keep batch.sequences=8 run.steps=3 optimizer.warmup=1 batch.context=11 && generates kept "all" 20 0.8 0 0.95 6
    train prompts data.dataset=prompts run.steps=14 model.layers=1 model.width=6 model.heads=1 model.context=5 batch.sequences=1 eval.every=5
    equal "prompts: steps without targets" "$(grep -c ' `0000000000000000` | .* | 0 |$' prompts.got)" "$(grep -c ' | 0 |$' prompts.want)"
    differ "prompts: there are some" "$(grep -c ' | 0 |$' prompts.want)" 0
    train onward data.dataset=prompts model.from=prompts model.optimizer=keep run.steps=5 batch.sequences=2 eval.every=0
    train diverged $GPT2 optimizer.learning_rate=1000 optimizer.schedule=constant optimizer.weight_decay=1000 run.steps=30 eval.every=0
    equal "diverged: it fails" "$(field state <diverged.json)" failed
    # such a model may have no finite held-out loss: JSON has null for it
    check "diverged: eval --json" "$LOCKSTEP" eval diverged --json
    said "diverged: its loss" '"loss": (null|[0-9])'
    quiet "$LOCKSTEP" model pin linear --name weights
    train pinned data.dataset=e model.from=weights run.steps=2 batch.sequences=2 && generates pinned "thou" 20 0.8 0 0.95 6
    quiet "$LOCKSTEP" model export weights folder && quiet "$LOCKSTEP" model import folder --name typed
    train imported data.dataset=e model.from=typed run.steps=1 batch.sequences=4 && generates imported "thou" 20 0.8 0 0.95 6
    sed -i '/"post_processor"/,/"special_tokens"/c\  "post_processor": null,' folder/tokenizer.json # no token in front of a prompt
    quiet "$LOCKSTEP" model import folder --name unbegun
    train bare data.dataset=e model.from=unbegun run.steps=1 batch.sequences=4 && generates bare "thou" 20 0.8 0 0.95 6 && generates bare "" 9 1 0 1 2
}
# pick VALUE...: one of these, by the seed
pick() { PICKED=${*:1 + RANDOM % $#:1}; }
random_run() {
    local key keys=() heads grains d steps
    take() { key=$1 && shift && pick "$@" && keys+=("$key=$PICKED"); }
    pick 1 2 3 4 6 && heads=$PICKED
    pick 1 2 3 4 5 6 7 8 9 && grains=$PICKED
    pick 2 4 6 10 && d=$PICKED
    keys=(data.dataset=e model.heads="$heads" batch.grains="$grains")
    take run.steps 1 2 3 4 && steps=$PICKED && take run.seed 1 77 4294967296 123456789012345
    take model.family llama gpt2
    if [ "$PICKED" = llama ]; then
        pick 1 "$heads" $((heads % 2 ? heads : heads / 2)) && keys+=(model.kv_heads="$PICKED" model.head_dim="$d")
        take model.width 1 5 8 33 64 65 && take model.qkv_bias true false && take model.qk_norm true false
        take model.window 0 0 1 5 64 && take model.rope_theta 10000 500000 2.5 && take model.rope_factor 0 0 3 32 && take model.rope_original 8192 16 100
    else keys+=(model.width=$((heads * d))); fi
    take model.layers 1 2 3 && take model.ffn 1 16 63 64 130 600 && take model.context 2 9 16 65 70 && take model.vocab 300 301 700
    take model.tied true false && take data.cross_documents true false
    take model.init_std 0.02 0.5 && take model.norm_epsilon 1e-5 1e-6 0.1
    d=$((grains < 3 ? 3 : 1)) # a batch of few and short sequences may have no target
    take batch.sequences $((d * grains)) $((2 * d * grains)) $((3 * d * grains)) && take batch.context 0 0 1 2
    take memory.micro_batch 0 1 2 3 && take memory.recompute true false
    take optimizer.learning_rate 1e-3 0.1 3e-5 && take optimizer.beta1 0.9 0 0.99 && take optimizer.beta2 0.95 0.999 0.5
    take optimizer.epsilon 1e-8 1e-3 && take optimizer.weight_decay 0 0.1 1 && take optimizer.clip 0 1 0.01 100
    take optimizer.min_ratio 0 0.1 1 && take optimizer.schedule cosine linear constant wsd
    if [ "$PICKED" = wsd ]; then take optimizer.warmup 0 1 && take optimizer.decay $((steps + 1)) 9 100 && take optimizer.cooldown 0 1 "$steps"
    else take optimizer.warmup 0 1 "$steps" && take optimizer.decay 0 1 3 100; fi
    take eval.sequences 0 1 2
    echo "random run, LOCKSTEP_TEST_SEED=$1: ${keys[*]}"
    train "random$1" "${keys[@]}" || return 0
    pick 0 0.3 1 5 && set -- "$1" "$PICKED" && pick 0 1 5 40 && set -- "$@" "$PICKED" && pick 1 0.95 0.4 && set -- "$@" "$PICKED" && pick 0 0.7 && set -- "$@" "$PICKED"
    generates "random$1" "thy word" 12 "$2" "$3" "$4" "$1" "$5"
}

figures
worked_data
for n in 1 2 3 4; do worked_run $n; done
for n in 1 2; do worked_generation $n; done
formats_figures
more_data
more_runs
seed
for i in $(seq 0 $((${RANDOM_RUNS:-1} - 1))); do
    RANDOM=$(((SEEDED + i) & 32767)) : $RANDOM $RANDOM # neighbouring seeds have neighbouring first numbers
    random_run $((SEEDED + i))
done
finish
