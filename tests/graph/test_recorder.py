import asyncio
import threading
from typing import Any

import pulumi
import pulumi_kubernetes as k8s
import pytest

from cli.graph.model import UNKNOWN, Graph, Resource
from cli.graph.monitor import DuplicateResource, UnansweredFunction
from cli.graph.recorder import record
from cli.graph.wire import REDACTED, is_secret, redact, redacted_inputs

BOTH = pytest.mark.parametrize("preview", [False, True], ids=["update", "preview"])


class Thing(pulumi.CustomResource):
    made: pulumi.Output[str]

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None, **inputs: Any) -> None:
        super().__init__("test:index:Thing", name, {"made": None, **inputs}, opts)


class Group(pulumi.ComponentResource):
    def __init__(self, name: str, size: int, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("test:index:Group", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        self.things = [Thing(f"{name}-{index}", child, index=index) for index in range(size)]
        self.register_outputs({"size": size, "token": pulumi.Output.secret("hush")})


def by_name(graph: Graph) -> dict[str, Resource]:
    return {resource.name: resource for resource in graph.resources}


@BOTH
def test_parents_and_component_outputs_are_recorded(preview: bool) -> None:
    graph = record(lambda: Group("g", 2) and None, "dev", preview=preview)
    shape = [(resource.type, resource.name, resource.parent, resource.custom) for resource in graph.resources]
    assert shape == [
        ("test:index:Group", "g", None, False),
        ("test:index:Thing", "g-0", "test:index:Group::g", True),
        ("test:index:Thing", "g-1", "test:index:Group::g", True),
    ]
    outputs = by_name(graph)["g"].outputs
    assert outputs["size"] == 2
    assert is_secret(outputs["token"])


@BOTH
def test_order_is_that_of_construction(preview: bool) -> None:
    async def late(name: str) -> str:
        for _ in range(20):
            await asyncio.sleep(0)
        return name

    def program() -> None:
        Thing("slow", value=pulumi.Output.from_input(late("x")))  # registered last, constructed first
        for name in ("c", "a", "b"):
            Thing(name)

    names = [resource.name for resource in record(program, "dev", preview=preview).resources]
    assert names == ["slow", "c", "a", "b"]


@BOTH
def test_duplicate_names_are_refused_with_both_parents(preview: bool) -> None:
    def program() -> None:
        Thing("x-0")
        Group("x", 1)

    with pytest.raises(DuplicateResource, match=r"named `x-0`: the first .*, the second") as caught:
        record(program, "dev", preview=preview)
    assert "under `test:index:Group::x`" in str(caught.value)
    assert "at the top of the stack" in str(caught.value)


def test_one_name_for_different_types_is_fine() -> None:
    def program() -> None:
        Thing("x")
        Group("x", 0)

    assert len(record(program, "dev").resources) == 2


@BOTH
def test_secrets_stay_wrapped_and_are_redacted(preview: bool) -> None:
    def program() -> None:
        Thing("x", plain="a", nested={"key": pulumi.Output.secret("hush")})

    inputs = by_name(record(program, "dev", preview=preview))["x"].inputs
    assert is_secret(inputs["nested"]["key"])
    assert "hush" in repr(inputs)
    assert "hush" not in repr(redact(inputs))
    assert redact(inputs)["plain"] == "a"


def test_kubernetes_secrets_are_redacted_although_the_sdk_sends_them_plain() -> None:
    def program() -> None:
        k8s.core.v1.Secret("s", metadata={"name": "s"}, string_data={"key": "hush"}, data={"more": "aHVzaA=="})

    secret = by_name(record(program, "dev"))["s"]
    shown = redacted_inputs(secret.inputs, secret.options)
    assert shown["stringData"] == shown["data"] == REDACTED
    assert shown["metadata"] == {"name": "s"}


def test_additional_secret_outputs_are_redacted() -> None:
    def program() -> None:
        Thing("x", pulumi.ResourceOptions(additional_secret_outputs=["key"]), key="hush")

    thing = by_name(record(program, "dev"))["x"]
    assert redacted_inputs(thing.inputs, thing.options) == {"key": REDACTED}


def test_provider_outputs_are_unknown_in_preview_only() -> None:
    def program() -> None:
        first = Thing("first")
        Thing("second", made_by=first.made, id_of=first.id)

    preview = by_name(record(program, "dev", preview=True))["second"]
    assert preview.inputs == {"made_by": UNKNOWN, "id_of": UNKNOWN}
    update = by_name(record(program, "dev", outputs={"test:index:Thing": lambda thing: {"made": "here"}}))["second"]
    assert set(update.inputs.values()) == {"here", "first-id"}
    assert preview.dependencies == update.dependencies == ("test:index:Thing::first",)


@BOTH
def test_numbers_are_integers_where_they_were(preview: bool) -> None:
    def program() -> None:
        Thing("x", whole=3, half=0.5, big=2**40, listed=[1, {"two": 2}], flag=True)

    inputs = by_name(record(program, "dev", preview=preview))["x"].inputs
    assert inputs == {"whole": 3, "half": 0.5, "big": 2**40, "listed": [1, {"two": 2}], "flag": True}
    assert isinstance(inputs["whole"], int)
    assert inputs["flag"] is True


@BOTH
def test_depends_on_a_component_means_its_children(preview: bool) -> None:
    def program() -> None:
        group = Group("g", 2)
        Thing("after", pulumi.ResourceOptions(depends_on=[group]))

    after = by_name(record(program, "dev", preview=preview))["after"]
    assert set(after.dependencies) >= {"test:index:Thing::g-0", "test:index:Thing::g-1"}
    assert not after.property_dependencies


@BOTH
def test_property_dependencies_name_the_property(preview: bool) -> None:
    def program() -> None:
        first = Thing("first", size=1)
        Thing("second", wants=first.id, other=1)

    second = by_name(record(program, "dev", preview=preview))["second"]
    assert second.property_dependencies == {"wants": ("test:index:Thing::first",)}


@BOTH
def test_options_that_differ_from_defaults_are_recorded(preview: bool) -> None:
    def program() -> None:
        provider = k8s.Provider("p", context="c")
        base = Thing("base")
        Thing(
            "x",
            pulumi.ResourceOptions(
                protect=True,
                retain_on_delete=True,
                ignore_changes=["a"],
                replace_on_changes=["b"],
                delete_before_replace=False,
                deleted_with=base,
                custom_timeouts=pulumi.CustomTimeouts(create="5m"),
                aliases=[pulumi.Alias(name="old")],
                additional_secret_outputs=["made"],
                import_="the-id",
            ),
        )
        k8s.core.v1.ConfigMap("cm", opts=pulumi.ResourceOptions(provider=provider))
        Group("g", 0, pulumi.ResourceOptions(providers=[provider]))

    resources = by_name(record(program, "dev", preview=preview))
    assert resources["base"].options == {}
    assert resources["x"].options == {
        "protect": True,
        "retainOnDelete": True,
        "ignoreChanges": ["a"],
        "replaceOnChanges": ["b"],
        "deleteBeforeReplace": False,
        "deletedWith": "test:index:Thing::base",
        "customTimeouts": {"create": "5m"},
        "aliases": [{"name": "old"}],
        "additionalSecretOutputs": ["made"],
        "import": "the-id",
    }
    assert resources["cm"].options["provider"] == "pulumi:providers:kubernetes::p"
    assert resources["g"].options["providers"] == {"kubernetes": "pulumi:providers:kubernetes::p"}


@BOTH
def test_reads_are_recorded_as_such(preview: bool) -> None:
    def program() -> None:
        k8s.core.v1.ConfigMap.get("found", "ns/found")

    found = by_name(record(program, "dev", preview=preview))["found"]
    assert found.type == "kubernetes:core/v1:ConfigMap"
    assert found.options["read"] == "ns/found"


@BOTH
def test_provider_functions_are_answered_or_named(preview: bool) -> None:
    def program() -> None:
        answer = pulumi.runtime.invoke("test:index:look", {"key": "k"}).value
        Thing("x", found=answer["value"])

    with pytest.raises(UnansweredFunction, match=r"`test:index:look`.*cannot be answered offline"):
        record(program, "dev", preview=preview)

    functions = {"test:index:look": lambda args: {"value": f"for {args['key']}"}}
    graph = record(program, "dev", preview=preview, functions=functions)
    assert by_name(graph)["x"].inputs == {"found": "for k"}


@BOTH
def test_methods_are_answered(preview: bool) -> None:
    def program() -> None:
        thing = Thing("x")
        pulumi.export("answer", pulumi.runtime.call("test:index:Thing/method", {"a": 1}, res=thing).apply(dict))

    functions = {"test:index:Thing/method": lambda args: {"a": args["a"]}}
    assert record(program, "dev", preview=preview, functions=functions).outputs == {"answer": {"a": 1}}


@BOTH
def test_program_errors_come_through(preview: bool) -> None:
    error = LookupError("mine")

    def program() -> None:
        Thing("x")
        raise error

    with pytest.raises(LookupError) as caught:
        record(program, "dev", preview=preview)
    assert caught.value is error


def test_errors_inside_apply_come_through() -> None:
    def program() -> None:
        def fail(_: object) -> None:
            raise LookupError("in apply")

        pulumi.export("x", Thing("x").id.apply(fail))

    with pytest.raises(LookupError, match="in apply"):
        record(program, "dev")


def test_recordings_do_not_leak_into_each_other() -> None:
    def failing() -> None:
        Group("g", 3)
        pulumi.export("left", "over")
        raise LookupError

    def program() -> None:
        value = pulumi.Config("project").get("key")
        pulumi.export("seen", [pulumi.get_stack(), pulumi.get_project(), value, pulumi.runtime.is_dry_run()])

    for index in range(3):
        with pytest.raises(LookupError):
            record(failing, "dev", config={"project:key": "leak"})
        config = {"project:key": str(index)} if index else {}
        graph = record(program, f"env-{index}", project="project", preview=bool(index % 2), config=config)
        assert graph.resources == ()
        seen = [f"env-{index}", "project", str(index) if index else None, bool(index % 2)]
        assert graph.outputs["seen"] == seen


def test_recordings_in_parallel_threads_are_separate() -> None:
    graphs: dict[str, Graph] = {}

    def one(name: str) -> None:
        graphs[name] = record(lambda: Group(name, 5) and None, name)

    threads = [threading.Thread(target=one, args=(f"e{index}",)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, graph in graphs.items():
        assert graph.environment == name
        assert [resource.name for resource in graph.resources] == [name, *(f"{name}-{index}" for index in range(5))]


async def test_recording_works_inside_a_running_event_loop() -> None:
    assert len(record(lambda: Group("g", 1) and None, "dev").resources) == 2


@BOTH
def test_async_programs_are_awaited(preview: bool) -> None:
    async def program() -> None:
        await asyncio.sleep(0)
        Thing("x")

    assert len(record(program, "dev", preview=preview).resources) == 1


def test_secret_config_reaches_the_program_as_a_secret() -> None:
    def program() -> None:
        Thing("x", key=pulumi.Config("penstock").require_secret("key"))

    config, keys = {"penstock:key": UNKNOWN}, frozenset({"penstock:key"})
    key = by_name(record(program, "dev", config=config, secret_keys=keys))["x"].inputs["key"]
    assert is_secret(key)
    assert key["value"] == UNKNOWN
