"""The shape of the whole: floors, sizes, types, lint, and the documents that are generated from the code."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sleepd import config_text, cycle

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "sleepd").rglob("*.py"))

MOST_MODULE_LINES = 350
MOST_FUNCTION_LINES = 45

FLOORS: tuple[frozenset[str], ...] = (
    frozenset(
        {
            "errors",
            "cycle",
            "protocol",
            "job",
            "status",
            "clock",
            "version",
            "files",
            "plain_text",
            "shell_text",
            "capability",
            "interpreter",
            "gpu_devices",
            "evidence",
            "verdict",
            "base_identity",
        }
    ),
    frozenset(
        {
            "config",
            "config_checks",
            "config_layers",
            "config_text",
            "daemon_arguments",
            "digest",
            "experience",
            "holdout",
            "learned",
            "selection",
            "quarantine",
            "personal_data",
            "isolation",
            "triggers",
            "promotion",
            "interval",
            "metric_limits",
            "speech_gates",
            "relevance_gate",
            "probation",
            "strategies",
            "repetition",
            "speech",
            "recall",
            "adapter_file",
            "bounded_text",
            "overdue",
            "retention",
            "older_formats",
            "split_secret",
        }
    ),
    frozenset(
        {
            "buffer",
            "buffer_file",
            "stuck",
            "checkpoints",
            "compaction",
            "database",
            "records",
            "ledger",
            "reader",
            "reader_process",
            "screening",
            "screenings",
            "screener",
            "secret_scan",
            "seed_phrases",
            "told_secrets",
            "token_shapes",
            "plain_forms",
            "hand_decisions",
        }
    ),
    frozenset(
        {
            "log",
            "notify",
            "watch",
            "supervisor",
            "control",
            "lock",
            "state_directory",
            "client",
            "history",
            "recovery",
            "documents",
            "reservoir",
            "rebuild",
            "adoption",
            "alarms",
            "mending",
            "keeping",
            "fit",
            "resumption",
            "rollback",
            "predecessor",
            "demotion",
            "added_metrics",
            "settling",
            "gpu_lock",
            "quarantine_keeper",
        }
    ),
    frozenset(
        {
            "lineup",
            "older_cycles",
            "intake",
            "fact_finding",
            "cycle_runner",
            "in_use",
            "sleeper",
            "overview",
            "quarantine_overview",
            "recollection",
            "requests",
            "scheduler",
            "selftest",
            "daemon",
            "__main__",
            "__init__",
        }
    ),
)
"""A module imports only from its own floor and from those before it."""

PARTS = ("sleepctl", "demo", "worker")
"""Packages beside the floors. They import floors 0 and 1, themselves, and what ``ALSO`` grants."""

ALSO = {"sleepctl": {"client", "reader"}, "demo": {"client", "sleepctl.terminal"}, "worker": set()}

NOT_IN_THE_DAEMON = ("torch", "transformers", "peft", "rich", "pydantic", "numpy", "detect_secrets")


def module_name(path: Path) -> str:
    """``sleepd/worker/train.py`` as ``worker.train``; a package is named by its directory."""
    parts = path.relative_to(ROOT / "sleepd").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


NAMES = {module_name(path) for path in MODULES}


def imports_of(path: Path) -> set[str]:
    """The modules of this package that ``path`` imports, wherever in it; those for types alone count too."""
    package = ("sleepd", *path.relative_to(ROOT / "sleepd").parent.parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*start, *([node.module] if node.module else [])))
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return {name.removeprefix("sleepd.") for name in found if name.startswith("sleepd.")} & NAMES


def floor_of(name: str) -> int:
    """The floor of a module; fails for one that has none."""
    floors = [number for number, names in enumerate(FLOORS) if name in names]
    assert floors, f"{name} stands on no floor: add it to the table in {Path(__file__).name}"
    return floors[0]


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_import_floors(path: Path) -> None:
    """A module imports only from its floor and below, a part only what is granted; nothing imports the worker."""
    name, imported = module_name(path), imports_of(path)
    part = name.split(".")[0]
    for other in imported:
        if part in PARTS:
            is_granted = other in ALSO[part] or other.split(".")[0] == part
            assert is_granted or (other in FLOORS[0] | FLOORS[1]), f"{name} must not import {other}"
        else:
            assert other.split(".")[0] not in PARTS, f"{name} must not import {other}"
            assert floor_of(other) <= floor_of(name), f"{name} must not import {other}, which stands above it"


def test_imports_have_no_circle() -> None:
    """No module imports itself by way of others."""
    graph = {
        module_name(path): imports_of(path) - {module_name(path)} for path in MODULES if path.name != "__init__.py"
    }
    assert list(graphlib.TopologicalSorter(graph).static_order())


def test_daemon_without_heavy_packages() -> None:
    """The daemon, the command line and the Python API load in an interpreter in which importing torch raises."""
    names = [
        f"sleepd.{name}" for floor in FLOORS for name in sorted(floor & NAMES) if name not in ("__main__", "__init__")
    ]
    names += ["sleepd.sleepctl.commands", "sleepd.demo.stage"]
    program = (
        "import importlib, sys\n"
        f"sys.modules.update(dict.fromkeys({NOT_IN_THE_DAEMON!r}))\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "from sleepd import SleepScheduler\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_sizes(path: Path) -> None:
    """Modules and functions stay short enough to be read in one go."""
    source = path.read_text()
    assert source.count("\n") <= MOST_MODULE_LINES
    functions = [n for n in ast.walk(ast.parse(source)) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    sizes = {f.name: (f.end_lineno or f.lineno) - f.lineno + 1 for f in functions}
    assert {name: size for name, size in sizes.items() if size > MOST_FUNCTION_LINES} == {}


def test_every_test_says_what_it_proves() -> None:
    """Every test function has a docstring."""
    silent = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert silent == []


@pytest.mark.parametrize(
    "arguments",
    [("mypy",), ("ruff", "check", "sleepd", "tests"), ("ruff", "format", "--check", "sleepd", "tests")],
    ids=" ".join,
)
def test_linter_is_content(arguments: tuple[str, ...]) -> None:
    """Strict mypy has nothing to say about the package, ruff nothing about package and tests."""
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


SCRIPTS = [ROOT / "install.sh", ROOT / ".ci" / "run", *sorted((ROOT / "config").glob("*.sh"))]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_script_is_sound(script: Path) -> None:
    """A shell script parses, may be executed and stops at the first error."""
    assert subprocess.run(["bash", "-n", str(script)], capture_output=True).returncode == 0
    assert script.stat().st_mode & 0o111
    assert "\nset -euo pipefail\n" in script.read_text()


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


@pytest.mark.parametrize("generated", [cycle.diagram, config_text.reference], ids=["state-diagram", "config-reference"])
def test_readme_is_generated_from_the_code(generated: object) -> None:
    """The README holds the state diagram and the reference of the configuration exactly as the code says them."""
    assert callable(generated)
    assert generated() in (ROOT / "README.md").read_text()
