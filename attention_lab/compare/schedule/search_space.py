"""The search space of a comparison, recorded in each row, and the settings that its trials sample from it.

Every row has the same shared dimensions and the same samples in them; what a variant declares `tunable` comes on top,
from a stream of its own, so that it moves no shared sample and costs no further trial.
"""

import dataclasses
import functools
import itertools
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from attention_lab import config as configs
from attention_lab.attention import spec
from attention_lab.attention.base import Attention
from attention_lab.attention.head_mixture import map_variants, single_variants
from attention_lab.config import nearest_hint

RATE = "config.optimizer.learning_rate"
DECAY = "config.optimizer.weight_decay"
WARMUP = "config.optimizer.warmup"
VARIANT = "config.model.attention."  # begins the name of a variant's hyper-parameter: VARIANT + name + "." + field
LR_REACH = 10.0  # learning rates from a tenth to ten times the configured one: two decades, as in MQAR's sweep
DECAYS = (0.0, 0.01, 0.1)  # weight decays that are tried beside the configured one
WARMUPS = (0.02, 0.1, 0.25)  # lengths of the warm-up that are tried, as shares of all steps


@dataclasses.dataclass(frozen=True)
class Range:
  """All numbers from `low` to `high`, evenly on a log or linear scale; ValueError for an empty one."""

  low: float
  high: float
  scale: str = "log"

  def __post_init__(self) -> None:
    least = 0.0 if self.scale == "log" else -math.inf
    if self.scale not in ("log", "linear") or not least < self.low < self.high < math.inf:
      allowed = "low < high, scale log or linear, and low > 0 on the log scale"
      raise ValueError(f"a range from {self.low} to {self.high} on scale {self.scale!r} is empty: give {allowed}")

  def at(self, share: float) -> float:
    """The value at `share` in [0, 1] of the way from low to high, to three digits, so that a command can name it."""
    if self.scale == "log":
      value = self.low * (self.high / self.low) ** share
    else:
      value = self.low + (self.high - self.low) * share
    return float(f"{value:.3g}")


Dimension = Range | tuple[Any, ...]  # a tuple lists choices
Space = Mapping[str, Dimension]  # flag -> its dimension


def shared_space(config: configs.Config) -> dict[str, Dimension]:
  """The dimensions of every row of a task; ValueError where the configured learning rate is 0.

  learning_rate: a tenth to ten times the configured one, as wide as the published sweep of MQAR (Arora et al. 2023,
  https://arxiv.org/abs/2312.04927); weight_decay: `DECAYS` and the configured one; warmup: `WARMUPS` of
  all steps, at least one step.
  """
  optimizer, steps = config.optimizer, config.steps
  if not optimizer.learning_rate > 0:
    raise ValueError(f"--{RATE}={optimizer.learning_rate} cannot be tuned: give one above 0, or --trials=0")
  space: dict[str, Dimension] = {
    RATE: Range(float(f"{optimizer.learning_rate / LR_REACH:.3g}"), float(f"{optimizer.learning_rate * LR_REACH:.3g}")),
    DECAY: tuple(sorted({*DECAYS, optimizer.weight_decay})),
  }
  warmups = dict.fromkeys(max(1, round(share * steps)) for share in WARMUPS)
  choices = tuple(warmup for warmup in warmups if warmup < steps)
  return space | ({WARMUP: choices} if choices else {})


def variant_space(variants: Iterable[Attention]) -> dict[str, Dimension]:
  """The dimensions that the variants of a row declare `tunable`, but for the fields that the row's spec sets."""
  space: dict[str, Dimension] = {}
  for variant in itertools.chain.from_iterable(map(single_variants, variants)):
    space |= {f"{VARIANT}{_name(variant)}.{field}": tuple(choices) for field, choices in _free(variant).items()}
  return dict(sorted(space.items()))


