#!/usr/bin/env bash
# Run tools/train.py on several GPUs; torchrun.sh says how to use several machines.
set -euo pipefail

usage='usage: tools/dist_train.sh CONFIG GPUS [options of tools/train.py]'
config="${1:?$usage}" gpus="${2:?$usage}"
shift 2
exec bash "$(dirname "$0")/torchrun.sh" "$gpus" train.py "$config" "$@"
