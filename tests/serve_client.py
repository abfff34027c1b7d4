"""A client of `lockstep serve`, by sockets alone: serve_client.py LOCKSTEP URL MODEL. Prints "ok - ..." and "not ok - ..."."""
import base64
import functools
import json
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from urllib.parse import urlparse

import report
from report import check

lockstep, url, model = sys.argv[1:4]
host, port = urlparse(url).hostname, urlparse(url).port
ask = functools.partial(report.ask, url)


def post(path, **body):
    status, text = ask(path, body)
    return status, json.loads(text)


def complete(**body):
    status, v = post("/v1/completions", **{"model": model, "max_tokens": 12, "temperature": 0.8, "seed": 1, **body})
    assert status == 200, v
    return v


def stream(path, **body):
    status, text = ask(path, {"model": model, "stream": True, **body})
    events = [e for e in text.decode().split("\n\n") if e]
    assert status == 200 and all(e.startswith("data: ") for e in events) and events[-1] == "data: [DONE]", text
    return [json.loads(e[6:]) for e in events[:-1]]


def generate(prompt, *options):
    out = subprocess.run([lockstep, "generate", model, prompt, "--json", *options], capture_output=True, check=True).stdout
    return json.loads(out)


# --- what generate says ----------------------------------------------------------------------------------------------
for i, (asked, options) in enumerate([
        ({"temperature": 0}, ["--temperature", "0"]),
        ({"temperature": 1.1, "top_k": 20, "seed": 9}, ["--temperature", "1.1", "--top-k", "20", "--seed", "9"]),
        ({"min_p": 0.1, "repetition_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": 0.25},
         ["--min-p", "0.1", "--repetition-penalty", "1.3", "--presence-penalty", "0.5", "--frequency-penalty", "0.25"]),
        ({"logit_bias": {"40": 4, "41": -3.5}, "top_p": 0.7}, ["--logit-bias", "40=4", "--logit-bias", "41=-3.5", "--top-p", "0.7"]),
        ({"stop": ["e", "was"]}, ["--stop", "e", "--stop", "was"])]):
    if "temperature" not in asked:
        options += ["--temperature", "0.8"]
    if "top_p" not in asked:
        options += ["--top-p", "1"]
    want = generate("in the", "--tokens", "12", *options)
    got = complete(prompt="in the", **asked)
    text = got["choices"][0]["text"]
    check(f"completion {i} is generate's", text == want["text"], text, "not", want["text"])
    check(f"completion {i} ends as generate's", got["choices"][0]["finish_reason"] == {"length": "length"}.get(want["finish"], "stop"), got)
    check(f"completion {i} counts", got["usage"]["completion_tokens"] == want["tokens"] and got["usage"]["prompt_tokens"] == want["prompt_tokens"], got["usage"], want)
    pieces = stream("/v1/completions", prompt="in the", max_tokens=12, **{"temperature": 0.8, "seed": 1, **asked})
    check(f"completion {i} streamed is the same", "".join(c["choices"][0]["text"] for c in pieces) == text, pieces)
two = complete(prompt="in the", n=3)
check("choices are generate's", [c["text"] for c in two["choices"]] == [
    generate("in the", "--tokens", "12", "--temperature", "0.8", "--top-p", "1", "--choice", str(i))["text"] for i in range(3)], two)
chat = {"messages": [{"role": "system", "content": "be good"}, {"role": "user", "content": [{"type": "text", "text": "day 7?"}]}]}
status, v = post("/v1/chat/completions", model="other", max_completion_tokens=15, temperature=0.5, seed=4, **chat)
want = generate("day 7?", "--template", "chatml", "--system", "be good", "--tokens", "15", "--temperature", "0.5", "--top-p", "1", "--seed", "4")
check("a conversation is generate's", status == 200 and v["choices"][0]["message"]["content"] == want["text"], v, want)
pieces = stream("/v1/chat/completions", max_tokens=15, temperature=0.5, seed=4, stream_options={"include_usage": True}, **chat)
check("streamed, too", "".join(c["choices"][0]["delta"].get("content", "") for c in pieces if c["choices"]) == want["text"], pieces)
check("its first piece says the role", pieces[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}, pieces[0])
check("id and created stay", len({(c["id"], c["created"], c["model"], c["object"]) for c in pieces}) == 1, pieces)
check("one reason, in the last piece", [c["choices"][0]["finish_reason"] for c in pieces if c["choices"]][:-1] == [None] * (len(pieces) - 2), pieces)
check("then the usage", pieces[-1]["choices"] == [] and pieces[-1]["usage"]["prompt_tokens"] == want["prompt_tokens"] and pieces[0]["usage"] is None, pieces[-1])

