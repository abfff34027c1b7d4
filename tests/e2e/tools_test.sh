#!/bin/bash
# Tools through lockstep serve: calls of a random model, conversations that go on, receipts, what is refused.
. "$(dirname "$0")/lib.sh"
command -v curl >/dev/null || { ok "tools: skipped, there is no curl"; finish; }

talking_model 4096 "<tool_call> </tool_call> <tool_response> </tool_response> <think> </think>"
[ $FAILED -eq 0 ] || finish
for template in qwen2.5 qwen3; do
    serve $template talk --template $template --slots 4 --page 16 || { not_ok "it listens" "$(cat $template.err)"; finish; }
    client "$template: " serve_tools.py "$LOCKSTEP" "$URL" talk
    kill $server
    wait $server
done

serve plain talk --template chatml
equal "a template without tools says so" "$(curl -s "$URL/v1/chat/completions" -d '{"messages": [{"role": "user", "content": "a"}], "tools": [{"type": "function", "function": {"name": "f"}}]}' |
    sed 's/.*"message":"\([^"]*\)".*/\1/')" "the template chatml has no tools"
kill $server
wait $server
finish
