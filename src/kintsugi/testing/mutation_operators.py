"""What a mutation does to a piece of a method's code: small faults that a person could make, on the syntax tree.

The semantic ones change what a method means (a gradient cut, a live teacher in place of a frozen one, a loss left out);
the others are the usual ones of arithmetic and comparison (DeMillo et al., "Hints on test data selection", Computer, 1978).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

Replacement: TypeAlias = "ast.expr | ast.stmt | list[ast.stmt]"

EPSILON = 1e-4  # smaller constants only keep a division or a logarithm finite
PLAIN: Mapping[str, object] = MappingProxyType(  # fields of a stage, and their values where a stage asks for nothing
    {"train": ("*",), "trainable": ("*",), "view": "natural", "rows": "all", "side": "all"}
)
STAGES_OF_OTHERS = (
    "adjust_stages",
    "plan",
)  # hooks of a strategy that change the stages of its host, of today and of before
NO_GRADIENT = ("torch.no_grad()", "torch.inference_mode()")
PAIRED = re.compile(  # functions that compare their first argument with their second
    r"(?:^|_)(?:mse|l1|kl|nce|info_?nce|mmd|loss)(?:_|$)|"
    r"soft_target|divergence|distance|entropy|contrast|cosine|mutual|hinge|huber|triplet|coral|wasserstein"
)
ONE_WAY = re.compile(
    r"(?:^|_)kl(?:_|$)|soft_target|divergence|mutual|entropy"
)  # … and are another number the other way round
NOT_TENSORS = frozenset({"batch", "side", "data", "schema", "features", "fused", "pipeline", "stage", "model", "self"})
SWAPPED_BINARY: Mapping[type[ast.operator], type[ast.operator]] = MappingProxyType(
    {
        ast.Add: ast.Sub,
        ast.Sub: ast.Add,
        ast.Mult: ast.Div,
        ast.Div: ast.Mult,
        ast.BitAnd: ast.BitOr,
        ast.BitOr: ast.BitAnd,
    }
)
SWAPPED_COMPARISON: Mapping[type[ast.cmpop], type[ast.cmpop]] = MappingProxyType(
    {
        ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
        ast.In: ast.NotIn, ast.NotIn: ast.In,
    }
)  # fmt: skip


@dataclass(frozen=True)
class Change:
    """What one operator does in one place: ``new`` comes in the place of the node ``old``.

    gone: the piece of ``old`` that ``new`` lacks, where that says more than both do.
    """

    operator: str
    old: ast.AST
    new: Replacement
    gone: ast.AST | None = None


@dataclass(frozen=True)
class Place:
    """Where a node stands, and what is known of that place.

    function: name with the names of what it stands in, such as ``MMIN.step``.
    node: of the function. frozen: name of a frozen copy in this class -> the module that it was copied from.
    carries_gradient: names of local variables, and ``return``, that carry a gradient when the method is trained; None:
        nobody looked, and each may. losses: names of local dictionaries and lists of losses.
    """

    function: str
    node: ast.FunctionDef
    frozen: Mapping[str, ast.expr] = field(default_factory=dict)
    carries_gradient: frozenset[str] | None = None
    losses: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """Of the function alone."""
        return self.node.name

    def may_carry_gradient(self, name: str) -> bool:
        """Does a local variable (or ``return``) carry one in training?"""
        return self.carries_gradient is None or name in self.carries_gradient


Operator: TypeAlias = Callable[[ast.AST, Place], Iterator[Change]]


# small pieces of syntax -------------------------------------------------------------------------------------------------
def called(node: ast.AST) -> str:
    """The last word of what is called: ``mse`` of ``losses.mse(a, b)``; "" where nothing is called."""
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _method(value: ast.expr, name: str, *args: ast.expr) -> ast.Call:
    return ast.Call(ast.Attribute(value, name, ast.Load()), list(args), [])


def _detached(value: ast.expr) -> ast.Call:
    return _method(value, "detach")


def _doubled(value: ast.expr) -> ast.BinOp:
    return ast.BinOp(ast.Constant(2), ast.Mult(), value)


def _rolled(value: ast.expr) -> ast.Call:
    return _method(value, "roll", ast.Constant(1), ast.Constant(0))


def _all_but_last(values: ast.expr) -> ast.Subscript:
    listed = ast.Call(ast.Name("list", ast.Load()), [values], [])
    return ast.Subscript(listed, ast.Slice(None, ast.UnaryOp(ast.USub(), ast.Constant(1)), None), ast.Load())


def _with(node: ast.Call, **fields: object) -> ast.Call:
    changed = {"func": node.func, "args": list(node.args), "keywords": list(node.keywords), **fields}
    return ast.Call(**changed)  # type: ignore[arg-type]


def _is_plain(value: ast.expr, plain: object) -> bool:
    try:
        literal: object = ast.literal_eval(value)
    except ValueError:
        return False
    return literal == plain


# what changes the meaning -------------------------------------------------------------------------------------------------
def without_detach(node: ast.AST, place: Place) -> Iterator[Change]:
    """``x.detach()`` -> ``x``: a gradient flows where none should."""
    if (
        called(node) == "detach"
        and isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and not node.args
    ):
        yield Change("detach dropped", node, node.func.value)


def without_no_grad(node: ast.AST, place: Place) -> Iterator[Change]:
    """``with torch.no_grad():`` goes, its body stays."""
    if isinstance(node, ast.With) and all(ast.unparse(item.context_expr) in NO_GRADIENT for item in node.items):
        yield Change("no_grad dropped", node, list(node.body))


def without_freezing(node: ast.AST, place: Place) -> Iterator[Change]:
    """``module.requires_grad_(False)`` goes."""
    if isinstance(node, ast.Expr) and called(node.value) == "requires_grad_":
        assert isinstance(node.value, ast.Call)
        if node.value.args and _is_plain(node.value.args[0], False):
            yield Change("freezing dropped", node, ast.Pass())


def without_evaluation_mode(node: ast.AST, place: Place) -> Iterator[Change]:
    """``teacher.eval()(batch)`` -> ``teacher(batch)``: whoever is asked is in training mode."""
    if called(node) == "eval" and isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not node.args:
        yield Change("evaluation mode dropped", node, node.func.value)


def live_module(node: ast.AST, place: Place) -> Iterator[Change]:
    """A frozen copy is no copy, or is not the one that is asked."""
    name = called(node)
    if name == "deepcopy" and isinstance(node, ast.Call) and len(node.args) == 1:
        yield Change("copy dropped", node, node.args[0])
    elif isinstance(node, ast.Expr) and called(node.value) == "keep_frozen":
        call = node.value
        assert isinstance(call, ast.Call)
        if len(call.args) >= 2:
            own = ast.Attribute(ast.Name("self", ast.Load()), "__dict__", ast.Load())
            place_of_copy = ast.Subscript(own, call.args[0], ast.Store())
            yield Change("copy dropped", node, ast.Assign([place_of_copy], call.args[1], lineno=node.lineno))
    elif name == "get_submodule" and isinstance(node, ast.Call) and node.args:
        wanted = str(getattr(node.args[0], "value", ""))
        if wanted in place.frozen:
            yield Change("live module", node, place.frozen[wanted])
    elif isinstance(node, ast.Attribute) and node.attr in place.frozen and ast.unparse(node) == f"self.{node.attr}":
        yield Change("live module", node, place.frozen[node.attr])


def detached_return(node: ast.AST, place: Place) -> Iterator[Change]:
    """``return x`` -> ``return x.detach()``: nobody learns through this function."""
    if not isinstance(node, ast.Return) or node.value is None or place.node.returns is None:
        return
    tensor = ast.unparse(place.node.returns).strip("'\"") in ("Tensor", "torch.Tensor")
    if tensor and place.may_carry_gradient("return") and called(node.value) != "detach":
        yield Change("answer detached", node.value, _detached(node.value))


def detached_argument(node: ast.AST, place: Place) -> Iterator[Change]:
    """``self.decoder(z)`` -> ``self.decoder(z.detach())``: what made the argument does not learn from this use."""
    if not isinstance(node, ast.Call) or not ast.unparse(node.func).startswith("self."):
        return
    kinds = {a.arg: ast.unparse(a.annotation) for a in place.node.args.args if a.annotation is not None}
    for argument in node.args:
        named = isinstance(argument, ast.Name) and argument.id not in NOT_TENSORS
        if named and isinstance(argument, ast.Name):
            named = kinds.get(argument.id, "Tensor") == "Tensor" and place.may_carry_gradient(argument.id)
        if named or called(argument) in ("pooled", "flat"):
            yield Change("argument detached", argument, _detached(argument))


def target_rolled(node: ast.AST, place: Place) -> Iterator[Change]:
    """The second argument of a distance, or the output of the task's loss, belongs to the row before."""
    if not isinstance(node, ast.Call):
        return
    if ast.unparse(node.func).endswith("task.loss") and node.args:
        yield Change("rows rolled", node.args[0], _rolled(node.args[0]))
    elif PAIRED.search(called(node)) and len(node.args) >= 2:
        target = node.args[1]
        if not isinstance(target, ast.Constant | ast.Starred | ast.Tuple) and _may_be_tensor(target):
            yield Change("target rolled", target, _rolled(target))


