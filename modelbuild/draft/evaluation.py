"""A script that evaluates what another one trains, as a second stage."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import PurePosixPath

from modelbuild.draft.drafted import Draft, Surroundings
from modelbuild.draft.recipe import draft
from modelbuild.errors import ModelbuildError

_EVALUATING = re.compile(r"eval(uate|uation)?([-_].*)?|.*[-_]eval(uate|uation)?")


def with_evaluation(trained: Draft, around: Surroundings) -> None:
    """Add a script beside the training that takes a file which that writes as a second stage."""
    own = PurePosixPath(trained.script.path)
    for path in sorted(around.files):
        place = PurePosixPath(path)
        if place.parent != own.parent or not _EVALUATING.fullmatch(place.stem) or place == own:
            continue
        data, params = dict(trained.data), dict(trained.params)
        try:
            found = draft(path, around, trained)
        except ModelbuildError:  # not a program, or not one that is understood
            continue
        words = [word for argument in found.stage.arguments for word in argument]
        if any(word.startswith("{stages.") for word in words):
            trained.stages += found.stages
            trained.include = tuple(dict.fromkeys([*trained.include, *found.include]))
            trained.elsewhere.update(found.elsewhere)
            trained.reached = tuple(sorted({*trained.reached, *found.reached}))
            modules = (*trained.script.modules, *found.script.modules)
            trained.script = replace(trained.script, modules=modules)
            return
        trained.data, trained.params = data, params
