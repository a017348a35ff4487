from __future__ import annotations

import json
import os
import signal
import threading
import warnings
from pathlib import Path

import planish
import pytest
import torch
from planish import CheckpointError, ConfigError, DataError, UnsupportedError, WorkError
from planish.interfaces import RunOptions
from planish.recipe import Recipe
from planish.report import read_report
from planish_lightning.runner import runner as runner_module
from planish_lightning.runner.quiet import quiet
from planish_lightning.runner.runner import LightningRunner

MODEL = {
    "name": "llama",
    "config": {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32,
    },
}
QUIET = RunOptions(progress=False)


@pytest.fixture
def recipe(corpus: Path, tmp_path: Path):
    def make(**changed):
        values = {
            "model": MODEL,
            "data": {"text": str(corpus), "seq_len": 16, "batch_size": 4, "val_fraction": 0.3, "val_batches": 3},
            "transforms": [{"use": "half", "targets": ["*.mlp.*"], "config": {"decay": 0.01, "dense_last": 3}}],
            "trainer": {"max_steps": 12, "val_interval": 4, "lr": 0.01},
            "report": tmp_path / "out",
        }
        for key, value in changed.items():
            values[key] = {**values[key], **value} if isinstance(value, dict) and key in values else value
        return Recipe.model_validate(values)

    return make


def run(recipe, registry, options=QUIET):
    return LightningRunner(dict(recipe.trainer)).run(recipe, registry, options)


def numbers(folder: Path):
    """Return what must not depend on interruptions: all series and losses but times, and the model."""
    report = read_report(folder / "report.json")
    found = {}
    for name, variant in report.variants.items():
        for metric, series in variant.series.items():
            if metric != "step_ms":
                found[name, metric] = (series.steps, series.values)
        found[name, "summary"] = (variant.summary.train_loss, variant.summary.val_loss, variant.summary.steps)
    return found, (folder / "model" / "model.safetensors").read_bytes()


