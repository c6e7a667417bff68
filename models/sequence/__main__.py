"""Train a sequence model on the event lake, or evaluate one of the model store: `python -m models.sequence`."""

import argparse
import sys
import tempfile
import time
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
    """Split the log, fit, export, evaluate through the exported graph, save into the store, report."""
    import torch
    from rich.console import Console

    from models.sequence import baselines, config, dataset, evaluate, export, report
    from models.sequence.ladder import Live
    from models.sequence.parts import Parts
    from models.sequence.scoring import as_scorer, torch_rank
    from models.sequence.train import fit
    from models.sequence.trends import Following
    from segue.adapters import plan_files
    from segue.adapters.counted_events import CountedEvents
    from segue.adapters.lake import Lake
    from segue.adapters.model_store import ModelStore
    from segue.adapters.provenance import git_sha
    from segue.inference.graph import open_graph
    from segue.inference.sequence import GRAPH

    console = Console()
    torch.set_num_threads(args.threads)
    settings = config.read(args.config, seed=args.seed)
    plan = plan_files.published(args.plans, export.FEATURE_SERVICE)
    lake = Lake(args.lake)
    with console.status("reading events and splitting them by time"):
        events = CountedEvents(lake).read()
        data, first_seen = dataset.split(events, settings), report.FirstSeen.of(events)
    trained = fit(data, settings, console=console, checkpoint=args.checkpoint)
    with console.status("learning what goes with the encoder"):
        counted = baselines.beside(data, settings)
        parts = Parts.learn(events, data, trained, lake.catalogue(), settings, counted=counted["markov"])
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with console.status("exporting to ONNX and comparing the answers"):
            export.export_graph(trained.model, directory / GRAPH)
            scorer, in_torch = (
                as_scorer(rank, data.final, settings, parts.followers)
                for rank in (open_graph(directory / GRAPH), torch_rank(trained.model))
            )
            export.verify(scorer, in_torch, data.test.prefixes)
        with console.status("evaluating on the held-out future"):
            evaluation = evaluate.evaluate(
                data.test,
                data.final.vocabulary,
                Following(scorer, Live.of(events), data.test, settings.include_seen),
                baselines.recommenders(data, settings, counted),
            )
        export.export(
            directory,
            settings,
            data,
            trained,
            parts,
            evaluation,
            plan=plan,
            catalogue=lake.catalogue(),
            card=report.card(settings, data, evaluation),
            git_sha=git_sha(HERE),
            created_ms=time.time_ns() // 1_000_000,
        )
        tag = ModelStore(args.store).save(directory, settings.name)
    with console.status("writing the report"):
        embedding = trained.model.item.weight.detach().numpy()
        items = report.Items(scorer.vocabulary, lake.catalogue(), first_seen, embedding)
        subject = report.Subject(scorer, items)
        page = report.write(args.report_dir, settings, data, evaluation, trained.curve, subject)
    console.print(report.table(evaluation, f"{tag}: the held-out future"))
    console.print(report.headline(evaluation), highlight=False)
    console.print(f"bundle {tag} in {args.store}; report {page}", highlight=False)


def evaluate(args: argparse.Namespace) -> None:
    """Judge a stored bundle, as a service would answer, on all that came after its cut in the lake as it is now."""
    from rich.console import Console

    from models.sequence import baselines, config, dataset, evaluate, report
    from models.sequence.ladder import Live
    from models.sequence.served import Served
    from models.sequence.train import read_curve
    from models.sequence.trends import Following
    from segue.adapters.counted_events import CountedEvents
    from segue.adapters.lake import Lake
    from segue.adapters.model_store import ModelStore
    from segue.inference.sequence import GRAPH, SequenceScorer

    console = Console()
    bundle = ModelStore(args.store).get(args.bundle)
    scorer = SequenceScorer.load(bundle)
    given = dict(bundle.manifest.config)
    validation_ms, test_ms = given.pop("cuts_ms")
    settings = config.resolve(given)
    with console.status("reading events and evaluating on the held-out future"):
        lake = Lake(args.lake)
        events = CountedEvents(lake).read()
        data, first_seen = dataset.split(events, settings, (validation_ms, test_ms)), report.FirstSeen.of(events)
        evaluation = evaluate.evaluate(
            data.test,
            scorer.vocabulary,
            Following(scorer, Live.of(events), data.test, settings.include_seen)
            if args.service is None
            else Served.of(args.service, scorer, include_seen=settings.include_seen),
            baselines.recommenders(data, settings),
        )
    with console.status("writing the report"):
        embedding = report.exported_embedding(bundle.file(GRAPH), scorer.vocabulary)
        items = report.Items(scorer.vocabulary, lake.catalogue(), first_seen, embedding)
        subject = report.Subject(scorer, items)
        page = report.write(args.report_dir, settings, data, evaluation, read_curve(bundle), subject)
    console.print(report.table(evaluation, f"{bundle.version}: the held-out future"))
    console.print(report.headline(evaluation), highlight=False)
    console.print(f"report {page}", highlight=False)


