"""How far logits are from the reference's: sums over tokens, and the figures made of them.

Owns the arithmetic, in float64, and the bounds. Knows no model. Called by `scripts/measure_accuracy.py`.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

PERPLEXITY_BOUND = 0.005  # of the exact mode's perplexity, either way
EXACT_ERROR_BOUND = 1e-4  # relative error of the exact mode's logits, or its perplexity would be no measure


@dataclass(frozen=True)
class Measures:
    """Sums and maxima over scored tokens; two of them add up.

    Attributes:
        loss: sum of -log p(next token of the text), nats.
        squared_error: sum over tokens and vocabulary of (logit - reference logit)².
        squared_spread: sum of (reference logit - mean of its row)².
        largest_error: largest |logit - reference logit|.
        same_top: tokens where both find the same id most likely.
        kl, largest_kl: sum and largest of KL(reference || this), nats.
    """

    tokens: int = 0
    loss: float = 0.0
    squared_error: float = 0.0
    squared_spread: float = 0.0
    largest_error: float = 0.0
    same_top: int = 0
    kl: float = 0.0
    largest_kl: float = 0.0

    def __add__(self, other: "Measures") -> "Measures":
        mine, theirs = asdict(self), asdict(other)
        largest = {
            name: max(mine[name], theirs[name]) for name in mine if name.startswith("largest")
        }  # a NaN shows in the sums
        return Measures(**{name: mine[name] + theirs[name] for name in mine} | largest)

    @property
    def perplexity(self) -> float:
        mean = self.loss / self.tokens
        return math.exp(mean) if mean < math.log(1e300) else math.inf

    @property
    def relative_error(self) -> float:
        """Root mean square of the error over that of the reference's logits around their mean."""
        return math.sqrt(self.squared_error / self.squared_spread)

    @property
    def top1_agreement(self) -> float:
        return self.same_top / self.tokens

    @property
    def mean_kl(self) -> float:
        return self.kl / self.tokens


def compare(reference: Tensor, logits: Tensor, targets: Tensor) -> Measures:
    """Score logits [T, vocab] against the reference's; targets [T] are the tokens that follow in the text."""
    truth, found = reference.to(torch.float64), logits.to(torch.float64)
    true_log, found_log = truth.log_softmax(-1), found.log_softmax(-1)
    kl = (true_log.exp() * (true_log - found_log)).sum(-1)
    error = found - truth
    return Measures(
        tokens=len(targets),
        loss=-float(found_log.gather(1, targets.unsqueeze(1)).sum()),
        squared_error=float(error.square().sum()),
        squared_spread=float((truth - truth.mean(-1, keepdim=True)).square().sum()),
        largest_error=float(error.abs().max()),
        same_top=int((truth.argmax(-1) == found.argmax(-1)).sum()),
        kl=float(kl.sum()),
        largest_kl=float(kl.max()),
    )


def broken_bounds(modes: Mapping[str, Measures], exact: str) -> list[str]:
    """A sentence for each bound that a mode breaks, NaN included; `exact` names the mode that the others must
    match."""
    sentences = []
    if not modes[exact].relative_error <= EXACT_ERROR_BOUND:
        sentences.append(
            f"{exact}: relative error of the logits {modes[exact].relative_error:.1e}, bound {EXACT_ERROR_BOUND:.0e}"
        )
    for name, measures in modes.items():
        change = measures.perplexity / modes[exact].perplexity - 1
        if not abs(change) <= PERPLEXITY_BOUND:
            sentences.append(
                f"{name}: perplexity {change:+.2%} against {exact}, bound {PERPLEXITY_BOUND:.1%} either way"
            )
    return sentences


def figures(parts: Mapping[str, Measures], exact: Measures) -> dict[str, Any]:
    """A JSON-ready record of a mode: of all tokens, and of each part of them."""
    whole = sum(parts.values(), Measures())
    return _figures(whole) | {
        "perplexity_ratio": whole.perplexity / exact.perplexity,
        "parts": {name: _figures(part) for name, part in parts.items() if part.tokens},
    }


def _figures(measures: Measures) -> dict[str, Any]:
    return {
        "tokens": measures.tokens,
        "perplexity": measures.perplexity,
        "relative_error": measures.relative_error,
        "largest_error": measures.largest_error,
        "top1_agreement": measures.top1_agreement,
        "mean_kl": measures.mean_kl,
        "largest_kl": measures.largest_kl,
    }
