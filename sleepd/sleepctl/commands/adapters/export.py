"""``export``: one cycle's adapter in a new directory, in the form that another program loads."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import msgspec

from sleepd.errors import (
    DECODE_ERRORS,
    CheckpointInvalid,
    ConversionFailed,
    NotFound,
    PermissionDenied,
    UsageError,
)
from sleepd.files import DIRECTORY_MODE, FILE_MODE, fsync_path, hashed, read_document, write_durably
from sleepd.host import worker_python
from sleepd.protocol.checkpoint.base_identity import UNQUANTISED, quantization_of
from sleepd.protocol.checkpoint.checkpoint_files import CONFIG_FILE, EVALUATION_FILE, WEIGHTS_FILE, Evaluation
from sleepd.protocol.deployment.converted_adapter import ConvertedAdapter
from sleepd.protocol.deployment.exported_adapter import EXPORT_FILE, ExportedAdapter, ExportedFile
from sleepd.sleepctl.exit_codes import ExitCode
from sleepd.sleepctl.offline_cycle import cycle_directory
from sleepd.sleepctl.pages.decision_page import line
from sleepd.sleepctl.pages.export_text import export_readme, limits_of
from sleepd.sleepctl.pages.wording import size
from sleepd.sleepctl.session import Session
from sleepd.worker_program import NoAnswer, ask_worker

_MERGING_SECONDS: Final = 4 * 3600.0
"""A large model in a processor's memory, written in another number format."""
_MANIFEST_FILE: Final = "manifest.json"


class _Recorded(msgspec.Struct, frozen=True):
    sha256: str = ""


class _Known(msgspec.Struct, frozen=True):
    """What of ``manifest.json`` is asked here; an older trainer's checkpoint has none."""

    base_fingerprint: str = ""
    files: dict[str, _Recorded] = {}


def export(session: Session) -> ExitCode:
    """Write the files, then README.md and export.json; the directory appears when all of it is written."""
    arguments = session.arguments
    target, number = Path(arguments.to).absolute(), arguments.cycle
    if target.exists() or target.is_symlink():
        raise UsageError(f"{target} is there already, and nothing is overwritten", hint="name a new one with --to")
    try:
        exported = _export(session, _checkpoint(session.places.state, number), target)
    except PermissionError as error:
        hint = "sudo usermod -aG sage-sleepd $USER, then log in again (or once: sudo sleepctl …)"
        raise PermissionDenied(f"{error.filename}: this user may not open it", hint=hint) from error
    except OSError as error:
        text = f"{target} was not written: {error.strerror or error}"
        raise ConversionFailed(text, hint="make room on that disk, or name another directory") from error
    total = size(sum(each.bytes for each in exported.files))
    page = [line(f"cycle {number} as {exported.form}: {target} ({total})", "green"), line(limits_of(exported))]
    session.console.show(exported, [*page, line(f"base: {exported.base}")])
    return ExitCode.OK


def _checkpoint(state: Path, cycle: int) -> Path:
    """The directory of a cycle that has weights.

    Raises:
        NotFound: there is none.
        CheckpointInvalid: what is on disk is not what was committed.
    """
    found = cycle_directory(state, cycle)
    if found is None or not (found / WEIGHTS_FILE).exists():
        why = "has no weights any more" if found else "is not in the state directory"
        raise NotFound(f"{state}: cycle {cycle} {why}", hint="sleepctl history lists the cycles")
    for name, record in _known(found).files.items():
        if name in (CONFIG_FILE, WEIGHTS_FILE) and hashed(found / name)[0] != record.sha256:
            raise CheckpointInvalid(f"{found / name} is not what the cycle wrote", hint="sleepctl doctor")
    return found


def _known(checkpoint: Path) -> _Known:
    try:
        return msgspec.json.decode(read_document(checkpoint / _MANIFEST_FILE), type=_Known)
    except FileNotFoundError:
        return _Known()
    except DECODE_ERRORS as error:
        text = f"{checkpoint / _MANIFEST_FILE} is damaged: {error}"
        raise CheckpointInvalid(text, hint="sleepctl doctor") from error