def benchmark(args: argparse.Namespace) -> None:
    """Fit models and baselines on a public data set, judge them by a published protocol, write the scoreboard."""
    import torch
    from rich.console import Console

    from models.sequence import config, protocols, scoreboard
    from models.sequence.benchmark import Benchmark
    from segue.adapters import datasets
    from segue.adapters.provenance import git_sha

    console = Console()
    torch.set_num_threads(args.threads)
    data = datasets.load(args.data)
    settings = config.read(args.config, seed=args.seed)
    with console.status("posing the data set"):
        posed = protocols.pose(args.protocol, data, settings)
    runs = Benchmark(posed, console, args.checkpoint)
    evaluation = runs.run(args.models)
    measured = scoreboard.content(runs, evaluation, data=data.name, protocol=args.protocol, git_sha=git_sha(HERE))
    page = scoreboard.write(args.report_dir, measured)
    console.print(scoreboard.table(measured))
    console.print(f"scoreboard {page}", highlight=False)


def embed(args: argparse.Namespace) -> None:
    """Write the embedding of each customer and time of a list, without saying whose it is."""
    from models.sequence import embed as embedding
    from segue.adapters.lake import Lake
    from segue.adapters.model_store import ModelStore

    bundle = ModelStore(args.store).get(args.bundle)
    made = embedding.embed(args.labels, args.out, lake=Lake(args.lake), bundle=bundle, ttl_days=args.ttl_days)
    print(f"{args.out}: {embedding.summary(made)}")


def oracle(args: argparse.Namespace) -> None:
    """Train on a simulated shop, or take a stored bundle, and say how near it comes to who knows the truth."""
    from models.sequence import oracle as program

    program.run(args)


def news(args: argparse.Namespace) -> None:
    """Judge what updates with every click beside fitted models, on a log of news split by time."""
    from models.sequence import hour

    hour.run(args)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m models.sequence", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    shop = HERE / "configs" / "shop.toml"
    for run in (train, evaluate, benchmark, embed, oracle, news):
        command = commands.add_parser(
            run.__name__,
            help=run.__doc__,
            description=run.__doc__,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        command.set_defaults(run=run)
        if run not in {embed, oracle}:
            command.add_argument(
                "--report-dir", type=Path, default=Path(".segue/reports"), help="where the report goes"
            )
        if run in {train, evaluate, embed}:
            command.add_argument("--lake", default=".segue/lake", help="directory or URL of the event lake")
        if run in {train, evaluate, embed, oracle}:
            command.add_argument("--store", type=Path, default=Path(".segue/bentoml"), help="home of the model store")
        if run in {train, benchmark, oracle, news}:
            command.add_argument("--config", type=Path, default=shop, help="what to train, TOML")
            command.add_argument("--seed", type=int, help="instead of the configuration's")
        if run in {train, benchmark, news}:
            command.add_argument(
                "--threads", type=int, default=1, help="of the processor; more help only on idle cores"
            )
            command.add_argument("--checkpoint", type=Path, help="folder to write to every epoch, and to resume from")
        if run in {benchmark, news}:
            command.add_argument("--data", type=Path, required=True, help="folder of a public data set")
            command.add_argument(
                "--models",
                nargs="+",
                default=["markov", "popularity"],
                help="others are compared with the first",
                metavar="NAME",
            )
        if run in {evaluate, embed}:
            command.add_argument("--bundle", default="next_item", help="name or tag in the model store")
    commands.choices["train"].add_argument(
        "--plans", type=Path, default=Path(".segue/plans"), help="where the serving plans are"
    )
    commands.choices["benchmark"].add_argument(
        "--protocol", default="leave-one-out", help="leave-one-out, published-split or temporal"
    )
    commands.choices["evaluate"].add_argument(
        "--service", help="host:port of a running recommendation service to ask instead of the bundle's own files"
    )
    labels = commands.choices["embed"]
    labels.add_argument(
        "--labels", type=Path, required=True, help="Parquet with the columns customer and event_timestamp"
    )
    labels.add_argument("--out", type=Path, required=True, help="Parquet file to write")
    labels.add_argument("--ttl-days", type=int, default=7, help="how long after its time an embedding may be used")
    _shop_options(commands.choices["oracle"])
    commands.choices["news"].add_argument(
        "--days", type=float, default=5, help="from how long before validation on clicks are counted"
    )
    return parser


def _shop_options(command: argparse.ArgumentParser) -> None:
    sizes = {"customers": 6000, "items": 2000, "days": 90, "shop-seed": 7, "width": 220}
    for name, default in sizes.items():
        meaning = "characters of the table" if name == "width" else "of the simulated shop"
        command.add_argument(f"--{name}", type=int, default=default, help=meaning)
    command.add_argument("--bundle", help="name or tag in the model store, instead of training")


if __name__ == "__main__":
    sys.exit(main())
