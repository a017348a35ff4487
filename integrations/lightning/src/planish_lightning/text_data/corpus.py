"""Corpora: named documents in a fixed order, and their split into training and validation."""

from __future__ import annotations

import hashlib
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from planish.errors import DataError

from planish_lightning.text_data.config import TextData

_NOT_LIBRARY = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}


@dataclass(frozen=True)
class Document:
    """One text with a name that is stable from machine to machine."""

    name: str
    text: str


@dataclass(frozen=True)
class Corpus:
    """Documents of the two splits; no document, and no copy of one, is in both.

    Attributes:
        source: What was read, for messages.
        train: Documents to train on.
        val: Documents to validate on.
        digest: Hexadecimal SHA-256 over names and texts of the training documents.
    """

    source: str
    train: tuple[Document, ...]
    val: tuple[Document, ...]
    digest: str


def read_corpus(config: TextData) -> Corpus:
    """Return the corpus that ``config`` names.

    Documents are ordered by name and copies of an earlier one are left out. Whole documents go to validation, chosen
    by the hash of their names until ``val_fraction`` of the text is reached; a corpus of one document is cut at a
    line end.

    Raises:
        DataError: Nothing there, not readable, not text, or empty; a dataset cannot be loaded.
    """
    documents: list[Document] = []
    seen: set[bytes] = set()
    size = 0
    for document in _documents(config):
        key = hashlib.sha256(document.text.encode()).digest()
        if key in seen or not document.text.strip():
            continue
        seen.add(key)
        if config.max_bytes is not None and documents and size + len(document.text) > config.max_bytes:
            break
        documents.append(document)
        size += len(document.text)
    if not documents:
        raise DataError(f"data.text: {config.text!r} holds no text; every document is empty")
    train, val = _split(documents, config)
    digest = hashlib.sha256()
    for document in train:
        digest.update(f"{document.name}\0{document.text}\0".encode())
    return Corpus(config.text, tuple(train), tuple(val), digest.hexdigest())


def _documents(config: TextData) -> Iterator[Document]:
    if config.text == "stdlib":
        yield from _standard_library()
        return
    path = Path(config.text).expanduser()
    if path.is_dir():
        yield from _directory(path, config.files)
    elif path.exists():
        yield Document(path.name, _read(path))
    elif _looks_like_path(config.text):
        raise DataError(
            f"data.text: there is no file or directory {config.text!r}; give an existing path, 'stdlib', or the name "
            "of a Hugging Face dataset"
        )
    else:
        yield from _dataset(config)


def _standard_library() -> Iterator[Document]:
    root = Path(sysconfig.get_paths()["stdlib"])
    names = sorted(
        file.relative_to(root).as_posix()
        for file in root.rglob("*.py")
        if not _NOT_LIBRARY & set(file.relative_to(root).parts)
    )
    if not names:
        raise DataError(
            f"data.text: 'stdlib' found no Python source in {root}; this Python ships compiled modules only, "
            "give a path to a text instead"
        )
    for name in names:
        try:
            yield Document(name, (root / name).read_bytes().decode("utf-8"))
        except UnicodeDecodeError:
            continue  # a handful of codec samples are in other encodings, the same ones everywhere


def _directory(root: Path, patterns: tuple[str, ...]) -> Iterator[Document]:
    names = sorted(
        file.relative_to(root).as_posix()
        for file in root.rglob("*")
        if file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(root).parts)
        and any(fnmatchcase(file.name, pattern) for pattern in patterns)
    )
    if not names:
        shown = "" if patterns == ("*",) else f" that matches {', '.join(patterns)}"
        raise DataError(f"data.text: directory {root} holds no file{shown}; give a directory with text files")
    refused: list[DataError] = []
    for name in names:
        try:
            yield Document(name, _read(root / name))
        except _NotTextError as error:
            refused.append(error)
    if len(refused) == len(names):
        raise DataError(f"{refused[0]} (nor is any other of the {len(names)} files in {root})")
    if refused:
        warnings.warn(f"left out {len(refused)} of {len(names)} files in {root}: {refused[0]}", stacklevel=2)


class _NotTextError(DataError):
    pass


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"data.text: cannot read {path}: {error.strerror}; check its permissions") from error
    if b"\0" in data:
        raise _NotTextError(f"data.text: {path} is not text (it holds NUL bytes); give UTF-8 text")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _NotTextError(
            f"data.text: {path} is not UTF-8 text (byte {error.start} is 0x{data[error.start]:02x}); convert it first"
        ) from None


def _looks_like_path(text: str) -> bool:
    known = {".csv", ".gz", ".htm", ".html", ".json", ".jsonl", ".log", ".md", ".py", ".rst", ".tsv", ".txt", ".xml"}
    return text.startswith((".", "/", "~")) or "\\" in text or text.count("/") > 1 or Path(text).suffix.lower() in known


def _dataset(config: TextData) -> Iterator[Document]:
    try:
        import datasets
    except ImportError:
        raise DataError(
            f"data.text: {config.text!r} is no path, and Hugging Face datasets need a package that is not installed; "
            "give an existing path, or run: pip install 'planish-lightning[datasets]'"
        ) from None
    try:
        rows: Iterable[Any] = datasets.load_dataset(config.text, config.dataset_config, split=config.dataset_split)
    except Exception as error:  # network, hub, file formats: datasets raises whatever its parts raise
        reason = " ".join(str(error).split())[:300]
        raise DataError(
            f"data.text: {config.text!r} is no existing path, and no Hugging Face dataset that could be loaded "
            f"(split {config.dataset_split!r}): {type(error).__name__}: {reason}"
        ) from error
    for number, row in enumerate(rows):
        if config.column not in row:
            raise DataError(f"data.column: {config.text!r} has no column {config.column!r}; it has {', '.join(row)}")
        value = row[config.column]
        if not isinstance(value, str):
            raise DataError(
                f"data.column: {config.column!r} of {config.text!r} holds a {type(value).__name__} in row {number}; "
                "name a column of text"
            )
        yield Document(f"{number:012d}", value)


def _split(documents: list[Document], config: TextData) -> tuple[list[Document], list[Document]]:
    if len(documents) == 1:
        return _split_one(documents[0], config.val_fraction)
    wanted = config.val_fraction * sum(len(d.text) for d in documents)
    by_hash = sorted(documents, key=lambda d: hashlib.sha256(d.name.encode()).digest())
    chosen: set[str] = set()
    size = 0
    for document in by_hash[:-1]:
        if chosen and size + len(document.text) > wanted:
            continue
        chosen.add(document.name)
        size += len(document.text)
        if size >= wanted:
            break
    return [d for d in documents if d.name not in chosen], [d for d in documents if d.name in chosen]


def _split_one(document: Document, fraction: float) -> tuple[list[Document], list[Document]]:
    at = int(len(document.text) * (1 - fraction))
    at = document.text.find("\n", at) + 1 or at
    head, tail = document.text[:at], document.text[at:]
    if not tail:
        at = int(len(document.text) * (1 - fraction))
        head, tail = document.text[:at], document.text[at:]
    return [Document(f"{document.name}:head", head)], [Document(f"{document.name}:tail", tail)]
