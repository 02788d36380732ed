"""Every check of the project: ``nox -s lint types layers tests docs wheel``.

Needs Python with pip alone: nox makes each session's virtual environment and installs into it
what pyproject.toml lists. ``nox -R`` reuses them, ``nox -db uv`` is quicker where uv is there.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import nox

# With pip, because uv does not read pip's settings: behind a mirror only pip finds it.
nox.options.default_venv_backend = "virtualenv"
nox.options.sessions = ["lint", "types", "layers", "tests", "docs", "wheel"]

BENCHMARKS: dict[str, tuple[str, ...]] = {
    "search": (),
    "coherence": (),
    "stores": (),
    "engine": ("--longest", "1024", "--strategies", "bayes,gallop"),
    "recall": ("--longest", "1024", "--trials", "4", "--documents", "1"),
}
"""Each with the arguments that make it quick."""
PYPROJECT = nox.project.load_toml("pyproject.toml")


def group(name: str) -> tuple[str, ...]:
    """The requirements of one dependency group."""
    return nox.project.dependency_groups(PYPROJECT, name)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and formatting."""
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Types, strictly, also in tests, examples and benchmarks."""
    session.install("-e", ".[llamacpp]", *group("types"))
    session.run("pyright", "--pythonpath", shutil.which("python", path=session.bin) or "python")


@nox.session
def layers(session: nox.Session) -> None:
    """Imports only go down. The code is read, not run: nothing of it is installed."""
    session.install(*group("layers"))
    session.run("lint-imports", env={"PYTHONPATH": "cli"})


@nox.session
def tests(session: nox.Session) -> None:
    """The test suite with the real engine and every snippet of the documentation.

    What follows ``--`` goes to pytest.
    """
    session.install("-e", ".[llamacpp]", *group("test"))
    if session.posargs:
        session.run("pytest", *session.posargs)
    else:
        run_tests(session, "engine and not slow")


@nox.session(default=False)
def coverage(session: nox.Session) -> None:
    """The same and the slow tests; fails if they reach too little of the code."""
    session.install("-e", ".[llamacpp]", *group("test"))
    session.run("coverage", "erase")
    run_tests(session, "engine", "--cov", "--cov-append", "--cov-report=", "--cov-fail-under=0")
    session.run("coverage", "report")


def run_tests(session: nox.Session, engine: str, *options: str) -> None:
    """Tests in three parts, `engine` chooses those of the last; `options` are pytest's."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1
    options = ("--durations=10", *options)
    # Those that are done take over tests of the others, so that none ends long after them.
    processes = ("--dist", "worksteal", "-n")
    # One more than cores, because many wait for a deadline to pass.
    many = str(min(cores, 3) + 1)
    session.run("pytest", "tests", "-m", "not engine", *processes, many, *options)
    # In one process: the snippets of a document share their names.
    session.run("pytest", "docs", "README.md", *options)
    # As many engines of one thread as there are cores. Two on one core wait for each other, and
    # elsewhere than on Linux a process cannot be bound to one.
    session.run("pytest", "tests", "-m", engine, *processes, str(min(cores, 4)), *options)


@nox.session(default=False)
def lowest(session: nox.Session) -> None:
    """The tests without the engine, with the oldest of every package that users may have.

    Needs the oldest Python that is promised: old packages know no newer one.
    """
    session.install("-e", ".", *group("test"), *floors())
    session.run("pytest", "tests", "-m", "not engine", *(session.posargs or ("-n", "2")))


