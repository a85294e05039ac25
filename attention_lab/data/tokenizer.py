"""Byte-level BPE (Sennrich et al. 2016 over bytes, as GPT-2): lossless on any UTF-8 text, trained in a second."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

END_OF_TEXT = "<|endoftext|>"
SMALLEST = 257  # the bytes and <|endoftext|>
_PIECE = 1 << 20  # characters encoded at a time


class Tokenizer:
  """Text to ids in [0, vocabulary) and back; id 0 is <|endoftext|>, which no text ever encodes to.

  Made by `train` or `load`, around a `tokenizers.Tokenizer`.
  """

  end_of_text = 0

  def __init__(self, core: Any) -> None:
    core.encode_special_tokens = True
    self._core = core
    self.vocabulary: int = core.get_vocab_size()
    characters = [len(core.id_to_token(i)) for i in range(self.vocabulary)]
    characters[self.end_of_text] = 0
    self.byte_lengths = np.array(characters, np.int32)  # UTF-8 bytes that each id stands for; 0 for <|endoftext|>

  @classmethod
  def train(cls, texts: Iterable[str], vocabulary: int) -> "Tokenizer":
    """Learns merges from `texts` until there are `vocabulary` ids, or nothing is left to merge.

    Raises ValueError for a vocabulary below SMALLEST.
    """
    from tokenizers import Tokenizer as Core
    from tokenizers import decoders, models, pre_tokenizers, trainers

    if vocabulary < SMALLEST:
      raise ValueError(f"--config.data.vocabulary={vocabulary} is too small; bytes and {END_OF_TEXT} need {SMALLEST}")
    core = Core(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
      vocab_size=vocabulary, special_tokens=[END_OF_TEXT], initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator((piece for text in texts for piece in _pieces(text)), trainer)
    return cls(core)

  @classmethod
  def load(cls, path: str | os.PathLike) -> "Tokenizer":
    """Restores what `save` wrote; raises ValueError if the file is not a tokenizer of this kind."""
    from tokenizers import Tokenizer as Core

    try:
      core = Core.from_str(Path(path).read_text(encoding="utf-8"))
    except Exception as error:  # the library raises bare Exception
      raise ValueError(f"{path} is not a tokenizer ({error}); delete it to train a new one") from None
    if core.token_to_id(END_OF_TEXT) != cls.end_of_text:
      raise ValueError(f"{path} has no {END_OF_TEXT} as id 0; delete it to train a new one")
    return cls(core)

  def save(self, path: str | os.PathLike) -> None:
    """Writes the tokenizer as JSON, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.write_text(self._core.to_str(), encoding="utf-8")
    partial.replace(path)

  def encode(self, text: str) -> Int[np.ndarray, "N"]:
    """The int32 ids of `text`; their `byte_lengths` add up to its UTF-8 size."""
    encodings = self._core.encode_batch_fast(list(_pieces(text)), add_special_tokens=False)
    return np.concatenate([np.array(encoding.ids, np.int32) for encoding in encodings] or [np.zeros(0, np.int32)])

  def decode(self, ids: Int[np.ndarray, "N"]) -> str:
    """The text of `ids`, without <|endoftext|>; bytes that are no UTF-8 become U+FFFD."""
    return self._core.decode([int(i) for i in ids if i != self.end_of_text], skip_special_tokens=False)


def _pieces(text: str) -> Iterator[str]:
  """`text` in pieces of about _PIECE characters that end with a line where possible: a long encoding takes memory."""
  start = 0
  while start < len(text):
    cut = text.rfind("\n", start, start + _PIECE) + 1
    end = len(text) if len(text) - start <= _PIECE else (cut or start + _PIECE)
    yield text[start:end]
    start = end
