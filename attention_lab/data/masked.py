"""Pairs of texts with hidden tokens, for masked language modelling and next-sentence prediction.

Made as for BERT (Devlin et al. 2019, https://arxiv.org/abs/1810.04805, appendix A.2, and `create_pretraining_data.py`
of its release): sentences of a document fill a row, and a random place among them ends the first text. The second is
what follows it, or, in half of the rows that have two sentences and in all that have one, sentences of another document
of the split, and then what they displaced begins the next row. The longer text is cut, at either end, until both fit.
One document in ten aims at a random shorter length. Departures: a sentence ends after tokens that end with . ! or ?;
each document is read once, since training draws its masks anew (`models/bert.py`); special tokens are never drawn
in place of others. A batch is

  tokens int32 [B, T]    class, first text, separator, second text, separator, 0 …
  types int32 [B, T]     1 on the second text and the separator after it, else 0
  length int32 [B]       tokens before the padding
  next int32 [B]         1 if the second text follows the first, 0 if it is another document's
  masked int32 [B, T]    validation and test: the tokens with some hidden, the same in every run
  chosen bool [B, T]     validation and test: the tokens to be predicted
"""

import functools
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

import numpy as np
from jaxtyping import Bool, Int

from attention_lab.config import DataConfig
from attention_lab.data import sentence_pairs
from attention_lab.data.corpora import Corpus, load_corpus
from attention_lab.data.dataset import SPLITS, Arrays, Dataset, Lazy, digests
from attention_lab.data.labelled import Reading
from attention_lab.data.tokenizer import SPECIALS, Tokenizer, restore_or_train, tokenizer_file

RATE = 0.15  # fraction of the tokens that are to be predicted
MASKED, RANDOM = 0.8, 0.1  # fractions of those that become the mask or a random token; the others stay as they are


class Pairs(Arrays):
  """A split of pairs of texts."""

  def __init__(self, arrays: Mapping[str, np.ndarray], tokenizer: Tokenizer) -> None:
    super().__init__(arrays)
    self.tokenizer = tokenizer

  def describe(self, index: int) -> str:
    """The two texts, as the model may read them before tokens are hidden."""
    tokens, types = self.arrays["tokens"][index], self.arrays["types"][index]
    real = np.arange(len(tokens)) < self.arrays["length"][index]
    return " | ".join(self.tokenizer.decode(tokens[real & (types == kind)]).strip() for kind in (0, 1))


def load(data: DataConfig, workdir: str | os.PathLike, reading: Reading) -> Dataset:
  """Pairs of texts from any corpus of language modelling, reviews and articles being documents.

  Where a split has a single document, the paragraphs between empty lines are the documents.

  Args:
    data: `data.name` in `data.dir`, or `data.path` for the user's own text.
    workdir: the tokenizer is restored from `workdir/tokenizer.json` where there is one, else trained with special
      tokens and saved there; "" = nowhere.
    reading: the tokenizer, its vocabulary in ids, and T in tokens.

  Returns:
    A dataset of the arrays that the module describes; metadata: vocabulary, length, special, documents, examples,
    tokens and the share of `next`. Control, in nats per hidden token of test: the frequencies of tokens in train.

  Raises:
    ValueError: a bad name, path or text, or a tokenizer without the special tokens.
  """
  if reading.length < sentence_pairs.SHORTEST:
    why = f"two texts with class and separators take {sentence_pairs.SHORTEST} tokens"
    raise ValueError(f"--config.data.length={reading.length} is too short: {why}")
  corpus = load_corpus(data, by_article=True)
  texts = _documents(corpus)
  file = tokenizer_file(workdir)
  tokenizer = restore_or_train(file, reading.tokenizer, texts["train"], reading.vocabulary, SPECIALS)
  _check(tokenizer, file)
  splits = {split: _pairs(split, texts[split], tokenizer, reading.length) for split in SPLITS}
  tokenizer.save_new(file)
  metadata = {
    "vocabulary": tokenizer.vocabulary,
    "length": reading.length,
    "special": tokenizer.special,
    "end_of_text": tokenizer.end_of_text,
    "split": corpus.split,
    "documents": {split: len(texts[split]) for split in SPLITS},
    "examples": {split: len(splits[split]) for split in SPLITS},
    "tokens": {split: int(pairs.arrays["length"].sum()) for split, pairs in splits.items()},
    "next": {split: round(float(pairs.arrays["next"].mean()), 4) for split, pairs in splits.items()},
  }
  unigram = functools.partial(_unigram, splits["train"].arrays, splits["test"].arrays, tokenizer)
  return Dataset(corpus.name, splits, digests(splits), metadata, Lazy({"unigram": unigram}))


