"""A benchmark that looks like a real one: two variants and a peer at three lengths, seeded noise."""

import numpy as np
import pytest

from attention_lab.benchmark import estimates, settings

SETTINGS = settings.Settings(("softmax", "linear"), lengths=(64, 128, 256), modes=("forward",), rounds=8, matmul=16)


def row(name, length, seconds, *, exact, seed=0, memory=None, **rest):
  """A done row whose times scatter by 2 % around `seconds`."""
  draw = np.random.default_rng([seed, length])
  drift = np.exp(0.3 * draw.standard_normal(8))
  base, times = (value * drift * np.exp(0.02 * draw.standard_normal(8)) for value in (1e-3, seconds))
  shared = {"settings": SETTINGS.row_settings(), "commit": "abc", "versions": {"jax": "1"}, "device": "1 × cpu"}
  return {
    **shared,
    "cores": 2,
    "digest": "d",
    "session": "s",
    "mode": "forward",
    "length": length,
    "attention": name,
    "exact": exact,
    "peer": False,
    "status": "done",
    "reason": "",
    "rounds": 8,
    "times": times.tolist(),
    "baseline_times": base.tolist(),
    "time": vars(estimates.positive(times.tolist())),
    "ratio": vars(estimates.ratio(times.tolist(), base.tolist())),
    "memory": memory and {"peak": memory, "temporaries": memory // 2},
    "compile_seconds": 0.5,
    "first_seconds": 0.1,
    "command": "python -m experiments.benchmark",
    **rest,
  }


@pytest.fixture
def rows():
  """softmax costs T², linear 150·T: they meet at T = 150 in time; in memory linear is ahead throughout."""
  lengths = (64, 128, 256)
  exact = [row("softmax", n, 1e-9 * n * n, exact=True, seed=1, memory=4 * n * n) for n in lengths]
  return exact + [row("linear", n, 1e-9 * 150 * n, exact=False, seed=2, memory=4 * n) for n in lengths]
