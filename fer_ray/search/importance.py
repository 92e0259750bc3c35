"""What mattered: the share of each hole in how well trials did, by two methods that differ.

PED-ANOVA (Watanabe et al. 2023, arXiv 2304.10255; in its conditional form) asks what the best
trials have in common, and covers holes that only some trials reach. fANOVA (Hutter et al. 2014)
asks what moves the objective anywhere in the space, good or bad, and covers only the holes that
every trial has. Both are given all trials at the same epoch: values of different epochs would show
how far a trial was let, not how good its configuration is.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from fer_ray.search.history import RunHistory

MIN_TRIALS = 8
"""Below, nothing is computed."""
ENOUGH_TRIALS = 50
"""PED-ANOVA's authors want five trials in the best tenth."""
_NUM_TOP = 5
_SEED = 0


@dataclass(frozen=True)
class Importance:
    """One method's answer.

    Attributes:
        method: its name.
        question: what it answers.
        shares: (address, share) largest first; shares sum to 1.
    """

    method: str
    question: str
    shares: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Importances:
    """What mattered, or why it cannot be said.

    Attributes:
        epoch: at which trials were compared.
        num_trials: that had reached it.
        note: how far to trust it; why nothing is here, where nothing is.
    """

    epoch: int
    num_trials: int
    note: str
    answers: tuple[Importance, ...] = ()


def importances(history: RunHistory) -> Importances:
    """Compare the holes by all trials at the first rung (at the last epoch without ASHA)."""
    last = max((t.epoch for t in history.trained if t.state == "complete"), default=0)
    epoch = min(history.rungs, default=last)
    there = [t for t in history.trained if epoch and t.value_at(epoch) is not None]
    if len(there) < MIN_TRIALS:
        return Importances(
            epoch,
            len(there),
            f"{len(there)} trials have a value at epoch {epoch}: fewer than {MIN_TRIALS} say "
            "nothing about what mattered.",
        )
    values = {t.number: float(t.value_at(epoch) or 0.0) for t in there}
    if len(set(values.values())) == 1:
        return Importances(epoch, len(there), "All trials had the same value.")
    note = f"{len(there)} trials, each by its value at epoch {epoch}."
    if len(there) < ENOUGH_TRIALS:
        note += f" Fewer than {ENOUGH_TRIALS} trials: read it as a hint, not as a ranking."
    return Importances(epoch, len(there), note, _answers(history, values))


def _answers(history: RunHistory, values: dict[int, float]) -> tuple[Importance, ...]:
    import optuna
    from optuna.distributions import json_to_distribution
    from optuna.importance import (
        FanovaImportanceEvaluator,
        PedAnovaImportanceEvaluator,
        get_param_importances,
    )

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize" if history.maximize else "minimize")
    there = [trial for trial in history.trained if trial.number in values]
    for trial in there:
        distributions = {a: json_to_distribution(text) for a, text in trial.distributions.items()}
        stored = {
            address: distributions[address].to_external_repr(number)
            for address, number in trial.stored.items()
        }
        study.add_trial(
            optuna.trial.create_trial(
                params=stored, distributions=distributions, value=values[trial.number]
            )
        )
    quantile = max(0.1, min(0.5, _NUM_TOP / len(there)))
    num_top = round(quantile * len(there))
    shared = sorted(set.intersection(*(set(trial.params) for trial in there)))
    varied = [a for a in shared if len({str(trial.params[a]) for trial in there}) > 1]
    answers = []
    for method, question, evaluator, params in (
        (
            "PED-ANOVA",
            f"what the best {num_top} of {len(there)} have in common",
            PedAnovaImportanceEvaluator(target_quantile=quantile),
            None,
        ),
        (
            "fANOVA",
            "what moves the objective anywhere; only holes that every trial has",
            FanovaImportanceEvaluator(seed=_SEED),
            varied,
        ),
    ):
        if params == []:
            continue
        with warnings.catch_warnings():
            # Too few trials reached a branch: the note says how far to trust the answers.
            warnings.filterwarnings("ignore", "Some regimes for parameter", UserWarning)
            shares = get_param_importances(study, evaluator=evaluator, params=params)
        ordered = sorted(shares.items(), key=lambda item: (-item[1], item[0]))
        answers.append(Importance(method, question, tuple(ordered)))
    return tuple(answers)
