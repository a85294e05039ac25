"""What a user does: train, evaluate elsewhere, generate, compare, be killed and go on."""

import json
import re
import signal
import time

import pytest

SMALL = ["--config.model.width=16", "--config.model.layers=1", "--config.batch=8"]
TEXT = "".join(f"The quick brown fox jumps over dog {n}; then it sleeps.\n" for n in range(400))


def numbers(output, split):
  (line,) = [line for line in output.splitlines() if line.startswith(f"{split}: ")]
  return {name: float(value) for name, value in re.findall(r"(\w+) (-?[\d.]+)", line.partition(": ")[2])}


def test_evaluate_restores_and_prints_the_numbers_of_training_on_one_device_or_eight(run, tmp_path):
  (tmp_path / "texts").mkdir()
  for number in range(40):
    (tmp_path / "texts" / f"{number}.txt").write_text(f"The quick brown fox {number % 7}")
  arguments = [*SMALL, "--config.steps=40", "--config.data.length=16", "--config.data.vocabulary=300", "--workdir=run"]
  arguments += ["--config.data.path=texts", "--config.data.packing", "--config.optimizer.learning_rate=0.03"]
  trained = run("language_modeling", "--attention=local(window=3)|softmax", *arguments)
  assert trained.returncode == 0, trained.stderr
  rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
  assert {"step", "split", "loss"} <= set(rows[-1])
  for devices in (1, 8):
    result = run("evaluate", "--workdir=run", XLA_FLAGS=f"--xla_force_host_platform_device_count={devices}")
    assert result.returncode == 0, result.stderr
    assert f"on {devices} device" in result.stdout
    for split in ("validation", "test"):
      assert numbers(result.stdout, split) == pytest.approx(numbers(trained.stdout, split), rel=1e-6, abs=2e-4)
  written = run("generate", "--workdir=run", "--prompt=The quick", "--prompt=The", "--tokens=8", "--greedy")
  assert written.returncode == 0, written.stderr
  assert re.findall(r"--- (.*)\n(The quick brown fox \d\n)", written.stdout) == [
    (prompt, f"The quick brown fox {written.stdout[-2]}\n") for prompt in ("The quick", "The")
  ]
  assert re.findall("'(.*)': the text ends after . of 8 tokens", written.stderr) == ["The quick", "The"]


def test_a_class_of_the_users_own_trains_and_is_restored_only_when_trusted(run, tmp_path):
  (tmp_path / "mine.py").write_text(
    "import dataclasses\n"
    "from attention_lab.attention.variants.softmax import Softmax\n"
    "@dataclasses.dataclass(frozen=True)\n"
    "class Mine(Softmax):\n"
    "  k: int = 1\n"
  )
  arguments = ["--config.steps=2", "--config.data.train=64", "--config.data.validation=8", "--config.data.test=8"]
  trained = run("recall", "--attention=mine:Mine(k=3)", "--workdir=run", *SMALL, *arguments)
  assert trained.returncode == 0, trained.stderr
  refused = run("evaluate", "--workdir=run")
  assert refused.returncode == 2
  assert "--trust=mine" in refused.stderr
  trusted = run("evaluate", "--workdir=run", "--trust=mine")
  assert numbers(trusted.stdout, "test") == pytest.approx(numbers(trained.stdout, "test"), abs=2e-4)


def table(folder):
  """The rows of a comparison by their cell, without what no two runs share."""
  rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines() if line.endswith("}")]
  timed = ("step_time", "wall_time", "compile_time", "compiled_before")
  by_cell = {(row["task"], row["attention"], row["seed"]): row for row in rows}
  assert len(by_cell) == len(rows)
  return {cell: {name: value for name, value in row.items() if name not in timed} for cell, row in by_cell.items()}


def test_a_comparison_that_was_killed_goes_on_to_the_same_numbers_alone_or_by_two_workers(run, start, tmp_path):
  arguments = [
    "--task=recall,image_classification:digits",
    "--attention=softmax;linformer(rank=4)",
    "--seeds=2",
    "--steps=4",
    *SMALL,
  ]
  killed = start("compare", *arguments, "--workdir=out")
  journal = tmp_path / "out" / "journal.jsonl"
  while not journal.exists() and killed.poll() is None:
    time.sleep(0.05)
  killed.kill()
  assert killed.wait() == -signal.SIGKILL
  assert not any(row["status"] == "done" for row in table(tmp_path / "out").values())
  again = run("compare", *arguments, "--workdir=out", "--workers=1")
  assert again.returncode == 0, again.stderr
  rows = table(tmp_path / "out")
  assert sorted(row["status"] for row in rows.values()) == ["done"] * 6 + ["refused"] * 2
  assert "not causal" in rows["recall", "linformer(rank=4)", 0]["reason"]
  shared = run("compare", *arguments, "--workdir=shared", "--workers=2")
  assert shared.returncode == 0, shared.stderr
  for cell, row in table(tmp_path / "shared").items():
    assert row["status"] == rows[cell]["status"]
    if row["status"] == "done":
      assert len(row["program"]) == 16
      assert row["metrics"] == rows[cell]["metrics"]
      assert row["threads"] == 1
  assert re.search(r"recall: accuracy on the test split, .*\n  variant +standing +accuracy", again.stdout)
  page = (tmp_path / "out" / "report.html").read_text()
  assert "linformer" in page
  assert "http" not in re.sub(r"http://www.w3.org/\S+", "", page)
  threads = run("compare", *arguments, "--workdir=out", "--threads=2")
  assert (threads.returncode, threads.stderr.count("--threads=2: out holds rows of 1 threads")) == (2, 1)
  arguments[3] = "--steps=5"
  other = run("compare", *arguments, "--workdir=out")
  assert other.returncode == 2
  assert "config.steps" in other.stderr


def test_a_run_that_ctrl_c_stops_says_what_is_kept_and_keeps_others_out_before(run, start, tmp_path):
  sizes = [f"--config.data.{split}=64" for split in ("train", "validation", "test")]
  arguments = [*SMALL, *sizes, "--config.steps=100000", "--config.checkpoint.every=50", "--workdir=run"]
  signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a shell it is ignored
  process = start("recall", *arguments)
  while not list((tmp_path / "run").glob("checkpoints/*/_CHECKPOINT_METADATA")) and process.poll() is None:
    time.sleep(0.05)
  other = run("recall", *arguments)
  assert (other.returncode, other.stderr.count("\n")) == (2, 1)
  assert f"--workdir=run is in use by process {process.pid} on " in other.stderr
  process.send_signal(signal.SIGINT)
  _, errors = process.communicate()
  assert process.returncode == 130
  assert re.fullmatch(r"stopped by Ctrl-C: step \d+ is kept in run: the same command goes on from there\n", errors)


def test_a_row_joins_a_suite_without_its_positive_control_which_must_be_named_to_be_asked_of(run):
  joined = run("compare", "--suite=recall", "--attention=cosformer@width=32", "--list")
  assert (joined.returncode, joined.stdout) == (0, "1 recall · cosformer@width=32\n")
  beside = run("compare", "--suite=recall", "--attention=softmax@width=64;cosformer", "--list")
  assert beside.returncode == 0
  asked = run("compare", "--suite=recall", "--attention=cosformer", "--positive=softmax@width=64", "--list")
  assert (asked.returncode, asked.stderr.count("--positive=softmax@width=64 is no row")) == (2, 1)
