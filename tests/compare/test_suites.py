import pytest

from attention_lab import config as configs
from attention_lab.compare import run
from attention_lab.compare.schedule import row_spec, suites
from attention_lab.compare.schedule.protocol import Protocol
from attention_lab.data.mechanisms import generation

NAMES = [(name, size) for name, sizes in suites.SUITES.items() for size in sizes]


@pytest.mark.parametrize(("name", "size"), NAMES)
def test_every_suite_can_be_planned(name, size):
  suite = suites.load(name, size)
  comparison = run.plan(",".join(suite.tasks), ";".join(suite.rows), 0, [], Protocol(), suite.tasks)
  assert list(comparison.tasks) == list(suite.tasks)
  for task, settings in suite.tasks.items():
    flat = configs.flatten(comparison.tasks[task])
    for setting in settings:
      field, _, value = setting.partition("=")
      held = flat[f"config.{field}"]
      assert held == type(held)(value)


@pytest.mark.parametrize(("name", "size"), NAMES)
def test_a_suite_sets_flags_that_there_are_and_a_positive_control_that_is_a_row(name, size):
  suite = suites.load(name, size)
  assert set(suite.flags) <= {"seeds", "trials", "match", "second_chance", "positive"}
  assert suite.flags.get("positive", row_spec.canonical(suite.rows[0])) in map(row_spec.canonical, suite.rows)


def test_small_suites_have_the_rows_and_seeds_that_their_claims_need():
  for name in ("recall", "mechanisms", "vision"):
    suite = suites.load(name, "cpu")
    assert len({row.partition("@")[0] for row in suite.rows}) >= 12
    assert int(suite.flags["seeds"]) >= 3
  for name in ("language", "long_range"):
    assert len(suites.load(name, "cpu").rows) >= 6


@pytest.mark.parametrize("size", suites.SUITES["mechanisms"])
def test_the_examples_of_every_mechanism_can_be_made(size):
  suite = suites.load("mechanisms", size)
  comparison = run.plan(",".join(suite.tasks), "softmax", 0, [], Protocol(), suite.tasks)
  for task, config in comparison.tasks.items():
    shape = generation.resolve_shape(task.partition(":")[2], {"length": config.data.length})
    assert generation.tested_lengths(config.data.name, shape.length, config.data.longest)[0] == shape.length


def test_an_unknown_suite_or_size_is_refused_with_the_choices():
  with pytest.raises(ValueError, match=r"--suite=visio is unknown, did you mean 'vision'\?; choices: first, recall"):
    suites.load("visio", "cpu")
  with pytest.raises(ValueError, match=r"--size=tpu is unknown.*; choices: cpu, gpu"):
    suites.load("vision", "tpu")
  with pytest.raises(ValueError, match=r"--size=gpu is unknown.*; choices: cpu$"):
    suites.load("first", "gpu")
