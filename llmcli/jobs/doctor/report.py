"""The results as JSON, and as a block for a bug report that holds no secrets.

Owns what is secret. Environment variables are shown by a list of those that may be; user names, home folders, tokens
and passwords in addresses are taken out of everything.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmcli.errors import quote
from llmcli.jobs.doctor.check import Result, Status

STATUSES: tuple[Status, ...] = ("pass", "warn", "fail", "skip")
MAX_VALUE = 200
SHOWN_VARIABLES = (
    "COLORTERM",
    "COLUMNS",
    "CUDA_VISIBLE_DEVICES",
    "FORCE_COLOR",
    "HF_ENDPOINT",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "LLMCLI_DEVICE",
    "LLMCLI_DTYPE",
    "LLMCLI_GPU_MEMORY_UTILIZATION",
    "LLMCLI_KERNELS",
    "LLMCLI_KV_CACHE_DTYPE",
    "LLMCLI_KV_CACHE_MEMORY",
    "LLMCLI_LM_HEAD",
    "LLMCLI_MAX_MODEL_LEN",
    "LLMCLI_OFFLINE",
    "LLMCLI_THREADS",
    "NO_COLOR",
    "OMP_NUM_THREADS",
    "OMP_PROC_BIND",
    "OMP_THREAD_LIMIT",
    "PYTHONUTF8",
    "PYTORCH_CUDA_ALLOC_CONF",
    "TERM",
    "TRITON_INTERPRET",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_STATE_HOME",
)
# Of these it matters whether they are set; their values are nobody's business.
NAMED_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")
HIDDEN = "***"
SECRET_NAME = re.compile("TOKEN(?!S|I)|SECRET|PASSWORD|API_KEY")  # not MAX_TOKENS, not TOKENIZERS_…
SECRETS = (
    re.compile(r"\b(?:hf_|api_org_|sk-|ghp_|gho_|glpat-)[A-Za-z0-9_-]{8,}"),
    re.compile(r"(?<=//)[^/@\s]+(?=@)"),  # user and password of an address
    re.compile(r"(?<=Bearer )\S+"),
    re.compile(r"(?<=of account )\S+|(?<=fetched by )\S+|(?<=account )'?\S+(?= has no access)"),
)


def as_json(results: Sequence[Result], version: str) -> dict[str, Any]:
    """Everything that was found, for programs."""
    return {
        "llmcli": version,
        "ok": not any(result.finding.status == "fail" for result in results),
        "counts": _counts(results),
        "checks": [
            {
                "name": result.name,
                "status": result.finding.status,
                "found": result.finding.found,
                "fix": result.finding.fix,
                "details": list(result.finding.details),
                "seconds": round(result.seconds, 3),
            }
            for result in results
        ],
    }


def summary(results: Sequence[Result]) -> str:
    """'14 passed, 2 warnings, 1 failed, 3 not checked'; what there is none of is left out."""
    counts = _counts(results)
    words = {
        "pass": "passed",
        "warn": "warning" + "s" * (counts["warn"] > 1),
        "fail": "failed",
        "skip": "not checked",
    }
    return ", ".join(f"{counts[status]} {words[status]}" for status in STATUSES if counts[status])


def as_report(
    results: Sequence[Result], heading: Sequence[str], environment: Mapping[str, str], home: Path
) -> str:
    """A block of Markdown to paste into a bug report.

    Args:
        heading: lines on the program and the machine.
        environment: of the process.
    """
    width = max((len(result.name) for result in results), default=0)
    lines = list(heading)
    lines.append("")
    for result in results:
        finding = result.finding
        lines.append(f"{finding.status.upper()}  {result.name:<{width}}  {finding.found}")
        lines += [f"{'':{width + 8}}{detail}" for detail in finding.details]
    lines += ["", *_variables(environment)]
    text = redact("\n".join(lines).rstrip(), home, environment)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=2))
    title = f"llmcli doctor: {summary(results)}"
    return f"<details><summary>{title}</summary>\n\n{fence}text\n{text}\n{fence}\n\n</details>"


def redact(text: str, home: Path, environment: Mapping[str, str]) -> str:
    """`text` without tokens, passwords, account names, and with ~ in the place of the home folder."""
    for name, value in environment.items():
        if SECRET_NAME.search(name) and len(value) >= 6:
            text = text.replace(value, HIDDEN)
    for secret in SECRETS:
        text = secret.sub(HIDDEN, text)
    text = shorten_home(text, home)
    # The name of the user is also a part of folders like /run/user or /scratch/ada.
    user = environment.get("USER", "") or environment.get("LOGNAME", "")
    return re.sub(rf"(?<=/){re.escape(user)}(?=/|\s|$)", HIDDEN, text) if len(user) > 1 else text


def shorten_home(text: str, home: Path) -> str:
    """Paths below the home folder as people write them: ~/models."""
    folder = str(home)
    return re.sub(rf"{re.escape(folder)}(?=/|\s|,|\)|$)", "~", text) if len(folder) > 1 else text


def _variables(environment: Mapping[str, str]) -> list[str]:
    shown = [
        f"{name}={quote(environment[name], MAX_VALUE)}" for name in SHOWN_VARIABLES if name in environment
    ]
    named = {name for name in NAMED_VARIABLES for form in (name, name.lower()) if environment.get(form)}
    shown += [f"{name} is set" for name in sorted(named)]
    others = sum(name.startswith("LLMCLI_") and name not in SHOWN_VARIABLES for name in environment)
    return shown + ([f"{others} other LLMCLI_ variables are set"] if others else [])


def _counts(results: Sequence[Result]) -> dict[str, int]:
    found = Counter(result.finding.status for result in results)
    return {status: found[status] for status in STATUSES}
