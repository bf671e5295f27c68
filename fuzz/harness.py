"""What the fuzz targets share: seeds, a folder for the file under test, and what counts as a finding."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import atheris

CORPUS = Path(__file__).parent / "corpus"
# Arguments of libFuzzer: a reader that takes longer (seconds), or more memory (MiB), is a finding.
LIMITS = ["-timeout=20", "-rss_limit_mb=4096", "-max_len=16384"]


def working_folder(name):
    """An empty folder of a target, in memory where the system has such a place; the next run empties it."""
    folder = Path("/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir(), f"atss-fuzz-{name}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def fuzz(target, seeds, tokens=()):
    """Run libFuzzer until it is stopped, by `-max_total_time=` say, or finds something; further arguments go to it.

    Args:
        target: function of a file's bytes, which raises what should not happen.
        seeds: dict from name to bytes, the valid files to start from.
        tokens: texts that mutations put in.
    """
    from atss.errors import InputError

    name = Path(sys.argv[0]).stem
    corpus = CORPUS / name
    corpus.mkdir(parents=True, exist_ok=True)
    for seed, data in seeds.items():
        (corpus / f"seed-{seed}").write_bytes(data)
    words = corpus.with_suffix(".dict")
    words.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in t.encode()) + '"\n' for t in tokens))

    def one_input(data):
        try:
            target(data)
        except InputError as error:
            if len(str(error).splitlines()) != 1:
                raise AssertionError(f"not one line: {error!r}") from error

    arguments = [*LIMITS, f"-dict={words}", f"-artifact_prefix={CORPUS}/finding-{name}-"]
    atheris.Setup([sys.argv[0], *arguments, *sys.argv[1:], str(corpus)], one_input)
    atheris.Fuzz()
