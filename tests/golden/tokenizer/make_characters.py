#!/usr/bin/env python3
"""Makes characters.json from Hugging Face's library: SentencePiece's BPE in every form that is read, with texts, ids and
what decoding gives.

    pip install tokenizers==0.23.3 tiktoken==0.14.0 && python3 make_characters.py     (in this folder)

A list of {"file": a tokenizer.json, "texts": [{"text", "plain": ids with encode_special_tokens, "special": ids without,
"around": these with the template, "decoded": of "special"}]}.
"""
import json
import random
import sys

sys.path.insert(0, "../../peers")
import tokenizer_forms_peers as peers

FORMS = [  # shape, normalized special tokens, tokens across spaces, prepend_scheme
    ("prepend", False, False, "never"),
    ("prepend", True, False, "never"),
    ("replace", False, True, "never"),
    ("metaspace", False, False, "first"),
    ("metaspace", True, True, "always"),
]


def main():
    rng, out = random.Random(5), []
    for shape, flag, crossing, scheme in FORMS:
        corpus = [peers.piece_text(rng, 100).replace("\u0000", "") for _ in range(9)] + ["the best is bad \u4e2d\u6587  a" * 9]
        t = peers.converted(rng, corpus, shape, flag, crossing, scheme, True, [110])
        texts = []
        for text in ["", " ", "\u2581", "a", "  the", "<s>a", "<s> a", "a <s>", "a<s>b</s>", "\u00e9x y", peers.EMOJI] + [
            peers.piece_text(rng, rng.randint(1, 50)) for _ in range(8)
        ]:
            text = text.replace("\u0000", "\u0001")
            t.encode_special_tokens = True
            one = {"text": text, "plain": t.encode(text, add_special_tokens=False).ids}
            t.encode_special_tokens = False
            one["special"] = t.encode(text, add_special_tokens=False).ids
            one["around"] = t.encode(text).ids
            one["decoded"] = t.decode(one["special"], skip_special_tokens=False)
            texts.append(one)
        out.append({"file": json.loads(t.to_str()), "texts": texts})
    with open("characters.json", "w", encoding="utf-8") as f:
        f.write("[\n" + ",\n".join(json.dumps(x, ensure_ascii=True, separators=(",", ":")) for x in out) + "\n]\n")


if __name__ == "__main__":
    main()
