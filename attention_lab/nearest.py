"""The hint in a message about an unknown name."""

import difflib
from collections.abc import Iterable


def hint(given: str, choices: Iterable[str]) -> str:
  """`, did you mean 'softmax'?` if a choice is close to what was given, else nothing."""
  close = difflib.get_close_matches(given, [choice for choice in choices if choice != given], n=1)
  return f", did you mean '{close[0]}'?" if close else ""
