from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planish import CheckpointError, ConfigError, DataError
from planish_lightning.text_data import TextData, TextDataModule, TokenBatches, read_corpus

TOKENS = torch.arange(2000, dtype=torch.int16)


def batches(**changed):
    return TokenBatches(TOKENS, **{"length": 16, "batch_size": 4, "seed": 3, **changed})


def take(source, count):
    """Return the inputs of ``count`` batches, over epochs."""
    found = []
    while len(found) < count:
        for batch in source:
            found.append(batch["input_ids"])
            if len(found) == count:
                break
    return torch.stack(found)


class TestOrder:
    def test_each_window_comes_once_in_a_pass(self):
        source = batches()
        starts = torch.cat([batch["input_ids"][:, 0] for batch in source])
        assert len(starts) == len(source) * 4 == len(set(starts.tolist()))
        assert len({int(start) % 16 for start in starts}) == 1  # one offset for the whole pass

    def test_windows_are_contiguous_and_labels_equal_inputs(self):
        batch = next(iter(batches()))
        assert (batch["input_ids"].diff(dim=1) == 1).all()
        assert torch.equal(batch["input_ids"], batch["labels"])
        assert batch["labels"].data_ptr() != batch["input_ids"].data_ptr()

    def test_passes_differ_and_seeds_differ_and_a_seed_repeats(self):
        source = batches()
        count = len(source)
        two = take(source, 2 * count)
        assert not torch.equal(two[:count], two[count:])
        assert torch.equal(two, take(batches(), 2 * count))
        assert not torch.equal(two, take(batches(seed=4), 2 * count))

    @settings(max_examples=30, deadline=None)
    @given(stop=st.integers(0, 90), epoch=st.sampled_from([None, 7, 50]))
    def test_continues_anywhere(self, stop, epoch):
        whole = take(batches(batches_per_epoch=epoch), 95)
        first = batches(batches_per_epoch=epoch)
        if stop:
            assert torch.equal(take(first, stop), whole[:stop])
        second = batches(batches_per_epoch=epoch)
        second.load_state_dict(first.state_dict())
        assert torch.equal(take(second, 95 - stop), whole[stop:])

    def test_epochs_of_another_length_give_the_same_stream(self):
        assert len(batches(batches_per_epoch=7)) == 7
        assert torch.equal(take(batches(batches_per_epoch=7), 60), take(batches(), 60))

    def test_ranks_share_what_one_process_with_a_larger_batch_sees(self):
        one = take(batches(batch_size=8), 10)
        ranks = [take(batches(rank=rank, ranks=2), 10) for rank in (0, 1)]
        assert torch.equal(torch.cat(ranks, dim=1), one)

    def test_an_epoch_is_a_multiple_of_the_accumulation(self):
        assert len(batches()) == 31
        assert len(batches(multiple_of=7)) == 28

    def test_state_of_other_data_is_refused(self):
        state = batches().state_dict()
        for changed in ({"seed": 4}, {"length": 8}, {"batch_size": 2}, {"ranks": 2}):
            with pytest.raises(CheckpointError, match="saved with other data"):
                batches(**changed).load_state_dict(state)
        with pytest.raises(CheckpointError):
            TokenBatches(TOKENS.flip(0), length=16, batch_size=4, seed=3).load_state_dict(state)


class TestValidation:
    def test_goes_over_the_same_windows_each_time(self):
        source = batches(shuffle=False)
        first, second = ([b["input_ids"] for b in source] for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(first, second))
        assert torch.equal(torch.cat(first).flatten(), TOKENS.long())

    def test_a_limit_spreads_over_the_stream(self):
        starts = torch.cat([b["input_ids"][:, 0] for b in batches(shuffle=False, max_batches=2)])
        assert len(starts) == 8
        assert starts[0] == 0
        assert starts[-1] > 1700

    def test_ranks_get_equal_shares(self):
        shares = [list(batches(shuffle=False, rank=r, ranks=2)) for r in (0, 1)]
        assert [len(b["input_ids"]) for b in shares[0]] == [len(b["input_ids"]) for b in shares[1]]
        seen = torch.cat([b["input_ids"][:, 0] for share in shares for b in share])
        assert len(set(seen.tolist())) == len(seen) == 124


