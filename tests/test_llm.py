"""`LLM`: prompts in any form, outputs in their order, and an engine that is clean whatever happens."""

import signal
from pathlib import Path
from typing import Any

import pytest

from llmcli import LLM, SamplingParams
from llmcli.errors import CheckpointError, EngineError, RequestError, UsageError
from llmcli.runtime.runner import Draw
from llmcli.scheduler.step import Step
from tests.tiny_models import tiny_chat_model

GREEDY = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_chat_model(tmp_path_factory.mktemp("model"), num_hidden_layers=1)


def make(folder: Path, **options: Any) -> LLM:
    return LLM(folder, **{"dtype": "float32", "num_threads": 1, "seed": 3} | options)


@pytest.fixture
def llm(folder: Path) -> LLM:
    return make(folder)


def ids_of(llm: LLM, prompts: Any, params: Any = GREEDY) -> list[list[int]]:
    return [output.outputs[0].token_ids for output in llm.generate(prompts, params, use_tqdm=False)]


def test_every_form_of_a_prompt_gives_the_same_tokens(llm: LLM) -> None:
    ids = llm.get_tokenizer().encode("hello")
    expected = ids_of(llm, "hello")
    assert len(expected) == 1
    forms: list[Any] = ["hello", ids, tuple(ids), {"prompt": "hello"}, {"prompt_token_ids": ids}]
    for form in [*forms, {"prompt": ids}]:
        assert ids_of(llm, form) == expected
    assert ids_of(llm, [forms[0], *forms[3:], list(ids)]) == expected * 4


def test_an_output_carries_its_prompt(llm: LLM) -> None:
    text, ids = llm.generate(["hello", [5, 6, 7]], GREEDY, use_tqdm=False)
    assert (text.prompt, text.prompt_token_ids) == ("hello", llm.get_tokenizer().encode("hello"))
    assert (ids.prompt, ids.prompt_token_ids) == (None, [5, 6, 7])


WRONG_PROMPTS: list[tuple[Any, str]] = [
    (None, "prompts must be text, token ids or a list of them, got None"),
    (5, "prompts must be text, token ids or a list of them, got 5"),
    ([None], "prompt must be text or a list of token ids, got None"),
    ([3.5], "prompt must be text or a list of token ids, got 3.5"),
    ([{"text": "a"}], "exactly one key: prompt or prompt_token_ids"),
    ([{"prompt": "a", "prompt_token_ids": [1]}], "exactly one key"),
    ([{}], "exactly one key"),
    ([{"prompt": 5}], "prompt must be text or a list of token ids, got 5"),
    ([{"prompt_token_ids": "abc"}], "prompt_token_ids must be a list of token ids, got abc"),
    ([[1, "2"]], "token id 2 at index 1 is not in 0..299"),
    ([[]], "the prompt has no tokens"),
    (["ok", [1] * 500], "the prompt has 500 tokens, at most 127 fit the context of 128"),
]


