#!/usr/bin/env bash
# A Dask scheduler and two workers, each a process of this machine:
#   book/recipes/dask_local.sh toy_models --profile quick
set -euo pipefail
export PATH="$PWD/.venv/bin:$PATH"

trap 'kill $(jobs -p) 2> /dev/null; wait' EXIT
dask scheduler --host=127.0.0.1 --port=8786 --no-dashboard &
until (: > /dev/tcp/127.0.0.1/8786) 2> /dev/null; do sleep 0.2; done
for worker in 1 2; do
	dask worker 127.0.0.1:8786 --nthreads=1 --no-dashboard \
		--local-directory="${TMPDIR:-/tmp}" &
done

superpos sweep "$@" --engine dask --address 127.0.0.1:8786
