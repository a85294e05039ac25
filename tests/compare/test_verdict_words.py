import pytest

from attention_lab.compare.report import protocol, tables, verdict

TUNING = {"trials": 0, "space": {}, "chosen": {}, "second": None, "taken": "", "chances": True}


def _table(rows, fields=None, task="recall", **shared):
  """The one table of a task, its rows with the fields that all share and those of their variant."""
  chosen = [row | shared | (fields or {}).get(row["attention"], {}) for row in rows if row["task"] == task]
  (table,) = tables.build(chosen)
  return table


def _text(table):
  return " ".join(verdict.sentences(table))


def _scores(values):
  return [{"metrics": {"accuracy": value}} for value in values]


def _with_scores(rows, attention, values):
  by_seed = dict(enumerate(_scores(values)))
  return [row | by_seed[row["seed"]] if row["attention"] == attention else row for row in rows]


def test_positive_control_that_fails_a_seed_leaves_the_whole_table_undecided(rows):
  failing = _with_scores(rows, "softmax", [0.999, 0.4, 0.998])
  table = _table(failing, {"softmax": {"positive": True}})
  first, second, *_ = verdict.sentences(table)
  assert first == "Undecided: the instrument failed: `softmax`, the positive control, solved 2 of 3 seeds."
  assert second == "No order of the rows is claimed until the control reaches 0.99 on every seed."
  assert {verdict.standing(entry, table) for entry in table.scored} == {"undecided"}
  assert not {"best", "ahead", "tied", "trails", "Power"} & set(_text(table).replace(":", " ").split())


def test_rows_of_a_tokenizer_that_loses_text_are_not_ranked(rows):
  lossy = "--config.data.tokenizer=word loses 90 of 100 bytes of test, in 9 unknown of 10 tokens"
  table = _table(rows, task="language_modeling", lossy=lossy)
  assert verdict.plain(table) == f"Not ranked: {lossy}."
  assert verdict.sentences(table)[0].startswith(f"No order of the rows is claimed: {lossy}; byte, bpe")
  assert {verdict.standing(entry, table) for entry in table.scored} == {"undecided"}
  assert not {"best", "ahead", "tied", "trails", "Power"} & set(_text(table).replace(":", " ").split())


def test_positive_control_that_solves_every_seed_changes_no_verdict(rows):
  table, before = _table(rows, {"softmax": {"positive": True}}), _table(rows)
  assert verdict.sentences(table) == verdict.sentences(before)
  assert [entry.standing for entry in table.entries] == [entry.standing for entry in before.entries]
  assert dict(protocol.pairs(table))["positive control"] == "softmax"
  assert "positive control" not in dict(protocol.pairs(before))


def test_positive_control_whose_run_failed_counts_as_unsolved(rows):
  failed = {"status": "failed", "reason": "Diverged: the loss is not finite at step 3"}
  stopped = [row | failed if (row["attention"], row["seed"]) == ("softmax", 1) else row for row in rows]
  told = verdict.sentences(_table(stopped, {"softmax": {"positive": True}}))
  assert told[0] == "Undecided: the instrument failed: `softmax`, the positive control, solved 2 of 3 seeds."
  assert any("`softmax` lacks seeds, its other runs failed: Diverged" in sentence for sentence in told)


def test_power_line_follows_the_order_of_the_rows(rows):
  sentences = verdict.sentences(_table(rows, task="image_classification"))
  number = next(i for i, sentence in enumerate(sentences) if sentence.startswith("Power"))
  assert "is ahead of" in sentences[number - 1]
  assert "with 3 seeds nothing under 1.7 points can be significant" in sentences[number]
  assert "you need 25 seeds" in sentences[number]


def test_power_line_of_a_loss_is_in_its_own_unit(rows):
  assert "bits per byte can be significant" in _text(_table(rows, task="language_modeling"))


def test_power_line_of_one_seed_says_that_nothing_can_be_significant(rows):
  table = _table([row for row in rows if row["seed"] == 0])
  assert "Power: no difference can be significant with 1 seed." in verdict.sentences(table)


def test_untuned_rows_without_second_chance_or_budget_say_so(rows):
  told = _text(_table(rows))
  assert "No row had a second chance (--nosecond_chance)." in told
  assert "No row was tuned: --trials=0." in told
  assert "Budgets are not matched: --match=none; parameters from 71 936 to 104 704." in told.replace("\u202f", " ")


def test_second_chances_say_who_took_which_and_who_kept_their_rate(rows):
  second = {"÷3": 0.2, "×3": 0.78}
  fields = {
    "linear": {"tuning": TUNING | {"second": second, "taken": "×3", "before": 0.71}},
    "pooling": {"tuning": TUNING | {"second": second, "taken": ""}},
    "local(window=16)": {"tuning": TUNING | {"second": {"÷3": None, "×3": 0.1}, "taken": ""}},
  }
  table = _table(rows, fields, tuning=TUNING)
  told = verdict.sentences(table)
  rate = "three times the learning rate, taken, 0.710 to 0.780 on validation."
  assert f"`linear` had its second chance: {rate}" in told
  outcome = "had a second chance: neither a third nor three times the learning rate did better."
  assert f"`local(window=16)` and `pooling` {outcome}" in told
  assert "local(window=16): ÷3 failed, ×3 0.1000" in dict(protocol.pairs(table))["second chance"]