def sample(space: Space, trials: int, seed: int = 0) -> list[dict[str, Any]]:
  """Samples the settings of a row's trials; more trials begin with the same ones.

  Args:
    space: the dimensions by flag. Shared ones follow a Halton sequence scrambled with `seed` (Owen 2017,
      https://arxiv.org/abs/1706.02808), those of variants shuffles of their choices, one stream a flag.
    trials: how many settings; ValueError for a negative number.
    seed: of the samples.

  Returns:
    The value of every flag for each trial, but for the first, {}, which is the configuration as it stands.
  """
  if trials < 0:
    raise ValueError(f"--trials={trials} must be at least 0, which tunes nothing")
  if trials < 2:
    return [{}] * trials
  from scipy.stats import qmc  # takes seconds

  common = sorted(flag for flag in space if not flag.startswith(VARIANT))
  shares = qmc.Halton(max(1, len(common)), scramble=True, seed=seed).random(trials - 1)
  settings = [{flag: _value(space[flag], u) for flag, u in zip(common, row, strict=False)} for row in shares.tolist()]
  for flag in sorted(space.keys() - set(common)):
    values = _shuffled(space[flag], trials - 1, [seed, zlib.crc32(flag.encode())])
    for setting, value in zip(settings, values, strict=True):
      setting[flag] = value
  return [{}, *settings]


def apply(config: configs.Config, settings: Mapping[str, Any]) -> None:
  """Writes the settings of a trial into a row's configuration; ValueError for a hyper-parameter that it does not have.

  Those of variants go into `config.model.attention`, in every layer and head whose variant has them at their default.
  """
  for flag, value in settings.items():
    if not flag.startswith(VARIANT):
      configs.override(config, f"--{flag}={value}")
  hyper_parameters = {flag: value for flag, value in settings.items() if flag.startswith(VARIANT)}
  if not hyper_parameters:
    return
  variants = spec.layers(config.model.attention, config.model.layers)
  known = variant_space(variants)
  for flag in hyper_parameters:
    if flag not in known:
      hint = nearest_hint(flag, known)
      listed = ", ".join(known) or "none"
      raise ValueError(f"{flag} is no tunable hyper-parameter of {config.model.attention}{hint}: it has {listed}")
  changed = functools.partial(_with, hyper_parameters)
  texts = [spec.to_string(map_variants(changed, variant)) for variant in variants]
  config.model.attention = spec.canonical("|".join(f"({text})" for text in texts))


def choose(scores: Sequence[float | None], higher_is_better: bool) -> int:
  """The index of the best finite score, the first of equals; 0, the configuration as it stands, where none is finite.

  ValueError without a score.
  """
  if not scores:
    raise ValueError("no trial to choose from: give at least one score")
  sign = 1.0 if higher_is_better else -1.0
  ranked = [-math.inf if score is None or not math.isfinite(score) else sign * score for score in scores]
  return ranked.index(max(ranked))


def as_row(space: Space) -> dict[str, list[Any]]:
  """The space as JSON: {flag: [low, high, scale]} or {flag: [choices…]}."""
  return {flag: list(dataclasses.astuple(d) if isinstance(d, Range) else d) for flag, d in space.items()}


def _value(dimension: Dimension, share: float) -> Any:
  return dimension.at(share) if isinstance(dimension, Range) else dimension[int(share * len(dimension))]


def _shuffled(choices: Dimension, count: int, seed: list[int]) -> list[Any]:
  """A random order of `count` choices, each as often as any other up to one."""
  if isinstance(choices, Range):
    raise ValueError("a variant's own hyper-parameters are choices, not a range: list the values in `tunable`")
  random = np.random.default_rng(seed)
  values: list[Any] = []
  while len(values) < count:
    values += [choices[index] for index in random.permutation(len(choices))]
  return values[:count]


def _free(variant: Attention) -> dict[str, tuple[Any, ...]]:
  """The tunable fields that stand at their defaults; ValueError where `tunable` names no field or not its default."""
  fields = {field.name: field.default for field in dataclasses.fields(variant)}
  for name, choices in variant.tunable.items():
    if name not in fields or fields[name] not in choices:
      what = f"{type(variant).__name__}.tunable names {name!r} with the choices {tuple(choices)}"
      raise ValueError(f"{what}: each is a field, and its choices hold its default")
  return {name: tuple(choices) for name, choices in variant.tunable.items() if getattr(variant, name) == fields[name]}


def _with(settings: Mapping[str, Any], variant: Attention) -> Attention:
  prefix = f"{VARIANT}{_name(variant)}."
  values = {field: settings[prefix + field] for field in _free(variant) if prefix + field in settings}
  return dataclasses.replace(variant, **values) if values else variant


def _name(variant: Attention) -> str:
  return spec.to_string(variant).partition("(")[0]
