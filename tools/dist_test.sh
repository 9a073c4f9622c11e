#!/usr/bin/env bash
# Run tools/test.py on several GPUs; torchrun.sh says how to use several machines.
set -euo pipefail

usage='usage: tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]'
config="${1:?$usage}" checkpoint="${2:?$usage}" gpus="${3:?$usage}"
shift 3
exec bash "$(dirname "$0")/torchrun.sh" "$gpus" test.py "$config" "$checkpoint" "$@"
