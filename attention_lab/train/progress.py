"""The progress of a run: a bar on a terminal, about ten plain lines elsewhere."""

import math
import sys
import time
from collections.abc import Callable

import jax

REFRESH = 0.1  # seconds between two states of the bar
LINES = 10  # plain lines of progress in a run
WIDTH = 24  # characters of the bar


class Bar:
  """A bar of `steps` steps on a terminal, about ten plain lines elsewhere.

  log: prints a whole line. stream: where the bar goes if that is a terminal (default: standard error).
  """

  def __init__(self, steps: int, log: Callable[[str], None], stream=None):
    self._steps, self._log = steps, log
    self._stream = stream or sys.stderr
    self._terminal = self._stream.isatty() and jax.process_index() == 0
    self._begun, self._drawn, self._dirty = time.monotonic(), 0.0, False

  def draw(self, step: int, status: Callable[[float], str]) -> None:
    """After each step; `status(now)` is what stands beside the bar."""
    now = time.monotonic()
    if self._terminal:
      if now - self._drawn >= REFRESH:
        self._drawn, self._dirty = now, True
        filled = WIDTH * step // self._steps
        self._stream.write(f"\r\033[K{'━' * filled}{'╌' * (WIDTH - filled)} {status(now)}")
        self._stream.flush()
    elif step * LINES // self._steps > (step - 1) * LINES // self._steps:
      self._log(status(now))

  def say(self, line: str) -> None:
    """A whole line, above the bar."""
    self.clear()
    self._log(line)

  def clear(self) -> None:
    """Takes the bar away."""
    if self._dirty:
      self._stream.write("\r\033[K")
      self._stream.flush()
      self._dirty = False


class Progress(Bar):
  """Loss, speed and time left of a training run from step `start` on, with `tokens` in each step unless it says so."""

  def __init__(self, steps: int, start: int, tokens: int, log: Callable[[str], None], stream=None):
    super().__init__(steps, log, stream)
    self._start, self._tokens, self._seen, self._evaluations = start, tokens, 0, 0

  def update(self, step: int, loss: float, tokens: int = 0) -> None:
    """After each step; `loss` is the mean over seeds, `tokens` those of this step if not as many as usual."""
    self._seen += tokens or self._tokens
    self.draw(step, lambda now: self._status(step, loss, now))

  def evaluation(self, step: int, text: str) -> None:
    """After an evaluation; elsewhere than on a terminal only the first and the last ones are shown."""
    self._evaluations += 1
    if self._terminal or self._evaluations <= LINES or step == self._steps:
      self.say(f"step {step}  {text}")

  def _status(self, step: int, loss: float, now: float) -> str:
    elapsed, done = max(now - self._begun, 1e-9), step - self._start
    left = elapsed / done * (self._steps - step)
    speed = self._seen / elapsed
    shown = f"{loss:.4g}" if math.isfinite(loss) else "not finite, step skipped"
    return f"step {step}/{self._steps}  loss {shown}  {speed:,.0f} tokens/s  {duration(left)} left"


def number(value: float | None, form: str = ".4g") -> str:
  """A metric in a line: in the format `form`, or that it was not measured, where it is NaN or None."""
  return "not measured" if value is None or math.isnan(value) else format(value, form)


def duration(seconds: float) -> str:
  """`5 s`, `3 min`, `2.5 h`."""
  if seconds < 90:
    return f"{seconds:.0f} s"
  return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
