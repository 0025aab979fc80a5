"""Secrets with a label: a word beside them in a sentence, a setting, a header or a command names them. Pure.

A word for it ("the password", "пароль", ``DB_PASS``), little between, and a value that is none of the words with which
one explains, demands or leaves out a password. All patterns are for one line of bounded length.
"""

from __future__ import annotations

import re
from collections import Counter
from math import log2
from typing import Final

from .late_pattern import LatePattern
from .token_patterns import is_by_chance

MIN_CHARACTERS: Final = 8
"""A shorter secret cannot be distinguished from a word."""
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
"""Words that describe a password instead of being one: ``at_least_8_characters`` is none."""
_PIECES: Final = re.compile(r"[^\W_]+")
_MARK: Final = re.compile(r"[0-9!#$%&*^~?-]")
"""Without one of these a word of ASCII is no password."""
_SYMBOL: Final = re.compile(r"[A-Za-z0-9][!#$%&*^~?]+[A-Za-z0-9]")
_NUMBERED: Final = re.compile(r"[A-Z]{0,4}[a-z]*\d+[a-z]?")
"""A name with a number behind it, such as ``Ubuntu2204``, or a number with its unit."""
_CODE: Final = re.compile(
    r"[(\[{]|^[/~]|^\./|://|^\w+(?:\.[A-Za-z_]\w*)+$|^[-\w]+\.(?:txt|md|py|json|ya?ml|env|html?)$"
)
"""An expression, a path, an address or a file: where it is kept, not what it is."""

_NAMES: Final = (
    r"p[a@4][s5$]{2}(?:w[o0]r[dt]|phrase|wd|code|key)?s?|pswd|pwd|pw|login code|creds?|credentials?|shared[ _-]secret"
    r"|api[ _-]?key|(?:access|auth|account|shared|licen[cs]e|setup|network|wi-?fi|wlan|wpa2?|psk)[ _-]?key"
    r"|(?:encryption|signing)[ _-]?key|[ _-]?secret(?:[ _-](?:access[ _-])?key)?|psk|community string"
    r"|(?:auth|access|api|bearer|bot|refresh|totp|otp)[ _-]?(?:token|secret|seed)"
    r"|token|recovery key|master key|secret[ _-]key[ _-]base"
    r"|passwort|kennwort|zugangscode|schlüssel|mot de passe|mdp|code d['’]accès|(?:clé|code) wi-?fi|contraseña|clave"
    r"|senha|palavra[ -]passe|parola(?: d['’]ordine)?|wachtwoord|hasło|lösenord|løsenord|adgangskode"
    r"|รหัสผ่าน|पासवर्ड|parol|passord"
    r"|salasana|heslo|jelszó|şifre|parolă|lozinka|geslo|kata sandi|mật khẩu|κωδικός|סיסמה|كلمة (?:المرور|السر)"
    r"|пароль|пароля|пароли|ключ|секрет|гасло"
)
"""What a secret is called, in those languages that were looked up."""
_CJK: Final = r"密码|密碼|口令|暗证|パスワード|暗証番号|合言葉|비밀번호|암호|패스워드"
_IS: Final = (
    r"(?:\s{0,4}(?::=|=>|->|[:=—–→])|\s{1,4}(?:is(?: now| set to)?|was|are|to|reads|ist(?: jetzt)?|lautet|war|est|es|é"
    r"|è|era|jest|är|on|это|er|este|je|là|c['’]est|คือ|-)(?=\s)|\s{0,4}(?:是|为|為|は|가|는|은|이))"
)
_OPEN: Final = r"\s{0,4}[\"'`“„«「]{0,2}"
_VALUE: Final = r"([!#-&(-+\--:<-_a-~]{6,80})"
"""Printable ASCII without quotes, comma, semicolon: a line in another script gives only its password."""
_LABELLED: Final = LatePattern(
    rf"(?i)({_NAMES})(?:_\w{{1,20}}|\w{{0,2}}[\"'`]?)((?:\s[^\s:=.,;]{{1,15}}){{0,4}}?){_IS}{_OPEN}{_VALUE}"
)
_IN_NAMES: Final = """
    key secret token cred pwd pswd pw psk seed login community kennwort code mdp clave senha parol wachtwoord
    adgangskode zugangscode salasana heslo lozinka geslo kata""".split()  # noqa: SIM905 - words to read
