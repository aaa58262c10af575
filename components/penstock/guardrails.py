"""The component `Guardrails`: prompts and answers are screened, by whom the mode says."""

from typing import NotRequired, TypedDict

import pulumi

from . import _model_armor
from ._apply import child_options
from ._callout import declare
from ._shape import conform
from .callout_workload import CalloutWorkload
from .errors import raise_if
from .manifests import guardrails as manifests


class SensitiveData(TypedDict):
    """The filter of sensitive data: basic, or by templates of Sensitive Data Protection."""

    basic: NotRequired[bool]
    """Look for Model Armor's fixed list of types, e.g. credit card numbers and credentials."""
    inspect_template: NotRequired[str]
    """Full name of an inspect template, instead of `basic`."""
    deidentify_template: NotRequired[str]
    """Full name of a de-identify template; findings are then replaced instead of refused. Needs `inspect_template`."""
    info_types: NotRequired[dict[str, str]]
    """`block` or `redact` by type, e.g. `EMAIL_ADDRESS: redact`. Built-in engine only."""


class GuardrailFilters(TypedDict):
    """What is looked for, in Model Armor's vocabulary. A filter that is not named is off."""

    responsible_ai: NotRequired[dict[str, str]]
    """`SEXUALLY_EXPLICIT`, `HATE_SPEECH`, `HARASSMENT`, `DANGEROUS`, each with its confidence level."""
    prompt_injection: NotRequired[str]
    """Confidence level: `LOW_AND_ABOVE`, `MEDIUM_AND_ABOVE` or `HIGH`."""
    malicious_links: NotRequired[bool]
    """Look for links to known malicious sites."""
    sensitive_data: NotRequired[SensitiveData]
    """Look for personal data and secrets."""


class GuardrailTemplate(TypedDict):
    """Filters, and the models they apply to."""

    name: str
    """Name of the template, a DNS label."""
    filters: GuardrailFilters
    """What is looked for."""
    models: NotRequired[list[str]]
    """Models by the names that clients use. Default: all that no other template names; one template has to be that."""
    enforcement: NotRequired[str]
    """`INSPECT_AND_BLOCK` or `INSPECT_ONLY`. Default `INSPECT_AND_BLOCK`."""
    prompt_error_code: NotRequired[int]
    """Status of a refused prompt, 400 to 599. Default the screener's."""
    prompt_error_message: NotRequired[str]
    """Message of a refused prompt. Default the screener's."""
    answer_error_code: NotRequired[int]
    """Status of a refused answer, 400 to 599. Default the screener's."""
    answer_error_message: NotRequired[str]
    """Message of a refused answer. Default the screener's."""
    filter_version: NotRequired[str]
    """`stable` or `latest` filters. Default `stable`."""
    log_content: NotRequired[bool]
    """Log each verdict with the text it is about. Default false: prompts would be in the project's logs."""
    multi_language: NotRequired[bool]
    """Detect languages other than English. Default true."""


class FloorSetting(TypedDict):
    """The least that every template of the project has to look for, and what Vertex AI screens by."""

    filters: GuardrailFilters
    """What is looked for at least."""
    enforce: NotRequired[bool]
    """Refuse templates that fall below it. Default true."""
    multi_language: NotRequired[bool]
    """Detect languages other than English. Default true."""


class NemoServer(TypedDict):
    """A NeMo Guardrails server."""

    url: str
    """Address, `http://SERVICE.NAMESPACE.svc:PORT` or `https://...`."""
    config_id: str
    """Guardrails configuration of the server to use."""
    timeout_ms: NotRequired[int]
    """Milliseconds for one call, 10 to 60,000. Default 800."""


