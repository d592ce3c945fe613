"""One choice of a request while it runs: its text so far, its clock, and the events made from both."""

from dataclasses import replace

from llmcli.outputs import FinishReason, Logprob, RequestStats, TokenEvent, TokenLogprobs
from llmcli.scheduler.request import Request
from llmcli.scheduler.scheduler import SequenceUpdate
from llmcli.text.detokenizer import Detokenizer
from llmcli.text.tokenizer import Tokenizer


class Choice:
    """Collects what a sequence produced since its last event.

    Attributes:
        started_at: when it was first part of a step; monotonic seconds, None while it waits.
    """

    def __init__(self, request_id: str, request: Request, tokenizer: Tokenizer, now: float) -> None:
        self.request_id = request_id
        self.started_at: float | None = None
        self._request = request
        self._tokenizer = tokenizer
        self._detokenizer = Detokenizer(
            tokenizer,
            stop=request.params.stop,
            include_stop=request.params.include_stop_str_in_output,
            skip_special_tokens=request.params.skip_special_tokens,
        )
        self._added_at = now
        self._first_token_at: float | None = None
        self._text: list[str] = []
        self._token_ids: list[int] = []
        self._logprobs: list[TokenLogprobs] = []

    def take(self, update: SequenceUpdate, now: float) -> str | None:
        """Take in a token; returns the stop string that it completed, if any."""
        assert update.token_id is not None
        if self._first_token_at is None:
            self._first_token_at = now
        self._token_ids.append(update.token_id)
        if update.logprobs is not None:
            self._logprobs.append(self._with_text(update.logprobs))
        if update.finish_reason == "stop" and not self._request.params.include_stop_str_in_output:
            return None  # the token that ends a sequence is no part of its text
        self._text.append(self._detokenizer.push((update.token_id,)))
        return self._detokenizer.matched

    def event(self) -> TokenEvent:
        """What came since the last event."""
        text, ids, logprobs = "".join(self._text), tuple(self._token_ids), tuple(self._logprobs)
        self._text, self._token_ids, self._logprobs = [], [], []
        return TokenEvent(self.request_id, self._request.choice, text, ids, logprobs or None)

    def final_event(
        self, reason: FinishReason, stop_reason: int | str | None, error: str | None, now: float
    ) -> TokenEvent:
        """The last event: what is left of the text, why it ended, and the counts."""
        self._text.append(self._detokenizer.finish())
        if reason == "length" and self._detokenizer.matched is not None:  # held back until it was certain
            reason, stop_reason = "stop", self._detokenizer.matched
        return replace(
            self.event(), finish_reason=reason, stop_reason=stop_reason, error=error, stats=self._stats(now)
        )

    def _stats(self, now: float) -> RequestStats:
        request, start = self._request, self._added_at
        return RequestStats(
            num_prompt_tokens=len(request.prompt_ids),
            num_cached_tokens=request.num_cached_tokens,
            num_output_tokens=len(request.output_ids),
            queue_s=(self.started_at or now) - start,
            ttft_s=(self._first_token_at or now) - start,
            total_s=now - start,
        )

    def _with_text(self, logprobs: TokenLogprobs) -> TokenLogprobs:
        def named(entry: Logprob) -> Logprob:
            return replace(entry, text=self._tokenizer.decode([entry.token_id], skip_special_tokens=False))

        return TokenLogprobs(named(logprobs.sampled), tuple(named(entry) for entry in logprobs.top))
