#!/usr/bin/env python3
"""Makes forms.json from Hugging Face's library: tokenizer.json files of every form that is read, with texts and their ids.

    pip install tokenizers==0.23.3 tiktoken==0.14.0 && python3 make_forms.py     (in this folder)

A list of {"file": a tokenizer.json, "texts": [{"text", "plain": ids with encode_special_tokens, "special": ids without,
"around": these with the template}]}.
"""
import json
import random
import sys

sys.path.insert(0, "../../peers")
import tokenizer_forms_peers as peers
from tokenizers import AddedToken, normalizers, pre_tokenizers, processors

FORMS = [  # pattern or None for ByteLevel with a space in front, NFC, ignore_merges, template
    ("gpt2", False, False, None),
    (None, False, False, "$A [E]"),
    ("llama3", False, True, "[B] $A"),
    ("qwen2", True, False, None),
    ("o200k", False, True, "[B] $A [E]"),
    ("smollm", False, False, None),
    ("o200k", True, True, None),
]
ADDED = [
    AddedToken("<|endoftext|>", special=True),
    AddedToken("<|end", special=True, rstrip=True),
    AddedToken("<tool>", special=False, normalized=False),
    AddedToken("xyz", special=False, normalized=True),
    AddedToken("<mask>", special=True, lstrip=True),
]


def main():
    rng, out = random.Random(3), []
    contents = [a.content for a in ADDED]
    for pattern, nfc, ignore, template in FORMS:
        t = peers.small_model(rng, ignore_merges=ignore)
        t.pre_tokenizer = peers.pre_tokenizer(pattern) if pattern else pre_tokenizers.ByteLevel(add_prefix_space=True)
        if nfc:
            t.normalizer = normalizers.NFC()
        for token in ADDED:
            t.add_special_tokens([token]) if token.special else t.add_tokens([token])
        if template:
            ids = [("[B]", t.token_to_id("<mask>")), ("[E]", t.token_to_id("<|endoftext|>"))]
            t.post_processor = processors.TemplateProcessing(single=template, special_tokens=ids)
        texts = []
        for text in ["", " ", "a<|endoftext|>", "e\u0301<tool>\u0301", peers.WORDS, peers.EMOJI] + [
            peers.form_text(rng, contents, rng.randint(1, 80)) for _ in range(12)
        ]:
            t.encode_special_tokens = True
            one = {"text": text, "plain": t.encode(text, add_special_tokens=False).ids}
            t.encode_special_tokens = False
            one["special"] = t.encode(text, add_special_tokens=False).ids
            one["around"] = t.encode(text).ids
            texts.append(one)
        out.append({"file": json.loads(t.to_str()), "texts": texts})
    with open("forms.json", "w", encoding="utf-8") as f:
        f.write("[\n" + ",\n".join(json.dumps(x, ensure_ascii=True, separators=(",", ":")) for x in out) + "\n]\n")


main()
