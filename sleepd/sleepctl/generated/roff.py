"""Manual pages as text for man(7): escaped, so that no word of a help text is taken for a request."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterable, Mapping
from itertools import groupby

from sleepd.sleepctl.exit_codes import ExitCode

from .grammar import arguments


def escaped(text: str) -> str:
    """Plain text: a backslash, a hyphen (so that it can be copied) and a leading dot or quote stand for themselves."""
    text = (
        text.replace("\\", "\\e").replace("-", "\\-").replace("`", "\\(ga").replace("~", "\\(ti").replace("^", "\\(ha")
    )
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in text.splitlines())


def _argument(text: str) -> str:
    """Text on the line of a request, where quotes would be taken away."""
    return escaped(text).replace('"', "\\(dq")


def page(*parts: str) -> str:
    """The whole page; what a heading does by itself is not asked for again."""
    return re.sub(r"^(\.S[HS] .*\n)\.PP\n", r"\1", "".join(parts), flags=re.MULTILINE)


def _filled(text: str) -> str:
    """Lines short enough for whoever reads the source; the reader's terminal fills them anew."""
    return escaped("\n".join(textwrap.wrap(text, 70, break_on_hyphens=False)))


def heading(name: str, section: int, *, version: str, summary: str) -> str:
    """The page's first lines. No date: the same source gives the same page."""
    title = f'.TH "{escaped(name.upper())}" "{section}" "" "sage\\-sleepd {escaped(version)}" "sage\\-sleepd"'
    return f"{title}\n.SH NAME\n{escaped(name)} \\- {escaped(summary)}\n"


def section(title: str, *parts: str) -> str:
    """A section with its content, which is roff already."""
    return f".SH {title.upper()}\n" + "".join(parts)


def paragraph(text: str) -> str:
    """A paragraph of plain text; lines are joined."""
    return f".PP\n{_filled(text)}\n"


def notes(text: str) -> str:
    """Paragraphs of plain text; lines that are indented stand as they are."""
    blocks = groupby(text.splitlines(), key=lambda line: line.startswith(" "))
    return "".join((literal if is_literal else paragraph)("\n".join(lines)) for is_literal, lines in blocks)


def literal(text: str) -> str:
    """Lines as they stand."""
    return f".PP\n.nf\n.RS 4\n{escaped(text)}\n.RE\n.fi\n"


def entry(term: str, text: str) -> str:
    """A term in bold, and below it what it means."""
    return f".TP\n.B {_argument(term)}\n{_filled(text)}\n"


def entries(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of them."""
    return "".join(entry(term, text) for term, text in pairs)


def options(parser: argparse.ArgumentParser, *, without: argparse.ArgumentParser | None = None) -> str:
    """Every option and positional of a parser with its help, save those that ``without`` has in the same words."""
    known = {(_written(action), action.help) for action in arguments(without)} if without else set()
    chosen = [action for action in arguments(parser) if (_written(action), action.help) not in known]
    return entries((_written(action), (action.help or "").replace("%%", "%")) for action in chosen)


def synopsis(parser: argparse.ArgumentParser) -> str:
    """The usage line of a parser, without its first word."""
    usage = " ".join(parser.format_usage().split()).removeprefix("usage: ")
    return f".PP\n.B {_argument(usage)}\n"


def exit_status(meanings: Mapping[int, str] | Mapping[ExitCode, str]) -> str:
    """The table of exit codes."""
    return section("exit status", entries((str(int(code)), meaning) for code, meaning in meanings.items()))


def _written(action: argparse.Action) -> str:
    value = str(action.metavar or "|".join(map(str, action.choices or [])) or action.dest.upper())
    if not action.option_strings:
        return f"[{value}]" if action.nargs == "?" else value
    names = ", ".join(action.option_strings)
    return names if action.nargs == 0 else f"{names} [{value}]" if action.nargs == "?" else f"{names} {value}"
