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
`metadata["lossy"]` tells how much that is, in words.

Windows run across documents. Packed, documents are put whole into rows of T+1 (`packing`), a longer one in pieces that
share a token; a batch has segments int32 [B, T+1] in place of the mask, and all targets lie within a segment. Each
document is then followed by an end of text too, so that its end is a target.
"""

import dataclasses
import functools
import os
from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Int

from attention_lab.config import DataConfig
from attention_lab.data import ngram
from attention_lab.data.corpora import TEXTS, Corpus, load_corpus
from attention_lab.data.dataset import SPLITS, Arrays, Dataset, Lazy, digest
from attention_lab.data.packing import pack
from attention_lab.data.tokenizer import Tokenizer, character_bytes, restore_or_train, tokenizer_file

__all__ = ["TEXTS", "Stream", "load", "packed", "stream", "windows"]

ORDERS = {"interpolated bigram": 2, "interpolated 5-gram": 5}  # reference lines: name -> order of the n-gram
_SPACES = np.array([chr(point).isspace() for point in range(0x3002)])  # no white space lies above


@dataclasses.dataclass(frozen=True)
class Stream:
  """The tokens of a split [N], and the numbers of bytes and words of the text that each stands for [N]."""

  tokens: np.ndarray
  byte_counts: np.ndarray
  word_counts: np.ndarray
  starts: np.ndarray  # indices at which documents begin


def load(
  data: DataConfig,
  workdir: str | os.PathLike = "",
  vocabulary: int = 512,
  tokenizer: str = "bpe",
  packing: bool = False,
  prefix: int = 0,
) -> Dataset:
  """The text that a data configuration names, in windows of `data.length` tokens, or packed.

  Args:
    data: `data.name` in `data.dir`, or `data.path` for the user's own text; `data.length` is T in tokens.
    workdir: the tokenizer is restored from `workdir/tokenizer.json` where there is one, else trained on the train split
      and saved there; "" = nowhere.
    vocabulary: ids of the tokenizer, at most; `metadata` says how many the corpus yields.
    tokenizer: its kind.
    packing: True packs whole documents into rows.
    prefix: tokens at the start of a window that are given, and so no targets.

  Returns:
    A dataset of the arrays that the module describes. Controls, in bits per byte of the test split: the interpolated
    n-grams of ORDERS.

  Raises:
    ValueError: a bad name, path or text, a split shorter than one window, a tokenizer of another kind or vocabulary.
  """
  if data.length < 1:
    raise ValueError(f"--config.data.length={data.length} is less than 1; give the tokens per window")
  if not 0 <= prefix < data.length or (packing and prefix):
    fix = f"give 0 to {data.length - 1}, and 0 with --config.data.packing"
    raise ValueError(f"--config.data.prefix={prefix} leaves no target, or windows are packed; {fix}")
  corpus = load_corpus(data, by_article=packing)
  file = tokenizer_file(workdir)
  encoder = restore_or_train(file, tokenizer, corpus.splits["train"].values(), vocabulary, lines=tokenizer == "word")
  streams = {split: stream(corpus.splits[split], encoder, corpus.lines) for split in SPLITS}
  for split, part in streams.items():
    if len(part.tokens) <= data.length:
      flag = f"--config.data.path={data.path}" if data.path else f"--config.data.name={corpus.name}"
      window = f"one window of --config.data.length={data.length}"
      raise ValueError(f"{flag}: the {split} split has {len(part.tokens)} tokens, too few for {window}; give more text")
  cut = packed if packing else functools.partial(windows, prefix=prefix)
  splits = {split: cut(part, data.length) for split, part in streams.items()}
  encoder.save_new(file)
  metadata = _metadata(corpus, streams, encoder) | {"length": data.length, "packing": packing}
  return Dataset(corpus.name, splits, {s: _digest(a) for s, a in splits.items()}, metadata, _controls(streams, encoder))


def stream(documents: Mapping[str, str], tokenizer: Tokenizer, lines: bool = False) -> Stream:
  """The tokens of all documents, in the order given, each after an end of text; `lines`: a line's end is a word."""
  parts = [_document(text, tokenizer, lines) for text in documents.values()]
  if not parts:
    return Stream(*np.zeros((4, 0), np.int32))
  starts = np.cumsum([0, *(part.shape[1] for part in parts[:-1])])
  tokens, byte_counts, word_counts = np.concatenate(parts, axis=1)
  return Stream(tokens, byte_counts, word_counts, starts)


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
  sums = {"bytes": tokens.byte_counts, "words": tokens.word_counts}
  counted = {name: rows(values)[:, first:].sum(axis=1, dtype=np.int32) for name, values in sums.items()}
  return Arrays({"tokens": rows(tokens.tokens), "mask": mask.astype(np.float32), **counted})


