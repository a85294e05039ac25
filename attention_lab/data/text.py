"""Text as windows of tokens, for language modelling.

A split is one stream: end of text before every document, then its tokens. Windows of T+1 tokens start every T, so
that every token of the stream but the first is a target exactly once; a batch is

  tokens int32 [B, T+1]     inputs tokens[:, :-1], targets tokens[:, 1:]
  mask float32 [B, T]       1 on targets, 0 on the padding that fills the last window of a split
  bytes int32 [B]           UTF-8 bytes of the window's targets (end of text and padding count 0)
  words int32 [B]           words that end in them, between white space; for wikitext2 each line's end is one more

Bits per byte is Σ nll over targets / ln 2 / Σ bytes, perplexity per word exp(Σ nll / Σ words), whatever the tokenizer:
end of text costs, and counts neither bytes nor words. The bytes of a split add up to the size of its text, even where a
tokenizer drops some of it: `metadata["lossless"]` is False then, and bits per byte flatter: what is lost costs nothing.

Windows run across documents. Packed, documents are put whole into rows of T+1 (`packing`), a longer one in pieces that
share a token; a batch has segments int32 [B, T+1] in place of the mask, and all targets lie within a segment.
"""

import dataclasses
import functools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Int

from attention_lab.config import DataConfig
from attention_lab.data import ngram
from attention_lab.data.corpora import TEXTS, corpus
from attention_lab.data.dataset import SPLITS, Arrays, Dataset, Lazy, digest
from attention_lab.data.documents import Corpus
from attention_lab.data.packing import pack
from attention_lab.data.tokenizer import TOKENIZER_FILE, Tokenizer, character_bytes, kept

__all__ = ["TEXTS", "Stream", "load", "packed", "stream", "windows"]

ORDERS = {"interpolated bigram": 2, "interpolated 5-gram": 5}
_SPACES = np.array([chr(point).isspace() for point in range(0x3002)])  # no white space lies above


@dataclasses.dataclass(frozen=True)
class Stream:
  """The tokens of a split [N], and how many bytes and words of the text each stands for [N]."""

  tokens: np.ndarray
  bytes: np.ndarray
  words: np.ndarray
  starts: np.ndarray  # where documents begin


def load(
  data: DataConfig,
  workdir: str | os.PathLike = "",
  vocabulary: int = 512,
  tokenizer: str = "bpe",
  packing: bool = False,
  prefix: int = 0,
) -> Dataset:
  """The text that `data.name` or `data.path` means, in windows of `data.length` tokens, or packed.

  prefix: tokens at the start of a window that are given, and so no targets.

  The tokenizer is restored from `workdir/tokenizer.json` where there is one, else trained on the train split and saved
  there (nowhere if `workdir` is ""). A corpus may yield fewer than `vocabulary` ids; `metadata` says how many.
  Controls, in bits per byte of the test split: the interpolated n-grams of ORDERS. Raises ValueError for a bad name,
  path or text, a split shorter than one window, a tokenizer of another kind or vocabulary.
  """
  if data.length < 1:
    raise ValueError(f"--config.data.length={data.length} is less than 1; give the tokens per window")
  if not 0 <= prefix < data.length or (packing and prefix):
    fix = f"give 0 to {data.length - 1}, and 0 with --config.data.packing"
    raise ValueError(f"--config.data.prefix={prefix} leaves no target, or windows are packed; {fix}")
  texts = corpus(data, by_article=packing)
  file = Path(workdir) / TOKENIZER_FILE if workdir else None
  own = kept(file, tokenizer, texts.splits["train"].values(), vocabulary, lines=tokenizer == "word")
  streams = {split: stream(texts.splits[split], own, texts.lines) for split in SPLITS}
  for split, found in streams.items():
    if len(found.tokens) <= data.length:
      given = f"--config.data.path={data.path}" if data.path else f"--config.data.name={texts.name}"
      window = f"one window of --config.data.length={data.length}"
      raise ValueError(
        f"{given}: the {split} split has {len(found.tokens)} tokens, too few for {window}; give more text"
      )
  cut = packed if packing else functools.partial(windows, prefix=prefix)
  splits = {split: cut(found, data.length) for split, found in streams.items()}
  if file and not file.exists():
    own.save(file)
  metadata = _metadata(texts, streams, own) | {"length": data.length, "packing": packing}
  return Dataset(texts.name, splits, {s: _digest(a) for s, a in splits.items()}, metadata, _controls(streams, own))


def stream(documents: Mapping[str, str], tokenizer: Tokenizer, lines: bool = False) -> Stream:
  """The tokens of all documents, in the order given, each after an end of text; `lines`: a line's end is a word."""
  parts = [_document(text, tokenizer, lines) for text in documents.values()]
  if not parts:
    return Stream(*np.zeros((4, 0), np.int32))
  starts = np.cumsum([0, *(part.shape[1] for part in parts[:-1])])
  return Stream(*np.concatenate(parts, axis=1), starts)


