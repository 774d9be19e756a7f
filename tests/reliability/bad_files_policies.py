"""Bad files of policies, in the container that simulators have too."""

from __future__ import annotations

from tests.reliability.bad_files_kit import (
    DIRECTORY,
    LOOP,
    SYSTEM,
    TEXT,
    ZEROS,
    Kind,
    Table,
    corpus,
    cut,
    instead,
    less,
    more,
    put_at,
)
from tests.reliability.bad_files_tensors import (
    edited,
    entry,
    length,
    metadata,
    number,
    part,
    with_another,
    without_last,
)

from virtualtb_fast.policies import Policy

POLICIES: Table = {
    "empty": (instead(b""), "expected a policy file, got 0 bytes"),
    "zeros": (instead(ZEROS), "expected a safetensors file, got"),
    "a note": (instead(TEXT), "expected a safetensors header of at most .* got"),
    "a folder": (DIRECTORY, "directory"),
    "a link to itself": (LOOP, SYSTEM),
    "a simulator": (
        instead(corpus("simulator/a-mlp.safetensors")),
        'expected format "virtualtb_fast.policy", got "virtualtb_fast.simulator"',
    ),
    "half of it": (cut(0.5), "expected a safetensors file, got .*"),
    "a byte less": (less(1), "expected a safetensors file, got"),
    "a byte more": (more(b"\n"), "expected a safetensors file, got"),
    "a number altered": (put_at(-6, b"\x7f"), "expected the content of digest .* altered"),
    "a header beyond the end": (length(1 << 62), "expected a safetensors header of at most"),
    "a later version": (metadata(format_version="2"), 'expected format_version "1", got "2"'),
    "a version that is a word": (metadata(format_version="one"), 'expected format_version "1"'),
    "no config": (metadata(config=None), 'expected metadata key "config", got none'),
    "one key more": (metadata(name="mine"), 'expected the metadata keys .* got "name"'),
    "a config that is a text": (metadata(config='"tanh"'), "expected config as JSON"),
    "another activation": (part("config", activation={"kind": "gelu"}), "expected config as JSON"),
    "a slope of two": (
        part("config", activation={"kind": "leaky_relu", "slope": 2.0}),
        "expected a slope in .* got 2",
    ),
    "one size": (part("config", layers=[14]), "expected 2 to 16 sizes, got 1"),
    "many sizes": (part("config", layers=[14] * 99), "expected 2 to 16 sizes, got 99"),
    "a size of none": (part("config", layers=[14, 0, 6]), "expected sizes of 1 to 16384, got 0"),
    "a size beyond memory": (part("config", layers=[14, 1 << 50, 6]), "expected sizes of 1"),
    "a negative size": (part("config", layers=[14, -9, 6]), "expected config as JSON"),
    "another size": (part("config", layers=[14, 8, 6]), r"expected shape \[8, 14\], got \[9, 14\]"),
    "a negative clip": (part("config", observation_clip=-3.0), "expected a number in .* got -3"),
    "a clip upside down": (part("config", action_clip=[1, -1]), "expected low < high .* got"),
    "no range to clip to": (part("config", action_clip=[0]), "expected config as JSON"),
    "drawn without deviations": (part("config", sampled=True), "expected shape .* got no such"),
    "a surplus key": (part("config", dropout=0.5), "expected config as JSON"),
    "no output": (part("config", output=...), "expected config as JSON"),
    "a tensor less": (edited(without_last), "expected shape .* got no such tensor"),
    "a tensor more": (edited(with_another), "expected .* known names, got leave.9.bias"),
    "a shape transposed": (entry("policy.0.weight", shape=[14, 9]), "expected shape .* got"),
    "another dtype": (entry("policy.0.bias", dtype="BF16", shape=[18]), "expected F32 or U8, got"),
    "not a number": (number("policy.2.bias", float("nan")), "expected finite values, got NaN"),
    "infinite": (number("policy.0.weight", float("inf"), 3), "expected finite values, got inf"),
    "a deviation of zero": (number("observation.sd", 0.0), "expected numbers above .* got 0"),
    "a negative deviation": (number("observation.sd", -1.0), "expected numbers above .* got -1"),
    "a mean that is none": (number("observation.mean", float("nan")), "expected finite values"),
    "noise beyond all": (
        lambda _: number("log_sd", 50.0)(corpus("policy/drawn.safetensors")),
        "expected numbers within .* got 50",
    ),
}

KINDS = [
    Kind(
        "policy",
        "policy.safetensors",
        lambda: corpus("policy/clipped.safetensors"),
        Policy.load,
        POLICIES,
    ),
]