def packed(tokens: Stream, length: int) -> Arrays:
  """Packs the documents of a stream, an end of text before and after each, into rows of length+1.

  Every token but each document's first is one target.
  """

  def rows(values: np.ndarray, end: int = 0) -> tuple[np.ndarray, np.ndarray]:
    documents = np.split(values, tokens.starts[1:])
    return pack([np.pad(document, (0, 1), constant_values=end) for document in documents], length + 1, overlap=1)

  packed_tokens, segments = rows(tokens.tokens, Tokenizer.end_of_text)
  inside = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)
  sums = {"bytes": tokens.byte_counts, "words": tokens.word_counts}
  counted = {name: (rows(values)[0][:, 1:] * inside).sum(axis=1, dtype=np.int32) for name, values in sums.items()}
  return Arrays({"tokens": packed_tokens, "segments": segments, **counted})


def _document(text: str, tokenizer: Tokenizer, lines: bool) -> Int[np.ndarray, "3 N"]:
  """Tokens, bytes and words of end of text and then of `text`."""
  ids, ends = tokenizer.spans(text)
  counts = np.searchsorted(word_ends(text, lines), ends, side="right")
  columns = (ids, np.diff(ends, prepend=0), np.diff(counts, prepend=0))
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
  """The digest of the arrays that training reads; words, which only a metric divides by, follow from the text."""
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
    "tokens": {split: len(stream.tokens) for split, stream in streams.items()},
    "bytes": {split: int(stream.byte_counts.sum(dtype=np.int64)) for split, stream in streams.items()},
    "words": {split: int(stream.word_counts.sum(dtype=np.int64)) for split, stream in streams.items()},
  }
  if not metadata["lossless"]:
    metadata["lossy"] = _lossy(tokenizer.kind, streams["test"], unknown)
  if texts.split == "by topic":
    metadata |= {"held_out": {s: documents[s] for s in ("validation", "test")}, "contained": list(texts.dropped)}
  return metadata


def _lossy(kind: str, test: Stream, unknown: int) -> str:
  """What a tokenizer with the token `unknown` drops of the test split, and what follows for its scores."""
  dropped = test.tokens == unknown
  size, whole = (int(counts.sum(dtype=np.int64)) for counts in (test.byte_counts[dropped], test.byte_counts))
  more = {"word": ", and white space", "wordpiece": ", and white space, case and accents"}.get(kind, "")
  lost = f"{size:,} of {whole:,} bytes of test, in {int(dropped.sum()):,} unknown of {len(dropped):,} tokens{more}"
  return f"--config.data.tokenizer={kind} loses {lost}: what is lost costs no bits, so bits per byte are not comparable"


def _holds(streams: Iterable[Stream], token: int) -> bool:
  return any((stream.tokens == token).any() for stream in streams)


def _controls(streams: Mapping[str, Stream], tokenizer: Tokenizer) -> Lazy:
  train, test = streams["train"], streams["test"]
  size = int(test.byte_counts.sum(dtype=np.int64))
  compute = functools.partial(ngram.bits_per_byte, train.tokens, test.tokens, size, vocabulary=tokenizer.vocabulary)
  return Lazy({name: functools.partial(compute, order=order) for name, order in ORDERS.items()})
