"""API management as a service: the filter, and everything beside requests that it needs."""

import argparse
import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from services.apimgmt import chain, declared, keys, template_rules
from services.apimgmt.accounting import Accounting
from services.apimgmt.chain import Chains
from services.apimgmt.directory import Directory
from services.apimgmt.domain import TemplateRule
from services.apimgmt.kvm import KEY_VARIABLE, KvmError, Sealer
from services.apimgmt.learning import Learning
from services.apimgmt.ledger import export
from services.apimgmt.management import Management, read_admin_token
from services.apimgmt.metrics import Metrics
from services.apimgmt.pipeline import ApiManagement, Observer
from services.apimgmt.policies.api import Tools
from services.apimgmt.recording import Recorder
from services.apimgmt.settings import ExportTarget, Settings
from services.apimgmt.store import open_store
from services.apimgmt.store.api import Store, StoreError
from services.apimgmt.telemetry.spans import Spans
from services.apimgmt.usage.estimator import Estimator
from services.apimgmt.usage.metrics import EstimatorMetrics
from services.extproc.api import Filter
from services.extproc.config import ConfigError, Problem, load_config
from services.extproc.limits import Limits
from services.extproc.service import Service

PREVIEW_S = 30.0
"""How long the store may take to tell what a changed config file would do, seconds."""

PRUNE_S = 3600.0
"""Time between two looks for ledger records that are past their retention, seconds."""

logger = logging.getLogger("penstock.apimgmt")

_NO_RULES: Mapping[str, TemplateRule] = MappingProxyType({})