def _may_be_tensor(node: ast.expr) -> bool:
    return not (isinstance(node, ast.Name) and node.id in NOT_TENSORS)


def arguments_swapped(node: ast.AST, place: Place) -> Iterator[Change]:
    """A divergence the other way round."""
    if isinstance(node, ast.Call) and ONE_WAY.search(called(node)) and len(node.args) >= 2:
        first, second, *rest = node.args
        if not isinstance(first, ast.Starred) and not isinstance(second, ast.Starred) and _may_be_tensor(second):
            yield Change("arguments swapped", node, _with(node, args=[second, first, *rest]))


def loss_changed(node: ast.AST, place: Place) -> Iterator[Change]:
    """A term of the objective away, doubled, or without a gradient."""
    if isinstance(node, ast.Dict) and _is_of_losses(node, place) and len(node.values) > 1:
        for i, value in enumerate(node.values):
            if node.keys[i] is not None:
                others = [j for j in range(len(node.values)) if j != i]
                without = ast.Dict([node.keys[j] for j in others], [node.values[j] for j in others])
                term = ast.Dict([node.keys[i]], [value])
                yield Change("loss dropped", node, without, gone=term)
                yield from _loss_values(value)
    elif called(node) == "plus" and isinstance(node, ast.Call):
        for keyword in node.keywords:
            rest = [other for other in node.keywords if other is not keyword]
            yield Change("loss dropped", node, _with(node, keywords=rest), gone=keyword)
            yield from _loss_values(keyword.value)
    elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
        if getattr(node.targets[0].value, "id", "") in place.losses:
            yield Change("loss dropped", node, ast.Pass())
            yield from _loss_values(node.value)
    elif isinstance(node, ast.Expr) and called(node.value) == "append" and isinstance(node.value, ast.Call):
        owner = node.value.func.value if isinstance(node.value.func, ast.Attribute) else None
        if getattr(owner, "id", "") in place.losses and node.value.args:
            yield Change("loss dropped", node, ast.Pass())
            yield from _loss_values(node.value.args[0])


