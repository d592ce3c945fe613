"""The way to the hub: address, proxy, offline switches, the token, and access to one model."""

from collections.abc import Mapping
from dataclasses import dataclass

from llmcli.errors import LLMCliError, quote
from llmcli.hub.health import HubAnswer
from llmcli.jobs.doctor.check import Finding, failed, failed_by, passed, skipped, warned

PUBLIC_HUB = "https://huggingface.co"
SLOW_S = 2.0
OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "LLMCLI_OFFLINE")
PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
FALSE = ("", "0", "false", "no", "off")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkFacts:
    """How the hub is reached.

    Attributes:
        endpoint: its address.
        offline: whether connections are switched off.
        environment: of the process.
        token_in_file: whether a login is saved, too.
    """

    endpoint: str
    offline: bool
    environment: Mapping[str, str]
    token_in_file: bool

    def switches(self) -> list[str]:
        """The variables that switch the network off, as set."""
        env = self.environment
        return [
            f"{name}={quote(env[name], 20)}"
            for name in OFFLINE_VARIABLES
            if env.get(name, "").lower() not in FALSE
        ]


def check_offline(facts: NetworkFacts) -> Finding:
    """Whether a variable keeps models from being fetched."""
    switches = facts.switches()
    if switches:
        names = " ".join(switch.partition("=")[0] for switch in switches)
        return warned(f"{', '.join(switches)}: nothing is fetched", f"unset {names}, if that is not meant")
    return passed(
        "--offline: nothing is fetched" if facts.offline else "no switch is set: models are fetched"
    )


def check_hub(facts: NetworkFacts, answer: HubAnswer) -> Finding:
    """The hub answers."""
    details = [f"{name}={_without_login(value)}" for name, value in _proxies(facts.environment).items()]
    if facts.endpoint != PUBLIC_HUB:
        details.append(f"HF_ENDPOINT={_without_login(facts.endpoint)}")
    if answer.error is not None:
        finding = failed_by(answer.error)
        return failed(finding.found, finding.fix, *finding.details, *details)
    where = f"{_without_login(facts.endpoint)} answers in {answer.seconds:.1f} s"
    if answer.status >= 500 or answer.status == 429:
        return warned(f"{where}, with status {answer.status}", "try again later", *details)
    if answer.seconds > SLOW_S:
        return warned(f"{where}, which is slow", "see whether a proxy or the line is at fault", *details)
    return passed(where, *details)


def check_token(facts: NetworkFacts, answer: HubAnswer | None) -> Finding:
    """Whose token is sent. It is never shown.

    Args:
        answer: of the hub; None where it was not asked.
    """
    in_environment = bool(facts.environment.get("HF_TOKEN"))
    source = "HF_TOKEN" if in_environment else "the saved login"
    if not in_environment and not facts.token_in_file:
        return passed("none; only gated and private models want one", "hf auth login saves one")
    if answer is None or answer.token in ("none", "unknown"):
        return passed(f"there is one ({source}); whose it is was not asked or not told")
    if answer.token == "refused":
        unset = "unset HF_TOKEN, or set a valid one" if in_environment else "hf auth login"
        return failed(f"the hub does not accept the token of {source}, not even for public models", unset)
    found = f"of account {quote(answer.account, 60)} ({source})"
    if in_environment and facts.token_in_file:
        return warned(
            f"{found}, which goes before the saved login",
            "unset HF_TOKEN, if the saved login is the one that is meant",
        )
    return passed(found)


def check_model_access(name: str, error: LLMCliError | None, account: str) -> Finding:
    """Whether the hub gives a model to this user.

    Args:
        error: what came of asking; None is access.
    """
    if error is not None:
        return failed_by(error)
    return passed(
        f"{quote(name)} may be fetched" + (f" by {quote(account, 60)}" if account else " without a login")
    )


def not_asked(facts: NetworkFacts) -> Finding | None:
    """Why no connection is opened; None where one may be."""
    if not facts.offline:
        return None
    return skipped("; ".join(facts.switches()) or "--offline")


def _proxies(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: environment[name] for name in PROXY_VARIABLES if environment.get(name)}


def _without_login(address: str) -> str:
    """An address without user name and password, whether it names a scheme or not."""
    scheme, slashes, rest = address.rpartition("//")
    return quote(scheme + slashes + rest.rpartition("@")[2])
