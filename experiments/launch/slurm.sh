#!/bin/bash
# One process a GPU on two nodes of four:  sbatch experiments/launch/slurm.sh
#
# Change: nodes, GPUs and tasks a node (alike), time, paths, and --mesh to the number of GPUs.
#
#SBATCH --job-name=rednet
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
# SIGTERM five minutes before the end: the run is saved and ends.
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append

# Every task sees all GPUs of its node, and JAX takes the one with the task's local number. Where
# your cluster shows each task its own GPU only:  export JAX_LOCAL_DEVICE_IDS=0
srun --kill-on-bad-exit=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    .venv/bin/rednet train experiments/compact_300w.py --batch 64 \
    --mesh data=8 --run-dir /scratch/runs/compact --data-dir /scratch/rednet_data