@pytest.mark.parametrize(("prompts", "message"), WRONG_PROMPTS)
def test_a_prompt_that_can_not_be_served_is_refused_before_anything_runs(
    llm: LLM, prompts: Any, message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        llm.generate(prompts, GREEDY, use_tqdm=False)
    assert llm.engine.stats().num_steps == 0
    assert not llm.engine.has_work


def test_no_prompts_are_no_outputs(llm: LLM) -> None:
    assert llm.generate([], GREEDY, use_tqdm=False) == []
    assert llm.chat([], GREEDY, use_tqdm=False) == []


def test_outputs_come_in_the_order_of_the_prompts(llm: LLM) -> None:
    lengths = [9, 1, 5, 2, 12, 3]
    params = [GREEDY.replace(max_tokens=length) for length in lengths]
    prompts = [[10 + number] * (number + 1) for number in range(len(lengths))]
    outputs = llm.generate(prompts, params, use_tqdm=False)
    assert [output.prompt_token_ids for output in outputs] == prompts
    assert [len(output.outputs[0].token_ids) for output in outputs] == lengths
    assert all(output.finished for output in outputs)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_list_of_params_has_one_for_each_prompt(llm: LLM, count: int) -> None:
    with pytest.raises(RequestError, match=f"{count} sampling_params for 2 prompts"):
        llm.generate(["a", "b"], [GREEDY] * count, use_tqdm=False)


def test_params_are_sampling_params(llm: LLM) -> None:
    for wrong in ({"temperature": 0}, [{"temperature": 0}]):
        with pytest.raises(RequestError, match="must be SamplingParams"):
            llm.generate(["a"], wrong, use_tqdm=False)  # type: ignore[arg-type]


def test_several_choices_are_several_draws(llm: LLM) -> None:
    params = SamplingParams(n=3, seed=5, max_tokens=8, ignore_eos=True, temperature=2.0)
    (output,) = llm.generate(["hello"], params, use_tqdm=False)
    assert [choice.index for choice in output.outputs] == [0, 1, 2]
    assert len({tuple(choice.token_ids) for choice in output.outputs}) == 3
    (again,) = llm.generate(["hello"], params, use_tqdm=False)
    assert [c.token_ids for c in again.outputs] == [c.token_ids for c in output.outputs]


def test_an_engine_seed_makes_requests_without_one_repeatable(folder: Path) -> None:
    params = SamplingParams(max_tokens=8, ignore_eos=True, temperature=2.0)
    first, second, other = (ids_of(make(folder, seed=seed), ["a", "a"], params) for seed in (1, 1, 2))
    assert first == second != other
    assert first[0] != first[1]


def test_a_chat_is_the_template_and_then_a_prompt(llm: LLM) -> None:
    messages = [{"role": "user", "content": "hi"}]
    (single,) = llm.chat(messages, GREEDY, use_tqdm=False)
    assert single.prompt_token_ids == llm.get_tokenizer().encode_chat(messages)
    assert ids_of(llm, single.prompt_token_ids) == [single.outputs[0].token_ids]
    longer = [*messages, {"role": "assistant", "content": "ho"}, *messages]
    both = llm.chat([longer, messages], GREEDY, use_tqdm=False)
    assert both[1].outputs[0].token_ids == single.outputs[0].token_ids
    (without,) = llm.chat(messages, GREEDY, add_generation_prompt=False, use_tqdm=False)
    assert len(without.prompt_token_ids) < len(single.prompt_token_ids)


def test_a_model_without_a_chat_template_says_so(tmp_path: Path) -> None:
    folder = tiny_chat_model(tmp_path, num_hidden_layers=1)
    settings = (folder / "tokenizer_config.json").read_text()
    (folder / "tokenizer_config.json").write_text(settings.replace("chat_template", "no_template"))
    with pytest.raises(RequestError, match="no chat template") as caught:
        make(folder).chat([{"role": "user", "content": "hi"}], use_tqdm=False)
    assert caught.value.fix


def test_the_models_defaults_are_used_where_no_params_are_given(tmp_path: Path) -> None:
    folder = tiny_chat_model(tmp_path, num_hidden_layers=1)
    (folder / "generation_config.json").write_text('{"temperature": 0.5, "top_k": 7, "eos_token_id": [2, 9]}')
    llm = make(folder)
    assert llm.get_default_sampling_params() == SamplingParams(temperature=0.5, top_k=7)
    assert llm.engine.eos_ids == {2, 9}
    biased = llm.get_default_sampling_params().replace(logit_bias={9: 100.0})
    (output,) = llm.generate(["a"], biased, use_tqdm=False)
    assert (output.outputs[0].finish_reason, output.outputs[0].token_ids) == ("stop", [9])


class InterruptedRunner:
    """The real runner until a step, which Ctrl-C or a fault ends."""

    def __init__(self, runner: Any, at: int, error: BaseException) -> None:
        self.runner, self.at, self.error, self.steps = runner, at, error, 0

    def begin(self, step: Step) -> Draw:
        self.steps += 1
        if self.steps == self.at:
            raise self.error
        draw: Draw = self.runner.begin(step)
        return draw


@pytest.mark.parametrize("at", [1, 2, 5])
def test_an_interrupt_leaves_the_engine_clean(llm: LLM, at: int) -> None:
    expected = ids_of(llm, ["hello", "world"])
    runner = llm.engine._runner
    llm.engine._runner = InterruptedRunner(runner, at, KeyboardInterrupt())  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        llm.generate(["hello", "world", "more"], GREEDY.replace(n=2, max_tokens=20), use_tqdm=False)
    stats = llm.engine.stats()
    assert (llm.engine.has_work, stats.num_running, stats.num_waiting, stats.kv_usage) == (False, 0, 0, 0)
    llm.engine._runner = runner
    assert ids_of(llm, ["hello", "world"]) == expected


def test_a_fault_of_the_engine_is_told_in_every_output_and_by_the_next_call(llm: LLM) -> None:
    runner = llm.engine._runner
    llm.engine._runner = InterruptedRunner(runner, 3, RuntimeError("gone"))  # type: ignore[assignment]
    outputs = llm.generate(["hello", "world"], GREEDY, use_tqdm=False)
    assert [output.outputs[0].finish_reason for output in outputs] == ["error", "error"]
    assert all("gone" in str(output.outputs[0].error) for output in outputs)
    assert all(len(output.outputs[0].token_ids) == 2 for output in outputs)
    with pytest.raises(EngineError, match="gone"):
        llm.generate("hello", GREEDY, use_tqdm=False)


def test_progress_goes_to_stderr(llm: LLM, capsys: pytest.CaptureFixture[str]) -> None:
    llm.generate(["a", "b"], GREEDY)
    assert capsys.readouterr().out == ""


def test_wrong_options_are_refused_before_the_model_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown engine option dtpye"):
        LLM(tmp_path / "nowhere", dtpye="float32")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        LLM(tmp_path)


def test_an_unknown_kernel_set_is_refused_with_those_there_are(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"fast.*reference"):
        make(folder, kernels="fast")


def test_the_phases_of_loading_are_told_in_order(folder: Path) -> None:
    from llmcli.config import EngineConfig
    from llmcli.engine.build import build_engine
    from llmcli.hub.models import resolve_model

    lines: list[str] = []
    build_engine(resolve_model(str(folder)), EngineConfig(num_threads=1), on_phase=lines.append)
    assert [line.split()[0] for line in lines] == ["read", "loaded", "memory:"]
    assert "LlamaForCausalLM, 1 layers, dense" in lines[0]
    assert "KV cache" in lines[2]


def test_ctrl_c_in_the_middle_of_a_step_counts_when_the_step_is_done(folder: Path) -> None:
    llm = make(folder)
    runner = llm.engine._runner

    class Pressing:
        def begin(self, step: Any) -> Any:
            signal.raise_signal(signal.SIGINT)
            return runner.begin(step)

    llm.engine._runner = Pressing()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        llm.generate([[5, 6, 7]], SamplingParams(max_tokens=20, ignore_eos=True), use_tqdm=False)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert llm.engine.stats().num_steps == 1
    assert not llm.engine.has_work
    llm.engine._runner = runner
    assert llm.generate([[5, 6, 7]], SamplingParams(max_tokens=2), use_tqdm=False)[0].finished


def test_what_was_ignored_is_warned_of(tmp_path: Path) -> None:
    from llmcli.config import EngineConfig
    from llmcli.engine.build import build_engine
    from llmcli.hub.models import resolve_model

    folder = tiny_chat_model(tmp_path)
    (folder / "generation_config.json").write_text('{"temperature": -1}')
    lines: list[str] = []
    build_engine(resolve_model(str(folder)), EngineConfig(num_threads=1), on_warning=lines.append)
    assert len(lines) == 1
    assert "temperature" in lines[0]
    with pytest.warns(UserWarning, match="temperature"):
        make(folder)