class ApiManagementService(Service):
    """Ready when the documents have been read, and while the store answers.

    A changed config file is compared with the store before it is taken up, so that it is refused as a whole or not at
    all. Store, lease and body cap of a new file take effect at the next start.
    """

    store: Store
    directory: Directory
    chains: Chains
    accounting: Accounting

    def __init__(self, flags: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> None:
        """Read the secrets. Raises ConfigError."""
        super().__init__()
        self.files = (flags.config_file,)
        self._flags, self._environ = flags, environ
        self._pepper, self._token = keys.read_pepper(environ), read_admin_token(environ)
        self._sealer = _sealer(environ)
        self._guardrails = _guardrails(flags.guardrails_file) if flags.guardrails_file else ()
        self._metrics, self._export_metrics = Metrics(), export.ExportMetrics()
        self._target: ExportTarget | None = None
        self._exporting: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._changing = asyncio.Lock()
        self._management: Management | None = None
        self._spans: Spans | None = None
        self._recorder: Recorder | None = None
        self._settings: Settings

    # configuration

    def load(self) -> Settings:
        """Read the settings, and compare them with the store once that is open. Raises ConfigError."""
        settings = load_config(self.files[0], Settings)
        _raise(self.files[0], self._problems(settings) if self._loop else _problems(settings, None))
        if self._loop is not None:
            preview = declared.preview(self.store, settings, int(time.time()))
            try:
                asyncio.run_coroutine_threadsafe(preview, self._loop).result(PREVIEW_S)
            except (StoreError, TimeoutError) as error:
                problem = Problem("", "", f"cannot be compared with the store: {error}", "see to the store")
                raise ConfigError(str(self.files[0]), [problem]) from None
        return settings

    def _problems(self, settings: Settings) -> list[Problem]:
        return _problems(settings, self._tools, self.directory.snapshot.template_rules)

    def apply(self, config: Settings) -> None:
        """Serve by `config` from now on."""
        self._settings = config
        self.limits = Limits(max_body_bytes=config.max_body_bytes)
        if self._loop is not None:
            self._background(self._take_up(config))

    async def _take_up(self, settings: Settings) -> None:
        try:
            await declared.apply(self.store, settings, int(time.time()))
            await self.directory.refresh()
            await self._compile()
        except (ConfigError, StoreError) as error:
            logger.error("a changed config could not be taken up", extra={"error": str(error)})
        self._export(settings.ledger.export)
        if self._management is not None:
            self._management.use(settings)

    # life

    async def start(self) -> None:
        """Open the store, bring it to what is declared, begin to serve. Raises ConfigError."""
        settings = self._settings
        try:
            self.store = open_store(settings.store, self._environ)
            await self.store.open()
        except StoreError as error:
            raise ConfigError(
                "store", [Problem("store", "", str(error), "see to the store, then start again")]
            ) from None
        self.directory = Directory(self.store, self._pepper)
        self._tools = Tools(self.store, self._value, self._background, {"directory": self.directory})
        await declared.apply(self.store, settings, int(time.time()))
        await self.directory.start()
        _raise(self.files[0], self._problems(settings))
        estimator = Estimator(settings.estimation)
        self._tools.extras["estimator"] = estimator
        self._estimates = EstimatorMetrics(estimator)
        self._learning = Learning(self.store, estimator)
        await self._learning.read()
        self.chains = Chains(self._tools, self._metrics)
        self.accounting = Accounting(self.store, self._metrics, settings.lease_seconds)
        await self.accounting.start()
        await self._compile()
        self.directory.on_change(lambda: self._background(self._compile()))
        observers = self._observers(settings)
        self.filters = [
            ApiManagement(self.chains, self.accounting, estimator, self._metrics, observers),
            *self._guardrails,
        ]
        self._loop = asyncio.get_running_loop()
        self._background(self._learning.run())
        self._export(settings.ledger.export)
        self._background(self._prune())
        self._management = await Management.start(
            self._flags, settings, self._tools, self._pepper, self._sealer.seal, self._token
        )

    def _observers(self, settings: Settings) -> list[Observer]:
        """Begin to trace and to record, as far as the settings ask for it."""
        found: list[Observer] = []
        if settings.tracing is not None:
            self._spans = Spans(settings.tracing)
            found.append(self._spans.observe)
        if settings.recording is not None:
            recorder = Recorder(settings.recording)
            try:
                recorder.start()
            except OSError as error:
                text = f"cannot be written: {error.strerror or error}"
                problem = Problem("recording.path", settings.recording.path, text, "choose another file")
                raise ConfigError(str(self.files[0]), [problem]) from None
            self._recorder = recorder
            found.append(recorder.observe)
        return found

    async def stop(self) -> None:
        """End all work, the books last: what requests left is written before the store is closed."""
        if self._loop is None:
            return
        if self._management is not None:
            await self._management.stop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.chains.stop()
        await self.accounting.stop()
        await self._learning.write()
        if self._spans is not None:
            await self._spans.stop()
        if self._recorder is not None:
            await asyncio.to_thread(self._recorder.stop)
        await self.directory.stop()
        await self.store.close()

    def ready(self) -> bool:
        """Tell whether the documents were read and the store answers."""
        return self._loop is not None and not self.directory.away

    async def _compile(self) -> None:
        async with self._changing:
            products = list(self.directory.snapshot.products.values())
            await self.chains.use(self._settings.policies, products)
            for name, why in self.chains.broken.items():
                logger.error("the policies of a product cannot be used", extra={"product": name, "error": why})

    async def _prune(self) -> None:
        """Drop ledger records past their retention; where there is an export, only what was exported."""
        while True:
            before = int(time.time()) - self._settings.ledger.retention_days * 86_400
            try:
                until = None if self._settings.ledger.export is None else await export.exported(self.store)
                await self.store.prune(before, until)
            except StoreError as error:
                logger.warning("old ledger records could not be dropped", extra={"error": str(error)})
            await asyncio.sleep(PRUNE_S)

    def _export(self, target: ExportTarget | None) -> None:
        """Export to `target` from now on."""
        if target == self._target:
            return
        if self._exporting is not None:
            self._exporting.cancel()
            self._exporting = None
        self._target = target
        if target is not None:
            self._exporting = asyncio.create_task(export.Export(self.store, target, self._export_metrics).run())
            self._background(self._exporting)

    def _value(self, name: str, key: str) -> str | None:
        """Return the plain value of a key-value map's entry, None if there is none. Raises KvmError."""
        found = self.directory.snapshot.key_value_maps.get(name)
        sealed = found.entries.get(key) if found is not None else None
        return None if sealed is None else self._sealer.open(name, key, sealed)

    def _background(self, work: Awaitable[Any]) -> None:
        """Run something beside requests, until it ends or the process does."""
        task = asyncio.ensure_future(work)
        assert isinstance(task, asyncio.Task)  # noqa: S101 - policies hand over coroutines
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("background work failed", exc_info=task.exception())


def _problems(settings: Settings, tools: Tools | None, others: Mapping[str, TemplateRule] = _NO_RULES) -> list[Problem]:
    """Return what is wrong with the chains of a config; `others` are template rules that it does not declare."""
    found = chain.problems(settings.policies, tools)
    for i, product in enumerate(settings.products):
        found += chain.problems(settings.policies, tools, product, f"products[{i}].")
    found += export.problems(settings.ledger.export)
    found += template_rules.problems_of_rules(settings.template_rules)
    rules = {**others, **{rule.name: rule for rule in settings.template_rules}}
    return found + template_rules.problems_of_products(rules.values(), settings.policies, settings.products)


def _raise(source: Path, problems: list[Problem]) -> None:
    if problems:
        raise ConfigError(str(source), problems)


def _sealer(environ: Mapping[str, str]) -> Sealer:
    """Return what opens values of key-value maps. Raises ConfigError, which never shows a key."""
    try:
        return Sealer.from_environ(environ)
    except KvmError as error:
        problem = Problem(KEY_VARIABLE, "", str(error), "set it, or leave it out: then the pepper serves")
        raise ConfigError("environment", [problem]) from None


def _guardrails(path: Path) -> tuple[Filter, ...]:
    """Return the filters that screen prompts and answers behind ours. Raises ConfigError."""
    try:
        from services.guardrails import filters  # type: ignore[import-untyped]  # in later versions
    except ImportError:
        fix = "leave the flag out, or use a version that has guardrails"
        raise ConfigError(
            "flags", [Problem("--guardrails-file", str(path), "this version screens nothing itself", fix)]
        ) from None
    return tuple(filters(path))
