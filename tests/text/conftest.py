"""Tokenizers of the shared data folder, loaded once; tests that need them skip where the folder is absent."""

from functools import cache
from pathlib import Path

import pytest

from llmcli.text.tokenizer import Tokenizer, load_tokenizer

DATA = Path(__file__).parents[3] / "shared" / "data"
MODELS = ("models/stories260K", "models/TinyStories-656K")
FOLDERS = (*MODELS, "tokenizers/mistral-v1", "tokenizers/minimind", "tokenizers/gpt2")


@cache
def _load(name: str) -> Tokenizer:
    return load_tokenizer(data_folder(name))


def data_folder(name: str) -> Path:
    folder = DATA / name
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    return folder


@pytest.fixture(params=MODELS)
def model_folder(request: pytest.FixtureRequest) -> Path:
    return data_folder(request.param)


@pytest.fixture(scope="module", params=FOLDERS)
def folder(request: pytest.FixtureRequest) -> Path:
    return data_folder(request.param)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return _load(str(folder.relative_to(DATA)))


@pytest.fixture(scope="session")
def minimind() -> Tokenizer:
    return _load("tokenizers/minimind")


@pytest.fixture(scope="session")
def minimind_folder() -> Path:
    return data_folder("tokenizers/minimind")
