"""A few tokens from a model: the whole way from the folder to text. Runs in a process of its own, see `child.py`."""

import time
from pathlib import Path
from typing import Any

from llmcli.config import EngineConfig
from llmcli.errors import EngineError
from llmcli.hub.models import LocalModel

PROMPT = "Hello! Who are you?"
NUM_TOKENS = 16


def generate(folder: str, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Load a model and let it answer, greedily.

    Args:
        options: fields of EngineConfig.

    Returns:
        "text", "tokens", "load_s", "answer_s".

    Raises:
        LLMCliError: it can not be loaded, or the answer failed.
    """
    from llmcli.engine.build import build_engine

    started = time.monotonic()
    engine = build_engine(LocalModel(name, Path(folder), None, "folder"), EngineConfig(**options))
    loaded = time.monotonic()
    tokenizer = engine.tokenizer
    ids = (
        tokenizer.encode(PROMPT)
        if tokenizer.chat_template is None
        else tokenizer.encode_chat([{"role": "user", "content": PROMPT}])
    )
    engine.add(ids, engine.default_params(temperature=0.0, max_tokens=NUM_TOKENS))
    text, count = "", 0
    while engine.has_work:
        for event in engine.step():
            text, count = text + event.text, count + len(event.token_ids)
            if event.finish_reason == "error":
                raise EngineError(f"the answer failed: {event.error or 'unknown error'}")
    answered = time.monotonic()
    engine.close()
    return {"text": text, "tokens": count, "load_s": loaded - started, "answer_s": answered - loaded}
