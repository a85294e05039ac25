import dataclasses

import numpy as np
import pytest
from scipy import special, stats

from attention_lab.compare.report import tables, verdict


@pytest.fixture
def built(rows):
  return {table.task: table for table in tables.build(rows)}


def _scaled(rows, spec, **fields):
  return [row | fields if row["attention"] == spec else row for row in rows]


def test_each_task_has_one_table_from_best_to_worst_with_the_refused_last(built):
  assert list(built) == ["recall", "image_classification", "language_modeling"]
  for table in built.values():
    means = [entry.interval.mean for entry in table.scored]
    assert means == sorted(means, reverse=table.higher_is_better)
  assert [entry.standing for entry in built["recall"].entries][-1] == "refused"
  assert built["recall"].entries[-1].reasons == [
    "linformer is not causal (it mixes keys of all positions): use it in an encoder"
  ]


def test_order_of_the_rows_in_the_ledger_does_not_matter(rows, built):
  order = ["softmax", "local(window=16)", "linear", "pooling", "linformer(rank=16)"]
  again = {table.task: table for table in tables.build(rows[::-1], order)}
  for task, table in built.items():
    assert [entry.attention for entry in again[task].entries] == [entry.attention for entry in table.entries]
    assert [entry.interval for entry in again[task].entries] == [entry.interval for entry in table.entries]
    assert again[task].baseline == "softmax"


def test_costs_are_medians_and_time_is_a_ratio_to_the_first_variant(rows):
  times = iter([1.0, 9.0, 2.0, 4.0, 4.0, 5.0])
  chosen = [row | {"step_time": next(times)} for row in rows[:6]]
  (table,) = tables.build(chosen)
  assert table.baseline == "softmax"
  assert {entry.attention: entry.time_ratio for entry in table.entries} == {"softmax": 1.0, "local(window=16)": 2.0}


def test_share_of_solved_seeds_is_shown_where_a_run_reaches_it_and_nowhere_else(built):
  assert {task: table.jumps for task, table in built.items()} == {
    "recall": True,
    "image_classification": False,
    "language_modeling": False,
  }
  assert built["recall"].scored[0].solved == 3


@pytest.mark.parametrize("fields", [{"commit": "other"}, {"digests": {"test": "other"}}, {"config_digest": "other"}])
def test_rows_of_other_code_data_or_configuration_are_never_averaged(rows, fields):
  mixed = [row | fields if row["seed"] == 2 else row for row in rows if row["task"] == "image_classification"]
  first, second = tables.build(mixed)
  assert (first.seeds, second.seeds) == ([0, 1], [2])
  assert first.label != second.label
  assert first.label
  assert second.label


def test_refusal_joins_the_table_of_its_commit(rows):
  later = [row | {"commit": "other"} for row in rows]
  for table in tables.build([*rows, *later]):
    assert len({row["commit"] for row in table.rows}) == 1
    assert len(table.entries) == 5


def test_task_that_every_variant_refuses_has_a_table_that_says_so(rows):
  (table,) = tables.build([row for row in rows if row["status"] == "refused" and row["task"] == "recall"])
  assert not table.scored
  assert table.references == {}
  assert verdict.sentences(table)[0] == "No variant finished this task."
  assert verdict.caution(table) == "No finished run, so nothing is shown."


def test_diverged_seed_leaves_its_variant_without_a_mean_and_is_named(rows):
  broken = [
    row | {"metrics": {"accuracy": None}} if (row["attention"], row["seed"]) == ("softmax", 1) else row
    for row in rows
    if row["task"] == "recall"
  ]
  (table,) = tables.build(broken)
  entry = next(entry for entry in table.entries if entry.attention == "softmax")
  assert entry.standing == "diverged"
  assert entry.interval is None
  assert any("softmax seed 1" in note for note in table.notes)
  assert any("`softmax` diverged" in sentence for sentence in verdict.sentences(table))


def test_different_devices_are_noted(rows):
  first = tables.build(_scaled(rows, "linear", device="gpu × 1"))[0]
  assert any("device" in note and "gpu × 1" in note for note in first.notes)


def test_verdict_names_best_ties_rivals_controls_and_refusals(built):
  recall = " ".join(verdict.sentences(built["recall"]))
  assert recall.startswith("`softmax` and `linear` are tied for best; the highest mean is 0.999 ± 0.005 accuracy.")
  assert "ahead of `local(window=16)` by 0.771 [0.727, 0.814] (Holm p < 0.001, g = 52.0)" in recall
  assert "Solved (≥ 0.99) by `softmax` on 3 of 3 seeds." in recall
  assert "`linformer(rank=16)` is refused: linformer is not causal" in recall
  language = " ".join(verdict.sentences(built["language_modeling"]))
  assert "worse than 5-gram (2.263)" in language
  assert "better than bigram (3.410)" in language


def test_untied_best_row_is_called_best(rows):
  (table,) = tables.build([row for row in rows if row["task"] == "recall" and row["attention"] != "linear"])
  scores = [row["metrics"]["accuracy"] for row in rows[:3]]
  half = stats.t.ppf(0.975, 2) * stats.sem(scores)
  assert verdict.sentences(table)[0] == f"`softmax` is best: {np.mean(scores):.4f} ± {half:.4f} accuracy."
  assert [verdict.standing(entry, table) for entry in table.entries] == ["best", "behind", "behind", "refused"]