def windows(tokens: Stream, length: int, prefix: int = 0) -> Arrays:
  """Cuts a stream of N > 1 tokens into windows of length+1 at stride `length`; see the module for the arrays.

  Of its first `prefix` tokens none is a target.
  """
  targets = len(tokens.tokens) - 1
  count = -(-targets // length)

  def rows(values: np.ndarray) -> np.ndarray:
    padded = np.zeros(count * length + 1, np.int32)
    padded[: len(values)] = values
    return np.lib.stride_tricks.sliding_window_view(padded, length + 1)[::length].copy()

  mask = (np.arange(count * length) < targets).reshape(count, length)
  first = max(prefix, 1)
  mask[:, : first - 1] = False
  sums = {"bytes": tokens.bytes, "words": tokens.words}
  counted = {name: rows(values)[:, first:].sum(axis=1, dtype=np.int32) for name, values in sums.items()}
  return Arrays({"tokens": rows(tokens.tokens), "mask": mask.astype(np.float32), **counted})


def packed(tokens: Stream, length: int) -> Arrays:
  """Packs the documents of a stream into rows of length+1; every token but each document's first is one target."""

  def rows(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return pack(np.split(values, tokens.starts[1:]), length + 1, overlap=1)

  found, segments = rows(tokens.tokens)
  inside = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)
  sums = {"bytes": tokens.bytes, "words": tokens.words}
  counted = {name: (rows(values)[0][:, 1:] * inside).sum(axis=1, dtype=np.int32) for name, values in sums.items()}
  return Arrays({"tokens": found, "segments": segments, **counted})


def _document(text: str, tokenizer: Tokenizer, lines: bool) -> Int[np.ndarray, "3 N"]:
  """Tokens, bytes and words of end of text and then of `text`."""
  ids, ends = tokenizer.spans(text)
  words = np.searchsorted(word_ends(text, lines), ends, side="right")
  columns = (ids, np.diff(ends, prepend=0), np.diff(words, prepend=0))
  marks = (tokenizer.end_of_text, 0, 0)
  return np.stack([np.concatenate([[mark], column]) for mark, column in zip(marks, columns, strict=True)]).astype(
    np.int32
  )


def word_ends(text: str, lines: bool = False) -> Int[np.ndarray, "W"]:
  """The UTF-8 byte after each word of `text`, ascending; with `lines`, after each line's end too."""
  points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
  space = np.append(_SPACES[np.minimum(points, len(_SPACES) - 1)], True)
  last = ~space[:-1] & space[1:]
  ends = np.cumsum(character_bytes(text))
  return np.sort(np.concatenate([ends[last], ends[points == ord("\n")] if lines else ends[:0]]))


def _digest(arrays: Arrays) -> str:
  """Of all that training reads; words, which only a metric divides by, follow from the text."""
  return digest({name: array for name, array in arrays.arrays.items() if name != "words"})


def _metadata(texts: Corpus, streams: Mapping[str, Stream], tokenizer: Tokenizer) -> dict:
  documents = {split: list(texts.splits[split]) for split in SPLITS}
  unknown = tokenizer.special.get("unknown", -1)
  metadata = {
    "vocabulary": tokenizer.vocabulary,
    "tokenizer": tokenizer.kind,
    "lossless": tokenizer.lossless or (tokenizer.kind == "char" and not _holds(streams.values(), unknown)),
    "end_of_text": tokenizer.end_of_text,
    "split": texts.split,
    "documents": {split: len(names) for split, names in documents.items()},
    "tokens": {split: len(found.tokens) for split, found in streams.items()},
    "bytes": {split: int(found.bytes.sum(dtype=np.int64)) for split, found in streams.items()},
    "words": {split: int(found.words.sum(dtype=np.int64)) for split, found in streams.items()},
  }
  if texts.split == "by topic":
    metadata |= {"held_out": {s: documents[s] for s in ("validation", "test")}, "contained": list(texts.dropped)}
  return metadata


def _holds(streams: Iterable[Stream], token: int) -> bool:
  return any((found.tokens == token).any() for found in streams)


def _controls(streams: Mapping[str, Stream], tokenizer: Tokenizer) -> Lazy:
  train, test = streams["train"], streams["test"]
  size = int(test.bytes.sum(dtype=np.int64))
  compute = functools.partial(ngram.bits_per_byte, train.tokens, test.tokens, size, vocabulary=tokenizer.vocabulary)
  return Lazy({name: functools.partial(compute, order=order) for name, order in ORDERS.items()})
