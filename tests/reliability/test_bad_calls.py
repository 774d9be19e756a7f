"""Every public function, called badly: our own error, that says why, and nothing moves."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from tests.reliability.bad_calls import BAD, CALLS
from tests.reliability.bad_kit import Call, Kit, Made
from tests.reliability.bad_order import ended

import virtualtb_fast as vtb
from virtualtb_fast import customers, envs, logs, policies, records, schema
from virtualtb_fast.customers import table
from virtualtb_fast.policies import anc
from virtualtb_fast.rollout import Rollout


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kit]:
    made = Kit(tmp_path_factory.mktemp("calls"))
    yield made
    for env in made.all_envs():
        env.close()


def called(kit: Kit, call: Call, changes: dict[str, Any]) -> Any:
    return call.function(kit)(**(call.good(kit) | changes))


def available(call: Call) -> None:
    """Skips a test of what not everybody has."""
    if call.needs is not None:
        pytest.importorskip(call.needs)


def short(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{list(value.shape)}"
    return ascii(value)[:30]


IDS = [f"{call.name}-{name}-{short(value)}" for call, name, value in BAD]


@pytest.mark.parametrize(("call", "name", "value"), BAD, ids=IDS)
def test_a_bad_call_is_refused_and_nothing_moves(
    kit: Kit, call: Call, name: str, value: Any
) -> None:
    available(call)
    before = kit.state()
    wrong = value.make(kit) if isinstance(value, Made) else value
    with pytest.raises(call.raises, match=r"(?s)expected|\[Errno") as caught:
        called(kit, call, {name: wrong})
    system = isinstance(caught.value, vtb.OutputError) and caught.value.errno is not None
    assert system or " got" in str(caught.value) or "not" in str(caught.value)
    assert kit.state() == before


def test_there_are_more_than_500() -> None:
    assert len(BAD) > 500


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
def test_the_good_call_is_good(kit: Kit, call: Call) -> None:
    """Or every refusal would be one of something else."""
    if call.name == "Policy.save of a constant":
        pytest.skip("a constant policy has no file: there is no good call")
    available(call)
    called(kit, call, {})


def test_calls_in_the_wrong_order(kit: Kit) -> None:
    before = kit.state()
    for what, call in ended(kit):
        with pytest.raises(vtb.VirtualTBError, match="expected") as caught:
            call()
        assert not isinstance(caught.value, vtb.FileFormatError), what
        assert kit.state() == before, what


def test_missing_and_unknown_arguments_are_type_errors(kit: Kit) -> None:
    """As for any function of Python."""
    before = kit.state()
    for call in CALLS:
        if call.needs is not None and importlib.util.find_spec(call.needs) is None:
            continue
        with pytest.raises(TypeError, match="argument"):
            called(kit, call, {"no_such_argument": 1})
    assert kit.state() == before


# Nothing public is left out


WITHOUT_ARGUMENTS = {
    "Catalog.close", "Catalog.info", "GroundTruthStore.reveal", "Policy.tensors",
    "SessionLog.digest", "SessionLog.keys", "SessionLog.session_offsets", "SessionLog.to_arrow",
    "Simulator.reduced", "Simulator.tensors", "Simulator.to_bytes",
    "Finding.to_dict", "LogReport.require", "LogReport.to_dict",
    "LogSchema.to_dict", "LogSchema.to_json", "Schema.to_json", "Config.to_json",
    "Customers.to_json", "Customers.to_dict", "Response.to_dict", "Leave.to_dict", "Table.to_json",
    "Rollout.digest", "Rollout.keys", "Rollout.to_arrow",
    *(
        f"{name}.{method}"
        for name in envs.__all__
        for method in ("close", "close_extras", "counters", "get_state", "observe", "recv",
                       "render", "reveal_archetypes")
    ),
}  # fmt: skip
"""Methods that take nothing that could be wrong."""


def public() -> Iterator[str]:
    for name in vtb.__all__:
        thing = getattr(vtb, name)
        if inspect.isclass(thing) and issubclass(thing, Exception):
            continue
        if inspect.isclass(thing):
            yield from methods(thing)
        elif callable(thing):
            yield name
    yield from (name for name in envs.__all__ if name != "register")
    yield from (name for name in schema.__all__ if not name.startswith("V0_"))
    yield from methods(Rollout)
    yield from (name for name in customers.__all__ if name.endswith("Config"))
    yield from ("CustomerSampler", *table.__all__)
    needed = {name: module for name, module in NEEDING.items() if importlib.util.find_spec(module)}
    further = [importlib.import_module(f"virtualtb_fast.{name}") for name in needed]
    for module in (anc, customers, envs, logs, policies, records, schema, table, *further):
        for name in module.__all__:
            thing = getattr(module, name)
            if inspect.isclass(thing):
                yield from methods(thing)
            elif inspect.isfunction(thing) and name not in INNER:
                yield name
    if "policies.trpo" in needed:
        yield from ("TrainConfig", "TrpoConfig")
    if "imitation.mail" in needed:
        yield from ("CloningConfig", "FitConfig", "ItemConfig", "MailConfig", "ResponseConfig")


NEEDING = {
    "policies.trpo": "torch", "rl.returns": "torch", "rl.trpo": "torch",
    "imitation.cloning": "torch", "imitation.items": "torch", "imitation.linear": "torch",
    "imitation.mail": "torch",
    "evaluation.fidelity": "sklearn", "evaluation.report": "matplotlib",
}  # fmt: skip
"""Further public modules, and what they are no good without."""

INNER = {
    "register",
    # Parts of a step on networks and distributions of one's own: tensors in, tensors out.
    "conjugate_gradient", "fisher_product", "flat", "step", "surrogate",
    # Pieces of a table, which has looked at the codes, or of reading a log.
    "Categorical.code_table", "Categorical.decode", "Numeric.decode",
    # A part of cloning, and what a store asks of its customers page by page.
    "start_at_shares", "ItemCustomers.tastes",
    # Pieces of a report that `fidelity` and `write_report` call.
    "page", "play",
}  # fmt: skip


def methods(kind: type) -> Iterator[str]:
    """Those that this package defines, and not what Gymnasium's environments have."""
    for home in inspect.getmro(kind):
        if not home.__module__.startswith("virtualtb_fast"):
            continue
        for name in vars(home):
            if not name.startswith("_") and callable(getattr(kind, name)):
                yield f"{kind.__name__}.{name}"


