"""Real small models give the greedy ids and texts that transformers gave."""

import json
from pathlib import Path

import pytest

from llmcli import LLM, SamplingParams


@pytest.mark.parametrize("name", ["stories260K", "TinyStories-656K"])
def test_greedy_ids_and_texts_are_the_golden_ones(shared_data: Path, name: str) -> None:
    folder = shared_data / "models" / name
    golden = json.loads((folder / "golden_greedy.json").read_text())
    llm = LLM(folder, dtype="float32", num_threads=1)
    params = SamplingParams(temperature=0, max_tokens=golden["max_new_tokens"])
    outputs = llm.generate([case["prompt"] for case in golden["cases"]], params, use_tqdm=False)
    for output, case in zip(outputs, golden["cases"], strict=True):
        assert output.prompt_token_ids == case["prompt_ids"]
        assert output.outputs[0].token_ids == case["output_ids"]
        assert output.outputs[0].text == case["text"]


@pytest.mark.parametrize("name", ["stories260K", "TinyStories-656K"])
def test_logprobs_of_the_first_token_agree_with_the_golden_logits(shared_data: Path, name: str) -> None:
    folder = shared_data / "models" / name
    golden = json.loads((folder / "golden_greedy.json").read_text())
    llm = LLM(folder, dtype="float32", num_threads=1)
    for case in golden["cases"]:
        params = SamplingParams(temperature=0, max_tokens=1, logprobs=5)
        (output,) = llm.generate(case["prompt"], params, use_tqdm=False)
        assert output.outputs[0].logprobs is not None
        top = output.outputs[0].logprobs[0].top
        assert [entry.token_id for entry in top] == case["first_top5_ids"]
        gaps = [entry.logprob - top[0].logprob for entry in top]
        expected = [value - case["first_top5_logits"][0] for value in case["first_top5_logits"]]
        assert gaps == pytest.approx(expected, abs=1e-4)
