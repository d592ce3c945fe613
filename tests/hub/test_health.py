"""What is amiss in the cache on disk, and what a hub says to one small request."""

from dataclasses import replace
from pathlib import Path

import pytest

from llmcli.errors import GatedModelError, ModelNotFoundError, OfflineError
from llmcli.hub.download import obtain
from llmcli.hub.health import CacheHealth, ask_hub, check_access, read_cache_health
from llmcli.hub.names import HubId
from tests.fake_hub import Fault

ID = HubId("ada/model")
FILES = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": b"w" * 100}
WHOAMI = "/api/whoami-v2"


@pytest.fixture
def cached(hub, settings, notices) -> Path:
    """The snapshot of a model in the cache."""
    hub.add("ada/model", FILES)
    return obtain(ID, settings, notices)


def test_a_cache_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert read_cache_health(tmp_path / "none") == CacheHealth(0, {}, (), {})


def test_a_whole_model_has_no_faults(cached: Path, settings) -> None:
    assert read_cache_health(settings.cache_dir) == CacheHealth(1, {}, (), {})


def test_an_unfinished_download_is_found_with_its_size(cached: Path, settings) -> None:
    (settings.repo_dir("ada/model") / "blobs" / "abc.incomplete").write_bytes(b"x" * 77)
    assert read_cache_health(settings.cache_dir).unfinished == {"ada/model": 77}


def test_a_link_whose_content_is_gone_is_found(cached: Path, settings) -> None:
    weights = cached / "model.safetensors"
    assert weights.is_symlink()
    weights.resolve().unlink()
    health = read_cache_health(settings.cache_dir)
    assert health.broken_links == (weights,)
    assert health.incomplete == {"ada/model": ("*.safetensors",)}


def test_a_missing_file_is_found(cached: Path, settings) -> None:
    (cached / "tokenizer.json").unlink()
    assert read_cache_health(settings.cache_dir).incomplete == {"ada/model": ("tokenizer.json",)}


def test_a_repository_of_another_format_is_not_incomplete(settings) -> None:
    snapshot = settings.cache_dir / "models--ada--gguf" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "model.gguf").write_bytes(b"")
    refs = settings.cache_dir / "models--ada--gguf" / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40)
    assert read_cache_health(settings.cache_dir) == CacheHealth(1, {}, (), {})


def test_a_hub_answers_without_a_token(hub, settings) -> None:
    hub.fail(WHOAMI, Fault("status", 401))
    answer = ask_hub(replace(settings, token=None))
    assert (answer.error, answer.status, answer.token, answer.account) == (None, 401, "none", "")


def test_a_token_is_told_with_its_account(hub, settings) -> None:
    answer = ask_hub(replace(settings, token="hf_x"))
    assert (answer.error, answer.token, answer.account) == (None, "accepted", "ada")
    assert "hf_x" not in repr(answer)


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_can_be_refused(hub, settings, status: int) -> None:
    hub.fail(WHOAMI, Fault("status", status))
    assert ask_hub(replace(settings, token="hf_x")).token == "refused"


def test_a_hub_in_trouble_does_not_tell_about_the_token(hub, settings) -> None:
    hub.fail(WHOAMI, Fault("status", 503))
    answer = ask_hub(replace(settings, token="hf_x"))
    assert (answer.error, answer.status, answer.token) == (None, 503, "unknown")


def test_a_login_page_in_the_place_of_a_hub_is_an_error(hub, settings) -> None:
    hub.fail(WHOAMI, Fault("html"))
    error = ask_hub(settings).error
    assert error is not None
    assert "not a hub's" in error.what


def test_a_hub_that_is_silent_is_an_error_after_the_timeout(hub, settings) -> None:
    hub.fail(WHOAMI, Fault("stall"))
    answer = ask_hub(replace(settings, timeout_s=0.2))
    assert isinstance(answer.error, OfflineError)
    assert "0.2 s" in answer.error.what


def test_a_hub_that_is_not_there_is_an_error(settings) -> None:
    assert isinstance(ask_hub(replace(settings, endpoint="http://127.0.0.1:1")).error, OfflineError)


def test_access_to_a_public_model(hub, settings) -> None:
    hub.add("ada/model", FILES)
    check_access(ID, settings)


def test_no_access_to_a_gated_model(hub, settings) -> None:
    hub.add("ada/model", FILES)
    hub.repos["ada/model"].gated = frozenset({"hf_good"})
    with pytest.raises(GatedModelError, match="no token was sent"):
        check_access(ID, replace(settings, token=None))
    with pytest.raises(GatedModelError, match="account ada has no access"):
        check_access(ID, replace(settings, token="hf_bad"))
    check_access(ID, replace(settings, token="hf_good"))


def test_no_access_to_a_model_that_does_not_exist(hub, settings) -> None:
    with pytest.raises(ModelNotFoundError):
        check_access(ID, settings)


def test_a_model_without_config_is_no_lack_of_access(hub, settings) -> None:
    hub.add("ada/model", {"model.gguf": b"x"})
    check_access(ID, settings)