_PASS: Final = re.compile(r"p[a@4][s5$]{2}")
"""In lower case, this or one of those words is in each name of ASCII."""
_LABELLED_CJK: Final = LatePattern(rf"(?:{_CJK})[^!-~]{{0,8}}[:=]?{_OPEN}{_VALUE}")
_NAME: Final = LatePattern(
    rf"(?i){_NAMES}|{_CJK}"
    r"|\b(?:log ?in|log(?:ged)? on|sign ?in|unlocks?|user(?:name)?|admin|root|wi-?fi|wlan|ssid|vpn)\b"
)
"""Beside one of these a word that looks like a password by itself is one."""
_SPAN_BEFORE: Final = 48
_SPAN_AFTER: Final = 80
_BESIDE: Final = re.compile(r"[!#-&*+\--:=?-Z^-z~]{8,80}")
_WEAK: Final = re.compile(r"(?i)^(?:pass|pw|cred|token|[ _-]?secret$|clave|schlüssel|ключ|секрет|parola|κωδικός)s?$")
"""Words that have another meaning: what stands behind them must look like a password."""
_PAIR: Final = LatePattern(
    rf"(?i)\b(?:credentials?|creds|login)(?: data)?(?: are| is|:)\s{{1,4}}[\w.@-]{{2,40}}\s?[:/]\s?{_VALUE}"
)
_IN_CODE: Final = LatePattern(
    r"(?i)<\w{0,16}(?:password|passwd|pwd|secret|token|apikey)\w{0,16}>\s{0,4}([^<\s]{6,80})<"
    r"|\bauth\s?=\s?\(\s?[\"'][^\"']{1,40}[\"'],\s?[\"']([^\"'\s]{6,80})[\"']"
    r"|[\"']\w{0,16}(?:password|passwd|secret|token|api_?key)\w{0,8}[\"'],\s?[\"']([^\"'\s]{6,80})[\"']"
    r"|\b(?:private|preshared)_?key\s?=\s?([A-Za-z0-9+/]{43}=)"
    r"|\bidentified (?:with \w{1,30} )?by\s{1,4}[\"']([^\"'\s]{6,80})[\"']"
    r"|\b(?:with|set) password\s{1,4}=?\s?[\"']([^\"'\s]{6,80})[\"']"
)
_QUOTED: Final = LatePattern(r"(?i)\b(?:pass(?:word|phrase))(?:\s?[:=]|\sis)\s?[\"“'`]([^\"”'`\n]{8,64})[\"”'`]")
_NETWORK: Final = LatePattern(r"(?i)\b(?:wi-?fi|wlan|network|ssid|router|hotspot|wpa)")
_NETWORK_WORDS: Final = ("wifi", "wi-fi", "wlan", "network", "ssid", "router", "hotspot", "wpa")
_KEY: Final = LatePattern(rf"(?i)\b(?:key|code|pass|psk|schlüssel|clé|clave)(?: is|:|=| ->)?\s{{1,4}}[\"'`“]?{_VALUE}")
_KEY_WORD: Final = re.compile(r"(?i)\b(?:key|code|pass\w*|psk|\w*schlüssel|clé|clave|senha|ключ)\b")
_WIFI_CODE: Final = re.compile(r"WIFI:[^\n]{0,80}?P:([^;]{6,64});")
_HEADER: Final = LatePattern(
    r"(?i)\bauthorization[\"']?\s{0,4}[:=]\s{0,4}[\"']?(?:basic|bearer|token|apikey|bot|digest)\s{1,4}(?:username=[^\n]{1,200}response=\"?)?([A-Za-z0-9+/=._~-]{12,400})"
)
_OWN_HEADER: Final = LatePattern(
    r"(?i)\bx-[a-z-]{0,20}(?:key|token|auth|secret)[\"']?\s{0,4}[:=]\s{0,4}[\"']?([\w.+/=-]{16,400})"
)
_COOKIE: Final = LatePattern(
    r"(?i)\b(?:sig|signature|x-amz-signature|[a-z._-]{0,16}sess(?:ion)?[._-]{0,2}(?:id|key|token)?|connect\.sid|sid|jsessionid|phpsessid|remember\w{0,10}"
    r"|auth\w{0,10}|[a-z_-]{0,10}csrf[a-z_-]{0,10})=[\"']?([\w.%+/=:~-]{16,400})"
)
_ADDRESS: Final = LatePattern(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s:/@\"']{0,64}:([^\s@/\"']{4,100})@")
_FLAG: Final = LatePattern(
    rf"(?i)(?:\s--?(?:password|passwd|passphrase|pass|pwd|token|api-?key|secret|auth-?key)[= ]{{1,2}}|\bsshpass\s+-p\s?"
    rf"|\bmysql\w{{0,6}}\s[^|;]{{0,80}}?\s-p|\blogin\s[^|;]{{0,80}}?\s-p\s{{1,4}}|\bnet user \S{{1,40}} "
    rf"|\bzip\s[^|;]{{0,40}}?-P\s?|\bredis-cli\s[^|;]{{0,40}}?-a\s|\bopenssl\s[^|;]{{0,40}}?(?:-k|-pass pass:)\s?"
    rf"|\bcurl\s[^|;]{{0,80}}?(?:-u|--user)[= ][\w.@-]{{1,40}}:)[\"']?{_VALUE}"
)
_OTP: Final = LatePattern(r"(?i)\botpauth://[^\s\"']{0,200}\bsecret=[a-z2-7]{8}")
_OTP_WORDS: Final = ("setup", "set-up", "authenticator", "otp", "2fa", "secret")
_OTP_GROUPS: Final = LatePattern(
    r"(?i)\b(?:set-?up|authenticator|totp|otp|2fa|secret)[ -](?:key|secret|seed|code)[^:=\n]{0,30}[:=]?\s{0,4}"
    r"((?:[a-z2-7]{4}[ -]){3,15}[a-z2-7]{4})\b"
)
_PLACES: Final = (
    r"(?:door|gate|safe|alarm|entry|entrance|access|unlock|locker|garage|lock|vault|keypad|lockbox|security|suitcase|bike"
    r"|house|building|flat|phone|laptop|tablet|card)s?"
)
_PIN: Final = LatePattern(
    rf"(?i)(?:\b{_PLACES}[ -](?:code|combination|pin)|\b(?:bank|sim|atm|debit|credit|voicemail)[ -]pin|\bpasscode"
    r"|geheimzahl|\bpuk|\bcode (?:pin|secret)|\b(?:code|combination|digits) (?:for|of|to) (?:the|my|our|your) "
    rf"(?:[\w-]{{1,12}} )?{_PLACES}\b"
    rf"|\b(?:code|combination) to (?:get in|open|enter|unlock)\w*|пин-?код|\bкод (?:от|для) \w+|暗証番号"
    rf"|{_CJK}|\b(?:código|codice|code) (?:de la|del|do|da|de|du|della) \w+"
    rf"|\b(?:\w+-)?pin(?: code| number)?(?=[^\d\n.;?!]{{0,30}}(?:[:=]|\b(?:is|ist|es|est|è|é|on|is:)\b))"
    rf"|\b(?:alarm|garage|gate|safe|door)\b[^\d\n.;?!]{{0,20}}\b(?:press|enter|type|disarmed with|opens with)\b"
    r"|\b\w*(?:passwor[dt]|kennwort|schlüssel|passphrase|senha|contraseña|пароль|mot de passe)\s?[:=](?=\s{0,2}\d{6}))"
    r"[^\d\n.;?!]{0,40}(\d{4,20})(?![\dA-Za-z%€$]|[.:/-]\d|\s?(?:digits?|characters|tries|times|stellen|rows|ms))"
)
_DIGITS: Final = re.compile(r"\d{4}")
_PIN_WORDS: Final = (
    *("code", "codice", "combination", "pin", "digits", "puk", "geheimzahl", "press", "enter", "type", "disarmed"),
    *("opens", "passwor", "kennwort", "passphrase", "senha", "mot de passe"),
)
"""One is in each of them that is ASCII, in lower case."""
_COMMON_PINS: Final = frozenset({"0000", "1111", "1234", "12345", "123456", "12345678", "1212", "4321"})
_RECOVERY: Final = LatePattern(
    r"(?i)(?:(?:recovery|backup|rescue|scratch|emergency|restore|one-time|2fa)[ -](?:code|key|backup)"
    r"|wiederherstellungs|codes? de secours|códigos? de (?:recuperación|respaldo)|резервные коды)"
)
_RECOVERY_WORDS: Final = ("code", "código", "key", "backup", "wiederherstellungs", "резервные")
"""One is in each of them."""
_CODES: Final = LatePattern(r"(?i)\b(?:[a-z0-9]{4,8}(?:-[a-z0-9]{4,8}){1,7}|\d{4} ?\d{4}|[a-z0-9]{6,12})\b")
_RECOVERY_SPAN: Final = 500
MIN_CODES: Final = 3
_LONG_KEY: Final = re.compile(r"\b(?:\d{6}-){5,7}\d{6}\b")