# --- log-probabilities -------------------------------------------------------------------------------------------------
v = complete(prompt="it was", logprobs=3, echo=True, max_tokens=5)
lp, text = v["choices"][0]["logprobs"], v["choices"][0]["text"]
check("echo: the prompt comes first", text.startswith("it was"), text)
check("echo: each token has its place", len(lp["tokens"]) == len(lp["token_logprobs"]) == len(lp["text_offset"]) == v["usage"]["total_tokens"], lp)
check("echo: the first has none", lp["token_logprobs"][0] is None and all(x < 0 for x in lp["token_logprobs"][1:]), lp)
check("echo: texts stand where they are said to", all(text[o:].startswith(t) for o, t in list(zip(lp["text_offset"], lp["tokens"]))[1:] if not t.startswith("bytes:") and text.isascii()), lp, text)
check("echo: three likeliest, in order", all(len(t) <= 3 and list(t.values()) == sorted(t.values(), reverse=True) for t in lp["top_logprobs"][1:]), lp)
plain = complete(prompt="it was", logprobs=3, max_tokens=5)["choices"][0]["logprobs"]
check("echo changes none", plain["token_logprobs"] == lp["token_logprobs"][-5:], plain, lp)
v = complete(prompt="it was", logprobs=0, echo=True, max_tokens=0)
check("only the prompt's", v["choices"][0]["logprobs"]["token_logprobs"] == lp["token_logprobs"][:-5] and v["choices"][0]["finish_reason"] == "length", v)
pieces = stream("/v1/chat/completions", max_tokens=15, seed=4, temperature=0.5, logprobs=True, top_logprobs=2, **chat)
tokens = [t for c in pieces for t in (c["choices"][0]["logprobs"] or {"content": []})["content"]]
check("a stream's log-probabilities are all there", len(tokens) == want["tokens"] and all(len(t["top_logprobs"]) == 2 for t in tokens), tokens)
check("with bytes that are the text", bytes(b for t in tokens for b in t["bytes"]).decode(errors="replace").startswith(want["text"][:5]), tokens)

# --- embeddings, receipts --------------------------------------------------------------------------------------------------
def embed(**body):
    return post("/v1/embeddings", model=model, **body)


status, v = embed(input=["in the", "it was good"])
one = [d["embedding"] for d in v["data"]]
check("embeddings", status == 200 and len(one) == 2 and len(one[0]) == len(one[1]) == 84 and one[0] != one[1] and v["usage"]["total_tokens"] > 4, v)
status, v = embed(input=post("/tokenize", model=model, prompt="it was good")[1]["tokens"], encoding_format="base64")
check("of ids, in base64: the same bits", struct.unpack("<84f", base64.b64decode(v["data"][0]["embedding"])) == tuple(struct.unpack("<f", struct.pack("<f", x))[0] for x in one[1]), v)
check("dimensions are refused", embed(input="a", dimensions=5)[0] == 400)
v = complete(prompt="in the", n=2, max_tokens=20, lockstep={"receipt": True}, stop="w", presence_penalty=0.5, logit_bias={"40": 1})
with open("answer.json", "w") as f:
    json.dump(v, f)
