#!/usr/bin/env bash
# Run tools/test.py on several GPUs, or processes, through torchrun.
# More than one machine: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each.
set -euo pipefail

CONFIG="${1:?usage: tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]}"
CHECKPOINT="${2:?usage: tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]}"
GPUS="${3:?usage: tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]}"
shift 3

exec python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$GPUS" \
    "$(dirname "$0")/test.py" "$CONFIG" "$CHECKPOINT" --launcher pytorch "$@"
