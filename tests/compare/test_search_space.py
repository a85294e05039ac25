import dataclasses
import math

import jax
import numpy as np
import pytest

from attention_lab import config as configs
from attention_lab.attention import spec
from attention_lab.attention.base import Attention, Dims
from attention_lab.compare.schedule import search_space

DIMS = Dims(model=8, heads=2, kv_heads=2, head=4, value=4, max_len=8)
TUNABLE = tuple(name for name in spec.names() if spec.parse(name).tunable)
MIXED = "differential|2*variational+2*cosine"


def _config(attention="softmax", **optimizer):
  config = configs.Config()
  config.model.attention = attention
  for name, value in optimizer.items():
    setattr(config.optimizer, name, value)
  return config


def _common(settings):
  return [
    {flag: value for flag, value in trial.items() if not flag.startswith(search_space.VARIANT)} for trial in settings
  ]


def _whole(attention):
  config = _config(attention)
  return search_space.shared_space(config) | search_space.variant_space(spec.layers(attention, config.model.layers))


def test_first_trial_is_the_configuration_as_it_stands():
  config = _config(MIXED)
  before = configs.flatten(config)
  first, *others = search_space.sample(_whole(MIXED), 5)
  search_space.apply(config, first)
  assert configs.flatten(config) == before
  for settings in others:
    assert settings.keys() == _whole(MIXED).keys()


@pytest.mark.parametrize("trials", [0, 1, 2, 8])
def test_there_are_as_many_settings_as_trials_and_more_begin_with_the_same(trials):
  settings = search_space.sample(_whole(MIXED), trials)
  assert len(settings) == trials
  assert search_space.sample(_whole(MIXED), 12)[:trials] == settings


def test_negative_trials_are_refused():
  with pytest.raises(ValueError, match="--trials=-1 must be at least 0"):
    search_space.sample(_whole("softmax"), -1)


@pytest.mark.parametrize("attention", ["linear", "differential", MIXED, "gated_linear"])
def test_shared_draws_are_the_same_for_each_row_whatever_it_declares_itself(attention):
  assert _common(search_space.sample(_whole(attention), 8)) == _common(search_space.sample(_whole("softmax"), 8))


def test_another_seed_draws_other_settings():
  assert search_space.sample(_whole(MIXED), 4, seed=1)[1:] != search_space.sample(_whole(MIXED), 4)[1:]


def test_draws_fill_the_space_evenly():
  trials = search_space.sample(_whole("differential"), 28)[1:]
  dimension = search_space.shared_space(_config())[search_space.RATE]
  shares = [
    math.log(trial[search_space.RATE] / dimension.low) / math.log(dimension.high / dimension.low) for trial in trials
  ]
  assert np.histogram(shares, 3, (0, 1))[0].tolist() == pytest.approx([9, 9, 9], abs=1)
  for flag in (search_space.DECAY, search_space.WARMUP, f"{search_space.VARIANT}differential.initial"):
    counts = np.unique([trial[flag] for trial in trials], return_counts=True)[1]
    assert counts.tolist() == pytest.approx([9, 9, 9], abs=1)


def test_learning_rates_span_a_tenth_to_ten_times_the_configured_one():
  assert search_space.shared_space(_config(learning_rate=0.002))[search_space.RATE] == search_space.Range(
    0.0002, 0.02, "log"
  )
  rates = [trial[search_space.RATE] for trial in search_space.sample(_whole("softmax"), 200)[1:]]
  assert min(rates) < 0.00033
  assert max(rates) > 0.027
  assert all(0.0003 <= rate <= 0.03 and rate == float(f"{rate:.3g}") for rate in rates)


def test_configured_weight_decay_is_among_the_choices():
  assert search_space.shared_space(_config(weight_decay=0.05))[search_space.DECAY] == (0.0, 0.01, 0.05, 0.1)


def test_warm_ups_are_shares_of_the_run_and_shorter_than_it():
  config = _config()
  assert search_space.shared_space(config)[search_space.WARMUP] == (20, 100, 250)
  config.steps = 4
  assert search_space.shared_space(config)[search_space.WARMUP] == (1,)
  config.steps = 1
  assert search_space.WARMUP not in search_space.shared_space(config)


def test_learning_rate_of_zero_is_refused():
  with pytest.raises(ValueError, match=r"learning_rate=0\.0 cannot be tuned"):
    search_space.shared_space(_config(learning_rate=0.0))


