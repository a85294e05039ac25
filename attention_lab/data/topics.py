"""`python_docs`: the language documentation that every CPython carries in `pydoc_data.topics`, by topic.

Many topics are sections of others ("compound" contains "try", "if", "with"): split by topic alone, half of a held-out
topic could be read in training. So a topic that larger ones contain is dropped, topics that share a paragraph are kept
together, and no paragraph of PARAGRAPH characters or more is in two splits. (Lee et al. 2022, "Deduplicating training
data makes language models better".) The text differs between Python versions, and so do its digests.
"""

import re
from collections.abc import Mapping

from attention_lab.data.dataset import SPLITS
from attention_lab.data.documents import Corpus, held_out

PARAGRAPH = 80  # characters: shorter paragraphs are headings and stock phrases
LARGEST = 1 / 3  # of a held-out split: one topic must not decide what is measured


def python_docs() -> Corpus:
  """The topics by split, about 10 % of the bytes each for validation and test, held out by a hash of their names."""
  from pydoc_data.topics import topics

  return split_topics(topics)


def split_topics(topics: Mapping[str, str]) -> Corpus:
  """Splits texts by name after dropping those whose long paragraphs all occur in larger ones."""
  kept: dict[str, str] = {}
  owners: dict[str, str] = {}  # paragraph -> the first topic that has it
  groups: dict[str, str] = {}  # topic -> the topic that names its group
  for name, text in sorted(topics.items(), key=lambda item: (-len(item[1]), item[0])):
    shared = {owners[paragraph] for paragraph in paragraphs(text) if paragraph in owners}
    if shared and paragraphs(text) <= owners.keys():
      continue
    joined = {groups[owner] for owner in shared} | {name}
    kept[name], groups[name] = text, name
    groups |= dict.fromkeys([member for member, group in groups.items() if group in joined], min(joined))
    owners |= dict.fromkeys(paragraphs(text) - owners.keys(), name)
  places = held_out({name: len(text.encode()) for name, text in kept.items()}, groups, LARGEST)
  splits = {split: {name: kept[name] for name in sorted(kept) if places[name] == split} for split in SPLITS}
  return Corpus("python_docs", "by topic", splits, dropped=tuple(sorted(topics.keys() - kept.keys())))


def paragraphs(text: str) -> frozenset[str]:
  """The paragraphs of PARAGRAPH characters or more, however they are indented and wrapped."""
  pieces = (" ".join(piece.split()) for piece in re.split(r"\n\s*\n", text))
  return frozenset(piece for piece in pieces if len(piece) >= PARAGRAPH)
