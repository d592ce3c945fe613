"""Where `quantize` writes: DIR.partial while it works, DIR when it is whole; and what DIR holds besides weights.

Owns the lock, the record of what is done, the checks before a resume and the last rename. Knows nothing of how a layer
is quantized. Called by `jobs/quantize/job.py`.
"""

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from llmcli import __version__
from llmcli.errors import OutputError, UsageError, quote
from llmcli.hub.licence import card_fields
from llmcli.model.checkpoint import TensorInfo
from llmcli.model.spec import read_json_object
from llmcli.quantize.output import write_error
from llmcli.quantize.shape import Recipe

STATE, LOCK, CARD = "quantize-state.json", "quantize.lock", "README.md"
NEW = ".new"
STATE_FORMAT = 1
SAMPLES, SAMPLE_BYTES = 16, 1 << 16
COPIED = (
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "merges.txt", "generation_config.json"),
    *("chat_template.jinja", "chat_template.json", "LICENSE*", "NOTICE*", "USE_POLICY*"),
)


@dataclass
class State:
    """What is done; written after each stage, so that a later process can go on.

    Attributes:
        model: digest of the source, see `digest`.
        parameters: what the result depends on, by the option's name.
        done: stages that are on the disk: the embedding, each layer, then the rest.
        errors: of the layers that are done.
    """

    model: str
    parameters: Mapping[str, Any]
    done: int = 0
    errors: list[float] = field(default_factory=list)


class OutputFolder:
    """DIR.partial, held by one process; `finish` makes it DIR.

    Raises (on entering):
        UsageError: DIR is there, or was begun with another model or other parameters, or is in use.
        OutputError: it can not be written.
    """

    def __init__(self, out: Path, state: State, *, resume: bool, overwrite: bool) -> None:
        self.out = out
        self.path = partial_path(out)
        self.state = state
        self.resumed = False
        self._resume, self._overwrite = resume, overwrite
        self._lock: Any = None

    def __enter__(self) -> Self:
        begun = check_out(self.out, resume=self._resume, overwrite=self._overwrite)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(self.path, error) from None
        self._take_lock()
        try:
            if begun and self._resume:
                self._load()
            else:
                self._empty()
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._release()

    def save(self) -> None:
        """Record the state; it is never half written."""
        text = json.dumps(
            {"format": STATE_FORMAT, "llmcli": __version__, **dataclasses.asdict(self.state)}, indent=1
        )
        temporary = self.path / (STATE + NEW)
        try:
            with open(temporary, "w", encoding="utf-8") as file:
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path / STATE)
        except OSError as error:
            raise write_error(self.path, error) from None

    def finish(self) -> None:
        """Make it DIR, in one rename; what was there with --overwrite goes after it."""
        old = self.out.with_name(self.out.name + ".replaced")
        try:
            if self.out.exists():
                shutil.rmtree(old, ignore_errors=True)
                self.out.rename(old)
            self.path.rename(self.out)
            self._release()
            for name in (STATE, LOCK):
                (self.out / name).unlink(missing_ok=True)
            shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            raise write_error(self.out, error) from None

    def _take_lock(self) -> None:
        from filelock import FileLock, Timeout

        self._lock = FileLock(self.path / LOCK)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UsageError(
                f"another process quantizes into {quote(str(self.path))}",
                fix="wait for it, or choose another -o",
            ) from None

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def _load(self) -> None:
        found = read_json_object(self.path / STATE)
        again = "begin again with --overwrite, or resume with what it was begun with"
        if found.get("format") != STATE_FORMAT:
            raise UsageError(f"{quote(str(self.path))} is from another version of llmcli", fix=again)
        if found.get("model") != self.state.model:
            raise UsageError(
                f"{quote(str(self.path))} was begun with another model, or its files have changed since",
                fix=again,
            )
        before = found.get("parameters") or {}
        for name, value in self.state.parameters.items():
            if before.get(name) != value:
                raise UsageError(
                    f"{quote(str(self.path))} was begun with {name} {quote(before.get(name))},"
                    f" now it is {quote(value)}",
                    fix=again,
                )
        self.state.done, self.state.errors = int(found["done"]), list(found["errors"])
        self.resumed = True

    def _empty(self) -> None:
        for path in self.path.iterdir():
            if path.name == LOCK:
                continue
            if path.is_dir() and not path.is_symlink():
                raise UsageError(f"{quote(str(path))} is a folder that `llmcli quantize` did not make")
            path.unlink()


def partial_path(out: Path) -> Path:
    """Where the model is until it is whole."""
    return out.with_name(out.name + ".partial")


