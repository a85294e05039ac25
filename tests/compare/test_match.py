"""Rows are brought to the baseline's budget, or refused by name; nothing is compiled on the way."""

import dataclasses
import logging

import jax
import pytest

from attention_lab import mesh as meshes
from attention_lab.attention import spec
from attention_lab.attention.base import Unsupported
from attention_lab.compare.budget import match as budgets
from attention_lab.compare.budget import model_size
from attention_lab.compare.schedule import row_spec
from attention_lab.config import MeshConfig
from attention_lab.tasks import base, long_range, recall
from attention_lab.train import loop

SOURCES = base.SourceCache()
MESH = meshes.make_mesh(MeshConfig(data=1), jax.devices()[:1])


def tiny(row, **model):
  config = recall.Config(batch=8, steps=1)
  config.data = dataclasses.replace(config.data, train=32, validation=8, test=8, length=16, pairs=2)
  row_spec.apply(config, row)
  config.model = dataclasses.replace(config.model, **model)
  return config


def expressions(row, **model):
  config = long_range.Config(batch=8, steps=1)
  config.data = dataclasses.replace(config.data, name="listops", train=32, validation=8, test=8, length=64, shortest=8)
  config.model = dataclasses.replace(config.model, width=64, dropout=0.0)
  row_spec.apply(config, row)
  config.model = dataclasses.replace(config.model, **model)
  return config


def build(config):
  return (long_range if isinstance(config, long_range.Config) else recall).build(config, "", MESH, SOURCES)


def measured(kind, config):
  return budgets.measure(kind, build(config), config, MESH)


def brought(kind, row, baseline):
  """The row's budget against the baseline's, with the changed model measured anew."""
  target = measured(kind, baseline)
  budget = budgets.match(kind, row, target, build, MESH)
  fresh = measured(kind, model_size.applied(row, budget.changed))
  assert fresh == budget.value
  assert abs(fresh - target) <= 0.01 * target
  return budget


VARIANTS = ("linear", "local(window=4)", "performer", "mla", "gated_delta", "local(window=4)+linear", "2*mla")


@pytest.mark.parametrize("row", VARIANTS)
def test_parameters_come_within_1_percent_of_the_baseline(row):
  budget = brought("parameters", tiny(row), tiny("softmax"))
  assert set(budget.changed) <= {"mlp_width"}


@pytest.mark.parametrize("row", VARIANTS[:5])
def test_flops_come_within_1_percent_of_the_baseline(row):
  brought("flops", tiny(row, layers=1), tiny("softmax", layers=1))


@pytest.mark.parametrize("kind", ["parameters", "flops"])
def test_linformer_meets_the_budget_of_an_encoder(kind):
  baseline = expressions("softmax", layers=1)
  assert set(brought(kind, expressions("linformer", layers=1), baseline).changed) == {"mlp_width"}


@pytest.mark.parametrize("row", ["softmax@architecture=lstm", "softmax@architecture=cnn"])
def test_a_baseline_without_an_mlp_is_made_wider(row):
  budget = brought("parameters", expressions(row), expressions("softmax"))
  assert set(budget.changed) == {"width"}
  assert budget.before == {"width": 64}


@pytest.mark.parametrize(
  ("row", "field"),
  [("gated_delta", "head_width"), ("performer(features=90)", "attention"), ("mla", "attention")],
)
def test_a_state_is_resized_by_what_moves_it(row, field):
  assert set(brought("state", tiny(row), tiny("softmax", width=64)).changed) == {field}


def test_a_size_is_changed_in_every_part_that_has_it():
  model = tiny("performer(features=9)+softmax|linear|performer(features=9)", layers=6).model
  _, coarse, _ = model_size.knobs(model, "state")
  (features,) = [knob for knob in coarse if knob.name == "features"]
  assert features.base == 9
  assert features.set(30) == {"attention": "performer(features=30)+softmax|linear|performer(features=30)"}
  assert features.set(64) == {"attention": "performer+softmax|linear|performer"}


def test_a_row_within_1_percent_is_left_as_it_is():
  target = measured("parameters", tiny("softmax"))
  budget = budgets.match("parameters", tiny("local(window=4)"), 1.009 * target, build, MESH)
  assert budget.changed == {}
  assert budget.as_row() == {"match": "parameters", "target": 1.009 * target, "value": target, "changed": {}}
  assert budgets.describe(budget).startswith("nothing changed: ")


