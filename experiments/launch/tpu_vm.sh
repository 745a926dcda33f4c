#!/bin/bash
# A TPU slice without Kubernetes, one process per TPU VM:  experiments/launch/tpu_vm.sh
#
# Change: name and zone of the TPU, paths on its VMs, and --mesh to the number of chips. Before that,
# on all VMs: this repository with rednet-jax[tpu] installed in .venv, and one file system for all of
# them at /shared.
set -euo pipefail
TPU=rednet
ZONE=us-east5-b

# `auto`: JAX reads from the machine's metadata which VMs belong to the slice.
gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all --command="
    cd rednet_jax && .venv/bin/rednet train experiments/compact_300w.py --batch 64 \
    --mesh data=16 --run-dir /shared/runs/compact --data-dir /shared/rednet_data \
    --coordinator auto"
