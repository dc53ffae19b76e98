"""Tokenizers that refuse what CLIP cannot read, where open_clip's own cut the rest off."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import open_clip
import torch
from torch import Tensor

from monai_ext.base import SettingError

Tokenizer = Callable[..., Tensor]


class StrictTokenizer:
    """An open_clip tokenizer that raises where it would cut a sentence.

    Args:
        tokenizer: called with sentences and ``context_length``; ``None`` for the one of OpenAI's CLIP.
        context_length: tokens that the text tower reads, start and end of text among them; 77 in most.
        pad_id: fills the rest of a row.
    """

    def __init__(self, tokenizer: Tokenizer | None = None, context_length: int = 77, pad_id: int = 0) -> None:
        self.tokenizer, self.context_length, self.pad_id = tokenizer, context_length, pad_id

    def __call__(self, sentences: Sequence[str]) -> Tensor:
        """Return token ids, ``(n, context_length)`` int64.

        Raises:
            SettingError: a sentence has more tokens than the text tower reads.
        """
        tokenizer = self.tokenizer or _openai_tokenizer()
        room = 4 * self.context_length  # enough to see how far a sentence goes on
        ids = torch.as_tensor(tokenizer(list(sentences), context_length=room))
        for sentence, row in zip(sentences, ids, strict=True):
            count = int((row != self.pad_id).nonzero().max()) + 1
            if count > self.context_length:
                more = " or more" if count == room else ""
                raise SettingError(
                    f"prompt {_short(sentence)!r}: {count}{more} tokens, the CLIP reads {self.context_length}; "
                    "shorten the name or the template",
                    code="setting.prompt_length",
                )
        return ids[:, : self.context_length].long()


@cache
def _openai_tokenizer() -> Tokenizer:
    tokenizer: Tokenizer = open_clip.SimpleTokenizer()
    return tokenizer


def tokenizer_for(architecture: str | None, config: Mapping[str, Any]) -> StrictTokenizer:
    """Return the tokenizer of an open_clip configuration; one of the hub is fetched at its first use.

    Args:
        architecture: open_clip's name of it, if it has one.
        config: with ``text_cfg``.
    """
    text = config["text_cfg"]
    tokenizer = None
    if "hf_tokenizer_name" in text or text.get("tokenizer_kwargs"):
        tokenizer = _HubTokenizer(architecture, text.get("hf_tokenizer_name", ""))
    return StrictTokenizer(tokenizer, text.get("context_length", 77), text.get("pad_id", 0))


class _HubTokenizer:
    def __init__(self, architecture: str | None, name: str) -> None:
        self.architecture, self.name = architecture, name
        self.loaded: Tokenizer | None = None

    def __call__(self, sentences: list[str], context_length: int) -> Tensor:
        if self.loaded is None:
            try:
                if self.architecture is None:
                    self.loaded = open_clip.tokenizer.HFTokenizer(self.name)
                else:
                    self.loaded = open_clip.get_tokenizer(self.architecture)
            except (OSError, ImportError, RuntimeError, ValueError) as error:
                raise SettingError(
                    f"{self.name or self.architecture}: the tokenizer cannot be had ({_short(str(error))}); install "
                    "transformers, and fetch it once with the hub in reach",
                    code="setting.tokenizer",
                ) from error
        return self.loaded(sentences, context_length=context_length)


def _short(text: str) -> str:
    first = text.strip().splitlines()[0] if text.strip() else text
    return first if len(first) <= 60 else f"{first[:57]}..."
