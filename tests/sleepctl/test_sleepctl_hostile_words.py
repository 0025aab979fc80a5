"""What hostile text can make an owner's shell do: by what completions offer, and by what is to be pasted."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sleepd.config.buffer_config import BufferConfig
from sleepd.config.render import render
from sleepd.config.schema import Config
from sleepd.sleepctl.generated.completion_scripts import FUNCTIONS, scripts
from sleepd.sleepctl.parser.arguments import build_parser
from sleepd.sleepctl.parser.quarantine_arguments import ACTIONS
from sleepd.text.display import clean
from sleepd.text.shell import command_line, quoted
from tests.processes import LIMIT_SECONDS
from tests.sleepctl.sleepctl_ran import Ran

SCRIPTS = scripts()
SOURCE = Path(__file__).parents[2] / "sleepd"
HOSTILE = (
    "$(touch ran)",
    "`touch ran`",
    "a;touch ran",
    "a\ttouch ran",
    "-rf",
    "a b",
    "'; touch ran '",
    "~",
    "*",
    "${x}",
)
HOSTILE_LINES = "".join(f"{word}\tpromoted 2026-07-05\n8\tpromoted {word}\n" for word in HOSTILE)
SHOWN_AS_NOTHING = "\x1b\x07\x9b\x85\u202e\u2066\u200b\u200d\u2028\ufeff\u3164\u115f\U000e0041\U000e0100\u034f"
WORDS = (*HOSTILE, "", "é", "a\nb", "a'b\\\x1b]0;x\x07", "x\u202eb1", "\U000e0041f", "\x9b9", "--", "e1")


@pytest.fixture
def trap(tmp_path: Path) -> dict[str, str]:
    """An environment whose ``sleepctl`` answers everything with hostile lines and two good ones."""
    (tmp_path / "lines").write_text(f"{HOSTILE_LINES}9\trejected 2026-07-06\ne1\tloop\n")
    program = tmp_path / "sleepctl"
    program.write_text(f"#!/bin/sh\ncat '{tmp_path}/lines'\n")
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}


@pytest.mark.parametrize(
    ("words", "offered"), [(("show", ""), {"8", "9"}), (("quarantine", "show", ""), {"8", "9", "e1"})]
)
def test_bash_offers_no_shell_text(
    tmp_path: Path, trap: dict[str, str], words: tuple[str, ...], offered: set[str]
) -> None:
    """Whatever answers, bash runs nothing of it and offers plain numbers and ids alone."""
    program = f'{SCRIPTS["bash"]}\nCOMP_WORDS=(sleepctl "$@"); COMP_CWORD=$#; _shtab_sleepctl\n'
    program += 'printf "%s\\n" "${COMPREPLY[@]}"'
    command = ["bash", "--norc", "-c", program, "bash", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=trap, cwd=tmp_path, timeout=LIMIT_SECONDS)
    assert (set(done.stdout.split()), done.stderr) == (offered, "")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("word", ["$(touch ran)", "a[$(touch ran)]", "--x[$(touch ran)]", "`touch ran`"])
@pytest.mark.parametrize("before", [(), ("config", "check"), ("show",), ("run", "--strategy"), ("quarantine", "drop")])
@pytest.mark.parametrize("after", [(), ("",)])
def test_bash_expands_nothing_typed(
    tmp_path: Path, trap: dict[str, str], before: tuple[str, ...], word: str, after: tuple[str, ...]
) -> None:
    """A word that holds a substitution, under the cursor or before it, is not run by the key."""
    program = f'{SCRIPTS["bash"]}\nCOMP_WORDS=(sleepctl "$@"); COMP_CWORD=$#; _shtab_sleepctl'
    command = ["bash", "--norc", "-c", program, "bash", *before, word, *after]
    subprocess.run(command, capture_output=True, env=trap, cwd=tmp_path, timeout=LIMIT_SECONDS)
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
def test_fish_offers_no_shell_text(tmp_path: Path, trap: dict[str, str]) -> None:
    """As bash."""
    (tmp_path / "script").write_text(SCRIPTS["fish"])
    command = ["fish", "--no-config", "-c", f"source {tmp_path}/script; complete -C 'sleepctl quarantine show '"]
    done = subprocess.run(command, capture_output=True, text=True, env=trap, cwd=tmp_path, timeout=LIMIT_SECONDS)
    offered = {line.split("\t")[0] for line in done.stdout.splitlines()}
    assert offered - set(ACTIONS) == {"8", "9", "e1"}
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed")
@pytest.mark.parametrize(("function", "offered"), [("cycles", {"8", "9"}), ("quarantine", {"8", "9", "e1"})])
def test_zsh_offers_no_shell_text(tmp_path: Path, trap: dict[str, str], function: str, offered: set[str]) -> None:
    """As bash; ``_describe`` is replaced by one that prints what it is given."""
    assert FUNCTIONS["zsh"] in SCRIPTS["zsh"]
    program = f'_describe() {{ print -rl -- "${{(@P)${{@[-1]}}}}" }}\n{FUNCTIONS["zsh"]}\n_sleepctl_{function}'
    done = subprocess.run(
        ["zsh", "-f", "-c", program], capture_output=True, text=True, env=trap, cwd=tmp_path, timeout=LIMIT_SECONDS
    )
    assert ({line.split(":")[0] for line in done.stdout.splitlines()}, done.stderr) == (offered, "")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("word", WORDS, ids=ascii)
def test_pasted_word_stays_one(tmp_path: Path, word: str) -> None:
    """A shell reads a shown command back as the words it was made of, and a terminal shows all of it."""
    shown = command_line("sleepctl", "show", operands=(word,))
    assert clean(shown) == shown
    program = f'sleepctl() {{ printf "%s\\0" "$@"; }}; {shown}'
    done = subprocess.run(["bash", "-c", program], capture_output=True, cwd=tmp_path, timeout=LIMIT_SECONDS)
    expected = ["show", *(["--"] if word.startswith("-") else []), word]
    assert (done.stdout.decode().split("\0")[:-1], done.stderr) == (expected, b"")
    assert not (tmp_path / "ran").exists()


def test_undecodable_path_is_pasted() -> None:
    """A path that is no UTF-8 reaches the shell as the bytes that it is made of."""
    path = os.fsdecode(b"/x/\xff a")
    done = subprocess.run(["bash", "-c", f"printf %s {quoted(path)}"], capture_output=True)
    assert done.stdout == b"/x/\xff a"


@pytest.mark.parametrize(
    "arguments",
    [
        ("quarantine", "drop", "--", "-x", "--json"),
        ("quarantine", "show", "--", "-x"),
        ("tag", "3", "--", "-word"),
        ("metric", "add", "3", "--", "-x", "-1e-05"),
        ("metric", "remove", "3", "--", "-x"),
        ("setup-buffer", "--", "-x"),
    ],
)
def test_operands_may_look_like_options(arguments: tuple[str, ...]) -> None:
    """What stands behind ``--`` is an id, a tag, a name or a path, whatever it begins with."""
    parsed = vars(build_parser().parse_args(arguments))
    behind = list(arguments[arguments.index("--") + 1 :])
    values = {str(each) for value in parsed.values() for each in (value if isinstance(value, list) else [value])}
    assert set(behind) <= values


@pytest.mark.parametrize("character", SHOWN_AS_NOTHING, ids=ascii)
def test_terminal_gets_nothing_unseen(sleepctl: Callable[..., Ran], tmp_path: Path, character: str) -> None:
    """No control, format or blank character of a text or a path reaches a terminal."""
    text = f"a{character}b"
    assert character not in clean(text)
    assert clean(text).isprintable()
    missing = str(tmp_path / text)
    ran = sleepctl("config", "check", "--config", missing)
    assert character not in ran.out + ran.err
    config = Config(buffer=BufferConfig(path=f"/x/{text}"))
    assert character not in render(config, title=missing, origins={"buffer.path": missing})


_COMMANDS = re.compile(
    r"(?:^|[;:(`]\s*|\bor )(?:sudo )?(?:sleepctl|sudo|df|mv|rm|mkdir|chmod|chown|tail|setfacl|usermod|groupadd|cat|"
    r"kill|systemctl|sudoedit|\./install\.sh)\b(?!:)[^;,]*$"
)
_NUMBERS = {"previous_champion(cycle, champions)", "summary.parent"}
_NUMBERS |= {*("cycle", "pid", "stage.pid", "was", "VERSION", "PROTOCOL_VERSION"), *("unit", "manager", "self.prog")}


def _interpolated_commands(path: Path) -> list[str]:
    """Pieces of f-strings that stand in a command and are not quoted."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.JoinedStr):
            continue
        before = ""
        for part in node.values:
            if isinstance(part, ast.Constant):
                before += str(part.value)
                continue
            assert isinstance(part, ast.FormattedValue)
            source = ast.unparse(part.value)
            is_safe = source.startswith(("quoted(", "command_line(", "int(")) or source.split(" or ")[0] in _NUMBERS
            if _COMMANDS.search(before) and not is_safe:
                found.append(f"{path.name}:{node.lineno}: {source}")
            before += "X"
    return found


