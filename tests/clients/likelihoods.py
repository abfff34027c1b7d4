"""lm_eval's log-likelihoods beside the server's own echo: likelihoods.py URL MODEL FOLDER RESULTS"""
import glob
import json
import sys
import urllib.request

from transformers import AutoTokenizer

url, model, folder, results = sys.argv[1:5]
tokenizer = AutoTokenizer.from_pretrained(folder)


def echo(ids):
    body = {"model": model, "prompt": ids, "max_tokens": 0, "echo": True, "logprobs": 1}
    with urllib.request.urlopen(urllib.request.Request(url + "/v1/completions", json.dumps(body).encode())) as r:
        return json.load(r)["choices"][0]["logprobs"]["token_logprobs"]


count = 0
for name in glob.glob(results + "/**/samples_*.jsonl", recursive=True):
    for line in open(name):
        sample = json.loads(line)
        for k, response in sample["resps"].items() if isinstance(sample["resps"], dict) else enumerate(sample["resps"]):
            got = float(response[0][0])
            context, choice = sample["doc"]["question"], sample["doc"]["choices"][int(k)]
            n = len(tokenizer(context, add_special_tokens=False)["input_ids"])
            ids = tokenizer(context + choice, add_special_tokens=False)["input_ids"]
            want = sum(echo(ids)[n:])
            assert abs(got - want) <= 1e-5 * abs(want), (context, choice, got, want)
            count += 1
print(count, "log-likelihoods")
assert count == 15, count
