"""The models that a chat can run with, and how one of them comes to be loaded in the background.

`LocalModels` are those of this machine and the hub, `RemoteModels` those of a server. Made by `cli/chat.py`;
`/model` switches through it.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from llmcli.config import EngineConfig, Substitutes
from llmcli.hub.models import BUNDLED_NAME, LocalModel, resolve_model
from llmcli.structured import StructuredOutput
from llmcli.ui.backend import load_backend
from llmcli.ui.loading import Loader
from llmcli.ui.notes import Notes
from llmcli.ui.parameters import Parameters
from llmcli.ui.remote.backend import RemoteBackend, choose_model, told_form
from llmcli.ui.remote.server import Server
from llmcli.ui.waiting import ModelName, Waiting

if TYPE_CHECKING:
    from llmcli.hub.download import BeforeFetch


class Models(Protocol):
    """Where models come from.

    Attributes:
        url: of the server that has them; None for this machine.
        aliases: short names, and the models that they stand for.
    """

    url: str | None
    aliases: Mapping[str, str]

    def names(self) -> list[str]:
        """What can be switched to."""
        ...

    def prepare(self, name: str | None, revision: str | None = None) -> Waiting:
        """A model that is at hand and can be loaded; loading has not begun.

        Raises:
            LLMCliError: it can not be had.
        """
        ...

    def check_form(self, form: StructuredOutput) -> None:
        """Raise a RequestError if answers can not be held to a form here."""
        ...


class LocalModels:
    """The models of this machine, and those that the hub gives.

    Args:
        config: how each of them is run.
        substitutes: what is used in place of their own files.
        aliases: short names, and the models that they stand for.
        before_fetch: looks at what must be fetched, and may refuse it.
        offline: fetch nothing from the hub.
        verbose: tell how loading goes.
    """

    def __init__(
        self,
        config: EngineConfig,
        notes: Notes,
        parameters: Parameters,
        *,
        substitutes: Substitutes | None = None,
        aliases: Mapping[str, str] | None = None,
        before_fetch: "BeforeFetch | None" = None,
        offline: bool = False,
        verbose: bool = False,
    ) -> None:
        self.url: str | None = None
        self._before_fetch = before_fetch
        self._config = config
        self._substitutes = substitutes or Substitutes()
        self.aliases = aliases or {}
        self._notes = notes
        self._parameters = parameters
        self._offline = offline
        self._verbose = verbose

    def names(self) -> list[str]:
        """The bundled model and those in the hub's cache."""
        from llmcli.hub.cache import cached_models
        from llmcli.hub.settings import hub_settings

        cached = cached_models(hub_settings(offline=True))
        return [BUNDLED_NAME, *(model.name for model in cached if model.runnable)]

    def prepare(self, name: str | None, revision: str | None = None) -> Waiting:
        """The model, fetched from the hub when it is not here."""
        model = resolve_model(
            name,
            revision=revision,
            offline=self._offline,
            on_notice=self._notes.dim,
            before_fetch=self._before_fetch,
        )
        loader = Loader(partial(load_backend, model, self._config, self._substitutes))
        return Waiting(
            loader,
            model.name,
            self._notes,
            self._parameters,
            verbose=self._verbose,
            model=ModelName(_name_again(model), model.revision),
        )

    def check_form(self, form: StructuredOutput) -> None:
        """Compile it."""
        from llmcli.text.grammar import check_form  # not for every chat

        check_form(form)


def _name_again(model: LocalModel) -> str:
    """What finds the model again from any folder."""
    return str(Path(model.path).resolve()) if model.source == "folder" else model.name


class RemoteModels:
    """The models of one server."""

    def __init__(
        self, server: Server, notes: Notes, parameters: Parameters, *, verbose: bool = False
    ) -> None:
        self.url: str | None = server.url
        self.aliases: Mapping[str, str] = {}
        self._server = server
        self._notes = notes
        self._parameters = parameters
        self._verbose = verbose
        self._listed: list[Mapping[str, Any]] = []

    def names(self) -> list[str]:
        """What the server lists now."""
        self._listed = list(self._server.models())
        return [str(model["id"]) for model in self._listed]

    def prepare(self, name: str | None, revision: str | None = None) -> Waiting:
        """The server's model of this name, or its first."""
        known = self._listed or list(self._server.models())
        backend = RemoteBackend(self._server, choose_model(known, name, self._server.url))
        return Waiting(
            Loader(lambda on_phase: backend),
            backend.name,
            self._notes,
            self._parameters,
            verbose=self._verbose,
            model=ModelName(backend.name, None, self._server.url),
        )

    def check_form(self, form: StructuredOutput) -> None:
        """See whether there are words for it."""
        told_form(form)
