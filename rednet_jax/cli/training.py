"""Commands that train, and that report on runs.

The first lines of a docstring are the command's help. Each function imports what it calls: nothing
here may import jax before it is needed, so that `rednet --help` answers at once.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rednet_jax.cli.output import failed
from rednet_jax.errors import RednetError


def train(args: argparse.Namespace) -> int:
    """Train what an experiment file describes; with the same run folder, go on where it was left.

    Any field of the experiment is an option: --field VALUE, --part.field VALUE.

    Several processes that srun or GKE started join by themselves; see experiments/launch/.

    Example: rednet train experiments/compact_300w.py --data-dir DIR --run-dir RUN --batch 32
    """
    from rednet_jax.train.distributed import joined
    from rednet_jax.train.load import load_experiment
    from rednet_jax.train.loop import train

    with joined(args.coordinator, args.processes, args.process_id):
        train(
            load_experiment(args.experiment, {**args.mesh, **args.fields}),
            args.run_dir or Path("runs") / args.experiment.stem,
            data_dir=args.data_dir,
            steps=args.steps,
            parallel=args.parallel,
            init_from=args.init_from,
            fresh=args.fresh,
            from_step=args.from_step,
            profile=args.profile,
        )
    return 0


def ablate(args: argparse.Namespace) -> int:
    """Train an ablation's arms over its seeds, measure them alike, and decide its claims.

    Runs that are measured, also by another ablation file, are not trained again; interrupted runs
    resume. OUT gets NAME.json, NAME.md and NAME.png. Any field of the experiments is an option,
    as in `rednet train`; then --out must be named.

    Example: rednet ablate experiments/ablation_losses.py --data-dir DIR --jobs 2 --minutes 50
    """
    from rednet_jax.ablate.index import write_index
    from rednet_jax.ablate.run import RUNS, ablate

    if args.index is not None:
        print(write_index(args.index))
    if args.file is None:
        if args.index is None:
            raise RednetError("name an ablation file, or a folder of results by --index")
        return 0
    outcome = ablate(
        args.file,
        runs_dir=args.runs_dir or RUNS,
        data_dir=args.data_dir,
        out=args.out,
        jobs=args.jobs,
        minutes=args.minutes,
        do=args.do,
        changes=args.fields,
        say=lambda line: print(line, flush=True),
    )
    for path in outcome.files:
        print(path)
    return failed(outcome.failures)


def report(args: argparse.Namespace) -> int:
    """Write RUN_DIR/report.html: a run's progress, curves, images and config on one page.

    The page needs nothing beside it, and can be written during the run.

    Example: rednet report runs/compact_300w
    """
    from rednet_jax.train.report import write_report

    print(write_report(args.run_dir))
    return 0
