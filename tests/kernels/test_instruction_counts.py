"""Machine code of the Triton kernels, compiled without a GPU: it compiles, spills nothing, and stays lean.

The counter itself is tested on small pieces of machine code; the kernels by the script, in a process of its own,
because what was imported for Triton's interpreter can not be compiled.
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.instruction_table import Figures, Result, complaints, read_table, write_table
from scripts.sass import inner_loop, num_spills, opcodes, resources

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "count_instructions.py"
TABLE = ROOT / "benchmarks" / "instructions.json"
# On sm_90, thread-instructions per weight and per byte of a 16-bit KV cache. An H200 has time for about 3.3 and 6.2;
# for 64 rows and more of the wide kernel, for twice that.
LIMITS = (
    (r"int4_skinny fp16, subnormal, groups of 128, 8x.*", 1.4),
    (r"int4_skinny fp16, subnormal, groups of 128, 16x.*", 1.7),
    (r"int4_wide fp16, groups of 128, .*", 4.2),
    (r"attention decode (fp16|bf16) head size \d+[a-z0-9 ]*, (8|16) columns.*", 1.2),
)

ONE_LOOP = """
        /*0000*/                   S2R R19, SR_TID.X ;
        /*0010*/              @!P2 BRA `(.L_x_0) ;
        /*0020*/                   BRA `(.L_x_1) ;
.L_x_0:
        /*0030*/                   LDG.E.128 R4, desc[UR4][R2.64] ;
.L_x_2:
        /*0040*/                   LOP3.LUT R4, R4, 0xf000f, R5, 0xf8, !PT ;
        /*0050*/              @!P1 BRA `(.L_x_4) ;
        /*0060*/                   HMMA.16816.F32 R8, R4, R6, R8 ;
.L_x_4:
        /*0070*/             @!UP0 LOP3.LUT R4, R4, 0xf000f, R5, 0xf8, !PT ;
        /*0080*/               @P5 BRA `(.L_x_2) ;
.L_x_1:
        /*0090*/                   EXIT ;
.L_x_3:
        /*00a0*/                   BRA `(.L_x_3);
        /*00b0*/                   NOP;
"""
NESTED_LOOPS = """
.L_1:
        /*0000*/                   IADD3 R1, R1, 0x1, RZ ;
.L_2:
        /*0010*/                   FFMA R2, R3, R4, R2 ;
        /*0020*/               @P0 BRA.U `(.L_2) ;
        /*0030*/                   IADD3 R1, R1, 0x1, RZ ;
        /*0040*/                   IADD3 R1, R1, 0x1, RZ ;
        /*0050*/               @P1 BRA `(.L_1) ;
.L_3:
        /*0060*/                   MUFU.EX2 R2, R3 ;
        /*0070*/                   MUFU.EX2 R2, R3 ;
        /*0080*/               @P0 BRA `(.L_3) ;
"""
CALL_BACK = """
.L_x_1:
        /*0000*/                   RET.REL.NODEC R4 `(kernel) ;
        /*0010*/                   CALL.REL.NOINC `(.L_x_1) ;
        /*0020*/                   EXIT ;