class TestWholeRun:
    def test_leaves_a_report_and_models(self, recipe, registry, tmp_path):
        result = run(recipe(), registry)
        folder = tmp_path / "out"
        assert result.folder == folder
        report = read_report(folder / "report.json")
        assert report.status == "finished"
        assert list(report.variants) == ["baseline", "composed"]
        for variant in report.variants.values():
            assert variant.series["loss"].steps == list(range(1, 13))
            assert variant.series["val_loss"].steps == [4, 8, 12]
            assert variant.series["loss"].values[-1] < variant.series["loss"].values[0]
            summary = variant.summary
            assert summary.steps == 12
            assert summary.tokens_per_s > 0
            assert summary.step_ms_p20 <= summary.step_ms_p50 <= summary.step_ms_p80
            assert summary.peak_memory_bytes > 1e6
            assert summary.parameters == 10800
        composed = report.variants["composed"]
        assert composed.plans[0]["use"] == "half"
        assert {(k.module, k.operation, k.kernel) for k in composed.kernels} == {
            (f"model.layers.0.mlp.{name}", "forward", "masked") for name in ("gate_proj", "up_proj", "down_proj")
        }
        assert composed.series["flips"].steps == list(range(1, 13))
        assert "<html" in (folder / "index.html").read_text()
        assert sorted(p.name for p in (folder / "state").iterdir()) == ["run.json"]
        assert not [p for p in folder.iterdir() if p.name.startswith(".")]

    def test_saved_models(self, recipe, registry, tmp_path):
        run(recipe(), registry)
        finished = planish.load(tmp_path / "out" / "model", registry=registry)
        assert type(finished.model.layers[0].mlp.up_proj) is torch.nn.Linear
        report = read_report(tmp_path / "out" / "report.json").variants["composed"]
        assert report.summary.model_extra["sparse_checkpoint_step"] == 8
        sparse = planish.load(tmp_path / "out" / "sparse", registry=registry)
        live = next(iter(planish.api.applied(sparse)))
        masks = live.transform.masks(sparse)
        assert len(masks) == 3
        assert all(mask.reshape(-1, 4).sum(1).eq(2).all() for mask in masks.values())

    def test_saved_model_has_the_reported_loss(self, recipe, registry, tmp_path):
        from planish_lightning import TextDataModule

        chosen = recipe()
        run(chosen, registry)
        model = planish.load(tmp_path / "out" / "model", registry=registry).eval()
        total = count = 0.0
        with torch.no_grad():
            for batch in TextDataModule(**chosen.data).val_dataloader():
                predicted = batch["labels"][:, 1:].numel()
                total += float(model(**batch).loss.double()) * predicted
                count += predicted
        reported = read_report(tmp_path / "out" / "report.json").variants["composed"].summary.val_loss
        assert total / count == pytest.approx(reported, rel=1e-6)

    def test_both_variants_start_alike_and_a_transform_that_does_nothing_changes_nothing(self, recipe, registry):
        report = run(
            recipe(transforms=[{"use": "half", "targets": ["*.mlp.up_proj"], "config": {"dense_last": 99}}]), registry
        ).report
        baseline, composed = (v["series"]["loss"]["values"] for v in report["variants"].values())
        assert composed[0] == pytest.approx(baseline[0], abs=0.1)
        assert composed[0] != baseline[0]

    def test_same_recipe_same_numbers(self, recipe, registry, tmp_path):
        for name in ("a", "b"):
            run(recipe(report=tmp_path / name), registry)
        assert numbers(tmp_path / "a") == numbers(tmp_path / "b")
        run(recipe(report=tmp_path / "c", seed=1), registry)
        assert numbers(tmp_path / "a") != numbers(tmp_path / "c")

    def test_without_baseline_and_without_transforms(self, recipe, registry):
        assert list(run(recipe(), registry, RunOptions(baseline=False, progress=False)).report["variants"]) == [
            "composed"
        ]
        report = run(recipe(transforms=[]), registry, RunOptions(baseline=False, progress=False)).report
        assert list(report["variants"]) == ["baseline"]

    def test_open_options_are_searched(self, recipe, registry, tmp_path):
        chosen = recipe(transforms=[{"use": "half", "targets": ["*.mlp.*"], "config": {"search": True}}])
        report = run(chosen, registry).report
        config = report["variants"]["composed"]["plans"][0]["config"]
        assert config["search"] is False
        assert config["decay"] in (0.0, 0.125)
        assert json.loads((tmp_path / "out/state/run.json").read_text())["transforms"][0]["config"] == config

    def test_accumulation_gives_the_larger_batch(self, recipe, registry, tmp_path):
        losses = []
        for name, batch, accumulate in (("a", 8, 1), ("b", 4, 2)):
            chosen = recipe(
                report=tmp_path / name, data={"batch_size": batch}, trainer={"accumulate_grad_batches": accumulate}
            )
            report = run(chosen, registry, RunOptions(baseline=False, progress=False)).report
            assert report["variants"]["composed"]["series"]["loss"]["steps"] == list(range(1, 13))
            losses.append(report["variants"]["composed"]["series"]["loss"]["values"])
        assert losses[0] == pytest.approx(losses[1], rel=2e-3)

    def test_bfloat16(self, recipe, registry):
        report = run(recipe(trainer={"precision": "bf16-mixed"}), registry).report
        assert report["variants"]["composed"]["summary"]["val_loss"] < 5.5

    def test_bpe_goes_with_the_model(self, recipe, registry, tmp_path):
        run(recipe(data={"tokenizer": "bpe", "vocab_size": 280, "cache": str(tmp_path / "c")}), registry)
        from tokenizers import Tokenizer

        assert Tokenizer.from_file(str(tmp_path / "out/model/tokenizer.json")).get_vocab_size() == 280
        assert planish.load(tmp_path / "out/model", registry=registry).config.vocab_size == 280

    def test_progress_lines(self, recipe, registry, capfd):
        run(recipe(), registry, RunOptions(progress=True))
        lines = capfd.readouterr().err.splitlines()
        assert any(line.startswith("dense baseline 8/12: loss ") for line in lines)
        assert any(line.startswith("half 12/12: loss ") for line in lines)
        assert not [line for line in lines if "GPU" in line or "Tip" in line or "warn" in line]


