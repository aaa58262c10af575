"""Runs a Pulumi program against a recording monitor and returns what it registers.

Pulumi's runtime keeps settings, configuration and the root resource in context variables, with process-wide
defaults that leak from one run to the next. Each recording therefore runs in a thread of its own, which begins with
an empty context and its own event loop, and sets every one of those variables anew.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

import pulumi
from pulumi.runtime import settings, stack
from pulumi.runtime.config import set_all_config
from pulumi.runtime.mocks import MockEngine
from pulumi.runtime.proto import engine_pb2

from cli.graph.model import Graph, Resource
from cli.graph.monitor import STACK, Function, Outputs, RecordingMonitor

Program = Callable[[], Awaitable[None] | None]


def record(
    program: Program,
    environment: str,
    *,
    project: str = "penstock",
    preview: bool = False,
    config: Mapping[str, str] | None = None,
    secret_keys: frozenset[str] = frozenset(),
    functions: Mapping[str, Function] | None = None,
    outputs: Mapping[str, Outputs] | None = None,
) -> Graph:
    """Run `program` as the stack `environment` and return all that it registers.

    Args:
        program: what a stack's `__main__` would do; plain or async.
        environment: the stack's name.
        project: the project's name; configuration keys without a namespace belong to it.
        preview: as in `pulumi preview`: identifiers and what only a provider knows are unknown.
        config: `namespace:key` -> value as Pulumi passes it, i.e. strings, objects and arrays as JSON.
        secret_keys: keys of `config` whose values are secret.
        functions: answers to provider functions by token.
        outputs: what providers add to a resource's inputs, by resource type.

    Raises:
        DuplicateResource: two resources have one type and name.
        UnansweredFunction: a provider function was called that `functions` does not answer.
        Exception: whatever the program raised, unchanged.
    """
    engine = _Engine()
    monitor = RecordingMonitor(project, environment, preview=preview, functions=functions, outputs=outputs)
    order: list[str] = []

    def run() -> None:
        settings.ROOT.set(None)
        settings.Settings(
            project=project,
            stack=environment,
            monitor=monitor,
            engine=engine,
            dry_run=preview,
            organization="organization",
        )
        set_all_config(dict(config or {}), list(secret_keys))
        with asyncio.Runner() as runner:
            # After a failure Pulumi leaves tasks behind that nobody awaits; the first error is the one that is raised.
            runner.get_loop().set_exception_handler(lambda loop, context: None)
            runner.run(stack.run_in_stack(lambda: _observed(program, order)))

    _in_own_thread(run)
    return Graph(
        environment=environment,
        preview=preview,
        resources=_in_order(monitor, order),
        outputs=monitor.registered_outputs.get(STACK, {}),
        notes=tuple(engine.warnings),
    )


class _Engine(MockEngine):
    """Keeps what the program warns of (`pulumi.log.warn`), in its order."""

    def __init__(self) -> None:
        super().__init__(None)
        self.warnings: list[str] = []

    def Log(self, request: engine_pb2.LogRequest) -> None:
        if request.severity == engine_pb2.WARNING:
            self.warnings.append(request.message)
        else:
            super().Log(request)  # type: ignore[no-untyped-call]


def _observed(program: Program, order: list[str]) -> Awaitable[None] | None:
    """Run the program and note in `order` the key of each resource as it is constructed.

    Registrations arrive in an order that the scheduler decides; the order of construction is the program's own.
    """

    def note(args: pulumi.ResourceTransformationArgs) -> None:
        order.append(f"{args.type_}::{args.name}")

    stack.register_stack_transformation(note)
    return program()


def _in_order(monitor: RecordingMonitor, order: list[str]) -> tuple[Resource, ...]:
    rank = {key: position for position, key in enumerate(order)}
    keys = sorted(monitor.recorded, key=lambda key: (rank.get(key, len(rank)), key))
    return tuple(replace(monitor.recorded[key], outputs=monitor.registered_outputs.get(key, {})) for key in keys)


def _in_own_thread(run: Callable[[], None]) -> None:
    """Run in a fresh thread (hence a fresh context) and raise here what was raised there."""
    raised: list[BaseException] = []

    def guarded() -> None:
        try:
            run()
        except BaseException as error:  # noqa: BLE001 - carried over to the caller's thread
            raised.append(error)

    thread = threading.Thread(target=guarded, name="penstock-recorder", daemon=True)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]
