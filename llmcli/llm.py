"""`LLM`: the engine as a Python class, in the shape that vLLM's users know.

    llm = LLM("TheBloke/Llama-2-7b-Chat-AWQ")
    for output in llm.generate(["Once upon a time"], SamplingParams(temperature=0)):
        print(output.outputs[0].text)

It has an engine, it is not one; it runs the loop in the caller's thread until all requests are done.
"""

import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmcli.config import EngineConfig
from llmcli.engine.build import build_engine
from llmcli.engine.engine import Engine
from llmcli.errors import RequestError, quote
from llmcli.hub.models import resolve_model
from llmcli.outputs import CompletionOutput, RequestOutput
from llmcli.sampling import SamplingParams
from llmcli.text.tokenizer import Tokenizer

Prompt = str | Sequence[int] | Mapping[str, Any]
Message = Mapping[str, Any]


class LLM:
    """A model ready to generate.

    Args:
        model: a hub id (`owner/name`, `owner/name@revision`), a folder, or None for the bundled model.
        revision, offline: see `resolve_model`.
        options: fields of `EngineConfig`, such as dtype, max_model_len, kv_cache_memory.

    Raises:
        ModelUnavailableError, ModelNotRunnableError, UsageError: see `resolve_model` and `build_engine`.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        revision: str | None = None,
        offline: bool = False,
        **options: Any,
    ) -> None:
        config = EngineConfig.from_mapping(options)
        name = None if model is None else str(model)
        found = resolve_model(name, revision=revision, offline=offline)
        self.engine: Engine = build_engine(found, config, on_warning=_warn)

    def get_tokenizer(self) -> Tokenizer:
        return self.engine.tokenizer

    def get_default_sampling_params(self) -> SamplingParams:
        """What generation_config.json asks for."""
        return self.engine.default_params()

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
    ) -> list[RequestOutput]:
        """Complete prompts, all of them in one continuous batch.

        Args:
            prompts: one or several of: text, token ids, {"prompt": text}, {"prompt_token_ids": ids}.
            sampling_params: one for all, or one for each; None is the model's defaults.
            use_tqdm: show progress on stderr.

        Returns:
            One output for each prompt, in order.

        Raises:
            RequestError: a prompt or a parameter can not be served; nothing has been generated then.
        """
        encoded = [self._encode(prompt) for prompt in _as_list(prompts)]
        return self._run(encoded, sampling_params, use_tqdm)

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> list[RequestOutput]:
        """Answer one conversation, or several, each a list of {"role", "content"} messages.

        Raises:
            RequestError: as `generate`; also when the model has no chat template, or refuses the messages.
        """
        single = bool(messages) and isinstance(messages[0], Mapping)
        conversations: list[Any] = [messages] if single else list(messages)
        encoded: list[tuple[str | None, list[int]]] = [
            (
                None,
                self.engine.tokenizer.encode_chat(
                    conversation,
                    add_generation_prompt=add_generation_prompt and not continue_final_message,
                    continue_final_message=continue_final_message,
                    tools=tools,
                    template_kwargs=chat_template_kwargs,
                ),
            )
            for conversation in conversations
        ]
        return self._run(encoded, sampling_params, use_tqdm)

    def _encode(self, prompt: Prompt) -> tuple[str | None, list[int]]:
        if isinstance(prompt, Mapping):
            if set(prompt) not in ({"prompt"}, {"prompt_token_ids"}):
                raise RequestError(
                    "a prompt object needs exactly one key: prompt or prompt_token_ids", param="prompt"
                )
            ((key, content),) = prompt.items()
        else:
            key, content = "prompt", prompt
        if isinstance(content, str) and key == "prompt":
            return content, self.engine.tokenizer.encode(content)
        if isinstance(content, str) or not isinstance(content, Sequence):
            expected = "a list of token ids" if key == "prompt_token_ids" else "text or a list of token ids"
            raise RequestError(f"{key} must be {expected}, got {quote(content)}", param=key)
        return None, list(content)

    def _run(
        self,
        encoded: list[tuple[str | None, list[int]]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None,
        use_tqdm: bool,
    ) -> list[RequestOutput]:
        params = self._params(sampling_params, len(encoded))
        for (_, ids), each in zip(encoded, params, strict=True):
            self.engine.check(ids, each)
        outputs: dict[str, RequestOutput] = {}
        try:
            for (text, ids), each in zip(encoded, params, strict=True):
                request_id = self.engine.add(ids, each)
                choices = [CompletionOutput(index) for index in range(each.n)]
                outputs[request_id] = RequestOutput(request_id, text, ids, choices)
            with _progress(len(outputs), use_tqdm) as advance, _interrupts_between_steps() as check:
                while self.engine.has_work:
                    check()
                    for event in self.engine.step():
                        output = outputs[event.request_id]
                        output.apply(event)
                        if event.finish_reason is not None and output.finished:
                            advance()
        finally:
            for request_id, output in outputs.items():
                if not output.finished:
                    self.engine.abort(request_id)
            if self.engine.has_work:
                self.engine.step()
        return list(outputs.values())

    def _params(
        self, sampling_params: SamplingParams | Sequence[SamplingParams] | None, count: int
    ) -> list[SamplingParams]:
        if sampling_params is None:
            return [self.engine.default_params()] * count
        if isinstance(sampling_params, SamplingParams):
            return [sampling_params] * count
        if len(sampling_params) != count:
            raise RequestError(
                f"{len(sampling_params)} sampling_params for {count} prompts", param="sampling_params"
            )
        if not all(isinstance(each, SamplingParams) for each in sampling_params):
            raise RequestError(
                "sampling_params must be SamplingParams, one or a list", param="sampling_params"
            )
        return list(sampling_params)


def _warn(line: str) -> None:
    warnings.warn(line, stacklevel=4)  # shown where the LLM is made


def _as_list(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    """One prompt or many: a list of integers is one prompt."""
    if isinstance(prompts, str | Mapping):
        return [prompts]
    if not isinstance(prompts, Sequence):
        raise RequestError(
            f"prompts must be text, token ids or a list of them, got {quote(prompts)}", param="prompt"
        )
    if prompts and isinstance(prompts[0], int):
        return [prompts]  # type: ignore[list-item]
    return list(prompts)  # type: ignore[arg-type]


@contextmanager
def _interrupts_between_steps() -> Iterator[Callable[[], None]]:
    """Yield a function that raises the KeyboardInterrupt which came meanwhile: no step is cut in the middle."""
    pressed: list[int] = []
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: None
        return

    def check() -> None:
        if pressed:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def _progress(total: int, show: bool) -> Iterator[Any]:
    """Yield a function that advances a progress bar on stderr by one request."""
    if not show:
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("requests"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("requests", total=total)
        yield lambda: progress.advance(task)
