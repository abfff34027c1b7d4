"""Every parameter of every route with values of every type: serve_params.py URL MODEL PARAMS_C [KEY]. The parameters are those of the
table in src/serve/api/params.c, and what stands inside them. Each answer is one, or an error in OpenAI's shape that is the
client's (4xx)."""
import http.client
import json
import re
import sys
from urllib.parse import urlparse

url, model = urlparse(sys.argv[1]), sys.argv[2]
VALUES = ["null", "true", "false", '"x"', '""', "-1", "0", "1", "0.5", "1e99", "9223372036854775807", "99999999999999999999", "[]", "{}", "[null]", "[[]]", "[[], 1]",
          '[{"a": [1, {"b": null}]}]', '{"a": {"b": []}}', '{"type": 1}', '{"type": "x", "x": {}}', '"\\u0000"', '"\\ud83d\\ude00"', '"' + "y" * 5000 + '"']
MESSAGE = {"role": "user", "content": "day 7?"}
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}, "additionalProperties": False}}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}}}
ROUTES = {"COMPLETIONS": ("/v1/completions", {"model": model, "prompt": "in", "max_tokens": 1}), "CHAT": ("/v1/chat/completions", {"model": model, "messages": [MESSAGE], "max_tokens": 1}),
          "EMBEDDINGS": ("/v1/embeddings", {"model": model, "input": "in"})}
# what stands inside parameters: the whole parameter, and the way to the value that is replaced
INSIDE = {"stream_options": [({"include_usage": True}, ["include_usage"]), ({"include_obfuscation": True}, ["include_obfuscation"])], "lockstep": [({"receipt": True}, ["receipt"])], "logit_bias": [({"40": 1}, ["40"])],
          "stop": [(["a", "b"], [1])], "prompt": [(["a", "b"], [1]), ([1, 2], [1]), ([[1, 2], [3]], [0, 1])], "input": [(["a", "b"], [1]), ([1, 2], [1])],
          "chat_template_kwargs": [({"enable_thinking": True}, ["enable_thinking"])], "modalities": [(["text"], [0])], "tool_choice": [({"type": "function", "function": {"name": "f"}}, w) for w in (["type"], ["function"], ["function", "name"])],
          "response_format": [(SCHEMA, w) for w in (["type"], ["json_schema"], ["json_schema", "name"], ["json_schema", "strict"], ["json_schema", "schema"], ["json_schema", "schema", "type"], ["json_schema", "schema", "properties"],
                                                    ["json_schema", "schema", "properties", "a"], ["json_schema", "schema", "properties", "a", "type"], ["json_schema", "schema", "required"], ["json_schema", "schema", "additionalProperties"])],
          "messages": [([MESSAGE], w) for w in ([0], [0, "role"], [0, "content"], [0, "name"], [0, "tool_calls"], [0, "refusal"], [0, "audio"])] +
                      [([{"role": "user", "content": [{"type": "text", "text": "a"}]}], w) for w in ([0, "content", 0], [0, "content", 0, "type"], [0, "content", 0, "text"])] +
                      [([MESSAGE, {"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "content": "a", "tool_call_id": "a"}], [1, "tool_calls"] + w) for w in ([], [0], [0, "id"], [0, "type"], [0, "function"], [0, "function", "name"], [0, "function", "arguments"])] +
                      [([MESSAGE, {"role": "tool", "content": "a", "tool_call_id": "a"}], [1, "tool_call_id"])],
          "tools": [([TOOL], [0] + w) for w in ([], ["type"], ["function"], ["function", "name"], ["function", "description"], ["function", "strict"], ["function", "parameters"], ["function", "parameters", "properties"])]}
OTHERS = [("/tokenize", {"model": model, "prompt": "in"}, w) for w in ("model", "prompt", "messages", "tools", "add_special_tokens", "more")] + [("/detokenize", {"model": model, "tokens": [40]}, w) for w in ("model", "tokens", "more")]
failed = asked = 0
headers = {"Authorization": f"Bearer {sys.argv[4]}"} if len(sys.argv) > 4 else {}
connection = http.client.HTTPConnection(url.hostname, url.port, timeout=60)


def cases():
    with open(sys.argv[3]) as f:
        table = re.findall(r'^    \{"(\w+)", ([A-Z |]+), \w+\}', f.read(), re.M)
    assert len(table) > 40, table
    for route, (path, good) in ROUTES.items():
        for name, routes in table + [("no_such_parameter", route)]:
            if route in routes or (routes.startswith("BOTH") and route != "EMBEDDINGS") or name in INSIDE:
                yield path, good, [name]
                for whole, way in INSIDE.get(name, []):
                    yield path, {**good, name: whole}, [name] + way
    for path, good, name in OTHERS:
        yield path, good, [name]
    for way in ([0], [0, 1], [0, "content"], [0, "role"]):
        yield "/tokenize", {"model": model, "messages": [MESSAGE, MESSAGE]}, ["messages"] + way


def put(v, way, text):
    """The body as a text, with `text` for the value."""
    mark = "@@value@@"
    top = v = json.loads(json.dumps(v))
    for k in way[:-1]:
        v = v[k] if isinstance(v, dict) or isinstance(k, int) and k < len(v) else {}
    if isinstance(v, dict) or (isinstance(way[-1], int) and way[-1] < len(v)):
        v[way[-1]] = mark
    return json.dumps(top).replace(f'"{mark}"', text)


def right(status, type_, text):
    if status == 200:
        if type_.startswith("text/event-stream"):
            events = text.decode().split("\n\n")
            return events[-2:] == ["data: [DONE]", ""] and all(isinstance(json.loads(e[6:]), dict) and "error" not in e for e in events[:-2])
        return isinstance(json.loads(text), dict)
    e = json.loads(text)["error"]
    return 400 <= status < 500 and set(e) == {"message", "type", "param", "code"} and isinstance(e["message"], str) and len(e["message"]) > 5 and e["type"] == "invalid_request_error"


for path, good, way in cases():
    bad = []
    for value in VALUES:
        body = put(good, way, value)
        asked += 1
        try:
            connection.request("POST", path, body.encode(), headers)
            r = connection.getresponse()
            status, type_, text = r.status, r.headers.get("Content-Type", ""), r.read()
            if not right(status, type_, text):
                bad.append((value, status, text[:300]))
        except (OSError, http.client.HTTPException, ValueError, KeyError) as e:
            connection.close()
            bad.append((value, repr(e)))
    if bad:
        failed += 1
        print(f"not ok - {path}, {'.'.join(map(str, way))}: {bad[:3]}"[:1500], flush=True)
print(f"{'ok' if not failed and asked > 1000 else 'not ok'} - values of every type in every parameter: {asked} requests")
sys.exit(failed > 0)
