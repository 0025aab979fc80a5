"""Secrets that a sentence, a setting, a header or a command tells: known by the words beside them. Pure.

A word for it ("the password", "пароль", ``DB_PASS``), little between, and a value that is none of the words with which
one explains, demands or leaves out a password. All patterns are for one line of bounded length.
"""

from __future__ import annotations

import re
from collections import Counter
from math import log2
from typing import Final

MIN_CHARACTERS: Final = 8
"""Nothing shorter is a secret that could be told from a word."""
MIN_CHANCE_BITS: Final = 2.8
"""Entropy of the characters of a session's number or a key; words of that length have less, or no digit."""
PLACEHOLDER: Final = re.compile(
    r"(?i)your|example|sample|placeholder|change.?me|dummy|fake|redacted|insert|secret_?key$|^test|x{4}|\*{3}|[<>]"
    r"|\.\.\.|…|^(?:my|the|a|some|db|user|admin|root|new|old)?[_-]?(?:pass(?:word|wd|phrase)?|pwd|secret|token|key"
    r"|none|null|true|false|string|str|value|auto|hunter2|12345\w*|qwerty\w*)\d?$|^[$%]\{?\w+\}?%?$"
)
_EXPLAINS: Final = frozenset(
    """at least most min max minimum maximum length long short char chars character characters digit digits letter
    letters word words must should may not no with without and or of for to in is the that when per day days hour hours
    minute minutes sec seconds rule rules policy hash hashed required optional cost rounds bit bits better strong weak
    only any all mindestens zeichen caracteres caractères символов""".split()  # noqa: SIM905 - words to read
)
"""Words with which one says what a password is like: ``at_least_8_characters`` is none."""
_PIECES: Final = re.compile(r"[^\W_]+")
_CODE: Final = re.compile(
    r"[(\[{]|^[/~]|^\./|://|^\w+(?:\.[A-Za-z_]\w*)+$|^[-\w]+\.(?:txt|md|py|json|ya?ml|env|html?)$"
)
"""An expression, a path, an address or a file: where it is kept, not what it is."""

