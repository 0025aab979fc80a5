"""The manual pages: complete, understood by man, and installed where programs look."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sleepd.config.render import fields
from sleepd.config.schema import Config
from sleepd.daemon_arguments import EXIT_CODES
from sleepd.sleepctl.exit_codes import MEANINGS
from sleepd.sleepctl.generated.__main__ import files
from sleepd.sleepctl.generated.grammar import arguments, commands
from sleepd.sleepctl.generated.manual import pages
from sleepd.sleepctl.generated.roff import entry, escaped, notes
from sleepd.sleepctl.generated.shipped import shared_files
from sleepd.sleepctl.parser.arguments import build_parser
from sleepd.sleepctl.parser.command_texts import EXAMPLES, GROUPS, VARIABLES

REPOSITORY = Path(__file__).parents[2]
PAGES = pages()


def plain(page: str) -> str:
    """A page without its escapes and with all blanks alike."""
    for escape, character in (("\\-", "-"), ("\\(ga", "`"), ("\\(ti", "~"), ("\\(dq", '"'), ("\\&", "")):
        page = page.replace(escape, character)
    return " ".join(page.split())


def test_command_page_is_complete() -> None:
    """Nothing that --help says is missing."""
    page = plain(PAGES["man1/sleepctl.1"])
    parser = build_parser()
    for group in GROUPS.values():
        assert [text for text in group.values() if text not in page] == []
    for words, command in commands(parser):
        assert f".SS {' '.join(words)} " in page
        for action in arguments(command):
            assert all(name in page for name in action.option_strings)
            assert " ".join((action.help or "").split()) in page
    assert [code for code in MEANINGS if f".B {int(code)} {MEANINGS[code]}" not in page] == []
    assert [name for name in (*VARIABLES, *EXAMPLES) if f".B {name} " not in page] == []


def test_configuration_page_is_complete() -> None:
    """The same words as in the shipped file; quotes are not lost on the way."""
    page = plain(PAGES["man5/sleepd.toml.5"])
    assert '.B path = ""' in page
    assert '.B base = "embedded"' in page
    for _, key, _, meaning in fields(Config()):
        assert f".B {key} = " in page
        assert " ".join(meaning.split()) in page


def test_daemon_page_is_complete() -> None:
    """From the grammar that the daemon itself uses."""
    page = plain(PAGES["man8/sleepd.8"])
    assert ".B --config FILE" in page
    assert [code for code, meaning in EXIT_CODES.items() if f".B {code} {meaning}" not in page] == []
    assert ".SH SIGNALS" in page


@pytest.mark.parametrize("path", sorted(PAGES))
def test_every_page_has_the_usual_sections(path: str) -> None:
    """Who looks for an example, a file or another page finds the heading."""
    wanted = ["NAME", "SYNOPSIS", "DESCRIPTION", "EXAMPLES", "SEE ALSO"]
    wanted += [] if path.endswith(".5") else ["OPTIONS", "EXIT STATUS", "ENVIRONMENT", "FILES"]
    assert [title for title in wanted if f"\n.SH {title}\n" not in PAGES[path]] == []


@pytest.mark.skipif(not shutil.which("mandoc"), reason="mandoc is not installed")
@pytest.mark.parametrize("path", sorted(PAGES))
def test_mandoc_has_nothing_to_say(path: str, tmp_path: Path) -> None:
    """But that there is no date: the same source gives the same page."""
    (tmp_path / "page").write_text(PAGES[path])
    done = subprocess.run(["mandoc", "-Tlint", str(tmp_path / "page")], capture_output=True, text=True)
    assert [line for line in done.stdout.splitlines() if "missing date" not in line] == []


@pytest.mark.skipif(not shutil.which("groff"), reason="groff is not installed")
@pytest.mark.parametrize("path", sorted(PAGES))
def test_groff_renders_without_a_warning(path: str) -> None:
    """What most systems read them with."""
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8", "-Kutf8"], input=PAGES[path], capture_output=True, text=True
    )
    assert done.stderr == ""
    assert "sage-sleepd" in done.stdout


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (".start", "\\&.start"),
        ("'quoted'", "\\&'quoted'"),
        ("a\\b", "a\\eb"),
        ("--json", "\\-\\-json"),
        ("~/x^2 `y`", "\\(ti/x\\(ha2 \\(gay\\(ga"),
    ],
)
def test_text_is_no_roff_request(text: str, written: str) -> None:
    """Whatever a help text begins with, it is shown as it stands."""
    assert escaped(text) == written


def test_quotes_of_a_term_are_kept() -> None:
    """On a request's line a bare quote would begin an argument, and be gone."""
    assert entry('base = ""', "x") == ".TP\n.B base = \\(dq\\(dq\nx\n"


def test_indented_note_lines_stay() -> None:
    """A command to copy is not filled into a paragraph."""
    assert notes("By hand:\n  source <(x)\n") == (".PP\nBy hand:\n.PP\n.nf\n.RS 4\n  source <(x)\n.RE\n.fi\n")


def test_generated_files_are_current() -> None:
    """What is shipped is what the code makes; else run python -m sleepd.sleepctl.generated."""
    assert {name: content.decode() for name, content in shared_files().items()} == files()


def test_installer_writes_pages_and_completions(tmp_path: Path) -> None:
    """The very command of install.sh, below another prefix."""
    installer = (REPOSITORY / "systemd" / "installer.sh").read_text()
    assert '-m sleepd.sleepctl.share "$local_prefix"\n' in installer
    command = [sys.executable, "-m", "sleepd.sleepctl.share", str(tmp_path)]
    subprocess.run(command, check=True)
    written = {str(path.relative_to(tmp_path / "share")) for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {
        "man/man1/sleepctl.1",
        "man/man5/sleepd.toml.5",
        "man/man8/sleepd.8",
        "bash-completion/completions/sleepctl",
        "zsh/site-functions/_sleepctl",
        "fish/vendor_completions.d/sleepctl.fish",
        "sage-sleepd/experience.schema.json",
    }
    assert {name: (tmp_path / "share" / name).read_bytes() for name in written} == shared_files()