def hidden(
  random: np.random.Generator,
  tokens: Int[np.ndarray, "N T"],
  length: Int[np.ndarray, "N"],
  specials: Sequence[int],
  vocabulary: int,
  mask: int,
) -> tuple[Int[np.ndarray, "N T"], Bool[np.ndarray, "N T"]]:
  """The tokens with some hidden, and which were chosen, drawn as by `models.bert.mask_tokens` but on the host.

  Of each row's n tokens ⌈RATE · n⌉ are chosen, and most of them hidden.
  """
  N, T = tokens.shape
  special = np.unique([*specials, mask])
  eligible = (np.arange(T) < length[:, None]) & ~np.isin(tokens, special)
  count = np.ceil(eligible.sum(axis=1) * RATE - 1e-9)
  rank = np.argsort(np.argsort(np.where(eligible, random.random((N, T)), 2), axis=1), axis=1)
  chosen = eligible & (rank < count[:, None])
  others = np.setdiff1d(np.arange(vocabulary, dtype=np.int32), special)
  share, drawn = random.random((N, T)), random.choice(others, (N, T))
  shown = np.where(share < MASKED, np.int32(mask), np.where(share < MASKED + RANDOM, drawn, tokens))
  return np.where(chosen, shown, tokens).astype(np.int32), chosen


def _documents(corpus: Corpus) -> dict[str, list[str]]:
  """Different texts of each split; paragraphs, where a split has a single text."""
  texts = {split: list(dict.fromkeys(corpus.splits[split].values())) for split in SPLITS}
  if min(map(len, texts.values())) < 2:
    whole = {split: [part for text in texts[split] for part in re.split(r"\n\s*\n", text)] for split in SPLITS}
    texts = {split: list(dict.fromkeys(part for part in parts if part.strip())) for split, parts in whole.items()}
  for split, parts in texts.items():
    if len(parts) < 2:
      fix = "give several files, or put empty lines between documents"
      raise ValueError(f"{corpus.name}: the {split} split has {len(parts)} document, and pairs need two; {fix}")
  return texts


def _check(tokenizer: Tokenizer, file: Path | None) -> None:
  missing = [name for name in SPECIALS if name not in tokenizer.special]
  if missing:
    fix = "give another --workdir"
    raise ValueError(f"{file} was trained without the special tokens {', '.join(missing)}; {fix}")


def _pairs(split: str, texts: Sequence[str], tokenizer: Tokenizer, length: int) -> Pairs:
  seed = int.from_bytes(hashlib.sha256(split.encode()).digest()[:8], "little")
  special = tokenizer.special
  frame = special["class"], special["separator"]
  arrays = sentence_pairs.make(sentence_pairs.documents(texts, tokenizer), length, frame, Random(seed))
  if split != "train":
    ids = (tokenizer.end_of_text, *special.values())
    masked = hidden(
      np.random.default_rng(seed), arrays["tokens"], arrays["length"], ids, tokenizer.vocabulary, special["mask"]
    )
    if not masked[1].any():
      fix = "give another --config.data.tokenizer or a larger --config.data.vocabulary"
      raise ValueError(f"all tokens of the {split} split are unknown to the tokenizer of train; {fix}")
    arrays |= dict(zip(("masked", "chosen"), masked, strict=True))
  return Pairs(arrays, tokenizer)


def _unigram(train: Mapping[str, np.ndarray], test: Mapping[str, np.ndarray], tokenizer: Tokenizer) -> float:
  """Mean −ln p of the hidden tokens, p from counts in train plus one; special tokens are none of the choices."""
  counts = np.bincount(train["tokens"].reshape(-1), minlength=tokenizer.vocabulary) + 1.0
  counts[[tokenizer.end_of_text, *tokenizer.special.values()]] = 0.0
  told = test["tokens"][test["chosen"]]
  return float(np.mean(np.log(counts.sum()) - np.log(counts[told])))
