"""Which precision `precision="auto"` chooses."""

from __future__ import annotations

from pathlib import Path

import keras
import pytest

from model_trainer import Live, ModelSpec, Network, OwnModel
from model_trainer.run.network import AnyNetwork
from model_trainer.training import precision
from model_trainer.training.precision import choose_precision

MOBILENET = ModelSpec.named("mobilenet_v2")
OWN_BACKBONE = ModelSpec(**{"class": "model_trainer.testing.small_backbone", "target_size": [16, 16, 3]})
OWN_MODEL = OwnModel(model=Live(value=keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])))


@pytest.mark.parametrize(
    ("flags", "spec", "network", "expected"),
    [
        ("sse2 avx512f avx512_bf16", MOBILENET, Network(), "mixed_bfloat16"),
        ("sse2 amx_bf16", MOBILENET, Network(), "mixed_bfloat16"),
        ("sse2 avx512f", MOBILENET, Network(), "float32"),
        ("sse2 amx_bf16", ModelSpec.named("mobilenet_v3_small"), Network(), "float32"),
        ("sse2 amx_bf16", ModelSpec.named("nasnet_mobile"), Network(), "float32"),
        ("asimd bf16", MOBILENET, Network(), "float32"),
        ("sse2 avx512_bf16", OWN_BACKBONE, Network(), "float32"),
        ("sse2 avx512_bf16", MOBILENET, OWN_MODEL, "float32"),
    ],
)
def test_auto_precision_depends_on_network_and_cpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: str, spec: ModelSpec, network: AnyNetwork, expected: str
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor: 0\nflags\t\t: {flags}\n")
    monkeypatch.setattr(precision._cpu_has_bfloat16, "__defaults__", (tmp_path / "cpuinfo",))
    assert choose_precision("auto", spec, network) == expected


def test_a_declared_precision_is_used() -> None:
    assert choose_precision("mixed_float16", OWN_BACKBONE, Network()) == "mixed_float16"