class GuardrailsArgs(TypedDict):
    """Arguments of `Guardrails`."""

    mode: str
    """Who screens.

    `model_armor`: Model Armor, called by the load balancer itself. `bundled`: Penstock's service. `nemo`: Penstock's
    service asks a NeMo Guardrails server. `replica`: whatever runs inside of the model's own server, e.g. a guard
    model's plugin; the chain has nothing to do with it and the stack only records that. `off`: nobody.
    """
    namespace: str
    """Namespace of the Gateway."""
    templates: NotRequired[list[GuardrailTemplate]]
    """Filters by model; modes `model_armor` and `bundled`."""
    streaming: NotRequired[str]
    """What happens to streamed answers in mode `model_armor`, which skips them. To be decided there, no default.

    `refuse`: requests with `stream: true` get 400, by a callout of ours in front. `callout`: a callout of ours screens
    the streams over Model Armor's REST API. `unscreened`: streamed answers pass without a look; the prompts of these
    requests are still screened.
    """
    backends: NotRequired[list[str]]
    """Who decides in mode `bundled`, in this order: `builtin`, `model_armor` (its REST API). Default `builtin`."""
    nemo: NotRequired[NemoServer]
    """The server of mode `nemo`."""
    floor: NotRequired[FloorSetting]
    """Floor setting of the project; wherever Model Armor is used. One per project."""
    served_by: NotRequired[str]
    """`own`: a workload `guardrails`. `api-management`: one workload, one callout with bundled API management, which
    gets these same arguments: two callouts in full duplex in a row may lose answers. Default `own`."""
    fail_open: NotRequired[bool]
    """Whether requests go on unscreened when the screener cannot be asked. Default false."""
    timeout_ms: NotRequired[int]
    """Milliseconds per message, 10 to 10,000. Default 1,000."""
    workload: NotRequired[CalloutWorkload]
    """Pods of the workload `guardrails`."""
    name: NotRequired[str]
    """Physical base name of cloud resources, e.g. `penstock-prod`. Needed where Model Armor is used, as are project,
    project_number and region."""
    project: NotRequired[str]
    """Project id of templates and Gateway."""
    project_number: NotRequired[str]
    """Number of the project, which the load balancer's service agent is named after."""
    region: NotRequired[str]
    """Region of templates and Gateway."""
    labels: NotRequired[dict[str, str]]
    """Further labels of cloud resources."""
    conditions: NotRequired[bool]
    """Limit Model Armor's roles to the templates of this region by IAM condition. Default false: IAM's "Resource
    attributes for IAM Conditions" does not list Model Armor, and for services that it does not list no such condition
    holds: every request would be refused."""
    image: NotRequired[pulumi.Input[str]]
    """Image of Penstock's services, pinned by tag or digest; for the workload `guardrails`."""


class Guardrails(pulumi.ComponentResource):
    """Model Armor's templates and roles, or the workload `guardrails`, or nothing, by mode."""

    mode: pulumi.Output[str]
    """Who screens."""
    streams_screened: pulumi.Output[bool]
    """Whether streamed answers are screened, as far as this stack knows."""

    SERVICE_NAME = manifests.NAME
    SERVICE_PORT = manifests.GRPC_PORT
    problems = staticmethod(manifests.problems)
    """Yields every reason why arguments are refused; a program can check all components before it makes one."""
    callouts = staticmethod(manifests.callouts)
    """Returns the entries of the traffic chain, in their order, by the arguments alone."""
    calls_google_apis = staticmethod(manifests.calls_google_apis)
    """Tells whether the workload calls Google APIs, and so needs the way out to them."""

    def __init__(self, name: str, args: GuardrailsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        """Register the component. Raises `ConfigErrors` before anything is registered."""
        args = conform(GuardrailsArgs, args, name)
        raise_if(manifests.problems(args, name))
        super().__init__("penstock:index:Guardrails", name, None, opts)

        if manifests.uses_model_armor(args):
            _model_armor.declare(name, args, child_options(self))
        if manifests.has_workload(args):
            stream_timeout_s = args.get("workload", {}).get("stream_timeout_s", manifests.STREAM_TIMEOUT_S)
            declare(name, manifests.callout(args), stream_timeout_s, self)
        if args.get("streaming") == manifests.UNSCREENED:
            pulumi.log.warn("Streamed answers pass unscreened: Model Armor skips them, by `streaming`", self)

        self.mode = pulumi.Output.from_input(args["mode"])
        self.streams_screened = pulumi.Output.from_input(manifests.streams_screened(args))
        self.register_outputs({"mode": self.mode, "streamsScreened": self.streams_screened})