class TestTooShort:
    def test_shorter_than_a_window(self):
        with pytest.raises(DataError, match=r"corpus has 10 tokens.*seq_len 16.*more text or a smaller seq_len"):
            TokenBatches(TOKENS[:10], length=16, batch_size=4, what="corpus")

    def test_fewer_windows_than_devices(self):
        with pytest.raises(DataError, match="for 4 devices"):
            TokenBatches(TOKENS[:40], length=16, batch_size=1, ranks=4)

    @pytest.mark.parametrize("total", [16, 17, 31, 32, 47])
    def test_one_window_is_enough(self, total):
        batch = next(iter(TokenBatches(TOKENS[:total], length=16, batch_size=4)))
        assert batch["input_ids"].shape[1] == 16
        assert batch["input_ids"].max() < total


class TestCorpus:
    def test_standard_library(self):
        corpus = read_corpus(TextData(max_bytes=400_000))
        names = [d.name for d in corpus.train + corpus.val]
        assert "_py_abc.py" in names
        assert not set(names) & {"site-packages"}
        assert sum(len(d.text) for d in corpus.train + corpus.val) <= 400_000
        assert corpus == read_corpus(TextData(max_bytes=400_000))

    def test_splits_share_no_document_and_no_copy(self, corpus: Path):
        (corpus / "zz_copy.txt").write_text((corpus / "part3.txt").read_text())
        read = read_corpus(TextData(text=str(corpus), val_fraction=0.3))
        assert {d.name for d in read.train} | {d.name for d in read.val} == {f"part{i}.txt" for i in range(10)}
        assert not {d.text for d in read.train} & {d.text for d in read.val}
        share = sum(len(d.text) for d in read.val) / sum(len(d.text) for d in read.train + read.val)
        assert 0.1 < share < 0.4

    def test_one_file_is_cut_at_a_line_end(self, tmp_path: Path):
        path = tmp_path / "one.txt"
        path.write_text("".join(f"line {i}\n" for i in range(100)))
        read = read_corpus(TextData(text=str(path), val_fraction=0.2))
        head, tail = read.train[0].text, read.val[0].text
        assert head + tail == path.read_text()
        assert head.endswith("\n")
        assert 0.1 < len(tail) / len(head + tail) < 0.3

    def test_one_line_is_cut_as_well(self, tmp_path: Path):
        path = tmp_path / "one.txt"
        path.write_text("x" * 1000)
        read = read_corpus(TextData(text=str(path)))
        assert len(read.train[0].text) == 950

    def test_patterns_and_hidden_files(self, corpus: Path):
        (corpus / ".secret.txt").write_text("hidden")
        (corpus / "code.py").write_text("print(1)\n")
        read = read_corpus(TextData(text=str(corpus), files=("*.py", "part1*")))
        names = {d.name for d in read.train + read.val}
        assert names == {"code.py", "part1.txt"}

    def test_binary_files_among_text_are_left_out_with_a_warning(self, corpus: Path):
        (corpus / "image.bin").write_bytes(b"\x00\x01\x02")
        with pytest.warns(UserWarning, match=r"left out 1 of 11 files.*NUL"):
            read = read_corpus(TextData(text=str(corpus)))
        assert len(read.train) + len(read.val) == 10

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "holds no text"),
            (b" \n\n", "holds no text"),
            (b"\x89PNG\x00\x00", "not text .it holds NUL bytes"),
            (b"caf\xe9 noir", "not UTF-8 text .byte 3 is 0xe9"),
        ],
    )
    def test_bad_file(self, tmp_path: Path, content, message):
        path = tmp_path / "bad.txt"
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            read_corpus(TextData(text=str(path)))

    def test_bad_places(self, tmp_path: Path):
        with pytest.raises(DataError, match="no file or directory"):
            read_corpus(TextData(text=str(tmp_path / "missing")))
        with pytest.raises(DataError, match=r"no file or directory 'novel.txt'"):
            read_corpus(TextData(text="novel.txt"))
        with pytest.raises(DataError, match="holds no file"):
            read_corpus(TextData(text=str(tmp_path)))
        (tmp_path / "a.bin").write_bytes(b"\0")
        with pytest.raises(DataError, match="nor is any other of the 1 files"):
            read_corpus(TextData(text=str(tmp_path)))

    def test_unreadable_file(self, tmp_path: Path, monkeypatch):
        path = tmp_path / "locked.txt"
        path.write_text("text")

        def refuse(self):
            raise PermissionError(13, "Permission denied", str(self))

        monkeypatch.setattr(Path, "read_bytes", refuse)
        with pytest.raises(DataError, match=r"cannot read .*locked.txt: Permission denied"):
            read_corpus(TextData(text=str(path)))


