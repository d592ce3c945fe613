"""Told before a download: what the model is, and whether it will run on this machine.

Reads the model's outline (settings, headers of the weights), never the weights. `pull` says the verdict; `chat`, `run`
and `bench` also refuse what could not run, so that nobody waits for gigabytes to learn it. Knows no command.
"""

from collections.abc import Callable
from dataclasses import dataclass

from llmcli.config import EngineConfig, ModelFacts, human_bytes
from llmcli.errors import DoesNotFitError, ModelNotRunnableError
from llmcli.fit import Fit, explained, judge, verdict
from llmcli.hardware import read_hardware_facts
from llmcli.hub.download import BeforeFetch, bytes_to_fetch
from llmcli.hub.outline import outline
from llmcli.hub.remote import RemoteSnapshot
from llmcli.hub.search import quantized_siblings
from llmcli.hub.settings import HubSettings
from llmcli.model.checkpoint import read_checkpoint
from llmcli.model.facts import read_model_facts
from llmcli.model.parameters import count_parameters, short_count
from llmcli.model.spec import ModelSpec, read_model_spec
from llmcli.runtime.gpu import find_gpu


@dataclass(frozen=True)
class Preview:
    """What the outline of a model tells; `fit` is for this machine, now."""

    spec: ModelSpec
    facts: ModelFacts
    num_parameters: int
    fit: Fit

    def lines(self, remote: RemoteSnapshot, settings: HubSettings) -> list[str]:
        """What it is, and the verdict; with the names of AWQ copies where only these would fit."""
        kind = "awq 4-bit" if self.spec.quantization else self.facts.checkpoint_dtype
        what = f"{self.spec.architecture}, {short_count(self.num_parameters)} parameters, {kind}"
        lines = [what, *verdict(self.fit)]
        if self.fit.awq_bytes is not None and (names := quantized_siblings(remote.hub_id.repo, settings)):
            lines[-1] += f": {', '.join(names)}"
        return lines


def preview(remote: RemoteSnapshot, settings: HubSettings, config: EngineConfig) -> Preview:
    """Read the outline of a model and judge it.

    Raises:
        UnsupportedModelError: names what is supported, and AWQ copies where the quantization is at fault.
        CheckpointError, ModelUnavailableError, UsageError: see `hub.outline` and `fit.judge`.
    """
    with outline(remote, settings) as folder:
        try:
            spec = read_model_spec(folder)
            tensors = read_checkpoint(folder)
            facts = read_model_facts(folder, spec, tensors)
        except ModelNotRunnableError as error:
            if "quantization" in error.what and (names := quantized_siblings(remote.hub_id.repo, settings)):
                error.fix = f"{error.fix}; AWQ copies: {', '.join(names)}"
            raise
    gpu = None if config.wanted_device == "cpu" else find_gpu()
    fit = judge(config, facts, read_hardware_facts(gpu))
    return Preview(spec, facts, count_parameters(tensors, spec), fit)


def before_download(config: EngineConfig, say: Callable[[str], None]) -> BeforeFetch:
    """For `resolve_model`: say the verdict on what must be fetched, and refuse what can not run with these options.

    Raises, when called:
        ModelNotRunnableError: unsupported, damaged, or too large; nothing is fetched then.
    """

    def tell(remote: RemoteSnapshot, settings: HubSettings) -> None:
        seen = preview(remote, settings, config)
        what, *lines = seen.lines(remote, settings)
        if seen.fit.error is not None:
            error = explained(seen.fit.error, seen.fit)
            what = f"{remote.hub_id} is not fetched: {error.what}"
            raise DoesNotFitError(what, why=error.why, fix=error.fix)
        size = human_bytes(bytes_to_fetch(remote, settings))
        say(f"{remote.hub_id}: {what}; {size} to fetch")
        for line in lines:
            say(line)

    return tell
