"""Chat templates with tools, in the manner of published ones, and what is right for each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from sleepd.protocol.chat_example import ChatExample, Message, ToolCall
from sleepd.protocol.job import Role, TrainingExample

from .templates import CHATML, make_tokenizer

if TYPE_CHECKING:
    from sleepd.worker.data.chat_format import ChatFormat

_TOOLS_OF_QWEN = (
    "{% if tools %}<|im_start|>system\n"
    "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% else %}You are Qwen.{% endif %}"
    "\n\n# Tools\n<tools>{% for tool in tools %}\n{{ tool | tojson }}{% endfor %}\n</tools><|im_end|>\n"
    "{% elif messages[0].role == 'system' %}<|im_start|>system\n{{ messages[0].content }}<|im_end|>\n{% endif %}"
)
_CALLS_OF_QWEN = (
    "{% for call in m.tool_calls %}{% set call = call.function or call %}"
    '{{ \'\n\' }}<tool_call>\n{"name": "{{ call.name }}", "arguments": {{ call.arguments | tojson }}}\n</tool_call>'
    "{% endfor %}"
)
_RESULTS_OF_QWEN = (
    "{% if loop.first or messages[loop.index0 - 1].role != 'tool' %}<|im_start|>user{% endif %}"
    "{{ '\n' }}<tool_response>\n{{ m.content }}\n</tool_response>"
    "{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}<|im_end|>\n{% endif %}"
)
QWEN25 = (
    _TOOLS_OF_QWEN + "{% for m in messages %}"
    "{% if m.role == 'user' or (m.role == 'system' and not loop.first) "
    "or (m.role == 'assistant' and not m.tool_calls) %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% elif m.role == 'assistant' %}<|im_start|>assistant{% if m.content %}{{ '\n' + m.content }}{% endif %}"
    + _CALLS_OF_QWEN
    + "<|im_end|>\n{% elif m.role == 'tool' %}"
    + _RESULTS_OF_QWEN
    + "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN3 = (
    _TOOLS_OF_QWEN + "{% set ns = namespace(last=-1) %}"
    "{% for m in messages if m.role == 'user' %}{% set ns.last = messages.index(m) %}{% endfor %}"
    "{% for m in messages %}{% if m.role == 'user' or (m.role == 'system' and not loop.first) %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% elif m.role == 'assistant' %}{% set thought = m.reasoning_content or '' %}{% set content = m.content or '' %}"
    "{% if not thought and '</think>' in content %}"
    "{% set thought = content.split('</think>')[0].split('<think>')[-1] %}"
    "{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}<|im_start|>assistant\n"
    "{% if loop.index0 > ns.last and (loop.last or thought) %}"
    "<think>\n{{ thought.strip('\n') }}\n</think>\n\n{% endif %}"
    "{{ content.lstrip('\n') }}"
    "{% for call in m.tool_calls or [] %}{{ '\n' if content or not loop.first else '' }}"
    '{% set call = call.function or call %}<tool_call>\n{"name": "{{ call.name }}", "arguments": '
    "{% if call.arguments is string %}{{ call.arguments }}{% else %}{{ call.arguments | tojson }}{% endif %}}"
    "\n</tool_call>"
    "{% endfor %}<|im_end|>\n{% elif m.role == 'tool' %}"
    + _RESULTS_OF_QWEN
    + "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
HERMES = {
    "default": "{{ bos_token }}" + CHATML,
    "tool_use": "{{ bos_token }}<|im_start|>system\nYou may call functions: <tools>"
    "{% for tool in tools %}{{ tool.function | tojson }}\n{% endfor %}</tools><|im_end|>\n"
    "{% for m in messages %}{% if m.role == 'assistant' and m.tool_calls is defined %}<|im_start|>assistant"
    "{% for call in m.tool_calls %}{{ '\n' }}<tool_call>\n{{ call.function | tojson }}\n</tool_call>{% endfor %}"
    "<|im_end|>\n"
    "{% elif m.role == 'tool' %}<|im_start|>tool\n<tool_response>\n{{ m.content }}\n</tool_response><|im_end|>\n"
    "{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
}
LLAMA31 = (
    "{{ bos_token }}{% set first = '' %}{% if messages[0].role == 'system' %}"
    "{% set first = messages[0].content | trim %}{% set messages = messages[1:] %}{% endif %}"
    "<|start_header_id|>system<|end_header_id|>\n\n{% if tools %}Environment: ipython\n{% endif %}{{ first }}<|eot_id|>"
    "{% if tools %}{% if messages | length == 0 %}{{ raise_exception('no first user message') }}{% endif %}"
    "<|start_header_id|>user<|end_header_id|>\n\nGiven these functions:\n\n"
    "{% for tool in tools %}{{ tool | tojson(indent=4) }}\n\n{% endfor %}{{ messages[0].content | trim }}<|eot_id|>"
    "{% set messages = messages[1:] %}{% endif %}"
    "{% for m in messages %}{% if not (m.role == 'ipython' or m.role == 'tool' or 'tool_calls' in m) %}"
    "<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>"
    "{% elif 'tool_calls' in m %}{% if m.tool_calls | length != 1 %}"
    "{{ raise_exception('This model only supports single tool-calls at once!') }}{% endif %}"
    '<|start_header_id|>assistant<|end_header_id|>\n\n{"name": "{{ m.tool_calls[0].function.name }}", '
    '"parameters": {{ m.tool_calls[0].function.arguments | tojson }}}<|eot_id|>'
    "{% else %}<|start_header_id|>ipython<|end_header_id|>\n\n"
    "{% if m.content is mapping or m.content is iterable %}{{ m.content | tojson }}{% else %}{{ m.content }}{% endif %}"
    "<|eot_id|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
_TOOLS_OF_MISTRAL = (
    "{% if tools and loop.last or tools and m == (messages | selectattr('role', 'equalto', 'user') | list)[-1] %}"
    "[AVAILABLE_TOOLS] {{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}"
)
MISTRAL_V3 = (
    "{% if messages[0].role == 'system' %}{% set first = messages[0].content %}"
    "{% set messages = messages[1:] %}{% endif %}{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}"
    + _TOOLS_OF_MISTRAL
    + "[INST] {% if first and loop.last %}{{ first + '\n\n' }}{% endif %}{{ m.content }}[/INST]"
    "{% elif m.tool_calls is defined and m.tool_calls is not none %}[TOOL_CALLS] ["
    "{% for call in m.tool_calls %}{% set out = call.function | tojson %}{{ out[:-1] }}"
    "{% if call.id is not defined or call.id | length != 9 %}"
    "{{ raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}{% endif %}"
    ", \"id\": \"{{ call.id }}\"}{{ ', ' if not loop.last else ']' + eos_token }}{% endfor %}"
    "{% elif m.role == 'assistant' %} {{ m.content | trim }}{{ eos_token }}"
    "{% elif m.role == 'tool' %}[TOOL_RESULTS] {\"content\": {{ m.content | tojson }}, "
    "{% if m.tool_call_id is not defined or m.tool_call_id | length != 9 %}"
    "{{ raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}{% endif %}"
    '"call_id": "{{ m.tool_call_id }}"}[/TOOL_RESULTS]'
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
MISTRAL_V7 = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}[SYSTEM_PROMPT]{{ messages[0].content }}[/SYSTEM_PROMPT]"
    "{% set messages = messages[1:] %}{% endif %}{% for m in messages %}{% if m.role == 'user' %}"
    + _TOOLS_OF_MISTRAL
    + "[INST]{{ m.content }}[/INST]{% elif m.tool_calls is defined %}[TOOL_CALLS][{% for call in m.tool_calls %}"
    "{% if call.id | length < 9 %}{{ raise_exception('IDs should have length >= 9!') }}{% endif %}"
    "{{ (call.function | tojson)[:-1] }}, \"id\": \"{{ call.id[-9:] }}\"}{{ ', ' if not loop.last else '' }}"
    "{% endfor %}]{{ eos_token }}{% elif m.role == 'assistant' %}{{ m.content }}{{ eos_token }}"
    "{% elif m.role == 'tool' %}{% if m.tool_call_id | length < 9 %}"
    "{{ raise_exception('IDs: length >= 9!') }}{% endif %}"
    '[TOOL_RESULTS]{"content": {{ m.content | string }}, "call_id": "{{ m.tool_call_id[-9:] }}"}[/TOOL_RESULTS]'
    "{% else %}{{ raise_exception('Only user and assistant roles are supported') }}{% endif %}{% endfor %}"
)
SMOLLM3 = (
    "<|im_start|>system\n## Metadata\n\n"
    "{% if messages[0].role == 'system' %}{{ messages[0].content.rstrip() }}"
    "{% set messages = messages[1:] %}{% endif %}"
    "{% if tools %}\n\n### Tools\n<tools>\n{% for tool in tools %}{{ tool | string }}\n{% endfor %}</tools>{% endif %}"
    "<|im_end|>\n{% for m in messages %}{% set content = m.content if m.content is string else '' %}"
    "{% if m.role == 'user' %}<|im_start|>user\n{{ content }}<|im_end|>\n"
    "{% elif m.role == 'assistant' %}<|im_start|>assistant\n{% generation %}{{ content.lstrip('\n') }}"
    "{% for call in m.tool_calls or [] %}<tool_call>"
    "{{ {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}"
    "</tool_call>{% endfor %}<|im_end|>{% endgeneration %}\n"
    "{% elif m.role == 'tool' %}<|im_start|>user\n{{ content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DEEPSEEK_R1 = (
    "{{ bos_token }}{% for m in messages if m.role == 'system' %}{{ m.content }}{% endfor %}"
    "{% set ns = namespace(tool=false) %}{% for m in messages %}"
    "{% if m.role == 'user' %}{% set ns.tool = false %}<|User|>{{ m.content }}{% endif %}"
    "{% if m.role == 'assistant' and m.tool_calls %}{% set ns.tool = false %}<|Assistant|><|calls|>"
    "{% for call in m.tool_calls %}{{ '\n' if not loop.first else '' }}"
    "{{ '<|call|>' + call.type + '<|sep|>' + call.function.name + '\n```json\n' + call.function.arguments }}"
    "\n```<|call_end|>{% endfor %}<|calls_end|><|end_of_sentence|>{% endif %}"
    "{% if m.role == 'assistant' and m.content is not none %}"
    "{% if ns.tool %}<|outputs_end|>{% set ns.tool = false %}{% else %}<|Assistant|>{% endif %}"
    "{{ m.content.split('</think>')[-1] }}<|end_of_sentence|>{% endif %}"
    "{% if m.role == 'tool' %}{{ '' if ns.tool else '<|outputs|>' }}{% set ns.tool = true %}"
    "<|output|>{{ m.content }}<|output_end|>{% endif %}{% endfor %}"
    "{% if ns.tool %}<|outputs_end|>{% endif %}"
    "{% if add_generation_prompt and not ns.tool %}<|Assistant|><think>\n{% endif %}"
)
GLM45 = (
    "[gMASK]<sop>{% if tools %}<|system|>\n# Tools\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' %}<|user|>\n{{ m.content }}"
    "{% elif m.role == 'assistant' %}<|assistant|>\n<think></think>{% if m.content and m.content.strip() %}"
    "{{ '\n' + m.content.strip() }}{% endif %}"
    "{% for call in m.tool_calls or [] %}{% set call = call.function or call %}{{ '\n<tool_call>' + call.name }}\n"
    "{% for key, value in call.arguments.items() %}<arg_key>{{ key }}</arg_key>\n"
    "<arg_value>{{ value if value is string else value | tojson }}</arg_value>\n{% endfor %}</tool_call>{% endfor %}"
    "{% elif m.role == 'tool' %}"
    "{% if loop.first or messages[loop.index0 - 1].role != 'tool' %}<|observation|>{% endif %}"
    "{{ '\n' }}<tool_response>\n{{ m.content }}\n</tool_response>"
    "{% elif m.role == 'system' %}<|system|>\n{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n"
    "{{ '<think></think>' if enable_thinking is defined and not enable_thinking else '' }}{% endif %}"
)
GPT_OSS = (
    "<|start|>system<|message|>You are a model.<|end|>"
    "{% if tools %}<|start|>developer<|message|># Tools\n\nnamespace functions {\n"
    "{% for tool in tools %}// {{ tool.function.description }}\ntype {{ tool.function.name }} = (_: "
    "{{ tool.function.parameters | tojson }}) => any;\n{% endfor %}}<|end|>{% endif %}"
    "{% set ns = namespace(name='') %}{% for m in messages %}{% if m.role == 'assistant' and 'tool_calls' in m %}"
    "{% if m.tool_calls | length > 1 %}{{ raise_exception('only one call at once') }}{% endif %}"
    "{% set call = m.tool_calls[0].function %}{% if m.content %}"
    "<|start|>assistant<|channel|>analysis<|message|>{{ m.content }}<|end|>{% endif %}"
    "{% set ns.name = call.name %}<|start|>assistant to=functions.{{ call.name }}<|channel|>commentary json<|message|>"
    "{{ call.arguments | tojson }}<|call|>"
    "{% elif m.role == 'assistant' %}<|start|>assistant<|channel|>final<|message|>{{ m.content }}"
    "{% if loop.last and not add_generation_prompt %}<|return|>{% else %}<|end|>{% endif %}"
    "{% elif m.role == 'tool' %}{% if not ns.name %}{{ raise_exception('a result without a call') }}{% endif %}"
    "<|start|>functions.{{ ns.name }} to=assistant<|channel|>commentary<|message|>{{ m.content | tojson }}<|end|>"
    "{% else %}<|start|>{{ 'developer' if m.role == 'system' else 'user' }}<|message|>{{ m.content }}<|end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
REPR = QWEN25.replace("call.arguments | tojson", "call.arguments")
"""As if its makers had only ever given it text."""

TOOLS = (
    '[{"type": "function", "function": {"name": "weather", "description": "Tells the weather.", "parameters": '
    '{"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}}}]'
)
CALL = ToolCall(name="weather", arguments='{"city": "Oslo", "days": 3}', id="call_Xa81kQ0zP")
OTHER_CALL = ToolCall(name="weather", arguments='{"city": "Bø \\"i\\" Telemark"}', id="call_Xa81kQ0zQ")
ASKED = (Message(role="system", text="Be brief."), Message(role="user", text="How is Oslo?"))
CALLED = (*ASKED, Message(role="assistant", calls=(CALL,)), Message(role="tool", text="7 °C", call_id=CALL.id))


def calling(*calls: ToolCall, text: str = "") -> ChatExample:
    """A reply that calls tools."""
    return ChatExample(prompt="How is Oslo?", response=text, calls=calls, context=ASKED, tools=TOOLS)


ANSWERING = ChatExample(prompt="How is Oslo?", response="Cold.", context=CALLED, tools=TOOLS)


def called_with(argument: str, result: str, *, tools: str = TOOLS) -> ChatExample:
    """A call with that argument, and the same call before it, which had that result."""
    call = ToolCall(name="weather", arguments=json.dumps({"city": argument}), id="call00001")
    context = (*ASKED, Message(role="assistant", calls=(call,)), Message(role="tool", text=result, call_id=call.id))
    return ChatExample(prompt="How is Oslo?", response="", calls=(call,), context=context, tools=tools)


@dataclass(frozen=True)
class ToolCase:
    """One template, and what is right for it. Control tokens stand in ⟦⟧ in what is expected."""

    name: str
    template: str | dict[str, str]
    words: str
    calls: str
    """Supervised of a reply with one call and nothing else."""
    both: str
    """Supervised of a text and a call; in ``refused: `` the reason why it is not trained."""
    two: str
    """Supervised of two calls; as above."""
    answer: str
    """Supervised of an answer behind a tool's result."""
    shows: str
    """In what the model is asked with for that answer."""
    eos: str
    stops: str = ""
    bos: str | None = None


