"""What a user does: train, evaluate elsewhere, generate, compare, be killed and go on."""

import json
import re

import pytest

SMALL = ["--config.model.width=16", "--config.model.layers=1", "--config.batch=8"]
TEXT = "".join(f"The quick brown fox jumps over dog {n}; then it sleeps.\n" for n in range(400))


def numbers(output, split):
  (line,) = [line for line in output.splitlines() if line.startswith(f"{split}: ")]
  return {name: float(value) for name, value in re.findall(r"(\w+) (-?[\d.]+)", line.partition(": ")[2])}


def test_evaluate_restores_and_prints_the_numbers_of_training_on_one_device_or_eight(run, tmp_path):
  (tmp_path / "text.txt").write_text(TEXT)
  words = [*SMALL, "--config.steps=6", "--config.data.length=16", "--config.data.vocabulary=300", "--workdir=run"]
  trained = run("language_modeling", "--config.data.path=text.txt", "--attention=local(window=3)|softmax", *words)
  assert trained.returncode == 0, trained.stderr
  rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
  assert {"step", "split", "loss"} <= set(rows[-1])
  for devices in (1, 8):
    result = run("evaluate", "--workdir=run", XLA_FLAGS=f"--xla_force_host_platform_device_count={devices}")
    assert result.returncode == 0, result.stderr
    assert f"on {devices} device" in result.stdout
    for split in ("validation", "test"):
      assert numbers(result.stdout, split) == pytest.approx(numbers(trained.stdout, split), rel=1e-6, abs=2e-4)
  written = run("generate", "--workdir=run", "--prompt=The quick", "--prompt=A", "--tokens=4", "--greedy")
  assert written.returncode == 0, written.stderr
  assert written.stdout.count("---") == 2


def test_a_class_of_the_users_own_trains_and_is_restored_only_when_trusted(run, tmp_path):
  (tmp_path / "mine.py").write_text(
    "import dataclasses\n"
    "from attention_lab.attention.variants.softmax import Softmax\n"
    "@dataclasses.dataclass(frozen=True)\n"
    "class Mine(Softmax):\n"
    "  k: int = 1\n"
  )
  words = ["--config.steps=2", "--config.data.train=64", "--config.data.validation=8", "--config.data.test=8"]
  trained = run("recall", "--attention=mine:Mine(k=3)", "--workdir=run", *SMALL, *words)
  assert trained.returncode == 0, trained.stderr
  refused = run("evaluate", "--workdir=run")
  assert refused.returncode == 2
  assert "--trust=mine" in refused.stderr
  trusted = run("evaluate", "--workdir=run", "--trust=mine")
  assert numbers(trusted.stdout, "test") == pytest.approx(numbers(trained.stdout, "test"), abs=2e-4)


def test_a_comparison_that_was_killed_goes_on_and_counts_nothing_twice(run, tmp_path):
  words = [
    "--task=recall,image_classification:digits",
    "--attention=softmax;linformer(rank=4)",
    "--seeds=2",
    "--steps=4",
    "--workdir=out",
    *SMALL,
  ]
  first = run("compare", *words)
  assert first.returncode == 0, first.stderr
  path = tmp_path / "out" / "results.jsonl"
  lines = path.read_text().splitlines(keepends=True)
  rows = [json.loads(line) for line in lines]
  assert [row["status"] for row in rows] == ["done"] * 2 + ["refused"] * 2 + ["done"] * 4
  assert "not causal" in rows[2]["reason"]
  path.write_text("".join(lines[:-2]) + lines[-2][:40])
  again = run("compare", *words)
  assert again.returncode == 0, again.stderr
  repeated = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
  assert sorted((row["task"], row["attention"], row["seed"]) for row in repeated) == sorted(
    (row["task"], row["attention"], row["seed"]) for row in rows
  )
  assert repeated[-1]["metrics"] == rows[-1]["metrics"]
  page = (tmp_path / "out" / "report.html").read_text()
  assert "linformer" in page
  assert "http" not in re.sub(r"http://www.w3.org/\S+", "", page)
  words[3] = "--steps=5"
  other = run("compare", *words)
  assert other.returncode == 2
  assert "config.steps" in other.stderr
