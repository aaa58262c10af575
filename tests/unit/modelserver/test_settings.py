"""Command line, environment and faults."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.modelserver.arguments import parse
from services.modelserver.faults import Faults, parse_fault
from services.modelserver.settings import Settings


def read(line: str, **environment: str) -> Settings:
    return parse(line.split(), environment)


def test_both_ways_to_write_a_value_and_underscores() -> None:
    one = read("/models/a --served-model-name a b --port=9000 --max-num-seqs 7 --block-size=32")
    two = read("/models/a --served_model_name a b --port 9000 --max_num_seqs=7 --block_size 32")
    assert one == two
    assert (one.model, one.served_names, one.port) == ("/models/a", ("a", "b"), 9000)
    assert (one.engine.max_num_seqs, one.engine.block_size) == (7, 32)


def test_defaults() -> None:
    settings = read("m")
    assert settings.served_names == ("m",)
    assert settings.host == "127.0.0.1"
    assert settings.engine.prefix_caching
    assert settings.engine.max_loras == 0
    assert settings.engine.max_model_len == 32768


def test_sizes_and_switches() -> None:
    settings = read("m --max-model-len 8K --no-enable-prefix-caching --num-gpu-blocks-override 1000")
    assert settings.engine.max_model_len == 8192
    assert not settings.engine.prefix_caching
    assert settings.engine.num_blocks == 1000


def test_adapters() -> None:
    line = '--enable-lora --max-loras 4 --lora-modules a=/l/a {"name":"b","path":"/l/b","base_model_name":"m"}'
    settings = parse(["m", *line.split()], {})
    assert settings.adapters == (("a", "/l/a"), ("b", "/l/b"))
    assert settings.engine.max_loras == 4


def test_what_is_not_simulated_is_named() -> None:
    settings = read("m --dtype bfloat16 --tensor-parallel-size=8 -tp 8 --enforce-eager --compilation-config.level 3")
    assert settings.not_simulated == (
        "--compilation-config",
        "--dtype",
        "--enforce-eager",
        "--tensor-parallel-size",
        "-tp",
    )


def test_simulator_settings_come_from_the_environment_and_the_line_wins() -> None:
    environment = {
        "PENSTOCK_SIM_PREFILL_TPS": "inf",
        "PENSTOCK_SIM_DECODE_TPS": "5",
        "PENSTOCK_SIM_FAULT": "error:503,p=0.5; hang,n=1",
        "PENSTOCK_SIM_CHECK_LORA_PATHS": "true",
    }
    settings = parse(["m", "--sim-decode-tps", "7"], environment)
    assert settings.engine.prefill_tps == float("inf")
    assert settings.engine.decode_tps == 7
    assert settings.faults == ("error:503,p=0.5", "hang,n=1")
    assert settings.check_lora_paths


def test_what_vllm_reads_from_the_environment() -> None:
    settings = read("m", VLLM_ALLOW_RUNTIME_LORA_UPDATING="True", VLLM_API_KEY="secret")
    assert settings.runtime_lora
    assert settings.api_keys == ("secret",)
    assert "secret" not in repr(settings)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", "no model"),
        ("m --no-such-thing 1", "--no-such-thing"),
        ("m --port 70000", "expected a port"),
        ("m --max-num-seqs 0", "at least 1"),
        ("m --block-size x", "--block-size"),
        ("m --gpu-memory-utilization 1.5", "up to 1"),
        ("m --lora-modules a=b", "--enable-lora"),
        ("m --enable-lora --lora-modules a", "expected name=path"),
        ("m --enable-lora --lora-modules a=b a=c", "given twice"),
        ("m --max-model-len 4096 --num-gpu-blocks-override 10", "--num-gpu-blocks-override"),
        ("m --sim-prefill-tps 0", "above 0"),
        ("m --sim-decode-tps nan", "above 0"),
        ("m --sim-lora-load-s -1", "at least 0"),
        ("m --sim-fault explode", "delay, error, hang, abort, drop"),
    ],
)
def test_malformed_arguments_end_with_status_2(line: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        read(line)
    assert ending.value.code == 2
    assert expected in capsys.readouterr().err


def test_malformed_environment(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read("m", PENSTOCK_SIM_TIME_SCALE="fast")
    assert "--sim-time-scale" in capsys.readouterr().err


def test_faults_are_read() -> None:
    fault = parse_fault("delay:1.5,p=0.25,n=3,path=/health")
    assert (fault.kind, fault.value, fault.probability, fault.remaining, fault.path) == (
        "delay",
        1.5,
        0.25,
        3,
        "/health",
    )
    assert parse_fault("error").value == 500


@pytest.mark.parametrize(
    "text",
    ["", "delay", "delay:x", "delay:inf", "error:200", "error:500.5", "hang,p=2", "hang,p=", "hang,n=-1", "drop:1,q=1"],
)
def test_malformed_faults(text: str) -> None:
    with pytest.raises(ValueError, match="fault "):
        parse_fault(text)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text("delayrohngbtp:,=0123456789.-einf/", max_size=30))
def test_any_text_is_a_fault_or_a_clear_error(text: str) -> None:
    try:
        fault = parse_fault(text)
    except ValueError as error:
        assert "fault" in str(error)  # noqa: PT017
    else:
        assert fault.value >= 0


def test_faults_hit_in_order_and_run_out() -> None:
    faults = Faults(["delay:2", "error:503,n=2", "hang,path=/health"], seed=1)
    hits = [faults.draw("/v1/chat/completions") for _ in range(3)]
    assert [(delay, fault.kind if fault else None) for delay, fault in hits] == [(2, "error"), (2, "error"), (2, None)]
    assert faults.draw("/v1/models") == (0.0, None)
    health = faults.draw("/health")[1]
    assert health is not None
    assert health.kind == "hang"
    assert faults.describe()[1] == {"fault": "error:503,n=2", "remaining": 0, "hits": 2}


def test_the_share_is_drawn_from_the_seed() -> None:
    def draws(seed: int) -> list[bool]:
        faults = Faults(["abort,p=0.3"], seed)
        return [faults.draw("/v1/completions")[1] is not None for _ in range(1000)]

    assert draws(1) == draws(1) != draws(2)
    assert 250 < sum(draws(1)) < 350


def test_a_malformed_fault_changes_nothing() -> None:
    faults = Faults(["hang"], seed=1)
    with pytest.raises(ValueError, match="explode"):
        faults.replace(["abort", "explode"])
    assert [fault.kind for fault in faults.faults] == ["hang"]