_IM = "<|endoftext|> <|im_start|> <|im_end|>"
_QWEN = f"{_IM} ~<tool_call> ~</tool_call> ~<tool_response> ~</tool_response>"
_ARGUMENTS = '{"city": "Oslo", "days": 3}'
_OTHER_ARGUMENTS = '{"city": "Bø \\"i\\" Telemark"}'
_QWEN_CALL = f'⟦<tool_call>⟧\n{{"name": "weather", "arguments": {_ARGUMENTS}}}\n⟦</tool_call>⟧'
_QWEN_OTHER = f'⟦<tool_call>⟧\n{{"name": "weather", "arguments": {_OTHER_ARGUMENTS}}}\n⟦</tool_call>⟧'
_QWEN_RESULT = "⟦<|im_start|>⟧user\n⟦<tool_response>⟧\n7 °C\n⟦</tool_response>⟧⟦<|im_end|>⟧\n"
_ASKS = "⟦<|im_start|>⟧assistant\n"
_END = "⟦<|im_end|>⟧"
_LOSES_TEXT = "refused: the chat template loses the text of the reply"
_MISTRAL = (
    "<unk> <s> </s> [INST] [/INST] [TOOL_CALLS] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_RESULTS] [/TOOL_RESULTS]"
)

TOOL_CASES = [
    ToolCase(
        "Qwen2.5",
        QWEN25,
        _QWEN,
        f"{_QWEN_CALL}{_END}",
        f"I ask.\n{_QWEN_CALL}{_END}",
        f"{_QWEN_CALL}\n{_QWEN_OTHER}{_END}",
        f"Cold.{_END}",
        f"{_QWEN_CALL}{_END}\n{_QWEN_RESULT}{_ASKS}",
        eos="<|im_end|>",
    ),
    ToolCase(
        "Qwen3",
        QWEN3,
        f"{_QWEN} ~<think> ~</think>",
        f"{_QWEN_CALL}{_END}",
        f"I ask.\n{_QWEN_CALL}{_END}",
        f"{_QWEN_CALL}\n{_QWEN_OTHER}{_END}",
        f"Cold.{_END}",
        f"{_QWEN_CALL}{_END}\n{_QWEN_RESULT}{_ASKS}⟦<think>⟧\n\n⟦</think>⟧\n\n",
        eos="<|im_end|>",
    ),
    ToolCase(
        "Hermes",
        HERMES,
        f"<s> {_QWEN}",
        f'⟦<tool_call>⟧\n{{"name": "weather", "arguments": {_ARGUMENTS}}}\n⟦</tool_call>⟧{_END}',
        _LOSES_TEXT,
        f"{_QWEN_CALL}\n{_QWEN_OTHER}{_END}",
        f"Cold.{_END}",
        f"⟦<|im_start|>⟧tool\n⟦<tool_response>⟧\n7 °C\n⟦</tool_response>⟧{_END}\n{_ASKS}",
        eos="<|im_end|>",
        bos="<s>",
    ),
    ToolCase(
        "Llama 3.1",
        LLAMA31,
        "<|begin_of_text|> <|start_header_id|> <|end_header_id|> <|eot_id|> <|end_of_text|>",
        f'{{"name": "weather", "parameters": {_ARGUMENTS}}}⟦<|eot_id|>⟧',
        _LOSES_TEXT,
        "refused: This model only supports single tool-calls at once!",
        "Cold.⟦<|eot_id|>⟧",
        '⟦<|start_header_id|>⟧ipython⟦<|end_header_id|>⟧\n\n"7 °C"⟦<|eot_id|>⟧'
        "⟦<|start_header_id|>⟧assistant⟦<|end_header_id|>⟧\n\n",
        eos="<|end_of_text|>",
        stops="<|eot_id|>",
        bos="<|begin_of_text|>",
    ),
    ToolCase(
        "Mistral v3",
        MISTRAL_V3,
        _MISTRAL,
        f'⟦[TOOL_CALLS]⟧ [{{"name": "weather", "arguments": {_ARGUMENTS}, "id": "Xa81kQ0zP"}}]⟦</s>⟧',
        _LOSES_TEXT,
        f'⟦[TOOL_CALLS]⟧ [{{"name": "weather", "arguments": {_ARGUMENTS}, "id": "Xa81kQ0zP"}}, '
        f'{{"name": "weather", "arguments": {_OTHER_ARGUMENTS}, "id": "Xa81kQ0zQ"}}]⟦</s>⟧',
        " Cold.⟦</s>⟧",
        '⟦[TOOL_RESULTS]⟧ {"content": "7 °C", "call_id": "Xa81kQ0zP"}⟦[/TOOL_RESULTS]⟧',
        eos="</s>",
        bos="<s>",
    ),
    ToolCase(
        "Mistral v7",
        MISTRAL_V7,
        f"{_MISTRAL} [SYSTEM_PROMPT] [/SYSTEM_PROMPT]",
        f'⟦[TOOL_CALLS]⟧[{{"name": "weather", "arguments": {_ARGUMENTS}, "id": "Xa81kQ0zP"}}]⟦</s>⟧',
        _LOSES_TEXT,
        f'⟦[TOOL_CALLS]⟧[{{"name": "weather", "arguments": {_ARGUMENTS}, "id": "Xa81kQ0zP"}}, '
        f'{{"name": "weather", "arguments": {_OTHER_ARGUMENTS}, "id": "Xa81kQ0zQ"}}]⟦</s>⟧',
        "Cold.⟦</s>⟧",
        '⟦[TOOL_RESULTS]⟧{"content": 7 °C, "call_id": "Xa81kQ0zP"}⟦[/TOOL_RESULTS]⟧',
        eos="</s>",
        bos="<s>",
    ),
    ToolCase(
        "SmolLM3",
        SMOLLM3,
        f"{_IM} ~<tool_call> ~</tool_call>",
        f'⟦<tool_call>⟧{{"name": "weather", "arguments": {_ARGUMENTS}}}⟦</tool_call>⟧{_END}',
        f'I ask.⟦<tool_call>⟧{{"name": "weather", "arguments": {_ARGUMENTS}}}⟦</tool_call>⟧{_END}',
        f'⟦<tool_call>⟧{{"name": "weather", "arguments": {_ARGUMENTS}}}⟦</tool_call>⟧'
        f'⟦<tool_call>⟧{{"name": "weather", "arguments": {_OTHER_ARGUMENTS}}}⟦</tool_call>⟧{_END}',
        f"Cold.{_END}",
        f"⟦<|im_start|>⟧user\n7 °C{_END}\n{_ASKS}",
        eos="<|im_end|>",
    ),
    ToolCase(
        "DeepSeek R1",
        DEEPSEEK_R1,
        "<|begin|> <|User|> <|Assistant|> <|end_of_sentence|> ~<think> ~</think> <|calls|> <|call|> <|sep|> "
        "<|call_end|> <|calls_end|> <|outputs|> <|output|> <|output_end|> <|outputs_end|>",
        f"⟦<|calls|>⟧⟦<|call|>⟧function⟦<|sep|>⟧weather\n```json\n{_ARGUMENTS}\n```⟦<|call_end|>⟧⟦<|calls_end|>⟧"
        "⟦<|end_of_sentence|>⟧",
        "refused: the chat template ends this reply, which calls tools, otherwise than others",
        f"⟦<|calls|>⟧⟦<|call|>⟧function⟦<|sep|>⟧weather\n```json\n{_ARGUMENTS}\n```⟦<|call_end|>⟧\n"
        f"⟦<|call|>⟧function⟦<|sep|>⟧weather\n```json\n{_OTHER_ARGUMENTS}\n```⟦<|call_end|>⟧⟦<|calls_end|>⟧"
        "⟦<|end_of_sentence|>⟧",
        "Cold.⟦<|end_of_sentence|>⟧",
        "⟦<|outputs|>⟧⟦<|output|>⟧7 °C⟦<|output_end|>⟧⟦<|outputs_end|>⟧",
        eos="<|end_of_sentence|>",
        bos="<|begin|>",
    ),
    ToolCase(
        "GLM 4.5",
        GLM45,
        "[gMASK] <sop> <|endoftext|> <|system|> <|user|> <|assistant|> <|observation|> ~<think> ~</think> ~<tool_call> "
        "~</tool_call> ~<arg_key> ~</arg_key> ~<arg_value> ~</arg_value>",
        "\n⟦<tool_call>⟧weather\n⟦<arg_key>⟧city⟦</arg_key>⟧\n⟦<arg_value>⟧Oslo⟦</arg_value>⟧\n"
        "⟦<arg_key>⟧days⟦</arg_key>⟧\n⟦<arg_value>⟧3⟦</arg_value>⟧\n⟦</tool_call>⟧⟦<|observation|>⟧",
        "\nI ask.\n⟦<tool_call>⟧weather\n⟦<arg_key>⟧city⟦</arg_key>⟧\n⟦<arg_value>⟧Oslo⟦</arg_value>⟧\n"
        "⟦<arg_key>⟧days⟦</arg_key>⟧\n⟦<arg_value>⟧3⟦</arg_value>⟧\n⟦</tool_call>⟧⟦<|observation|>⟧",
        "\n⟦<tool_call>⟧weather\n⟦<arg_key>⟧city⟦</arg_key>⟧\n⟦<arg_value>⟧Oslo⟦</arg_value>⟧\n"
        "⟦<arg_key>⟧days⟦</arg_key>⟧\n⟦<arg_value>⟧3⟦</arg_value>⟧\n⟦</tool_call>⟧\n⟦<tool_call>⟧weather\n"
        '⟦<arg_key>⟧city⟦</arg_key>⟧\n⟦<arg_value>⟧Bø "i" Telemark⟦</arg_value>⟧\n⟦</tool_call>⟧⟦<|observation|>⟧',
        "\nCold.⟦<|user|>⟧",
        "⟦<|observation|>⟧\n<tool_response>\n7 °C\n</tool_response>⟦<|assistant|>⟧\n⟦<think>⟧⟦</think>⟧",
        eos="<|endoftext|>",
        stops="<|user|> <|observation|>",
    ),
    ToolCase(
        "gpt-oss",
        GPT_OSS,
        "<|start|> <|end|> <|message|> <|channel|> <|return|> <|endoftext|> <|call|>",
        f" to=functions.weather⟦<|channel|>⟧commentary json⟦<|message|>⟧{_ARGUMENTS}⟦<|call|>⟧",
        f"⟦<|channel|>⟧analysis⟦<|message|>⟧I ask.⟦<|end|>⟧⟦<|start|>⟧assistant to=functions.weather⟦<|channel|>⟧"
        f"commentary json⟦<|message|>⟧{_ARGUMENTS}⟦<|call|>⟧",
        "refused: only one call at once",
        "⟦<|channel|>⟧final⟦<|message|>⟧Cold.⟦<|return|>⟧",
        '⟦<|start|>⟧functions.weather to=assistant⟦<|channel|>⟧commentary⟦<|message|>⟧"7 °C"⟦<|end|>⟧'
        "⟦<|start|>⟧assistant",
        eos="<|return|>",
        stops="<|call|> <|endoftext|>",
    ),
]


def as_example(id_: str, example: ChatExample, *, role: Role = "train") -> TrainingExample:
    """The same as an experience of a job."""
    fields = {name: getattr(example, name) for name in example.__struct_fields__}
    return TrainingExample(id=id_, salience=0.8, role=role, **fields)


@cache
def chat_with(name: str, **options: Any) -> ChatFormat:
    """The chat format of a base with that template."""
    from sleepd.worker.data.chat_format import ChatFormat

    case = next(case for case in TOOL_CASES if case.name == name)
    tokenizer = make_tokenizer(case.words, case.template, bos=case.bos, eos=case.eos)
    return ChatFormat(tokenizer, "", stops=tokenizer.convert_tokens_to_ids(case.stops.split()), **options)
