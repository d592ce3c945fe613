"""Turns the trained tiny chat model into the AWQ `gemm` form with autoawq and measures what that costs.

It needs autoawq 0.2.9 beside torch and transformers; it runs on a CPU.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from tiny_chat_dialogues import dialogues
from train_tiny_chat import HELD_OUT_SEED, Encoder, batch_of, documents, held_out_loss, packed_rows
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PACK_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
CALIBRATION_SEED = 424_242
SAMPLING_DEFAULTS = {"do_sample": True, "temperature": 0.4, "top_p": 0.9, "max_new_tokens": 400}


def quantize(source: Path, out: Path, group_size: int, samples: int) -> None:
    """Quantizes with autoawq, calibrated on dialogues of the generator, and saves the model folder."""
    from awq import AutoAWQForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(source)
    encoder = Encoder(tokenizer)
    # autoawq would put a second start token before a text, so it gets token ids.
    found = (encoder.dialogue(messages)[0] for messages in dialogues(CALIBRATION_SEED))
    calibration = [next(found) for _ in range(samples)]
    model = AutoAWQForCausalLM.from_pretrained(str(source), device_map="cpu", torch_dtype=torch.float32)
    model.quantize(
        tokenizer,
        quant_config={"zero_point": True, "q_group_size": group_size, "w_bit": 4, "version": "GEMM"},
        calib_data=calibration,
        max_calib_samples=samples,
        max_calib_seq_len=512,
        n_parallel_calib_samples=16,
    )
    model.model.half()
    model.save_quantized(str(out))
    tokenizer.save_pretrained(out)
    finish_folder(out, tokenizer)


def finish_folder(out: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Writes the sampling defaults and makes the configs readable for older loaders too."""
    config = json.loads((out / "config.json").read_text("utf-8"))
    config.update(architectures=["LlamaForCausalLM"], dtype="float16", torch_dtype="float16", use_cache=True)
    config["rope_theta"] = config.get("rope_parameters", {}).get("rope_theta", 10_000.0)
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
    generation = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **SAMPLING_DEFAULTS,
    }
    (out / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n", "utf-8")
    tokens = json.loads((out / "tokenizer_config.json").read_text("utf-8"))
    if (out / "chat_template.jinja").exists():
        tokens["chat_template"] = (out / "chat_template.jinja").read_text("utf-8")
        (out / "chat_template.jinja").unlink()
    for key in ("backend", "is_local", "local_files_only"):
        tokens.pop(key, None)
    if "extra_special_tokens" in tokens:
        tokens["additional_special_tokens"] = tokens.pop("extra_special_tokens")
    tokens["tokenizer_class"] = "PreTrainedTokenizerFast"
    (out / "tokenizer_config.json").write_text(json.dumps(tokens, indent=2) + "\n", "utf-8")


def unpack(packed: torch.Tensor) -> torch.Tensor:
    """Unpacks eight 4-bit numbers from each 32-bit number, in the order of the `gemm` form."""
    out = torch.empty(packed.shape[0], packed.shape[1] * 8, dtype=torch.int32)
    for place, column in enumerate(PACK_ORDER):
        out[:, column::8] = (packed >> (4 * place)) & 15
    return out


def load_dense(folder: Path) -> LlamaForCausalLM:
    """Loads an AWQ folder as a dense model: a weight is (number - zero point) * scale of its group."""
    config = LlamaConfig.from_pretrained(folder)
    group_size = int(config.quantization_config["group_size"])
    del config.quantization_config
    tensors = load_file(folder / "model.safetensors")
    dense: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(".qweight"):
            layer = name.removesuffix(".qweight")
            scales, zeros = tensors[layer + ".scales"].float(), unpack(tensors[layer + ".qzeros"])
            if scales.shape[0] * group_size != tensor.shape[0]:
                raise ValueError(
                    f"{layer}: {scales.shape[0]} groups of {group_size} do not make {tensor.shape[0]}"
                )
            numbers = unpack(tensor).float()
            weight = (numbers - zeros.repeat_interleave(group_size, 0)) * scales.repeat_interleave(
                group_size, 0
            )
            dense[layer + ".weight"] = weight.t().contiguous()
        elif not name.endswith((".qzeros", ".scales")):
            dense[name] = tensor.float()
    config.dtype = "float32"
    model = LlamaForCausalLM(config).float().eval()
    missing, unexpected = model.load_state_dict(dense, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise ValueError(f"missing {missing}, unexpected {unexpected}")
    model.tie_weights()
    return model


def report(source: Path, out: Path) -> None:
    """Prints the perplexity on held-out dialogues before and after, and the size of the folder."""
    tokenizer = AutoTokenizer.from_pretrained(source)
    rows = packed_rows(documents(Encoder(tokenizer), HELD_OUT_SEED, [], []), 512, tokenizer.pad_token_id)
    batch = batch_of(rows, 48, "cpu")
    trained = LlamaForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    for name, model in (("trained", trained), ("quantized", load_dense(out))):
        loss = held_out_loss(model, batch, "cpu", bf16=False)
        print(f"{name}: loss {loss:.4f}, perplexity {math.exp(loss):.3f}", file=sys.stderr)
    size = sum(path.stat().st_size for path in out.iterdir())
    print(f"{out}: {size / 1e6:.2f} MB", file=sys.stderr)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trained", type=Path, help="folder that train_tiny_chat.py wrote")
    parser.add_argument("out", type=Path, help="folder for the AWQ model")
    parser.add_argument("--group-size", type=int, default=64)
    parser.add_argument("--samples", type=int, default=96, help="dialogues to calibrate on")
    parser.add_argument("--report-only", action="store_true", help="only measure an AWQ folder made before")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if not args.report_only:
        quantize(args.trained, args.out, args.group_size, args.samples)
    report(args.trained, args.out)


if __name__ == "__main__":
    main()