verify = lambda name: subprocess.run([lockstep, "response", "verify", name], capture_output=True, text=True)
r = verify("answer.json")
check("a receipt is verified", r.returncode == 0 and r.stdout.count("are equal") == 2, r)
for name, change, says in [("another token", lambda r: r["tokens"].__setitem__(1, (r["tokens"][1] + 1) % 200), "token 1 differs"),
                           ("other logits", lambda r: r["marks"].__setitem__(2, "0" * 16), "token 2 differs in its logits alone"),
                           ("another request", lambda r: r["request"].__setitem__("seed", 77), "changed"), ("another model", lambda r: r.__setitem__("model_root", "0" * 64), "is of the model 0"),
                           ("a token less", lambda r: (r["tokens"].pop(), r["marks"].pop()), "differs"), ("no root", lambda r: r.pop("root"), "no receipt")]:
    w = json.loads(json.dumps(v))
    change(w["lockstep"]["receipts"][0])
    with open("changed.json", "w") as f:
        json.dump(w, f)
    r = verify("changed.json")
    check(f"a receipt of {name} is found out", r.returncode == 1 and says in r.stderr, r)
status, text = ask("/v1/chat/completions", {"model": model, "stream": True, "max_tokens": 9, "lockstep": {"receipt": True}, **chat})
with open("stream.txt", "wb") as f:
    f.write(text)
check("and one at the end of a stream", verify("stream.txt").returncode == 0, verify("stream.txt"))

# --- texts of a form -----------------------------------------------------------------------------------------------------
schema = {"type": "object", "properties": {"day": {"type": "integer", "minimum": 1, "maximum": 31}, "good": {"type": "boolean"},
                                           "words": {"type": "array", "items": {"enum": ["was", "it", "the"]}, "maxItems": 3}, "note": {"type": "string", "maxLength": 12}},
          "required": ["day", "good", "words", "note"], "additionalProperties": False}
form = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
bad = []
for i in range(12):
    v = complete(prompt="it was", max_tokens=120, seed=i, temperature=1.2, response_format=form)["choices"][0]
    try:
        made = json.loads(v["text"])
        right = v["finish_reason"] == "stop" and list(made) == list(schema["properties"]) and 1 <= made["day"] <= 31 and isinstance(made["good"], bool) and \
            len(made["words"]) <= 3 and set(made["words"]) <= {"was", "it", "the"} and len(made["note"]) <= 12
    except ValueError:
        right = False
    if not right:
        bad.append(v)
check("texts satisfy a schema", not bad, bad)
_, v = post("/v1/chat/completions", model=model, max_tokens=120, seed=3, response_format=form, **chat)
check("a conversation's, too", list(json.loads(v["choices"][0]["message"]["content"])) == list(schema["properties"]), v)
pieces = stream("/v1/chat/completions", max_tokens=120, seed=3, response_format=form, **chat)
check("streamed, the same", "".join(c["choices"][0]["delta"].get("content", "") for c in pieces) == v["choices"][0]["message"]["content"], pieces)
v = complete(prompt="it was", max_tokens=6, seed=1, response_format=form)
check("a cut text says so", v["choices"][0]["finish_reason"] == "length", v)
v = complete(prompt="it was", max_tokens=200, seed=5, temperature=0.3, response_format={"type": "json_object"})
check("an object", v["choices"][0]["finish_reason"] == "length" or isinstance(json.loads(v["choices"][0]["text"]), dict), v)
gbnf = 'root ::= ("day " [1-9] [0-9]? ", "){2} "good"'
v = complete(prompt="it was", max_tokens=60, grammar=gbnf, n=3, lockstep={"receipt": True})
check("a grammar's texts", all(re.fullmatch(r"(day [1-9][0-9]?, ){2}good", c["text"]) and c["finish_reason"] == "stop" for c in v["choices"]), v)
with open("form.json", "w") as f:
    json.dump(v, f)
r = subprocess.run([lockstep, "response", "verify", "form.json"], capture_output=True, text=True)
check("and their receipts", r.returncode == 0 and r.stdout.count("are equal") == 3, r)
with open("g.gbnf", "w") as f:
    f.write(gbnf)
