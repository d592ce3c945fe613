"""Who is measured, by name, and what each of them must offer."""

from pathlib import Path
from typing import Any, Protocol

from scripts.peers.llama_cpp import LlamaCpp
from scripts.peers.measure import Measured
from scripts.peers.ours import Ours
from scripts.peers.place import Place
from scripts.peers.transformers_peer import Transformers
from scripts.peers.vllm_peer import Vllm
from scripts.peers.workload import BenchTest, Kind, Model


class Loaded(Protocol):
    """A model that is ready; `versions` goes into the result."""

    versions: dict[str, Any]

    def measure(self, test: BenchTest) -> Measured: ...


class Peer(Protocol):
    """A system that runs models.

    Attributes:
        title: system and format of the weights, for tables.
        kinds: the tests that it can run.
    """

    title: str
    kinds: tuple[Kind, ...]

    def prepare(self, place: Place, jobs: int) -> None:
        """Build or install what is missing, with `jobs` compilers at once; raises SetupError."""

    def prepare_model(self, place: Place, model: Model) -> None:
        """Make the model's files that are missing; raises SetupError."""

    def missing(self, place: Place, model: Model) -> str:
        """Why it can not run the model; empty where it can."""

    def python(self, place: Place) -> Path:
        """The interpreter of its worker."""

    def variables(self, place: Place, model: Model, threads: int) -> dict[str, str]:
        """Environment variables of its worker, on top of the user's."""

    def load(self, place: Place, model: Model, threads: int) -> Loaded:
        """Called in the worker."""


PEERS: dict[str, Peer] = {
    "llmcli": Ours(),
    "llama.cpp": LlamaCpp(),
    "vllm": Vllm(awq=False),
    "vllm-awq": Vllm(awq=True),
    "transformers": Transformers(),
    "llmcli-avx2": Ours("avx2"),
    "llmcli-torch": Ours("torch"),
}
