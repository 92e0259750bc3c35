"""Each verb of fer-ray as one typed function; the command line parses, calls these and prints.

    data        import_data  check_data  sample_data
    spaces      check
    training    train  resume_train
    searching   plan  tune  resume  stop
    runs        verb_of  open_run  report  doctor
    bundles     load_bundle  load_predictor  ensemble  export
    evaluating  evaluate  compare  calibrate
    scoring     predict  score  plan_score
    serving     endpoint  serve  update

The few others answer questions that the command line has before it calls a verb.

Heavy libraries are imported inside the verbs, so that importing this package is cheap.
"""

from fer_ray.api.bundles import ensemble, export, load_bundle, load_predictor
from fer_ray.api.data import CheckedData, check_data, import_data, sample_data
from fer_ray.api.evaluating import calibrate, compare, count_images, evaluate, keep_evaluation
from fer_ray.api.runs import doctor, open_run, report, verb_of
from fer_ray.api.scoring import begun_with, count_files, plan_score, predict, score
from fer_ray.api.searching import plan, resume, stop, tune
from fer_ray.api.serving import endpoint, serve, update
from fer_ray.api.spaces import check
from fer_ray.api.training import resume_train, train

__all__ = [
    "CheckedData",
    "begun_with",
    "calibrate",
    "check",
    "check_data",
    "compare",
    "count_files",
    "count_images",
    "doctor",
    "endpoint",
    "ensemble",
    "evaluate",
    "export",
    "import_data",
    "keep_evaluation",
    "load_bundle",
    "load_predictor",
    "open_run",
    "plan",
    "plan_score",
    "predict",
    "report",
    "resume",
    "resume_train",
    "sample_data",
    "score",
    "serve",
    "stop",
    "train",
    "tune",
    "update",
    "verb_of",
]