_WORDS: Final = (
    r"pass(?:word|phrase|wd|code|key)?s?|pwd|pw|login code|creds?|credentials?"
    r"|api[ _-]?key|(?:access|auth|account|shared|licen[cs]e|setup|network|wi-?fi|wlan|wpa2?|psk)[ _-]?key"
    r"|(?:encryption|signing)[ _-]?key|[ _-]?secret(?:[ _-](?:access[ _-])?key)?"
    r"|(?:auth|access|api|bearer|bot|refresh|totp|otp)[ _-]?(?:token|secret|seed)"
    r"|token|recovery key|master key|secret[ _-]key[ _-]base"
    r"|passwort|kennwort|zugangscode|schlüssel|mot de passe|mdp|code d['’]accès|clé wi-?fi|contraseña|clave|senha"
    r"|palavra[ -]passe|parola(?: d['’]ordine)?|wachtwoord|hasło|lösenord|løsenord|adgangskode"
    r"|passord|salasana|heslo|jelszó|şifre|parolă|lozinka|geslo|kata sandi|mật khẩu|κωδικός|סיסמה|كلمة (?:المرور|السر)"
    r"|пароль|пароля|пароли|ключ|секрет|гасло"
)
_CJK: Final = r"密码|密碼|口令|暗证|パスワード|暗証番号|合言葉|비밀번호|암호|패스워드"
_IS: Final = (
    r"(?:\s{0,4}(?::=|=>|[:=—–→])|\s{1,4}(?:is(?: now| set to)?|was|are|to|reads|ist(?: jetzt)?|lautet|war|est|es|é|è"
    r"|era|jest|är|on|это|er|este|je|-)(?=\s)|\s{0,4}(?:是|为|為|は|가|는|은|이))"
)
_OPEN: Final = r"\s{0,4}[\"'`“„«「]{0,2}"
_VALUE: Final = r"([!#-&(-+\--:<-_a-~]{6,80})"
"""Printable ASCII without quotes, comma, semicolon: a line in another script gives only its password."""
_TOLD: Final = re.compile(
    rf"(?i)(?:{_WORDS})(?:_\w{{1,20}}|\w{{0,2}}[\"'`]?)(?:\s[^\s:=.,;]{{1,15}}){{0,4}}?{_IS}{_OPEN}{_VALUE}"
)
_TOLD_CJK: Final = re.compile(rf"(?:{_CJK})[^!-~]{{0,8}}[:=]?{_OPEN}{_VALUE}")
_BESIDE: Final = re.compile(rf"(?i)\b(?:password|passwd|pwd|passphrase|pw)\s{{1,4}}[\"'`“]?{_VALUE}")
_AS: Final = re.compile(rf"(?i)\bwith\s{{1,4}}[\"'`“]?{_VALUE}[\"'`”]?\s{{1,4}}as\s(?:the |your |my )?(?:pass|pw)")
_PAIR: Final = re.compile(
    rf"(?i)\b(?:credentials?|creds|login)(?: data)?(?: are| is|:)\s{{1,4}}[\w.@-]{{2,40}}\s?[:/]\s?{_VALUE}"
)
_PAIR_BEFORE: Final = re.compile(
    rf"(?i)\b[\w.@-]{{2,40}}\s?/\s?{_VALUE}\s(?:are|is|as)\b[^.]{{0,20}}\b(?:credentials|creds|login)"
)
_QUOTED: Final = re.compile(r"(?i)\b(?:pass(?:word|phrase))(?:\s?[:=]|\sis)\s?[\"“'`]([^\"”'`\n]{8,64})[\"”'`]")
_NETWORK: Final = re.compile(r"(?i)\b(?:wi-?fi|wlan|network|ssid|router|hotspot|wpa)")
_KEY: Final = re.compile(rf"(?i)\b(?:key|code|pass)(?: is|:)?\s{{1,4}}[\"'`“]?{_VALUE}")
_WIFI_CODE: Final = re.compile(r"WIFI:[^\n]{0,80}?P:([^;]{6,64});")
_HEADER: Final = re.compile(
    r"(?i)\bauthorization[\"']?\s{0,4}[:=]\s{0,4}[\"']?(?:basic|bearer|token|apikey|bot)\s{1,4}([A-Za-z0-9+/=._~-]{12,400})"
)
_OWN_HEADER: Final = re.compile(
    r"(?i)\bx-[a-z-]{0,20}(?:key|token|auth|secret)[\"']?\s{0,4}[:=]\s{0,4}[\"']?([\w.+/=-]{16,400})"
)
_COOKIE: Final = re.compile(
    r"(?i)\b(?:[a-z._-]{0,16}sess(?:ion)?[._-]{0,2}(?:id|key|token)?|connect\.sid|sid|jsessionid|phpsessid|remember\w{0,10}"
    r"|auth\w{0,10}|[a-z_-]{0,10}csrf[a-z_-]{0,10})=[\"']?([\w.%+/=:~-]{16,400})"
)
_ADDRESS: Final = re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s:/@\"']{0,64}:([^\s@/\"']{4,100})@")
_FLAG: Final = re.compile(
    rf"(?i)(?:\s--?(?:password|passwd|passphrase|pass|pwd|token|api-?key|secret|auth-?key)[= ]{{1,2}}|\bsshpass\s+-p\s?"
    rf"|\bmysql\w{{0,6}}\s[^|;]{{0,80}}?\s-p|\bcurl\s[^|;]{{0,80}}?(?:-u|--user)[= ][\w.@-]{{1,40}}:)[\"']?{_VALUE}"
)
_OTP: Final = re.compile(r"(?i)\botpauth://[^\s\"']{0,200}\bsecret=[a-z2-7]{8}")
_OTP_GROUPS: Final = re.compile(
    r"(?i)\b(?:set-?up|authenticator|totp|otp|2fa|secret)[ -](?:key|secret|seed|code)[^:=\n]{0,30}[:=]?\s{0,4}"
    r"((?:[a-z2-7]{4}[ -]){3,15}[a-z2-7]{4})\b"
)
_PIN: Final = re.compile(
    r"(?i)(?:\bpin|\bpuk|geheimzahl|\bcode (?:pin|secret)|пин-?код|暗証番号"
    r"|\b(?:door|gate|safe|alarm|entry|access|unlock|locker|garage|lock|vault|keypad|lockbox|security)s? "
    r"(?:code|combination)|\b(?:code|combination) (?:for|of|to) (?:the|my|our|your) (?:[\w-]{1,12} )?"
    r"(?:safe|door|gate|alarm|locker|garage|lock|vault|lockbox|card))"
    r"[^\d\n.;?!]{1,40}(\d{4,8})\b(?![.:/-]\d|\s?(?:digits?|characters|tries|times|stellen))"
)
_COMMON_PINS: Final = frozenset({"0000", "1111", "1234", "12345", "123456", "12345678", "1212", "4321"})
_RECOVERY: Final = re.compile(
    r"(?i)(?:(?:recovery|backup|rescue|scratch|emergency|restore|one-time)[ -](?:code|key)|wiederherstellungs"
    r"|codes? de secours|códigos? de (?:recuperación|respaldo)|резервные коды)"
)
_CODES: Final = re.compile(r"(?i)\b(?:[a-z0-9]{4,8}(?:-[a-z0-9]{4,8}){1,7}|\d{4} ?\d{4}|[a-z0-9]{8,12})\b")
_RECOVERY_REACH: Final = 500
MIN_CODES: Final = 3
_LONG_KEY: Final = re.compile(r"\b(?:\d{6}-){5,7}\d{6}\b")


