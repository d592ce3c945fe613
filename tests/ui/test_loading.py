"""A model that loads in the background."""

import threading

import pytest

from llmcli.errors import DoesNotFitError
from llmcli.ui.backend import LocalBackend
from llmcli.ui.loading import Loader, OnPhase
from tests.ui.fake_engine import FakeEngine


def test_waiting_gives_the_backend_and_the_phases() -> None:
    engine = FakeEngine()
    go_on = threading.Event()

    def build(on_phase: OnPhase) -> LocalBackend:
        go_on.wait(5)
        on_phase("read weights")
        return LocalBackend(engine, engine)  # type: ignore[arg-type]

    loader = Loader(build)
    loader.start()
    assert not loader.ready
    go_on.set()
    assert loader.wait().name == "fake"
    assert loader.ready
    assert loader.phases == ["read weights"]
    loader.close()
    assert engine.closed


def test_a_failure_is_told_to_the_callback_and_to_who_waits() -> None:
    def build(on_phase: OnPhase) -> LocalBackend:
        raise DoesNotFitError("too big")

    told: list[BaseException | None] = []
    heard = threading.Event()
    loader = Loader(build)
    loader.start()
    loader.on_done(lambda error: (told.append(error), heard.set()))  # type: ignore[func-returns-value]
    with pytest.raises(DoesNotFitError):
        loader.wait()
    assert heard.wait(5)
    assert [type(error) for error in told] == [DoesNotFitError]
    assert loader.failed
    loader.close()