def test_width_is_changed_where_the_narrowest_mlp_is_too_wide():
  budget = brought("parameters", tiny("softmax"), tiny("softmax", width=16))
  assert budget.changed["width"] < 32
  assert budget.changed["width"] % 4 == 0, "heads are 2, and rotated in pairs of channels"
  assert budget.changed["mlp_width"] >= 8


def test_the_line_says_what_was_changed():
  budget = budgets.Budget("parameters", 51300.0, 51234.0, {"mlp_width": 243}, {"mlp_width": 256})
  assert budgets.describe(budget) == "mlp_width 256 -> 243: 51,234 parameters for 51,300"
  assert budgets.Budget(**dataclasses.asdict(budget)) == budget


@pytest.mark.parametrize(
  ("kind", "row", "target", "message"),
  [
    ("parameters", tiny("softmax"), 10.0, r"softmax cannot come within 1% of 10: nearest .* with mlp_width=8, width=8"),
    (
      "state",
      tiny("identity"),
      1000.0,
      r"identity cannot .*\(left out head_width \(no effect\), width \(no effect\)\)",
    ),
    ("state", tiny("linear"), 6144.0, r"linear cannot come within 1% of 6,144: nearest .* with head_width=.*tried"),
    ("state", expressions("softmax"), 1000.0, r"needs rows that decode, and softmax does not"),
  ],
)
def test_what_cannot_be_met_is_refused_by_name(kind, row, target, message):
  with pytest.raises(Unsupported, match=message) as refusal:
    budgets.match(kind, row, target, build, MESH)
  assert "\n" not in str(refusal.value)


def test_a_recurrent_baseline_whose_widths_are_too_far_apart_is_refused():
  row = expressions("softmax@architecture=lstm")
  here, there = (measured("parameters", model_size.applied(row, {"width": width})) for width in (64, 65))
  assert there - here > 0.02 * there
  with pytest.raises(Unsupported, match=r"softmax@architecture=lstm cannot .*mlp_width=257 means nothing to lstm"):
    budgets.match("parameters", row, (here + there) / 2, build, MESH)


def test_sizes_that_differ_between_parts_are_left_as_they_are():
  row = tiny("performer(features=9)|performer(features=200)")
  with pytest.raises(Unsupported, match=r"features \(it differs between parts\)"):
    budgets.match("state", row, 100.0, build, MESH)


@pytest.mark.parametrize("kind", ["none", "memory"])
def test_a_kind_that_is_no_budget_is_refused(kind):
  with pytest.raises(ValueError, match="parameters, flops, state, time"):
    budgets.match(kind, tiny("softmax"), 1.0, build, MESH)


@pytest.mark.parametrize(("kind", "baseline"), [("time", None), ("flops", tiny("softmax"))])
def test_a_baseline_goes_with_time_alone(kind, baseline):
  with pytest.raises(ValueError, match="a baseline goes with --match=time"):
    budgets.match(kind, tiny("softmax"), 1.0, build, MESH, baseline=baseline)


@pytest.mark.parametrize("config", [tiny("gated_delta"), expressions("softmax")], ids=["recall", "listops"])
def test_parameters_and_flops_are_those_that_a_run_reports(config):
  reported = loop.run(build(config), config, None, mesh=MESH, log=lambda _: None, splits=())[0]
  assert measured("flops", config) == reported["flops_per_token"]
  assert measured("parameters", config) == reported["parameters"]


def test_nothing_is_compiled_to_meet_a_budget_of_shapes(caplog):
  baseline, rows_ = tiny("softmax", layers=1), {"parameters": "mla", "flops": "gated_delta", "state": "mla"}
  with jax.log_compiles(), caplog.at_level(logging.WARNING):
    for kind, row in rows_.items():
      brought(kind, tiny(row, layers=1), baseline)
  compiled = [record.getMessage() for record in caplog.records if record.getMessage().startswith("Compiling")]
  assert not [line for line in compiled if "step" in line or "init" in line]


def test_a_size_that_has_no_effect_is_left_out():
  with pytest.raises(Unsupported, match=r"rank \(rank=9 has no effect with kind='dense': leave it out\)"):
    budgets.match("parameters", tiny("synthesizer"), 10.0, build, MESH)


def test_every_declared_size_is_a_whole_number():
  declared = {name: spec.parse(name).resizable for name in spec.names()}
  assert declared["performer"] == ("features",)
  for name, fields in declared.items():
    assert all(type(getattr(spec.parse(name), field)) is int for field in fields), name
