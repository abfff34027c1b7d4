"""Tools by OpenAI's client for Python and LangChain, of a random model: python_tools.py URL MODEL"""
import json
import pathlib
import sys

import openai
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field

sys.path.append(str(pathlib.Path(__file__).parents[1]))
import report

url, model = sys.argv[1] + "/v1", sys.argv[2]


def check(name, *rest):
    report.check("python: " + name, *rest)


class add(BaseModel):
    """Adds two numbers."""
    a: int = Field(ge=0, le=99)
    b: int = Field(ge=0, le=99)


client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
messages = [{"role": "user", "content": "what is 2 + 3?"}]
asked = dict(model=model, messages=messages, tools=[openai.pydantic_function_tool(add)], tool_choice="required", parallel_tool_calls=False, seed=3,
             max_completion_tokens=200)
whole = client.chat.completions.create(**asked).choices[0]
check("a call", whole.finish_reason == "tool_calls" and whole.message.tool_calls[0].function.name == "add", whole)
value = add.model_validate_json(whole.message.tool_calls[0].function.arguments)
with client.chat.completions.stream(**asked) as s:
    final = s.get_final_completion().choices[0].message
check("the helper that puts a stream's call together", final.tool_calls[0].function.parsed_arguments == value, final)
parsed = client.chat.completions.parse(**asked).choices[0].message.tool_calls[0].function
check("parse", parsed.parsed_arguments == value, parsed)
more = messages + [whole.message.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": whole.message.tool_calls[0].id, "content": "5"}]
check("a call and its result go on", client.chat.completions.create(**{**asked, "messages": more, "tool_choice": "none"}).usage.prompt_tokens > 30)
llm = ChatOpenAI(base_url=url, api_key="none", model=model, max_tokens=200, seed=3)
call = llm.bind_tools([add], tool_choice="add", parallel_tool_calls=False).invoke("what is 2 + 3?").tool_calls[0]
check("LangChain: a call", call["name"] == "add" and add(**call["args"]), call)
got = llm.with_structured_output(add, method="function_calling").invoke("what is 2 + 3?")
check("LangChain: structured output by a call", isinstance(got, add), got)
got = llm.with_structured_output(add, method="json_schema").invoke("what is 2 + 3?")
check("LangChain: structured output by a schema", isinstance(got, add), got)
json.dumps(call)
report.end()
