"""Do two passages come from one article? Long-range matching as in LRA's retrieval, from texts that are at hand.

A passage is a paragraph of at least SHORTEST characters; headings are left out, since they name the article. Half of
the pairs are of one article, half of two. In validation and test no passage stands in two pairs; train pairs its
passages ROUNDS times anew, and no pair comes twice. Articles keep the splits of their corpus: the published ones of
WikiText-2, which is the default; any corpus of `corpora` with several documents serves. A batch is

  tokens int32 [B, T]    class, passage, separator, passage; each passage cut to half of the row; 0 after them
  types int32 [B, T]     1 on the second passage      length int32 [B]      label int32 [B], 1 = one article
"""

import dataclasses
import functools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from attention_lab.config import DataConfig
from attention_lab.data import controls, corpora
from attention_lab.data.dataset import SPLITS, Arrays, Dataset, Lazy, digests
from attention_lab.data.labelled import Reading
from attention_lab.data.tokenizer import Tokenizer, restore_or_train, tokenizer_file

SHORTEST = 100  # characters, the least of a passage
ROUNDS = 8  # times that the passages of train are paired anew
NAMES = ("two articles", "one article")
SPECIALS = ("class", "separator")
_HEADING = re.compile(r" ?=.*= ?")


class Pairs(Arrays):
  """Rows in small integers, widened to int32 when a batch is gathered, and the passages as the rows have them."""

  def __init__(self, arrays: Mapping[str, np.ndarray], texts: Sequence[tuple[str, str]], truncated: int) -> None:
    """`truncated` pairs have a passage that was cut."""
    super().__init__(arrays)
    self.texts, self.truncated = tuple(texts), truncated

  def __getitem__(self, indices: Int[np.ndarray, "B"]) -> dict[str, np.ndarray]:
    return {name: array.astype(np.int32) for name, array in super().__getitem__(indices).items()}

  def describe(self, index: int) -> str:
    """Both passages as far as they fit the row."""
    return " | ".join(self.texts[index])


def load(data: DataConfig, workdir: str | os.PathLike, reading: Reading) -> Dataset:
  """Pairs of passages from the articles of a corpus.

  Args:
    data: `data.name` ("" = wikitext2) in `data.dir`, or `data.path` for the user's own documents.
    workdir: the tokenizer is restored from `workdir/tokenizer.json` or trained on train and saved there; "" = nowhere.
    reading: the tokenizer, its vocabulary in ids, and T in tokens.

  Returns:
    A dataset of the arrays that the module describes. Controls, in accuracy on test: the largest class, and a logistic
    regression on the words that both passages share.

  Raises:
    ValueError: a corpus that `corpora.load_corpus` refuses, a split without pairs, a short length.
  """
  if reading.length < 8:
    raise ValueError(f"--config.data.length={reading.length} has no room for two passages; give 8 or more")
  named = data if data.name or data.path else dataclasses.replace(data, name="wikitext2")
  corpus = corpora.load_corpus(named, by_article=True)
  articles = {split: passages(corpus.splits[split].values(), corpus.lines) for split in SPLITS}
  paired = {split: pairs(articles[split], ROUNDS if split == "train" else 1, n) for n, split in enumerate(SPLITS)}
  for split, (indices, _) in paired.items():
    if not len(indices):
      needed = f"two documents, and one of them four passages of {SHORTEST} characters"
      raise ValueError(f"{corpus.name}: the {split} split has no pairs; it needs {needed}")
  file = tokenizer_file(workdir)
  spoken = [text for article in articles["train"] for text in article]
  tokenizer = restore_or_train(file, reading.tokenizer, spoken, reading.vocabulary, SPECIALS)
  splits = {split: _rows(articles[split], *paired[split], tokenizer, reading.length) for split in SPLITS}
  tokenizer.save_new(file)
  train, test = splits["train"], splits["test"]
  labels = train.arrays["label"], test.arrays["label"]
  lines = {
    "largest class": functools.partial(controls.largest_class, *labels),
    "word overlap": functools.partial(controls.word_overlap, train.texts, labels[0], test.texts, labels[1]),
  }
  return Dataset(
    f"same_article/{corpus.name}",
    splits,
    digests(splits),
    _metadata(splits, articles, tokenizer, reading.length),
    Lazy(lines),
  )