def check_out(out: Path, *, resume: bool, overwrite: bool) -> bool:
    """Whether an earlier run has begun there; refuses what would be lost.

    Raises:
        UsageError: DIR or DIR.partial is there, and neither to be replaced nor to be gone on with.
    """
    if out.name in ("", ".."):
        raise UsageError(f"-o {quote(str(out))} names no new folder", fix="name one, such as ./model-awq")
    part = partial_path(out)
    _check_dir(out, overwrite=overwrite, nothing_to_resume=resume and not part.exists())
    begun = (part / STATE).is_file()
    if not begun and part.exists() and not _is_fresh(part):
        raise UsageError(
            f"{quote(str(part))} is there, and not from `llmcli quantize`",
            fix="remove it, or choose another -o",
        )
    if begun and not (resume or overwrite):
        raise UsageError(
            f"{quote(str(part))} holds what an earlier run has done",
            fix="add --resume to go on with it, or --overwrite to begin again",
        )
    return begun


def _check_dir(out: Path, *, overwrite: bool, nothing_to_resume: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir():
        raise UsageError(f"-o {quote(str(out))} is a file", fix="name a folder")
    if not overwrite:
        raise UsageError(
            f"-o {quote(str(out))} is there already, and not empty",
            why="there is nothing to resume" if nothing_to_resume else "",
            fix="choose another folder, or add --overwrite to replace it when the new model is whole",
        )
    if not (out / "config.json").is_file():
        raise UsageError(
            f"-o {quote(str(out))} is no model's folder, so --overwrite does not replace it",
            fix="choose another folder",
        )


def _is_fresh(part: Path) -> bool:
    """Whether DIR.partial has only what stands there before the first state is saved."""
    return part.is_dir() and {path.name for path in part.iterdir()} <= {LOCK, STATE + NEW}


def check_place(out: Path, source: Path) -> None:
    """Refuse an output that is the model's own folder, or lies inside of it or around it.

    Raises:
        UsageError: it does.
    """
    to, of = out.resolve(), source.resolve()
    if to == of or to in of.parents or of in to.parents:
        raise UsageError(
            f"-o {quote(str(out))} and the model's folder {quote(str(source))} overlap",
            fix="choose a folder beside the model's",
        )


def digest(folder: Path, tensors: Mapping[str, TensorInfo]) -> str:
    """What tells this model from others: its config, and of each file of weights the size, the header and samples of
    the data. Reading all of it would take minutes for what only a change by hand could hide."""
    total = hashlib.sha256((folder / "config.json").read_bytes())
    for file in sorted({info.file for info in tensors.values()}):
        size = file.stat().st_size
        total.update(f"{file.name} {size}".encode())
        with file.open("rb") as stream:
            for sample in range(SAMPLES):
                stream.seek(sample * max(size - SAMPLE_BYTES, 0) // max(SAMPLES - 1, 1))
                total.update(stream.read(SAMPLE_BYTES))
    return total.hexdigest()


def write_config(source: Path, out: Path, recipe: Recipe) -> None:
    """config.json of the quantized model: the source's, with what loaders need to know."""
    config = read_json_object(source / "config.json")
    keys = [key for key in ("dtype", "torch_dtype") if key in config] or ["torch_dtype"]
    config |= dict.fromkeys(keys, recipe.dtype)
    config["quantization_config"] = {
        "quant_method": "awq",
        "bits": 4,
        "group_size": recipe.grid.group_size,
        "zero_point": recipe.grid.zero_point,
        "version": "gemm",
        "modules_to_not_convert": list(recipe.skip),
    }
    _write(out / "config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")


def copy_files(source: Path, out: Path) -> None:
    """The tokenizer, the generation defaults, the chat template and the licence."""
    for pattern in COPIED:
        for path in source.glob(pattern):
            if path.is_file():
                try:
                    shutil.copyfile(path, out / path.name)
                except OSError as error:
                    raise write_error(out, error) from None


def write_card(source: Path, out: Path, base: str | None, lines: Iterable[str]) -> None:
    """README.md: what this is and what it was made from.

    Args:
        base: the hub's name of the dense model, or None.
    """
    head = ["---"]
    if base is not None:
        head += [f"base_model: {base}", "base_model_relation: quantized"]
    head += [f"{name}: {value}" for name, value in card_fields(source).items()]
    head += ["tags:", "- awq", "- 4-bit", "- llmcli", "---", ""]
    _write(out / CARD, "\n".join([*head, *lines]) + "\n")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise write_error(path.parent, error) from None


def weight_bytes(folder: Path) -> int:
    """Bytes of the safetensors files of a folder.

    Raises:
        OutputError: it can not be read.
    """
    try:
        return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    except OSError as error:
        raise OutputError(f"{quote(str(folder))} can not be read: {error.strerror}") from None