def test_rows_that_are_behind_on_test_alone_are_said_to_have_had_no_second_chance(rows):
  fields = {"linear": {"tuning": TUNING | {"second": {"÷3": 0.2, "×3": 0.1}, "taken": ""}}}
  told = verdict.sentences(_table(rows, fields, tuning=TUNING))
  assert "`local(window=16)` and `pooling` had none: validation did not tell them behind." in told


def test_of_many_second_chances_the_first_are_told_and_the_others_counted(rows, monkeypatch):
  monkeypatch.setattr(verdict, "SHOWN", 1)
  taken = {"tuning": TUNING | {"second": {"÷3": 0.75, "×3": 0.1}, "taken": "÷3"}}
  told = _text(_table(rows, dict.fromkeys(("linear", "pooling", "local(window=16)"), taken), tuning=TUNING))
  assert told.count("had its second chance") == 1
  assert "So had 2 more, which the caption of the table names." in told


@pytest.mark.parametrize(("rate", "side"), [("÷3", "high"), ("×3", "low")])
def test_a_rate_that_most_rows_left_for_the_last_one_tried_is_called_too_high_or_low(rows, rate, side):
  taken = {"tuning": TUNING | {"second": {"÷3": 0.75, "×3": 0.75}, "taken": rate}}
  edge = f"rows were better at {verdict.RATES[rate]}, the last that was tried: this table's learning rate is too {side}"
  most = _text(_table(rows, dict.fromkeys(("linear", "pooling", "local(window=16)"), taken), tuning=TUNING))
  assert f"3 of 4 {edge}" in most
  half = _text(_table(rows, dict.fromkeys(("linear", "pooling"), taken), tuning=TUNING))
  assert edge not in half


def test_second_chance_without_a_recorded_start_says_where_it_ended(rows):
  fields = {"linear": {"tuning": TUNING | {"second": {"÷3": 0.75, "×3": 0.1}, "taken": "÷3"}}}
  told = verdict.sentences(_table(rows, fields, tuning=TUNING))
  assert "`linear` had its second chance: a third of the learning rate, taken, 0.750 on validation." in told


def test_second_chances_that_nobody_needed_are_told_from_those_that_were_off(rows):
  assert "No row was behind on validation, so none had a second chance." in _text(_table(rows, tuning=TUNING))


@pytest.mark.parametrize(("trials", "phrase"), [(8, "the same 8 trials"), (1, "1 trial")])
def test_trials_are_said_in_verdict_and_protocol(rows, trials, phrase):
  space = {"config.optimizer.learning_rate": [0.0003, 0.03, "log"]}
  chosen = {"config.optimizer.learning_rate": 0.00474}
  table = _table(rows, tuning=TUNING | {"trials": trials, "space": space, "chosen": chosen})
  assert f"Each row had {phrase}, judged on validation." in verdict.sentences(table)
  pairs = dict(protocol.pairs(table))
  assert pairs["trials"] == f"--trials={trials}"
  assert pairs["trials, learning rate"] == "0.0003 to 0.03, log"
  assert "pooling: learning rate 0.00474" in pairs["chosen on validation"]


@pytest.mark.parametrize(
  ("match", "told"),
  [
    ("parameters", "All rows are within 1 % of 51 300 parameters."),
    ("flops", "All rows are within 1 % of 51 300 FLOPs per token."),
    ("state", "All rows are within 1 % of 51 300 bytes of decoding state."),
    ("time", "All rows take the baseline's time for a step within 1 %."),
  ],
)
def test_matched_budgets_are_said_with_their_unit_and_changes(rows, match, told):
  budget = {"match": match, "target": 51_300.0, "value": 51_400.0, "changed": {"mlp_width": 250}}
  table = _table(rows, budget=budget, parameters=51_400)
  assert told in [sentence.replace("\u202f", " ") for sentence in verdict.sentences(table)]
  assert "linear: mlp width 250" in dict(protocol.pairs(table))["changed to match"]


def test_rows_of_one_size_are_said_to_have_it(rows):
  told = _text(_table(rows, parameters=51_300)).replace("\u202f", " ")
  assert "--match=none; all rows have 51 300 parameters." in told


def test_row_that_solves_some_seeds_only_is_said_to_be_luck_where_seeds_are_few(rows):
  told = _text(_table(_with_scores(rows, "linear", [0.995, 0.02, 0.999])))
  assert "Solved (≥ 0.99) by `softmax` on 3 of 3 seeds and `linear` on 2 of 3 seeds." in told
  assert "`linear` solved it on some seeds only, so a mean here is partly luck" in told
  assert "even 3 of 3 seeds against 0 of 3 is Holm p = 0.60 by Fisher's exact test." in told  # 6 pairs × 2 / 20


def test_row_that_solves_some_of_nine_seeds_needs_no_such_warning(fake):
  rows = _with_scores(fake.make_rows(tuple(range(9))), "linear", [0.995, 0.02, 0.999] * 3)
  assert "partly luck" not in _text(_table(rows))


def test_row_that_lacks_seeds_without_a_failure_says_so(rows):
  fewer = [row for row in rows if (row["attention"], row["seed"]) != ("linear", 2)]
  assert "`linear` was not run on seed 2, and is judged on the seeds that it has." in verdict.sentences(_table(fewer))


def test_reading_of_the_report_holds_for_tuned_and_untuned_tables():
  told = " ".join(protocol.READING)
  assert "No row was tuned" not in told
  assert "the test split is read once" in told
  assert "corrected for few seeds (Hedges)" in told
