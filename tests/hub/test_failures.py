"""Every way in which the hub can fail has its own message; none is a traceback."""

import errno
from dataclasses import replace

import pytest

from llmcli.errors import (
    GatedModelError,
    LLMCliError,
    ModelNotFoundError,
    ModelUnavailableError,
    OfflineError,
)
from llmcli.hub import transfer
from llmcli.hub.download import obtain
from llmcli.hub.names import HubId
from llmcli.hub.remote import MAX_TRIES
from tests.fake_hub import Fault

ID = HubId("ada/model")
API = "/api/models/ada/model"


def failure(settings, notices, hub_id=ID) -> LLMCliError:
    """The error of a fetch that can not succeed."""
    with pytest.raises(LLMCliError) as caught:
        obtain(hub_id, settings, notices)
    assert caught.value.exit_code == 4
    return caught.value


def test_an_unknown_model_says_that_no_token_was_sent(hub, settings, notices):
    error = failure(settings, notices)
    assert isinstance(error, ModelNotFoundError)
    assert "there is no model ada/model" in error.what
    assert "no token was sent" in error.why


def test_an_unknown_model_says_that_a_token_was_sent(hub, settings, notices):
    assert "a token was sent" in failure(replace(settings, token="hf_x"), notices).why


def test_an_unknown_model_names_the_nearest_in_the_cache(hub, settings, notices, files):
    hub.add("ada/model", files)
    obtain(ID, settings, notices)
    assert "did you mean ada/model" in failure(settings, notices, HubId("ada/modle")).fix


def test_an_unknown_revision_is_not_an_unknown_model(hub, settings, notices, files):
    hub.add("ada/model", files)
    error = failure(settings, notices, HubId("ada/model", "v9"))
    assert "has no revision 'v9'" in error.what


def test_gated_without_a_token_says_how_to_log_in(hub, settings, notices, files):
    hub.add("ada/model", files)
    hub.repos["ada/model"].gated = frozenset({"hf_good"})
    error = failure(settings, notices)
    assert isinstance(error, GatedModelError)
    assert "no token was sent" in error.what
    assert "hf auth login" in error.fix
    assert not settings.repo_dir("ada/model").exists()


def test_gated_with_a_token_says_which_account_needs_access(hub, settings, notices, files):
    hub.add("ada/model", files)
    hub.repos["ada/model"].gated = frozenset({"hf_good"})
    error = failure(replace(settings, token="hf_other"), notices)
    assert isinstance(error, GatedModelError)
    assert "account ada has no access" in error.what
    assert f"accept the licence at {hub.url}/ada/model with account ada" in error.fix
    assert "hf_other" not in str(error)


def test_a_token_with_access_opens_a_gated_model(hub, settings, notices, files):
    hub.add("ada/model", files)
    hub.repos["ada/model"].gated = frozenset({"hf_good"})
    assert (obtain(ID, replace(settings, token="hf_good"), notices) / "model.safetensors").exists()


def test_a_token_that_is_not_valid_is_not_an_unknown_model(hub, settings, notices):
    hub.fail(API, Fault("status", 401))
    error = failure(replace(settings, token="hf_expired"), notices)
    assert "does not accept the token" in error.what
    assert "hf_expired" not in str(error)


def test_a_listed_file_that_is_not_there_is_a_fault_of_the_hub(hub, settings, notices, files):
    hub.add("ada/model", files)
    hub.fail("model.safetensors", Fault("status", 404, headers={"X-Error-Code": "EntryNotFound"}))
    assert "does not have it" in failure(settings, notices).what


def test_too_many_requests_says_when_to_try_again(hub, settings, notices):
    hub.fail(API, Fault("status", 429, headers={"Retry-After": "42"}))
    error = failure(settings, notices)
    assert "too many requests (429)" in error.what
    assert "42 seconds" in error.fix


@pytest.mark.parametrize("status", [500, 503])
def test_a_fault_of_the_server_names_its_status(hub, settings, notices, status):
    hub.fail(API, *[Fault("status", status)] * MAX_TRIES)
    assert f"status {status}, a fault of the server" in failure(settings, notices).what


def test_a_web_page_instead_of_an_answer_is_told_as_such(hub, settings, notices):
    hub.fail(API, Fault("html"))
    error = failure(settings, notices)
    assert "not a hub's" in error.what
    assert "login page" in error.why


def test_a_hub_that_stays_silent_is_a_timeout(hub, settings, notices):
    hub.fail(API, Fault("stall"))
    error = failure(replace(settings, timeout_s=0.3), notices)
    assert isinstance(error, OfflineError)
    assert "stopped sending for 0.3 s" in error.what


def test_a_refused_connection_is_not_a_timeout(settings, notices):
    error = failure(replace(settings, endpoint="http://127.0.0.1:1"), notices)
    assert isinstance(error, OfflineError)
    assert "refused the connection" in error.what


