#!/usr/bin/env bash
#SBATCH --job-name=compare
#SBATCH --cpus-per-task=8
#SBATCH --gpus=1
#SBATCH --time=08:00:00
#SBATCH --output=%x-%A-%a.log
# Runs a comparison as an array of SLURM jobs, one cell (a variant on a task, all its seeds) on one device each, and a
# job behind them that gives second chances, touches the test split and writes the report:
#   launch/slurm_array.sh --task=recall --attention='softmax;linear' --workdir=/shared/compare
# The workdir must be a folder that all nodes see. Set SBATCH_ACCOUNT, SBATCH_PARTITION, … as for any job of yours; the
# lines above are defaults. An array task that was killed is run again by the same command, and goes on where it was.
set -euo pipefail
if [ $# -eq 0 ]; then
  echo "usage: launch/slurm_array.sh FLAG ... (those of python -m experiments.compare)" >&2
  exit 2
fi
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
  exec python -m experiments.compare "$@" --cell="$SLURM_ARRAY_TASK_ID"
fi
if [ -n "${SLURM_JOB_ID:-}" ]; then
  exec python -m experiments.compare "$@" --collect
fi
cells=$(python -m experiments.compare "$@" --list)
echo "$cells"
array=$(sbatch --parsable --array="1-$(wc -l <<<"$cells")" "$0" "$@")
echo "array job ${array%%;*}; the report comes from job $(sbatch --parsable --dependency="afterany:${array%%;*}" "$0" "$@")"
