import pytest

from attention_lab.compare import report
from attention_lab.compare.report import fairness, tables

SPACE = {"config.optimizer.learning_rate": [0.0003, 0.03, "log"], "config.optimizer.weight_decay": [0.0, 0.1]}
OWN = {"config.model.attention.gated_linear.temperature": [4.0, 16.0]}
DIGESTS = {"train": "aaaa", "validation": "bbbb", "test": "cccc"}


def _row(attention, seed=0, value=51_300.0, **fields):
  tuning = {"trials": 8, "space": SPACE, "chosen": {}, "second": None, "taken": "", "chances": True}
  return {
    "task": "recall",
    "attention": attention,
    "seed": seed,
    "status": "done",
    "primary": "accuracy",
    "higher_is_better": True,
    "metrics": {"accuracy": 0.5},
    "digests": DIGESTS,
    "commit": "c0ffee",
    "parameters": int(value),
    "budget": {"match": "parameters", "target": 51_300.0, "value": value, "changed": {}},
    "tuning": tuning,
  } | fields


def _refusal(*rows):
  with pytest.raises(ValueError, match=r"^recall: ") as told:
    tables.build(rows)
  assert "\n" not in str(told.value)
  return str(told.value)


def _tuned(attention, **changes):
  row = _row(attention)
  return row | {"tuning": row["tuning"] | changes}


def test_rows_that_were_treated_alike_are_accepted():
  rows = [
    _row(name, seed, value=value) for name, value in (("softmax", 51_300.0), ("linear", 51_800.0)) for seed in (0, 1)
  ]
  fairness.check(rows)
  fairness.check([_tuned("softmax"), _tuned("gated_linear", space=SPACE | OWN)])


def test_older_rows_that_record_nothing_are_accepted_and_count_as_untuned_and_unmatched():
  bare = [_row(name, budget=None, tuning=None) for name in ("softmax", "linear")]
  for row in bare:
    del row["tuning"], row["budget"]
  fairness.check(bare)
  assert fairness.footing(bare[0]) == fairness.Footing("none", None, 0, "{}", False)
  told = _refusal(bare[0], _row("linear"))
  assert "`softmax` has --match none and `linear` parameters" in told


def test_row_outside_of_its_budget_is_refused_by_name():
  told = _refusal(_row("softmax"), _row("linear", value=60_000.0))
  assert told == (
    "recall: `linear` has 60,000 parameters where the budget is 51,300 ± 1%: size it again with --match=parameters, or "
    "compare with --match=none"
  )


def test_budget_is_judged_by_what_the_row_itself_counted():
  assert "`linear` has 60,000 parameters" in _refusal(_row("softmax"), _row("linear", parameters=60_000))
  state = {"match": "state", "target": 1000.0, "value": 1000.0, "changed": {}}
  assert "`linear` has 2,000 state" in _refusal(_row("linear", budget=state, state_bytes=2000))


def test_one_percent_is_within_the_budget_and_more_is_not():
  fairness.check([_row("softmax"), _row("linear", value=51_300 * 1.01)])
  _refusal(_row("linear", value=51_300 * 1.0101))
  _refusal(_row("linear", value=51_300 * 0.9899))


def test_rows_of_two_budgets_are_refused():
  other = {"match": "parameters", "target": 70_000.0, "value": 70_000.0, "changed": {}}
  assert "has budget 51300.0 and `linear` 70000.0" in _refusal(_row("softmax"), _row("linear", 7e4, budget=other))
  matched = {"match": "flops", "target": 51_300.0, "value": 51_300.0, "changed": {}}
  assert "--match parameters and `linear` flops" in _refusal(_row("softmax"), _row("linear", budget=matched))


def test_times_are_ratios_to_a_baseline_measured_beside_them():
  times = [{"match": "time", "target": target, "value": target * 1.005, "changed": {}} for target in (0.031, 0.036)]
  fairness.check([_row("softmax", budget=times[0]), _row("linear", budget=times[1])])
  _refusal(_row("softmax", budget=times[0] | {"value": 0.04}))


def test_unequal_trials_are_refused_by_name():
  told = _refusal(_tuned("softmax"), _tuned("linear", trials=32))
  assert "`softmax` has --trials 8 and `linear` 32" in told
  assert "run one of them again with the other's --trials" in told


def test_unequal_search_spaces_are_refused():
  wider = SPACE | {"config.optimizer.weight_decay": [0.0, 0.1, 1.0]}
  assert "search space" in _refusal(_tuned("softmax"), _tuned("linear", space=wider))


def test_second_chances_for_some_rows_only_are_refused():
  assert "--second_chance true and `linear` false" in _refusal(_tuned("softmax"), _tuned("linear", chances=False))


@pytest.mark.parametrize("pair", [("validation", "test"), ("train", "validation"), ("train", "test")])
def test_splits_that_are_the_same_data_are_refused(pair):
  same = DIGESTS | dict.fromkeys(pair, "dddd")
  assert "are the same data (digest dddd)" in _refusal(_row("softmax", digests=same))


def test_seeds_of_a_row_at_two_settings_are_refused():
  rate = {"config.optimizer.learning_rate": 0.009}
  second = _row("linear", 1)
  told = _refusal(_row("linear"), second | {"tuning": second["tuning"] | {"chosen": rate, "taken": "×3"}})
  assert "seeds 0 and 1 of `linear` were tested at no change and optimizer.learning_rate=0.009" in told


def test_positive_control_of_a_metric_without_a_solution_is_refused():
  loss = {"primary": "loss", "metrics": {"loss": 2.0}, "higher_is_better": False, "positive": True}
  assert "leave --positive out" in _refusal(_row("softmax", **loss))


def test_refused_and_failed_rows_and_other_tables_do_not_count():
  stopped = [_row("linear", status=status, budget=None, tuning=None) for status in ("refused", "failed")]
  fairness.check([_row("softmax"), *stopped])
  fairness.check([_row("softmax"), _row("linear", commit="other", budget=None, tuning=None)])


def test_row_with_fewer_seeds_is_accepted():
  fairness.check([_row("softmax", 0), _row("softmax", 1), _row("linear", 1)])


def test_report_of_an_unfair_grid_is_refused(workdir, fake):
  lines = (workdir / "results.jsonl").read_text().splitlines(keepends=True)
  unfair = [line.replace('"test": "0b77e1d4c9a2f3e8"', '"test": "8d1f0c77aa12be90"') for line in lines]
  assert unfair != lines
  (workdir / "results.jsonl").write_text("".join(unfair))
  with pytest.raises(ValueError, match="recall: train and test are the same data"):
    report.write(workdir)