class TestResume:
    @pytest.mark.parametrize(("variant", "step"), [("baseline", 5), ("composed", 3), ("composed", 8), ("composed", 11)])
    def test_stopped_anywhere_ends_with_the_same_numbers(self, recipe, registry, tmp_path, monkeypatch, variant, step):
        run(recipe(report=tmp_path / "whole"), registry)
        stop_at(monkeypatch, variant, step)
        with pytest.raises(
            WorkError, match=rf"interrupted after step \d+ of 12 of the {variant} run; its state is kept"
        ):
            run(recipe(), registry)
        report = read_report(tmp_path / "out" / "report.json")
        assert report.status == "interrupted"
        monkeypatch.undo()
        result = run(recipe(), registry, RunOptions(resume=True, progress=False))
        assert result.report["status"] == "finished"
        assert numbers(tmp_path / "out") == numbers(tmp_path / "whole")

    def test_stopped_twice(self, recipe, registry, tmp_path, monkeypatch):
        run(recipe(report=tmp_path / "whole"), registry)
        for variant, step, resume in (("baseline", 2, False), ("baseline", 6, True), ("composed", 9, True)):
            stop_at(monkeypatch, variant, step)
            with pytest.raises(WorkError):
                run(recipe(), registry, RunOptions(resume=resume, progress=False))
            monkeypatch.undo()
        run(recipe(), registry, RunOptions(resume=True, progress=False))
        assert numbers(tmp_path / "out") == numbers(tmp_path / "whole")

    def test_crash_without_warning_falls_back_to_the_last_checkpoint(self, recipe, registry, tmp_path, monkeypatch):
        run(recipe(report=tmp_path / "whole", trainer={"checkpoint_every_steps": 3}), registry)
        crash_at(monkeypatch, 10)
        with pytest.raises(ValueError, match="pulled"):
            run(recipe(trainer={"checkpoint_every_steps": 3}), registry)
        monkeypatch.undo()
        saved = torch.load(tmp_path / "out/state/baseline.ckpt", weights_only=True)
        assert saved["global_step"] == 9
        assert read_report(tmp_path / "out/report.json").status == "failed"
        run(recipe(trainer={"checkpoint_every_steps": 3}), registry, RunOptions(resume=True, progress=False))
        assert numbers(tmp_path / "out") == numbers(tmp_path / "whole")

    def test_dropout_continues_its_random_stream(self, recipe, registry, tmp_path, monkeypatch):
        gpt2 = {"name": "gpt2", "config": {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32}}
        changed = {"transforms": []}

        def make(**more):
            return Recipe.model_validate({**recipe(**changed, **more).model_dump(), "model": gpt2})

        run(make(report=tmp_path / "whole"), registry)
        stop_at(monkeypatch, "baseline", 6)
        with pytest.raises(WorkError):
            run(make(), registry)
        monkeypatch.undo()
        run(make(), registry, RunOptions(resume=True, progress=False))
        assert numbers(tmp_path / "out") == numbers(tmp_path / "whole")

    def test_finished_run_is_returned(self, recipe, registry, monkeypatch):
        first = run(recipe(), registry).report
        monkeypatch.setattr(runner_module._Run, "_train_all", None)
        again = run(recipe(), registry, RunOptions(resume=True, progress=False)).report
        assert again["variants"]["composed"]["summary"] | {} == {
            **again["variants"]["composed"]["summary"],
            **first["variants"]["composed"]["summary"],
        }

    def test_nothing_to_resume(self, recipe, registry, tmp_path):
        with pytest.raises(CheckpointError, match=r"nothing to resume in .*out: run without --resume"):
            run(recipe(), registry, RunOptions(resume=True, progress=False))
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"trainer": {"lr": 0.02}}, "trainer.lr was 0.01 and is now 0.02"),
            ({"seed": 4}, "seed was 0 and is now 4"),
            ({"transforms": [{"use": "half", "config": {"decay": 0.5}}]}, r"transforms\[0\].targets was"),
            ({"transforms": []}, "transforms was"),
        ],
    )
    def test_another_recipe_is_refused(self, recipe, registry, tmp_path, changed, message):
        run(recipe(), registry)
        before = (tmp_path / "out/report.json").read_bytes()
        with pytest.raises(CheckpointError, match=f"a run of another recipe: {message}"):
            run(recipe(**changed), registry, RunOptions(resume=True, progress=False))
        with pytest.raises(CheckpointError, match="baseline was True and is now False"):
            run(recipe(), registry, RunOptions(resume=True, baseline=False, progress=False))
        assert (tmp_path / "out/report.json").read_bytes() == before

    def test_damaged_state(self, recipe, registry, tmp_path, monkeypatch):
        stop_at(monkeypatch, "baseline", 3)
        with pytest.raises(WorkError):
            run(recipe(), registry)
        monkeypatch.undo()
        checkpoint = tmp_path / "out/state/baseline.ckpt"
        checkpoint.write_bytes(checkpoint.read_bytes()[:100])
        with pytest.raises(CheckpointError, match=r"baseline.ckpt is damaged .*delete it"):
            run(recipe(), registry, RunOptions(resume=True, progress=False))
        (tmp_path / "out/state/run.json").write_text("{")
        with pytest.raises(CheckpointError, match=r"run.json is damaged .*run without --resume"):
            run(recipe(), registry, RunOptions(resume=True, progress=False))

    def test_a_new_run_replaces_its_own_files_only(self, recipe, registry, tmp_path):
        run(recipe(), registry)
        (tmp_path / "out/mine.txt").write_text("keep")
        run(recipe(seed=1), registry)
        assert (tmp_path / "out/mine.txt").read_text() == "keep"


