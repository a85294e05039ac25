"""Sentences and their phrases."""

import numpy as np

from attention_lab.data import labelled_sets, phrases


def test_a_phrase_belongs_to_the_longest_text_that_has_its_words_in_a_row():
  texts = ["a very good film", "good film", "film", "a film", "very good", "good  film ", "another one"]
  first, other = "a very good film", "another one"
  assert phrases.longest_containing(texts) == [first, first, first, "a film", first, first, other]


def test_a_sentence_and_its_phrases_stay_in_one_split():
  sentences = [f"w{i} x{i} y{i} z{i}" for i in range(60)]
  texts = [piece for s in sentences for piece in (s, s[: s.rindex(" ")], s.split()[0])]
  part = labelled_sets.Part(texts, np.arange(len(texts), dtype=np.int32) // 3 % 2)
  apart = labelled_sets.stratified(part, ["validation"])
  together = labelled_sets.stratified(part, ["validation"], phrased=True)

  def shared(cut):
    train, validation = ({text.split()[0] for text in cut[split].texts} for split in ("train", "validation"))
    return train & validation

  assert shared(apart)
  assert not shared(together)
  assert len(together["validation"].texts) == 18
