"""Waits for the model where the user can see it, and tells once what there is to know of it.

Used as `ChatState.backend` by the session and the single answer.
"""

from dataclasses import dataclass

from llmcli.errors import quote
from llmcli.ui.backend import Backend
from llmcli.ui.loading import Loader, OnDone
from llmcli.ui.notes import Notes
from llmcli.ui.parameters import Parameters
from llmcli.ui.status import sampling_rows


@dataclass(frozen=True, slots=True)
class ModelName:
    """What finds a model again: a hub id, a folder or the bundled model's name; or a name and its server."""

    name: str
    revision: str | None = None
    url: str | None = None


class Waiting:
    """Call it for the backend; the first call waits, with a spinner on a terminal.

    Args:
        name: the model's name as shown.
        verbose: tell the phases of loading, the plan and the origin of each parameter.
        model: what finds it again, if that is not the name.
    """

    def __init__(
        self,
        loader: Loader,
        name: str,
        notes: Notes,
        parameters: Parameters,
        *,
        verbose: bool,
        model: ModelName | None = None,
    ) -> None:
        self._loader = loader
        self.name = name
        self.model = model or ModelName(name)
        self._notes = notes
        self._parameters = parameters
        self._verbose = verbose
        self._told = False

    def __call__(self) -> Backend:
        if self._loader.ready or not self._notes.console.is_terminal:
            backend = self._loader.wait()
        else:
            with self._notes.console.status(self, spinner="dots"):
                backend = self._loader.wait()
        if not self._told:
            self._told = True
            self._tell(backend)
        return backend

    def start(self) -> None:
        """Begin to load."""
        self._loader.start()

    def close(self) -> None:
        """Let go of the model; a load that is under way is left to end with the process."""
        self._loader.close()

    @property
    def ready(self) -> bool:
        """Whether the model is there."""
        return self._loader.ready

    @property
    def failed(self) -> bool:
        """Whether the model could not be loaded."""
        return self._loader.failed

    def on_done(self, callback: OnDone) -> None:
        """Have `callback` called, from another thread, when the model is there or has failed to load."""
        self._loader.on_done(callback)

    def progress(self) -> str:
        """The model's name, once it is there; before, how far loading is."""
        if self.ready:
            return quote(self.name)
        return f"loading {quote(self.name)} …" + (
            f" {self._loader.phases[-1]}" if self._loader.phases else ""
        )

    def __rich__(self) -> str:
        return self.progress()

    def _tell(self, backend: Backend) -> None:
        for warning in backend.warnings:
            self._notes.warn(warning)
        if self._verbose:
            for phase in self._loader.phases:
                self._notes.dim(phase)
            defaults = sampling_rows(self._parameters, backend.generation_defaults)
            self._notes.table([*backend.describe(), *defaults], "dim")
        if not backend.remembers:
            self._notes.warn(
                f"{backend.name} has no chat template: each message is continued as plain text, alone"
            )
