"""Hooks of mkdocs: pages lie where they lie in the repository, README.md being the first, so that their links hold on
both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/**/*",
    "benchmarks/NOTES.md",
    "benchmarks/gpu.sh",
    "benchmarks/results/*.*",
    "kernels/README.md",
    "tests/mutations/found.md",
)
"""What the site shows, and what its pages link to."""
SUFFIXES = (".md", ".png", ".jpg", ".html", ".sh", ".toml", ".csv", ".json")


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """The files above, besides those of the theme."""
    found = [file for file in files if file.src_dir != config.docs_dir]
    for pattern in PAGES:
        for path in sorted(ROOT.glob(pattern)):
            if path.is_file() and path.suffix in SUFFIXES:
                name = path.relative_to(ROOT).as_posix()
                found.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    return Files(found)
