"""Which text each text is a phrase of, for datasets whose rows are a sentence and the phrases in it.

SST-2's training rows are those (Socher et al. 2013): a validation split of rows by chance has the words and labels of
sentences that the model was trained on, and accuracy on it tells nothing of new ones.
"""

from collections.abc import Sequence


def longest_containing(texts: Sequence[str]) -> list[str]:
  """For each text the longest one, in words, that it is a run of; of several equally long ones the first."""
  words = {text: text.split() for text in texts}
  whole: dict[str, str] = {}
  left = {" ".join(own) for own in words.values()}
  for text in sorted(words, key=lambda text: (-len(words[text]), text)):
    own = words[text]
    if " ".join(own) not in left:
      continue
    for start in range(len(own)):
      for end in range(start + 1, len(own) + 1):
        run = " ".join(own[start:end])
        if run in left:
          left.remove(run)
          whole[run] = text
  return [whole.get(" ".join(words[text]), text) for text in texts]
