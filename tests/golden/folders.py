#!/usr/bin/env python3
"""Writes small Hugging Face folders of every model_type that is read, as transformers 5.23.0 saves them, with random weights:

    python3 tests/golden/folders.py tests/golden/folders

and expected.txt: for each, the ids of the greedy continuation of PROMPT by transformers. `make test` imports them
(tests/e2e/model_test.sh); tests/peers/folders_peers.py uses the same functions."""
import os
import sys

import torch
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

PROMPT = "in the beginning God created the heaven"
TEXT = ["in the beginning God created the heaven and the earth. And the earth was without form, and void; and darkness was upon "
        "the face of the deep. 1 23 456"] * 3
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def byte_level(pattern, end, others, begin=None, nfc=False):
    t = Tokenizer(models.BPE())
    if nfc:
        t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False) if not pattern else pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), behavior="isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=280, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    t.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in [end] + others])
    if begin:
        t.post_processor = processors.TemplateProcessing(single=f"{begin} $A", special_tokens=[(begin, t.token_to_id(begin))])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=t, eos_token=end, **({"bos_token": begin} if begin else {}))


def tokenizer(kind):
    if kind == "gpt2":
        return byte_level(None, "<|endoftext|>", [])
    if kind.startswith("qwen"):
        return byte_level(QWEN2, "<|endoftext|>", ["<|im_start|>", "<|im_end|>"], nfc=True)
    return byte_level(LLAMA3, "<|end_of_text|>", ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
                      begin="<|begin_of_text|>")


def configuration(kind, vocab, end):
    common = dict(vocab_size=vocab, eos_token_id=end, bos_token_id=None, pad_token_id=None)
    if kind == "gpt2":
        return transformers.GPT2Config(n_embd=20, n_layer=2, n_head=5, n_positions=48, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, **common)
    common |= dict(hidden_size=20, num_hidden_layers=2, num_attention_heads=5, num_key_value_heads=1, intermediate_size=27, max_position_embeddings=64)
    rope = dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8)
    return {
        "llama": lambda: transformers.LlamaConfig(head_dim=6, rope_parameters=rope, tie_word_embeddings=True, **common),
        "mistral": lambda: transformers.MistralConfig(head_dim=4, sliding_window=5, **common),
        "qwen2": lambda: transformers.Qwen2Config(tie_word_embeddings=True, **common),
        "qwen3": lambda: transformers.Qwen3Config(head_dim=10, tie_word_embeddings=True, **common),
    }[kind]()


KINDS = ["gpt2", "llama", "mistral", "qwen2", "qwen3"]


def make(kind, folder, dtype=torch.float32, shard="1GB", seed=1):
    torch.manual_seed(seed)
    t = tokenizer(kind)
    model = transformers.AutoModelForCausalLM.from_config(configuration(kind, len(t) + 3, t.eos_token_id))
    with torch.no_grad():
        for name, p in model.named_parameters():  # far enough from the initial ones that a wrong layout or missing bias shows
            p.mul_(12 if "layers." in name or ".h." in name else 3) if p.dim() > 1 else p.add_(torch.randn_like(p) * 0.3)
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    t.save_pretrained(folder)


def greedy(folder, count=24):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = transformers.AutoTokenizer.from_pretrained(folder)(PROMPT, return_tensors="pt")
    known = len(transformers.AutoTokenizer.from_pretrained(folder))  # rows of the model without a token are never drawn
    out = model.generate(**ids, max_new_tokens=count, do_sample=False, pad_token_id=0,
                         suppress_tokens=list(range(known, model.config.vocab_size)))
    return out[0, ids["input_ids"].shape[1]:].tolist()


def main():
    top = sys.argv[1]
    transformers.logging.set_verbosity_error()
    with open(os.path.join(top, "expected.txt"), "w") as f:
        for kind in KINDS:
            folder = os.path.join(top, kind)
            make(kind, folder, dtype={"qwen2": torch.bfloat16, "llama": torch.float16}.get(kind, torch.float32), shard="12KB" if kind == "qwen3" else "1GB")
            print(kind, *greedy(folder), file=f)


if __name__ == "__main__":
    main()
