"""Writes a small Llama and its tokenizer as a Hugging Face folder, from text at hand; nothing is downloaded.

Run with the interpreter of an environment that has transformers: ``python make_model.py FOLDER TEXT …``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

STEPS, BATCH, LENGTH = 150, 16, 64
END = "<end>"


def tokenizer_of(text: str) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer of 512 tokens, whose chats are their messages and nothing more."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([text], trainer)
    found = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END)
    found.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return found


def llama(tokens: int, end: int) -> LlamaForCausalLM:
    """Return an untrained Llama of 250,000 weights."""
    config = LlamaConfig(
        vocab_size=tokens,
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
    )
    return LlamaForCausalLM(config)


def main() -> None:
    """Make both."""
    torch.manual_seed(0)
    folder, *texts = map(Path, sys.argv[1:])
    text = "\n\n".join(path.read_text() for path in texts)
    tokenizer = tokenizer_of(text)
    ids = torch.tensor(tokenizer(text)["input_ids"])
    model = llama(len(tokenizer), tokenizer.eos_token_id)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(1, STEPS + 1):
        rows = ids[torch.randint(len(ids) - LENGTH, (BATCH, 1)) + torch.arange(LENGTH)]
        loss = model(input_ids=rows, labels=rows).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 50 == 0:
            print(f"{step} of {STEPS}: {loss.item():.2f} nats a token", flush=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main()
