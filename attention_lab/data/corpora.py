"""Where a text for language modelling comes from: TEXTS, any dataset of TFDS with one text feature, the user's own.

  python_docs        the documentation in every CPython; no download (`topics`)
  wikitext2          Wikipedia's good articles in words (Merity et al. 2017); 2,088,628 / 217,646 / 245,569 tokens,
                     each line's end among them, in 33,278 kinds
  tiny_shakespeare   1,115,394 characters of plays (Karpathy 2015) as TFDS splits them, 90 / 5 / 5; nanoGPT's recipe
                     splits 90 / 10, so its validation text is TFDS's validation and test together

Others keep the splits that they have. Where one of validation and test is missing, a tenth of the bytes of train stands
in, held out by a hash of the content, so that equal texts stay together; other splits are passed over.
"""

import hashlib
import itertools
import re
from collections.abc import Mapping, Sequence

from attention_lab.config import DataConfig
from attention_lab.data import prepared
from attention_lab.data.dataset import SPLITS, validate_name
from attention_lab.data.documents import Corpus, held_out, user_text
from attention_lab.data.topics import python_docs

TEXTS = ("python_docs", "wikitext2", "tiny_shakespeare")
_TITLE = re.compile(r" ?= [^=].*[^=] = ?")  # a title is ` = Title = `, a section ` = = Section = = `


def corpus(data: DataConfig, by_article: bool = False) -> Corpus:
  """The text that `data.name` or `data.path` means; `by_article` makes each article of wikitext2 a document.

  Raises ValueError for a name that is neither of TEXTS nor prepared in `data.dir`, a dataset without exactly one text
  feature, a bad path.
  """
  name = validate_name(data, TEXTS, allow_other=True)
  if name in ("", TEXTS[0]):
    return python_docs() if name else user_text(data.path)
  if name not in TEXTS:
    prepared.check(name, data.dir, TEXTS)
  return _wikitext2(data, by_article) if name == "wikitext2" else _published(data)


def articles(lines: Sequence[str]) -> list[str]:
  """The articles of WikiText, each from the line of its title, which stands between empty ones, to the next title."""
  empty = [not line.strip() for line in lines]
  starts = [
    i
    for i, line in enumerate(lines)
    if _TITLE.fullmatch(line) and (i == 0 or empty[i - 1]) and (i + 1 == len(lines) or empty[i + 1])
  ]
  bounds = sorted({0, *(start for start in starts if not all(empty[:start])), len(lines)})
  return ["".join(f"{line}\n" for line in lines[a:b]) for a, b in itertools.pairwise(bounds)]


def _wikitext2(data: DataConfig, by_article: bool) -> Corpus:
  splits: dict[str, dict[str, str]] = {}
  for split in SPLITS:
    lines = prepared.columns(data.name, split, data.dir, ["text"])["text"]
    texts = articles(lines) if by_article else ["".join(f"{line}\n" for line in lines)]
    splits[split] = {f"{split} {number}": text for number, text in enumerate(texts)}
  return Corpus(data.name, "published", splits, lines=True)


def _published(data: DataConfig) -> Corpus:
  feature = prepared.only(data.name, data.dir, "text")
  there = prepared.splits(data.name, data.dir)
  if "train" not in there:
    raise ValueError(f"--config.data.name={data.name} has no split train; it has {', '.join(there) or 'none'}")
  splits: dict[str, dict[str, str]] = {}
  for split in (split for split in SPLITS if split in there):
    texts = prepared.columns(data.name, split, data.dir, [feature])[feature]
    splits[split] = {f"{split} {number}": text for number, text in enumerate(texts) if text.strip()}
  missing = [split for split in SPLITS if split not in splits]
  if not missing:
    return Corpus(data.name, "published", splits)
  stated = f"published, but {' and '.join(missing)} by content from train"
  return Corpus(data.name, stated, splits | _from_train(splits["train"], missing))


def _from_train(train: Mapping[str, str], missing: Sequence[str]) -> dict[str, dict[str, str]]:
  sizes = {name: len(text.encode()) for name, text in train.items()}
  groups = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in train.items()}
  places = {name: split if split in missing else "train" for name, split in held_out(sizes, groups).items()}
  return {split: {name: train[name] for name in train if places[name] == split} for split in ("train", *missing)}
