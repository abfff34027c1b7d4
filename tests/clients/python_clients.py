"""OpenAI's client for Python and LangChain against a server: python_clients.py URL MODEL"""
import asyncio
import pathlib
import sys

import openai
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings

sys.path.append(str(pathlib.Path(__file__).parents[1]))
import report

url, model = sys.argv[1] + "/v1", sys.argv[2]


def check(name, *rest):
    report.check("python: " + name, *rest)


client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
asked = dict(model=model, prompt="in the", max_tokens=20, temperature=0.7, seed=5)
whole = client.completions.create(**asked, logprobs=3)
check("a stream is the whole", "".join(c.choices[0].text for c in client.completions.create(**asked, stream=True)) == whole.choices[0].text)
check("log-probabilities", len(whole.choices[0].logprobs.token_logprobs) == whole.usage.completion_tokens, whole)
messages = [{"role": "system", "content": "be good"}, {"role": "user", "content": "day 7?"}]
chat = client.chat.completions.create(model=model, messages=messages, max_completion_tokens=20, seed=5, n=2, logprobs=True, top_logprobs=2)
check("choices", len(chat.choices) == 2 and chat.choices[0].finish_reason in ("stop", "length"), chat)
chunks = list(client.chat.completions.create(model=model, messages=messages, max_completion_tokens=20, seed=5, stream=True, stream_options={"include_usage": True}))
check("a conversation's stream", "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == chat.choices[0].message.content, chunks)
check("its usage", chunks[-1].usage.prompt_tokens == chat.usage.prompt_tokens, chunks[-1])
short = dict(model=model, messages=messages, max_completion_tokens=200, seed=5, stop=["a", "e", "o", " "])  # the helper wants whole texts
with client.chat.completions.stream(**short) as s:
    check("the helper that puts pieces together", s.get_final_completion().choices[0].message.content == client.chat.completions.create(**short).choices[0].message.content)
check("embeddings, in base64 as the client asks", len(client.embeddings.create(model=model, input="in the").data[0].embedding) == 84)
check("models", client.models.retrieve(model).id == model)
for name, kind, change in [("no such model", openai.NotFoundError, {"model": "none"}), ("a wrong value", openai.BadRequestError, {"temperature": -1}),
                           ("what is not supported", openai.BadRequestError, {"best_of": 2})]:
    try:
        client.completions.create(**{**asked, **change})
        check(name, False, "no error")
    except kind as e:
        check(f"{name}: {kind.__name__}", bool(e.body["message"]))


async def many():
    c = openai.AsyncOpenAI(base_url=url, api_key="none")
    alone = [(await c.completions.create(**{**asked, "seed": i})).choices[0].text for i in range(16)]
    together = await asyncio.gather(*(c.completions.create(**{**asked, "seed": i}) for i in range(16)))
    check("sixteen together as alone", [t.choices[0].text for t in together] == alone)


asyncio.run(many())
llm = ChatOpenAI(base_url=url, api_key="none", model=model, max_tokens=20, seed=5, temperature=1)
text = llm.invoke([("system", "be good"), ("user", "day 7?")]).content
check("LangChain: a conversation", text == chat.choices[0].message.content, text)
check("LangChain: streamed", "".join(c.content for c in llm.stream([("system", "be good"), ("user", "day 7?")])) == text)
check("LangChain: a completion", OpenAI(base_url=url, api_key="none", model=model, max_tokens=20, seed=5, temperature=0.7).invoke("in the") == whole.choices[0].text)
check("LangChain: embeddings", len(OpenAIEmbeddings(base_url=url, api_key="none", model=model, check_embedding_ctx_length=False).embed_query("in the")) == 84)
report.end()
