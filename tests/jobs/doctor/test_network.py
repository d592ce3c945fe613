"""The way to the hub, judged from plain facts."""

from typing import Any

import pytest

from llmcli.errors import GatedModelError, OfflineError
from llmcli.hub.health import HubAnswer
from llmcli.jobs.doctor.network import (
    PUBLIC_HUB,
    NetworkFacts,
    check_hub,
    check_model_access,
    check_offline,
    check_token,
    not_asked,
)

ANSWER = HubAnswer(0.2, None, 401, "none")
ACCEPTED = HubAnswer(0.2, None, 200, "accepted", "ada")
REFUSED = HubAnswer(0.2, None, 401, "refused")


def facts(**change: Any) -> NetworkFacts:
    plain: dict[str, Any] = {
        "endpoint": PUBLIC_HUB,
        "offline": False,
        "environment": {},
        "token_in_file": False,
    }
    return NetworkFacts(**plain | change)


def test_no_switch_passes() -> None:
    assert check_offline(facts()).status == "pass"
    assert (
        check_offline(facts(environment={"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": ""})).status == "pass"
    )


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "LLMCLI_OFFLINE"])
def test_a_variable_that_switches_the_network_off_is_a_warning(name: str) -> None:
    finding = check_offline(facts(offline=True, environment={name: "1"}))
    assert finding.status == "warn"
    assert finding.fix.startswith(f"unset {name}")


def test_the_option_is_meant_and_passes() -> None:
    assert check_offline(facts(offline=True)).found == "--offline: nothing is fetched"


def test_offline_nothing_is_asked() -> None:
    assert not_asked(facts()) is None
    option, variable = (
        not_asked(facts(offline=True)),
        not_asked(facts(offline=True, environment={"HF_HUB_OFFLINE": "1"})),
    )
    assert (option.found, variable.found) == ("not checked: --offline", "not checked: HF_HUB_OFFLINE=1")


def test_a_hub_that_refuses_a_request_without_a_token_is_there() -> None:
    finding = check_hub(facts(), ANSWER)
    assert (finding.status, finding.found) == ("pass", "https://huggingface.co answers in 0.2 s")


def test_a_hub_that_does_not_answer_fails_with_the_error_of_every_command() -> None:
    error = OfflineError("the name is not known", fix="check the network")
    finding = check_hub(facts(), HubAnswer(5.0, error, 0, "none"))
    assert (finding.status, finding.found, finding.fix) == (
        "fail",
        "the name is not known",
        "check the network",
    )


@pytest.mark.parametrize("answer", [HubAnswer(0.1, None, 503, "none"), HubAnswer(0.1, None, 429, "none")])
def test_a_hub_in_trouble_is_a_warning(answer: HubAnswer) -> None:
    assert check_hub(facts(), answer).status == "warn"


def test_a_slow_hub_is_a_warning() -> None:
    assert check_hub(facts(), HubAnswer(3.0, None, 401, "none")).status == "warn"


@pytest.mark.parametrize("proxy", ["http://ada:pa/ss@proxy:3128", "ada:pass@proxy:3128"])
def test_a_proxy_and_another_address_are_shown_without_passwords(proxy: str) -> None:
    finding = check_hub(
        facts(endpoint="https://ada:pass@mirror.example", environment={"https_proxy": proxy}), ANSWER
    )
    shown = " ".join((finding.found, *finding.details))
    assert "proxy:3128" in shown
    assert "mirror.example" in shown
    assert "ada" not in shown
    assert "ss@" not in shown


def test_no_token_is_fine() -> None:
    finding = check_token(facts(), ANSWER)
    assert (finding.status, finding.details) == ("pass", ("hf auth login saves one",))


@pytest.mark.parametrize(
    ("change", "source"),
    [({"token_in_file": True}, "the saved login"), ({"environment": {"HF_TOKEN": "hf_x"}}, "HF_TOKEN")],
)
def test_a_token_is_told_with_its_account_and_its_source(change: dict[str, Any], source: str) -> None:
    finding = check_token(facts(**change), ACCEPTED)
    assert (finding.status, finding.found) == ("pass", f"of account ada ({source})")


def test_a_variable_over_a_saved_login_is_a_warning() -> None:
    finding = check_token(facts(token_in_file=True, environment={"HF_TOKEN": "hf_x"}), ACCEPTED)
    assert finding.status == "warn"
    assert "unset HF_TOKEN" in finding.fix


def test_a_refused_token_fails_with_the_way_to_a_new_one() -> None:
    assert check_token(facts(token_in_file=True), REFUSED).fix == "hf auth login"
    finding = check_token(facts(environment={"HF_TOKEN": "hf_secret"}), REFUSED)
    assert finding.status == "fail"
    assert "unset HF_TOKEN" in finding.fix
    assert "hf_secret" not in str(finding)


def test_offline_a_token_is_only_known_to_be_there() -> None:
    assert "whose it is was not asked" in check_token(facts(token_in_file=True), None).found


def test_access_to_a_model_is_told_with_the_account() -> None:
    assert check_model_access("ada/m", None, "ada").found == "ada/m may be fetched by ada"
    assert check_model_access("ada/m", None, "").found == "ada/m may be fetched without a login"


def test_no_access_fails_with_the_errors_own_words() -> None:
    finding = check_model_access("ada/m", GatedModelError("gated", why="a licence", fix="accept it"), "ada")
    assert (finding.status, finding.found, finding.fix, finding.details) == (
        "fail",
        "gated",
        "accept it",
        ("a licence",),
    )
