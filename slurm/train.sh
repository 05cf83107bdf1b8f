#!/usr/bin/env bash
# Train on a SLURM cluster: set these, then `bash slurm/train.sh`. Further flags go to the training:
# `bash slurm/train.sh --recipe my_recipe.yaml --data prepared --output checkpoints/mine`.
# The job is scripts/train_multi_gpu.sh. docs/how-to/cluster.md walks through it.
PARTITION=       # empty: the cluster's own
ACCOUNT=         # empty: yours
NODES=1
GPUS=8           # of each node, with a process each
CPUS=8           # of each process; the recipe's train.workers read images on them
MEMORY=0         # of each node, such as 200G; 0: all of it
TIME=48:00:00    # when it is up, the job is requeued and resumes
MAIL=            # an address, for mails about begin, end, failure and requeueing

set -eu
command -v sbatch >/dev/null || { echo "error: sbatch: not found; run this on the cluster" >&2; exit 2; }
cd "$(dirname "$0")/.."
exec sbatch --job-name=train --nodes="$NODES" --ntasks-per-node="$GPUS" --gpus-per-node="$GPUS" \
  --cpus-per-task="$CPUS" --mem="$MEMORY" --time="$TIME" ${PARTITION:+--partition="$PARTITION"} \
  ${ACCOUNT:+--account="$ACCOUNT"} ${MAIL:+--mail-user="$MAIL" --mail-type=BEGIN,END,FAIL,REQUEUE} \
  scripts/train_multi_gpu.sh "$@"
