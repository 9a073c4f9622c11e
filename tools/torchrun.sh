#!/usr/bin/env bash
# What dist_train.sh and dist_test.sh share: run a tool on several GPUs, or processes.
# More than one machine: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each.
set -euo pipefail

usage='usage: tools/torchrun.sh GPUS TOOL [arguments of the tool]'
gpus="${1:?$usage}" tool="${2:?$usage}"
shift 2

exec python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$gpus" \
    "$(dirname "$0")/$tool" --launcher pytorch "$@"
