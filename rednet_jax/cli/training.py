"""Commands that train, and that report on runs.

The docstring of a command's function is its help. Imports are inside the functions, so that
`rednet --help` does not wait for JAX.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rednet_jax.cli import shared, values
from rednet_jax.cli.output import failed
from rednet_jax.errors import RednetError


def add_commands(commands: shared.Commands) -> None:
    """Adds `train`, `ablate` and `report`."""
    with commands.add("train", train) as command:
        command.add_argument(
            "experiment",
            type=Path,
            metavar="EXPERIMENT",
            help="Python file that builds one rednet_jax.Experiment",
        )
        run = command.add_argument_group("run")
        run.add_argument(
            "--run-dir",
            type=Path,
            metavar="DIR",
            help="folder for checkpoints, metrics and report (default: runs/EXPERIMENT)",
        )
        run.add_argument(
            "--stop-after",
            type=int,
            metavar="N",
            help="save a checkpoint and stop after step N, counted from the first step of the run; "
            "schedules and validations do not change (default: the last step)",
        )
        run.add_argument(
            "--from-step",
            type=int,
            metavar="N",
            help="resume from the checkpoint of step N and move newer ones out of the way "
            "(default: the newest intact checkpoint)",
        )
        run.add_argument(
            "--profile",
            type=int,
            default=0,
            metavar="N",
            help="trace N steps with jax.profiler (default: %(default)s)",
        )
        weights = command.add_argument_group("initial weights")
        weights.add_argument(
            "--init-from",
            metavar="CHECKPOINT",
            help=f"{shared.CHECKPOINT} (default: random weights from the seed)",
        )
        weights.add_argument(
            "--fresh",
            type=values.names,
            default=(),
            metavar="PART,PART",
            help="parts of the network that keep random weights with --init-from, such as "
            "detection,regression; required if the landmarks differ (default: none)",
        )
        shared.add_data_dir(command.add_argument_group("data"))
        devices = command.add_argument_group("devices")
        devices.add_argument(
            "--mesh",
            type=values.mesh,
            default={},
            metavar="data=N,fsdp=M",
            help="mesh of N x M devices: the batch is sharded over both axes, large parameters and "
            "their optimiser state over fsdp (default: that of the experiment)",
        )
        devices.add_argument(
            "--parallel",
            choices=("jit", "pmap"),
            default="jit",
            help="jit: one program over the mesh; pmap: one per device (default: %(default)s)",
        )
        processes = command.add_argument_group(
            "several processes", "Not needed for processes started by srun or on GKE."
        )
        processes.add_argument(
            "--coordinator",
            metavar="HOST:PORT",
            help="address of process 0; auto reads it from SLURM, Open MPI or a TPU pod "
            "(default: auto if srun or GKE started several processes)",
        )
        processes.add_argument(
            "--processes",
            type=int,
            metavar="N",
            help="number of processes (default: from the environment, else 1)",
        )
        processes.add_argument(
            "--process-id",
            type=int,
            metavar="I",
            help="number of this process, from 0 (default: from the environment)",
        )
        _add_fields(command, "A stage's name before a field changes that stage: --clips.batch 8.")
        command.set_defaults(fields={})
    with commands.add("ablate", ablate) as command:
        command.add_argument(
            "file",
            type=Path,
            nargs="?",
            metavar="FILE",
            help="Python file that builds one Ablation; not needed with --index",
        )
        runs = command.add_argument_group("runs")
        runs.add_argument(
            "--runs-dir",
            type=Path,
            metavar="DIR",
            help="folder with a folder for each run (default: runs/ablations)",
        )
        runs.add_argument(
            "--jobs",
            type=int,
            default=1,
            metavar="N",
            help="runs that train at the same time (default: %(default)s)",
        )
        runs.add_argument(
            "--minutes",
            type=float,
            metavar="M",
            help="start no further run after M minutes (default: no limit)",
        )
        part = runs.add_mutually_exclusive_group()
        part.add_argument(
            "--train-only",
            dest="do",
            action="store_const",
            const=("train",),
            help="train and measure, but do not write the table (default: both)",
        )
        part.add_argument(
            "--table-only",
            dest="do",
            action="store_const",
            const=("table",),
            help="write the table of the measured runs, but do not train (default: both)",
        )
        shared.add_data_dir(command.add_argument_group("data"))
        output = command.add_argument_group("output")
        output.add_argument(
            "--out",
            type=Path,
            metavar="DIR",
            help="folder for NAME.json, NAME.md and NAME.png (default: experiments/results)",
        )
        output.add_argument(
            "--index",
            type=Path,
            metavar="DIR",
            help="write DIR/README.md, an index of all results in DIR (default: not written)",
        )
        _add_fields(command, "They apply to all arms, and need --out.")
        command.set_defaults(fields={}, do=("train", "table"))
    with commands.add("report", report) as command:
        command.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="folder of a run")


def _add_fields(command: argparse.ArgumentParser, note: str) -> None:
    command.add_argument_group(
        "fields of the experiment",
        "Every field is an option, --FIELD VALUE or --PART.FIELD VALUE, such as --seed 1 or\n"
        f"--optimiser.learning-rate 1e-3 (default: as in the file).\n{note}",
    )


def train(args: argparse.Namespace) -> int:
    """Train the network that an experiment file describes, or resume its run.

    The same command with the same run folder resumes from the newest checkpoint, with bitwise
    identical results. SIGTERM and Ctrl-C save a checkpoint and stop. For several processes see
    experiments/launch/.

    Example: rednet train experiments/compact_300w.py --data-dir DIR --run-dir RUN --batch 32
    """
    from rednet_jax.train.distributed import joined
    from rednet_jax.train.folder import CONFIG
    from rednet_jax.train.load import load_experiment
    from rednet_jax.train.loop import train
    from rednet_jax.weights.store import BEST

    run_dir = args.run_dir or Path("runs") / args.experiment.stem
    if not (run_dir / CONFIG).exists():
        # A resumed run has read its initial weights, which it records.
        weights = shared.weights_file(args.init_from)
        shared.check_outputs([("--run-dir", run_dir / BEST)], [weights])
    with joined(args.coordinator, args.processes, args.process_id):
        train(
            load_experiment(args.experiment, {**args.mesh, **args.fields}),
            run_dir,
            data_dir=args.data_dir,
            stop_after=args.stop_after,
            parallel=args.parallel,
            init_from=args.init_from,
            fresh=args.fresh,
            from_step=args.from_step,
            profile=args.profile,
        )
    return 0


def ablate(args: argparse.Namespace) -> int:
    """Train the arms of an ablation with several seeds, measure them, and test its claims.

    Measured runs are not trained again, even if they belong to another ablation file; interrupted
    runs resume. The results are a table with confidence intervals, a plot and JSON.

    Example: rednet ablate experiments/ablation_losses.py --data-dir DIR --jobs 2 --minutes 50
    """
    from rednet_jax.ablate.index import check_index, write_index
    from rednet_jax.ablate.run import RESULTS, RUNS, ablate

    if args.file is None:
        if args.index is None:
            raise RednetError("either FILE or --index is required (see --help)")
        if ignored := _options_of_runs(args):
            raise RednetError(f"{', '.join(ignored)}: needs FILE, the ablation")
    out = (args.out or RESULTS) if args.file is not None and "table" in args.do else None
    # They may be the same folder.
    for folder in (("--out", out), ("--index", args.index)):
        shared.check_outputs([], folders=[folder])
    if args.index is not None:
        # Before the runs, which may take hours.
        check_index(args.index)
    if args.file is None:
        print(write_index(args.index))
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
    # The index contains the new table.
    index = [] if args.index is None else [write_index(args.index)]
    for path in (*outcome.files, *index):
        print(path)
    return failed(outcome.failures)


def _options_of_runs(args: argparse.Namespace) -> list[str]:
    """Returns the options of `ablate` that were given and do not apply to --index alone."""
    given = {
        "--runs-dir": args.runs_dir is not None,
        "--jobs": args.jobs != 1,
        "--minutes": args.minutes is not None,
        "--train-only": args.do == ("train",),
        "--table-only": args.do == ("table",),
        "--data-dir": args.data_dir is not None,
        "--out": args.out is not None,
        **{f"--{name}": True for name in args.fields},
    }
    return [option for option, is_given in given.items() if is_given]


def report(args: argparse.Namespace) -> int:
    """Write RUN_DIR/report.html: progress, curves, images and configuration of a run.

    The page is a single file and can be written during the run.

    Example: rednet report runs/compact_300w
    """
    from rednet_jax.train.report import write_report

    print(write_report(args.run_dir))
    return 0