def floors() -> list[str]:
    """The lowest versions that pyproject.toml allows of what LMStrix and its extras need."""
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"]
    allowed = [*project["dependencies"], *extras["notebook"], *extras["testing"]]
    return [re.sub(r">=([\d.]+).*", r"==\1", requirement) for requirement in allowed]


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation without a warning, and its doctests; `tests` runs the snippets."""
    session.install("-e", ".", *group("docs"))
    out = Path("docs", "_build")
    build = ("sphinx-build", "-W", "-n", "-q", "-d", str(out / "doctrees"), "-b")
    session.run(*build, "html", "-E", "docs", str(out / "html"))
    # The same documents, already read.
    session.run(*build, "doctest", "docs", str(out / "doctest"))


@nox.session
def wheel(session: nox.Session) -> None:
    """Distributions that hold what they should and install; editable installs by pip and uv."""
    session.install(*group("wheel"))
    work = Path(session.create_tmp()).absolute()
    dist = work / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    # Without isolation, so that both builds have the same tools; pip isolates its own below.
    session.run("python", "-m", "build", "-q", "--no-isolation", "--outdir", str(dist))
    check_rebuilt(session, dist, work)
    session.run("twine", "check", "--strict", *map(str, dist.iterdir()))
    built = str(next(dist.glob("*.whl")))
    # An error where the wheel holds anything but these two packages.
    session.run("check-wheel-contents", "--toplevel", "lmstrix,lmstrix_cli", built)

    fresh = work / "fresh"
    session.run("python", "-m", "venv", "--clear", str(fresh))
    bin_dir = next(path for name in ("bin", "Scripts") if (path := fresh / name).is_dir())
    python = str(bin_dir / "python")
    pip = (python, "-m", "pip", "install", "-q")
    # uv finds only what it is set up for: what an editable install needs is there already.
    uv = ("uv", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--python", python)
    session.run(*pip, "hatchling", built, external=True)
    check_installed(session, bin_dir)
    for installer in (pip, uv):
        session.run(*pip[:3], "uninstall", "-q", "-y", "lmstrix", external=True)
        session.run(*installer, "-e", ".", external=True)
        check_installed(session, bin_dir)


def check_rebuilt(session: nox.Session, dist: Path, work: Path) -> None:
    """The source distribution lacks nothing and builds both files again, byte for byte."""
    source, again = work / "source", work / "again"
    for folder in (source, again):
        shutil.rmtree(folder, ignore_errors=True)
    # Not `shutil.unpack_archive`: its `filter` is missing before Python 3.11.4.
    session.run("python", "-m", "tarfile", "-e", str(next(dist.glob("*.tar.gz"))), str(source))
    tree = next(source.iterdir())
    session.run("python", "-m", "build", "-q", "--no-isolation", "--outdir", str(again), str(tree))
    for built in dist.iterdir():
        if built.read_bytes() != (again / built.name).read_bytes():
            session.error(f"{built.name} is another one each time it is built")


def check_installed(session: nox.Session, bin_dir: Path) -> None:
    """Both packages can be imported and the command runs, from outside the source tree."""
    with session.chdir(bin_dir):
        session.run(str(bin_dir / "python"), "-c", "import lmstrix, lmstrix_cli", external=True)
        session.run(str(bin_dir / "lmstrix"), "--version", external=True)


@nox.session(default=False)
def workflows(session: nox.Session) -> None:
    """The workflows in .github: their schema and their safety, without the network.

    actionlint, which fetches its program from GitHub, runs in the workflow alone.
    """
    session.install(*group("workflows"))
    files = sorted(str(path) for path in Path(".github", "workflows").glob("*.yml"))
    schemas = {"github-workflows": files, "dependabot": [".github/dependabot.yml"]}
    for schema, checked in schemas.items():
        session.run("check-jsonschema", "--builtin-schema", f"vendor.{schema}", *checked)
    session.run("zizmor", "--offline", ".github")


@nox.session(default=False)
def audit(session: nox.Session) -> None:
    """What gets installed, as a bill of materials, and the weaknesses known of it.

    The second asks the package index, and fails where that cannot be reached; ``-- sbom`` leaves
    it out. Both look at an environment of its own, in which nothing but LMStrix was installed.
    """
    session.install(*group("audit"))
    work = Path(session.create_tmp()).absolute()
    fresh = work / "fresh"
    session.run("python", "-m", "venv", "--clear", "--without-pip", str(fresh))
    python = str(next(p for p in (fresh / "bin", fresh / "Scripts") if p.is_dir()) / "python")
    session.run("python", "-m", "pip", "--python", python, "install", "-q", ".[llamacpp,notebook]")
    bill = str(work / "lmstrix.cdx.json")
    cyclonedx = ("cyclonedx-py", "environment", "--pyproject", "pyproject.toml")
    session.run(*cyclonedx, "--output-reproducible", "--output-file", bill, python)
    if session.posargs == ["sbom"]:
        return
    pip_list = ("pip", "--python", python, "list", "--format", "freeze", "--exclude", "lmstrix")
    listed = work / "installed.txt"
    listed.write_text(str(session.run("python", "-m", *pip_list, silent=True)))
    # Strictly: without it, what could not be looked up counts as sound.
    session.run("pip-audit", "--strict", "--disable-pip", "--no-deps", "-r", str(listed))


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """The benchmarks in a small form, or one with arguments: ``-- search --limits 16``."""
    session.install("-e", ".[llamacpp,testing]", *group("test"))
    chosen = {session.posargs[0]: session.posargs[1:]} if session.posargs else BENCHMARKS
    for name, arguments in chosen.items():
        session.run("python", str(Path("benchmarks", f"{name}.py")), *arguments)


@nox.session(default=False)
def soak(session: nox.Session) -> None:
    """300 measurements with faults injected at random, then 90 interruptions at random moments.

    ``-- --seed 2 --only 17`` repeats one measurement. The interruptions are for Linux.
    """
    session.install("-e", ".[llamacpp,testing]", *group("test"))
    session.run("python", str(Path("benchmarks", "soak")), *session.posargs)
    if not session.posargs and sys.platform == "linux":
        session.run("python", str(Path("benchmarks", "soak", "interruptions.py")))


@nox.session(default=False)
def fuzz(session: nox.Session) -> None:
    """100,000 hostile inputs across the parsers, counted; what follows ``--`` goes to pytest.

    Every test gets ``LMSTRIX_FUZZ_EXAMPLES`` inputs, slow ones a tenth of that, and puts some
    through several parsers.
    """
    session.install("-e", ".[testing]", *group("test"))
    examples = os.environ.get("LMSTRIX_FUZZ_EXAMPLES", "2500")
    session.run("pytest", "tests/fuzz", *session.posargs, env={"LMSTRIX_FUZZ_EXAMPLES": examples})


@nox.session(default=False)
def examples(session: nox.Session) -> None:
    """The examples on the real engine, the notebook in a real kernel."""
    session.install("-e", ".[llamacpp]", *group("test"))
    session.run("pytest", "-q", "tests/test_examples.py", *session.posargs)