def passages(articles: Iterable[str], lines: bool) -> list[list[str]]:
  """The passages of each article: lines, or else the paragraphs between empty lines; equal passages count once."""
  seen: set[str] = set()
  result = []
  for article in articles:
    parts = article.split("\n") if lines else re.split(r"\n\s*\n", article)
    kept_parts = [part.strip() for part in parts if not _HEADING.fullmatch(part) and len(part.strip()) >= SHORTEST]
    result.append([part for part in dict.fromkeys(kept_parts) if part not in seen])
    seen.update(result[-1])
  return result


def pairs(
  articles: Sequence[Sequence[str]], rounds: int, seed: int = 0
) -> tuple[Int[np.ndarray, "N 2"], Int[np.ndarray, "N"]]:
  """Indices of passages, numbered through all articles, and labels: as many 1 as 0, in random order.

  In each round a passage stands in one pair at most: a quarter of each article's passages, twice, are paired with each
  other, the rest across articles. No two pairs hold the same two passages.
  """
  owner = np.repeat(np.arange(len(articles)), [len(article) for article in articles])
  same: dict[tuple[int, int], None] = {}
  different: dict[tuple[int, int], None] = {}
  for number in range(rounds):
    rng = np.random.default_rng((seed, number))
    order = rng.permutation(len(owner))
    rank = rng.permutation(len(articles))
    order = order[np.argsort(rank[owner[order]], kind="stable")]  # article by article, both in random order
    sizes = np.array([len(articles[article]) for article in np.argsort(rank)], np.int64)
    position = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    inside = position < 2 * np.repeat(sizes // 4, sizes)
    together, rest = order[inside].reshape(-1, 2), order[~inside]
    apart = rest[: len(rest) // 2 * 2].reshape(2, -1).T
    apart = rng.permutation(apart[owner[apart[:, 0]] != owner[apart[:, 1]]])
    same |= dict.fromkeys(map(_unordered, together.tolist()))
    different |= dict.fromkeys(map(_unordered, apart[: len(together)].tolist()))
  count = min(len(same), len(different))
  rng = np.random.default_rng((seed, rounds))
  arrays = [np.array(list(kind), np.int64).reshape(-1, 2) for kind in (different, same)]
  both = np.concatenate([kind[np.sort(rng.permutation(len(kind))[:count])] for kind in arrays])
  order = rng.permutation(len(both))
  return rng.permuted(both[order], axis=1), np.repeat([0, 1], count)[order].astype(np.int32)


def _unordered(pair: Sequence[int]) -> tuple[int, int]:
  return min(pair), max(pair)


def _rows(
  articles: Sequence[Sequence[str]], indices: np.ndarray, label: np.ndarray, tokenizer: Tokenizer, length: int
) -> Pairs:
  room = (length - 2) // 2
  texts = [text for article in articles for text in article]
  encoded = tokenizer.encode_batch(texts)
  cut = np.array([len(passage) > room for passage in encoded])
  ids = [passage[:room] for passage in encoded]
  texts = [_first(text, tokenizer, room) if long else text for text, long in zip(texts, cut, strict=True)]
  small = np.uint16 if tokenizer.vocabulary <= 1 << 16 else np.int32
  tokens, types = np.zeros((len(indices), length), small), np.zeros((len(indices), length), np.uint8)
  lengths = np.zeros(len(indices), np.int32)
  for row, (first, second) in enumerate(indices):
    head = [tokenizer.special["class"], *ids[first], tokenizer.special["separator"]]
    lengths[row] = len(head) + len(ids[second])
    tokens[row, : lengths[row]] = [*head, *ids[second]]
    types[row, len(head) : lengths[row]] = 1
  arrays = {"tokens": tokens, "types": types, "length": lengths, "label": label}
  return Pairs(arrays, [(texts[i], texts[j]) for i, j in indices], int(cut[indices].any(axis=1).sum()))


def _first(text: str, tokenizer: Tokenizer, count: int) -> str:
  """The beginning of a text that its first `count` tokens stand for."""
  end = tokenizer.spans(text)[1][count - 1]
  return text.encode()[:end].decode(errors="ignore")


def _metadata(
  splits: Mapping[str, Pairs], articles: Mapping[str, Sequence], tokenizer: Tokenizer, length: int
) -> dict[str, Any]:
  return {
    "vocabulary": tokenizer.vocabulary,
    "special": dict(tokenizer.special),
    "types": 2,
    "classes": len(NAMES),
    "names": list(NAMES),
    "length": length,
    "sizes": {split: len(part) for split, part in splits.items()},
    "articles": {split: len(documents) for split, documents in articles.items()},
    "passages": {split: sum(map(len, documents)) for split, documents in articles.items()},
    "truncated": {split: part.truncated for split, part in splits.items()},
    "chance": 0.5,
  }
