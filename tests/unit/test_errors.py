"""The exception tree: exit codes, texts, and a way through pickle, as Ray sends them."""

import pickle

import pytest

from fer_ray import errors
from fer_ray.errors import (
    BundleError,
    ConfigError,
    DataError,
    DecodeError,
    FerRayError,
    InterruptedRunError,
    NothingSucceededError,
    OutputExistsError,
    Problem,
    UnfinishedError,
    UserError,
)

EXAMPLES = [
    FerRayError("it failed"),
    UserError("-1 is below 0", "Give 0 or more."),
    ConfigError([Problem("a.yaml", 2, 5, "wrong", "    x: 1"), Problem("-s x=1", 0, 0, "no")]),
    DataError("no data", "Import some."),
    DecodeError("the file is empty", "empty"),
    BundleError("damaged"),
    OutputExistsError("there already"),
    NothingSucceededError("nothing"),
    UnfinishedError("half"),
    InterruptedRunError("Ctrl-C"),
]


def test_every_class_has_an_example() -> None:
    classes = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, FerRayError)
    }
    assert {type(error) for error in EXAMPLES} == classes


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_survives_pickling_with_everything_it_says(error: FerRayError) -> None:
    # What Ray does between processes; the input is our own.
    back = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert type(back) is type(error)
    assert back.args == error.args
    assert str(back) == str(error)
    assert (back.message, back.remedy) == (error.message, error.remedy)


def test_exit_codes_tell_the_kinds_apart() -> None:
    codes = {type(error).__name__: error.exit_code for error in EXAMPLES}
    assert codes == {
        "FerRayError": 1,
        "UserError": 2,
        "ConfigError": 2,
        "DataError": 2,
        "DecodeError": 2,
        "BundleError": 2,
        "OutputExistsError": 2,
        "NothingSucceededError": 3,
        "UnfinishedError": 4,
        "InterruptedRunError": 130,
    }


def test_a_decode_error_is_a_data_error_and_keeps_its_type() -> None:
    error = DecodeError("the file is empty", "empty")
    assert isinstance(error, DataError)
    assert error.error_type == "empty"
    assert error.remedy is None


def test_the_remedy_is_a_line_of_its_own() -> None:
    assert str(UserError("value and rule", "Do this.")) == "value and rule\n  Do this."


def test_a_problem_shows_its_line_with_a_caret_under_the_column() -> None:
    text = str(Problem("a.yaml", 2, 5, "wrong", "    x: 1"))
    assert text == "a.yaml:2:5: wrong\n        x: 1\n        ^"


def test_a_problem_without_a_line_shows_its_place_alone() -> None:
    assert str(Problem("-s x=1", 0, 0, "wrong")) == "-s x=1: wrong"


def test_a_config_error_tells_all_its_problems() -> None:
    error = ConfigError([Problem("a", 1, 1, "first"), Problem("a", 2, 1, "second")])
    assert str(error).splitlines() == ["a:1:1: first", "a:2:1: second"]
