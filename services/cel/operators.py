"""Operators and macros of CEL as functions that make functions: of compiled parts, of the whole.

`&&`, `||`, `all` and `exists` do not fail where one side decides, in whichever order (CEL language definition, "Logical
Operators"); so does nothing else.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from services.cel import values
from services.cel.values import Failure

Env = list[Any]
"""[subject, budget, value of the outermost macro's variable, ...]."""

Run = Callable[[Env], Any]


def decided(parts: Sequence[Run], decisive: bool) -> Run:
    """Return `||` (decisive True) or `&&` (False) of `parts`."""

    def run(env: Env) -> bool:
        failure: Failure | None = None
        for part in parts:
            try:
                value: object = part(env)
            except Failure as error:
                failure = error
                continue
            if value is decisive:
                return decisive
            if type(value) is not bool:
                failure = Failure("`&&` and `||` need true or false")
        if failure is not None:
            raise failure
        return not decisive

    return run


def inverted(part: Run) -> Run:
    """Return `!part`."""

    def run(env: Env) -> bool:
        value = part(env)
        if type(value) is bool:
            return not value
        raise Failure("`!` needs true or false")

    return run


def chosen(condition: Run, first: Run, second: Run) -> Run:
    """Return `condition ? first : second`."""

    def run(env: Env) -> Any:
        value = condition(env)
        if value is not True and value is not False:
            raise Failure("`?` needs true or false")
        return first(env) if value else second(env)

    return run


def _any(over: Run, body: Run, slot: int) -> Run:
    return _quantified(over, body, slot, decisive=True)


def _all(over: Run, body: Run, slot: int) -> Run:
    return _quantified(over, body, slot, decisive=False)


def _quantified(over: Run, body: Run, slot: int, *, decisive: bool) -> Run:
    def run(env: Env) -> bool:
        failure: Failure | None = None
        for inner in _each(over(env), env, slot):
            try:
                value: object = body(inner)
            except Failure as error:
                if env[1].steps < 0:
                    raise
                failure = error
                continue
            if value is decisive:
                return decisive
            if type(value) is not bool:
                failure = Failure("a macro's condition needs to be true or false")
        if failure is not None:
            raise failure
        return not decisive

    return run


def _one(over: Run, body: Run, slot: int) -> Run:
    return lambda env: sum(_truth(body(inner)) for inner in _each(over(env), env, slot)) == 1


def _filter(over: Run, body: Run, slot: int) -> Run:
    return lambda env: [inner[slot] for inner in _each(over(env), env, slot) if _truth(body(inner))]


def _map(over: Run, body: Run, slot: int) -> Run:
    return lambda env: [body(inner) for inner in _each(over(env), env, slot)]


def _each(container: Any, env: Env, slot: int) -> Iterator[Env]:
    """Yield the environment for each element (for objects: each key). One list serves all: macros nest in order."""
    if type(container) is not list and not isinstance(container, Mapping):
        raise Failure("a macro needs a list or an object")
    budget = env[1]
    del env[slot:]
    env.append(None)
    for element in container:
        budget.take(1)
        env[slot] = element
        yield env


def _truth(value: Any) -> bool:
    if value is True or value is False:
        return bool(value)
    raise Failure("a macro's condition needs to be true or false")


MACROS: Mapping[str, Callable[[Run, Run, int], Run]] = {
    "all": _all,
    "exists": _any,
    "exists_one": _one,
    "filter": _filter,
    "map": _map,
}


def _arithmetic(sign: str) -> Callable[[Run, Run], Run]:
    compute = values.arithmetic(sign)
    return lambda a, b: lambda env: compute(a(env), b(env))


OPERATORS: Mapping[str, Callable[..., Run]] = {
    "||": lambda *parts: decided(parts, True),
    "&&": lambda *parts: decided(parts, False),
    "!": inverted,
    "? :": chosen,
    "-_": lambda a: lambda env: values.negative(a(env)),
    "[]": lambda of, key: lambda env: values.index(of(env), key(env)),
    "==": lambda a, b: lambda env: values.equal(a(env), b(env)),
    "!=": lambda a, b: lambda env: not values.equal(a(env), b(env)),
    "<": lambda a, b: lambda env: values.less(a(env), b(env)),
    ">": lambda a, b: lambda env: values.less(b(env), a(env)),
    "<=": lambda a, b: lambda env: values.at_most(a(env), b(env)),
    ">=": lambda a, b: lambda env: values.at_most(b(env), a(env)),
    "in": lambda item, of: lambda env: values.member(item(env), of(env), env[1]),
    "+": lambda a, b: lambda env: values.add(a(env), b(env), env[1]),
    **{sign: _arithmetic(sign) for sign in "-*/%"},
}
"""Sign -> what makes the operator of its compiled operands."""
