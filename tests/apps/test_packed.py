"""Block formats and packed files through the command: sizes, the way back, memory, bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

import fpemu
from fpemu import blocks, cli, files, storage
from fpemu.cli import _work
from fpemu.keys import Key
from fpemu.quantized import Quantized, compress

ROOT = Path(__file__).resolve().parents[2]
FORMATS = (
    "mxfp4", "mxfp6_e3m2", "mxfp8_e4m3", "mxint8", "nvfp4", "e2m1[16x16,ue5m3]",
    "e4m3fn[tensor,fp32]", "nf4[64,fp32]", "e4m3fn", "e2m1", "hif8",
)  # fmt: skip

RNG = np.random.default_rng(0)
WEIGHTS = {
    "layers.0.weight": RNG.standard_normal((30, 40)).astype("f4"),
    "layers.0.bias": RNG.standard_normal(70).astype("f4"),
    "layers.1.weight": RNG.standard_normal((4, 5, 33)).astype(ml_dtypes.bfloat16),
    "half": RNG.standard_normal((7, 16)).astype("f2"),
    "double": RNG.standard_normal((3, 50)),
    "scale": np.array(0.3, "f4"),
    "none": np.zeros((0, 16), "f4"),
    "steps": np.arange(4),
}

Run = Callable[..., str]


@pytest.fixture(autouse=True)
def _plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(WEIGHTS, path, metadata={"format": "pt"})
    return path


@pytest.fixture
def ok(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command, which is to succeed in silence on standard error; gives its output."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        status = cli.run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert (status, err) == (0, "")
        return out

    return run


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command, which is to fail with code 2 and one line; gives that line."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        status = cli.run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert err.startswith("fpemu: ")
        return err

    return run


def read(path: Path) -> dict[str, np.ndarray]:
    with files.open_tensors(path) as opened:
        return {name: opened.read(name) for name in opened.specs}


def recipe(path: Path) -> files.Recipe:
    with files.open_tensors(path) as opened:
        assert opened.recipe is not None
        return opened.recipe


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


# ------------------------------------------------------------------------ sizes


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".npy"])
@pytest.mark.parametrize(
    ("fmt", "bits"),
    [("nvfp4", 4.5), ("mxfp4", 4.25), ("mxfp6", 6.25), ("mxfp8", 8.25), ("e2m1", 4),
     ("e4m3fn[tensor,fp32]", 8), ("nf4[64,fp32]", 4.5), ("e2m1[16,ue4m3]", 4 + 7 / 16)],
)  # fmt: skip
def test_the_size_on_disk_is_what_the_format_promises(
    suffix: str, fmt: str, bits: float, tmp_path: Path, ok: Run
) -> None:
    """Four megabytes of float32, within one per cent."""
    x = np.random.default_rng(0).standard_normal((1024, 1024), dtype="f4")
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix.replace('npy', 'npz')}"
    halves = {"a": x[:700], "b": x[700:]}
    if suffix == ".npy":
        np.save(source, x)
    elif suffix == ".npz":
        np.savez(source, **halves)
    else:
        safetensors.numpy.save_file(halves, source)
    out = ok("quantize", source, "-f", fmt, "--packed", "-o", target, "--backend", "numpy")
    size = target.stat().st_size
    assert f"wrote {target} ({size:,} bytes)\n" in out
    assert 1 <= size / (x.size * bits / 8) < 1.01


# -------------------------------------------------------------------- there and back


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("rounding", [None, "stochastic:16"])
def test_dequantize_gives_what_quantize_without_packing_gives(
    fmt: str, rounding: str | None, model: Path, ok: Run
) -> None:
    plain, packed, back = (model.with_name(f"{n}.safetensors") for n in ("plain", "packed", "back"))
    options = [] if rounding is None else ["--rounding", rounding, "--seed", 7]
    ok("quantize", model, "-f", fmt, "-o", plain, *options)
    ok("quantize", model, "-f", fmt, "-o", packed, "--packed", *options)
    ok("dequantize", packed, "-o", back)
    expected, got, stored = read(plain), read(back), storage.load(packed)
    assert set(got) == set(expected) == set(WEIGHTS)
    for name, x in WEIGHTS.items():
        assert same(got[name], expected[name]), name
        if x.dtype.kind == "i":
            assert same(got[name], x)
            continue
        key = None if rounding is None else Key(7).child(name)
        assert same(got[name], np.asarray(fpemu.quantize(x, fmt, rounding=rounding, key=key)))
        q = stored[name]
        assert isinstance(q, Quantized)
        assert same(q.codes, compress(x, fmt, rounding=rounding, key=key).codes)
    with safetensors.safe_open(back, "np") as opened:
        assert opened.metadata()["format"] == "pt"


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
def test_every_kind_of_file_comes_back_as_itself(suffix: str, tmp_path: Path, ok: Run) -> None:
    source = tmp_path / f"in{suffix}"
    some = {"w": WEIGHTS["layers.1.weight"], "n": WEIGHTS["steps"]}
    if suffix == ".npy":
        np.save(source, some["w"])
    elif suffix == ".npz":
        np.savez_compressed(source, **some)
    else:
        safetensors.numpy.save_file(some, source)
    ok("quantize", source, "-f", "nvfp4", "--packed")
    packed = tmp_path / f"in.nvfp4{'.npz' if suffix == '.npy' else suffix}"
    ok("dequantize", packed)
    back = tmp_path / f"in.nvfp4.dequantized{suffix}"
    expected = np.asarray(fpemu.quantize(some["w"], "nvfp4"))
    got = read(back)
    assert same(got["array" if suffix == ".npy" else "w"], expected)
    assert set(got) == ({"array"} if suffix == ".npy" else {"w", "n"})
    assert recipe(back)["source"]["format"]["spelling"] == "nvfp4"
    assert "packed" not in recipe(back)["source"]
    assert recipe(back)["tensors"]["array" if suffix == ".npy" else "w"] == "dequantized"


def test_another_dtype_can_be_asked_for(model: Path, ok: Run) -> None:
    packed, back = (model.with_name(f"{name}.safetensors") for name in ("packed", "back"))
    ok("quantize", model, "-f", "mxfp4", "--packed", "-o", packed)
    ok("dequantize", packed, "-o", back, "--dtype", "bfloat16")
    got = read(back)
    assert {x.dtype.name for x in got.values()} == {"bfloat16", "int64"}
    q = compress(WEIGHTS["double"], "mxfp4")
    assert same(got["double"], q.dequantize("bfloat16"))


@pytest.mark.parametrize("packed", [False, True])
def test_blocks_run_along_the_axis(packed: bool, model: Path, ok: Run) -> None:
    target = model.with_name("out.safetensors")
    ok("quantize", model, "-f", "mxfp4", "--axis", 0, "-o", target, *["--packed"] * packed)
    assert recipe(target)["axis"] == 0
    got = storage.load(target)
    for name, x in WEIGHTS.items():
        if x.dtype.kind != "i":
            values = got[name].dequantize() if packed else got[name]  # type: ignore[union-attr]
            expected = fpemu.quantize(x, "mxfp4", axis=0 if x.ndim > 1 else -1)
            assert same(np.asarray(values), np.asarray(expected)), name


def test_the_recipe_says_how_to_do_it_again(model: Path, ok: Run) -> None:
    target = model.with_name("out.safetensors")
    ok("quantize", model, "-f", "mxfp4", "--policy", "torchao", "--packed", "-o", target,
       "--exclude", "none")  # fmt: skip
    made = recipe(target)
    assert (made["contract"], made["rounding"]) == (fpemu.CONTRACT, "nearest_even")
    assert (made["policy"], made["axis"], made["kind"]) == ("torchao", -1, ".safetensors")
    assert made["format"].pop("spelling") == "mxfp4"
    assert blocks.BlockFormat.from_dict(made["format"]) == blocks.NAMES["mxfp4"]
    assert made["tensors"]["half"] == "packed"
    assert made["tensors"]["none"] == made["tensors"]["steps"] == "copied"
    assert json.loads(json.dumps(made)) == made
    got = storage.load(target)["layers.0.weight"]
    expected = fpemu.quantize(WEIGHTS["layers.0.weight"], "mxfp4", policy="torchao")
    assert isinstance(got, Quantized)
    assert same(got.dequantize(), expected)


def test_presets_round_without_packing_too(model: Path, ok: Run) -> None:
    target = model.with_name("out.safetensors")
    out = ok("quantize", model, "-f", "mxfp8", "--policy", "microxcaling", "-o", target)
    assert "mxfp8_e4m3, nearest_away" in out
    for name, x in WEIGHTS.items():
        if x.dtype.kind != "i":
            expected = fpemu.quantize(x, "mxfp8", policy="microxcaling")
            assert same(read(target)[name], np.asarray(expected))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("fmt", ["nvfp4", "mxfp4", "nf4[64,fp32]", "e2m1[4x4,bf16]", "hif8"])
def test_the_table_has_the_reports_figures(fmt: str, packed: bool, model: Path, ok: Run) -> None:
    out = ok("quantize", model, "-f", fmt, *["--packed"] * packed)
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    for name in ("layers.0.weight", "half", "double"):
        x = WEIGHTS[name]
        report, q = fpemu.report(x, fmt), compress(x, fmt)
        assert rows[name] == [
            name, "x".join(map(str, x.shape)), str(x.dtype),
            f"{8 * float(storage.entry_of(q).nbytes) / x.size:.4g}", f"{report.sqnr_db:.2f}",
            f"{report.max_relative_error:.2g}", f"{report.saturated:,}", f"{report.underflowed:,}",
        ]  # fmt: skip
    assert rows["steps"] == ["steps", "4", "int64", "copied"]
    assert rows["none"][3] == "-"


def test_dequantize_shows_what_it_did(model: Path, ok: Run) -> None:
    packed = model.with_name("packed.safetensors")
    ok("quantize", model, "-f", "mxfp4", "--packed", "-o", packed)
    out = ok("dequantize", packed)
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    assert rows["half"] == ["half", "7x16", "mxfp4", "63", "float16", "224"]
    assert rows["steps"] == ["steps", "4", "copied", "int64", "32"]


def test_backends_write_the_same_bytes(backend: str, model: Path, ok: Run) -> None:
    first, second = (model.with_name(f"{n}.safetensors") for n in ("first", "second"))
    ok("quantize", model, "-f", "nvfp4", "--packed", "-o", first)
    ok("quantize", model, "-f", "nvfp4", "--packed", "-o", second, "--backend", backend)
    assert first.read_bytes() == second.read_bytes()
    ok("dequantize", first, "-o", model.with_name("a.safetensors"))
    ok("dequantize", first, "-o", model.with_name("b.safetensors"), "--backend", backend)
    a, b = (model.with_name(f"{name}.safetensors").read_bytes() for name in "ab")
    assert a == b


# --------------------------------------------------------------------- memory

MEASURE = """
import sys, tracemalloc
from fpemu import cli

