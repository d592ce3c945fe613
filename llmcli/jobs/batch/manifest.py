"""The file beside the results, OUT.meta.json: what they were made with, so that a resumed run makes the same.

Nothing in it changes while a run goes on, so no crash can make it disagree with the results: which lines are
done stands in the records themselves. `batch/resume.py` reads and writes it, `cli/run_job.py` says what is in it.
"""

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from llmcli import __version__
from llmcli.config import EngineConfig, Substitutes
from llmcli.errors import OutputError, UsageError, quote
from llmcli.jobs.disk import Disk, write_all
from llmcli.model.generation_config import read_generation_config
from llmcli.model.spec import read_model_spec
from llmcli.sampling import SamplingParams

if TYPE_CHECKING:
    from llmcli.hub.models import LocalModel

MAX_SHOWN = 10
_PID = "pid"
_ENGINE_FIELDS = ("dtype", "kv_cache_dtype", "lm_head", "max_model_len")


def manifest_path(output: str) -> Path:
    """Where the manifest of a results file lies."""
    return Path(os.path.realpath(output) + ".meta.json")


def model_settings(
    model: "LocalModel",
    config: EngineConfig,
    sampling: Mapping[str, Any],
    substitutes: Substitutes | None = None,
) -> dict[str, Any]:
    """What results depend on besides the lines: the model as it is on this disk, and how tokens are chosen.

    Args:
        sampling: the fields given as flags.
        substitutes: what is used in place of the model's own files.

    Raises:
        ModelNotRunnableError: a file of the model is broken, or something in it is not supported.
    """
    from llmcli.text.tokenizer_files import read_config, read_template_source

    spec, substitutes = read_model_spec(model.path), substitutes or Substitutes()
    defaults = substitutes.generation_defaults
    if defaults is None:
        defaults = read_generation_config(model.path, spec)[0]
    template = substitutes.chat_template or read_template_source(model.path, read_config(model.path))
    params = SamplingParams(**{**defaults, **sampling})
    form = params.structured
    return {
        "llmcli": __version__,
        "model": model.name,
        "commit": model.revision,
        "files": _fingerprint(model) if model.source == "folder" else None,
        "quantization": None if spec.quantization is None else dataclasses.asdict(spec.quantization),
        "chat_template": None if template is None else sha256(repr(template).encode()).hexdigest()[:16],
        "chat_template_kwargs": dict(substitutes.template_kwargs) or None,
        **{name: getattr(config, name) for name in _ENGINE_FIELDS},
        "sampling": dataclasses.asdict(params)
        | {"structured": None if form is None else f"{form.kind} {form.text}"},
    }


def _fingerprint(model: "LocalModel") -> str:
    """A folder has no commit: names, sizes and times of its weights stand for one, and its configuration."""
    digest = sha256((model.path / "config.json").read_bytes())
    for path in sorted(model.path.glob("*.safetensors")):
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def read_manifest(output: str) -> dict[str, Any] | None:
    """The settings that the results file was begun with, and `pid`; None without a manifest.

    Raises:
        UsageError: it is there and can not be read.
    """
    path = manifest_path(output)
    try:
        value = json.loads(path.read_bytes())
        if not isinstance(value, dict):
            raise ValueError("it is no object")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UsageError(
            f"can not read {quote(str(path))}: {quote(str(error))}",
            why="it tells what the results were made with",
            fix="--overwrite begins anew",
        ) from None
    return value


def write_manifest(output: str, settings: Mapping[str, Any], disk: Disk) -> None:
    """Write the manifest, or put it in the place of an older one, in one stroke.

    Raises:
        OutputError: it could not be written.
    """
    path = manifest_path(output)
    new = path.with_name(path.name + ".tmp")
    text = json.dumps({**settings, _PID: os.getpid()}, indent=2, ensure_ascii=False) + "\n"
    try:
        with cast(BinaryIO, open(new, "wb", buffering=0)) as stream:
            write_all(disk, stream, text.encode())
            disk.sync(stream)
        disk.replace(new, path)
    except OSError as error:
        raise OutputError(f"can not write {quote(str(path))}: {error.strerror}") from None


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line for each setting that differs, such as `sampling.temperature was 0.7, is 0.0`."""
    before, after = dict(_flat(_as_read(old))), dict(_flat(_as_read(new)))
    names = [name for name in {**before, **after} if name != _PID]
    return [
        f"{quote(name, 80)} was {quote(_shown(before.get(name)), 80)}, is {quote(_shown(after.get(name)), 80)}"
        for name in names
        if before.get(name) != after.get(name)
    ]


def check_same(output: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raise a UsageError that names what differs from the settings that the output was begun with."""
    changed = differences(old, new)
    if changed:
        more = [f"and {len(changed) - MAX_SHOWN} more"] if len(changed) > MAX_SHOWN else []
        raise UsageError(
            f"{quote(output)} was begun with other settings",
            why="\n".join([*changed[:MAX_SHOWN], *more]),
            fix="give the same ones, --force to go on with these, or --overwrite to begin anew",
        )


def _as_read(settings: Mapping[str, Any]) -> Any:
    """As it comes back from the file: tuples are lists there, and keys are strings."""
    return json.loads(json.dumps(settings))


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from _flat(item, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", item


def _shown(value: Any) -> str:
    return "not set" if value is None else json.dumps(value, ensure_ascii=False)