def may_hold_name(line: str) -> bool:
    """Whether a name of a secret may be in a line. Only the patterns know, and take fifty times as long."""
    low = line.lower()
    return not line.isascii() or any(word in low for word in _IN_NAMES) or _PASS.search(low) is not None


def lowered(text: str) -> str:
    """In lower case, as a pattern compares that does not distinguish it."""
    low = text.lower()
    return low if low.isascii() else low.replace("i\u0307", "i").replace("\u0131", "i").replace("\u017f", "s")


def find_labelled(line: str) -> str:
    """The kind of the first labelled secret in a line; empty: there is none."""
    has_word = may_hold_password(line)
    if has_word and _is_labelled_password(line):
        return "Password or Key in Words"
    low = lowered(line)
    if "pass" in low and any(_is_phrase(found[1]) for found in _QUOTED.compiled.finditer(line)):
        return "Passphrase"
    if any(word in low for word in _NETWORK_WORDS) and _is_network_key(line):
        return "Network Key"
    return _find_in_protocol(line, low, has_word=has_word) or _find_pin(line)


def may_hold_password(line: str) -> bool:
    """Whether a word in it has what ``_is_password`` and ``_is_strong`` ask for. The patterns take a hundred times as
    long.
    """
    long = " ".join([word for word in line.split() if len(word) >= MIN_CHARACTERS])
    return not long.isascii() or _MARK.search(long) is not None


