"""Tools by a real server, whose model knows none of them: serve_tools.py LOCKSTEP URL MODEL. Prints as serve_client.py."""
import functools
import json
import re
import subprocess
import sys

import report
from report import check

lockstep, url, model = sys.argv[1:4]
ask = functools.partial(report.ask, url)


def tool(name, parameters=None, **more):
    return {"type": "function", "function": {"name": name, "description": "Does " + name, **({"parameters": parameters} if parameters else {}), **more}}


whole = {"type": "integer", "minimum": 0, "maximum": 99}
tools = [tool("add", {"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}, "b": {"$ref": "#/$defs/n"}}, "required": ["a", "b"],
                      "additionalProperties": False, "$defs": {"n": whole}}, strict=True),
         tool("now"),
         tool("say", {"type": "object", "properties": {"text": {"type": "string", "maxLength": 9}, "to": {"enum": ["me", "\"you\" {"]}},
                      "required": ["text", "to"], "additionalProperties": False})]


def chat(**more):
    status, text = ask("/v1/chat/completions", {"model": model, "messages": [{"role": "user", "content": "in the end"}], "tools": tools,
                                                "max_tokens": 150, "temperature": 1.2, "seed": 1, **more})
    return status, json.loads(text) if text.startswith(b"{") else text.decode()


def good_call(call):
    f = call["function"]
    if call["type"] != "function" or not re.fullmatch("[0-9A-Za-z]{9}", call["id"]):
        return False
    v = json.loads(f["arguments"])
    if f["name"] == "add":
        return list(v) == ["a", "b"] and all(isinstance(x, int) and 0 <= x <= 99 for x in v.values())
    if f["name"] == "now":
        return v == {}
    return f["name"] == "say" and list(v) == ["text", "to"] and len(v["text"]) <= 9 and v["to"] in ("me", "\"you\" {")


def streamed(**more):
    """The message of a stream, put together as OpenAI's clients do it."""
    status, text = chat(stream=True, **more)
    assert status == 200, text
    events = [e for e in text.split("\n\n") if e]
    assert events[-1] == "data: [DONE]", text
    message, reason, tokens = {"role": None, "content": None}, None, 0
    for e in events[:-1]:
        choice = json.loads(e[6:])["choices"][0]
        delta = choice["delta"]
        message["role"] = delta.get("role") or message["role"]
        if "content" in delta:
            message["content"] = (message["content"] or "") + delta["content"]
        for part in delta.get("tool_calls", []):
            calls = message.setdefault("tool_calls", [])
            if part["index"] == len(calls):
                calls.append({"id": part["id"], "type": part["type"], "function": {"name": part["function"]["name"], "arguments": ""}})
            calls[part["index"]]["function"]["arguments"] += part["function"]["arguments"]
        reason = choice["finish_reason"] or reason
        tokens += len((choice["logprobs"] or {}).get("content") or [])
    return message, reason, tokens


