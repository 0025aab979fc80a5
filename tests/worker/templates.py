"""Chat templates in the manner of published ones, tokenizers that go with them, and what is right for each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from sleepd.protocol.chat_example import ChatExample

PROMPT, REPLY, SYSTEM = "Who are you?", "I am Juniper.", "Be brief."
THOUGHT = "<think>\nThey ask.\n</think>\n\n"

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}<|start_header_id|>system<|end_header_id|>\n\n"
    "{% if strftime_now is defined %}Today Date: {{ strftime_now('%d %b %Y') }}\n\n{% endif %}"
    "{% if messages[0].role == 'system' %}{{ messages[0].content | trim }}{% set messages = messages[1:] %}{% endif %}"
    "<|eot_id|>{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA2 = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
GEMMA3 = (
    "{{ bos_token }}{% set first = '' %}{% if messages[0].role == 'system' %}{% if messages[0].content is string %}"
    "{% set first = messages[0].content + '\n\n' %}{% else %}{% set first = messages[0].content[0].text + '\n\n' %}"
    "{% endif %}{% set messages = messages[1:] %}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ first if loop.first else '' }}{% if m.content is string %}{{ m.content | trim }}{% else %}"
    "{% for part in m.content %}{{ part.text | trim }}{% endfor %}{% endif %}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
PHI3 = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content | trim }}{{ eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
ZEPHYR = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
DEEPSEEK_R1 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% elif m.role == 'user' %}"
    "<|User|>{{ m.content }}{% else %}<|Assistant|>{{ m.content.split('</think>')[-1] }}<|end_of_sentence|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|Assistant|><think>\n{% endif %}"
)
_QWEN3 = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{% set thought = m.reasoning_content or '' %}"
    "{% set content = m.content %}{% if not thought and '</think>' in content %}"
    "{% set thought = content.split('</think>')[0].split('<think>')[-1] %}"
    "{% set content = content.split('</think>')[-1] %}{% endif %}"
    "<|im_start|>assistant\n{% if loop.last %}<think>\n{{ thought.strip('\n') }}\n</think>\n\n{% endif %}"
    "{{ content.lstrip('\n') }}<|im_end|>\n"
    "{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
)
QWEN3 = (
    _QWEN3 + "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
QWEN35 = (
    _QWEN3 + "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n"
    "{% else %}<think>\n{% endif %}{% endif %}"
)
QWEN3_THINKING = _QWEN3 + "<think>\n{% endif %}"
GLM = (
    "[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>\n{% if m.role == 'assistant' %}"
    "<think>{{ (m.reasoning_content or '').strip() }}</think>\n{{ m.content.strip() }}{% else %}{{ m.content }}"
    "{% if m.role == 'user' and enable_thinking is defined and not enable_thinking "
    "and not m.content.endswith('/nothink') %}"
    "/nothink{% endif %}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '\n<think></think>' }}{% endif %}{% endif %}"
)
GPT_OSS = (
    "<|start|>system<|message|>You are a model.\nCurrent date: {{ strftime_now('%Y-%m-%d') }}<|end|>"
    "{% for m in messages %}{% if m.role == 'assistant' %}{% if '<|channel|>' in m.content %}"
    "{{ raise_exception('no channels in content') }}{% endif %}{% if m.thinking and loop.last %}"
    "<|start|>assistant<|channel|>analysis<|message|>{{ m.thinking }}<|end|>{% endif %}"
    "<|start|>assistant<|channel|>final<|message|>{{ m.content }}"
    "{% if loop.last and not add_generation_prompt %}<|return|>{% else %}<|end|>{% endif %}"
    "{% else %}<|start|>{{ 'developer' if m.role == 'system' else 'user' }}<|message|>{{ m.content }}<|end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
COHERE2 = (
    "{{ bos_token }}{% for m in messages %}<|START_OF_TURN_TOKEN|>"
    "{% if m.role == 'assistant' %}<|CHATBOT_TOKEN|><|START_RESPONSE|>{{ m.content }}<|END_RESPONSE|>"
    "{% else %}<|{{ m.role | upper }}_TOKEN|>{{ m.content }}{% endif %}<|END_OF_TURN_TOKEN|>{% endfor %}"
    "{% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}"
)
GRANITE = (
    "{% if messages[0].role != 'system' %}"
    "<|start_of_role|>system<|end_of_role|>You are Granite.<|end_of_text|>\n{% endif %}"
    "{% for m in messages %}<|start_of_role|>{{ m.role }}<|end_of_role|>{{ m.content }}<|end_of_text|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}"
)
PARTS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}"
    "{% endif %}{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WANTS_SYSTEM = (
    "{% if messages[0].role != 'system' %}{{ raise_exception('a system message is needed') }}{% endif %}" + CHATML
)
RAISES_ON_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHATML
DROPS_SYSTEM = CHATML.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}")
GENERATION = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant\n"
    "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}\n"
    "{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GENERATION_WRONG = GENERATION.replace("{% generation %}{{ m.content }}", "{{ m.content }}{% generation %}")
GENERATION_WITHOUT_END = GENERATION.replace("<|im_end|>{% endgeneration %}", "{% endgeneration %}<|im_end|>")
ALPACA = (
    "{% for m in messages %}{% if m.role == 'user' %}### User:\n{{ m.content }}\n\n{% elif m.role == 'assistant' %}"
    "### Response:\n{{ m.content }}{{ eos_token }}\n\n{% else %}{{ m.content }}\n\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}### Response:\n{% endif %}"
)
GEMMA4 = (
    "{{ bos_token }}{% if enable_thinking or messages[0].role == 'system' %}<|turn>system\n"
    "{% if enable_thinking %}<|think|>\n{% endif %}"
    "{% if messages[0].role == 'system' %}{{ messages[0].content | trim }}"
    "{% set messages = messages[1:] %}{% endif %}<turn|>\n{% endif %}"
    "{% for m in messages %}<|turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{% if m.reasoning_content and loop.last %}<|channel>thought\n{{ m.reasoning_content }}\n<channel|>{% endif %}"
    "{% if '<channel|>' in m.content %}{{ m.content.split('<channel|>')[-1] | trim }}{% else %}{{ m.content | trim }}"
    "{% endif %}<turn|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn>model\n"
    "{% if not enable_thinking %}<|channel>thought\n<channel|>{% endif %}{% endif %}"
)
GEMMA4_FORGETS = GEMMA4.replace("m.reasoning_content and loop.last", "m.tool_calls")
LLAMA3_ALWAYS_ASKS = (
    "{% for m in messages %}{{ bos_token if loop.first }}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
)
COMMAND_A = (
    "{{ bos_token }}{% for m in messages %}<|START_OF_TURN_TOKEN|>"
    "{% if m.role == 'assistant' %}<|CHATBOT_TOKEN|><|START_RESPONSE|>{{ m.content }}<|END_RESPONSE|>"
    "{% else %}<|{{ m.role | upper }}_TOKEN|>{{ m.content }}{% endif %}<|END_OF_TURN_TOKEN|>{% endfor %}"
    "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% if add_generation_prompt %}<|START_RESPONSE|>{% endif %}"
)
COMMAND_REASONS = (
    "{{ bos_token }}{% for m in messages %}<|START_OF_TURN_TOKEN|>"
    "{% if m.role == 'assistant' %}<|CHATBOT_TOKEN|>{% if m.reasoning and loop.last %}<|START_THINKING|>"
    "{{ m.reasoning }}<|END_THINKING|>{% endif %}<|START_TEXT|>{{ m.content }}<|END_TEXT|>"
    "{% else %}<|{{ m.role | upper }}_TOKEN|>{{ m.content }}{% endif %}<|END_OF_TURN_TOKEN|>{% endfor %}"
    "{% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|><|START_THINKING|>"
    "{% if reasoning is defined and not reasoning %}<|END_THINKING|>{% endif %}{% endif %}"
)
GLM_EDGE = "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}<|assistant|>{# <|user|> <|system|> #}"
DEEPSEEK_V31 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}{% elif m.role == 'user' %}"
    "<|User|>{{ m.content }}{% else %}<|Assistant|></think>{{ m.content.split('</think>')[-1] }}<|end_of_sentence|>"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|Assistant|>{{ '<think>' if thinking else '</think>' }}"
    "{% endif %}"
)
DEEPSEEK_V32 = DEEPSEEK_V31.replace("split('</think>')[-1]", "strip()").replace(
    "else '</think>'", "else '<think></think>'"
)
KIMI_THINKING = (
    "{% for m in messages %}<|im_{{ m.role }}|>{{ m.role }}<|im_middle|>"
    "{% if m.role == 'assistant' %}<think></think>{% endif %}{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_assistant|>assistant<|im_middle|>{% endif %}"
    "{# <|im_user|> <|im_system|> #}"
)
QWEN3_CLOSED = QWEN3.replace("enable_thinking is defined and not enable_thinking", "not enable_thinking").replace(
    "{% if loop.last %}<think>", "{% if thought %}<think>"
)
ALWAYS_CLOSED = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n\n</think>\n\n{% endif %}").replace(
    "{{ m['content'] }}", "{{ m['content'].split('</think>')[-1].lstrip('\n') }}"
)
TRIMS = CHATML.replace("m['content']", "m['content'] | trim")


def pair(prompt: str, reply: str) -> ChatExample:
    """A prompt and the reply to it, with nothing before them."""
    return ChatExample(prompt=prompt, response=reply)


@dataclass(frozen=True)
class Case:
    """One template, and what is right for it. Control tokens stand in ⟦⟧ in what is expected."""

    name: str
    template: str | dict[str, str] | None
    words: str
    """Control tokens, with a blank between them; a ``~`` before one says that it is added, but not special."""
    supervised: str
    asked: str = ""
    """What the prompt ends with; empty: not looked at."""
    bos: str | None = None
    eos: str | None = None
    stops: str = ""
    """Further tokens that the makers let generation stop at."""
    system: str = SYSTEM
    reply: str = REPLY
    thoughts: str = "as_written"
    kind: str = "bytes"
    warns: str = ""
    """In the warnings of the contract; empty: there are none."""


_IM = "<|endoftext|> <|im_start|> <|im_end|>"
_QWEN = f"{_IM} ~<think> ~</think>"
_GEMMA = "<pad> <eos> <bos> <start_of_turn> <end_of_turn>"
_R1 = "<|begin|> <|User|> <|Assistant|> <|end_of_sentence|> ~<think> ~</think>"
_OSS = "<|start|> <|end|> <|message|> <|channel|> <|return|> <|endoftext|>"
_GLM = "[gMASK] <sop> <|endoftext|> <|system|> <|user|> <|assistant|> ~<think> ~</think>"
_LLAMA3 = "<|begin_of_text|> <|start_header_id|> <|end_header_id|> <|eot_id|> <|end_of_text|>"
_COHERE = (
    "<BOS_TOKEN> <|START_OF_TURN_TOKEN|> <|END_OF_TURN_TOKEN|> <|USER_TOKEN|> <|CHATBOT_TOKEN|> <|SYSTEM_TOKEN|> "
    "<|START_RESPONSE|> <|END_RESPONSE|>"
)
_COHERE_REASONS = f"{_COHERE} <|START_THINKING|> <|END_THINKING|> <|START_TEXT|> <|END_TEXT|>"
_GEMMA4 = "<pad> <eos> <bos> <|turn> <turn|> <|channel> <channel|> <|think|>"
_KIMI = "<|im_system|> <|im_user|> <|im_assistant|> <|im_middle|> <|im_end|> ~<think> ~</think>"
_GRANITE = "<|end_of_text|> <|start_of_role|> <|end_of_role|>"
_SP = "<unk> <s> </s>"
_CHATML_END = f"{REPLY}⟦<|im_end|>⟧"
_ASKED = "⟦<|im_start|>⟧assistant\n"

CASES = [
    Case(
        "ChatML",
        CHATML,
        _IM,
        _CHATML_END,
        f"Be brief.⟦<|im_end|>⟧\n⟦<|im_start|>⟧user\n{PROMPT}⟦<|im_end|>⟧\n{_ASKED}",
        eos="<|im_end|>",
    ),
    Case(
        "ChatML, its end not named",
        CHATML,
        _IM,
        _CHATML_END,
        _ASKED,
        eos="<|endoftext|>",
        warns="stops at <|endoftext|>",
    ),
    Case(
        "ChatML, named by the generation's configuration",
        CHATML,
        _IM,
        _CHATML_END,
        _ASKED,
        eos="<|endoftext|>",
        stops="<|im_end|>",
    ),
    Case(
        "Llama 3",
        LLAMA3,
        _LLAMA3,
        f"{REPLY}⟦<|eot_id|>⟧",
        "⟦<|start_header_id|>⟧assistant⟦<|end_header_id|>⟧\n\n",
        bos="<|begin_of_text|>",
        eos="<|end_of_text|>",
        stops="<|eot_id|>",
    ),
    Case(
        "Gemma 2",
        GEMMA2,
        _GEMMA,
        f"{REPLY}⟦<end_of_turn>⟧",
        f"⟦<bos>⟧⟦<start_of_turn>⟧user\nBe brief.\n\n{PROMPT}⟦<end_of_turn>⟧\n⟦<start_of_turn>⟧model\n",
        bos="<bos>",
        eos="<eos>",
        stops="<end_of_turn>",
    ),
    Case(
        "Gemma 3",
        GEMMA3,
        _GEMMA,
        f"{REPLY}⟦<end_of_turn>⟧",
        f"⟦<bos>⟧⟦<start_of_turn>⟧user\nBe brief.\n\n{PROMPT}⟦<end_of_turn>⟧\n⟦<start_of_turn>⟧model\n",
        bos="<bos>",
        eos="<eos>",
        stops="<end_of_turn>",
    ),
    Case(
        "Phi-3",
        PHI3,
        "<s> <|endoftext|> <|system|> <|user|> <|assistant|> <|end|>",
        f"{REPLY}⟦<|end|>⟧",
        "⟦<|assistant|>⟧\n",
        bos="<s>",
        eos="<|endoftext|>",
        stops="<|end|>",
    ),
    Case(
        "Phi-3 by its tokenizer alone",
        PHI3,
        "<s> <|endoftext|> <|system|> <|user|> <|assistant|> <|end|>",
        f"{REPLY}⟦<|end|>⟧",
        "⟦<|assistant|>⟧\n",
        bos="<s>",
        eos="<|endoftext|>",
        warns="stops at <|endoftext|>",
    ),
    Case(
        "Mistral",
        MISTRAL,
        _SP,
        f" {REPLY}⟦</s>⟧",
        f"⟦<s>⟧[INST] Be brief.\n\n{PROMPT} [/INST]",
        bos="<s>",
        eos="</s>",
        kind="pieces",
    ),
    Case(
        "Mistral with control tokens",
        MISTRAL,
        f"{_SP} [INST] [/INST]",
        f" {REPLY}⟦</s>⟧",
        "⟦[/INST]⟧",
        bos="<s>",
        eos="</s>",
        kind="pieces",
    ),
    Case(
        "Zephyr",
        ZEPHYR,
        _SP,
        f"{REPLY}⟦</s>⟧",
        f"<|user|>\n{PROMPT}⟦</s>⟧\n<|assistant|>\n",
        bos="<s>",
        eos="</s>",
        kind="pieces",
    ),
    Case(
        "Mistral on an older tokenizer",
        MISTRAL,
        _SP,
        f" {REPLY}⟦</s>⟧",
        f"{PROMPT} [/INST]",
        bos="<s>",
        eos="</s>",
        kind="older pieces",
    ),
    Case(
        "Zephyr on an older tokenizer",
        ZEPHYR,
        _SP,
        f"{REPLY}⟦</s>⟧",
        f"{PROMPT}⟦</s>⟧\n<|assistant|>\n",
        bos="<s>",
        eos="</s>",
        kind="older pieces",
    ),
    Case(
        "DeepSeek-R1",
        DEEPSEEK_R1,
        _R1,
        f"{REPLY}⟦<|end_of_sentence|>⟧",
        f"{PROMPT}⟦<|Assistant|>⟧",
        bos="<|begin|>",
        eos="<|end_of_sentence|>",
    ),
    Case(
        "DeepSeek-R1, an indent is kept",
        DEEPSEEK_R1,
        _R1,
        "    return 1⟦<|end_of_sentence|>⟧",
        f"{PROMPT}⟦<|Assistant|>⟧",
        bos="<|begin|>",
        eos="<|end_of_sentence|>",
        reply="    return 1",
    ),
    Case(
        "DeepSeek-R1, a thought was said",
        DEEPSEEK_R1,
        _R1,
        f"They ask.\n⟦</think>⟧\n\n{REPLY}⟦<|end_of_sentence|>⟧",
        "⟦<|Assistant|>⟧⟦<think>⟧\n",
        bos="<|begin|>",
        eos="<|end_of_sentence|>",
        reply=THOUGHT + REPLY,
    ),
    Case(
        "DeepSeek-R1, said without its opening",
        DEEPSEEK_R1,
        _R1,
        f"They ask.\n⟦</think>⟧\n\n{REPLY}⟦<|end_of_sentence|>⟧",
        "⟦<|Assistant|>⟧⟦<think>⟧\n",
        bos="<|begin|>",
        eos="<|end_of_sentence|>",
        reply="They ask.\n</think>\n\n" + REPLY,
    ),
    Case("Qwen3", QWEN3, _QWEN, _CHATML_END, f"{_ASKED}⟦<think>⟧\n\n⟦</think>⟧\n\n", eos="<|im_end|>"),
    Case(
        "Qwen3, a thought was said",
        QWEN3,
        _QWEN,
        f"⟦<think>⟧\nThey ask.\n⟦</think>⟧\n\n{_CHATML_END}",
        _ASKED,
        eos="<|im_end|>",
        reply=THOUGHT + REPLY,
    ),
    Case(
        "Qwen3, an empty thought was said",
        QWEN3,
        _QWEN,
        _CHATML_END,
        f"{_ASKED}⟦<think>⟧\n\n⟦</think>⟧\n\n",
        eos="<|im_end|>",
        reply="<think>\n\n</think>\n\n" + REPLY,
    ),
    Case(
        "Qwen3, thoughts dropped",
        QWEN3,
        _QWEN,
        _CHATML_END,
        f"{_ASKED}⟦<think>⟧\n\n⟦</think>⟧\n\n",
        eos="<|im_end|>",
        reply=THOUGHT + REPLY,
        thoughts="drop",
    ),
    Case("Qwen3.5", QWEN35, _QWEN, _CHATML_END, f"{_ASKED}⟦<think>⟧\n\n⟦</think>⟧\n\n", eos="<|im_end|>"),
    Case(
        "Qwen3.5, a thought was said",
        QWEN35,
        _QWEN,
        f"They ask.\n⟦</think>⟧\n\n{_CHATML_END}",
        f"{_ASKED}⟦<think>⟧\n",
        eos="<|im_end|>",
        reply=THOUGHT + REPLY,
    ),
    Case(
        "Qwen3 that always thinks",
        QWEN3_THINKING,
        _QWEN,
        _CHATML_END,
        f"{_ASKED}⟦<think>⟧\n\n⟦</think>⟧\n\n",
        eos="<|im_end|>",
    ),
    Case(
        "Qwen3 that always thinks, a thought was said",
        QWEN3_THINKING,
        _QWEN,
        f"They ask.\n⟦</think>⟧\n\n{_CHATML_END}",
        f"{_ASKED}⟦<think>⟧\n",
        eos="<|im_end|>",
        reply=THOUGHT + REPLY,
    ),
    Case(
        "GLM",
        GLM,
        _GLM,
        f"\n{REPLY}⟦<|user|>⟧",
        f"{PROMPT}/nothink⟦<|assistant|>⟧\n⟦<think>⟧⟦</think>⟧",
        eos="<|endoftext|>",
        stops="<|user|>",
    ),
    Case(
        "GLM, a thought was said",
        GLM,
        _GLM,
        f"\n⟦<think>⟧They ask.⟦</think>⟧\n{REPLY}⟦<|user|>⟧",
        f"{PROMPT}⟦<|assistant|>⟧",
        eos="<|endoftext|>",
        stops="<|user|>",
        reply=THOUGHT + REPLY,
    ),
    Case(
        "gpt-oss",
        GPT_OSS,
        _OSS,
        f"⟦<|channel|>⟧final⟦<|message|>⟧{REPLY}⟦<|return|>⟧",
        f"user⟦<|message|>⟧{PROMPT}⟦<|end|>⟧⟦<|start|>⟧assistant",
        eos="<|return|>",
    ),
    Case(
        "gpt-oss, a thought was said",
        GPT_OSS,
        _OSS,
        "⟦<|channel|>⟧analysis⟦<|message|>⟧They ask.⟦<|end|>⟧⟦<|start|>⟧assistant"
        f"⟦<|channel|>⟧final⟦<|message|>⟧{REPLY}⟦<|return|>⟧",
        "⟦<|start|>⟧assistant",
        eos="<|return|>",
        reply=THOUGHT + REPLY,
    ),
    Case(
        "Cohere2",
        COHERE2,
        _COHERE,
        f"⟦<|START_RESPONSE|>⟧{REPLY}⟦<|END_RESPONSE|>⟧⟦<|END_OF_TURN_TOKEN|>⟧",
        "⟦<|CHATBOT_TOKEN|>⟧",
        bos="<BOS_TOKEN>",
        eos="<|END_OF_TURN_TOKEN|>",
    ),
    Case(
        "Granite",
        GRANITE,
        _GRANITE,
        f"{REPLY}⟦<|end_of_text|>⟧",
        "⟦<|start_of_role|>⟧assistant⟦<|end_of_role|>⟧",
        eos="<|end_of_text|>",
    ),
    Case(
        "Granite's own system prompt",
        GRANITE,
        _GRANITE,
        f"{REPLY}⟦<|end_of_text|>⟧",
        f"You are Granite.⟦<|end_of_text|>⟧\n⟦<|start_of_role|>⟧user⟦<|end_of_role|>⟧{PROMPT}"
        "⟦<|end_of_text|>⟧\n⟦<|start_of_role|>⟧assistant⟦<|end_of_role|>⟧",
        eos="<|end_of_text|>",
        system="",
    ),
    Case(
        "content as a list of parts",
        PARTS,
        _IM,
        _CHATML_END,
        f"Be brief.⟦<|im_end|>⟧\n⟦<|im_start|>⟧user\n{PROMPT}⟦<|im_end|>⟧\n{_ASKED}",
        eos="<|im_end|>",
    ),
    Case("wants a system message, and has one", WANTS_SYSTEM, _IM, _CHATML_END, _ASKED, eos="<|im_end|>"),
    Case(
        "raises on a system message",
        RAISES_ON_SYSTEM,
        _IM,
        _CHATML_END,
        f"user\nBe brief.\n\n{PROMPT}⟦<|im_end|>⟧\n{_ASKED}",
        eos="<|im_end|>",
    ),
    Case(
        "leaves the system message out",
        DROPS_SYSTEM,
        _IM,
        _CHATML_END,
        f"user\nBe brief.\n\n{PROMPT}⟦<|im_end|>⟧\n{_ASKED}",
        eos="<|im_end|>",
    ),
    Case(
        "several templates, one of them default",
        {"default": CHATML, "tool_use": "x"},
        _IM,
        _CHATML_END,
        _ASKED,
        eos="<|im_end|>",
    ),
    Case(
        "no template",
        None,
        _IM,
        f" {REPLY}⟦<|im_end|>⟧",
        f"Be brief.\n\nUser: {PROMPT}\nAssistant:",
        eos="<|im_end|>",
        warns="no chat template",
    ),
    Case("{% generation %}", GENERATION, _IM, _CHATML_END, _ASKED, eos="<|im_end|>"),
    Case(
        "{% generation %} on the wrong part",
        GENERATION_WRONG,
        _IM,
        _CHATML_END,
        _ASKED,
        eos="<|im_end|>",
        warns="marks",
    ),
    Case(
        "{% generation %} without the end",
        GENERATION_WITHOUT_END,
        _IM,
        _CHATML_END,
        _ASKED,
        eos="<|im_end|>",
        warns="marks end the reply with ''",
    ),
    Case("plain headers", ALPACA, "<s> </s>", f"{REPLY}⟦</s>⟧", f"### User:\n{PROMPT}\n\n### Response:\n", eos="</s>"),
    Case(
        "an indent is kept", CHATML, _IM, "    return 1⟦<|im_end|>⟧", _ASKED, eos="<|im_end|>", reply="    return 1\n"
    ),
    Case(
        "an indent across a merge",
        CHATML,
        _IM,
        "    return 1⟦<|im_end|>⟧",
        _ASKED,
        eos="<|im_end|>",
        reply="    return 1\n",
        kind="merges",
    ),
    Case("a template that trims", TRIMS, _IM, "return 1⟦<|im_end|>⟧", _ASKED, eos="<|im_end|>", reply="    return 1\n"),
    Case(
        "two tokens end a turn",
        CHATML.replace("<|im_end|>", "<|closed|><|over|>"),
        "<|im_start|> <|closed|> <|over|>",
        f"{REPLY}⟦<|closed|>⟧⟦<|over|>⟧",
        _ASKED,
        eos="<|over|>",
    ),
    Case(
        "Gemma 4, whose generation prompt closes a thought",
        GEMMA4,
        _GEMMA4,
        f"{REPLY}⟦<turn|>⟧",
        f"user\n{PROMPT}⟦<turn|>⟧\n⟦<|turn>⟧model\n⟦<|channel>⟧thought\n⟦<channel|>⟧",
        bos="<bos>",
        eos="<eos>",
        stops="<turn|>",
    ),
    Case(
        "Gemma 4, a thought was said",
        GEMMA4,
        _GEMMA4,
        f"⟦<|channel>⟧thought\nThey ask.\n⟦<channel|>⟧{REPLY}⟦<turn|>⟧",
        f"user\n{PROMPT}⟦<turn|>⟧\n⟦<|turn>⟧model\n",
        bos="<bos>",
        eos="<eos>",
        stops="<turn|>",
        reply=THOUGHT + REPLY,
    ),
    Case(
        "Gemma 4, a thought was said in its own words",
        GEMMA4,
        _GEMMA4,
        f"⟦<|channel>⟧thought\nThey ask.\n⟦<channel|>⟧{REPLY}⟦<turn|>⟧",
        "⟦<|turn>⟧model\n",
        bos="<bos>",
        eos="<eos>",
        stops="<turn|>",
        reply=f"<|channel>thought\nThey ask.\n<channel|>{REPLY}",
    ),
    Case(
        "Gemma 4 that leaves thoughts out, a thought was said",
        GEMMA4_FORGETS,
        _GEMMA4,
        f"⟦<|channel>⟧thought\nThey ask.\n⟦<channel|>⟧{REPLY}⟦<turn|>⟧",
        "⟦<|turn>⟧model\n",
        bos="<bos>",
        eos="<eos>",
        stops="<turn|>",
        reply=THOUGHT + REPLY,
    ),
    Case(
        "Llama 3 that always asks",
        LLAMA3_ALWAYS_ASKS,
        _LLAMA3,
        f"{REPLY}⟦<|eot_id|>⟧",
        "⟦<|start_header_id|>⟧assistant⟦<|end_header_id|>⟧\n\n",
        bos="<|begin_of_text|>",
        eos="<|end_of_text|>",
        stops="<|eot_id|>",
    ),
    Case(
        "Command A that always asks",
        COMMAND_A,
        _COHERE,
        f"{REPLY}⟦<|END_RESPONSE|>⟧⟦<|END_OF_TURN_TOKEN|>⟧",
        "⟦<|CHATBOT_TOKEN|>⟧⟦<|START_RESPONSE|>⟧",
        bos="<BOS_TOKEN>",
        eos="<|END_OF_TURN_TOKEN|>",
    ),
    Case(
        "Command A that reasons",
        COMMAND_REASONS,
        _COHERE_REASONS,
        f"⟦<|START_TEXT|>⟧{REPLY}⟦<|END_TEXT|>⟧⟦<|END_OF_TURN_TOKEN|>⟧",
        "⟦<|CHATBOT_TOKEN|>⟧⟦<|START_THINKING|>⟧⟦<|END_THINKING|>⟧",
        bos="<BOS_TOKEN>",
        eos="<|END_OF_TURN_TOKEN|>",
    ),
    Case(
        "Command A that reasons, a thought was said",
        COMMAND_REASONS,
        _COHERE_REASONS,
        f"They ask.⟦<|END_THINKING|>⟧⟦<|START_TEXT|>⟧{REPLY}⟦<|END_TEXT|>⟧⟦<|END_OF_TURN_TOKEN|>⟧",
        "⟦<|CHATBOT_TOKEN|>⟧⟦<|START_THINKING|>⟧",
        bos="<BOS_TOKEN>",
        eos="<|END_OF_TURN_TOKEN|>",
        reply=THOUGHT + REPLY,
    ),
    Case(
        "GLM-Edge, whose replies have no end",
        GLM_EDGE,
        _GLM,
        f"\n{REPLY}⟦<|user|>⟧",
        f"⟦<|user|>⟧\n{PROMPT}⟦<|assistant|>⟧",
        eos="<|endoftext|>",
        stops="<|user|>",
    ),
    Case(
        "DeepSeek-V3.1",
        DEEPSEEK_V31,
        _R1,
        f"{REPLY}⟦<|end_of_sentence|>⟧",
        f"{PROMPT}⟦<|Assistant|>⟧⟦</think>⟧",
        bos="<|begin|>",
        eos="<|end_of_sentence|>",
    ),
    Case(
        "DeepSeek-V3.1, a thought was said",
        DEEPSEEK_V31,
        _R1,
        f"They ask.\n⟦</think>⟧\n\n{REPLY}⟦<|end_of_sentence|>⟧",
        f"{PROMPT}⟦<|Assistant|>⟧⟦<think>⟧",
        bos="<|begin|>",
        eos="<|end_of_sentence|>",
        reply=THOUGHT + REPLY,
    ),
    Case(
        "DeepSeek-V3.2",
        DEEPSEEK_V32,
        _R1,
        f"{REPLY}⟦<|end_of_sentence|>⟧",
        f"{PROMPT}⟦<|Assistant|>⟧⟦<think>⟧⟦</think>⟧",
        bos="<|begin|>",
        eos="<|end_of_sentence|>",
    ),
    Case(
        "DeepSeek-V3.2, a thought was said",
        DEEPSEEK_V32,
        _R1,
        f"They ask.\n⟦</think>⟧\n\n{REPLY}⟦<|end_of_sentence|>⟧",
        f"{PROMPT}⟦<|Assistant|>⟧⟦<think>⟧",
        bos="<|begin|>",
        eos="<|end_of_sentence|>",
        reply=THOUGHT + REPLY,
    ),
    Case(
        "Kimi that thinks",
        KIMI_THINKING,
        _KIMI,
        _CHATML_END,
        "⟦<|im_assistant|>⟧assistant⟦<|im_middle|>⟧⟦<think>⟧⟦</think>⟧",
        eos="<|im_end|>",
    ),
    Case(
        "Kimi that thinks, a thought was said",
        KIMI_THINKING,
        _KIMI,
        f"⟦<think>⟧\nThey ask.\n⟦</think>⟧\n\n{_CHATML_END}",
        "⟦<|im_assistant|>⟧assistant⟦<|im_middle|>⟧",
        eos="<|im_end|>",
        reply=THOUGHT + REPLY,
    ),
    Case(
        "Qwen3 that thinks when told to",
        QWEN3_CLOSED,
        _QWEN,
        "    return 1⟦<|im_end|>⟧",
        f"{_ASKED}⟦<think>⟧\n\n⟦</think>⟧\n\n",
        eos="<|im_end|>",
        reply="    return 1",
    ),
    Case(
        "Qwen3 that thinks when told to, a thought was said",
        QWEN3_CLOSED,
        _QWEN,
        f"⟦<think>⟧\nThey ask.\n⟦</think>⟧\n\n{_CHATML_END}",
        _ASKED,
        eos="<|im_end|>",
        reply=THOUGHT + REPLY,
    ),
    Case(
        "a generation prompt that always closes a thought",
        ALWAYS_CLOSED,
        _QWEN,
        _CHATML_END,
        f"{_ASKED}⟦<think>⟧\n\n⟦</think>⟧\n\n",
        eos="<|im_end|>",
    ),
    Case("no end of a sequence is named", CHATML, _IM, _CHATML_END, _ASKED, warns="stops at nothing"),
]

REFUSED = [
    ("several templates, none default", {"rag": CHATML, "tool_use": CHATML}, "", "rag, tool_use"),
    ("wants a system message", WANTS_SYSTEM, "", "a system message is needed"),
    ("fails", "{{ messages[0].content / 2 }}", "", "the chat template fails on it"),
    ("raises", "{{ raise_exception('never') }}", "", "never"),
    ("is no template", "{% for %}", "", "the chat template fails on it"),
    ("calls itself", "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "", "the chat template"),
    (
        "loses the prompt",
        "{% for m in messages if m.role != 'user' %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}",
        "",
        "loses the text of the prompt",
    ),
    (
        "loses the reply",
        "{% for m in messages if m.role == 'user' %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}",
        "",
        "loses the text of the reply",
    ),
    ("shortens", CHATML.replace("m['content']", "m['content'][:9]"), "", "tears the text"),
    (
        "repeats the reply",
        CHATML.replace("{{ m['content'] }}", "{{ m['content'] }}{{ m['content'] if m.role == 'assistant' else '' }}"),
        "",
        "writes the reply twice",
    ),
    (
        "never closes a thought",
        CHATML.replace("{{ m['content'] }}", "{{ '<think>\n' if m.role == 'assistant' else '' }}{{ m['content'] }}"),
        "",
        "never closes <think>",
    ),
    (
        "opens another turn behind the reply",
        CHATML + "{% if messages[-1].role == 'assistant' %}<|im_start|>tool\n{% endif %}",
        "",
        "never ends it",
    ),
]


def tokenizer_for(case: Case) -> Any:
    """A tokenizer with the words and the template of ``case``."""
    return make_tokenizer(case.words, case.template, bos=case.bos, eos=case.eos, kind=case.kind)


def make_tokenizer(
    words: str, template: str | None, *, bos: str | None = None, eos: str | None = None, kind: str = "bytes"
) -> Any:
    """A fast tokenizer: ``bytes``, one token a byte; ``merges``, byte-level BPE; ``pieces``, as SentencePiece;
    ``older pieces``, as it was put into a fast tokenizer at first, with a normalizer.
    """
    from tokenizers import AddedToken, Tokenizer
    from transformers import PreTrainedTokenizerFast

    names = words.split()
    backend = Tokenizer.from_str(_backend(kind, tuple(name.lstrip("~") for name in names)))
    for name in names:
        is_special = not name.startswith("~")
        token = AddedToken(name.lstrip("~"), special=is_special, normalized=False)
        (backend.add_special_tokens if is_special else backend.add_tokens)([token])
    named = {key: word for key, word in (("bos_token", bos), ("eos_token", eos)) if word}
    if kind.endswith("pieces"):
        named["unk_token"] = "<unk>"
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **named)
    tokenizer.chat_template = template
    return tokenizer


@cache
def _backend(kind: str, names: tuple[str, ...]) -> str:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    corpus = ["Who are you? I am Juniper. [INST] [/INST] Be brief.\n\n    return 1\n        return 2\n    a  b   c"] * 9
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if kind == "bytes":
        vocabulary = {token: number for number, token in enumerate([*names, *alphabet])}
        backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    elif kind == "merges":
        backend = Tokenizer(models.BPE())
    else:
        backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
        backend.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        fallback = [f"<0x{byte:02X}>" for byte in range(256)]
        backend.train_from_iterator(
            corpus, trainers.BpeTrainer(vocab_size=600, special_tokens=[*names, *fallback], show_progress=False)
        )
        if kind == "older pieces":
            blanks = normalizers.Replace(" ", "▁")
            backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), blanks])
            backend.pre_tokenizer = pre_tokenizers.Sequence([])
        else:
            backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        return _without_specials(backend.to_str(), names)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind == "bytes")
    backend.decoder = decoders.ByteLevel()
    if kind == "merges":
        # Without the regular expression a line end and the indent behind it become one token.
        trainer = trainers.BpeTrainer(
            vocab_size=500, special_tokens=list(names), initial_alphabet=alphabet, show_progress=False
        )
        backend.train_from_iterator(corpus, trainer)
    return _without_specials(backend.to_str(), names)


def _without_specials(state: str, names: tuple[str, ...]) -> str:
    """What the trainer registered is registered anew, each as it is wanted; bytes are no special tokens."""
    import json

    return json.dumps({**json.loads(state), "added_tokens": []})


def by_name(name: str, **changes: Any) -> Case:
    """That case, but for these fields."""
    return replace(next(case for case in CASES if case.name == name), **changes)