def _is_labelled_password(line: str) -> bool:
    for found in _LABELLED.compiled.finditer(line) if may_hold_name(line) else ():
        is_weak = bool(found[2] and _WEAK.search(found[1]))
        if _is_strong(found[3]) or (not is_weak and _is_password(found[3])):
            return True
    if any(_is_password(found[1]) for way in (_LABELLED_CJK, _PAIR) for found in way.compiled.finditer(line)):
        return True
    if any(_is_password(found[found.lastindex or 0]) for found in _IN_CODE.compiled.finditer(line)):
        return True
    return _stands_beside(line)


def _stands_beside(line: str) -> bool:
    """Whether a word that looks like a password by itself stands near a name for one, or near who logs in with it."""
    words = (found for found in _BESIDE.finditer(line) if _has_digit(found[0]))
    strong = [found.start() for found in words if _is_strong(re.split("[=:/]", found[0])[-1])]
    if not strong:
        return False
    names = [(found.start(), found.end()) for found in _NAME.compiled.finditer(line)]
    return any(
        -_SPAN_BEFORE <= place - start <= 0 or 0 <= place - end <= _SPAN_AFTER
        for place in strong
        for start, end in names
    )


def find_recovery_codes(text: str) -> bool:
    """Whether some codes stand behind a word for recovery codes, in a text of several lines."""
    low = lowered(text)
    if not any(word in low for word in _RECOVERY_WORDS):
        return False
    place = 0
    while called := _RECOVERY.compiled.search(text, place):
        near = text[called.start() : called.start() + _RECOVERY_SPAN]
        place = called.start() + _RECOVERY_SPAN // 2
        codes = [
            each
            for each in _CODES.compiled.findall(near)
            if sum(c.isdigit() for c in each) >= 2 and not PLACEHOLDER.search(each)
        ]
        if len(codes) >= MIN_CODES or _LONG_KEY.search(near):
            return True
    return False


def _is_network_key(line: str) -> bool:
    if found := _WIFI_CODE.search(line):
        return not PLACEHOLDER.search(found[1])
    if not _NETWORK.compiled.search(line) or not _KEY_WORD.search(line):
        return False
    return any(_is_password(found[1]) for found in _KEY.compiled.finditer(line)) or any(
        _is_mixed(piece) for piece in _PIECES.findall(line)
    )


def _is_mixed(piece: str) -> bool:
    """Whether upper and lower letters and digits stand in no order that a name has."""
    kinds = {"A" if c.isupper() else "a" if c.islower() else "1" for c in piece}
    return len(piece) >= MIN_CHARACTERS and len(kinds) == 3 and not _NUMBERED.fullmatch(piece)


