#!/bin/bash
# Conversations out of the house: the folder of a run that learned them has its template as Jinja, which writes what the
# dataset holds; texts begin and answers end there as in generate; ids of added tokens are what Hugging Face's library gives.
. "$(dirname "$0")/lib.sh"

for i in $(seq 60); do echo "in the beginning was day $i, and it was good."; done >text.txt
quiet "$LOCKSTEP" tokenizer train text.txt --vocab 280 --name plain
quiet "$LOCKSTEP" tokenizer export plain plain.json
# chat tokens behind a hole: 300 to 305
tokens="" id=300
for token in im_start im_end begin_of_text start_header_id end_header_id eot_id; do
    tokens="$tokens,{\"id\": $id, \"content\": \"<|$token|>\", \"special\": true}" id=$((id + 1))
done
sed "s/^  \],\$/$tokens],/" plain.json >chat.json
check "a tokenizer with chat tokens behind a hole" "$LOCKSTEP" tokenizer import chat.json --name chat
check "shows its end" "$LOCKSTEP" tokenizer show chat
said "as a number" "^end +279$"
sed 's/<|endoftext|>/<|other|>/g' plain.json >other.json
check "one without an end" "$LOCKSTEP" tokenizer import other.json --name other
check "is shown" "$LOCKSTEP" tokenizer show other
said "with none" "^end +none$"
check "in JSON" "$LOCKSTEP" tokenizer show other --json
said "it is null" '"end": null'

cat >talk.jsonl <<'J'
{"messages": [{"role": "system", "content": "be good"}, {"role": "user", "content": "day 7?"}, {"role": "assistant", "content": "it was good."}]}
{"messages": [{"role": "user", "content": "\u00a0 the \u3000"}, {"role": "assistant", "content": "beginning\n"}, {"role": "tool", "content": "日本\n\n"}, {"role": "assistant", "content": "naïve {{ x }} {% if %} 'q' \"r\" \\n"}]}
{"messages": [{"role": "user", "content": "\t\u001c a\u200b \u0085"}, {"role": "assistant", "content": "no"}]}
J
cat >jinja.py <<'P'
import json, sys
from jinja2.sandbox import ImmutableSandboxedEnvironment
def refuse(why): raise ValueError(why)
env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)  # as in transformers
env.globals["raise_exception"] = refuse
template = env.from_string(open(sys.argv[1]).read())
if sys.argv[2] == "all":
    for line in open("talk.jsonl"):
        sys.stdout.write("<|endoftext|>" + template.render(messages=json.loads(line)["messages"], add_generation_prompt=False))
    sys.stdout.write("<|endoftext|>")
elif sys.argv[2] == "prompt":
    sys.stdout.write(template.render(messages=[{"role": "user", "content": "day 7?"}], add_generation_prompt=True))
else:
    for bad in {"role": "judge", "content": "x"}, {"role": "user", "content": [{"type": "text"}]}:
        try: template.render(messages=[bad]); print("taken")
        except ValueError as e: print(e)
P
for template in chatml llama3; do
    stop=301
    [ $template = chatml ] || stop=305
    quiet "$LOCKSTEP" dataset build $template talk.jsonl --tokenizer chat --template $template --holdout 0
    config $template.ini run.name=$template data.dataset=$template run.steps=1 model.context=32 batch.sequences=1 batch.grains=1 \
        eval.every=0 checkpoint.every=1 eval.sequences=0
    check "$template: a run learns conversations" "$LOCKSTEP" train $template.ini
    check "$template: it goes out" "$LOCKSTEP" model export $template $template-hf
    equal "$template: generation ends where an answer does" \
        "$(tr -d ' \n' <$template-hf/generation_config.json)" "{\"eos_token_id\":[279,$stop]}"
    if grep -q '"ids": \[279\], "tokens": \["<|endoftext|>"\]' $template-hf/tokenizer.json; then ok "$template: texts begin as here"
    else not_ok "$template: texts begin as here"; fi
    check "$template: it comes back" "$LOCKSTEP" model import $template-hf --name back-$template
    if grep -q "conversations are written as $template\$" "$WORK/.err"; then ok "$template: with its template"; else not_ok "$template: with its template" "$(cat "$WORK/.err")"; fi
    for how in --chat "--template $template"; do
        "$LOCKSTEP" generate back-$template "day 7?" $how --tokens 8 --json | sed '/seconds/d' >"how${how%% *}.out"
    done
    equal "$template: which --chat takes" "$(cat how--chat.out)" "$(cat how--template.out)"
    equal "$template: with the tokenizer's own root" "$("$LOCKSTEP" model show back-$template --json | field tokenizer_root)" \
        "$("$LOCKSTEP" tokenizer show chat --json | field root)"
    for m in $template back-$template; do
        "$LOCKSTEP" generate $m "day 7" --tokens 8 --temperature 0 --json | sed '/seconds/d' >$m.out
    done
    equal "$template: and goes on the same" "$(cat back-$template.out)" "$(cat $template.out)"
    check "$template: and out again" "$LOCKSTEP" model export back-$template again-$template
    if diff -r $template-hf again-$template >.diff; then ok "$template: the same folder"; else not_ok "$template: the same folder" "$(cat .diff)"; fi
    python3 -c 'import jinja2' 2>/dev/null || continue
    quiet "$LOCKSTEP" dataset export $template --format npy "npy-$template"
    python3 jinja.py $template-hf/chat_template.jinja all >all.txt
    equal "$template: Jinja writes what the dataset holds" \
        "$(python3 -c 'import sys; d = open(sys.argv[1], "rb").read(); print(*memoryview(d[10 + int.from_bytes(d[8:10], "little"):]).cast("H"))' npy-$template/${template}_train.npy)" \
        "$("$LOCKSTEP" tokenizer encode chat all.txt --special)"
    python3 jinja.py $template-hf/chat_template.jinja prompt >prompt.txt
    equal "$template: and the prompt of generate" "$("$LOCKSTEP" tokenizer encode chat prompt.txt --special | wc -w)" \
        "$("$LOCKSTEP" generate $template "day 7?" --template $template --tokens 1 --json | field prompt_tokens)"
    equal "$template: and refuses what the dataset would" "$(python3 jinja.py $template-hf/chat_template.jinja bad)" \
        "the role judge is none of system, user, assistant and tool
the content of a message must be a text"
done

# --- a folder whose ids are not the library's ------------------------------------------------------------------------------
cp -r chatml-hf odd && cp chat.json odd/tokenizer.json
fails "a tokenizer.json of other ids than the library's" 1 'added token "<.im_start.>" says that its id is 300, .* gives it 280' -- \
    "$LOCKSTEP" model import odd --name odd
fails "names keys it does not know, all at once" 1 "keys new_a and new_b are not known here.*--ignore new_a --ignore new_b" -- \
    bash -c "sed -i 's/{/{\"new_a\": 1, \"new_b\": [], \"_num_labels\": 2,/' odd/config.json; '$LOCKSTEP' model import odd --name odd"
printf 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n' >again-chatml/model.safetensors
fails "a pointer instead of weights" 1 "model.safetensors is a Git LFS pointer.*git lfs pull" -- "$LOCKSTEP" model import again-chatml --name odd
fails "a page instead of a tokenizer" 1 "page.json is an HTML page" -- \
    bash -c "echo '<!DOCTYPE html><html>' >page.json; '$LOCKSTEP' tokenizer import page.json --name odd"
finish