def test_an_unknown_host_is_a_dns_failure(settings, notices):
    error = failure(replace(settings, endpoint="http://no-such-host.invalid"), notices)
    assert "(DNS)" in error.what


def test_a_connection_without_tls_where_it_is_due_is_told(hub, settings, notices):
    error = failure(replace(settings, endpoint=hub.url.replace("http:", "https:")), notices)
    assert "no secure connection" in error.what


def test_a_connection_that_breaks_before_the_end_is_told_and_resumable(hub, settings, notices, files):
    hub.add("ada/model", files)
    hub.fail("model.safetensors", *[Fault("drop")] * transfer.MAX_FAILURES)
    error = failure(settings, notices)
    assert "the connection to" in error.what
    assert (obtain(ID, settings, notices) / "model.safetensors").exists()


def test_a_full_disk_says_where_and_what_to_do(hub, settings, notices, files, monkeypatch):
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    hub.add("ada/model", files)
    monkeypatch.setattr(transfer, "_append", full)
    error = failure(settings, notices)
    assert "the disk is full" in error.what
    assert "HF_HOME" in error.fix


def test_a_cache_that_can_not_be_written_names_the_path(hub, settings, notices, files, tmp_path):
    hub.add("ada/model", files)
    (tmp_path / "file").touch()
    error = failure(replace(settings, cache_dir=tmp_path / "file" / "hub"), notices)
    assert isinstance(error, ModelUnavailableError)
    assert "could not store ada/model" in error.what


def test_control_characters_of_a_server_do_not_reach_the_message(hub, settings, notices, files):
    hub.add("ada/model", {"config.json": b"{}", "\x1b[2Jweights.bin": b"x"})
    with pytest.raises(LLMCliError) as caught:
        obtain(ID, settings, notices)
    assert "\x1b" not in str(caught.value)


def test_a_server_that_stumbles_once_is_asked_again(hub, settings, notices, files):
    hub.add("ada/model", files)
    hub.fail(API, *[Fault("status", 503)] * (MAX_TRIES - 1))
    assert (obtain(ID, settings, notices) / "model.safetensors").exists()


def test_an_unknown_model_names_the_nearest_on_the_hub(hub, settings, notices, files):
    hub.add("ada/tiny-llama-awq", files)
    hub.add("bob/other", files)
    assert (
        "did you mean ada/tiny-llama-awq (on the hub)?"
        in failure(settings, notices, HubId("adda/tiny-llama-awq")).fix
    )


def test_a_mistyped_end_of_a_name_is_found_by_its_beginning(hub, settings, notices, files):
    hub.add("ada/tiny-llama-awq", files)
    assert "ada/tiny-llama-awq (on the hub)" in failure(settings, notices, HubId("ada/tiny-llama-aqw")).fix


def test_a_search_that_fails_leaves_the_message_whole(hub, settings, notices):
    hub.fail("/api/models", *[Fault("status", 500)] * 5)
    error = failure(settings, notices)
    assert "there is no model ada/model" in error.what
    assert error.fix == "check the spelling of owner and name"


def test_a_disabled_model_is_told_as_such(hub, settings, notices, files):
    hub.add("ada/model", files)
    hub.repos["ada/model"].disabled = True
    error = failure(settings, notices)
    assert "was disabled by its owner or by the hub" in error.what
    assert "nobody can fetch it" in error.why


def test_a_token_that_hides_the_saved_login_is_told(hub, settings, notices, files):
    hub.add("ada/model", files)
    hub.accounts = {"hf_env": "eve"}
    hub.repos["ada/model"].gated = frozenset({"hf_saved"})
    error = failure(replace(settings, token="hf_env", hides_login=True), notices)
    assert "account eve has no access" in error.what
    assert "not the one saved by `hf auth login`" in error.why


def test_a_token_that_the_hub_does_not_know_is_not_an_unknown_model(hub, settings, notices, files):
    hub.add("ada/model", files)
    hub.accounts = {"hf_good": "ada"}
    error = failure(replace(settings, token="hf_old", hides_login=True), notices)
    assert "does not accept the token" in error.what
    assert error.fix == "unset HF_TOKEN to use the saved login"


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({"Retry-After": "42"}, "try again in 42 seconds"),
        ({"RateLimit": '"api";r=0;t=55'}, "try again in 55 seconds"),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, "try again in some minutes"),
        ({}, "try again in some minutes"),
    ],
)
def test_the_wait_that_the_server_names_is_told(hub, settings, notices, headers, told):
    hub.fail(API, Fault("status", 429, headers=headers))
    assert failure(settings, notices).fix.startswith(told)


def test_a_renamed_model_is_found_under_its_old_name(hub, settings, notices, files):
    hub.add("ada/new-name", files)
    hub.renamed["ada/model"] = "ada/new-name"
    assert (obtain(ID, settings, notices) / "model.safetensors").exists()
