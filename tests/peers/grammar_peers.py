#!/usr/bin/env python3
"""grammar_peers.py LOCKSTEP [SCHEMAS [SEED]]: random schemas; texts drawn by the masks from a random model satisfy them, says
jsonschema, with its format checks. Texts are read by Python's json; numbers are finite, keys are there once."""
import json, math, os, random, subprocess, sys, tempfile
import jsonschema

lockstep = os.path.abspath(sys.argv[1])
count = int(sys.argv[2]) if len(sys.argv) > 2 else 4000
seed = int(sys.argv[3]) if len(sys.argv) > 3 else int(os.environ.get("LOCKSTEP_TEST_SEED", random.randrange(1 << 30)))
constrain = os.path.join(os.path.dirname(lockstep), "tests", "constrain")
rng = random.Random(seed)
WORDS = ["a", "name", "x y", "naïve", "日本", 'q"uote', "back\\slash", "tab\t", "id", "value", "😀", "é", "$ref", "0"]
PATTERNS = [r"^[a-f]{2,5}$", r"^\d{3}-\d{4}$", r"x", r"^(a|bc)+\.?$", r"^[^a-z\s]{1,6}$", r"^\w+@\w+$", r"^$", r"[\u00e9-\u00ff]|z$",
            r"^A.{0,3}Z$", r'^["\\/]{1,3}$', r"^(?:GET|PUT) /[a-z]*(?:\?q=\d)?$", r"^日+本?$", r"^.$", r"a{0}b?c$|^\x41😀$"]
FORMATS = ["date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"]


def bound():
    return rng.choice([rng.randint(-9, 9), rng.randint(-2000, 2000), rng.randint(-(10**12), 10**12)])


def value():
    return rng.choice([None, True, False, rng.choice(WORDS), bound(), bound() / 8, 0.1, 1e-7, [1, "a", None], {"k": [], "é": {"x": 1.5}}])


def string():
    kind = rng.randrange(4)
    if kind == 0:
        return {"type": "string"}
    if kind == 1:
        return {"type": "string", "pattern": rng.choice(PATTERNS)}
    if kind == 2:
        return {"type": "string", "format": rng.choice(FORMATS)}
    least = rng.randint(0, 6)
    s = {"type": "string"}
    if rng.random() < 0.7:
        s["minLength"] = least
    if rng.random() < 0.7:
        s["maxLength"] = least + rng.randint(0, 12)
    return s


def number():
    integer = rng.random() < 0.5
    s = {"type": "integer" if integer else "number"}
    low = bound() if integer or rng.random() < 0.5 else bound() / rng.choice([10, 100, 8, 7, 1000])
    high = low + rng.choice([0, 1, 7, 100, 12345]) + (0 if integer else rng.choice([0.5, 1, 0.01]))
    if rng.random() < 0.6:
        s[rng.choice(["minimum", "exclusiveMinimum"])] = low
    if rng.random() < 0.6:
        s[rng.choice(["maximum", "exclusiveMaximum"])] = high
    if rng.random() < 0.2:
        s["multipleOf"] = rng.choice([1, 2, 3, 7, 10, 25, 100])
    return s


def schema(depth, names):
    kind = rng.randrange(11 if depth < 3 else 6)
    if kind <= 1:
        return string()
    if kind == 2:
        return number()
    if kind == 3:
        return {"type": rng.choice(["boolean", "null", ["string", "null"], ["integer", "boolean"]])}
    if kind == 4:
        values = [value() for _ in range(rng.randint(1, 4))]
        return {"enum": values} if rng.random() < 0.7 else {"const": values[0]}
    if kind == 5:
        return {"$ref": "#/$defs/" + rng.choice(names)} if names else string()
    if kind == 6:
        return {"anyOf": [schema(depth + 1, names) for _ in range(rng.randint(1, 3))]}
    if kind == 7:
        s = {"type": "array", "items": schema(depth + 1, names)}
        least = rng.randint(0, 2)
        if rng.random() < 0.5:
            s["minItems"] = least
        if rng.random() < 0.5:
            s["maxItems"] = least + rng.randint(0, 3)
        return s
    properties = {}
    for word in rng.sample(WORDS, rng.randint(0, 4)):
        properties[word] = schema(depth + 1, names)
    required = [w for w in properties if rng.random() < 0.7]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def whole():
    names = ["one", "two"] if rng.random() < 0.5 else []
    s = schema(0, names)
    if names:
        s = {"anyOf": [s], "$defs": {n: {"anyOf": [{"type": "null"}, schema(1, names)]} for n in names}}
    return s


def finite(x):
    if isinstance(x, float):
        assert math.isfinite(x)
    for y in x.values() if isinstance(x, dict) else x if isinstance(x, list) else []:
        finite(y)


def once(pairs):
    assert len(dict(pairs)) == len(pairs), pairs
    return dict(pairs)


def main():
    schemas = [whole() for _ in range(count)]
    with tempfile.TemporaryDirectory() as work:
        env = {**os.environ, "LOCKSTEP_STORE": os.path.join(work, "store")}
        text = os.path.join(work, "text.txt")
        with open(text, "w") as f:
            for s in [whole() for _ in range(600)]:
                f.write(json.dumps(s, ensure_ascii=False) + "\n" + json.dumps(s) + "\n")
        run = lambda *a: subprocess.run([lockstep, *a], check=True, capture_output=True, env=env)
        run("tokenizer", "train", text, "--vocab", "1200", "--name", "t")
        run("tokenizer", "export", "t", os.path.join(work, "t.json"))
        lines = "".join(json.dumps(s) + "\n" for s in schemas)
        out = subprocess.run([constrain, os.path.join(work, "t.json"), str(seed), "1500"], input=lines, check=True, capture_output=True, text=True)
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    good = cut = refused = 0
    for s, line in zip(schemas, out.stdout.split("\n")[:-1], strict=True):
        line = json.loads(line)
        if isinstance(line, dict):
            assert "between these bounds" in line["refused"] or "has no text" in line["refused"], (s, line)
            refused += 1
        elif line == "":
            cut += 1
        else:
            try:
                x = json.loads(line, object_pairs_hook=once)
                finite(x)
                jsonschema.Draft202012Validator(s, format_checker=checker).validate(x)
                good += 1
            except RecursionError:  # a definition that is one of its own alternatives: jsonschema follows it for ever
                cut += 1
            except Exception as e:
                print(f"not ok - seed {seed}: {json.dumps(s)}\n{line}\n{e}")
                sys.exit(1)
    assert good > 0.9 * count, (good, cut, refused)
    print(f"ok - {count} random schemas (seed {seed}): {good} texts satisfy theirs, {cut} were cut, {refused} schemas have no text")


main()
