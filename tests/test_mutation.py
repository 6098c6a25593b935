"""Mutants of methods: each operator on a few lines, which are chosen, and whether running one tells the truth."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import pytest

from kintsugi.core.errors import ConfigError
from kintsugi.core.methods import METHODS
from kintsugi.testing.mutation import (
    Mutant,
    Trace,
    chosen,
    mutants_of,
    no_mechanism,
    read_equivalents,
    without_equivalents,
)
from kintsugi.testing.mutation_child import checks_of
from kintsugi.testing.mutation_run import (
    Outcome,
    Result,
    all_mutants,
    as_json,
    baseline,
    bench_for,
    run,
    summary,
    survivors,
)

SCRIPT = Path(__file__).parents[1] / "scripts" / "mutate.py"


def inside(body: str, head: str = "def step(self, batch)") -> str:
    return f"{head}:\n    " + dedent(body).strip().replace("\n", "\n    ") + "\n"


def after(source: str, operator: str, trace: Trace | None = None) -> list[str]:
    """Texts of the mutants by one operator, without the first line where that did not change."""
    head = ast.unparse(ast.parse(source)).splitlines()[0]
    texts = [m.text.strip() for m in mutants_of(source, "mine.py", trace=trace) if m.operator == operator]
    return [dedent("\n".join(t.splitlines()[1:])) if t.splitlines()[0] == head else t for t in texts]


# operators --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("operator", "before", "expected"),
    [
        ("detach dropped", "x = y.detach()", ["x = y"]),
        ("no_grad dropped", "with torch.no_grad():\n    x = y\n    z = x", ["x = y\nz = x"]),
        ("freezing dropped", "teacher.requires_grad_(False)", ["pass"]),
        ("freezing dropped", "teacher.requires_grad_(True)", []),
        ("evaluation mode dropped", "x = teacher.eval()(batch)", ["x = teacher(batch)"]),
        ("copy dropped", "x = copy.deepcopy(self.encoders)", ["x = self.encoders"]),
        ("copy dropped", "self.keep_frozen('teacher', self.encoders)", ["self.__dict__['teacher'] = self.encoders"]),
        ("argument detached", "x = self.decode(z)", ["x = self.decode(z.detach())"]),
        ("argument detached", "x = self.trunk(fused.pooled())", ["x = self.trunk(fused.pooled().detach())"]),
        ("argument detached", "x = self.encode(batch)", []),
        ("target rolled", "x = mse(a, b)", ["x = mse(a, b.roll(1, 0))"]),
        ("target rolled", "x = isinstance(a, b)", []),
        ("rows rolled", "x = self.task.loss(p.output, batch)", ["x = self.task.loss(p.output.roll(1, 0), batch)"]),
        ("arguments swapped", "x = soft_targets(s, t, 'regression')", ["x = soft_targets(t, s, 'regression')"]),
        ("arguments swapped", "x = F.kl_div(s, t)", ["x = F.kl_div(t, s)"]),
        ("arguments swapped", "x = mse(a, b)", []),
        ("loss dropped", "return Step({'a': x, 'b': y})", ["return Step({'b': y})", "return Step({'a': x})"]),
        ("loss doubled", "return step.plus(kd=x)", ["return step.plus(kd=2 * x)"]),
        ("loss dropped", "return step.plus(kd=x)", ["return step.plus()"]),
        ("loss detached", "losses['a'] = x", ["losses['a'] = x.detach()"]),
        ("loss dropped", "terms.append(x)", ["pass"]),
        ("loss dropped", "views = {'a': x, 'b': y}", []),
        ("loop cut", "for x in xs:\n    use(x)", ["for x in list(xs)[:-1]:\n    use(x)"]),
        ("loop cut", "y = [x for x in xs]", ["y = [x for x in list(xs)[:-1]]"]),
        ("other rows", "x = data.val", ["x = data.train"]),
        ("graph dropped", "x = grad(y, create_graph=True)", ["x = grad(y, create_graph=False)"]),
        ("stage plain rows", "x = Stage('a', rows='complete')", ["x = Stage('a', rows='all')"]),
        ("stage plain view", "x = Stage('a', view='subsets')", ["x = Stage('a', view='natural')"]),
        ("stage plain trainable", "x = Stage('a', trainable=('a.*',))", ["x = Stage('a', trainable=('*',))"]),
        ("stage plain train", "x = Stage('a', train=('*',))", []),
        ("arithmetic", "x = a + b", ["x = a - b"]),
        ("arithmetic", "x = a * b", ["x = a / b"]),
        ("arithmetic", "x = [a] + b", []),
        ("complement", "x = 1 - a", ["x = a"]),
        ("power dropped", "x = t ** 2", ["x = t"]),
        ("comparison", "x = a < b", ["x = a >= b"]),
        ("negation dropped", "x = ~a", ["x = a"]),
        ("condition", "if a:\n    b()", ["if not a:\n    b()"]),
        ("and, or", "x = a and b", ["x = a or b"]),
        ("axis", "x = y.softmax(-1)", ["x = y.softmax(0)"]),
        ("constant", "x = a.clamp(0.5)", ["x = a.clamp(1.0)"]),
        ("constant", "x = a + 1e-6", []),
    ],
)  # fmt: skip
def test_an_operator_makes_its_fault_and_no_other(operator: str, before: str, expected: list[str]) -> None:
    assert after(inside(before), operator) == expected


def test_a_frozen_copy_is_replaced_by_the_live_module_in_each_of_its_uses() -> None:
    source = """
    class A(Model):
        def prepare(self, data, stage):
            self.keep_frozen("teacher", self.encoders)

        def step(self, batch):
            return self.get_submodule("teacher")(self.teacher(batch))
    """
    live = [m for m in mutants_of(dedent(source), "mine.py") if m.operator == "live module"]
    assert [m.text.splitlines()[-1].strip() for m in live] == [
        "return self.encoders(self.teacher(batch))",
        "return self.get_submodule('teacher')(self.encoders(batch))",
    ]


def test_only_a_function_that_returns_a_tensor_is_detached() -> None:
    assert after(inside("return x + y", "def f(x) -> Tensor"), "answer detached") == ["return (x + y).detach()"]
    assert after(inside("return x + y", "def f(x) -> int"), "answer detached") == []


def test_what_carried_no_gradient_in_training_is_not_detached() -> None:
    source = inside("return self.head(a) + self.head(b)", "def f(a, b) -> Tensor")
    trace = Trace(gradients={"mine.py": {"f": ["a"]}})
    assert after(source, "argument detached", trace) == ["return self.head(a.detach()) + self.head(b)"]
    assert after(source, "answer detached", trace) == []


def test_an_override_is_deleted_where_a_base_has_the_method() -> None:
    source = "class A(B):\n    def fuse(self):\n        return 1\n\n    def own(self):\n        return 2\n"
    (mutant,) = [
        m for m in mutants_of(source, "mine.py", trace=Trace(overrides=["A.fuse"])) if "override" in m.operator
    ]
    assert mutant.text == "class A(B):\n\n    def own(self):\n        return 2\n"
    assert mutant.description == "mine.py, A.fuse, override deleted: def fuse => nothing"


def test_a_class_that_loses_its_only_method_stays_a_class() -> None:
    source = "class A(B):\n    def fuse(self):\n        return 1\n"
    assert "class A(B):\n    pass\n" in [m.text for m in mutants_of(source, "m.py", trace=Trace(overrides=["A.fuse"]))]


def test_stages_are_left_out_one_at_a_time() -> None:
    source = inside("return [Stage('a'), Stage('b')]", "def stages(self)")
    assert after(source, "stage dropped") == ["return [Stage('b')]", "return [Stage('a')]"]


def test_errors_defaults_annotations_and_docstrings_are_left_alone() -> None:
    source = '''
    LIMIT = 0.5

    def f(x: Literal[0.5], y: float = 0.5) -> float:
        """0.5 + 0.5"""
        if x < y or not x:
            raise ValueError(x + y)
        assert x + y
        z: Tensor = f"{x + y}"
        return z
    '''
    assert mutants_of(dedent(source), "mine.py") == []


def test_ablation_claims_and_what_only_they_use_are_no_part_of_the_mechanism() -> None:
    source = """
    @register(Card(key="a", share=0.5 + 1))
    class A(Model):
        def fuse(self, x):
            return helper(x) + 1

    def helper(x):
        return x + 2

    @ablation_of(A)
    class Off(A):
        def fuse(self, x):
            return helper(x) + 3

    @claims_of(A)
    def claim(fixture):
        assert _note(fixture)

    def _note(fixture):
        return _deeper(fixture) + 4

    def _deeper(fixture):
        return fixture + 5
    """
    assert no_mechanism(ast.parse(dedent(source))) == {"Off", "claim", "_note", "_deeper"}
    assert {m.function for m in mutants_of(dedent(source), "mine.py")} == {"A.fuse", "helper"}


def test_of_a_component_only_lines_that_ran_are_mutated() -> None:
    source = "def f(x):\n    if x:\n        return x + 1\n    return x * 2\n"
    ran = Trace(lines={"layers/f.py": [1, 2, 4]})
    assert {m.before for m in mutants_of(source, "layers/f.py", "component", ran)} == {"x", "x * 2"}
    assert mutants_of(source, "layers/other.py", "component", ran) == []


def test_mutants_with_one_description_are_numbered_and_those_with_one_text_are_one() -> None:
    mutants = mutants_of(inside("x = a + b\ny = a + b"), "mine.py")
    assert [m.number for m in mutants] == [1, 2]
    assert mutants[1].description == "mine.py, step, arithmetic: a + b => a - b (2)"
    assert len({m.text for m in mutants}) == 2


# choosing ---------------------------------------------------------------------------------------------------------------
def mutant(number: int, **fields: object) -> Mutant:
    return replace(Mutant("mine.py", f"f{number}", "constant", f"{number}.5", "0.1", f"text {number}"), **fields)  # type: ignore[arg-type]


def test_the_choice_is_the_same_whatever_the_order_and_another_for_another_method() -> None:
    mutants = [mutant(i, semantic=False) for i in range(40)]
    first = chosen("mmin", mutants, most=12)
    assert chosen("mmin", mutants[::-1], most=12) == first
    assert chosen("mmin", [*mutants, mutant(99, constructor=True)], most=12) == first
    assert chosen("smil", mutants, most=12) != first
    assert len(first) == 12


def test_all_that_change_the_meaning_are_taken_and_a_quarter_is_left_for_the_others() -> None:
    semantic = [mutant(i) for i in range(30)]
    arithmetic = [mutant(i, semantic=False) for i in range(30, 60)]
    components = [mutant(i, origin="component") for i in range(60, 90)]
    taken = chosen("mmin", [*components, *arithmetic, *semantic], most=24)
    assert set(taken[:30]) == set(semantic)
    assert [m.origin for m in taken[30:]] == ["component", "method"] * 3


def test_the_inherited_model_fills_up_to_the_least_number_and_no_further() -> None:
    base = [mutant(i, origin="base") for i in range(30)]
    own = [mutant(i) for i in range(40, 44)]
    assert [m.origin for m in chosen("a", base + own, least=10)] == ["method"] * 4 + ["base"] * 6
    assert chosen("a", base + [mutant(i) for i in range(40, 60)], least=10)[-1].origin == "method"


# equivalents ------------------------------------------------------------------------------------------------------------
def test_an_equivalent_mutant_is_left_out_with_its_reason(tmp_path: Path) -> None:
    mutants = [mutant(1), mutant(2)]
    file = tmp_path / "mutations.toml"
    file.write_text(f'"mmin: {mutants[0].description}" = "nobody reads it"\n')
    counted, equivalent = without_equivalents(mutants, read_equivalents(file)["mmin"])
    assert counted == mutants[1:]
    assert equivalent == [(mutants[0], "nobody reads it")]


def test_an_entry_that_matches_no_mutant_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"no such mutant .any more.: gone\.py"):
        without_equivalents([mutant(1)], {"gone.py, f, constant: 1.0 => 2.0": "it was so"})


@pytest.mark.parametrize("text", ['"no colon" = "why"', '"mmin: text" = ""', '"mmin: text" = 3', "not toml"])
def test_a_file_of_equivalents_that_says_something_else_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "mutations.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match="KEY: description"):
        read_equivalents(file)


def test_no_file_of_equivalents_holds_none(tmp_path: Path) -> None:
    assert read_equivalents(tmp_path / "none.toml") == {}


def test_the_file_of_equivalents_names_methods_that_there_are() -> None:
    assert set(read_equivalents(SCRIPT.with_name("mutations.toml"))) <= set(METHODS)


# telling ----------------------------------------------------------------------------------------------------------------
def test_the_summary_counts_crashes_and_timeouts_as_killed() -> None:
    states = ("killed", "crash", "timeout", "survived")
    results = [Result(mutant(i), Outcome(state), Outcome("survived"), 1.0) for i, state in enumerate(states)]  # type: ignore[arg-type]
    assert summary("mmin", results, 1) == (
        "mmin: 3 of 4 killed by contract and claims (75 %), 0 of 4 by golden numbers; 1 equivalent"
    )
    assert survivors(results) == results[3:]
    told = as_json("mmin", dict(enumerate(results, 1)), [(mutant(9), "why")])
    assert [row["contract"]["state"] for row in told["mutants"]] == list(states)
    assert told["equivalent"] == [{"description": mutant(9).description, "reason": "why"}]


def test_golden_numbers_that_were_not_asked_are_not_counted() -> None:
    results = [Result(mutant(1), Outcome("killed"), Outcome("none"), 1.0)]
    assert "golden numbers not asked" in summary("mmin", results)


# running ----------------------------------------------------------------------------------------------------------------
def test_claims_are_tried_first_and_every_promise_is_tried() -> None:
    from kintsugi.testing import CHECKS

    names = list(checks_of(METHODS["mean_fusion"]))
    assert names[0] == "claims_hold"
    assert set(names) == {*CHECKS, "fresh_process"}


@pytest.mark.slow
def test_a_fault_is_noticed_and_code_without_one_is_not() -> None:
    checks = ["claims_hold"]
    with bench_for("mean_fusion") as bench:
        start = baseline(bench, checks)
        mutants = {m.description: m for m in all_mutants(bench, start.trace)}
        wrong = mutants["core/model.py, Model.fuse, arithmetic: weights / weights.sum(1, keepdim=True).clamp(min=1) => "
                        "weights * weights.sum(1, keepdim=True).clamp(min=1)"]  # fmt: skip
        sound = replace(wrong, text=(bench.original / "kintsugi" / "core" / "model.py").read_text())
        broken = replace(wrong, text="import no_such_module\n")
        results = {r.mutant.text: r for r in run(bench, [wrong, sound, broken], 2, checks)}
        assert list(bench.folder.glob("mutant-*")) == []
    assert not bench.folder.exists()
    assert (results[sound.text].contract, results[sound.text].golden) == (Outcome("survived"), Outcome("survived"))
    assert results[broken.text].contract.state == "crash"
    assert results[wrong.text].golden.state == "killed"


def test_what_takes_too_long_counts_as_killed() -> None:
    with bench_for("mean_fusion") as bench:
        endless = Mutant("core/model.py", "f", "loop", "", "", "while True:\n    pass\n", origin="base")
        (result,) = run(bench, [endless], 1, golden=False, seconds=1)
    assert result.contract == Outcome("timeout", "", "it took too long")


def test_a_method_that_fails_before_any_fault_is_told(tmp_path: Path) -> None:
    file = tmp_path / "stumbling.py"
    source = METHODS.entries["mean_fusion"].file.read_text()
    source = source.replace('key="mean_fusion"', 'key="stumbling"').replace(
        "super().__init__(schema, dim)", "raise OSError"
    )
    file.write_text(source)
    METHODS.load_plugin(file)
    try:
        with bench_for("stumbling") as bench, pytest.raises(ConfigError, match=r"as it stands fails .*OSError"):
            baseline(bench, measure=False)
    finally:
        METHODS.forget_plugin(file)


@pytest.mark.slow
def test_the_command_lists_mutants_and_runs_none() -> None:
    line = [sys.executable, str(SCRIPT), "mean_fusion", "--list"]
    listed = subprocess.run(line, capture_output=True, text=True, check=False)
    assert listed.returncode == 0, listed.stdout + listed.stderr
    numbers = [line.split()[0] for line in listed.stdout.splitlines()]
    assert numbers == [str(number) for number in range(1, len(numbers) + 1)]
    assert len(numbers) >= 10
    assert "core/model.py, Model." in listed.stdout


def test_the_command_refuses_what_is_unknown() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "mean_fusio"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "mean_fusion" in done.stdout