def _loss_values(value: ast.expr) -> Iterator[Change]:
    yield Change("loss doubled", value, _doubled(value))
    yield Change("loss detached", value, _detached(value))


def _is_of_losses(node: ast.Dict, place: Place) -> bool:
    for statement in ast.walk(place.node):
        if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is node:
            target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
            return getattr(target, "id", "") in place.losses
        if called(statement) == "Step" and isinstance(statement, ast.Call) and node in statement.args[:1]:
            return True
    return False


def loss_names(function: ast.FunctionDef) -> frozenset[str]:
    """Local variables that hold losses: by name, or since a step is made of them."""
    names = {"losses", "terms"}
    for node in ast.walk(function):
        if called(node) == "Step" and isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Name):
            names.add(node.args[0].id)
    return frozenset(names)


def other_rows(node: ast.AST, place: Place) -> Iterator[Change]:
    """Validation rows in place of training rows, or the other way round."""
    if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "data" and node.attr in ("train", "val"):
        other = "val" if node.attr == "train" else "train"
        yield Change("other rows", node, ast.Attribute(node.value, other, node.ctx))


def graph_dropped(node: ast.AST, place: Place) -> Iterator[Change]:
    """A gradient of a gradient, without the graph of the inner one."""
    if isinstance(node, ast.Call):
        for keyword in node.keywords:
            if keyword.arg in ("create_graph", "second_order") and not _is_plain(keyword.value, False):
                yield Change("graph dropped", keyword.value, ast.Constant(False))


def loop_cut(node: ast.AST, place: Place) -> Iterator[Change]:
    """The last of what a loop goes over is never seen."""
    iterated: list[ast.expr] = []
    if isinstance(node, ast.For):
        iterated = [node.iter]
    elif isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        iterated = [generator.iter for generator in node.generators]
    for values in iterated:
        yield Change("loop cut", values, _all_but_last(values))


