#!/usr/bin/env python3
"""Chat templates beside transformers, live:

    pip install -r tests/peers/requirements.txt
    templates_peers.py path/to/lockstep

The templates that src/data/chat.c recognises by their hash are looked for in packages that hold them (llama-cpp-python's source,
@huggingface/ollama-utils), and in the files of the folder LOCKSTEP_TEMPLATES, if there is one. Each becomes the chat_template of
a model's folder, which lockstep imports and serves. Random conversations (white space, other scripts, texts of special tokens,
empty messages, tools, calls, results, thoughts) get the same ids from its /tokenize as from apply_chat_template, or both refuse."""
import ast
import datetime
import glob
import hashlib
import http.client
import json
import os
import random
import re
import subprocess
import sys
import tarfile
import tempfile

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(here, "..", "golden"))
import folders

transformers.utils.logging.disable_progress_bar()
lockstep = os.path.abspath(sys.argv[1])
rounds = int(os.environ.get("LOCKSTEP_CONVERSATIONS", "300"))
failed = 0


def check(what, good, about=""):
    global failed
    failed += not good
    print(f"{'ok' if good else 'NOT OK':6} {what} {about}", flush=True)


# --- The templates ----------------------------------------------------------------------------------------------------------------

source = open(os.path.join(here, "..", "..", "src", "data", "chat.c")).read()
known = dict(re.findall(r'\{"([0-9a-f]{64})", (LK_CHAT\w+)\}', source))
rules = source[source.index("rules[LK_CHAT_COUNT]"):source.index("enum lk_chat lk_chat_named")]
with_tools = {m.group(1) for m in re.finditer(r'\[LK_CHAT\w+\] =\s*\{\s*"([^"]+)".*?(?=\[LK_CHAT|\Z)', rules, re.S) if "&" in m.group(0)}
names = dict(re.findall(r'\[(LK_CHAT\w+)\] =\s*\{\s*"([^"]+)"', source))


def strings(text):
    """What may be a template in a source of Python, C++, JavaScript, JSON."""
    for m in re.finditer(r'"(?:[^"\\\n]|\\.)*"|' + r"'(?:[^'\\\n]|\\.)*'", text):
        if "message" in m.group(0):
            for read in (json.loads, ast.literal_eval):
                try:
                    yield read(m.group(0))
                except (ValueError, SyntaxError):
                    pass
    for m in re.finditer(r"`((?:[^`\\]|\\.)*)`", text):
        yield re.sub(r"\\(.)", lambda k: {"n": "\n", "t": "\t"}.get(k.group(1), k.group(1)), m.group(1))
    yield text


def templates(cache):
    found = {}

    def look(text):
        for s in strings(text):
            h = hashlib.sha256(s.rstrip("\n").encode("utf-8", "surrogatepass")).hexdigest()
            if h in known:
                found[h] = s

    os.makedirs(cache, exist_ok=True)
    if not glob.glob(cache + "/llama_cpp_python*.tar.gz"):
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "llama-cpp-python", "-d", cache,
                        "llama-cpp-python==0.3.36"], check=False)
    if not glob.glob(cache + "/huggingface-ollama-utils*.tgz"):
        subprocess.run(["npm", "pack", "--silent", "@huggingface/ollama-utils@0.0.18"], cwd=cache, check=False)
    for archive in glob.glob(cache + "/*.tar.gz") + glob.glob(cache + "/*.tgz"):
        with tarfile.open(archive) as t:
            for m in t:
                if m.isfile() and re.search(r"\.jinja$|llama_chat_format\.py$|test-chat-template\.cpp$|chat-template-automap\.(ts|js)$", m.name):
                    look(t.extractfile(m).read().decode("utf-8", "replace"))
                if m.isfile() and m.name.endswith("ggml-vocab-qwen2.gguf"):
                    data = t.extractfile(m).read()
                    at = data.find(b"tokenizer.chat_template") + len("tokenizer.chat_template") + 4
                    look(data[at + 8:at + 8 + int.from_bytes(data[at:at + 8], "little")].decode("utf-8", "replace"))
    for path in glob.glob((os.environ.get("LOCKSTEP_TEMPLATES") or "/nowhere") + "/*"):
        look(open(path, encoding="utf-8").read())
    return found


# --- Tokenizers -------------------------------------------------------------------------------------------------------------------

