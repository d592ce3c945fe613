"""The search for tile sizes: what it tries, what it believes, and what it leaves in the user's file."""

import json
import stat

import pytest
import torch

from llmcli_kernels.tune.search import Trial, best_of, search
from llmcli_kernels.tune.tuner import Case, Prepared, tune
from llmcli_kernels.tune.user_table import add_row, read_user_table, write_user_table
from llmcli_kernels.tuning import TuningRow, TuningTable, TuningTableError, load_table

SPACE = {"BN": (32, 64, 128, 256), "num_warps": (1, 2, 4)}
START = {"BN": 64, "num_warps": 4, "GM": 8}


def cost(config) -> float:
    """Seconds of a made-up kernel: best at BN 256 with 2 warps."""
    return 1e-6 * (1 + abs(config["BN"] - 256) / 256 + abs(config["num_warps"] - 2))


def found_by(attempt, start=START, space=SPACE) -> list[Trial]:
    return list(search(start, space, attempt))


def test_the_search_starts_at_the_present_config_and_ends_at_the_fastest():
    trials = found_by(lambda config: Trial(config, cost(config)))
    assert trials[0].config == START
    assert best_of(trials).config == {"BN": 256, "num_warps": 2, "GM": 8}


def test_no_config_is_tried_twice_and_settings_outside_the_space_stay():
    configs = [trial.config for trial in found_by(lambda config: Trial(config, cost(config)))]
    assert all(configs.count(config) == 1 for config in configs)
    assert {config["GM"] for config in configs} == {8}


def test_it_goes_on_until_no_single_change_helps():
    seconds = {(64, 4): 4.0, (64, 2): 5.0, (128, 4): 3.0, (128, 2): 2.0, (256, 2): 1.0}
    space = {"num_warps": (2,), "BN": (128, 256)}
    trials = found_by(lambda c: Trial(c, seconds.get((c["BN"], c["num_warps"]), 9.0)), space=space)
    assert (best_of(trials).config["BN"], best_of(trials).config["num_warps"]) == (256, 2)


def test_a_gain_within_the_noise_of_timing_is_no_gain():
    trials = found_by(lambda config: Trial(config, 1.0 if config == START else 0.99))
    assert best_of(trials).config == START


def test_a_config_that_works_replaces_a_present_one_that_does_not():
    trials = found_by(lambda config: Trial(config, None, "no") if config == START else Trial(config, 1.0))
    assert best_of(trials).seconds == 1.0


TABLE = TuningTable("base", {"scaled": (TuningRow({}, {"by": 2, "num_warps": 4}, "base"),)})


class Scaled:
    """An operation that doubles a vector if its config says so, with the config's number as its time."""

    def __init__(self, **space: tuple[int, ...]) -> None:
        self.timed: list[int] = []
        self.case = Case("scaled", "scaled 8", {"n": 8}, space, self.prepare)

    def prepare(self) -> Prepared:
        x = torch.arange(8.0)
        return Prepared(
            expected=2 * x, bound=1e-3, output=lambda table: self.scale(x, table), calls=self.calls
        )

    def scale(self, x: torch.Tensor, table: TuningTable) -> torch.Tensor:
        config = table.pick("scaled", n=8)
        if config["num_warps"] > 8:
            raise RuntimeError("out of resource: shared memory\nRequired: 1")
        return x * config["by"]

    def calls(self, table: TuningTable):
        return [lambda: table.pick("scaled", n=8)["num_warps"]]

    def timer(self, calls) -> float:
        self.timed.append(calls[0]())
        return 1e-6 * self.timed[-1]


def tuned(operation: Scaled, table: TuningTable = TABLE):
    return tune(operation.case, table, operation.timer, lambda trial: None)


def test_a_config_with_a_wrong_result_is_never_timed():
    operation = Scaled(by=(1, 2, 3))
    result = tuned(operation)
    assert operation.timed == [4]
    assert [trial.reason.partition(":")[0] for trial in result.trials] == ["", "wrong result", "wrong result"]


def test_a_nan_is_a_wrong_result():
    operation = Scaled()
    operation.scale = lambda x, table: x * float("nan")
    assert "relative error nan" in tuned(operation).before.reason


def test_a_config_that_can_not_be_launched_is_passed_over_with_its_reason():
    result = tuned(Scaled(num_warps=(16, 2)))
    assert "RuntimeError: out of resource: shared memory" in [trial.reason for trial in result.trials]
    assert result.row.config == {"by": 2, "num_warps": 2}


def test_the_row_is_for_the_sizes_of_the_case():
    row = tuned(Scaled(num_warps=(1,))).row
    assert (row.up_to, row.config) == ({"n": 8}, {"by": 2, "num_warps": 1})


def test_a_shape_without_a_better_config_gets_its_present_one_as_a_row():
    assert tuned(Scaled(num_warps=(8,))).row.config == {"by": 2, "num_warps": 4}


def test_a_gain_that_is_not_there_when_measured_again_is_not_believed():
    operation = Scaled(num_warps=(2,))
    times = iter([4.0, 1.0, 4.0, 4.0])
    result = tune(operation.case, TABLE, lambda calls: next(times), lambda trial: None)
    assert result.after.config["num_warps"] == 4


def test_where_no_config_works_there_is_no_row():
    wrong = TuningTable("base", {"scaled": (TuningRow({}, {"by": 3, "num_warps": 4}, "base"),)})
    assert tuned(Scaled(num_warps=(1, 2)), wrong).row is None


BASE = load_table((9, 0))
OPERATION = next(iter(BASE.rows))
CONFIG = dict(BASE.rows[OPERATION][0].config)
NEWER = {name: value * 2 for name, value in CONFIG.items()}


def row(config, **up_to: int) -> TuningRow:
    return TuningRow(up_to, config, "here")


def test_rows_are_read_back_in_the_order_of_their_bounds(tmp_path):
    user = TuningTable("mine.json", {})
    for m, n in ((8, 4096), (32, 64), (8, 64), (8, 64)):
        user = add_row(user, OPERATION, row(CONFIG, m=m, n=n))
    write_user_table(tmp_path / "deep" / "mine.json", {"gpu": "NVIDIA H200"}, user)
    rows = read_user_table(tmp_path / "deep" / "mine.json", BASE).rows[OPERATION]
    assert [(found.up_to["m"], found.up_to["n"]) for found in rows] == [(8, 64), (32, 64), (8, 4096)]


def test_a_newer_row_for_the_same_sizes_takes_the_place_of_the_older(tmp_path):
    user = add_row(TuningTable("mine.json", {}), OPERATION, row(CONFIG, m=8))
    user = add_row(user, OPERATION, row(NEWER, m=8))
    assert [found.config for found in user.rows[OPERATION]] == [NEWER]


def test_a_file_that_does_not_go_with_this_version_is_told(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text('{"operations": {"gone": [{"up_to": {}, "config": {}}]}}')
    with pytest.raises(TuningTableError, match="no operation 'gone'"):
        read_user_table(path, BASE)


def test_without_a_file_there_are_no_rows(tmp_path):
    assert read_user_table(tmp_path / "none.json", BASE).rows == {}


def test_writing_leaves_no_other_file_and_valid_json(tmp_path):
    user = add_row(TuningTable("mine.json", {}), OPERATION, row(CONFIG))
    write_user_table(tmp_path / "mine.json", {"gpu": 'a "GPU"'}, user)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.json"]
    assert json.loads((tmp_path / "mine.json").read_text())["about"] == {"gpu": 'a "GPU"'}
    assert stat.S_ISREG((tmp_path / "mine.json").stat().st_mode)
