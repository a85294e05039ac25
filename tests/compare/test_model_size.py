"""The search of a budget on planted measures, and the matching of times through noise and drift."""

import dataclasses
import itertools
import types

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies

from attention_lab import mesh as meshes
from attention_lab.attention.base import Unsupported
from attention_lab.compare.budget import match as budgets
from attention_lab.compare.budget import model_size, step_timer
from attention_lab.config import MeshConfig
from attention_lab.tasks import base, recall
from attention_lab.timing import Sample

SOURCES = base.SourceCache()
MESH = meshes.make_mesh(MeshConfig(data=1), jax.devices()[:1])


def tiny(attention, **model):
  config = recall.Config(batch=8, steps=1)
  config.data = dataclasses.replace(config.data, train=32, validation=8, test=8, length=16, pairs=2)
  config.model = dataclasses.replace(config.model, attention=attention, **model)
  return config


def build(config):
  return recall.build(config, "", MESH, SOURCES)


@hypothesis.given(
  rises=strategies.lists(strategies.integers(0, 50), min_size=1, max_size=300),
  target=strategies.integers(-5, 8000),
  data=strategies.data(),
)
@hypothesis.settings(deadline=None, max_examples=300)
def test_the_search_finds_the_nearest_of_any_measure_that_does_not_fall(rises, target, data):
  values = list(itertools.accumulate(rises))
  step = data.draw(strategies.integers(1, 5))
  start = data.draw(strategies.integers(0, len(values) - 1))
  asked = []
  limits = {"start": start, "least": 0, "most": len(values) - 1, "step": step}
  n, value = model_size.nearest(lambda n: asked.append(n) or float(values[n]), float(target), **limits)
  reachable = range(start % step, len(values), step)
  assert n in reachable
  assert value == values[n]
  assert abs(value - target) == min(abs(values[m] - target) for m in reachable)
  assert len(asked) <= 3 * 9 + 12


@hypothesis.given(
  slope=strategies.integers(1, 10**6), offset=strategies.integers(0, 10**9), at=strategies.integers(8, 4096)
)
def test_a_linear_measure_is_asked_few_times(slope, offset, at):
  asked = []
  line = lambda n: asked.append(n) or float(slope * n + offset)
  n, _ = model_size.nearest(line, float(slope * at + offset), start=256, least=8, most=64 * 256)
  assert n == at
  assert len(asked) <= 12


def test_a_row_that_takes_too_many_models_stops():
  search = model_size.SizeSearch(
    tiny("softmax"), 5.0, lambda config: float(config.model.mlp_width), lambda _: "", most=3
  )
  assert [search.value({"mlp_width": width}) for width in (8, 9, 10, 9)] == [8, 9, 10, 9]
  with pytest.raises(model_size.Exhausted):
    search.value({"mlp_width": 11})


class Clock:
  """Training steps that take `cost(config)` seconds, with noise, on a machine that becomes slower."""

  def __init__(self, cost, noise):
    self.now, self._cost, self._noise, self._rng = 0.0, cost, noise, np.random.default_rng(0)

  def running(self, task, config, mesh):
    """In the place of `step_timer.RunningStep`."""
    del task, mesh
    return types.SimpleNamespace(sample=lambda: Sample(lambda: self.run(config)))

  def run(self, config):
    self.now += self._cost(config) * (1 + self.now / 50) * (1 + self._noise * self._rng.normal())


@pytest.fixture
def planted(monkeypatch):
  """Replaces real steps by planted ones."""
  ratios = step_timer.ratios

  def plant(cost, noise=0.004):
    clock = Clock(cost, noise)
    monkeypatch.setattr(step_timer, "RunningStep", clock.running)
    monkeypatch.setattr(step_timer, "ratios", lambda step, baseline: ratios(step, baseline, clock=lambda: clock.now))

  return plant


def seconds(config):
  """A step's time: grows with the MLP; linear is slower by itself."""
  return 0.01 + 1e-4 * config.model.mlp_width + (0.005 if config.model.attention == "linear" else 0.0)


def test_time_is_matched_through_noise_and_drift(planted):
  planted(seconds)
  baseline = tiny("softmax", mlp_width=256)
  row = tiny("linear", mlp_width=256)
  budget = budgets.match("time", row, seconds(baseline), build, MESH, baseline=baseline)
  assert abs(budget.value / budget.target - 1) <= 0.01
  true = seconds(model_size.applied(row, budget.changed)) / seconds(baseline)
  assert abs(true - 1) < 0.015
  assert budget.changed["mlp_width"] < 256


def test_time_that_no_size_reaches_is_refused(planted):
  planted(lambda config: 0.01 if config.model.attention == "softmax" else 0.02)
  with pytest.raises(Unsupported, match=r"--match=time: linear cannot come within 1% of 0\.01: nearest 0\.0"):
    budgets.match("time", tiny("linear"), 0.01, build, MESH, baseline=tiny("softmax"))


def test_the_baseline_has_its_own_time():
  assert budgets.match("time", tiny("softmax"), 0.5, build, MESH, baseline=tiny("softmax")).value == 0.5


def test_a_running_step_trains():
  config = tiny("softmax")
  sample = step_timer.RunningStep(build(config), config, MESH).sample()
  losses = [float(sample.run()["loss"]) for _ in range(2)]
  assert np.isfinite(losses).all()
  assert losses[0] != losses[1]
