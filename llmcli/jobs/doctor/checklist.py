"""All checks in their order: which facts each is given, and how long it may take.

Facts that several checks need are read once. What may be broken here, torch and every other library, is imported by
the check that needs it, or by a process of its own. Knows neither how results are shown nor what makes a check fail.
"""

import dataclasses
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from llmcli.config import EngineConfig, ModelFacts
from llmcli.errors import LLMCliError
from llmcli.gpu_facts import GpuFacts, NoGpu
from llmcli.hardware import read_hardware_facts
from llmcli.hub.health import HubAnswer, ask_hub, check_access, has_saved_login, read_cache_health
from llmcli.hub.outline import outline
from llmcli.hub.remote import list_remote
from llmcli.hub.settings import HubSettings, hub_settings
from llmcli.jobs.doctor import compute, model, network, processor, smoke, software, storage
from llmcli.jobs.doctor.check import Check, Finding, Once, skipped
from llmcli.jobs.doctor.child import call_apart
from llmcli.jobs.doctor.terminal import TerminalFacts, check_terminal
from llmcli.model.facts import read_model_facts
from llmcli.model.spec import ModelSpec, read_model_spec
from llmcli.runtime import self_test

HUB_TIMEOUT_S = 5.0
OUTLINE_LIMIT_S = 60  # headers of some dozen files
TORCH_LIMIT_S = 60  # a first import from a slow disk, and a GPU that wakes up
KERNELS_LIMIT_S = 120  # a first compilation
SMOKE_LIMIT_S = 600  # a large model from a slow disk
GRACE_S = 5  # for a process to be ended and its story told


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What the user wants to know.

    Attributes:
        environment: of the process.
        terminal: the standard streams.
        offline: open no connection.
        model, revision: as typed; None for the machine alone.
        config: engine options for the model.
        smoke: whether to let it answer.
        config_files: what came of reading them.
    """

    environment: Mapping[str, str]
    terminal: TerminalFacts
    offline: bool = False
    model: str | None = None
    revision: str | None = None
    config: EngineConfig = dataclasses.field(default_factory=EngineConfig)
    smoke: bool = False
    config_files: storage.ConfigFiles = dataclasses.field(default_factory=storage.ConfigFiles)


@dataclass(frozen=True, slots=True)
class _Outlined:
    """What the settings and the headers of a model on the hub tell; `weights` is what the check of them found."""

    spec: ModelSpec
    facts: ModelFacts
    weights: Finding


class Checklist:
    """The checks that answer a question."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._settings = Once(self._read_settings)
        self._network = Once(self._read_network)
        self._answer = Once(lambda: ask_hub(self._settings()))
        self._torch = Once(lambda: call_apart(self_test.torch_facts, limit_s=TORCH_LIMIT_S))
        self._place = Once(self._find_place)
        self._refusal = Once(self._ask_access)
        self._outlined = Once(self._read_outline)
        self._spec = Once(self._read_spec)
        self._weights = Once(lambda: self._of_model(self._check_weights))
        self._planned = Once(lambda: _after(self._weights, lambda: self._of_model(self._plan)))

    def checks(self) -> list[Check]:
        """In the order in which people read them: what others build on comes first."""
        return [*self._machine(), *self._disks(), *self._network_checks(), *self._model()]

    def _machine(self) -> list[Check]:
        question = self._question
        torch_limit = TORCH_LIMIT_S + GRACE_S
        return [
            Check("python", lambda: software.check_python(software.read_python())),
            Check("packages", lambda: software.check_packages(software.read_versions())),
            Check("torch", lambda: compute.check_torch(self._torch()), torch_limit),
            Check("GPU", self._gpu_itself, torch_limit),
            Check("GPU kernels", self._gpu_kernels, KERNELS_LIMIT_S + GRACE_S),
            Check("CPU kernels", self._cpu_kernels, KERNELS_LIMIT_S + GRACE_S),
            Check("threads", lambda: processor.check_threads(processor.read_threads(question.environment))),
            Check("memory", lambda: processor.check_memory(processor.read_memory())),
            Check("terminal", lambda: check_terminal(question.terminal)),
        ]

    def _disks(self) -> list[Check]:
        question = self._question
        return [
            Check("configuration", lambda: storage.check_config_files(question.config_files)),
            Check("folders", lambda: storage.check_folders(self._folders())),
            Check("disk", lambda: storage.check_disk(storage.read_disk(self._settings().cache_dir))),
            Check("model cache", lambda: storage.check_cache(read_cache_health(self._settings().cache_dir))),
        ]

    def _network_checks(self) -> list[Check]:
        limit = 2 * HUB_TIMEOUT_S + GRACE_S
        return [
            Check("offline switches", lambda: network.check_offline(self._network())),
            Check("hub", self._hub, limit),
            Check("token", self._token, limit),
        ]

    def _model(self) -> list[Check]:
        if self._question.model is None:
            return []
        checks = [
            Check("model", lambda: model.check_place(self._place())),
            Check("access", self._access, 2 * HUB_TIMEOUT_S + GRACE_S),
            Check("config.json", lambda: self._of_model(model.check_config, asks=True), OUTLINE_LIMIT_S),
            Check("weights", self._weights),
            Check("tokenizer", lambda: self._of_files(model.check_tokenizer), 60.0),
            Check("plan", self._planned, TORCH_LIMIT_S + GRACE_S),
        ]
        if self._question.smoke:
            answer = Check("answer", lambda: _after(self._planned, self._answers), SMOKE_LIMIT_S + GRACE_S)
            checks.append(answer)
        return checks

    def _read_settings(self) -> HubSettings:
        settings = hub_settings(offline=self._question.offline, progress=False)
        return dataclasses.replace(settings, timeout_s=HUB_TIMEOUT_S)

    def _read_network(self) -> network.NetworkFacts:
        settings = self._settings()
        return network.NetworkFacts(
            endpoint=settings.endpoint,
            offline=settings.offline,
            environment=self._question.environment,
            token_in_file=has_saved_login(),
        )

    def _gpu(self) -> GpuFacts | NoGpu:
        return compute.gpu_of(self._torch())

    def _gpu_itself(self) -> Finding:
        try:
            gpu = self._gpu()
        except LLMCliError:
            return skipped("torch does not work")
        return compute.check_gpu(gpu, *compute.read_cards())

    def _gpu_kernels(self) -> Finding:
        try:
            gpu = self._gpu()
        except LLMCliError:
            return skipped("torch does not work")
        if isinstance(gpu, NoGpu):
            return skipped("there is no GPU to run them on")
        return compute.check_gpu_kernels(call_apart(self_test.triton_facts, limit_s=KERNELS_LIMIT_S))

    def _cpu_kernels(self) -> Finding:
        without = compute.no_cpu_kernels(platform.system(), platform.machine())
        if without is not None:
            return without
        facts = call_apart(self_test.native_facts, limit_s=KERNELS_LIMIT_S)
        folder = facts["folder"]
        return compute.check_cpu_kernels(
            facts, folder is None or compute.is_private(Path(folder), os.getuid())
        )

    def _folders(self) -> list[storage.FolderFacts]:
        import platformdirs

        state = Path(platformdirs.user_state_dir("llmcli", appauthor=False))
        logs = Path(platformdirs.user_log_dir("llmcli", appauthor=False))
        cache = Path(platformdirs.user_cache_dir("llmcli", appauthor=False))
        return [
            storage.read_folder(self._settings().cache_dir, "models"),
            storage.read_folder(state, "history and sessions", ("history", "sessions/**/*")),
            storage.read_folder(cache, "compiled kernels"),
            storage.read_folder(logs, "logs of failures", ("error.log",)),
        ]

    def _hub(self) -> Finding:
        return network.not_asked(self._network()) or network.check_hub(self._network(), self._answer())

    def _token(self) -> Finding:
        facts = self._network()
        return network.check_token(facts, None if facts.offline else self._answer())

    def _find_place(self) -> model.Place:
        assert self._question.model is not None
        return model.find_place(self._question.model, self._question.revision, self._settings())

    def _access(self) -> Finding:
        """Of a model from the hub."""
        try:
            hub_id = self._place().hub_id
        except LLMCliError:
            return skipped("the name leads nowhere")
        if hub_id is None:
            return skipped("this model is not from the hub")
        without = network.not_asked(self._network())
        if without is not None:
            return without
        answer: HubAnswer = self._answer()
        if answer.error is not None:
            return skipped("the hub does not answer")
        return network.check_model_access(str(hub_id), self._refusal(), answer.account)

    def _ask_access(self) -> LLMCliError | None:
        hub_id = self._place().hub_id
        assert hub_id is not None
        try:
            check_access(hub_id, self._settings())
        except LLMCliError as refused:
            return refused
        return None

    def _read_outline(self) -> _Outlined:
        hub_id, settings = self._place().hub_id, self._settings()
        assert hub_id is not None
        with outline(list_remote(hub_id, settings), settings) as folder:
            spec = read_model_spec(folder)
            return _Outlined(spec, read_model_facts(folder, spec), model.check_files(folder))

    def _read_spec(self) -> ModelSpec:
        local = self._place().local
        return read_model_spec(local.path) if local else self._outlined().spec

    def _out_of_reach(self) -> str:
        """Why nothing can be told of a model that is not here; empty where its outline can be read."""
        if network.not_asked(self._network()) is not None or self._answer().error is not None:
            return "the model is not here yet"
        return "see above" if self._refusal() else ""

    def _of_model(self, look: Callable[[ModelSpec], Finding], *, asks: bool = False) -> Finding:
        """The finding of a check that needs a model, here or on the hub, whose config.json can be used.

        Args:
            asks: whether this is the check that tells of a config.json that can not.
        """
        try:
            place = self._place()
        except LLMCliError:
            return skipped("there is no such model")
        if place.local is None and (why := self._out_of_reach()):
            return skipped(why)
        try:
            spec = self._spec()
        except LLMCliError:
            if asks:
                raise
            return skipped("config.json can not be used")
        return look(spec)

    def _of_files(self, look: Callable[[Path, ModelSpec], Finding]) -> Finding:
        """The finding of a check that needs all files of the model."""

        def with_files(spec: ModelSpec) -> Finding:
            local = self._place().local
            return look(local.path, spec) if local else skipped("the model is not here yet")

        return self._of_model(with_files)

    def _check_weights(self, spec: ModelSpec) -> Finding:
        local = self._place().local
        return model.check_files(local.path) if local else self._outlined().weights

    def _plan(self, spec: ModelSpec) -> Finding:
        config, local = self._question.config, self._place().local
        try:
            gpu = None if config.wanted_device == "cpu" else self._gpu()
        except LLMCliError:
            return skipped("torch or the GPU does not work; --device cpu plans without a GPU")
        facts = read_model_facts(local.path, spec) if local else self._outlined().facts
        return model.check_plan(facts, config, read_hardware_facts(gpu))

    def _answers(self) -> Finding:
        return self._of_files(self._smoke)

    def _smoke(self, folder: Path, spec: ModelSpec) -> Finding:
        options = dataclasses.asdict(self._question.config)
        name = str(self._question.model)
        limit_s = SMOKE_LIMIT_S
        return model.check_smoke(
            call_apart(smoke.generate, limit_s=limit_s, folder=str(folder), name=name, options=options)
        )


def _after(earlier: Once[Finding], look: Callable[[], Finding]) -> Finding:
    """What `look` finds, unless an earlier check stands in its way, which has told why."""
    try:
        finding = earlier()
    except LLMCliError:
        return skipped("see above")
    return finding if finding.status == "skip" else look()