def test_tied_rows_all_carry_the_same_word(built):
  table = built["image_classification"]
  standings = {entry.attention: verdict.standing(entry, table) for entry in table.entries}
  assert [name for name, word in standings.items() if word == "tied best"] == [
    entry.attention for entry in table.entries if entry.standing in ("best", "tied")
  ]
  assert standings["pooling"] == "behind"
  assert len(set(standings.values())) == 2


def test_one_seed_claims_no_order(rows):
  for table in tables.build([row for row in rows if row["seed"] == 0]):
    assert "one seed says nothing about the order" in verdict.sentences(table)[0]
    assert {verdict.standing(entry, table) for entry in table.scored} == {"undecided"}
    assert verdict.caution(table).startswith("1 seed: no interval and no test.")


@pytest.mark.parametrize(("seeds", "told"), [(2, "p = 0.5."), (3, "p = 0.25.")])
def test_caution_names_what_a_permutation_test_could_reach(rows, seeds, told):
  table = tables.build([row for row in rows if row["seed"] < seeds])[0]
  assert told in verdict.caution(table)
  assert f"{seeds} seeds" in verdict.caution(table)


def test_variant_with_failed_seeds_is_judged_on_shared_seeds_and_says_so(rows):
  failed = {"status": "failed", "reason": "RuntimeError: out of memory"}
  mixed = [row | failed if (row["attention"], row["seed"]) == ("linear", 2) else row for row in rows]
  table = tables.build(mixed)[0]
  entry = next(entry for entry in table.entries if entry.attention == "linear")
  assert entry.difference.interval.n == entry.interval.n == 2
  assert "`linear` lacks seeds, its other runs failed: RuntimeError: out of memory." in verdict.sentences(table)


def test_only_row_of_a_table_is_neither_best_nor_behind(rows):
  (table,) = tables.build([row for row in rows if row["attention"] == "linear" and row["task"] == "recall"])
  assert verdict.standing(table.entries[0], table) == "only row"
  assert verdict.sentences(table)[0].startswith("`linear` is the only variant with a score")


def test_score_at_a_control_is_not_to_be_told_from_it(built):
  table = built["language_modeling"]
  level = dataclasses.replace(table, references={"twin": table.scored[0].interval.mean})
  assert any("not to be told from twin" in sentence for sentence in verdict.sentences(level))


def test_tables_of_edited_and_unedited_code_have_different_names(rows):
  edited = [row | {"commit": row["commit"] + "+changes"} for row in rows]
  labels = {(table.task, table.label) for table in tables.build([*rows, *edited])}
  assert len(labels) == 6


def test_effect_of_a_row_is_hedges_g_of_its_paired_differences(built):
  table = built["language_modeling"]
  best, *others = table.scored
  assert best.effect is None
  for entry in others:
    gaps = np.array([entry.scores[seed] - best.scores[seed] for seed in table.seeds])
    noise, half = entry.difference.deviation, (2 + entry.difference.prior) / 2
    assert noise >= gaps.std(ddof=1) * (1 - 1e-12)
    assert entry.effect == pytest.approx(gaps.mean() / noise * special.poch(half - 0.5, 0.5) / np.sqrt(half))


def test_effect_needs_three_seeds(rows):
  for table in tables.build([row for row in rows if row["seed"] < 2]):
    assert {entry.effect for entry in table.entries} == {None}


def test_state_receptive_field_and_wall_time_are_costs_and_absent_ones_are_none(rows):
  held = {"state_bytes": 2048, "receptive_field": 31, "wall_time": 4.5}
  (table,) = tables.build([row | held for row in rows if row["task"] == "recall" and row["attention"] == "softmax"])
  assert {name: table.entries[0].cost(name) for name in held} == held
  assert tables.build(rows)[0].entries[0].cost("state_bytes") is None


def test_table_says_what_was_done_alike_for_its_rows(rows):
  tuning = {"trials": 4, "chances": True, "space": {"config.optimizer.weight_decay": [0.0, 0.1]}, "chosen": {}}
  budget = {"match": "state", "target": 100.0, "value": 100.0, "changed": {"head_width": 8}}
  (table,) = tables.build([row | {"tuning": tuning, "budget": budget} for row in rows if row["task"] == "recall"])
  assert (table.match, table.trials, table.chances) == ("state", 4, True)
  assert table.scored[0].changed == {"head_width": 8}
  older = tables.build(rows)[0]
  assert (older.match, older.trials, older.chances, older.footing.target) == ("none", 0, False, None)


def test_share_of_solved_seeds_counts_failed_runs(rows):
  failed = {"status": "failed", "reason": "RuntimeError: out of memory"}
  mixed = [row | failed if (row["attention"], row["seed"]) == ("softmax", 2) else row for row in rows]
  entry = next(entry for entry in tables.build(mixed)[0].entries if entry.attention == "softmax")
  assert entry.solved_share == pytest.approx(2 / 3)
