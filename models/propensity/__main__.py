"""Train a propensity model on the event lake, or evaluate one of the model store: `python -m models.propensity`."""

import argparse
import sys
import tempfile
import time
import warnings
from pathlib import Path

HERE = Path(__file__).parent


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    args = _parser().parse_args(argv)
    from segue.errors import SegueError

    try:
        args.run(args)
    except SegueError as error:
        print(f"{args.command}: {error}", file=sys.stderr)
        return 1
    return 0


def train(args: argparse.Namespace) -> None:
    """Build the dataset, fit, evaluate, export into the store, report."""
    from rich.console import Console
    from rich.progress import Progress

    from models.propensity import config as configuration
    from models.propensity import report
    from models.propensity.dataset import build, feast_source
    from models.propensity.evaluate import evaluate, headline, table
    from models.propensity.export import export
    from models.propensity.train import fit
    from segue.adapters.counted_events import CountedEvents
    from segue.adapters.lake import Lake
    from segue.adapters.model_store import ModelStore
    from segue.adapters.provenance import git_sha

    console = Console()
    config = configuration.read(args.config)
    with console.status("reading events and computing features"):
        plan, source = feast_source(args.feature_repo, config.feature_service)
        _quiet()
        dataset = build(config, CountedEvents(Lake(args.lake)), plan, source)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(f"boosting {config.name}, at most", total=config.boosting.max_rounds)
        fitted = fit(
            config,
            dataset.columns,
            dataset.train,
            dataset.validation,
            on_round=lambda count: progress.update(task, completed=count),
        )
    with console.status("evaluating on the held-out future"):
        evaluation = evaluate(config, dataset, fitted.scorer)
    with tempfile.TemporaryDirectory() as directory:
        created_ms = time.time_ns() // 1_000_000
        export(
            Path(directory),
            config,
            dataset,
            fitted,
            evaluation,
            git_sha=git_sha(HERE),
            created_ms=created_ms,
        )
        tag = ModelStore(args.store).save(Path(directory), config.name)
    page = report.write(args.report_dir, config, dataset, evaluation)
    console.print(table(evaluation, f"{tag}: the held-out future"))
    console.print(headline(evaluation), highlight=False)
    console.print(f"bundle {tag} in {args.store}; report {page}", highlight=False)


def evaluate(args: argparse.Namespace) -> None:
    """Judge a stored bundle on the test span it was trained for, from the lake as it is now."""
    from rich.console import Console

    from models.propensity import config as configuration
    from models.propensity import report
    from models.propensity.dataset import Cuts, build, feast_source
    from models.propensity.evaluate import evaluate, headline, table
    from segue.adapters.counted_events import CountedEvents
    from segue.adapters.lake import Lake
    from segue.adapters.model_store import ModelStore
    from segue.errors import BundleError
    from segue.inference.propensity import PropensityScorer

    console = Console()
    bundle = ModelStore(args.store).get(args.bundle)
    scorer = PropensityScorer.load(bundle)
    given = dict(bundle.manifest.config)
    cuts = Cuts(**{name: tuple(times) for name, times in given.pop("cuts_ms").items()})
    config = configuration.resolve(given)
    with console.status("reading events and computing features"):
        plan, source = feast_source(args.feature_repo, config.feature_service)
        _quiet()
        if plan.hash != bundle.manifest.plan_hash:
            raise BundleError(f"bundle {bundle.version}: {config.feature_service} is not what it was trained on")
        dataset = build(config, CountedEvents(Lake(args.lake)), plan, source, cuts=cuts)
    with console.status("evaluating on the held-out future"):
        evaluation = evaluate(config, dataset, scorer)
    page = report.write(args.report_dir, config, dataset, evaluation)
    console.print(table(evaluation, f"{bundle.version}: the held-out future"))
    console.print(headline(evaluation), highlight=False)
    console.print(f"report {page}", highlight=False)


def _quiet() -> None:
    """Take back what importing Feast does: deprecation warnings of all libraries, turned on."""
    warnings.simplefilter("ignore", DeprecationWarning)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m models.propensity", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for run in (train, evaluate):
        command = commands.add_parser(
            run.__name__,
            help=run.__doc__,
            description=run.__doc__,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        command.set_defaults(run=run)
        command.add_argument("--lake", default=".segue/lake", help="directory or URL of the event lake")
        command.add_argument("--feature-repo", type=Path, default=Path("feature_repo"), help="the Feast repo")
        command.add_argument("--store", type=Path, default=Path(".segue/bentoml"), help="home of the model store")
        command.add_argument("--report-dir", type=Path, default=Path(".segue/reports"), help="where the report goes")
    purchase = HERE / "configs" / "purchase_7d.toml"
    commands.choices["train"].add_argument("--config", type=Path, default=purchase, help="what to train, TOML")
    commands.choices["evaluate"].add_argument("--bundle", default="purchase_7d", help="name or tag in the model store")
    return parser


if __name__ == "__main__":
    sys.exit(main())