small, large, *options = sys.argv[1:]
def both(source):
    packed = source.replace(".", ".packed.")
    yield cli.run(["quantize", source, *options, "-o", packed])
    if "--packed" in options:
        yield cli.run(["dequantize", packed, "--backend", "numpy"])
for status in both(small):  # what loads on first use is loaded now
    assert status == 0
tracemalloc.start()
for status in both(large):
    assert status == 0
    print("peak", tracemalloc.get_traced_memory()[1])
    tracemalloc.reset_peak()
"""


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize(
    ("fmt", "dtype", "packed"),
    [("nvfp4", "f4", True), ("mxfp8", "f2", True), ("nvfp4", "f4", False), ("e4m3fn", "f2", True)],
)  # fmt: skip
def test_memory_is_three_times_the_largest_tensor(
    suffix: str, fmt: str, dtype: str, packed: bool, tmp_path: Path
) -> None:
    """Of a file of six such tensors; a few megabytes are for pieces of fixed size."""
    shape = (1024, 4096 // np.dtype(dtype).itemsize)
    x = np.random.default_rng(0).standard_normal(shape, dtype="f4").astype(dtype)
    sources = {"small": {"a": x[:8]}, "large": {f"t{i}": x for i in range(6)}}
    for name, some in sources.items():
        if suffix == ".npz":
            np.savez(tmp_path / f"{name}.npz", **some)
        else:
            safetensors.numpy.save_file(some, tmp_path / f"{name}.safetensors")
    paths = [str(tmp_path / f"{name}{suffix}") for name in sources]
    options = ["-f", fmt, "--backend", "numpy", *["--packed"] * packed]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *paths, *options],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    peaks = [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("peak")]
    assert len(peaks) == 1 + packed
    assert max(peaks) < 3 * x.nbytes + (6 << 20)


# ------------------------------------------------------------------ bad input

BAD: dict[str, tuple[tuple[str, ...], str]] = {
    "unknown block format": (("quantize", "model.safetensors", "-f", "nvfp5"), "'nvfp5'"),
    "unknown scale": (("quantize", "model.safetensors", "-f", "e2m1[16,e9]"), "e9"),
    "show: unknown": (("show", "mxfp5"), "mxfp5"),
    "pseudo rounding of blocks": (
        ("quantize", "model.safetensors", "-f", "mxfp4", "-r", "pseudo_gaussian:4", "--seed", "1"),
        "--rounding pseudo_gaussian"),
    "pseudo rounding packed": (
        ("quantize", "model.safetensors", "-f", "e4m3fn", "-r", "pseudo_gaussian:4", "--seed",
         "1", "--packed"), "--rounding pseudo_gaussian"),
    "policy of blocks": (
        ("quantize", "model.safetensors", "-f", "mxfp4", "--policy", "sat_none"), "torchao"),
    "no seed": (("quantize", "model.safetensors", "-f", "mxfp4", "-r", "stochastic"), "--seed"),
    "axis without blocks": (
        ("quantize", "model.safetensors", "-f", "e4m3fn", "--axis", "0"), "--axis 0 goes with"),
    "axis of tiles": (
        ("quantize", "model.safetensors", "-f", "e2m1[4x4,bf16]", "--axis", "0"), "--axis 0"),
    "axis out of range": (
        ("quantize", "model.safetensors", "-f", "mxfp4", "--axis", "2"),
        "tensor 'double': axis must be in -2..1 for shape (3, 50), got 2; --exclude 'double'"),
    "no channels": (
        ("quantize", "model.safetensors", "-f", "e4m3fn[channel,fp32]", "--packed"),
        "tensor 'scale': x must have an axis"),
    "picture of blocks": (
        ("quantize", "model.safetensors", "-f", "mxfp4", "--plot", "a.png"), "--plot goes with"),
    "container too small": (
        ("quantize", "model.safetensors", "-f", "bf16", "--packed"), "tensor 'half': "),
    "NaN without a code": (
        ("quantize", "nan.npz", "-f", "e2m1", "--packed"), "tensor 'x': x must not give NaN"),
    "NaN without a scale": (
        ("quantize", "nan.npz", "-f", "e2m1[16,e2m3]"), "tensor 'x': x must not hold NaN"),
    "names clash": (
        ("quantize", "clash.npz", "-f", "mxfp4", "--packed"), "tensor 'a.codes' must have another"),
    "output of another kind": (
        ("quantize", "model.safetensors", "-f", "mxfp4", "--packed", "-o", "out.npz"), "--output"),
    "packed npy as npy": (
        ("quantize", "plain.npy", "-f", "mxfp4", "--packed", "-o", "out.npy"),
        "--output must end in .npz as a packed .npy does"),
    "output exists": (
        ("quantize", "model.safetensors", "-f", "mxfp4", "--packed", "-o", "good.safetensors"),
        "good.safetensors: output exists"),
    "dequantize: no file": (("dequantize", "none.npz"), "No such file"),
    "dequantize: unknown suffix": (("dequantize", "plain.npy"), "ends in .npz or .safetensors"),
    "dequantize: not packed": (("dequantize", "model.safetensors"), "holds no packed tensors"),
    "dequantize: truncated": (("dequantize", "cut.safetensors"), "cut.safetensors: damaged"),
    "dequantize: truncated npz": (("dequantize", "cut.npz"), "cut.npz: damaged"),
    "dequantize: changed table": (("dequantize", "changed.safetensors"), "checksum"),
    "dequantize: later contract": (("dequantize", "later.safetensors"), "contract"),
    "dequantize: unknown dtype": (
        ("dequantize", "good.safetensors", "--dtype", "int8"), "--dtype must be"),
    "dequantize: unknown backend": (
        ("dequantize", "good.safetensors", "--backend", "gpu"), "numpy, numba"),
    "dequantize: dtype too small": (
        ("dequantize", "wide.npz", "--dtype", "float16"), "tensor 'x': dtype float16 cannot hold"),
    "dequantize: output exists": (
        ("dequantize", "good.safetensors", "-o", "model.safetensors"), "output exists"),
    "dequantize: output of another kind": (
        ("dequantize", "good.safetensors", "-o", "out.npz"), "--output must end in .safetensors"),
}  # fmt: skip


@pytest.fixture
def mess(model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with good and bad files, which is made the current one."""
    folder = model.parent
    monkeypatch.chdir(folder)
    np.save("plain.npy", np.ones(3))
    np.savez("nan.npz", x=np.array([1, np.nan]))
    np.savez("clash.npz", **{"a": np.ones(3), "a.codes": np.arange(3)})
    storage.save("good.safetensors", {"w": compress(np.ones((2, 20), "f4"), "nvfp4")})
    storage.save("good.npz", {"w": compress(np.ones((2, 20), "f4"), "nvfp4")})
    storage.save("wide.npz", {"x": compress(np.ones(3, "f4"), "bf16")})
    good = Path("good.safetensors").read_bytes()
    Path("cut.safetensors").write_bytes(good[:-1])
    Path("cut.npz").write_bytes(Path("good.npz").read_bytes()[:-30])
    for name, old, new in (
        ("changed", b'"float32\\"', b'"float64\\"'),
        ("later", b'contract\\": 1', b'contract\\": 9'),
    ):
        assert old in good
        Path(f"{name}.safetensors").write_bytes(good.replace(old, new))
    return folder


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_nothing_is_written(case: str, mess: Path, fails: Run) -> None:
    arguments, clue = BAD[case]
    before = contents(mess)
    assert clue in fails(*arguments)
    assert contents(mess) == before


@pytest.mark.parametrize("command", ["quantize", "dequantize"])
def test_an_interrupt_leaves_nothing(
    command: str, mess: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    before = contents(mess)
    if command == "quantize":
        monkeypatch.setattr(_work, "error", interrupted)
        arguments = ["quantize", "model.safetensors", "-f", "nvfp4", "--packed"]
    else:
        monkeypatch.setattr(Quantized, "dequantize", interrupted)
        arguments = ["dequantize", "good.safetensors"]
    assert cli.run(arguments) == 130
    assert contents(mess) == before
    assert "Traceback" not in capsys.readouterr().err


def test_overwrite_replaces_the_output(mess: Path, ok: Run) -> None:
    ok("quantize", "model.safetensors", "-f", "mxfp4", "--packed", "-o", "good.safetensors",
       "--overwrite")  # fmt: skip
    ok("dequantize", "good.safetensors", "-o", "later.safetensors", "--overwrite")
    assert set(read(mess / "later.safetensors")) == set(WEIGHTS)