def test_shown_commands_quote_words() -> None:
    """No f-string of the package puts a value into a command line unless it is quoted or a number."""
    paths = [path for path in SOURCE.rglob("*.py") if path.name not in ("completion_scripts.py", "roff.py")]
    assert [line for path in paths for line in _interpolated_commands(path)] == []


@pytest.mark.parametrize("kind", ["pipe", "link"])
@pytest.mark.parametrize("command", ["status", "history", "completions"])
def test_offline_reading_follows_nothing(
    sleepctl: Callable[..., Ran], environment: Path, tmp_path: Path, command: str, kind: str
) -> None:
    """A pipe or a link that the service's user left for root's sleepctl is neither waited for nor read."""
    state = tmp_path / "state"
    state.mkdir()
    (tmp_path / "shadow").write_text('{"schema": 1, "cycles": [], "written_at": "2026-01-01T00:00:00Z"}')
    for name in ("status.json", "history.json"):
        if kind == "pipe":
            os.mkfifo(state / name)
        else:
            (state / name).symlink_to(tmp_path / "shadow")
    (environment / "c.toml").write_text(f'[state]\ndirectory = "{state}"\n[control]\nsocket = "{tmp_path}/none"\n')
    words = ("completions", "cycles") if command == "completions" else (command,)
    ran = sleepctl(*words, "--config", str(environment / "c.toml"))
    assert ran.out == ""
    assert ran.code == (0 if command == "completions" else 3)