want = generate("it was", "--grammar", "g.gbnf", "--tokens", "60", "--temperature", "0.8", "--top-p", "1")["text"]
check("which are generate's", v["choices"][0]["text"] == want, v["choices"][0]["text"], want)
for name, body, says in [("a keyword that is not supported", {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object", "properties": {"a": {"not": {}}}, "required": ["a"], "additionalProperties": False}}}}, "$.properties.a"),
                         ("another type of form", {"response_format": {"type": "xml"}}, "must be text, json_object or json_schema"), ("a grammar that is none", {"grammar": "root ::= x"}, "line 1"),
                         ("two forms", {"grammar": gbnf, "response_format": form}, "do not go together"), ("a form without an end", {"grammar": gbnf, "ignore_eos": True}, "ignore_eos")]:
    status, v = post("/v1/completions", model=model, prompt="in", max_tokens=1, **body)
    check(f"refused: {name}", status == 400 and says in v["error"]["message"], status, v)
ways = "root ::= x*\nx ::= [a-z ]* y [a-z ]*\ny ::= [a-z ]* x [a-z ]* | \"a\""
status, v = post("/v1/completions", model=model, prompt="in", max_tokens=200, grammar=ways, seed=1)
check("a grammar that can be read in too many ways is the request's mistake", status == 400 and "too ambiguous" in v["error"]["message"] and v["error"]["param"] == "grammar", status, v)

# --- prompts ---------------------------------------------------------------------------------------------------------------
_, ids = post("/tokenize", model=model, prompt="in the")
a = complete(prompt="in the")["choices"][0]["text"]
check("ids are taken as they are", complete(prompt=ids["tokens"])["choices"][0]["text"] == a)
v = complete(prompt=["in the", "it was"], n=2)
check("several prompts", [c["text"] for c in v["choices"]] == [complete(prompt=p, n=2)["choices"][i]["text"] for p in ("in the", "it was") for i in (0, 1)], v)
v = complete(prompt=[ids["tokens"], ids["tokens"][:2]])
check("several lists of ids", v["choices"][0]["text"] == a and len(v["choices"]) == 2, v)
check("detokenize gives the text back", post("/detokenize", model=model, tokens=ids["tokens"][1:])[1]["prompt"] == "in the")
check("a drawn seed is told, and gives the same", (lambda v: complete(prompt="in", seed=v["lockstep"]["seed"])["choices"][0]["text"] == v["choices"][0]["text"])(complete(prompt="in", seed=None)))
check("defaults and what changes nothing are taken", complete(prompt="in the", user="me", metadata={}, store=False, best_of=1, suffix=None, n=None, logit_bias=None)["choices"][0]["text"] == a)
long = complete(prompt=" ".join(["day"] * 40), max_tokens=1)
again = complete(prompt=" ".join(["day"] * 40), max_tokens=1)
check("a prompt that came before is not computed again", again["usage"]["prompt_tokens_details"]["cached_tokens"] > 0 and again["choices"] == long["choices"], again)
v = complete(prompt="in", max_tokens=100000, ignore_eos=True)
check("the context's end is the length", v["choices"][0]["finish_reason"] == "length" and v["usage"]["total_tokens"] == 256, v["usage"])

# --- what is refused -------------------------------------------------------------------------------------------------------
good = {"model": model, "prompt": "in", "max_tokens": 1}
kinds = {"null": None, "true": True, "int": 3, "negative": -7, "real": 0.5, "huge": 1e300, "string": "x", "array": [[]], "object": {"a": {}}}
takes = {
    "stream": {"null"}, "max_tokens": {"null", "int"}, "temperature": {"null", "int", "real"}, "top_p": {"null", "real"}, "min_p": {"null", "real"},
    "top_k": {"null", "int"}, "seed": {"null", "int", "negative"}, "n": {"null", "int"}, "stop": {"null", "string"}, "logit_bias": {"null"},
    "presence_penalty": {"null", "real"}, "frequency_penalty": {"null", "real"}, "repetition_penalty": {"null", "int", "real"}, "logprobs": {"null", "int"},
    "echo": {"null", "true"}, "ignore_eos": {"null", "true"}, "best_of": {"null"}, "suffix": {"null"}, "response_format": {"null"},
    "stream_options": {"null"}, "prompt": {"string"}, "messages": {"null"}, "model": {"null"}, "no_such_parameter": {"null"}, "user": set(kinds)}
for name, fine in takes.items():
    bad = []
    for kind, value in kinds.items():
        if name == "stream" and kind == "true":
            continue
        if name == "max_tokens" and kind == "int":
            continue
        if name == "temperature" and kind == "int":
            value = 2
        status, v = post("/v1/completions", **{**good, name: value})
        right = status == 200 if kind in fine else status in (400, 404) and (v["error"]["param"] == name or name == "messages") and v["error"]["message"]
        if not right:
            bad.append((kind, status, v))
    check(f"{name}: every type of value", not bad, bad)
for name, body, status, says in [
        ("no JSON", b"{\"prompt\": ", 400, "not valid JSON"), ("no object", b"[1]", 400, "must be an object"), ("bad UTF-8", b"{\"prompt\": \"\xff\xfe\"}", 400, "not valid JSON"),
        ("twice the same key", b"{\"prompt\": \"a\", \"prompt\": \"b\"}", 400, "duplicate"), ("deep nesting", b"{\"prompt\": " + b"[" * 100000, 400, "JSON"),
        ("an empty body", b"", 400, "JSON"), ("no prompt", {"model": model}, 400, "prompt is missing"), ("another model", {**good, "model": "gpt-9"}, 404, "no model gpt-9"),
        ("ids beyond the model", {**good, "prompt": [1, 99999]}, 400, "none of the model"), ("ids that are none", {**good, "prompt": [1, "a"]}, 400, "prompt must be"),
        ("no ids", {**good, "prompt": []}, 400, "no tokens"), ("a prompt beyond the context", {**good, "prompt": "day " * 3000}, 400, "context of 256"),
        ("a text that no tokens of the context make up", {**good, "prompt": "a" * 8_000_000}, 400, "context of 256 tokens, which stand for"),
        ("more log-probabilities than an answer holds", {**good, "prompt": ["in"] * 128, "n": 16, "max_tokens": 250, "logprobs": 20}, 400, "2048 texts of together up to 512000 tokens, each with 21"),
        ("a stop of a book", {**good, "stop": "a" * 4097}, 400, "longer than 4096"),
        ("256 receipts of a large grammar", {**good, "prompt": ["a"] * 16, "n": 16, "grammar": 'root ::= "a" #' + "x" * 70000, "lockstep": {"receipt": True}}, 400, "256 receipts"),
        ("five stops", {**good, "stop": list("abcde")}, 400, "more than 4"), ("an empty stop", {**good, "stop": ""}, 400, "empty"), ("n of 17", {**good, "n": 17}, 400, "from 1 to 16"),
        ("best_of", {**good, "best_of": 3}, 400, "best_of"), ("a schema", {**good, "response_format": {"type": "json_schema"}}, 400, "response_format"),
        ("a bias of no token", {**good, "logit_bias": {"4000": 1}}, 400, "token 4000"), ("a bias too large", {**good, "logit_bias": {"4": 101}}, 400, "not from -100 to 100"),
        ("echo in a stream", {**good, "echo": True, "stream": True}, 400, "echo with stream"), ("21 log-probabilities", {**good, "logprobs": 21}, 400, "from 0 to 20")]:
    got, text = ask("/v1/completions", body)
    v = json.loads(text)
    check(f"refused: {name}", got == status and says in v["error"]["message"] and set(v["error"]) == {"message", "type", "param", "code"}, got, v)
for name, body, says in [
        ("no messages", {}, "at least one message"), ("a message that is none", {"messages": ["a"]}, "messages[0] must be an object"), ("no role", {"messages": [{"content": "a"}]}, "role is missing"),
        ("a long conversation", {"messages": [{"role": "user", "content": "a" * 5000}] * 2}, "a text of 10000 bytes"),
        ("another role", {"messages": [{"role": "judge", "content": "a"}]}, "judge"), ("a picture", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "content[0]"),
        ("tools", {"messages": [{"role": "user", "content": "a"}], "tools": [{"type": "function"}]}, "tools"), ("top_logprobs alone", {"messages": [{"role": "user", "content": "a"}], "top_logprobs": 2}, "logprobs"),
        ("tool calls", {"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "tool_calls"), ("a prompt", {"messages": [{"role": "user", "content": "a"}], "prompt": "x"}, "prompt")]:
    status, v = post("/v1/chat/completions", model=model, max_tokens=1, **body)
    check(f"refused in a conversation: {name}", status == 400 and says in v["error"]["message"], status, v)
many = {"prompt": ["a"] * 128, "n": 16, "max_tokens": 1}
status, v = post("/v1/completions", model=model, **many)
check("more texts than there are places is no matter of time", status == 400 and "2048 texts" in v["error"]["message"], status, v)
for name, value in {"an id that is none": [1, "a"], "too long a text": "day " * 3000, "too many texts": ["a"] * 129}.items():
    status, v = post("/v1/embeddings", model=model, input=value)
    check(f"refused in an embedding: {name}", status == 400 and v["error"]["param"] == "input", status, v)
check("a path that is none has OpenAI's code", json.loads(ask("/v1/none")[1])["error"]["code"] == "unknown_url")
for method, path, status in [("GET", "/v1/models/%ff", 404), ("GET", "/v1/models/", 404), ("GET", "/v1/completions", 405), ("POST", "/v1/models", 405), ("GET", "/", 404), ("GET", "/../../etc/passwd", 404), ("GET", "/v1/models/none", 404), ("PATCH", "/health", 405)]:
    check(f"{method} {path} is {status}", ask(path, b"" if method == "POST" else None, method)[0] == status)
check("one model", json.loads(ask(f"/v1/models/{model}")[1])["id"] == model)
check("models and aliases", {m["id"] for m in json.loads(ask("/v1/models")[1])["data"]} == {model, "other"})
check("a body of 9 MB is 413", ask("/v1/completions", b" " * 9_000_000)[0] == 413)

# --- at the same time ------------------------------------------------------------------------------------------------------
asked = [dict(prompt=["in the", "it was good", "day 7 and day 8 and"][i % 3], seed=i, max_tokens=5 + 3 * i % 40, temperature=0.9, logprobs=2) for i in range(24)]
alone = [complete(**a)["choices"] for a in asked]
together = [None] * len(asked)


def run(i):
    together[i] = complete(**asked[i])["choices"]


vanish = [socket.create_connection((host, port)) for _ in range(20)]
for i, s in enumerate(vanish):  # who goes in the middle, or never says a word
    body = json.dumps({**good, "max_tokens": 250, "ignore_eos": True, "stream": bool(i % 2)}).encode()
    if i % 4:
        s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body[: len(body) // (1 + i % 3)])
threads = [threading.Thread(target=run, args=(i,)) for i in range(len(asked))]
for t in threads:
    t.start()
for s in vanish:
    s.close()
for t in threads:
    t.join()
check("together as alone", together == alone, [i for i in range(len(asked)) if together[i] != alone[i]])
for _ in range(200):
    text = ask("/metrics")[1].decode()
    values = {l.rsplit(" ", 1)[0]: float(l.rsplit(" ", 1)[1]) for l in text.splitlines() if not l.startswith("#")}
    if values[f'vllm:num_requests_running{{model_name="{model}"}}'] == 0:
        break
    time.sleep(0.02)
check("nobody's text goes on when its client has gone", values[f'vllm:num_requests_running{{model_name="{model}"}}'] == 0, text)
check("metrics count", values[f'vllm:generation_tokens_total{{model_name="{model}"}}'] > 500 and values['vllm:request_success_total{finished_reason="length"}'] > 20 and
      values['vllm:time_to_first_token_seconds_bucket{le="+Inf"}'] == values["vllm:time_to_first_token_seconds_count"] > 50, text)
status, v = post("/tokenize", model=model, prompt="a" * (1 << 20))
check("/tokenize takes a MiB", status == 400 and "more than the 1048576" in v["error"]["message"], v)
report.end()