"""


def test_the_loop_is_what_lies_between_a_label_and_a_branch_back_to_it():
    assert inner_loop(ONE_LOOP.splitlines()) == {"LOP3": 2, "BRA": 2, "HMMA": 1}


def test_of_nested_loops_the_inner_one_counts_and_of_neighbours_the_larger():
    assert inner_loop(NESTED_LOOPS.splitlines()) == {"MUFU": 2, "BRA": 1}


def test_code_without_a_branch_back_has_no_loop():
    assert not inner_loop(CALL_BACK.splitlines())


def test_opcodes_are_counted_without_predicates_and_modifiers():
    assert opcodes(ONE_LOOP.splitlines())["LOP3"] == 2
    assert opcodes(["        /*1a40*/                   NOP;", "  .section .text", ".L_x_3:"]) == {"NOP": 1}


def test_every_use_of_local_memory_is_a_spill():
    lines = ["/*0000*/ STL.64 [R1], R2 ;", "/*0010*/ @P0 LDL R2, [R1+0x8] ;", "/*0020*/ LDS R2, [R1] ;"]
    assert num_spills(lines) == 2


def test_resources_are_read_from_what_cuobjdump_prints():
    usage = "Function skinny:\n  REG:128 STACK:8 SHARED:1024 LOCAL:0 CONSTANT[0]:608 TEXTURE:0"
    assert resources(usage) == {"REG": 128, "STACK": 8, "LOCAL": 0}
    with pytest.raises(ValueError, match="cuobjdump told no resource usage: 'Fatal'"):
        resources("Fatal\n")


def result(per_unit: float | None = 1.5, **changes: object) -> Result:
    figures = {
        "unit": None if per_unit is None else "weight",
        "registers": 128,
        "shared_memory": 1024,
        "spills": 0,
    }
    return Result(
        "sm_90", "skinny", Figures(per_unit=per_unit, **(figures | changes)), opcodes(ONE_LOOP.splitlines())
    )


def held_against(path: Path, recorded: Result, now: Result) -> list[str]:
    """Complaints about `now` where the table has `recorded`."""
    write_table(path / "table.json", "3.9.0", [recorded])
    return complaints([now], read_table(path / "table.json")[1], complete=True)


@pytest.mark.parametrize("per_unit", [1.5, 1.2, None])
def test_as_many_instructions_as_in_the_table_or_fewer_pass(tmp_path, per_unit):
    recorded = result(per_unit=None if per_unit is None else 1.5)
    assert held_against(tmp_path, recorded, result(per_unit=per_unit)) == []


@pytest.mark.parametrize(
    ("now", "complaint"),
    [
        (result(per_unit=1.51), "1.51 instructions per weight, the table has 1.50"),
        (result(unit="KV byte"), "counted for each KV byte, the table has weight"),
        (result(spills=2), "spills registers (2)"),
        (result(shared_memory=240_000), "240000 bytes of shared memory, a block has 232448"),
        (Result("sm_90", "skinny", None, failure="no"), "does not compile: no"),
        (Result("sm_90", "skinny", result().figures), "there is no loop to count"),
    ],
)
def test_what_must_not_be_is_told(tmp_path, now, complaint):
    assert held_against(tmp_path, result(), now) == [f"sm_90 skinny: {complaint}"]


def test_a_variant_that_is_not_in_the_table_and_a_line_without_a_variant_are_told(tmp_path):
    other = Result("sm_90", "wide", result().figures, result().opcodes)
    assert held_against(tmp_path, result(), other) == [
        "sm_90 wide: not in the table",
        "sm_90 skinny: in the table, but no variant any more",
    ]


def test_with_figures_of_another_triton_only_the_code_itself_is_judged():
    assert complaints([result(per_unit=99.0)], None, complete=True) == []
    assert complaints([result(spills=1)], None, complete=True) == ["sm_90 skinny: spills registers (1)"]


def test_writing_one_architecture_keeps_the_others(tmp_path):
    path = tmp_path / "table.json"
    write_table(path, "3.9.0", [result()])
    write_table(path, "3.9.0", [Result("sm_80", "skinny", result(per_unit=2.0).figures)])
    assert {arch: rows["skinny"]["per_unit"] for arch, rows in read_table(path)[1].items()} == {
        "sm_80": 2.0,
        "sm_90": 1.5,
    }
    write_table(path, "3.10.0", [result()])
    assert list(read_table(path)[1]) == ["sm_90"]


@pytest.mark.parametrize(("name", "limit"), LIMITS)
def test_kernels_at_the_memory_roofline_issue_few_instructions(name: str, limit: float):
    rows = {
        row: found["per_unit"]
        for row, found in read_table(TABLE)[1]["sm_90"].items()
        if re.fullmatch(name, row)
    }
    assert rows
    assert {row: figure for row, figure in rows.items() if figure > limit} == {}


@pytest.mark.parametrize("path", sorted(TABLE.parent.glob("instructions*.json")), ids=lambda path: path.name)
def test_no_table_has_a_spill(path: Path):
    spilling = [name for rows in read_table(path)[1].values() for name, row in rows.items() if row["spills"]]
    assert spilling == []


def script(*args: str) -> subprocess.CompletedProcess[str]:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return subprocess.run([sys.executable, str(SCRIPT), *args], capture_output=True, text=True, env=env)


@pytest.mark.parametrize("arch", ["sm_80", "sm_89", "sm_90"])
def test_every_variant_compiles_spills_nothing_and_stays_within_the_table(arch):
    done = script("--arch", arch)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    assert re.search(r"^[1-9]\d* variants with Triton .*, 0 complaints$", done.stdout, re.MULTILINE)


def test_a_selection_without_a_variant_is_a_failure():
    assert script("--arch", "sm_80", "--only", "no such kernel").returncode == 1
