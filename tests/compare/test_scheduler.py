import dataclasses
import random

import pytest

from attention_lab.compare.schedule import grid
from attention_lab.compare.schedule.protocol import AUTO, Protocol
from attention_lab.compare.schedule.scheduler import TUNING_SEED, Journal, Scheduler
from attention_lab.compare.schedule.search_space import RATE

SETTINGS = {RATE: 1e-3}
ROWS = {"softmax": (0.9, 1e-3), "linear": (0.6, 3e-3), "pooling": (0.2, 1e-3)}  # best score, and the rate it needs
TRIAL_SETTINGS = {row: [{}, {RATE: 3e-3}, {RATE: 1e-4}] for row in ROWS}
EVERYTHING = lambda job: False


def cells(seeds=(0, 1, 2), rows=tuple(ROWS)):
  return grid.plan({"recall": SETTINGS}, rows, seeds)


def lines(job, *, broken=()):
  """What the runs of a job leave: the further from its rate, the worse; `broken` rows diverge there."""
  best, wanted = ROWS[job.attention]
  rate = job.changes.get(RATE, SETTINGS[RATE])
  for seed in job.seeds:
    record = {"task": "recall", "attention": job.attention, "purpose": job.stage, "seed": seed, "seeds": job.seeds}
    if (job.attention, rate) in broken:
      yield record | {"status": "failed", "reason": "Diverged: not finite"}
    else:
      score = (
        best - 0.1 * abs(rate / wanted - 1) + 0.001 * random.Random(f"{job.attention} {job.stage} {seed}").random()
      )
      yield record | {"status": "done", "metrics": {"accuracy": score}, "primary": "accuracy", "higher_is_better": True}


def finish(protocol, journal, grid_cells=None, *, skipped=EVERYTHING, **options):
  """Runs waves until none is left, and returns their jobs."""
  ran = []
  while wave := Scheduler(protocol, journal, TRIAL_SETTINGS).next_jobs(grid_cells or cells(), skipped):
    ran.append(wave)
    for job in wave:
      for line in lines(job, **options):
        journal.add(line)
  return ran


def in_table(line, taken):
  """The row of the table that a journal's line became."""
  return line | {"tuning": {"taken": taken}, "validation": line["metrics"], "metrics": {"accuracy": 0.5}}


def stages(ran):
  return [sorted({(job.attention, job.stage) for job in wave}) for wave in ran]


def test_trials_come_first_then_seeds_then_the_chances_of_those_behind():
  ran = finish(Protocol(trials=3), Journal())
  assert [{job.stage for job in wave} for wave in ran] == [{"trial 0", "trial 1", "trial 2"}, {"seeds"}, {"÷3", "×3"}]
  assert {job.attention for job in ran[2]} == {"linear", "pooling"}
  assert {job.seeds for job in ran[0]} == {(TUNING_SEED,)}


def test_every_row_gets_the_same_trials_and_is_trained_at_its_best_one():
  ran = finish(Protocol(trials=3), Journal())
  tried = {row: [job.changes for job in ran[0] if job.attention == row] for row in ROWS}
  assert tried["softmax"] == tried["linear"] == tried["pooling"]
  trained = {job.attention: job.changes for job in ran[1]}
  assert trained == {"softmax": {}, "linear": {RATE: 3e-3}, "pooling": {}}


def test_without_trials_a_second_chance_finds_the_rate_that_a_row_needs():
  journal = Journal()
  finish(Protocol(), journal)
  by_row = {cell.attention: Scheduler(Protocol(), journal, TRIAL_SETTINGS).choose(cell) for cell in cells()}
  assert by_row["linear"].selected_lr == "×3"
  assert by_row["linear"].changes == {RATE: 3e-3}
  assert by_row["pooling"].selected_lr == ""
  assert set(by_row["pooling"].retry_means) == {"÷3", "×3"}
  assert by_row["softmax"].retry_means == {}


def test_a_second_chance_is_judged_with_three_seeds_and_only_a_better_one_gets_the_others():
  nine = cells(seeds=tuple(range(9)))
  journal = Journal()
  ran = [(job.attention, job.stage, job.seeds) for wave in finish(Protocol(), journal, nine) for job in wave]
  assert [row for row in ran if row[1] != "seeds"] == [
    ("linear", "÷3", (0, 1, 2)),
    ("linear", "×3", (0, 1, 2)),
    ("pooling", "÷3", (0, 1, 2)),
    ("pooling", "×3", (0, 1, 2)),
    ("linear", "×3", (3, 4, 5, 6, 7, 8)),
  ]
  assert {cell.attention: Scheduler(Protocol(), journal, TRIAL_SETTINGS).choose(cell).selected_lr for cell in nine} == {
    "softmax": "",
    "linear": "×3",
    "pooling": "",
  }


def test_a_best_row_that_a_second_chance_overtakes_gets_its_own(monkeypatch):
  monkeypatch.setitem(ROWS, "linear", (0.99, 3e-3))
  monkeypatch.setitem(ROWS, "softmax", (0.95, 1e-3))
  ran = finish(Protocol(), Journal(), cells(rows=("softmax", "linear")))
  assert stages(ran)[1:] == [[("linear", "×3"), ("linear", "÷3")], [("softmax", "×3"), ("softmax", "÷3")]]


