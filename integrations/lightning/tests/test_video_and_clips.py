from __future__ import annotations

import lightning as L
import lightning_samples as samples
import pytest
import torch
from planish import ConfigError, DataError, PluginError, UnsupportedError
from planish.interfaces import Clip, VideoRequest
from planish_lightning import FilteredClips, LitVideoModel, Sparsify


def trainer(**changed):
    arguments = {
        "accelerator": "cpu",
        "max_steps": 40,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        **changed,
    }
    return L.Trainer(**arguments)


def batches():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 4, generator=generator)
    rows = [{"x": a, "y": a[:3] * 0.5} for a in x]
    return torch.utils.data.DataLoader(rows, batch_size=16)


class TestLitVideoModel:
    def test_trains_by_its_own_loss(self, registry, tmp_path):
        torch.manual_seed(0)
        lit = LitVideoModel("tint", lr=3e-2, registry=registry)
        run = trainer(default_root_dir=tmp_path)
        before = run.validate(lit, batches(), verbose=False)[0]["val/loss"]
        run.fit(lit, batches(), batches())
        after = run.validate(lit, batches(), verbose=False)[0]["val/loss"]
        assert after < 0.5 * before
        run.save_checkpoint(tmp_path / "a.ckpt")
        again = LitVideoModel("tint", registry=registry)
        again.load_state_dict(torch.load(tmp_path / "a.ckpt")["state_dict"])
        assert torch.equal(again.video_model.net[0].weight, lit.video_model.net[0].weight)

    def test_generates_in_evaluation_mode_and_goes_back(self, registry):
        lit = LitVideoModel("tint", registry=registry)
        lit.train()
        video = lit.generate(VideoRequest(prompt="red", num_frames=2, height=4, width=4))
        assert video.frames.shape == (2, 4, 4, 3)
        assert lit.video_model.net.training
        with pytest.raises(DataError, match="tint requires prompt"):
            lit.generate(VideoRequest())

    def test_callbacks_reach_its_networks(self, registry):
        lit = LitVideoModel("tint", registry=registry)
        callback = Sparsify("half", targets=["painter_net.*"], registry=registry)
        trainer(max_steps=2, callbacks=[callback]).fit(lit, batches())
        assert set(callback.masks) == {"painter_net.0.weight", "painter_net.2.weight"}
        assert isinstance(lit.video_model.net[0], samples.MaskedLinear)  # the plugin's own network, not a copy

    def test_refusals(self, registry):
        with pytest.raises(UnsupportedError, match="training-free: call generate"):
            LitVideoModel("tint", {"is_frozen": True}, registry=registry)
        with pytest.raises(PluginError, match="did you mean 'tint'"):
            LitVideoModel("tnt", registry=registry)


class TestFilteredClips:
    @pytest.fixture
    def clips(self, tmp_path):
        made = []
        for number, size in enumerate((5, 50, 500, None, 70)):
            path = tmp_path / f"{number}.bin"
            if size is not None:
                path.write_bytes(b"x" * size)
            made.append(Clip(f"c{number}", str(path)))
        samples.BySize.scored = 0
        return made

    def data(self, clips, tmp_path, registry, **changed):
        options = {"dataset": lambda kept: [c.id for c in kept], "scores": tmp_path / "s.jsonl", **changed}
        return FilteredClips(clips, "by-size", registry=registry, **options)

    def test_keeps_and_says_why_not(self, clips, tmp_path, registry):
        data = self.data(clips, tmp_path, registry, batch_size=2, shuffle=False)
        data.prepare_data()
        data.setup()
        assert [c.id for c in data.kept] == ["c1", "c2", "c4"]
        assert data.rejected == {"c0": "smaller than 10", "c3": "No such file or directory"}
        assert [list(batch) for batch in data.train_dataloader()] == [["c1", "c2"], ["c4"]]
        assert data.val_dataloader() == []

    def test_scores_once_and_what_is_new(self, clips, tmp_path, registry):
        self.data(clips[:3], tmp_path, registry, score_batch=2).prepare_data()
        assert samples.BySize.scored == 3
        data = self.data(clips, tmp_path, registry, policy={"smallest": 60})
        data.prepare_data()
        data.setup()
        assert samples.BySize.scored == 5
        assert [c.id for c in data.kept] == ["c2", "c4"]

    def test_a_line_that_was_being_written_is_scored_again(self, clips, tmp_path, registry):
        self.data(clips, tmp_path, registry).prepare_data()
        path = tmp_path / "s.jsonl"
        path.write_text(path.read_text()[:-9])
        data = self.data(clips, tmp_path, registry)
        data.prepare_data()
        data.setup()
        assert samples.BySize.scored == 6
        assert len(data.kept) == 3

    def test_another_configuration_scores_again(self, clips, tmp_path, registry):
        self.data(clips, tmp_path, registry).prepare_data()
        data = self.data(clips, tmp_path, registry, options={"unit": 10})
        data.prepare_data()
        data.setup()
        assert samples.BySize.scored == 10
        assert [c.id for c in data.kept] == ["c2"]

    def test_validation_share_is_stable_and_apart(self, tmp_path, registry):
        clips = []
        for number in range(40):
            path = tmp_path / f"v{number}.bin"
            path.write_bytes(b"x" * 100)
            clips += [Clip(f"{number}a", str(path)), Clip(f"{number}b", str(path), 1.0)]
        data = self.data(clips, tmp_path, registry, val_fraction=0.3, batch_size=100)
        data.prepare_data()
        data.setup()
        train = {i for batch in data.train_dataloader() for i in batch}
        val = {i for batch in data.val_dataloader() for i in batch}
        assert train | val == {c.id for c in clips}
        assert not {i[:-1] for i in train} & {i[:-1] for i in val}
        assert 8 <= len(val) <= 40

    def test_refusals(self, clips, tmp_path, registry):
        data = self.data(clips, tmp_path, registry, policy={"smallest": 1000})
        data.prepare_data()
        with pytest.raises(DataError, match=r"keeps none of 5 clips .4 × smaller than 1000; 1 × No such file"):
            data.setup()
        with pytest.raises(DataError, match="no score for clip 'c0'"):
            self.data(clips, tmp_path, registry, scores=tmp_path / "new.jsonl").setup()
        with pytest.raises(ConfigError, match=r"by-size.policy.smalest: unknown field; did you mean 'smallest'"):
            self.data(clips, tmp_path, registry, policy={"smalest": 1})
        with pytest.raises(ConfigError, match="'c0' occurs more than once"):
            self.data([clips[0], clips[0]], tmp_path, registry)
        with pytest.raises(ConfigError, match="val_fraction is 1"):
            self.data(clips, tmp_path, registry, val_fraction=1)
        (tmp_path / "s.jsonl").write_text((tmp_path / "s.jsonl").read_text().replace('"c1"', "7"))
        with pytest.raises(DataError, match="line 3 is no row of by-size"):
            self.data(clips, tmp_path, registry).prepare_data()
