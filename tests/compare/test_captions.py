import pytest

from attention_lab.compare.report import captions, columns, lengths, pictures, tables

SPACE = {"config.optimizer.learning_rate": [0.0003, 0.03, "log"], "config.optimizer.warmup": [0, 50, 100]}
OWN = "config.model.attention.linear.feature"


def _budget(value, changed=None):
  return {"match": "parameters", "target": 1000, "value": value, "changed": changed or {}}


def _tuning(chosen, second=None, taken="", space=None):
  return {"trials": 4, "chances": True, "space": space or SPACE, "chosen": chosen, "second": second, "taken": taken}


def _tuned():
  """Three rows: the baseline, one that took its second chance, one with a hyper-parameter of its own."""
  rate, warmup = SPACE
  first = {"budget": _budget(1000), "tuning": _tuning({}), "config": {rate: 0.003, warmup: 50}, "positive": True}
  second = _tuning({rate: 0.009, warmup: 0}, {"÷3": 0.61, "×3": None}, "×3")
  third = _tuning({rate: 0.01, warmup: 100, OWN: 16}, {"÷3": 0.4, "×3": 0.5}, space=SPACE | {OWN: [8, 16]})
  return {
    "softmax": ([1.0, 0.995], first),
    "local": ([0.7, 0.72], {"budget": _budget(1004, {"mlp_width": 260}), "tuning": second}),
    "linear": ([0.5, 0.52], {"budget": _budget(996, {"mlp_width": 240}), "tuning": third}),
  }


def test_caption_names_budget_trials_chances_and_control(table_of):
  assert captions.sentences(table_of(_tuned())) == [
    "Budget: every row within 0.4 % of 1\N{NARROW NO-BREAK SPACE}000 parameters (`--match=parameters`); 2 of 3 rows "
    "had a size changed for it.",
    "Tuning: 4 trials for each row (`--trials=4`), chosen on validation with one seed, from learning rate 0.0003 to "
    "0.03 (log), warmup one of 0, 50, 100, and the hyper-parameters that a variant declares.",
    "Second chances: 2 of 3 rows were behind on validation and ran again at a third and at three times their learning "
    "rate; a better one was kept by `local` (×3).",
    "Positive control: `softmax` reached 0.99 on 2 of 2 seeds, as it must on each.",
  ]


def test_every_row_shows_what_it_was_given(table_of):
  sheet = captions.received(table_of(_tuned()))
  assert list(sheet.head) == [
    *("variant", "budget", "changed to match", "learning rate", "warmup", "settings of its own"),
    *("validation\nat ÷3", "validation\nat ×3", "learning rate\nkept"),
  ]
  rows = {row[0]: row[2:] for row in sheet.rows}
  assert rows["`softmax`"] == ["–", "0.003", "50", "–", "–", "–", "–"]
  assert rows["`local`"] == ["mlp width 260", "0.009", "0", "–", "0.61", "diverged", "×3"]
  assert rows["`linear`"] == ["mlp width 240", "0.01", "100", "feature 16", "0.40", "0.50", "its own"]


def test_rows_without_budget_and_tuning_say_so(table_of):
  table = table_of({"a": ([0.1, 0.2], {}), "b": ([0.3, 0.4], {})})
  assert captions.sentences(table) == [
    "Budget: not matched (`--match=none`).",
    "Tuning: none (`--trials=0`); every row has the settings of the protocol.",
    "Second chances: off (`--nosecond_chance`).",
    "Positive control: none was named.",
  ]
  assert captions.received(table) is None


def test_control_that_fails_a_seed_is_told_under_the_table(table_of):
  rows = _tuned()
  rows["softmax"][0][1] = 0.6
  assert captions.sentences(table_of(rows))[-1] == (
    "Positive control: `softmax` reached 0.99 on 1 of 2 seeds, so the table is undecided."
  )


def test_overview_marks_the_rows_not_told_from_the_best_and_keeps_refusals(rows, fake):
  sheet = columns.overview(tables.build(rows, fake.specs), fake.specs, {})
  assert list(sheet.head) == ["variant", "recall", "image classification", "language modeling", "◆ on"]
  cells = {row[0]: row[1:] for row in sheet.rows}
  assert [cell.startswith("◆ ") for cell in cells["`softmax`"][:3]] == [True, True, True]
  assert cells["`softmax`"][3] == "3 of 3"
  assert cells["`linformer(rank=16)`"][0] == cells["`linformer(rank=16)`"][2] == "refused"


def test_one_task_needs_no_overview(rows):
  assert columns.overview(tables.build([row for row in rows if row["task"] == "recall"]), (), {}) is None


@pytest.fixture
def long(table_of):
  """Scores at two lengths, with an effective length that differs between the seeds of one row."""
  table = table_of({"softmax": ([0.9, 0.8], {}), "linear": ([0.7, 0.6], {})})
  for entry in table.entries:
    for row in entry.rows:
      drop = 0.2 if entry.attention == "linear" else 0.1
      score = row["metrics"]["accuracy"]
      row["metrics"] |= {"accuracy@64": score, "accuracy@128": score - drop, "loss@128": 1.0}
      row["metrics"]["effective_length"] = 128 if entry.attention == "linear" else 64 * (1 + row["seed"])
  return table


def test_scores_at_other_lengths_stand_beside_the_effective_length(long):
  sheet = lengths.sheet(long)
  assert list(sheet.head) == ["variant", "effective length", "64", "128"]
  assert [row[:2] for row in sheet.rows] == [["`softmax`", "64 (64 to 128)"], ["`linear`", "128"]]
  assert [row[3][:4] for row in sheet.rows] == ["0.75", "0.45"]
  drawn = pictures.at_lengths(long, {"softmax": 0, "linear": 1}).figure
  assert [list(line.get_xdata()) for line in drawn.axes[0].lines].count([64, 128]) == 2
  assert {"softmax", "linear"} <= {text.get_text() for text in drawn.axes[0].texts}


def test_a_length_that_a_seed_lacks_is_not_averaged(long):
  del long.entries[1].rows[0]["metrics"]["accuracy@128"]
  assert lengths.sheet(long).rows[1][2:] == [lengths.sheet(long).rows[1][2], "–"]
  assert 128 not in lengths.scores(long.entries[1])


def test_rows_without_lengths_have_no_such_table(table_of):
  table = table_of({"a": ([0.1, 0.2], {})})
  assert lengths.sheet(table) is None
  assert pictures.at_lengths(table, {}) is None