def _export(session: Session, checkpoint: Path, target: Path) -> ExportedAdapter:
    temporary = target.with_name(f".{target.name}.exporting")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(mode=DIRECTORY_MODE, parents=True)
    try:
        converter = _write_files(session, checkpoint, temporary)
        exported = _described(session, checkpoint, target, temporary, converter)
        write_durably(temporary / "README.md", export_readme(exported).encode())
        write_durably(temporary / EXPORT_FILE, msgspec.json.format(msgspec.json.encode(exported), indent=2))
        fsync_path(temporary)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    fsync_path(target.parent)
    return exported


def _write_files(session: Session, checkpoint: Path, directory: Path) -> str:
    """The adapter's files in the form that was asked for; returns what made them, empty: they are copies."""
    arguments, name = session.arguments, f"{checkpoint.name}.gguf"
    if arguments.form == "peft":
        for each in (CONFIG_FILE, WEIGHTS_FILE):
            shutil.copyfile(checkpoint / each, directory / each, follow_symlinks=False)
            (directory / each).chmod(FILE_MODE)
            fsync_path(directory / each)
        return ""
    given = ["--adapter", str(checkpoint), *_base_arguments(session)]
    if arguments.form == "gguf":
        to = ["--numbers", arguments.numbers, "--to", str(directory / name)]
        return _ask(session, ["sleepd.worker.programs.adapter_to_gguf", *given, *to])
    _refuse_packed(checkpoint, arguments.cycle)
    given += ["--models", str(session.places.state / "models")]
    if not arguments.base_gguf:
        given += ["--expected", _known(checkpoint).base_fingerprint]
    program = "sleepd.worker.programs.merge_adapter"
    if arguments.form == "merged":
        return _ask(session, [program, *given, "--form", "safetensors", "--to", str(directory)])
    to = ["--form", "gguf", "--numbers", arguments.numbers, "--to", str(directory / name)]
    converter = _ask(session, [program, *given, *to])
    write_durably(directory / "Modelfile", f"FROM ./{name}\n".encode())
    return converter


def _refuse_packed(checkpoint: Path, cycle: int) -> None:
    """A merged model holds other weights than the packed ones that the adapter was measured on."""
    quantization = quantization_of(_known(checkpoint).base_fingerprint)
    if quantization != UNQUANTISED:
        text = f"cycle {cycle} was measured on the base in {quantization}, and a merged model holds no such base"
        raise ConversionFailed(text, hint="export it with --as peft, and serve it on the base in that form")


def _base_arguments(session: Session) -> list[str]:
    config = session.places.load_config().config.model
    return ["--base", session.arguments.base_gguf or config.base, "--cache", config.cache_directory]


def _ask(session: Session, arguments: list[str]) -> str:
    interpreter = worker_python(session.places.load_config().config.worker.python)
    try:
        answer = ask_worker(interpreter, arguments, ConvertedAdapter, seconds=_MERGING_SECONDS)
    except NoAnswer as error:
        text = f"{interpreter} did not write the files: {error}"
        raise ConversionFailed(text, hint="sleepctl doctor checks the worker's interpreter") from error
    if answer.problem:
        raise ConversionFailed(answer.problem, hint=answer.hint)
    return answer.converter


def _described(session: Session, checkpoint: Path, target: Path, directory: Path, converter: str) -> ExportedAdapter:
    arguments = session.arguments
    try:
        verdict = msgspec.json.decode(read_document(checkpoint / EVALUATION_FILE), type=Evaluation).verdict
    except (FileNotFoundError, *DECODE_ERRORS):  # an older trainer's: nothing is known, and the text says so
        verdict = None
    files = []
    for each in sorted(directory.iterdir()):
        digest, length = hashed(each)
        files.append(ExportedFile(name=each.name, bytes=length, sha256=digest))
    return ExportedAdapter(
        cycle=arguments.cycle,
        form=arguments.form,
        directory=str(target),
        files=files,
        base=arguments.base_gguf or session.places.load_config().config.model.base,
        base_fingerprint=_known(checkpoint).base_fingerprint,
        numbers=arguments.numbers if arguments.form.endswith("gguf") else "",
        converter=converter,
        quantization=quantization_of(_known(checkpoint).base_fingerprint),
        is_measured=arguments.form == "peft" and verdict is not None,
        verdict=f"{verdict.outcome}: {verdict.reason}" if verdict else "",
        measured=[each.text for each in verdict.figures] if verdict else [],
    )
