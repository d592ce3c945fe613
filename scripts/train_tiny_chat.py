"""Trains the bundled tiny chat model: a byte-level BPE tokenizer and a small Llama, on a CPU or a GPU.

The schedule is sized by wall-clock time (--minutes), so it ends on time also on a machine that is shared. The
training state is saved to --out every few minutes; the same command goes on from there after a stop.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tiny_chat_corpus import CorpusStory, load_instructions, load_stories
from tiny_chat_dialogues import Message, dialogues
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PAD, BOS, END = "<|pad|>", "<|bos|>", "<|end|>"
ROLES = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"}
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{{ message['content'] | trim }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
HELD_OUT_STORIES = 100
HELD_OUT_SEED = 999_983
IGNORED = -100
LONG_CONTEXT = 1024
PLAIN_SHARE = 0.1


@dataclass
class Progress:
    """What has been done so far; kept with the weights."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    loss: float = 0.0
    held_out_loss: float = 0.0
    rounds: int = 0


def train_tokenizer(stories: list[CorpusStory], vocab_size: int) -> PreTrainedTokenizerFast:
    """Trains the byte-level BPE on the stories and on generated dialogues."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BOS, END, *ROLES.values()],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [story.text for story in stories]
    for _, messages in zip(range(20_000), dialogues(0), strict=False):
        texts += [message["content"] for message in messages]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=END,
        pad_token=PAD,
        extra_special_tokens=list(ROLES.values()),
        chat_template=CHAT_TEMPLATE,
        model_max_length=LONG_CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def make_model(tokenizer: PreTrainedTokenizerFast, args: argparse.Namespace) -> LlamaForCausalLM:
    """Makes the untrained model."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=args.hidden,
        intermediate_size=args.intermediate,
        num_hidden_layers=args.layers,
        num_attention_heads=args.hidden // 32,
        num_key_value_heads=args.hidden // 64,
        head_dim=32,
        max_position_embeddings=LONG_CONTEXT,
        rope_theta=10_000.0,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


