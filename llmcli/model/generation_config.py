"""Sampling defaults and end-of-sequence ids from a model's generation_config.json. Standard library only."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmcli.errors import CheckpointError, RequestError, quote
from llmcli.model.spec import ModelSpec, read_json_object
from llmcli.sampling import SamplingParams

# name in the file -> sampling field
FIELDS = {name: name for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")} | {
    "max_new_tokens": "max_tokens"
}


def read_generation_config(
    folder: Path, spec: ModelSpec
) -> tuple[dict[str, Any], tuple[int, ...], list[str]]:
    """Read the file, if there is one.

    Returns:
        Sampling fields that it sets; the end-of-sequence ids, those of config.json included; warnings about values
        that were ignored. An explicit do_sample false means temperature 0, as in transformers.

    Raises:
        CheckpointError: the file is no JSON object, or an end-of-sequence id is out of range.
    """
    path = folder / "generation_config.json"
    if not path.is_file():
        return {}, spec.eos_ids, []
    config = read_json_object(path)
    defaults, errors = sampling_fields(config)
    warnings = [f"{path}: ignored: {error.what}" for error in errors]
    return defaults, _eos_ids(config.get("eos_token_id"), path, spec), warnings


def sampling_fields(config: Mapping[str, Any]) -> tuple[dict[str, Any], list[RequestError]]:
    """The sampling fields that the content of such a file sets, and what is wrong with the others."""
    defaults: dict[str, Any] = {}
    errors: list[RequestError] = []
    for name, field in FIELDS.items():
        value = config.get(name)
        if value is None:
            continue
        try:
            SamplingParams(**{field: value})
        except RequestError as error:
            errors.append(error)
        else:
            defaults[field] = value
    if config.get("do_sample") is False:
        defaults["temperature"] = 0.0
    return defaults, errors


def _eos_ids(value: Any, path: Path, spec: ModelSpec) -> tuple[int, ...]:
    ids = value if isinstance(value, list) else [] if value is None else [value]
    for token_id in ids:
        if isinstance(token_id, bool) or not isinstance(token_id, int) or not 0 <= token_id < spec.vocab_size:
            raise CheckpointError(
                f"{path}: eos_token_id {quote(token_id)} is not in 0..{spec.vocab_size - 1}"
            )
    return tuple(dict.fromkeys((*ids, *spec.eos_ids)))
