"""The command: what it prints, what it writes, and what it says to bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import fpemu
from fpemu import backends, blocks, cli, files, table_format
from fpemu.catalog import ALIASES, CANONICAL
from fpemu.cli import _doctor, _work
from fpemu.keys import Key
from fpemu.rounding import Rounding

ROOT = Path(__file__).resolve().parents[2]
ESCAPE = "\x1b"

WEIGHTS = {
    "layers.0.weight": np.linspace(-3, 3, 300, dtype="f4").reshape(30, 10),
    "layers.0.bias": np.array([0.3, -0.0, np.inf, np.nan, 1e9], dtype="f4"),
    "layers.1.weight": np.linspace(-1, 1, 64).astype(ml_dtypes.bfloat16),
    "half": np.linspace(0, 1, 7, dtype="f2"),
    "double": np.linspace(0, 1, 7),
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
        assert ESCAPE not in out
        return out

    return run


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command, which is to fail with code 2 and one line; gives that line."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        status = cli.run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert (status, out) == (2, "")
        assert err.startswith("fpemu: ")
        assert err.count("\n") == 1
        assert "Traceback" not in err
        return err

    return run


def python_m(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fpemu", *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, **options  # type: ignore[call-overload]
    )  # fmt: skip


def read(path: Path) -> dict[str, np.ndarray]:
    with files.open_tensors(path) as opened:
        return {name: opened.read(name) for name in opened.specs}


def recipe(path: Path) -> files.Recipe:
    with files.open_tensors(path) as opened:
        assert opened.recipe is not None
        return opened.recipe


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


# -------------------------------------------------------------------- formats


def test_formats_lists_every_name_and_alias(ok: Run) -> None:
    out = ok("formats")
    assert max(map(len, out.splitlines())) <= 80
    words = out.replace(",", " ").split()
    for name, aliases in ALIASES.items():
        assert {name, *aliases} <= set(words)
    assert {*blocks.NAMES, *table_format.NAMES} <= set(words)


@pytest.mark.parametrize(
    "fmt",
    [
        *(name for name in CANONICAL if name != "mxint8"),  # which is the block format
        "e16m40", "e2m0", "e0m3finite", "ue4m2", "e4m3flush", "binary8p3ue", "e5m9",
    ],
)  # fmt: skip
def test_show_fits_and_has_the_limits(fmt: str, ok: Run) -> None:
    out = ok("show", fmt)
    assert max(map(len, out.splitlines())) <= 80
    chosen = fpemu.format(fmt)
    assert out.startswith(f"{chosen}  {chosen.bits} bits")
    if chosen.bits <= 8:
        table = out[out.index("code  ") :]
        short = [text for value in chosen.values() if len(text := f"{value:g}") <= 4 and value >= 0]
        assert set(short) <= set(table.split())


def test_show_gives_the_codes(ok: Run) -> None:
    out = ok("show", "e2m1").splitlines()
    assert "max       0x7  0 11 1" in [line.rstrip() for line in out]
    assert [line.split() for line in out if line.startswith("0x")] == [
        ["0x0", "0", "0.5"], ["0x2", "1", "1.5"], ["0x4", "2", "3"], ["0x6", "4", "6"],
    ]  # fmt: skip


@pytest.mark.parametrize("fmt", [*blocks.NAMES, "e2m1[16x16,ue5m3]", "nf4[64,fp32]", "bfp(9,7)",
                                 "e4m3fn[channel,fp32]", "e2m1[tensor,none]"])  # fmt: skip
def test_show_of_a_block_format_has_its_parts_and_its_elements(fmt: str, ok: Run) -> None:
    out = ok("show", fmt)
    assert max(map(len, out.splitlines())) <= 80
    chosen = blocks.as_spec(fmt)
    assert isinstance(chosen, blocks.BlockFormat)
    assert out.startswith(str(chosen))
    assert chosen.spelling in out
    if not isinstance(chosen.block, str):
        assert f"{float(chosen.bits_per_element()):g} bits per element" in out
    words = out.replace(",", " ").split()
    assert {str(chosen.element), str(chosen.rule), str(chosen.scale).lower()} <= set(words)
    element = "\n".join(ok("show", str(chosen.element)).splitlines()[-3:])
    assert str(chosen.element) == "mxint8" or element in out


@pytest.mark.parametrize("fmt", table_format.NAMES)
def test_show_of_a_table_has_its_values(fmt: str, ok: Run) -> None:
    out = ok("show", fmt)
    assert max(map(len, out.splitlines())) <= 80
    book = table_format.NAMES[fmt]
    assert out.startswith(f"{fmt}  {book.bits} bits")
    short = [text for value in book.values() if len(text := f"{float(value):g}") <= 4]
    assert set(short) <= set(out.split())


def test_finite_value_counts_are_right() -> None:
    from fpemu.cli._tables import _finite_values

    for fmt in (*CANONICAL, "e4m3flush", "e3m2fnuz", "ue4m2", "binary8p3ue", "e0m4finite"):
        chosen = fpemu.format(fmt)
        if chosen.bits <= 10:
            assert _finite_values(chosen) == len(chosen.values()), fmt


@pytest.mark.parametrize("arguments", [(), ("--help",), ("quantize", "--help"), ("--version",)])
def test_help_and_version(arguments: Sequence[str], ok: Run) -> None:
    out = ok(*arguments)
    assert ("contract" if "--version" in arguments else "Usage") in out


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("0.3", 0.3), ("-0.3", -0.3), ("-0.0", -0.0), ("nan", np.nan), ("inf", np.inf),
        ("-inf", -np.inf), ("0x1.8p3", 12.0), ("-0x1.8p3", -12.0), ("1e-30", 1e-30),
        ("-1e-30", -1e-30), ("1_000", 1000.0),
    ],
)  # fmt: skip
def test_explain_takes_numbers_of_all_sorts(typed: str, value: float, ok: Run) -> None:
    expected = str(fpemu.explain(value, "e4m3fn")).split()
    assert ok("explain", typed, "e4m3fn").split() == expected
    assert ok("explain", "--", typed, "e4m3fn").split() == expected


def test_explain_takes_exact_fractions_and_modes(ok: Run) -> None:
    assert "1/3" in ok("explain", "1/3", "e4m3fn")
    out = ok("explain", "-0.3", "e2m1", "--rounding", "stochastic:8", "--seed", "3")
    assert out.split() == str(fpemu.explain(-0.3, "e2m1", rounding="stochastic:8", key=3)).split()
    assert "-0.25" in ok("explain", "--rounding", "toward_zero", "-0.26", "e4m3fn")


def test_diff_is_the_librarys(ok: Run) -> None:
    assert ok("diff", "e4m3", "e4m3fn").split() == str(fpemu.diff("e4m3", "e4m3fn")).split()


# ------------------------------------------------------------------- quantize


@pytest.mark.parametrize("fmt", ["e4m3fn", "e2m1", "e5m2"])
@pytest.mark.parametrize("rounding", [None, "toward_zero", "stochastic:16"])
def test_quantize_writes_what_the_library_gives(
    fmt: str, rounding: str | None, model: Path, ok: Run
) -> None:
    options = [] if rounding is None else ["--rounding", rounding, "--seed", 7]
    out = ok("quantize", model, "--format", fmt, *options)
    target = model.with_name(f"model.{fmt}.safetensors")
    assert out.replace("\n", "").endswith(f"wrote {target}")
    got = read(target)
    for name, x in WEIGHTS.items():
        if x.dtype.kind == "i":
            assert same(got[name], x)
        else:
            key = None if rounding is None else Key(7).child(name)
            assert same(got[name], fpemu.quantize(x, fmt, rounding=rounding, key=key))


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
def test_the_recipe_is_enough_to_do_it_again(suffix: str, tmp_path: Path, ok: Run) -> None:
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    weights = {"w": WEIGHTS["layers.0.weight"], "n": WEIGHTS["steps"]}
    if suffix == ".npy":
        np.save(source, weights["w"])
    elif suffix == ".npz":
        np.savez(source, **weights)
    else:
        safetensors.numpy.save_file(weights, source)
    ok("quantize", source, "-f", "E4M3_FN", "-r", "stochastic:8:C", "--policy", "sat_none",
       "--seed", 5, "-o", target)  # fmt: skip
    made = recipe(target)
    assert (made["fpemu"], made["contract"]) == (fpemu.__version__, fpemu.CONTRACT)
    spelling = made["format"].pop("spelling")
    assert spelling == "e4m3fn"
    fmt = fpemu.Format.from_dict(made["format"])
    assert fmt == fpemu.format(spelling)
    policy = fpemu.Policy(**made["policy"])
    assert policy.overflow == "sat_none"
    assert made["rounding"] == "stochastic:8:C"
    assert made["key"] == {"seed": 5, "child": "tensor name"}
    got = read(target)
    for name, x in read(source).items():
        if made["tensors"][name] == "rounded":
            key = Key(made["key"]["seed"]).child(name)
            again = fpemu.quantize(x, fmt, rounding=made["rounding"], policy=policy, key=key)
            assert same(got[name], again)
        else:
            assert same(got[name], x)


def test_other_metadata_and_earlier_recipes_are_kept(model: Path, ok: Run) -> None:
    first, second = (model.with_name(f"{n}.safetensors") for n in ("first", "second"))
    ok("quantize", model, "-f", "e5m2", "-o", first)
    ok("quantize", first, "-f", "e2m1", "-o", second)
    assert recipe(second)["source"] == recipe(first)
    with safetensors.safe_open(second, "np") as opened:
        assert opened.metadata()["format"] == "pt"


def test_the_table_has_the_reports_figures(model: Path, ok: Run) -> None:
    out = ok("quantize", model, "-f", "e4m3fn")
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    report = fpemu.report(WEIGHTS["half"], "e4m3fn")
    assert rows["half"] == [
        "half", "7", "float16", "8", f"{report.sqnr_db:.2f}", f"{report.max_relative_error:.2g}",
        f"{report.saturated:,}", f"{report.underflowed:,}",
    ]  # fmt: skip
    assert rows["layers.0.weight"][1:3] == ["30x10", "float32"]
    assert rows["steps"] == ["steps", "4", "int64", "copied"]
    # The total is what one report on all floats together would say.
    floats = [x.astype("f8").reshape(-1) for x in WEIGHTS.values() if x.dtype.kind != "i"]
    total = fpemu.report(np.concatenate(floats), "e4m3fn")
    assert rows["total"] == [
        "total", f"{total.count:,}", "8", f"{total.sqnr_db:.2f}", f"{total.max_relative_error:.2g}",
        f"{total.saturated:,}", f"{total.underflowed:,}",
    ]  # fmt: skip


def test_brackets_in_names_are_shown_as_they_are(tmp_path: Path, ok: Run) -> None:
    np.savez(tmp_path / "in.npz", **{"[bold]w[0]": np.ones(2)})
    assert "[bold]w[0]" in ok("quantize", tmp_path / "in.npz", "-f", "e2m1")


def test_include_and_exclude_choose_by_name(model: Path, ok: Run) -> None:
    target = model.with_name("out.safetensors")
    ok("quantize", model, "-f", "e2m1", "-o", target, "--include", "layers.*", "--include", "half",
       "--exclude", "*.bias")  # fmt: skip
    rounded = {name for name, done in recipe(target)["tensors"].items() if done == "rounded"}
    assert rounded == {"layers.0.weight", "layers.1.weight", "half"}
    assert same(read(target)["double"], WEIGHTS["double"])


def test_pseudo_rounding_takes_bits(tmp_path: Path, ok: Run) -> None:
    source, target = tmp_path / "in.npy", tmp_path / "out.npy"
    np.save(source, WEIGHTS["layers.0.weight"])
    ok("quantize", source, "-f", "bf16", "-r", "pseudo_gaussian:?:8x8", "--bits", 4, "--seed", 1,
       "-o", target)  # fmt: skip
    expected = fpemu.quantize(
        WEIGHTS["layers.0.weight"], "bf16", rounding="pseudo_gaussian:4:8x8",
        key=Key(1).child("array"),
    )  # fmt: skip
    assert same(read(target)["array"], expected)
    assert recipe(target)["rounding"] == "pseudo_gaussian:4:8x8"


def test_backends_write_the_same_bytes(backend: str, model: Path, ok: Run) -> None:
    first, second = (model.with_name(f"{n}.safetensors") for n in ("first", "second"))
    options = ("-f", "e3m2", "-r", "stochastic", "--seed", 2)
    ok("quantize", model, *options, "-o", first)
    ok("quantize", model, *options, "-o", second, "--backend", backend)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_plot_writes_the_picture(suffix: str, model: Path, ok: Run) -> None:
    picture = model.with_name(f"errors{suffix}")
    ok("quantize", model, "-f", "e4m3fn", "--plot", picture)
    head = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix]
    assert picture.read_bytes().startswith(head)


def test_overwrite_replaces_the_output(model: Path, ok: Run) -> None:
    target = model.with_name("model.e2m1.safetensors")
    target.write_bytes(b"before")
    ok("quantize", model, "-f", "e2m1", "--overwrite")
    assert recipe(target)["format"]["spelling"] == "e2m1"


def test_progress_is_shown_on_a_terminal_only(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # which makes rich take any stream for a terminal
    assert cli.run(["quantize", str(model), "-f", "e2m1"]) == 0
    out, err = capsys.readouterr()
    assert "e2m1, nearest_even" in err
    assert "kB" in err
    assert ESCAPE in out


# ------------------------------------------------------------------ bad input

BAD: dict[str, tuple[tuple[str, ...], str]] = {
    "no such command": (("quantise",), "quantise"),
    "no format": (("show",), "FORMAT"),
    "too many": (("show", "e2m1", "e3m2"), "e3m2"),
    "no file": (("quantize",), "FILE"),
    "no --format": (("quantize", "model.safetensors"), "--format"),
    "unknown option": (("quantize", "model.safetensors", "--frmat", "e2m1"), "--frmat"),
    "unknown spelling": (("show", "e4m3fx"), "nearest names: e4m3fn"),
    "malformed spelling": (("show", "e4m"), "grammar"),
    "e out of range": (("show", "e17m3"), "exponent_bits must be in 0..16"),
    "m out of range": (("show", "e4m53"), "mantissa_bits must be in 0..52"),
    "not a number": (("explain", "abc", "e4m3fn"), "'abc'"),
    "not a hex number": (("explain", "0x1.8q", "e4m3fn"), "'0x1.8q'"),
    "no such fraction": (("explain", "1/0", "e4m3fn"), "'1/0'"),
    "explain: unknown rounding": (("explain", "1", "e2m1", "--rounding", "up"), "nearest_even"),
    "explain: unknown policy": (("explain", "1", "e2m1", "--policy", "clip"), "sat_finite"),
    "explain: bits": (("explain", "1", "e2m1", "--rounding", "stochastic:33"), "1..32"),
    "explain: no seed": (("explain", "1", "e2m1", "--rounding", "stochastic"), "--seed"),
    "diff: unknown": (("diff", "e4m3", "x"), "'x' is not a format"),
    "quantize: unknown format": (("quantize", "model.safetensors", "-f", "fp9"), "'fp9'"),
    "quantize: no seed": (
        ("quantize", "model.safetensors", "-f", "e2m1", "-r", "stochastic"), "--seed"),
    "quantize: seed out of range": (
        ("quantize", "model.safetensors", "-f", "e2m1", "-r", "stochastic", "--seed", "-1"),
        "seed must be in 0..2**64"),
    "quantize: seed not a number": (
        ("quantize", "model.safetensors", "-f", "e2m1", "--seed", "x"), "--seed"),
    "quantize: unknown rounding": (
        ("quantize", "model.safetensors", "-f", "e2m1", "-r", "up"), "rounding"),
    "quantize: unknown policy": (
        ("quantize", "model.safetensors", "-f", "e2m1", "--policy", "clip"), "policy"),
    "quantize: bits without noise": (
        ("quantize", "model.safetensors", "-f", "e2m1", "--bits", "4"), "--bits"),
    "quantize: noise without bits": (
        ("quantize", "model.safetensors", "-f", "bf16", "-r", "pseudo_gaussian:?", "--seed", "1"),
        "bits"),
    "quantize: bits out of range": (
        ("quantize", "model.safetensors", "-f", "bf16", "-r", "pseudo_gaussian:25", "--seed", "1"),
        "[0, 24]"),
    "quantize: unknown backend": (
        ("quantize", "model.safetensors", "-f", "e2m1", "--backend", "gpu"), "numpy, numba"),
    "quantize: container too small": (
        ("quantize", "model.safetensors", "-f", "bf16"), "tensor 'half': x of dtype float16"),
    "quantize: beyond float64": (
        ("quantize", "model.safetensors", "-f", "e12m3"), "no supported dtype can"),
    "quantize: missing file": (("quantize", "none.npy", "-f", "e2m1"), "No such file"),
    "quantize: unknown suffix": (("quantize", "notes.txt", "-f", "e2m1"), ".safetensors, not"),
    "quantize: a folder": (("quantize", "folder.npy", "-f", "e2m1"), "folder.npy"),
    "quantize: truncated safetensors": (
        ("quantize", "cut.safetensors", "-f", "e2m1"), "cut.safetensors: damaged"),
    "quantize: truncated npz": (("quantize", "cut.npz", "-f", "e2m1"), "cut.npz: damaged"),
    "quantize: truncated npy": (("quantize", "cut.npy", "-f", "e2m1"), "cut.npy: damaged"),
    "quantize: foreign": (("quantize", "foreign.npz", "-f", "e2m1"), "foreign.npz: damaged"),
    "quantize: wrong dtype": (("quantize", "complex.npz", "-f", "e2m1"), "tensor 'z' is complex64"),
    "quantize: nothing to do": (
        ("quantize", "integers.npy", "-f", "e2m1"), "no float tensor to round"),
    "quantize: nothing included": (
        ("quantize", "model.safetensors", "-f", "e2m1", "--include", "nope*"),
        "leave no float tensor"),
    "quantize: output exists": (
        ("quantize", "model.safetensors", "-f", "e2m1", "-o", "taken.safetensors"),
        "taken.safetensors: output exists"),
    "quantize: sidecar exists": (
        ("quantize", "plain.npy", "-f", "e2m1", "-o", "taken.npy"), "taken.npy.json"),
    "quantize: picture exists": (
        ("quantize", "model.safetensors", "-f", "e2m1", "--plot", "taken.png"), "taken.png"),
    "quantize: output in no folder": (
        ("quantize", "model.safetensors", "-f", "e2m1", "-o", "none/out.safetensors"), "no such"),
    "quantize: output of another kind": (
        ("quantize", "model.safetensors", "-f", "e2m1", "-o", "out.npz"), "--output must end in"),
    "quantize: picture of another kind": (
        ("quantize", "model.safetensors", "-f", "e2m1", "--plot", "out.bmp"), "--plot must end"),
}  # fmt: skip


@pytest.fixture
def mess(model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with good and bad files, which is made the current one."""
    folder = model.parent
    monkeypatch.chdir(folder)
    np.save("plain.npy", np.ones(3))
    np.save("integers.npy", np.arange(3))
    np.savez("complex.npz", z=np.zeros(2, "c8"), a=np.ones(2))
    np.savez("whole.npz", a=np.ones(100))
    (folder / "folder.npy").mkdir()
    (folder / "notes.txt").write_text("hello")
    (folder / "foreign.npz").write_text("hello")
    (folder / "cut.safetensors").write_bytes(model.read_bytes()[:-1])
    (folder / "cut.npz").write_bytes((folder / "whole.npz").read_bytes()[:-30])
    (folder / "cut.npy").write_bytes((folder / "plain.npy").read_bytes()[:-1])
    for name in ("taken.safetensors", "taken.npy.json", "taken.png"):
        (folder / name).write_bytes(b"before")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_nothing_is_written(case: str, mess: Path, fails: Run) -> None:
    arguments, clue = BAD[case]
    before = contents(mess)
    assert clue in fails(*arguments)
    assert contents(mess) == before


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on the size of files")
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
def test_a_full_disk_is_one_line_and_nothing_is_written(suffix: str, tmp_path: Path) -> None:
    big = np.ones(1 << 16, "f4")
    source = tmp_path / f"in{suffix}"
    if suffix == ".safetensors":
        safetensors.numpy.save_file({"a": big, "b": big}, source)
    else:
        (np.save if suffix == ".npy" else np.savez)(source, big)
    code = (
        "import resource, sys\n"
        "from fpemu import cli\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))\n"
        "sys.exit(cli.run(sys.argv[1:]))\n"
    )
    before = contents(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", code, "quantize", str(source), "-f", "e2m1", "--backend", "numpy"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    target = source.with_name(f"in.e2m1{suffix}")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"fpemu: {target}: File too large\n"
    assert contents(tmp_path) == before


def test_a_missing_backend_is_one_line(
    mess: Path, fails: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ImportError(f"backend {name!r} is not available: install it")

    monkeypatch.setattr(backends, "get", missing)
    before = contents(mess)
    line = fails("quantize", "model.safetensors", "-f", "e2m1", "--backend", "numba")
    assert "'numba' is not available" in line
    assert contents(mess) == before


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_without_its_packages_the_command_says_how_to_get_them(
    package: str, fails: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(sys.modules):
        if name.startswith("fpemu.cli.") or name.split(".")[0] == package:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(cli, "_app")
    monkeypatch.setitem(sys.modules, package, None)
    assert "pip install 'fpemu[cli]'" in fails("formats")


def test_without_matplotlib_plot_is_refused_before_any_work(
    mess: Path, fails: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    line = fails("quantize", "model.safetensors", "-f", "e2m1", "--plot", "out.png")
    assert "pip install 'fpemu[plot]'" in line


def test_an_interrupt_leaves_nothing(
    mess: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_work, "error", interrupted)
    before = contents(mess)
    assert cli.run(["quantize", "model.safetensors", "-f", "e2m1"]) == 130
    assert contents(mess) == before
    assert "Traceback" not in capsys.readouterr().err


# --------------------------------------------------------------------- doctor


def test_doctor_checks_every_backend(ok: Run) -> None:
    out = ok("doctor")
    assert max(map(len, out.splitlines())) <= 80
    for name in backends.names():
        row = next(line.split() for line in out.splitlines() if line.startswith(f"{name} "))
        assert row[1:3] == (["no"] if backends.why_not(name) else ["yes", "agrees"])[:2] or (
            backends.why_not(name)
        )
    for name in _doctor.EXTRAS:
        assert name in out


def test_doctor_finds_a_backend_that_is_wrong(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    quantize = _doctor.quantize

    def wrong(x: np.ndarray, *arguments: object, **options: object) -> np.ndarray:
        if options["rounding"] == "nearest_even":
            options["rounding"] = Rounding.NEAREST_AWAY
        return quantize(x, *arguments, **options)

    monkeypatch.setattr(_doctor, "quantize", wrong)
    assert cli.run(["doctor"]) == 1
    assert "differs" in capsys.readouterr().out


def test_doctor_says_how_to_get_what_is_missing(ok: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def why_not(name: str) -> str | None:
        return "backend 'numba' is not available: 'fpemu[numba]'" if name == "numba" else None

    monkeypatch.setattr(backends, "why_not", why_not)
    monkeypatch.setattr(_doctor, "_installed", lambda name: None)
    out = " ".join(ok("doctor").split())
    assert "numba no backend 'numba' is not available: 'fpemu[numba]'" in out
    assert "not installed; pip install 'fpemu[plot]'" in out


# ------------------------------------------------------------------ a process


def test_the_module_runs_as_a_command() -> None:
    done = python_m("explain", "-0.3", "e2m1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("-0.3 in e2m1")
    done = python_m("show", "nope")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_a_closed_pipe_is_no_traceback() -> None:
    command = f"{sys.executable} -m fpemu show e5m2 | head -1"
    done = subprocess.run(
        command, shell=True, cwd=ROOT, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.stdout.startswith("e5m2")
    assert done.stderr == ""


def test_light_commands_load_neither_numba_nor_matplotlib() -> None:
    code = (
        "import sys\nfrom fpemu import cli\ncli.run(['show', 'e2m1'])\n"
        "print([name for name in ('numba', 'matplotlib', 'torch') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_recipes_are_plain_json(model: Path, ok: Run) -> None:
    target = model.with_name("out.safetensors")
    ok("quantize", model, "-f", "e2m1", "--policy", "ml_dtypes", "-o", target)
    assert json.loads(json.dumps(recipe(target))) == recipe(target)