class TestSignals:
    def test_first_signal_completes_the_step_and_keeps_it(self, recipe, registry, tmp_path, monkeypatch, capfd):
        handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        at_step(monkeypatch, 6, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(WorkError, match=r"interrupted after step 6 of 12 .*--resume to continue") as caught:
            run(recipe(), registry)
        assert caught.value.exit_code == 1
        assert "stopping after this step" in capfd.readouterr().err
        assert torch.load(tmp_path / "out/state/baseline.ckpt", weights_only=True)["global_step"] == 6
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers

    def test_second_signal_stops_at_once(self, recipe, registry, tmp_path, monkeypatch):
        handlers = signal.getsignal(signal.SIGINT)

        def twice():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)

        at_step(monkeypatch, 6, twice)
        with pytest.raises(WorkError, match="interrupted during the baseline run"):
            run(recipe(), registry)
        assert signal.getsignal(signal.SIGINT) == handlers
        assert read_report(tmp_path / "out/report.json").status == "interrupted"

    def test_works_outside_the_main_thread(self, recipe, registry):
        done = []
        chosen = recipe(trainer={"max_steps": 2, "val_interval": 2})
        thread = threading.Thread(target=lambda: done.append(run(chosen, registry)))
        thread.start()
        thread.join()
        assert done[0].report["status"] == "finished"