def test_every_public_function_is_called() -> None:
    listed = {call.name for call in CALLS} | WITHOUT_ARGUMENTS
    assert set(public()) - {"ConstantCustomer"} - INNER <= listed
    # Void guard: what has come in everywhere is looked for.
    few = {
        "GroundTruthStoreVector.send",
        "VirtualTBV0.render",
        "read_log",
        "check_log",
        "rollout",
        "LogSchema.load",
        "SessionLog.write",
        "Config.layers",
        "Policy.save",
        "Catalog.search",
        "Schema",
        "CustomerSampler.sample",
        "GanConfig",
        "Rollout.keys",
        "Table.encode",
        "fit",
        "fit_wgan_gp",
        *(("fit_mail", "MailConfig.paper") if importlib.util.find_spec("torch") else ()),
        "usual_norm",
    }
    assert few <= set(public())


# Any value at all


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-3, 70), st.floats(), st.complex_numbers(),
    st.text(max_size=5), st.binary(max_size=5), st.just(object), st.just(...), st.just(Path("x")),
    st.lists(st.one_of(st.integers(), st.floats(), st.text(max_size=2), st.none()), max_size=7),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.tuples(st.floats(), st.floats()),
    npst.arrays(
        st.one_of(
            npst.floating_dtypes(), npst.integer_dtypes(), npst.unsigned_integer_dtypes(),
            npst.boolean_dtypes(), npst.complex_number_dtypes(), npst.datetime64_dtypes(),
            npst.unicode_string_dtypes(max_len=3), npst.byte_string_dtypes(max_len=3),
        ),
        st.one_of(
            npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=7),
            st.sampled_from([(6,), (27,), (3, 6), (3, 27), (2, 2), (60,), (60, 5)]),
        ),
    ),
)  # fmt: skip

HUGE = {
    "count", "items", "sessions", "pages", "num_envs", "k", "seed", "first", "candidates",
    "sample", "judged",
}  # fmt: skip
"""Arguments by which a good call may be a long one."""
LONG = {"effort": (0.01, 100), "ensemble": (2, 100)}
"""Those of fits by which it is one at once: what is longer, though good, becomes the first."""
FOLDERS = {"folder", "tensorboard"}
FILES = {"path", "out", "engine", "work"}

EXAMPLES = 25 if settings.get_current_profile_name() == "same" else settings.default.max_examples

QUICK = settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::numpy.exceptions.ComplexWarning")
@pytest.mark.parametrize("call", [call for call in CALLS if call.bad], ids=lambda call: call.name)
@QUICK
@given(data=st.data())
def test_any_value_is_taken_or_refused(kit: Kit, call: Call, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(call.bad)))
    value = data.draw(ODD)
    if name in HUGE and isinstance(value, int | float) and 1000 < value <= 2**40:
        value = 1000
    if name in LONG and isinstance(value, int | float) and not isinstance(value, bool):
        low, high = LONG[name]
        value = low if low < value <= high else value
    if name in FOLDERS | FILES and isinstance(value, str | Path):
        value = kit.folder / f"{name}-{str(value)[:1].encode('utf-8', 'replace').hex()}.new"
        # A prepared log takes the place of another; a file does not, unless it is told to.
        if value.is_file():
            value.unlink()
    before, moved = kit.state(), call.steps
    try:
        called(kit, call, {name: value})
    except vtb.VirtualTBError:
        moved = False
    except TypeError as error:
        # Python's own, for a missing argument where the good call has none to give.
        if "argument" not in str(error):
            raise
        moved = False
    if not moved:
        assert kit.state() == before


def test_the_harness_sees_what_moves(kit: Kit) -> None:
    """Void guard: a call that does move an environment changes what is compared."""
    before = kit.state()
    states = [env.get_state() for env in kit.all_envs()]
    kit.env.step(np.zeros(6, np.float32))
    assert kit.state() != before
    for env, state in zip(kit.all_envs(), states, strict=True):
        env.set_state(state)
    value = kit.attributes[0, 0]
    kit.attributes[0, 0] = value + 1
    assert kit.state() != before
    kit.attributes[0, 0] = value
    assert kit.state() == before