def test_a_tie_and_a_single_seed_get_no_second_chance(monkeypatch):
  monkeypatch.setitem(ROWS, "linear", ROWS["softmax"])
  assert len(finish(Protocol(), Journal(), cells(rows=("softmax", "linear")))) == 1
  assert len(finish(Protocol(), Journal(), cells(seeds=(0,)))) == 1


def test_a_row_that_diverges_is_rescued_by_a_lower_rate_and_not_run_again():
  journal = Journal()
  ran = finish(Protocol(), journal, broken={("linear", 1e-3)})
  assert sum(job.stage == "seeds" and job.attention == "linear" for wave in ran for job in wave) == 1
  (cell,) = cells(rows=("linear",))
  assert Scheduler(Protocol(), journal, TRIAL_SETTINGS).choose(cell).stage == "×3"


def test_a_failure_that_may_pass_is_run_again_unless_it_is_skipped():
  journal = Journal()
  finish(Protocol(lr_retries=False), journal, cells(rows=("softmax",)))
  broken = {"task": "recall", "attention": "linear", "purpose": "seeds", "status": "failed", "reason": "OSError: disk"}
  for seed in (0, 1, 2):
    journal.add(broken | {"seed": seed})
  two = cells(rows=("softmax", "linear"))
  (job,) = Scheduler(Protocol(lr_retries=False), journal, TRIAL_SETTINGS).next_jobs(two, EVERYTHING)
  assert (job.attention, job.seeds) == ("linear", (0, 1, 2))
  assert Scheduler(Protocol(), journal, TRIAL_SETTINGS).next_jobs(two, lambda other: other == job) == []


@pytest.mark.parametrize("seeds", [3, 9])
@pytest.mark.parametrize("number", range(20))
def test_being_killed_anywhere_changes_no_line_and_no_choice(number, seeds):
  rng, grid_cells = random.Random(number), cells(tuple(range(seeds)))
  whole, pieces = Journal(), Journal()
  finish(Protocol(trials=3), whole, grid_cells)
  while wave := Scheduler(Protocol(trials=3), pieces, TRIAL_SETTINGS).next_jobs(grid_cells, EVERYTHING):
    done = [line for job in rng.sample(wave, len(wave)) for line in lines(job)]
    for line in done[: rng.randint(0, len(done))]:
      pieces.add(line)
  scores = lambda journal: {
    run: {seed: row["metrics"] for seed, row in held.items()} for run, held in journal.runs.items()
  }
  assert scores(pieces) == scores(whole)
  after_kills, undisturbed = (Scheduler(Protocol(trials=3), journal, TRIAL_SETTINGS) for journal in (pieces, whole))
  for cell in grid_cells:
    assert after_kills.choose(cell) == undisturbed.choose(cell)


def test_a_tested_row_keeps_its_setting_and_gets_no_chance_when_a_better_rival_comes():
  journal = Journal()
  old = cells(rows=("linear", "pooling"))
  finish(Protocol(lr_retries=False), journal, old)
  lines = [row for held in journal.runs.values() for row in held.values()]
  journal = Journal(lines, [in_table(line, "") for line in lines])
  ran = finish(Protocol(), journal, cells())
  assert stages(ran) == [[("softmax", "seeds")]]


def test_seeds_that_are_added_take_the_setting_that_was_tested():
  journal = Journal()
  finish(Protocol(), journal)
  rows = [row for held in journal.runs.values() for row in held.values()]
  journal = Journal(rows, [in_table(row, "×3") for row in journal.runs["recall", "linear", "×3"].values()])
  more = cells(seeds=(0, 1, 2, 3, 4), rows=("linear",))
  ran = finish(Protocol(), journal, more)
  assert [(job.stage, job.seeds) for wave in ran for job in wave] == [("×3", (3, 4))]
  assert Scheduler(Protocol(), journal, TRIAL_SETTINGS).choose(more[0]).stage == "×3"


def test_auto_adds_seeds_to_all_rows_until_the_interval_is_narrow_or_the_cap_is_met():
  narrow = {"a": {0: 0.9, 1: 0.9, 2: 0.9}, "b": {0: 0.5, 1: 0.501, 2: 0.499}}
  wide = {"a": {0: 0.9, 1: 0.7, 2: 0.8}, "b": {0: 0.5, 1: 0.65, 2: 0.3}}
  auto = Protocol(seeds=AUTO, half_width=0.01, most=15)
  assert auto.more_seeds(narrow, True) == 3
  assert auto.more_seeds(wide, True) == 6
  assert dataclasses.replace(auto, most=4).more_seeds(wide, True) == 4
  assert Protocol(seeds="3").more_seeds(wide, True) == 3


def test_nine_seeds_where_a_run_takes_seconds_and_three_where_it_does_not():
  assert Protocol().first_seeds(1e11) == 9
  assert Protocol().first_seeds(1e13) == Protocol().first_seeds(None) == 3
  assert Protocol(seeds="5").first_seeds(1e13) == 5


@pytest.mark.parametrize(
  ("fields", "told"),
  [
    ({"match": "flop"}, "did you mean 'flops'"),
    ({"trials": -1}, "--trials=-1"),
    ({"seeds": "0"}, "--seeds=0"),
    ({"seeds": "many"}, "--seeds=many"),
    ({"half_width": 0.0}, "--half_width=0.0"),
    ({"most": 2}, "--most_seeds=2"),
  ],
)
def test_rules_that_make_no_sense_are_refused_by_their_flag(fields, told):
  with pytest.raises(ValueError, match=told):
    Protocol(**fields)