def stage_changed(node: ast.AST, place: Place) -> Iterator[Change]:
    """A stage that trains everything, sees all rows, has its natural view, or is not there."""
    name = called(node)
    if isinstance(node, ast.Call) and (name == "Stage" or (name == "replace" and place.name in STAGES_OF_OTHERS)):
        for keyword in node.keywords:
            field_name = keyword.arg or ""
            if field_name in PLAIN and not _is_plain(keyword.value, PLAIN[field_name]):
                plain = ast.parse(repr(PLAIN[field_name]), mode="eval")
                assert isinstance(plain, ast.Expression)
                yield Change(f"stage plain {field_name}", keyword.value, plain.body)
    elif isinstance(node, ast.List) and place.name == "stages" and len(node.elts) > 1:
        for stage in node.elts:
            rest = [element for element in node.elts if element is not stage]
            yield Change("stage dropped", node, ast.List(rest, ast.Load()), gone=stage)


# arithmetic ---------------------------------------------------------------------------------------------------------------
def binary_swapped(node: ast.AST, place: Place) -> Iterator[Change]:
    """``+`` and ``-``, ``*`` and ``/``, ``&`` and ``|``; ``1 - x`` -> ``x``; a power away."""
    if isinstance(node, ast.AugAssign) and type(node.op) in SWAPPED_BINARY and not _holds_text_or_list(node.value):
        other = SWAPPED_BINARY[type(node.op)]()
        yield Change("arithmetic", node, ast.AugAssign(node.target, other, node.value))
    if not isinstance(node, ast.BinOp) or _holds_text_or_list(node.left) or _holds_text_or_list(node.right):
        return
    if isinstance(node.op, ast.Sub) and isinstance(node.left, ast.Constant) and node.left.value == 1:
        yield Change("complement", node, node.right)
    elif isinstance(node.op, ast.Pow) and isinstance(node.right, ast.Constant):
        yield Change("power dropped", node, node.left)
    elif type(node.op) in SWAPPED_BINARY:
        yield Change("arithmetic", node, ast.BinOp(node.left, SWAPPED_BINARY[type(node.op)](), node.right))


def _holds_text_or_list(node: ast.expr) -> bool:
    if isinstance(node, ast.List | ast.Tuple | ast.ListComp | ast.JoinedStr):
        return True
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def condition_changed(node: ast.AST, place: Place) -> Iterator[Change]:
    """A comparison or a condition the other way round; ``and`` for ``or``."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in SWAPPED_COMPARISON:
        other = SWAPPED_COMPARISON[type(node.ops[0])]()
        yield Change("comparison", node, ast.Compare(node.left, [other], node.comparators))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.Invert):
        yield Change("negation dropped", node, node.operand)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
        yield Change("sign dropped", node, node.operand)
    elif isinstance(node, ast.BoolOp):
        yield Change("and, or", node, ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values))
    elif isinstance(node, ast.If | ast.IfExp | ast.While) and not isinstance(node.test, ast.Compare | ast.UnaryOp):
        yield Change("condition", node.test, ast.UnaryOp(ast.Not(), node.test))


def axis_changed(node: ast.AST, place: Place) -> Iterator[Change]:
    """A softmax over rows."""
    if isinstance(node, ast.Call) and called(node) in ("softmax", "log_softmax"):
        for value in [*node.args, *(k.value for k in node.keywords if k.arg == "dim")]:
            if _is_plain(value, 1) or _is_plain(value, -1):
                yield Change("axis", value, ast.Constant(0))


def constant_doubled(node: ast.AST, place: Place) -> Iterator[Change]:
    """A number with a point, from 1e-4 up, twice as large."""
    if isinstance(node, ast.Constant) and type(node.value) is float and abs(node.value) >= EPSILON:
        yield Change("constant", node, ast.Constant(2 * node.value))


SEMANTIC: tuple[Operator, ...] = (
    without_detach, without_no_grad, without_freezing, without_evaluation_mode, live_module, detached_return,
    detached_argument, target_rolled, arguments_swapped, loss_changed, other_rows, graph_dropped,
    loop_cut, stage_changed,
)  # fmt: skip
ARITHMETIC: tuple[Operator, ...] = (binary_swapped, condition_changed, axis_changed, constant_doubled)
