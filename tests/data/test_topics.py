import re

import pytest

from attention_lab.data.topics import paragraphs, python_docs, split_topics


@pytest.fixture(scope="module")
def corpus():
  return python_docs()


def test_no_long_paragraph_of_the_documentation_is_in_two_splits(corpus):
  seen = {split: set().union(*map(paragraphs, texts.values())) for split, texts in corpus.splits.items()}
  assert all(len(found) > 20 for found in seen.values())
  assert not seen["train"] & seen["test"]
  assert not seen["train"] & seen["validation"]
  assert not seen["validation"] & seen["test"]


def test_held_out_text_shares_hardly_any_eight_words_in_a_row_with_training_text(corpus):
  def shingles(split):
    words = [text.split() for text in corpus.splits[split].values()]
    return {tuple(text[i : i + 8]) for text in words for i in range(len(text) - 7)}

  train = shingles("train")
  for split in ("validation", "test"):
    held_out = shingles(split)
    assert len(held_out & train) < 0.01 * len(held_out)


def test_each_held_out_split_is_about_a_tenth_of_the_bytes_and_of_several_topics(corpus):
  sizes = {split: [len(text.encode()) for text in texts.values()] for split, texts in corpus.splits.items()}
  total = sum(map(sum, sizes.values()))
  for split in ("validation", "test"):
    assert 0.08 <= sum(sizes[split]) / total <= 0.1
    assert max(sizes[split]) <= 0.4 * sum(sizes[split])


def test_every_topic_is_kept_whole_or_contained_in_what_was_kept(corpus):
  from pydoc_data.topics import topics

  kept = {name: text for texts in corpus.splits.values() for name, text in texts.items()}
  assert sorted([*kept, *corpus.dropped]) == sorted(topics)
  everything = set().union(*map(paragraphs, kept.values()))
  assert all(kept[name] == topics[name] for name in kept)
  assert all(paragraphs(topics[name]) <= everything for name in corpus.dropped)


def test_a_section_of_another_topic_is_dropped_however_it_is_wrapped_and_indented():
  section = "a paragraph that is long enough to be told from a heading, about nothing at all, and then more of it"
  wrapped = re.sub(r"(.{30}\S*) ", r"\1\n    ", section)
  others = {f"topic {i}": f"another text of its own, number {i}, {'word ' * 20}{i}" for i in range(30)}
  corpus = split_topics(
    others | {"whole": f"Heading\n\n{section}\n\n{'something else ' * 9}", "part": f"Part\n\n  {wrapped}\n"}
  )
  assert corpus.dropped == ("part",)


def test_topics_that_share_a_paragraph_stay_in_one_split():
  shared = "a stock paragraph of more than eighty characters that two otherwise different texts have in common"
  texts = {f"topic {i:02}": f"{shared} {i // 2}\n\n{'its own words ' * 10}{i}" for i in range(60)}
  splits = split_topics(texts).splits
  assert all(splits[split] for split in ("train", "validation", "test"))
  for names in splits.values():
    assert all(f"topic {int(name[6:]) ^ 1:02}" in names for name in names)
