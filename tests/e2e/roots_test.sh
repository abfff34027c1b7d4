#!/bin/bash
# One root for any number of threads, any instruction set, any micro-batch, with and without recomputation; another root for
# anything that is part of the identity. Heads of 12 and of 7, width 84, vocabulary 1,021, context 65, grains of odd sizes.
. "$(dirname "$0")/lib.sh"

standard_data
text 9000 2 | awk 'NR % 3 == 1 { gsub(/["\\]/, ""); p = $0 } NR % 3 == 2 { gsub(/["\\]/, ""); printf "{\"prompt\": \"%s\", \"response\": \" %s\"}\n", p, $0 }' >pairs.jsonl
text 40000 3 | awk 'length { gsub(/["\\]/, ""); printf "{\"text\": \"%s\"}\n", $0 }' >documents.jsonl
quiet "$LOCKSTEP" dataset build pairs pairs.jsonl --tokenizer t --holdout 0.2 --holdout-by tail || exit 1
quiet "$LOCKSTEP" dataset build documents documents.jsonl --tokenizer t --holdout 0.1 --holdout-by tail || exit 1
{ head -c 30000 text.txt; printf X; tail -c +30002 text.txt; } >changed.txt
quiet "$LOCKSTEP" dataset build changed changed.txt --tokenizer t --holdout 0.05 || exit 1

# train CONFIG [options or keys]...: prints what must agree
train() {
    local id
    id=$(mktemp -u r.XXXXXX)
    "$LOCKSTEP" train "$@" run.name=$id >$id.out 2>&1 || { tail -n 3 $id.out; return 1; }
    result $id
}
root() { sed -n 's/.*"weights_root": "\(.*\)".*/\1/p'; }

config llama.ini model.vocab=1021 model.tied=false
config llama-tied.ini model.kv_heads=1 model.vocab=1021 batch.grains=3 data.dataset=documents data.cross_documents=false
config gpt2.ini model.family=gpt2 model.heads=12 model.ffn=85 model.vocab=1021 batch.grains=12
config pairs.ini data.dataset=pairs batch.sequences=7 batch.grains=7 model.layers=1 optimizer.schedule=linear optimizer.warmup=3
config variants.ini model.kv_heads=1 model.vocab=1021 model.qkv_bias=true model.qk_norm=true model.window=20 model.rope_factor=8 \
    model.rope_original=30 data.dataset=documents data.cross_documents=false
best=$(isas | head -n 1)
for c in llama llama-tied gpt2 pairs variants; do
    want=$(train $c.ini --threads 2)
    if ! grep -q weights_root <<<"$want"; then not_ok "$c trains" "$want"; continue; fi
    echo "# $c: $(root <<<"$want")"
    got=$(for n in 1 3 5 8; do echo "$(train $c.ini --threads $n)"; done | sort -u)
    equal "$c: 1, 3, 5 and 8 threads" "$got" "$(sort <<<"$want")"
    short="run.steps=3 eval.every=3" # ref takes 20 times as long
    few=$(train $c.ini $short)
    for isa in $(isas); do
        case $isa in
        "$best") ;;
        ref | blocked) equal "$c: $isa = $best, 3 steps" "$(LOCKSTEP_ISA=$isa train $c.ini $short)" "$few" ;;
        *) equal "$c: $isa = $best" "$(LOCKSTEP_ISA=$isa train $c.ini)" "$want" ;;
        esac
    done
    got=$(train $c.ini memory.recompute=true; train $c.ini memory.recompute=true memory.micro_batch=1 --threads 3)
    equal "$c: recomputed activations" "$(sort -u <<<"$got")" "$(sort <<<"$want")"
    sequences=$(sed -n 's/^sequences=//p' $c.ini | sort -n | tail -n 1)
    got=$(for m in 1 2 5 $sequences; do echo "$(train $c.ini memory.micro_batch=$m --threads $((m % 3 + 1)))"; done | sort -u)
    equal "$c: micro-batches of 1, 2, 5 and $sequences" "$got" "$(sort <<<"$want")"
    got=$(train $c.ini checkpoint.every=1 checkpoint.keep=1 sample.every=3 sample.prompt=the)
    equal "$c: checkpoints and samples change nothing" "$got" "$want"
done

# What is part of the identity changes the root. (12 grains of one sequence and 6 of two do not here: a sequence is one segment.)
want=$(train llama.ini | root)
for change in run.seed=2 data.dataset=changed batch.grains=3 batch.grains=4 batch.grains=1 run.steps=7 model.vocab=1020 optimizer.clip=0.5 \
              optimizer.beta2=0.951 model.tied=true optimizer.learning_rate=1.0000001e-3 optimizer.schedule=wsd; do
    differ "another $change, another root" "$(train llama.ini $change | root)" "$want"
done
differ "another cooldown, another root" "$(train llama.ini optimizer.schedule=wsd optimizer.cooldown=2 | root)" "$(train llama.ini optimizer.schedule=wsd optimizer.cooldown=3 | root)"
want=$(train variants.ini | root)
for change in model.qkv_bias=false model.qk_norm=false model.window=19 model.window=0 model.rope_factor=0 model.rope_original=29; do
    differ "another $change, another root" "$(train variants.ini $change | root)" "$want"
done
want=$(train llama-tied.ini | root)
differ "attention across documents, another root" "$(train llama-tied.ini data.cross_documents=true | root)" "$want"
one=$(train gpt2.ini batch.grains=1)
two=$(train gpt2.ini batch.grains=2)
differ "the order of adding gradients (1 grain, 2 grains)" "$(root <<<"$one")" "$(root <<<"$two")"
differ "and another identity" "$(grep identity <<<"$one")" "$(grep identity <<<"$two")"
equal "a name is no part of the identity" "$(quiet "$LOCKSTEP" train llama.ini run.name=other; run_field other identity)" "$(train llama.ini | field identity)"
finish