def find_told(line: str) -> str:
    """The kind of the first secret that a line tells; empty: it tells none."""
    if any(
        _is_password(found[1]) for way in (_TOLD, _TOLD_CJK, _AS, _PAIR, _PAIR_BEFORE) for found in way.finditer(line)
    ):
        return "Password or Key in Words"
    if any(_is_password(found[1], is_beside=True) for found in _BESIDE.finditer(line)):
        return "Password or Key in Words"
    if any(_is_phrase(found[1]) for found in _QUOTED.finditer(line)):
        return "Passphrase"
    if _tells_network_key(line):
        return "Network Key"
    return _find_in_protocol(line) or _find_pin(line)


def find_recovery_codes(text: str) -> bool:
    """Whether some codes stand behind a word for recovery codes, in a text of several lines."""
    place = 0
    while called := _RECOVERY.search(text, place):
        near = text[called.start() : called.start() + _RECOVERY_REACH]
        place = called.start() + _RECOVERY_REACH // 2
        codes = [
            each
            for each in _CODES.findall(near)
            if sum(c.isdigit() for c in each) >= 2 and not PLACEHOLDER.search(each)
        ]
        if len(codes) >= MIN_CODES or _LONG_KEY.search(near):
            return True
    return False


def _tells_network_key(line: str) -> bool:
    if found := _WIFI_CODE.search(line):
        return not PLACEHOLDER.search(found[1])
    return bool(_NETWORK.search(line)) and any(_is_password(found[1]) for found in _KEY.finditer(line))


def _find_in_protocol(line: str) -> str:
    """What programs say to each other: headers, cookies, addresses, commands."""
    for kind, way, is_it in (
        ("Authorization Header", _HEADER, lambda value: not PLACEHOLDER.search(value)),
        ("Authorization Header", _OWN_HEADER, _is_by_chance),
        ("Session Cookie", _COOKIE, _is_by_chance),
        ("Password in an Address", _ADDRESS, lambda value: not PLACEHOLDER.search(value) and "{" not in value),
        ("Password in a Command", _FLAG, _is_password),
    ):
        if any(is_it(found[1]) for found in way.finditer(line)):
            return kind
    if _OTP.search(line) or any(any(c.isdigit() for c in found[1]) for found in _OTP_GROUPS.finditer(line)):
        return "One-Time Password Seed"
    return ""


def _find_pin(line: str) -> str:
    is_told = any(found[1] not in _COMMON_PINS for found in _PIN.finditer(line))
    return "PIN in Words" if is_told else ""


def _is_password(value: str, *, is_beside: bool = False) -> bool:
    """Whether a value beside a word for it may be the password itself, rather than a word about it.

    Args:
        value: what stands there.
        is_beside: nothing says that it *is* the password; then it must look more like one.
    """
    value = value.rstrip(".!?)*:")
    if len(value) < MIN_CHARACTERS or PLACEHOLDER.search(value) or _CODE.search(value):
        return False
    pieces = [piece.lower() for piece in _PIECES.findall(value)]
    if _EXPLAINS.intersection(pieces):
        return False
    has_letter, has_digit = any(c.isalpha() for c in value), any(c.isdigit() for c in value)
    has_symbol = any(c in "!#$%&*+@^~?_" for c in value)
    is_cased = value != value.lower() and not value.istitle() and not value.isupper()
    if is_beside:
        return has_letter and has_digit and (has_symbol or is_cased)
    if has_letter and has_digit:
        return True
    words = [piece for piece in pieces if len(piece) >= 4]
    return (has_letter and has_symbol and is_cased and "_" not in value) or (len(words) >= 3 and "-" in value)


def _is_phrase(value: str) -> bool:
    pieces = [piece.lower() for piece in _PIECES.findall(value)]
    if PLACEHOLDER.search(value) or _EXPLAINS.intersection(pieces) or _CODE.search(value):
        return False
    return len(pieces) >= 2 and any(piece.isdigit() for piece in pieces)


def is_secret_value(value: str) -> bool:
    """Whether what a detector took for a secret is none of the words that stand in for one."""
    pieces = {piece.lower() for piece in _PIECES.findall(value)}
    return not _CODE.search(value) and not _EXPLAINS.intersection(pieces)


def _is_by_chance(value: str) -> bool:
    """Whether the characters of a value come by chance, as those of a session's number do."""
    if PLACEHOLDER.search(value) or not any(c.isdigit() for c in value) or not any(c.isalpha() for c in value):
        return False
    counts, length = Counter(value), len(value)
    return -sum(n / length * log2(n / length) for n in counts.values()) >= MIN_CHANCE_BITS