@pytest.mark.parametrize("ends", [(1.0, 1.0, "log"), (0.0, 1.0, "log"), (2.0, 1.0, "linear"), (1.0, 2.0, "cubic")])
def test_empty_ranges_are_refused(ends):
  with pytest.raises(ValueError, match="is empty: give low < high"):
    search_space.Range(*ends)


def test_linear_range_is_even():
  assert [search_space.Range(-1.0, 1.0, "linear").at(share) for share in (0.0, 0.25, 1.0)] == [-1.0, -0.5, 1.0]


def test_space_is_recorded_as_json():
  recorded = search_space.as_row(_whole("gated_linear"))
  assert recorded == {
    "config.optimizer.learning_rate": [0.0003, 0.03, "log"],
    "config.optimizer.weight_decay": [0.0, 0.01, 0.1],
    "config.optimizer.warmup": [20, 100, 250],
    "config.model.attention.gated_linear.temperature": [4.0, 16.0, 64.0],
  }


def test_settings_are_written_into_the_configuration_and_every_layer_and_head():
  config = _config(f"{MIXED}|softmax")
  config.model.layers = 3
  name = search_space.VARIANT
  changes = {f"{name}differential.initial": 0.2, f"{name}variational.sigma": 0.1, f"{name}variational.weight": 0.001}
  search_space.apply(
    config,
    changes | {f"{name}cosine.scale": 5.0, search_space.RATE: 1e-5, search_space.WARMUP: 20, search_space.DECAY: 0.0},
  )
  assert config.model.attention == "differential(initial=0.2)|2*variational(sigma=0.1)+2*cosine(scale=5.0)|softmax"
  assert (config.optimizer.learning_rate, config.optimizer.warmup, config.optimizer.weight_decay) == (1e-5, 20, 0.0)


def test_field_that_a_row_sets_itself_is_not_tuned():
  assert search_space.variant_space([spec.parse("differential(initial=0.5)")]) == {}
  config = _config("differential|differential(initial=0.5)")
  search_space.apply(config, {f"{search_space.VARIANT}differential.initial": 0.2})
  assert config.model.attention == "differential(initial=0.2)|differential(initial=0.5)"


@pytest.mark.parametrize("flag", ["differential.initail", "softmax.scale", "cosine.scale"])
def test_unknown_hyper_parameter_is_refused_by_name(flag):
  with pytest.raises(ValueError, match=rf"{flag} is no tunable hyper-parameter of differential") as told:
    search_space.apply(_config("differential"), {search_space.VARIANT + flag: 1.0})
  assert "it has config.model.attention.differential.initial" in str(told.value)


@pytest.mark.parametrize("name", TUNABLE)
def test_tunable_fields_change_neither_parameters_nor_claims(name):
  variant, key = spec.parse(name), jax.random.key(0)
  shapes = jax.eval_shape(lambda: variant.init(key, DIMS))
  for flag, choices in search_space.variant_space([variant]).items():
    assert len(set(choices)) > 1
    for choice in choices:
      other = dataclasses.replace(variant, **{flag.rpartition(".")[2]: choice})
      assert other.claims() == variant.claims()
      assert jax.eval_shape(lambda other=other: other.init(key, DIMS)) == shapes


def test_some_variants_have_hyper_parameters_of_their_own_and_most_have_none():
  assert {"differential", "gated_linear"} <= set(TUNABLE)
  assert len(TUNABLE) < len(spec.names()) / 2


@dataclasses.dataclass(frozen=True)
class Wrong(type(spec.parse("softmax"))):
  tunable = {"sink": (1, 2)}


def test_choices_without_the_default_are_refused():
  with pytest.raises(ValueError, match="its choices hold its default"):
    search_space.variant_space([Wrong()])
  assert Attention.tunable == {}


@pytest.mark.parametrize(
  ("scores", "higher", "best"),
  [
    ([0.1, 0.9, 0.9], True, 1),
    ([0.5, 0.1, 0.1], False, 1),
    ([math.nan, None, 0.3, math.inf], True, 2),
    ([-math.inf, 0.3], False, 1),
    ([None, math.nan], True, 0),
  ],
)
def test_best_trial_is_the_first_of_the_best_finite_ones(scores, higher, best):
  assert search_space.choose(scores, higher) == best


def test_no_score_is_refused():
  with pytest.raises(ValueError, match="no trial"):
    search_space.choose([], True)
