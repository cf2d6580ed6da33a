"""Log a built output as a run of MLflow: parameters, metrics, curves, tags, files."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from modelbuild.build.outputs import Lookup, find_output
from modelbuild.errors import ModelbuildError, UsageError
from modelbuild.review.curves import read_curves
from modelbuild.review.revisions import git
from modelbuild.review.runs import Run
from modelbuild.sources.workspace import Workspace
from modelbuild.spec.canonical import Json, canonical_bytes
from modelbuild.spec.logins import split_query
from modelbuild.spec.recipe import Recipe
from modelbuild.store.derivations import find_derivation
from modelbuild.store.realisations import Realisation

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

_OUTPUT = "modelbuild.output"
_MOST_METRICS = 1000
_MOST_PARAMS = 100
"""What a server takes at once."""
_LONGEST_VALUE = 6000


@dataclass(frozen=True, kw_only=True, slots=True)
class Logged:
    run: str
    """The run's id."""
    experiment: str
    is_new: bool
    """False: this output had been logged before."""


def export_mlflow(lookup: Lookup, uri: str, experiment: str | None = None) -> Logged:
    """Log the output of a stage to a tracking server, once; default experiment: the recipe's name.

    A login is taken from the URI or from MLflow's own variables, and neither shown nor kept.
    """
    identity, realisation = find_output(lookup)
    if realisation is None:
        raise ModelbuildError(
            f"{identity} is not built", hint=f"To build it: modelbuild build {lookup.recipe}"
        )
    recipe = lookup.workspace.read_recipe(lookup.recipe)
    client = _client(uri)
    from mlflow.exceptions import MlflowException

    try:
        place = _experiment(client, experiment or recipe.name)
        known = client.search_runs(
            [place],
            f"tags.`{_OUTPUT}` = '{realisation.output}' and attributes.status = 'FINISHED'",
            max_results=1,
        )
        run = known[0].info.run_id if known else _log(client, place, realisation, recipe, lookup)
    except (MlflowException, OSError) as error:
        # What the server said may repeat the address with its login.
        reason = (str(error).splitlines() or [""])[0].replace(uri, split_query(uri)[0])
        raise ModelbuildError(
            f"{identity} could not be logged to {split_query(uri)[0]}",
            facts=[("because", split_query(reason)[0])],
        ) from None
    return Logged(run=run, experiment=place, is_new=not known)


def _client(uri: str) -> MlflowClient:
    # It would report its use to its makers, print the address with its login, and try for minutes
    # where no server answers.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    try:
        from mlflow import MlflowClient
    except ImportError:
        raise ModelbuildError(
            "MLflow is not installed",
            hint=f"It belongs beside modelbuild: {sys.executable} -m pip install mlflow-skinny",
        ) from None
    return MlflowClient(tracking_uri=uri)


def _experiment(client: MlflowClient, name: str) -> str:
    known = client.get_experiment_by_name(name)
    return str(known.experiment_id if known else client.create_experiment(name))


def _log(
    client: MlflowClient, place: str, realisation: Realisation, recipe: Recipe, lookup: Lookup
) -> str:
    """A run that is not logged whole ends as failed, and does not count as logged."""
    built = datetime.now(UTC)
    derivation = find_derivation(realisation.resolved, lookup.store)
    run = Run(realisation=realisation, built=built, inputs=derivation.fields if derivation else {})
    stage = realisation.name.partition(":")[2]
    created = client.create_run(
        place,
        run_name=realisation.name,
        tags=_tags(realisation, recipe, lookup.workspace),
    )
    identifier = str(created.info.run_id)
    try:
        _log_params(client, identifier, run.settings)
        output = realisation.path(lookup.store)
        curves = recipe.stages[stage].curves if stage in recipe.stages else ()
        metrics = [*_finals(realisation), *_points(output, curves)]
        for start in range(0, len(metrics), _MOST_METRICS):
            client.log_batch(identifier, metrics=metrics[start : start + _MOST_METRICS])
        client.log_artifacts(identifier, str(output))
    except BaseException:
        client.set_terminated(identifier, "FAILED")
        raise
    client.set_terminated(identifier, "FINISHED")
    return identifier


def _log_params(client: MlflowClient, run: str, settings: Mapping[str, Json]) -> None:
    from mlflow.entities import Param

    texts = {
        name: value if isinstance(value, str) else canonical_bytes(value).decode()
        for name, value in settings.items()
    }
    params = [Param(name, text[:_LONGEST_VALUE]) for name, text in texts.items()]
    for start in range(0, len(params), _MOST_PARAMS):
        client.log_batch(run, params=params[start : start + _MOST_PARAMS])


def _finals(realisation: Realisation) -> Iterator[Metric]:
    from mlflow.entities import Metric

    resources = realisation.resources
    used = {
        "modelbuild/seconds": resources.wall_seconds,
        "modelbuild/peak_memory_bytes": float(resources.peak_memory_bytes),
    }
    for name, value in {**realisation.metrics, **used}.items():
        yield Metric(name, value, _now(), 0)


def _points(output: Path, files: Sequence[str]) -> Iterator[Metric]:
    """`loss` of train.jsonl is `train/loss`: a metric may have the same name."""
    from mlflow.entities import Metric

    for file in files:
        if not (output / file).is_file():
            continue
        for curve in read_curves(output / file).curves:
            whole = all(point[0] == int(point[0]) for point in curve.points)
            for count, point in enumerate(curve.points):
                step = int(point[0]) if whole else count
                yield Metric(f"{Path(file).stem}/{curve.name}", point[1], _now(), step)


def _now() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)


def _tags(realisation: Realisation, recipe: Recipe, workspace: Workspace) -> dict[str, str]:
    tags = {
        _OUTPUT: str(realisation.output),
        "modelbuild.derivation": str(realisation.derivation),
        "modelbuild.resolved": str(realisation.resolved),
        "modelbuild.class": realisation.numeric_class,
        "modelbuild.level": recipe.determinism.level.value,
        "modelbuild.isolation": realisation.isolation,
        "modelbuild.recipe": str(recipe.path),
    }
    commit = _commit(workspace)
    return tags | ({"mlflow.source.git.commit": commit} if commit else {})


def _commit(workspace: Workspace) -> str | None:
    """The commit that is checked out, unless something is not committed."""
    try:
        changed, said, _ = git(["status", "--porcelain", "--untracked-files=no"], workspace)
        code, commit, _ = git(["rev-parse", "HEAD"], workspace)
    except UsageError:
        return None
    return commit.decode().strip() if not (changed or said or code) else None
