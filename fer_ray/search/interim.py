"""The best so far of an interrupted search, where it is a trial that has not ended."""

from __future__ import annotations

from fer_ray.data.loading import load_validation_data, source_name
from fer_ray.evaluation.packing import pack
from fer_ray.search.study import Study
from fer_ray.training.loop import Training


def pack_best_so_far(study: Study) -> None:
    """Point `best` at the best trial even where it is under way: packed from its checkpoint.

    Such a bundle lies beside the others as `<number>-epoch-<best epoch>` and goes when the search
    goes on and a trial ends. A trial's own bundle is packed when the trial ends.
    """
    ranking = study.ranking()
    if not ranking or ranking[0].ended is not None:
        return
    best = ranking[0]
    checkpoint = study.run.checkpoint(best.number)
    if not checkpoint.is_file():
        return
    state, curve = Training.best_of(checkpoint)
    name = f"{best.number}-epoch-{curve[-1]['best_epoch']}"
    path = study.run.bundle(best.number).with_name(name)
    data = study.space.base.data
    if not path.exists():
        pack(
            path,
            config=best.asked.config,
            data=load_validation_data(data),
            state=state,
            curve=curve,
            data_name=source_name(data),
        )
    study.run.point_best(name)