def _find_in_protocol(line: str, low: str, *, has_word: bool) -> str:
    """What programs send to each other: headers, cookies, addresses, commands.

    Args:
        line: the line.
        low: the same in lower case.
        has_word: see ``may_hold_password``.
    """
    is_command = "-" in line or "net user" in low
    for kind, way, is_asked, is_it in (
        ("Authorization Header", _HEADER, "authorization" in low, lambda value: not PLACEHOLDER.search(value)),
        ("Authorization Header", _OWN_HEADER, "x-" in low, _has_entropy),
        ("Session Cookie", _COOKIE, "=" in line, _has_entropy),
        ("Password in an Address", _ADDRESS, "://" in line, _is_no_placeholder),
        ("Password in a Command", _FLAG, has_word and is_command, _is_password),
    ):
        if is_asked and any(is_it(found[1]) for found in way.compiled.finditer(line)):
            return kind
    if "otpauth" in low and _OTP.compiled.search(line):
        return "One-Time Password Seed"
    groups = _OTP_GROUPS.compiled.finditer(line) if any(word in low for word in _OTP_WORDS) else ()
    if any(_has_digit(found[1]) for found in groups):
        return "One-Time Password Seed"
    return ""


def _is_no_placeholder(value: str) -> bool:
    return not PLACEHOLDER.search(value) and "{" not in value


def _has_digit(value: str) -> bool:
    return any(c.isdigit() for c in value)


def _find_pin(line: str) -> str:
    low = line.lower()
    if (line.isascii() and not any(word in low for word in _PIN_WORDS)) or not _DIGITS.search(line):
        return ""
    is_labelled = any(found[1] not in _COMMON_PINS for found in _PIN.compiled.finditer(line))
    return "PIN in Words" if is_labelled else ""


def _is_password(value: str) -> bool:
    """Whether a labelled value may be the password itself, rather than a word about it."""
    value = value.rstrip(".!?)*:")
    if len(value) < MIN_CHARACTERS or PLACEHOLDER.search(value) or not is_secret_value(value):
        return False
    has_letter, has_digit = any(c.isalpha() for c in value), any(c.isdigit() for c in value)
    if has_letter and has_digit:
        return True
    words = [piece for piece in _PIECES.findall(value) if len(piece) >= 4]
    is_cased = value != value.lower() and not value.istitle() and not value.isupper()
    return (has_letter and is_cased and bool(_SYMBOL.search(value))) or (len(words) >= 3 and "-" in value)


def _is_strong(value: str) -> bool:
    """Whether a word looks like a password by itself: digits, letters and a symbol in it, or a run by chance."""
    value = value.rstrip(".!?)*:")
    if len(value) < MIN_CHARACTERS or not _has_digit(value) or "@" in value[1:-1]:
        return False
    if PLACEHOLDER.search(value) or not is_secret_value(value):
        return False
    if any(c.isalpha() for c in value) and _SYMBOL.search(value):
        return True
    pieces = [piece for piece in _PIECES.findall(value) if not _NUMBERED.fullmatch(piece)]
    if any(len(piece) >= MIN_CHARACTERS and is_by_chance(piece) for piece in pieces):
        return True
    is_joined = "_" in value and is_by_chance(value)
    return is_joined and any(any(c.isdigit() for c in piece) and any(c.isalpha() for c in piece) for piece in pieces)


def _is_phrase(value: str) -> bool:
    pieces = [piece.lower() for piece in _PIECES.findall(value)]
    if PLACEHOLDER.search(value) or _EXPLAINS.intersection(pieces) or _CODE.search(value):
        return False
    return len(pieces) >= 2 and any(piece.isdigit() for piece in pieces)


def is_secret_value(value: str) -> bool:
    """Whether what a detector took for a secret is none of the words that stand in for one."""
    pieces = {piece.lower() for piece in _PIECES.findall(value)}
    return not _CODE.search(value) and not _EXPLAINS.intersection(pieces)


def _has_entropy(value: str) -> bool:
    """Whether the characters of a value come by chance, as those of a session's number do."""
    if PLACEHOLDER.search(value) or not any(c.isdigit() for c in value) or not any(c.isalpha() for c in value):
        return False
    counts, length = Counter(value), len(value)
    return -sum(n / length * log2(n / length) for n in counts.values()) >= MIN_CHANCE_BITS
