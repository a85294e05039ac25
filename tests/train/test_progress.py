import io
import math
import re

import pytest

from attention_lab.train.progress import Progress, duration, number


class Terminal(io.StringIO):
  def isatty(self):
    return True


def test_elsewhere_than_on_a_terminal_a_run_of_any_length_has_about_20_plain_lines():
  lines, stream = [], io.StringIO()
  progress = Progress(1000, 0, 64, lines.append, stream)
  for step in range(1, 1001):
    progress.update(step, 1.0)
    if step % 10 == 0:
      progress.evaluation(step, "validation accuracy 0.5")
  assert len(lines) == 10 + 10 + 1
  assert re.fullmatch(r"step 100/1000  loss 1  [\d,]+ tokens/s  \d+ \w+ left", lines[9])
  assert lines[-1] == "step 1000  validation accuracy 0.5"
  assert stream.getvalue() == ""


def test_a_terminal_has_one_line_that_gives_way_to_others(monkeypatch):
  lines, stream = [], Terminal()
  progress = Progress(10, 5, 64, lines.append, stream)
  progress.update(6, 0.25)
  assert re.fullmatch(r"\r\x1b\[K━{14}╌{10} step 6/10  loss 0.25  [\d,]+ tokens/s  \d+ s left", stream.getvalue())
  progress.evaluation(6, "validation accuracy 0.5")
  assert stream.getvalue().endswith("\r\x1b[K")
  assert lines == ["step 6  validation accuracy 0.5"]


def test_what_is_not_a_number_is_called_what_it_is():
  lines = []
  Progress(1, 0, 64, lines.append, io.StringIO()).update(1, math.nan)
  assert "loss not finite, step skipped" in lines[0]
  assert [number(value) for value in (0.25, math.nan, None)] == ["0.25", "not measured", "not measured"]


@pytest.mark.parametrize("seconds, text", [(5.0, "5 s"), (120.0, "2 min"), (9000.0, "2.5 h")])
def test_durations_have_a_unit(seconds, text):
  assert duration(seconds) == text
