"""The README beside an exported adapter: what it is, what it needs, and what was measured."""

from __future__ import annotations

from sleepd.protocol.deployment.exported_adapter import ExportedAdapter
from sleepd.text.display import clean

_USE = {
    "peft": "Load it on that base: `PeftModel.from_pretrained(base, DIR)`; vLLM: `--lora-modules NAME=DIR`.",
    "gguf": "Load it on that base in GGUF: `llama-server -m BASE.gguf --lora FILE.gguf`.",
    "merged": "It is a whole model: `AutoModelForCausalLM.from_pretrained(DIRECTORY)`; vLLM: `vllm serve DIRECTORY`.",
    "merged-gguf": "It is a whole model: `llama-server -m FILE.gguf`; Ollama: `ollama create NAME -f Modelfile`.",
}


def limits_of(exported: ExportedAdapter) -> str:
    """What the figures do not say about the files, in a few sentences."""
    text, quantization = _limits(exported), exported.quantization
    if quantization == "none":
        return text
    return f"{text} The figures were measured on the base in {quantization}; on no other form of it was it measured."


def _limits(exported: ExportedAdapter) -> str:
    if exported.is_measured:
        return "The files are those that were measured, byte by byte."
    how = f", in {exported.numbers}" if exported.numbers else ""
    if exported.form == "gguf":
        return f"The GGUF file holds the measured adapter{how}. It was not measured in this form."
    return (
        f"The files are the base with the adapter merged into it{how}. This merged model was not measured: the figures "
        "were measured on the base with the adapter beside it."
    )


def export_readme(exported: ExportedAdapter) -> str:
    """The text."""
    lines = [f"# Cycle {exported.cycle} of sage-sleepd, as {exported.form}", ""]
    if exported.form in ("peft", "gguf"):
        lines.append("A LoRA adapter. It works on the base that it was trained on, and on no other.")
    lines += [_USE[exported.form], ""]
    lines.append(f"- Base: {clean(exported.base)}")
    lines.append(f"- Fingerprint of the base: {clean(exported.base_fingerprint) or 'not recorded'}")
    if exported.converter:
        lines.append(f"- Made by: {clean(exported.converter)}")
    lines += [f"- {clean(each.name)}: {each.bytes} bytes, sha256 {each.sha256}" for each in exported.files]
    lines += ["", "## What was measured", "", limits_of(exported), ""]
    lines.append(f"Verdict on the adapter: {clean(exported.verdict) or 'none is recorded'}.")
    lines += ["", *(f"- {clean(each)}" for each in exported.measured)] if exported.measured else []
    return "\n".join(lines) + "\n"
