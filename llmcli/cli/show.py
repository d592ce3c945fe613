"""`llmcli show`: what a model is, and what of it fits here; of one that is on the hub, without fetching it."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmcli.cli.listing import print_table
from llmcli.cli.options import Device, Json, ModelArgument, Offline, Revision
from llmcli.config import EngineConfig
from llmcli.errors import LLMCliError, UsageError, quote

if TYPE_CHECKING:
    from llmcli.hub.models import LocalModel
    from llmcli.hub.remote import RemoteSnapshot
    from llmcli.hub.settings import HubSettings

CARD_WAIT_S = 3.0  # for the licence of a model that is here: nice to know, not worth a wait
PARTS = ("template", "params", "license", "config")
PART = "One part only"


@dataclass(frozen=True, kw_only=True)
class PartOptions:
    """Which part of a model is printed alone, as it is in its files."""

    template: Annotated[bool, typer.Option("--template", rich_help_panel=PART, help="The chat template.")] = (
        False
    )
    params: Annotated[
        bool, typer.Option("--params", "--parameters", rich_help_panel=PART, help="The sampling defaults.")
    ] = False
    license: Annotated[
        bool, typer.Option("--license", "--licence", rich_help_panel=PART, help="The licence.")
    ] = False
    config: Annotated[
        bool, typer.Option("--config", envvar=[], rich_help_panel=PART, help="Its config.json.")
    ] = False

    def chosen(self) -> str | None:
        """The one that was asked for, or None.

        Raises:
            UsageError: several.
        """
        given = [name for name in PARTS if getattr(self, name)]
        if len(given) > 1:
            raise UsageError(f"--{given[0]} and --{given[1]} exclude each other", fix="give one of them")
        return given[0] if given else None


@dataclass(frozen=True)
class Source:
    """A model to show, wherever it is; `folder` may be the outline of one on the hub.

    Attributes:
        path: of the model's folder; None for one that is not on this machine.
        url: its page; empty for what is not from the hub.
        files: names and bytes.
        licence, gate: as on the hub, the licence else as the model's card names it; None and "" where nothing is known.
    """

    name: str
    source: str
    revision: str | None
    folder: Path
    path: Path | None
    url: str
    files: tuple[tuple[str, int], ...]
    licence: str | None = None
    gate: str = ""

    def facts(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "name": self.name,
            "source": self.source,
            "revision": self.revision,
            "path": None if self.path is None else str(self.path),
            "url": self.url,
            "size": sum(size for _, size in self.files),
            "files": [{"name": name, "size": size} for name, size in self.files],
            "licence": self.licence,
            "gate": self.gate,
        }


def show(
    model: ModelArgument = None,
    *,
    device: Device = "auto",
    part: PartOptions,
    as_json: Json = False,
    revision: Revision = None,
    offline: Offline = False,
) -> None:
    """Show what a model is, and whether it fits here.

    Weights are never fetched.

    Examples:
        llmcli show Qwen/Qwen3-8B-AWQ
        llmcli show ./my-model --template
    """
    from llmcli.cli.description import FIT_COLUMNS, describe, description_lines
    from llmcli.hardware import read_hardware_facts
    from llmcli.runtime.gpu import find_gpu

    chosen = part.chosen()
    if chosen is not None and as_json:
        raise UsageError(f"--json and --{chosen} exclude each other", fix="give one of them")
    config = EngineConfig(device=device)  # type: ignore[arg-type]
    if chosen == "license":
        typer.echo(_plain(_licence_text(model, revision, offline)))
        return
    with _find(model, revision, offline) as source:
        if chosen is not None:
            typer.echo(_plain(_part(chosen, source.folder)))
            return
        gpu = None if config.wanted_device == "cpu" else find_gpu()
        described, fit = describe(source.folder, config, read_hardware_facts(gpu))
        facts = source.facts() | described
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    typer.echo("\n".join(description_lines(facts)))
    typer.echo()
    print_table(fit.ways, FIT_COLUMNS)


@contextmanager
def _find(model: str | None, revision: str | None, offline: bool) -> Iterator[Source]:
    """The model on this machine, else its outline from the hub."""
    from llmcli.hub.models import find_local
    from llmcli.hub.settings import hub_settings

    local = find_local(model, revision=revision)
    if local is not None:
        yield _local(local, offline)
        return
    from llmcli.hub.outline import outline

    settings = hub_settings(offline=offline)
    remote = _remote(str(model), revision, settings)
    with outline(remote, settings) as folder:
        yield Source(
            name=remote.hub_id.repo,
            source="hub",
            revision=remote.commit,
            folder=folder,
            path=None,
            url=f"{settings.endpoint}/{remote.hub_id.repo}",
            files=tuple(sorted((file.name, file.size) for file in remote.files)),
            licence=remote.licence,
            gate=remote.gate,
        )


def _remote(model: str, revision: str | None, settings: "HubSettings") -> "RemoteSnapshot":
    """What the hub has of a model that is not on this machine.

    Raises:
        OfflineError: it may not be asked.
    """
    from llmcli.hub.download import find_cached
    from llmcli.hub.failures import not_cached
    from llmcli.hub.names import parse_hub_id
    from llmcli.hub.remote import list_remote

    hub_id = parse_hub_id(model, revision)
    if settings.offline:
        raise not_cached(hub_id, settings, find_cached(hub_id, settings)[1])
    return list_remote(hub_id, settings)


def _local(local: "LocalModel", offline: bool) -> Source:
    from llmcli.hub.licence import licence_name
    from llmcli.hub.settings import hub_settings

    files = tuple((path.name, path.stat().st_size) for path in sorted(local.path.iterdir()) if path.is_file())
    licence = licence_name(local.path)
    found = Source(local.name, local.source, local.revision, local.path, local.path, "", files, licence)
    if local.source != "hub":
        return found
    settings = hub_settings(offline=offline)
    found = replace(found, url=f"{settings.endpoint}/{local.name}")
    if settings.offline:
        return found
    from llmcli.hub.names import parse_hub_id
    from llmcli.hub.remote import list_remote

    try:
        brief = replace(settings, timeout_s=CARD_WAIT_S, retry_wait_s=0.0)
        remote = list_remote(parse_hub_id(local.name, local.revision), brief)
    except LLMCliError:
        return found
    return replace(found, licence=remote.licence, gate=remote.gate)


def _part(chosen: str, folder: Path) -> str:
    """The text of one part of a model.

    Raises:
        UsageError: the model has no such part.
    """
    if chosen == "config":
        return (folder / "config.json").read_text(encoding="utf-8", errors="replace").rstrip("\n")
    if chosen == "params":
        from llmcli.cli.description import generation_defaults

        defaults = generation_defaults(folder)
        return "\n".join(f"{key} {json.dumps(value)}" for key, value in defaults.items())
    from llmcli.text.template_kind import read_template

    source = read_template(folder)
    if source is None:
        raise UsageError("the model has no chat template", fix="prompts go in as they are")
    return source if isinstance(source, str) else json.dumps(source, indent=2, ensure_ascii=False)


def _licence_text(model: str | None, revision: str | None, offline: bool) -> str:
    """The licence's text from the model's folder or from the hub, else its name.

    Raises:
        UsageError: nothing is known of a licence.
    """
    from llmcli.hub.licence import licence_text
    from llmcli.hub.models import find_local
    from llmcli.hub.settings import hub_settings

    local = find_local(model, revision=revision)
    if local is not None and (text := licence_text(local.path)):
        return text
    unknown = UsageError(
        f"no licence is known of {quote(model or 'the bundled model')}", fix="look at the page of its maker"
    )
    settings = hub_settings(offline=offline)
    if local is not None and (local.source != "hub" or settings.offline):
        raise unknown
    from llmcli.hub.outline import read_text_file

    remote = _remote(str(model), revision, settings)
    if remote.licence_files:
        return "\n\n".join(read_text_file(file, remote, settings) for file in remote.licence_files)
    if remote.licence is None:
        raise unknown
    return remote.licence


def _plain(text: str) -> str:
    """Text of a stranger: as it is into a file or pipe, without control sequences on a terminal."""
    if not sys.stdout.isatty():
        return text
    from llmcli.text.sanitize import Sanitizer

    return Sanitizer().push(text)