class Encoder:
    """Turns dialogues and plain stories into ids and labels: the loss counts answers and story text only."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.raw = tokenizer.backend_tokenizer
        self.bos = self.raw.token_to_id(BOS)
        self.end = self.raw.token_to_id(END)
        self.roles = {role: self.raw.token_to_id(token) for role, token in ROLES.items()}

    def _ids(self, text: str) -> list[int]:
        return self.raw.encode(text, add_special_tokens=False).ids

    def dialogue(self, messages: list[Message]) -> tuple[list[int], list[int]]:
        """Encodes what the chat template renders."""
        ids, labels = [self.bos], [IGNORED]
        for message in messages:
            body = [*self._ids(message["content"]), self.end]
            ids += [self.roles[message["role"]], *body]
            labels += [IGNORED, *(body if message["role"] == "assistant" else [IGNORED] * len(body))]
        return ids, labels

    def story(self, text: str) -> tuple[list[int], list[int]]:
        """Encodes a story as plain text."""
        body = [*self._ids(text), self.end]
        return [self.bos, *body], [IGNORED, *body]


def documents(
    encoder: Encoder, seed: int, stories: list[CorpusStory], hard: list[str]
) -> Iterator[tuple[list[int], list[int]]]:
    """Yields encoded dialogues and, now and then, a story as plain text."""
    rng = random.Random(seed)
    for messages in dialogues(seed, stories, hard):
        if stories and rng.random() < PLAIN_SHARE:
            yield encoder.story(rng.choice(stories).text)
        yield encoder.dialogue(messages)


def packed_rows(
    source: Iterator[tuple[list[int], list[int]]], length: int, pad: int
) -> Iterator[tuple[list[int], list[int]]]:
    """Packs whole documents into rows: the longest waiting document that still fits goes in first."""
    waiting: list[tuple[list[int], list[int]]] = []
    while True:
        ids: list[int] = []
        labels: list[int] = []
        while True:
            while len(waiting) < 64:
                document = next(source)
                if len(document[0]) <= length:
                    waiting.append(document)
            fitting = [i for i, document in enumerate(waiting) if len(document[0]) <= length - len(ids)]
            if not fitting:
                break
            # The first place is drawn in order of arrival, the others fill the row up.
            place = fitting[0] if not ids else max(fitting, key=lambda i: len(waiting[i][0]))
            more_ids, more_labels = waiting.pop(place)
            ids += more_ids
            labels += more_labels
        yield ids + [pad] * (length - len(ids)), labels + [IGNORED] * (length - len(labels))


def batch_of(rows: Iterator[tuple[list[int], list[int]]], count: int, device: str) -> dict[str, torch.Tensor]:
    """Takes the next rows as tensors."""
    taken = [next(rows) for _ in range(count)]
    return {
        "input_ids": torch.tensor([ids for ids, _ in taken], device=device),
        "labels": torch.tensor([labels for _, labels in taken], device=device),
    }


def own_document_mask(ids: torch.Tensor, bos: int) -> torch.Tensor:
    """Lets a token see the tokens before it in its own document, not the other documents of the row."""
    document = (ids == bos).cumsum(1)
    same = document[:, :, None] == document[:, None, :]
    return (same & torch.ones_like(same).tril())[:, None]


def loss_of(model: LlamaForCausalLM, batch: dict[str, torch.Tensor], device: str, bf16: bool) -> torch.Tensor:
    """Computes the mean loss of the batch."""
    mask = own_document_mask(batch["input_ids"], model.config.bos_token_id)
    with torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
        output = model.model(input_ids=batch["input_ids"], attention_mask=mask, use_cache=False)
        hidden = output.last_hidden_state[:, :-1]
        labels = batch["labels"][:, 1:]
        counted = labels != IGNORED
        logits = model.lm_head(hidden[counted])
    return torch.nn.functional.cross_entropy(logits.float(), labels[counted])


def make_optimizers(model: LlamaForCausalLM, args: argparse.Namespace) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, Adam for the rest."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=args.muon_lr, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=args.adam_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def learning_rate_factor(done: float) -> float:
    """Warms up over the first 2 % and then falls to 2 % along a cosine."""
    if done < 0.02:
        return max(done, 0.0005) / 0.02
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, (done - 0.02) / 0.98)))


def save(
    out: Path,
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    optimizers: list[torch.optim.Optimizer],
    progress: Progress,
) -> None:
    """Saves the model folder and the state to go on from."""
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    state = {"progress": asdict(progress), "optimizers": [o.state_dict() for o in optimizers]}
    torch.save(state, out / "training_state.pt.tmp")
    (out / "training_state.pt.tmp").replace(out / "training_state.pt")
    (out / "training_facts.json").write_text(json.dumps(asdict(progress), indent=1) + "\n")


def adapt_threads(wanted: int) -> None:
    """Uses one thread while others keep the processors busy: threads that wait for each other lose more."""
    others = os.getloadavg()[0] - torch.get_num_threads()
    torch.set_num_threads(1 if others > 0.6 * (os.cpu_count() or 1) else wanted)


def train(args: argparse.Namespace) -> None:
    """Runs the training."""
    torch.manual_seed(args.seed)
    device = args.device
    stories = load_stories(args.corpora)
    hard = load_instructions(args.corpora)
    held_out, stories = stories[-HELD_OUT_STORIES:], stories[:-HELD_OUT_STORIES]
    progress = Progress()
    if (args.out / "training_state.pt").exists():
        tokenizer = PreTrainedTokenizerFast.from_pretrained(args.out)
        model = LlamaForCausalLM.from_pretrained(args.out, dtype=torch.float32).to(device)
        optimizers = make_optimizers(model, args)
        state = torch.load(args.out / "training_state.pt", map_location=device)
        progress = Progress(**state["progress"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
    else:
        tokenizer = train_tokenizer(stories, args.vocab)
        model = make_model(tokenizer, args).to(device)
        optimizers = make_optimizers(model, args)
    progress.rounds += 1
    encoder = Encoder(tokenizer)
    pad = tokenizer.pad_token_id
    test_rows = packed_rows(documents(encoder, HELD_OUT_SEED, held_out, hard[:20]), args.length, pad)
    test_batch = batch_of(test_rows, 24, device)
    seed = args.seed * 1000 + progress.rounds
    short_rows = packed_rows(documents(encoder, seed, stories, hard[20:]), args.length, pad)
    long_rows = packed_rows(documents(encoder, seed + 500, stories, hard[20:]), LONG_CONTEXT, pad)
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {len(stories)} stories", file=sys.stderr)
    last_save = last_test = time.monotonic()
    while progress.seconds < args.minutes * 60:
        start = time.monotonic()
        if args.device == "cpu" and progress.step % 10 == 0:
            adapt_threads(args.threads)
        long = progress.step % 8 == 7
        count = args.batch * args.length // LONG_CONTEXT if long else args.batch
        batch = batch_of(long_rows if long else short_rows, count, device)
        loss = loss_of(model, batch, device, args.bf16)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        factor = learning_rate_factor(progress.seconds / (args.minutes * 60))
        for optimizer, rate in zip(optimizers, (args.muon_lr, args.adam_lr), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        progress.step += 1
        progress.tokens += batch["input_ids"].numel()
        progress.loss = loss.item() if progress.loss == 0 else 0.95 * progress.loss + 0.05 * loss.item()
        progress.seconds += time.monotonic() - start
        if progress.step % 20 == 0:
            rate_now = batch["input_ids"].numel() / (time.monotonic() - start)
            print(
                f"step {progress.step} tokens {progress.tokens} minutes {progress.seconds / 60:.1f} "
                f"loss {progress.loss:.3f} lr x{factor:.3f} {rate_now:.0f} tok/s, "
                f"{torch.get_num_threads()} threads",
                file=sys.stderr,
                flush=True,
            )
        if time.monotonic() - last_test > args.test_minutes * 60:
            progress.held_out_loss = held_out_loss(model, test_batch, device, args.bf16)
            print(
                f"step {progress.step} held-out loss {progress.held_out_loss:.3f}",
                file=sys.stderr,
                flush=True,
            )
            last_test = time.monotonic()
        if time.monotonic() - last_save > args.save_minutes * 60:
            save(args.out, model, tokenizer, optimizers, progress)
            last_save = time.monotonic()
    progress.held_out_loss = held_out_loss(model, test_batch, device, args.bf16)
    print(f"end: {progress}", file=sys.stderr)
    save(args.out, model, tokenizer, optimizers, progress)


def held_out_loss(model: LlamaForCausalLM, batch: dict[str, torch.Tensor], device: str, bf16: bool) -> float:
    """Measures the loss on dialogues and stories that the training never saw."""
    with torch.no_grad():
        parts = [
            loss_of(model, {name: tensor[i : i + 8] for name, tensor in batch.items()}, device, bf16).item()
            for i in range(0, len(batch["input_ids"]), 8)
        ]
    return sum(parts) / len(parts)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpora", type=Path, required=True, help="folder with the text corpora")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model and the training state")
    parser.add_argument("--minutes", type=float, default=60.0, help="wall-clock minutes of training")
    parser.add_argument("--save-minutes", type=float, default=4.0)
    parser.add_argument("--test-minutes", type=float, default=5.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--vocab", type=int, default=2048)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--intermediate", type=int, default=512)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument(
        "--length", type=int, default=512, help="tokens in a row; every eighth batch has longer rows"
    )
    parser.add_argument("--batch", type=int, default=8, help="rows in a batch")
    parser.add_argument("--muon-lr", type=float, default=4e-3)
    parser.add_argument("--adam-lr", type=float, default=3e-3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    train(args)


if __name__ == "__main__":
    main()
