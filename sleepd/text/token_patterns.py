"""Keys and tokens that are known by their shape, whatever stands beside them. Pure.

The library detect-secrets knows some; these are those that it does not know, or knows in an older form. Each shape
begins with what no word begins with, so that a search stops early everywhere else.
"""

from __future__ import annotations

import re
from typing import Final

_MIN_DIGITS: Final = 2
MAY_BE_CUT: Final = re.compile(r"[0-9][^0-9]*[0-9]")
"""A cut token has so many digits."""
SHAPES: Final = {
    "AWS Access Key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "Google API Key": re.compile(r"\bAIza[\w-]{35}"),
    "Google OAuth Secret": re.compile(r"\bGOCSPX-[\w-]{20,64}|\bya29\.[\w-]{30,256}"),
    "Anthropic API Key": re.compile(r"\bsk-ant-[\w-]{24,200}"),
    "OpenAI Token": re.compile(r"\bsk-(?:proj-|svcacct-|or-v1-)?[A-Za-z0-9_]{32,200}"),
    "Stripe Key": re.compile(r"\b[rs]k_live_[A-Za-z0-9]{16,120}|\bwhsec_[A-Za-z0-9+/]{24,64}"),
    "Hugging Face Token": re.compile(r"\bhf_[A-Za-z0-9]{30,64}"),
    "GitHub Token": re.compile(r"\bgithub_pat_\w{50,120}|\bgh[opsur]_[A-Za-z0-9]{36,255}"),
    "GitLab Token": re.compile(r"\bgl(?:pat|dt|rt|cbt|ptt|soat)-[\w-]{20,64}"),
    "DigitalOcean Token": re.compile(r"\bdo[opr]_v1_[0-9a-f]{64}\b"),
    "Age Secret Key": re.compile(r"\bAGE-SECRET-KEY-1[0-9A-Z]{58}\b"),
    "Slack Token": re.compile(r"\bxox[abeoprs]-[\w-]{20,200}"),
    "Telegram Bot Token": re.compile(r"\b\d{8,10}:AA[\w-]{32,33}\b"),
    "Vault Token": re.compile(r"\bhv[bsr]\.[\w-]{24,200}"),
    "npm or PyPI Token": re.compile(r"\bnpm_[A-Za-z0-9]{36}\b|\bpypi-AgE[\w-]{50,300}"),
    "Databricks or Mailgun Key": re.compile(r"\bdapi[0-9a-f]{32}\b|\bkey-[0-9a-f]{32}\b"),
    "Service Token": re.compile(
        r"\bATATT3[\w=-]{40,300}|\bEAA[A-Za-z0-9]{60,300}|\bsbp_[0-9a-f]{40}\b|\bglsa_\w{32,64}|\bSK[0-9a-f]{32}\b"
    ),
    "SendGrid Key": re.compile(r"\bSG\.[\w-]{16,32}\.[\w-]{16,64}"),
    "JSON Web Token": re.compile(r"\beyJ[\w-]{10,2000}\.eyJ[\w-]{4,4000}\.[\w-]{8,1000}"),
    "Webhook Address": re.compile(
        r"hooks\.slack\.com/services/T\w{6,16}/B\w{6,16}/\w{16,40}|discord(?:app)?\.com/api/webhooks/\d{10,25}/[\w-]{30,100}"
    ),
    "Private Key": re.compile(
        r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----[\s\\rn\"'+]{0,40}[A-Za-z0-9+/=:-]{16}"
    ),
    "Private Key in Base64": re.compile(r"\bLS0tLS1CRUdJTi(?!BDRVJU|BQVUJM)[A-Za-z0-9+/]{16}"),
    "Wallet Key": re.compile(
        r"\bnsec1[02-9ac-hj-np-z]{58}\b|\b[xyz]prv[1-9A-HJ-NP-Za-km-z]{90,115}|\b[5KL][1-9A-HJ-NP-Za-km-z]{50,51}\b"
    ),
    "PuTTY Private Key": re.compile(r"PuTTY-User-Key-File-\d"),
}
_PREFIXED: Final = re.compile(
    r"\b[a-z]{2,8}(?:[-_.][a-z]{2,8}){0,3}[-_.]((?:[A-Za-z0-9]{6,20}-)?[A-Za-z0-9]{24,120})\b"
)
"""The way in which services write tokens today: what it is for, then chance characters (``tskey-auth-…``)."""
MIN_RUN: Final = 16
_LONG_RUN: Final = re.compile(rf"[\w.:/+=-]{{{MIN_RUN}}}")
"""In each of the shapes there is one, in prose hardly ever."""
_CUT: Final = {
    "AWS Access Key": re.compile(r"(?:AKIA|ASIA)([0-9A-Z]{16})"),
    "GitHub Token": re.compile(r"(?:gh[opsur]_|github_pat_)([A-Za-z0-9_]{36})"),
    "GitLab Token": re.compile(r"glpat([A-Za-z0-9_]{20})"),
    "Stripe Key": re.compile(r"[rs]k_?live_?([A-Za-z0-9]{20})"),
    "Anthropic API Key": re.compile(r"skant([A-Za-z0-9_]{32})"),
    "OpenAI Token": re.compile(r"sk(?:proj|svcacct)([A-Za-z0-9_]{32})"),
    "Google API Key": re.compile(r"AIza([A-Za-z0-9_]{33})"),
    "Hugging Face Token": re.compile(r"hf_([A-Za-z0-9]{30})"),
    "Slack Token": re.compile(r"xox[abeoprs]([A-Za-z0-9]{24})"),
    "npm Token": re.compile(r"npm_([A-Za-z0-9]{36})"),
}
"""The same without white space and hyphens, which a cut token lost: see ``plain_forms.without_gaps``."""


def find_token(line: str) -> str:
    """The kind of the first token in a line; empty: there is none."""
    if longest_word(line) < MIN_RUN or not _LONG_RUN.search(line):
        return ""
    for kind, shape in SHAPES.items():
        if shape.search(line):
            return kind
    return "Token" if any(is_by_chance(found[1]) for found in _PREFIXED.finditer(line)) else ""


def find_cut_token(text: str) -> str:
    """The kind of the first token in a text that lost its gaps; empty: there is none.

    Words that run into each other have hardly a digit; a token's characters are by chance.
    """
    for kind, shape in _CUT.items():
        if any(_has_digits(found[1]) for found in shape.finditer(text)):
            return kind
    return ""


def longest_word(text: str) -> int:
    """Characters of the longest piece without white space."""
    return max(map(len, text.split()), default=0)


def is_by_chance(value: str) -> bool:
    """Whether letters of both cases and digits alternate as no word has them."""
    is_mixed = any(c.isupper() for c in value) and any(c.islower() for c in value)
    return is_mixed and _has_digits(value)


def _has_digits(value: str) -> bool:
    return sum(c.isdigit() for c in value) >= _MIN_DIGITS
