"""Run llama.cpp's converter on a random model.

    python convert_gguf.py LLAMA_CPP_SOURCE MODEL [options of convert_hf_to_gguf.py]

The converter accepts only tokenizers that it knows, and not the made-up ones of the random models. Nothing is
tokenized in a benchmark, so the file gets the size of the vocabulary and nothing else of it.
"""

import runpy
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    source = Path(sys.argv[1])
    script = source / "convert_hf_to_gguf.py"
    sys.path[:0] = [str(source), str(source / "gguf-py")]
    from conversion import base

    base.TextModel._set_vocab_sentencepiece = _no_such_vocabulary
    base.TextModel._set_vocab_llama_hf = _no_such_vocabulary
    base.TextModel._set_vocab_gpt2 = _vocabulary_size_only  # what is left to try
    sys.argv = [str(script), *sys.argv[2:]]
    runpy.run_path(str(script), run_name="__main__")


def _vocabulary_size_only(model: Any) -> None:
    model._set_vocab_none()
    model.gguf_writer.add_vocab_size(model.hparams["vocab_size"])


def _no_such_vocabulary(*_: Any, **__: Any) -> None:
    raise FileNotFoundError


if __name__ == "__main__":
    main()