class TestHuggingFaceDataset:
    @pytest.fixture
    def datasets(self, monkeypatch):
        module = types.ModuleType("datasets")
        module.load_dataset = lambda name, config, split: [
            {"text": f"{name} {split} {i} " * 9, "n": i} for i in range(20)
        ]
        monkeypatch.setitem(sys.modules, "datasets", module)
        return module

    def test_rows_are_documents(self, datasets):
        corpus = read_corpus(TextData(text="some/dataset", dataset_split="test"))
        assert len(corpus.train) + len(corpus.val) == 20
        assert corpus.train[0].text.startswith("some/dataset test")

    def test_wrong_column(self, datasets):
        with pytest.raises(DataError, match=r"no column 'body'; it has text, n"):
            read_corpus(TextData(text="some/dataset", column="body"))
        with pytest.raises(DataError, match="holds a int in row 0"):
            read_corpus(TextData(text="some/dataset", column="n"))

    def test_failure_is_one_line(self, datasets):
        def fail(name, config, split):
            raise ConnectionError("no\n  network")

        datasets.load_dataset = fail
        with pytest.raises(DataError, match=r"ConnectionError: no network") as caught:
            read_corpus(TextData(text="some/dataset"))
        assert "\n" not in str(caught.value)

    def test_package_missing(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(DataError, match=r"pip install 'planish-lightning\[datasets\]'"):
            read_corpus(TextData(text="some/dataset"))


class TestTokenizers:
    def test_bytes_round_trip(self, corpus: Path):
        data = TextDataModule(str(corpus), seq_len=16)
        text = "Grüße, 世界\n"
        from planish_lightning.text_data.corpus import Document

        ids = data.tokenizer.encode([Document("a", text), Document("b", "x")])
        assert ids.dtype == torch.uint8
        assert ids[-2:].tolist() == [ord("x"), 0]
        assert data.tokenizer.decode(ids.tolist()) == text + "x"

    def test_bpe_is_trained_once_and_round_trips(self, corpus: Path, tmp_path: Path, monkeypatch):
        from planish_lightning.text_data import BpeTokenizer
        from planish_lightning.text_data.corpus import Document

        trained = []
        train = BpeTokenizer.train.__func__
        monkeypatch.setattr(BpeTokenizer, "train", classmethod(lambda cls, *a: trained.append(1) or train(cls, *a)))
        options = {"tokenizer": "bpe", "vocab_size": 300, "cache": tmp_path / "cache", "seq_len": 16}
        first, second = (TextDataModule(str(corpus), **options) for _ in range(2))
        assert first.tokenizer.vocab_size == second.tokenizer.vocab_size == 300
        assert len(trained) == 1
        text = "part 3\nüç 7f"
        ids = first.tokenizer.encode([Document("a", text)])
        assert len(ids) - 1 < len(text.encode())
        assert ids[-1] == 0
        assert first.tokenizer.decode(ids.tolist()) == text
        assert torch.equal(
            next(iter(first.train_dataloader()))["labels"], next(iter(second.train_dataloader()))["labels"]
        )

    def test_bpe_sees_no_validation_text(self, corpus: Path, tmp_path: Path):
        from planish_lightning.text_data.tokenizer import tokenizer_for

        config = TextData(text=str(corpus), tokenizer="bpe", vocab_size=300, cache=tmp_path / "c")
        read = read_corpus(config)
        secret = type(read.val[0])("secret", "qqqqqqqqqqqqqqqq " * 1000)
        other = type(read)(read.source, read.train, (secret,), read.digest)
        assert len(tokenizer_for(config, other).encode([secret])) > 1000

    def test_damaged_cache(self, corpus: Path, tmp_path: Path):
        options = {"tokenizer": "bpe", "vocab_size": 300, "cache": tmp_path}
        assert TextDataModule(str(corpus), **options).tokenizer
        next(tmp_path.glob("*.json")).write_text("{")
        with pytest.raises(DataError, match=r"damaged.*delete it"):
            assert TextDataModule(str(corpus), **options).tokenizer

    def test_unwritable_cache_only_warns(self, corpus: Path, tmp_path: Path):
        (tmp_path / "file").write_text("")
        data = TextDataModule(str(corpus), tokenizer="bpe", vocab_size=300, cache=tmp_path / "file" / "sub")
        with pytest.warns(UserWarning, match="is not kept"):
            data.setup()
        assert data.tokenizer.vocab_size == 300


def test_options_are_checked():
    with pytest.raises(ConfigError, match=r"data.seq_lenn: unknown field; did you mean 'seq_len'"):
        TextDataModule(seq_lenn=3)
    with pytest.raises(ConfigError, match=r"data.val_fraction"):
        TextDataModule(val_fraction=1.0)
    with pytest.raises(ConfigError, match="empty pattern"):
        TextDataModule(files=("",))
