#!/usr/bin/env bash
# A Ray head and two workers, each a process of this machine:
#   book/recipes/ray_local.sh toy_models --profile quick
set -euo pipefail
export PATH="$PWD/.venv/bin:$PATH" RAY_AUTH_MODE=token
ray get-auth-token --generate > /dev/null   # kept in ~/.ray/auth_token

trap 'ray stop > /dev/null' EXIT   # all of Ray that you run here
ray start --head --port=6379 --num-cpus=0 --include-dashboard=false --disable-usage-stats
for worker in 1 2; do
	ray start --address=127.0.0.1:6379 --num-cpus=1 --disable-usage-stats
done

superpos sweep "$@" --engine ray --address 127.0.0.1:6379
