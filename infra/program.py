"""The program: settings, then components, then exports. Wiring only.

An environment is one stack, or two: `<env>-platform` and `<env>-gateway`, by the setting `stacks`. Both read the same
settings; each checks all of them and declares its part.
"""

from collections.abc import Mapping
from typing import Any

import pulumi
from penstock import ConfigError, ConfigErrors, InferenceCluster

from infra.parts import gateway, platform
from infra.plan import Plan, load
from infra.settings import GATEWAY, PLATFORM, PREFIX, Settings, read


def main() -> None:
    """Read `pulumi.Config`, check it, declare everything of this stack and export the outputs.

    Raises:
        penstock.ConfigErrors: everything that is wrong with the configuration, before anything is registered.
    """
    settings, plan = load(read())
    for name, value in build(settings, plan, pulumi.get_stack()).items():
        pulumi.export(name, value)


def stacks(environment: str, config: Mapping[str, str]) -> Mapping[str, str]:
    """Return the stack of each part of an environment, in the order of updates; the part of a single stack is "".

    Args:
        environment: names `Pulumi.<environment>.yaml`.
        config: its configuration, `namespace:key` -> value.
    """
    if config.get(f"{PREFIX}stacks") == "two":
        return {part: f"{environment}-{part}" for part in (PLATFORM, GATEWAY)}
    return {"": environment}


def build(settings: Settings, plan: Plan, stack: str) -> Mapping[str, Any]:
    """Declare the components of a stack and return its outputs."""
    if settings["stacks"] == "one":
        made = platform.declare(plan.platform)
        if "cluster" not in settings:
            made = platform.Platform(platform.existing(settings), made.outputs, made.needed)
        return gateway.declare(plan, made)
    environment, _, part = stack.rpartition("-")
    if not environment or part not in (PLATFORM, GATEWAY):
        expected = f"a stack called `<env>-{PLATFORM}` or `<env>-{GATEWAY}`, since `stacks` is `two`"
        fix = f"Select it with `--stack`, and the settings with `--config-file Pulumi.{stack}.yaml`"
        raise ConfigErrors([ConfigError("stack", stack, expected, fix)])
    if part == PLATFORM:
        return platform.declare(plan.platform).outputs
    other = f"{pulumi.get_organization()}/{pulumi.get_project()}/{environment}-{PLATFORM}"
    cluster = plan.platform.cluster
    cluster_id = InferenceCluster.id_of(cluster.args) if cluster else ""  # type: ignore[arg-type]
    return gateway.declare(plan, platform.reference(cluster_id, other))