SPECIALS = ["<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
PLAIN = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"]
CONTROLS = ["<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"]


def pieces(scheme):
    """As Llama 2's: characters with bytes for those that are unknown, a mark for spaces."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"<0x{i:02X}>": i + 3 for i in range(256)}}
    for c in "\u2581" + "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;[]{}<>|/\\\"'_-+*?!()":
        vocab[c] = len(vocab)
    merges = []
    for a, b in ["\u2581t", "he", "in", "\u2581a", "er", "SY", "[I", "NS", "/I", "\u2581\u2581", "[/", "us", "]\u2581", "<<"]:
        merges.append((a, b))
        vocab[a + b] = len(vocab)
    t = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    replace = normalizers.Replace(" ", "\u2581")
    if scheme == "prepend":
        t.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), replace])
    else:
        t.pre_tokenizer = pre_tokenizers.Metaspace("\u2581", scheme, split=False)
    t.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    t.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in ("<unk>", "<s>", "</s>")])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=t, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def tokenizers(name):
    if name in ("llama2", "zephyr", "mistral", "mistral-space", "mistral-v1", "mistral-v3"):
        return [pieces("prepend"), pieces("first")]
    if name.endswith("-tools"):
        t = folders.byte_level(folders.LLAMA3, "</s>", [c for c in CONTROLS if c != "</s>"], begin="<s>")
        return [t]
    begin = "<|begin_of_text|>" if name.startswith("llama3") else None
    t = folders.byte_level(folders.QWEN2 if name.startswith("qwen") else folders.LLAMA3, "<|end|>", SPECIALS + ([begin] if begin else []), begin=begin)
    bare = transformers.PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(t.backend_tokenizer.to_str()), eos_token="<|end|>",
                                                **({"bos_token": begin} if begin else {}))
    t.add_tokens([AddedToken(s, special=False, normalized=False) for s in PLAIN])
    return [t, bare]


# --- Conversations ----------------------------------------------------------------------------------------------------------------

r = random.Random(1)
BITS = ["the earth", " ", "\n", "\n\n", "a", "\t", "\u3000", "caf\u00e9", "\u4e2d\u6587", "\U0001f600", "12345", "{\"a\": 1}", "\\n", "\"", "", "Don't", ".", " x ", "[INST]",
        "<tool_call>", "</think>", "<think>", "\u00a0", "it's", "<<SYS>>"]


def text():
    return "".join(r.choice(BITS) for _ in range(r.randrange(7)))


def value(depth=0):
    kind = r.randrange(8 if depth < 2 else 6)
    if kind == 0:
        return r.choice([0, -1, 7, 2**40])
    if kind == 1:
        return r.choice([0.5, 1e-7, 1e16, -2.0, 3.14159, 1e22, 123456.789, 0.0001, 1e15, 2.0**-24, 2.0**89, -0.0])
    if kind < 4:
        return text() + r.choice(["", "\x01\x1f\x7f", "\u2028", "/"])
    if kind < 6:
        return r.choice([True, False, None])
    if kind == 6:
        return [value(depth + 1) for _ in range(r.randrange(3))]
    return {f"k{i}": value(depth + 1) for i in range(r.randrange(3))}


def call(name="f"):
    return {"id": "".join(r.choice("abc123XYZ") for _ in range(9 if r.randrange(8) else 8)), "type": "function",
            "function": {"name": name, "arguments": {f"a{i}": value() for i in range(r.randrange(3))}}}


def tool(i):
    f = {"name": f"f{i}", "description": text()}
    if r.randrange(4):
        f["parameters"] = {"type": "object", "properties": {"a": {"type": "number", "enum": [1, 0.25, 1e20], "description": text()}}, "required": ["a"]}
    return {"type": "function", "function": f}


def conversation(name, tools):
    out = []
    if r.randrange(2):
        out.append({"role": "system", "content": text()})
    turns = r.randrange(1, 4)
    for i in range(turns):
        out.append({"role": "user", "content": text()})
        if tools and r.randrange(3) == 0:
            calls = [call() for _ in range(1 if name.startswith("llama") and r.randrange(6) else r.randrange(1, 3))]
            out.append({"role": "assistant", "content": text() if name.startswith("qwen") and r.randrange(2) else "", "tool_calls": calls})
            out += [{"role": "tool", "tool_call_id": c["id"], "content": text()} for c in calls]
        if i + 1 < turns or r.randrange(3) == 0:
            said = text()
            if name.startswith("qwen3") and r.randrange(2):
                said = r.choice(["<think>\n", "<think>", "\n<think>\n\n"]) + text() + r.choice(["\n</think>\n\n", "</think>"]) + said
            out.append({"role": "assistant", "content": said})
    if r.randrange(12) == 0 and len(out) > 1:  # an order that some refuse
        out.pop(r.randrange(len(out)))
    return out


def openai(messages):
    return [{**m, "tool_calls": [{**c, "function": {**c["function"], "arguments": json.dumps(c["function"]["arguments"])}} for c in m["tool_calls"]]}
            if "tool_calls" in m else m for m in messages]


def ask(port, body):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    c.request("POST", "/tokenize", json.dumps(body).encode())
    a = c.getresponse()
    v = json.loads(a.read())
    c.close()
    return v.get("tokens"), v.get("error", {}).get("message")


def compare(port, model, name, tokenizer, template):
    equal = refused = 0
    if name.endswith("-tools"):  # there it is a special token, which ours never takes from a user
        BITS.remove("[INST]")
    specials = set(tokenizer.all_special_ids)
    said = [ask(port, {"model": model, "messages": [{"role": "user", "content": c}]})[0] for c in ("a", "<|im_end|> </s> <s> [/INST] <|eot_id|>")]
    check(f"{name}: what users write is no special token", sum(i in specials for i in said[0]) == sum(i in specials for i in said[1]))
    for i in range(rounds):
        tools = [tool(k) for k in range(r.randrange(1, 3))] if name in with_tools and r.randrange(2) else None
        messages = conversation(name, tools)
        more = {"enable_thinking": False} if name.startswith("qwen3") and r.randrange(2) else {}
        want = None
        if messages:
            try:
                want = tokenizer.apply_chat_template(messages, tools=tools, chat_template=template, add_generation_prompt=True, tokenize=True,
                                                     return_dict=False, **more)
            except Exception:
                want = None
        got, error = ask(port, {"model": model, "messages": openai(messages), **({"tools": tools} if tools else {}), **({"chat_template_kwargs": more} if more else {})})
        if got != want:
            where = next((k for k, (a, b) in enumerate(zip(got or [], want or [])) if a != b), None)
            check(f"{name}: conversation {i}", False, f"{messages}\n  tools {tools}\n  ours {got and tokenizer.decode(got)!r} {error}\n  want {want and tokenizer.decode(want)!r} {where}")
            return
        equal += want is not None
        refused += want is None
    check(f"{name}: {equal} conversations have transformers' ids, {refused} are refused by both", equal > rounds // 3)
    if name.endswith("-tools"):
        BITS.append("[INST]")


def main():
    found = templates(os.path.join(os.path.dirname(os.path.dirname(sys.executable)), "templates"))
    check(f"{len(found)} of the {len(known)} templates were found", len({known[h] for h in found}) >= 10,
          "without " + ", ".join(sorted({names[k] for k in known.values()} - {names[known[h]] for h in found})))
    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)
        served = []
        for h, template in sorted(found.items(), key=lambda x: known[x[0]]):
            name = names[known[h]]
            for k, t in enumerate(tokenizers(name)):
                model = f"m{h[:6]}{k}"
                t.chat_template = template
                config = folders.configuration("qwen2", len(t), t.eos_token_id)
                config.max_position_embeddings = 8192
                transformers.AutoModelForCausalLM.from_config(config).save_pretrained(model)
                t.save_pretrained(model)
                p = subprocess.run([lockstep, "model", "import", model, "--name", model, "--store", "store"], capture_output=True, text=True)
                check(f"{name}: it is recognised", p.returncode == 0 and f"written as {name}\n" in p.stderr, p.stderr if p.returncode else "")
                served.append((model, name, t, template))
        for some in [served[i:i + 16] for i in range(0, len(served), 16)]:
            server = subprocess.Popen([lockstep, "serve", *[m for m, *_ in some], "--listen", "127.0.0.1:0", "--memory", "64M", "--slots", "1", "--store", "store"],
                                      stdout=subprocess.PIPE, text=True)
            port = next(int(m.group(1)) for m in (re.match(r"ready.*:(\d+)/v1", line) for line in server.stdout) if m)
            for one in some:
                compare(port, *one)
            server.terminate()
            server.wait()
    sys.exit(failed > 0)


main()
