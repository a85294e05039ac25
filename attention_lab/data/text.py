"""Text as windows of tokens, for language modelling.

A split is one stream: <|endoftext|> before every document, then its tokens. Windows of T+1 tokens start every T, so
that every token of the stream but the first is a target exactly once; a batch is

  tokens int32 [B, T+1]     inputs tokens[:, :-1], targets tokens[:, 1:]
  mask float32 [B, T]       1 on targets, 0 on the padding that fills the last window of a split
  bytes int32 [B]           UTF-8 bytes of the window's targets (<|endoftext|> and padding count 0)

and bits per byte is Σ nll over targets / ln 2 / Σ bytes: <|endoftext|> costs and counts no bytes. The bytes of a split
add up to the size of its text. Windows run across documents.
"""

import functools
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Int

from attention_lab.config import DataConfig
from attention_lab.data import ngram
from attention_lab.data.documents import Corpus, user_text
from attention_lab.data.source import SPLITS, Arrays, Lazy, Source, chosen, digest
from attention_lab.data.tokenizer import Tokenizer
from attention_lab.data.topics import python_docs

TEXTS = ("python_docs",)
TOKENIZER_FILE = "tokenizer.json"
ORDERS = {"interpolated bigram": 2, "interpolated 5-gram": 5}


def load(data: DataConfig, workdir: str | os.PathLike = "", vocabulary: int = 512) -> Source:
  """The text that `data.name` or `data.path` means, in windows of `data.length` tokens.

  The tokenizer is restored from `workdir/tokenizer.json` where there is one, else trained on the train split and saved
  there (nowhere if `workdir` is ""). A small corpus may yield fewer than `vocabulary` ids; `facts` says how many.
  Controls, in bits per byte of the test split: the interpolated n-grams of ORDERS. Raises ValueError for a bad name,
  path or text, a split shorter than one window, a tokenizer of another vocabulary.
  """
  if data.length < 1:
    raise ValueError(f"--config.data.length={data.length} is less than 1; give the tokens per window")
  corpus = python_docs() if chosen(data, TEXTS) else user_text(data.path)
  file = Path(workdir) / TOKENIZER_FILE if workdir else None
  tokenizer = _tokenizer(corpus, vocabulary, file)
  streams = {split: stream(corpus.splits[split], tokenizer) for split in SPLITS}
  for split, tokens in streams.items():
    if len(tokens) <= data.length:
      given = f"--config.data.path={data.path}" if data.path else f"--config.data.name={corpus.name}"
      window = f"one window of --config.data.length={data.length}"
      raise ValueError(f"{given}: the {split} split has {len(tokens)} tokens, too few for {window}; give more text")
  splits = {split: windows(tokens, data.length, tokenizer.byte_lengths) for split, tokens in streams.items()}
  if file and not file.exists():
    tokenizer.save(file)
  digests = {split: digest(arrays.arrays) for split, arrays in splits.items()}
  facts = _facts(corpus, streams, tokenizer) | {"length": data.length}
  return Source(corpus.name, splits, digests, facts, _controls(streams, tokenizer))


def stream(documents: Mapping[str, str], tokenizer: Tokenizer) -> Int[np.ndarray, "N"]:
  """The tokens of all documents, in the order given, each after an <|endoftext|>."""
  mark = np.array([tokenizer.end_of_text], np.int32)
  parts = [part for text in documents.values() for part in (mark, tokenizer.encode(text))]
  return np.concatenate(parts) if parts else mark[:0]


def windows(tokens: Int[np.ndarray, "N"], length: int, byte_lengths: Int[np.ndarray, "V"]) -> Arrays:
  """Cuts a stream of N > 1 tokens into windows of length+1 at stride `length`; see the module for the arrays."""
  targets = len(tokens) - 1
  count = -(-targets // length)
  padded = np.zeros(count * length + 1, np.int32)
  padded[: len(tokens)] = tokens
  mask = (np.arange(count * length) < targets).reshape(count, length)
  rows = np.lib.stride_tricks.sliding_window_view(padded, length + 1)[::length].copy()
  sizes = (byte_lengths[rows[:, 1:]] * mask).sum(axis=1, dtype=np.int32)
  return Arrays({"tokens": rows, "mask": mask.astype(np.float32), "bytes": sizes})


def _tokenizer(corpus: Corpus, vocabulary: int, file: Path | None) -> Tokenizer:
  restored = Tokenizer.load(file) if file and file.exists() else None
  if restored and restored.vocabulary == vocabulary:
    return restored
  trained = Tokenizer.train(corpus.splits["train"].values(), vocabulary)
  if restored and restored.vocabulary != trained.vocabulary:
    found = f"{file} has {restored.vocabulary} ids"
    raise ValueError(f"--config.data.vocabulary={vocabulary}, but {found}; give that number or another --workdir")
  return restored or trained


def _facts(corpus: Corpus, streams: Mapping[str, np.ndarray], tokenizer: Tokenizer) -> dict:
  documents = {split: list(corpus.splits[split]) for split in SPLITS}
  facts = {
    "vocabulary": tokenizer.vocabulary,
    "end_of_text": tokenizer.end_of_text,
    "split": corpus.split,
    "documents": {split: len(names) for split, names in documents.items()},
    "tokens": {split: len(tokens) for split, tokens in streams.items()},
    "bytes": {split: _size(tokens, tokenizer) for split, tokens in streams.items()},
  }
  if corpus.split == "by topic":
    facts |= {"held_out": {s: documents[s] for s in ("validation", "test")}, "contained": list(corpus.dropped)}
  return facts


def _controls(streams: Mapping[str, np.ndarray], tokenizer: Tokenizer) -> Lazy:
  train, test = streams["train"], streams["test"]
  size = _size(test, tokenizer)
  compute = functools.partial(ngram.bits_per_byte, train, test, size, vocabulary=tokenizer.vocabulary)
  return Lazy({name: functools.partial(compute, order=order) for name, order in ORDERS.items()})


def _size(tokens: np.ndarray, tokenizer: Tokenizer) -> int:
  return int(tokenizer.byte_lengths[tokens].sum(dtype=np.int64))
