"""An output that is here although what it was made from is not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice, product

from modelbuild.build.run import Run
from modelbuild.spec.derivation import StageId, upstream_stages
from modelbuild.spec.digest import Digest
from modelbuild.store.realisations import Realisation, recorded

_TRIED = 256
"""Combinations of upstream outputs that are looked for: where builds differ there may be many."""


def output_here(identity: StageId, run: Run) -> Realisation | None:
    """The output of a stage some of whose upstream stages have none here; what is claimed first.

    The key of the store needs the digests of upstream outputs: where these are gone, claims and
    the records of their builds still name them.
    """
    derivation = run.locked.derivations[identity]
    found = [run.valid(identity, derivation.resolve(each)) for each in _upstream(identity, run)]
    claimed = {claim.output for claim in run.claims(identity)}
    here = [each for each in found if each is not None]
    return min(here, key=lambda each: each.output not in claimed, default=None)


def _upstream(identity: StageId, run: Run) -> Iterator[Mapping[str, Digest]]:
    """What a stage may have read: upstream outputs by input name, the likeliest first."""
    recipe = run.locked.recipes[identity.recipe]
    reads = upstream_stages(recipe, recipe.stages[identity.stage], run.locked.recipes)
    for each in reads.values():
        if each not in run.known:
            run.known[each] = _outputs(each, run)
    for outputs in islice(product(*(run.known[each] for each in reads.values())), _TRIED):
        yield dict(zip(reads, outputs, strict=True))


def _outputs(identity: StageId, run: Run) -> list[Digest]:
    """What is known to have come out of a stage."""
    realised = run.results[identity].realisation
    if realised is not None:
        return [realised.output]
    outputs = [claim.output for claim in run.claims(identity)]
    derivation = run.locked.derivations[identity]
    for upstream in _upstream(identity, run):
        built = recorded(derivation.resolve(upstream).digest, run.request.store)
        outputs += [each.output for each in built]
    return list(dict.fromkeys(outputs))
