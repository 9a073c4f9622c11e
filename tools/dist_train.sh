#!/usr/bin/env bash
# Run tools/train.py on several GPUs, or processes, through torchrun.
# More than one machine: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each.
set -euo pipefail

CONFIG="${1:?usage: tools/dist_train.sh CONFIG GPUS [options of tools/train.py]}"
GPUS="${2:?usage: tools/dist_train.sh CONFIG GPUS [options of tools/train.py]}"
shift 2

exec python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$GPUS" \
    "$(dirname "$0")/train.py" "$CONFIG" --launcher pytorch "$@"