def without_ids(message):
    return [(c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls", [])], message["content"] or ""


# --- calls that must come ----------------------------------------------------------------------------------------------------------
names, several, whole_ones, ends = set(), 0, 0, set()
for seed in range(40):
    status, v = chat(tool_choice="required", seed=seed)
    if status != 200:
        check("a call is answered", False, v)
        break
    choice = v["choices"][0]
    calls = choice["message"].get("tool_calls", [])
    ends.add(choice["finish_reason"])
    if choice["finish_reason"] == "length":
        continue
    if choice["finish_reason"] != "tool_calls" or not calls or not all(map(good_call, calls)) or choice["message"]["content"] is not None:
        check("calls satisfy their schemas", False, seed, v)
        break
    whole_ones += 1
    several += len(calls) > 1
    names |= {c["function"]["name"] for c in calls}
    if seed < 12:
        message, reason, tokens = streamed(tool_choice="required", seed=seed, logprobs=True)
        if without_ids(message) != without_ids(choice["message"]) or reason != "tool_calls" or tokens != v["usage"]["completion_tokens"]:
            check("in pieces they are the same", False, seed, message, choice["message"], tokens, v["usage"])
else:
    check("random models' calls satisfy their schemas, and are the same in pieces", whole_ones > 20 and len(names) == 3, whole_ones, names, ends)
    check("an answer may call more than once", several > 0)
many = sum(len(chat(tool_choice="required", seed=s, parallel_tool_calls=False)[1]["choices"][0]["message"].get("tool_calls", [])) > 1 for s in range(40))
check("parallel_tool_calls: false: once", many == 0, many)
cut = [chat(tool_choice="required", tools=tools[1:], seed=s, stop="\"text\": ")[1]["choices"][0] for s in range(40)]
cut = [c for c in cut if len(c["message"].get("tool_calls", [])) > 1 and c["message"]["tool_calls"][-1]["function"]["arguments"] == "{"]
check("a call that a stop text cuts is no call", cut and all(c["finish_reason"] == "stop" for c in cut), cut[:1])
one = [chat(tool_choice={"type": "function", "function": {"name": "say"}}, seed=s, n=2)[1]["choices"] for s in range(10)]
check("the tool that is named is called", all(x["function"]["name"] == "say" for c in one for k in c for x in k["message"].get("tool_calls", [])), one)
named = chat(tool_choice={"type": "function", "function": {"name": "now"}})[1]["choices"][0]["message"]
check("and once", len(named["tool_calls"]) == 1, named)
check("choices of n differ, and so do their ids", all(c[0]["message"] != c[1]["message"] for c in one) and one[0][0]["message"]["tool_calls"][0]["id"] != one[0][1]["message"]["tool_calls"][0]["id"])
status, v = chat(tool_choice={"type": "function", "function": {"name": "say"}}, max_tokens=33)
check("a cut call is told as far as it is", status == 200 and v["choices"][0]["finish_reason"] == "length", v)

# --- calls that may come -----------------------------------------------------------------------------------------------------------
status, v = chat(max_tokens=40)
check("an answer without calls is text", status == 200 and v["choices"][0]["message"]["content"] and "tool_calls" not in v["choices"][0]["message"], v)
message, reason, tokens = streamed(max_tokens=40, logprobs=True)
check("in pieces too", message["content"] == v["choices"][0]["message"]["content"] and tokens == v["usage"]["completion_tokens"], message, v)
status, t = ask("/tokenize", {"model": model, "prompt": "<tool_call>", "add_special_tokens": False})
mark = json.loads(t)["tokens"]
pushed = {str(mark[0]): 12}
called = [chat(seed=s, logit_bias=pushed)[1]["choices"][0] for s in range(12)]
check("text before a call stays text", any(c["finish_reason"] == "tool_calls" and all(map(good_call, c["message"]["tool_calls"])) for c in called), called[:2])
none = [chat(seed=s, logit_bias=pushed, tool_choice="none")[1]["choices"][0]["message"] for s in range(12)]
check("tool_choice none: no call", not any("tool_calls" in m or "<tool_call>" in m["content"] for m in none))
schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": whole}}
both = [chat(seed=s, logit_bias=pushed if s % 2 else {}, response_format=schema)[1]["choices"][0] for s in range(12)]
check("with response_format: a call, or what the schema says",
      all(all(map(good_call, c["message"]["tool_calls"])) if "tool_calls" in c["message"] else 0 <= json.loads(c["message"]["content"]) <= 99
          for c in both if c["finish_reason"] != "length") and len({c["finish_reason"] for c in both} - {"length"}) == 2, both[:3])

# --- a conversation that goes on -----------------------------------------------------------------------------------------------------
said = [{"role": "user", "content": "add"}, {"role": "assistant", "content": None, "tool_calls": [
    {"id": "abcdefgh1", "type": "function", "function": {"name": "add", "arguments": "{\"b\": 1.5, \"a\": \"\u00e9\"}"}}]},
        {"role": "tool", "tool_call_id": "abcdefgh1", "name": "add", "content": "3"}]
status, v = chat(messages=said, max_tokens=5)
check("calls and their results go on", status == 200 and v["usage"]["prompt_tokens"] > 20, v)
ids = [json.loads(ask("/tokenize", {"model": model, "messages": said, **t})[1]) for t in ({"tools": tools}, {})]
check("tokenize counts what a request has", ids[0]["count"] == v["usage"]["prompt_tokens"] > ids[1]["count"], ids, v["usage"])
text = json.loads(ask("/detokenize", {"model": model, "tokens": ids[0]["tokens"]})[1])["prompt"]
check("tools and calls stand in the prompt as json.dumps writes them", json.dumps(tools[0], ensure_ascii=False) in text and
      "{\"name\": \"add\", \"arguments\": {\"b\": 1.5, \"a\": \"\u00e9\"}}" in text, text)

# --- receipts ------------------------------------------------------------------------------------------------------------------------
status, v = chat(tool_choice="required", lockstep={"receipt": True})
with open("tools.json", "w") as f:
    json.dump(v, f)
out = subprocess.run([lockstep, "response", "verify", "tools.json"], capture_output=True, text=True)
check("a receipt of calls is made again", out.returncode == 0 and "equal" in out.stdout, out.stdout, out.stderr)

# --- what is refused -------------------------------------------------------------------------------------------------------------------
user = [{"role": "user", "content": "a"}]
for name, body, what in [
        ("tools that are none", {"tools": "x"}, "tools must be an array"),
        ("a tool without a function", {"tools": [{"type": "function"}]}, "tools[0] must be"),
        ("a tool of another type", {"tools": [{"type": "web", "function": {}}]}, "tools[0] must be"),
        ("a name of spaces", {"tools": [tool("a b")]}, "letters, digits"),
        ("a name with a zero", {"tools": [tool("a\0b")]}, "letters, digits"),
        ("a choice with a zero", {"tools": [tool("a")], "tool_choice": {"type": "function", "function": {"name": "a\0"}}}, "tool_choice must be"),
        ("tools that never fit", {"tools": [tool("a", description="x" * 5000000)]}, "never fits into the context"),
        ("a name twice", {"tools": [tool("a"), tool("a")]}, "same name"),
        ("an unknown key", {"tools": [tool("a", None, x=1)]}, "tools[0].function.x"),
        ("a keyword that is not supported", {"tools": [tool("a", {"type": "object", "not": {}})]}, "$.tools[0].function.parameters.not"),
        ("parameters that are no object", {"tools": [tool("a", {"type": "string"})]}, "must be an object"),
        ("too many tools", {"tools": [tool(f"t{i}") for i in range(129)]}, "129 tools"),
        ("a choice without tools", {"tool_choice": "required"}, "there are no tools"),
        ("a choice of none of them", {"tools": [tool("a")], "tool_choice": {"type": "function", "function": {"name": "b"}}}, "none of tools"),
        ("a choice that is none", {"tools": [tool("a")], "tool_choice": "perhaps"}, "tool_choice must be"),
        ("a grammar beside tools", {"tools": [tool("a")], "grammar": "root ::= \"a\""}, "grammar does not go with tools"),
        ("arguments that are no JSON", {"messages": [{"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": {"name": "a", "arguments": "{"}}]}]}, "no object as JSON: "),
        ("a call without an id", {"messages": [{"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "a", "arguments": "{}"}}]}]}, "tool_calls[0] must be"),
        ("a number that has no place here", {"messages": [{"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": {"name": "a", "arguments": "{\"a\": 12345678901234567890}"}}]}]}, "too big integer"),
        ("the name of a user", {"messages": [{"role": "user", "content": "a", "name": "b"}]}, "messages[0].name is not supported"),
        ("calls of a user", {"messages": [{"role": "user", "content": "a", "tool_calls": [{}]}]}, "tool_calls is not supported"),
        ("an unknown kwarg", {"chat_template_kwargs": {"x": 1}}, "chat_template_kwargs.x")]:
    status, text = ask("/v1/chat/completions", {"model": model, "messages": user, "max_tokens": 1, **body})
    v = json.loads(text)
    check(f"{name} is refused", status == 400 and what in v["error"]["message"] and v["error"]["type"] == "invalid_request_error", status, v)
check("no tools are no tools", chat(tools=[], max_tokens=3)[0] == 200)
report.end()
