#!/bin/bash
# Other people's clients against our server: clients.sh. CLIENTS: a folder with their Python and node_modules (make test-clients).
. "$(dirname "$0")/../e2e/lib.sh"
: "${CLIENTS:?the folder of the clients}"
CLIENT_TESTS=$HERE
talking_model
[ $FAILED -eq 0 ] || finish
if serve first talk --slots 8; then ok "it listens"; else not_ok "it listens" "$(cat first.log first.err)" && finish; fi

lines < <("$CLIENTS/python/bin/python" "$CLIENT_TESTS/python_clients.py" "$URL" talk 2>&1 || echo "not ok - the Python clients end well")
cp "$CLIENT_TESTS/node_clients.mjs" "$CLIENTS/node/"
lines < <(node "$CLIENTS/node/node_clients.mjs" "$URL" talk 2>&1 || echo "not ok - the Node clients end well")

# --- lm_eval: its log-likelihoods are those that the server tells us, which are eval's -------------------------------------------
for i in 1 2 3 4 5; do
    echo "{\"question\": \"in the beginning was day $i, and\", \"choices\": [\" it was good.\", \" day was bad.\", \" good\"], \"answer\": 0}"
done >good.jsonl
cp "$CLIENT_TESTS/lm_eval/good.yaml" .
quiet "$LOCKSTEP" model export talk talk-hf
HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TOKENIZERS_PARALLELISM=false "$CLIENTS/python/bin/python" -m lm_eval run --model local-completions \
    --model_args "model=talk,base_url=$URL/v1/completions,tokenizer_backend=huggingface,tokenizer=talk-hf,num_concurrent=4" \
    --tasks good --include_path . --log_samples --output_path lm >lm.txt 2>&1
equal "lm_eval comes to its end" $? 0
if "$CLIENTS/python/bin/python" "$CLIENT_TESTS/likelihoods.py" "$URL" talk talk-hf lm >compare.txt 2>&1; then ok "lm_eval's log-likelihoods are the server's"
else not_ok "lm_eval's log-likelihoods are the server's" "$(tail -n 20 compare.txt lm.txt)"; fi

if command -v promtool >/dev/null; then
    curl -s "$URL/metrics" >metrics.txt
    # it dislikes the colons of vLLM's names, and nothing else
    equal "promtool takes the metrics" "$(promtool check metrics <metrics.txt 2>&1 | grep -v "should not contain ':'" | wc -l)" 0
fi
if command -v h2load >/dev/null; then
    echo '{"prompt": "in", "max_tokens": 4}' >body.json
    h2load --h1 -n 400 -c 40 -d body.json "$URL/v1/completions" >load.txt 2>&1
    equal "h2load: 400 requests by 40 clients" "$(grep -o '[0-9]* succeeded' load.txt)" "400 succeeded"
fi
kill $server
wait $server
equal "the server ends well" $? 0

# --- tools, of a model with a larger context ------------------------------------------------------------------------------------
rm -rf store c.ini talk.jsonl
talking_model 4096 "<tool_call> </tool_call> <tool_response> </tool_response>"
serve tools talk --slots 8 --template qwen2.5
lines < <("$CLIENTS/python/bin/python" "$CLIENT_TESTS/python_tools.py" "$URL" talk 2>&1 || echo "not ok - the Python clients of tools end well")
cp "$CLIENT_TESTS/node_tools.mjs" "$CLIENTS/node/"
lines < <(node "$CLIENTS/node/node_tools.mjs" "$URL" talk 2>&1 || echo "not ok - the Node clients of tools end well")
kill $server
wait $server
finish