class TestBadInput:
    @pytest.mark.parametrize(
        ("changed", "kind", "message"),
        [
            ({"data": {"text": "missing/corpus.txt"}}, DataError, "no file or directory 'missing/corpus.txt'"),
            ({"data": {"seq_len": 64}}, ConfigError, "data.seq_len: 64 tokens, and the model takes 32"),
            ({"data": {"batch": 3}}, ConfigError, "data.batch: unknown field; did you mean 'batch_size'"),
            ({"data": {"tokenizer": "bpe"}, "model": {"config": {"vocab_size": 99}}}, ConfigError, "less than the"),
            ({"model": {"name": "lama"}}, ConfigError, "model.name: no model or architecture named 'lama'; did you"),
            ({"trainer": {"accelerator": "cuda"}}, UnsupportedError, "no CUDA GPU"),
            ({"trainer": {"accelerator": "cpu", "precision": "16-mixed"}}, UnsupportedError, "'16-mixed' needs a GPU"),
            ({"transforms": [{"use": "half", "targets": ["*.mpl.*"]}]}, planish.CompositionError, "matches no module"),
            ({"transforms": [{"use": "half", "config": {"decay": -1}}]}, ConfigError, r"\[0\].config.decay: .*-1"),
            ({"transforms": [{"use": "half"}, {"use": "half"}]}, planish.CompositionError, "both change weight.mask"),
        ],
    )
    def test_leaves_nothing_behind(self, recipe, registry, tmp_path, monkeypatch, changed, kind, message):
        monkeypatch.setenv("PLANISH_CACHE", str(tmp_path / "cache"))
        if "cuda" in str(changed) and torch.cuda.is_available():
            pytest.skip("there is a GPU")
        with pytest.raises(kind, match=message) as caught:
            run(recipe(**changed), registry)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()

    def test_too_short(self, recipe, registry, corpus, tmp_path):
        short = tmp_path / "short.txt"
        short.write_text("abc\n" * 3)
        with pytest.raises(DataError, match=r"data.text: the training split of .*short.txt' has .* seq_len 16"):
            run(recipe(data={"text": str(short)}), registry)

    @pytest.mark.parametrize("values", [{"max_steps": 0}, {"lr": 0}, {"betas": [0.9, 1.0]}, {"val_interval": 1}])
    def test_trainer_bounds(self, values):
        with pytest.raises(ConfigError, match=f"trainer.{'' if 'betas' in values else next(iter(values))}"):
            LightningRunner(values)

    def test_unwritable_report_folder(self, recipe, registry, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(WorkError, match=r"cannot create folder .*choose another folder"):
            run(recipe(report=tmp_path / "file" / "out"), registry)

    @pytest.mark.parametrize("name", ["baseline.ckpt", "report.json", "model.safetensors"])
    def test_full_disk(self, recipe, registry, tmp_path, monkeypatch, name):
        fill_disk(monkeypatch, name)
        with pytest.raises(WorkError, match=r"cannot write .*free space or choose another folder") as caught:
            run(recipe(trainer={"checkpoint_every_steps": 2}), registry)
        assert caught.value.exit_code == 1
        left = [p for p in (tmp_path / "out").rglob("*") if p.name.startswith(".")]
        assert not left
        assert not (tmp_path / "out" / "model").exists()

    def test_full_disk_then_room_again(self, recipe, registry, tmp_path, monkeypatch):
        run(recipe(report=tmp_path / "whole", trainer={"checkpoint_every_steps": 2}), registry)
        fill_disk(monkeypatch, "composed.ckpt", after=2)
        with pytest.raises(WorkError):
            run(recipe(trainer={"checkpoint_every_steps": 2}), registry)
        monkeypatch.undo()
        run(recipe(trainer={"checkpoint_every_steps": 2}), registry, RunOptions(resume=True, progress=False))
        assert numbers(tmp_path / "out") == numbers(tmp_path / "whole")


def test_dry_run_plans_without_text(recipe, registry, monkeypatch):
    monkeypatch.setattr("planish_lightning.text_data.data_module.read_corpus", None)
    plans = LightningRunner({}).plan(recipe(), registry, QUIET)
    assert [m.name.rpartition(".")[2] for m in plans[0].touched] == ["gate_proj", "up_proj", "down_proj"]


def test_warnings_of_frameworks_are_dropped_and_others_told_once():
    told = []
    with quiet(told.append):
        for _ in range(2):
            warnings.warn_explicit("a kernel\n fell back", UserWarning, "planish/x.py", 1)
        warnings.warn_explicit("chatter", UserWarning, "/x/site-packages/lightning/y.py", 1)
        warnings.warn_explicit("old", DeprecationWarning, "planish/x.py", 1)
    assert told == ["a kernel fell back"]


def at_step(monkeypatch, step, action, variant="baseline"):
    """Do something within the training step number ``step`` (from 1) of a variant."""
    from planish_lightning.language import LitCausalLM

    original = LitCausalLM.training_step
    trains = runner_module._Run._train
    now, done = [""], []

    def train(self, name):
        now[0] = name
        trains(self, name)

    def training_step(self, batch, batch_idx):
        if now[0] == variant and self.trainer.global_step == step - 1 and not done:
            done.append(True)
            action()
        return original(self, batch, batch_idx)

    monkeypatch.setattr(runner_module._Run, "_train", train)
    monkeypatch.setattr(LitCausalLM, "training_step", training_step)


def stop_at(monkeypatch, variant, step):
    at_step(monkeypatch, step, lambda: os.kill(os.getpid(), signal.SIGINT), variant)


def crash_at(monkeypatch, step):
    def crash():
        raise ValueError("pulled the plug")

    at_step(monkeypatch, step, crash)


def fill_disk(monkeypatch, name, after=0):
    """Let writing to files named ``name`` fail as on a full disk, from the ``after``-th write on."""
    import planish.atomic
    import planish.checkpoint

    count = [0]

    def check(path):
        if name in str(path):
            count[0] += 1
            if count[0] > after:
                raise OSError(28, "No space left on device")

    write_bytes = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", lambda self, data: (check(self), write_bytes(self, data))[1])
    save_file = planish.checkpoint.save_file
    monkeypatch.setattr(planish.checkpoint, "save_file", lambda t, path, **k: (check(path), save_file(t, path, **k))[1])
