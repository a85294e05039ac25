#!/usr/bin/env bash
# Runs one command on several processes of this machine, as it would run on several hosts:
#   launch/local.sh 2 python -m experiments.recall --workdir=runs/recall
# The output of process 0 is shown; the others write to local-N.log in a temporary folder, shown if one fails.
set -euo pipefail
if [ $# -lt 2 ] || ! [[ $1 =~ ^[1-9][0-9]*$ ]]; then
  echo "usage: launch/local.sh PROCESSES COMMAND [FLAG ...]" >&2
  exit 2
fi
processes=$1
shift
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
logs=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$logs"' EXIT
flags=(--coordinator="127.0.0.1:$port" --processes="$processes")
pids=()
for ((i = 1; i < processes; i++)); do
  "$@" "${flags[@]}" --process="$i" >"$logs/local-$i.log" 2>&1 &
  pids+=($!)
done
status=0
"$@" "${flags[@]}" --process=0 || status=$?
for ((i = 1; i < processes; i++)); do
  if ! wait "${pids[i - 1]}"; then
    echo "process $i failed:" >&2
    tail -n 5 "$logs/local-$i.log" >&2
    [ "$status" -ne 0 ] || status=1
  fi
done
exit "$status"
